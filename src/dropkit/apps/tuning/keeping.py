"""The weights of the best trials, as files; those of the others go."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dropkit.apps.saving import write_file
from dropkit.apps.tuning.results import Search
from dropkit.errors import MissingExtraError, SettingError

FOLDER = "weights"
_NAME = re.compile(r"trial-(\d+)\.(safetensors|bin)")


class Keeper:
    """The folder of weights of a search."""

    def __init__(self, out: str, best: int) -> None:
        self._folder = Path(out).resolve() / FOLDER  # an objective may change the folder it is in
        self._best = best

    def keep(self, number: int, weights: Mapping[str, Any] | bytes) -> None:
        """Write the weights of a trial, all or nothing."""
        if not self._best:
            return
        kind = "bin" if isinstance(weights, bytes) else "safetensors"
        content = weights if isinstance(weights, bytes) else _safe(weights)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"trial-{number}.{kind}"
        write_file(path, content)
        for other in self.files().get(number, []):
            if other != path:
                other.unlink(missing_ok=True)

    def files(self) -> dict[int, list[Path]]:
        """For each trial whose weights are there, their files."""
        found: dict[int, list[Path]] = {}
        for path in sorted(self._folder.glob("trial-*")):
            match = _NAME.fullmatch(path.name)
            if match:
                found.setdefault(int(match.group(1)), []).append(path)
        return found

    def tidy(self, search: Search) -> None:
        """Delete what is neither among the best, nor of a trial that is not over."""
        over = {trial.number for trial in search.trials if trial.ended}
        best = {trial.number for trial in search.ranked[: self._best]}
        for number, paths in self.files().items():
            if number in over - best:
                for path in paths:
                    path.unlink(missing_ok=True)


def _safe(weights: Mapping[str, Any]) -> bytes:
    import torch

    try:
        from safetensors.torch import save
    except ModuleNotFoundError:
        raise MissingExtraError(
            "keep: weights are written by the package safetensors, which is not installed; try: "
            'pip install "dropkit[tune]"'
        ) from None
    odd = [name for name, value in weights.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise SettingError(
            f"keep: expected a dictionary of tensors; got {odd[0]!r}: "
            f"{type(weights[odd[0]]).__name__}. Leave it out, or give bytes of your own making"
        )
    apart = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    return save(apart)  # apart: tensors that share memory are no business of the file
