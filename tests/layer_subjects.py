"""The layers with a rate, and what each claims: a table for the conformance suite."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dropkit import nn
from dropkit.testing import STANDARD, Block, Claim, Gaussian, Subject

CLAIMS: frozenset[Claim] = STANDARD | {"selects"}
MAPS = CLAIMS - {"scalar"}
"""What a layer claims whose input has samples and channels."""


class Noise(nn.GaussianNoise):
    """So that the suite may call the spread a rate."""

    options = ()


def subject(
    kind: type[Any], shape: tuple[int, ...], shared: tuple[int, ...] = (), /, **row: Any
) -> Subject:
    """A row of the table; `options` are handed to the layer."""
    options = row.pop("options", {})
    row.setdefault("claims", CLAIMS if len(shape) == 2 else MAPS)
    told = ", ".join(f"{name}={value}" for name, value in options.items())

    def made(p: float, **more: Any) -> Any:
        return kind(p, **options, **more)

    def generated(p: float) -> Any:
        def run(x: Tensor, generator: torch.Generator) -> Tensor:
            result: Tensor = made(p)(x, generator=generator)
            return result

        return run

    if "inplace" in kind.options:
        row.setdefault("inplace", lambda p: made(p, inplace=True))
    return Subject(
        name=f"{kind.__name__}({told})", make=made, shape=shape, shared=shared, keyed=made,
        generator=generated, **row,
    )  # fmt: skip


SUBJECTS = [
    subject(nn.Dropout, (8, 16)),
    subject(nn.Dropout, (8, 16, 5), (1,), options={"shared": (1,)}, claims=CLAIMS),
    subject(
        nn.Dropout,
        (8, 16),
        options={"scaling": "classic"},
        scaling="classic",
        inplace=None,
        claims=CLAIMS - {"integer"},  # outside of training they are scaled, and so refused
    ),
    subject(nn.Dropout1d, (8, 16, 7), (2,)),
    subject(nn.Dropout2d, (8, 16, 7, 5), (2, 3)),
    subject(nn.Dropout3d, (8, 16, 3, 4, 5), (2, 3, 4)),
    subject(nn.SpatialDropout, (8, 7, 5, 16), (1, 2), options={"channels_last": True}),
    subject(nn.AlphaDropout, (8, 16), scaling="alpha"),
    subject(nn.FeatureAlphaDropout, (8, 16, 7), (2,), scaling="alpha"),
    subject(nn.DropBlock1d, (4, 4, 15), law=Block((2,), 4), options={"block_size": 4}),
    subject(nn.DropBlock2d, (4, 4, 14, 12), law=Block((2, 3), 3), options={"block_size": 3}),
    subject(
        nn.DropBlock2d,
        (64, 2, 6, 8),
        (1,),
        law=Block((2, 3), 2),
        options={"block_size": 2, "shared": (1,)},
    ),
    subject(nn.DropPath, (16, 5, 3), (1, 2), claims=CLAIMS),
    subject(nn.HeadDropout, (8, 4, 5, 3), (2, 3)),
    subject(nn.TokenDropout, (8, 16, 5), (2,), claims=MAPS - {"integer"}),
    subject(nn.GaussianDropout, (8, 16), law=Gaussian()),
    subject(nn.GaussianDropout, (8, 16, 5), (1,), options={"shared": (1,)}, law=Gaussian()),
    subject(Noise, (8, 16), law=Gaussian(std=lambda p: p, additive=True)),
]
