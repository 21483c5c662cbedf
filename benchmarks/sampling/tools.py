"""Tools that draw from a model at inference, each as its own documentation has it used.

Where a tool has a way back it is taken; where it has none the model is put into evaluation mode,
as one does who goes on to predict.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata

import torch
from benchmarks.sampling.models import switched_on
from benchmarks.zoo.subjects import declare_operators
from torch import Tensor, nn

import dropkit

KEYS = itertools.count(1)
Sample = Callable[[nn.Module, Tensor, int], Tensor]
"""Gives (draws, *output)."""


@dataclass(frozen=True)
class Tool:
    """A way to draw, and what a user calls it."""

    name: str
    sample: Sample
    package: str = ""
    """Where it is from; empty: a recipe that users write."""
    missing: str = ""
    """Why it cannot be tried."""

    @property
    def version(self) -> str:
        """The release of its package."""
        return metadata.version(self.package) if self.package else ""


def loop(model: nn.Module, x: Tensor, draws: int) -> Tensor:
    """Passes of a model, one after the other."""
    with torch.no_grad():
        return torch.stack([model(x) for _ in range(draws)])


def naive(model: nn.Module, x: Tensor, draws: int) -> Tensor:
    """A loop with all that drops switched on, and nothing else: the reference of the speeds."""
    found = loop(switched_on(model), x, draws)
    model.eval()
    return found


def training_mode(model: nn.Module, x: Tensor, draws: int) -> Tensor:
    """The shortest recipe: training mode, passes, evaluation mode."""
    model.train()
    found = loop(model, x, draws)
    model.eval()
    return found


def class_walk(model: nn.Module, x: Tensor, draws: int) -> Tensor:
    """The recipe that is found most: modules whose class is called Dropout are switched on."""
    model.eval()
    for module in model.modules():
        if module.__class__.__name__.startswith("Dropout"):
            module.train()
    found = loop(model, x, draws)
    model.eval()
    return found


def vmapped(model: nn.Module, x: Tensor, draws: int) -> Tensor:
    """All passes as one, by `torch.vmap` with other randomness in each."""
    switched_on(model)
    numbers = torch.arange(draws)
    try:
        with torch.no_grad():
            found: Tensor = torch.vmap(lambda number: model(x), randomness="different")(numbers)
    finally:
        model.eval()
    return found


def of_dropkit(model: nn.Module, x: Tensor, draws: int) -> Tensor:
    """`dropkit.sample`, with another key in each call."""
    found: Tensor = dropkit.sample(model, x, draws=draws, key=next(KEYS)).samples
    return found


# ---- packages


def baal(*, fold: bool) -> Sample:
    """baal: dropout modules are replaced, and back."""
    from baal.bayesian.dropout import MCDropoutModule
    from baal.modelwrapper import ModelWrapper, TrainingArgs

    def sample(model: nn.Module, x: Tensor, draws: int) -> Tensor:
        with MCDropoutModule(model) as module:
            how = TrainingArgs(use_cuda=False, replicate_in_memory=fold)
            wrapper = ModelWrapper(module, how)
            wrapper.eval()
            found: Tensor = wrapper.predict_on_batch(x, iterations=draws)
        return found.movedim(-1, 0)

    return sample


def torch_uncertainty(*, fold: bool) -> Sample:
    """torch-uncertainty: dropout modules are kept in training mode."""
    from torch_uncertainty.methods import mc_dropout

    def sample(model: nn.Module, x: Tensor, draws: int) -> Tensor:
        wrapped = mc_dropout(model, num_estimators=draws, on_batch=fold).eval()
        with torch.no_grad():
            found: Tensor = wrapped(x)
        model.eval()
        return found.unflatten(0, (draws, len(found) // draws))

    return sample


def lightning_uq_box() -> Sample:
    """lightning-uq-box: training mode, with batch norms that it finds back in evaluation mode."""
    from lightning_uq_box.uq_methods import MCDropoutClassification

    def sample(model: nn.Module, x: Tensor, draws: int) -> Tensor:
        wrapped = MCDropoutClassification(model, draws, nn.CrossEntropyLoss())
        found: Tensor = wrapped.predict_step(x)["logits"]
        model.eval()
        return found.movedim(-1, 0)

    return sample


PACKAGES: Mapping[str, tuple[str, Callable[[], Sample]]] = {
    "baal": ("baal", lambda: baal(fold=True)),
    "baal, loop": ("baal", lambda: baal(fold=False)),
    "torch-uncertainty": ("torch-uncertainty", lambda: torch_uncertainty(fold=True)),
    "torch-uncertainty, loop": ("torch-uncertainty", lambda: torch_uncertainty(fold=False)),
    "lightning-uq-box": ("lightning-uq-box", lightning_uq_box),
}
"""By name: the package, and what makes the tool of it. Those that fold do so unless told not to."""


def packaged(name: str) -> Tool:
    """A tool of a package; one that cannot be imported says why."""
    package, make = PACKAGES[name]
    declare_operators()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Tool(name, make(), package)
    except Exception as error:  # whatever a package, or one that it needs, fails with
        said = str(error).strip().splitlines()[:1]
        why = f"{type(error).__name__}: {said[0] if said else ''}"
        return Tool(name, _never, missing=why)


def _never(model: nn.Module, x: Tensor, draws: int) -> Tensor:
    raise NotImplementedError("a tool that is missing was asked to draw")


def all_tools() -> list[Tool]:
    """For the table of sites: each tool as it is used unless told otherwise."""
    return [
        Tool("dropkit", of_dropkit, "dropkit"),
        Tool("`model.train()`", training_mode),
        Tool("class walk", class_walk),
        *(packaged(name) for name in PACKAGES if "loop" not in name),
        Tool("`torch.vmap`", vmapped),
    ]
