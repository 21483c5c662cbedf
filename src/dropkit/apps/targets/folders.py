"""Model folders of `dropkit fit`."""

from __future__ import annotations

from pathlib import Path

from dropkit.apps.targets.target import Inputs, Target
from dropkit.inspection.showing import printable

ROWS = 8


def folder_target(path: Path) -> Target:
    """The networks of a folder, as they predict.

    Raises:
        ModelFolderError: it is no folder that `dropkit fit` wrote, or a damaged one.
    """
    import torch
    from torch import Tensor, nn

    from dropkit.apps import folder
    from dropkit.training.encoding import Encoded
    from dropkit.training.network import Shape

    stored = folder.load(path)
    _, description = stored.model.state()
    shape: Shape = Shape(**description["shape"])

    class Predictor(nn.Module):
        """What a fitted model computes from encoded rows."""

        def forward(self, numbers: Tensor, flags: Tensor, codes: Tensor) -> Tensor:
            return torch.from_numpy(stored.model.read(Encoded(numbers, flags, codes)))

    inputs = Inputs(
        (
            torch.zeros(ROWS, shape.numbers),
            torch.zeros(ROWS, shape.flags),
            torch.zeros(ROWS, len(shape.levels), dtype=torch.int64),
        )
    )
    note = "how it was trained: a model folder predicts, and holds masks in no mode"
    return Target(
        f"model folder {printable(path, 120)}",
        Predictor(),
        inputs,
        (note,),
        str(path / folder.MODEL),
    )
