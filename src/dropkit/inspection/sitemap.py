"""The map of a model: every place where it drops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import nn

from dropkit.inspection.evidence import Evidence, look
from dropkit.inspection.showing import fragment, plain
from dropkit.records import Site


@dataclass(frozen=True, slots=True)
class SiteMap:
    """Every site of a model, in the order in which they run."""

    model: str
    """The class of the model."""
    sites: tuple[Site, ...]
    unseen: tuple[str, ...]
    """What could not be looked at, and why."""
    meta: bool = False
    """Whether the model ran without values, on the meta device."""

    def __iter__(self) -> Iterator[Site]:
        return iter(self.sites)

    def __len__(self) -> int:
        return len(self.sites)

    def __str__(self) -> str:
        return plain(self.model, self.sites, self.unseen)

    def _repr_html_(self) -> str:
        return fragment(self.model, self.sites, self.unseen)

    @overload
    def __getitem__(self, at: int) -> Site: ...
    @overload
    def __getitem__(self, at: str) -> tuple[Site, ...]: ...
    def __getitem__(self, at: int | str) -> Site | tuple[Site, ...]:
        """The site of a number, or all within a path."""
        if isinstance(at, int):
            return self.sites[at]
        return tuple(s for s in self.sites if s.path == at or s.path.startswith(f"{at}."))


def sites(model: nn.Module | torch.export.ExportedProgram, *args: Any, **kwargs: Any) -> SiteMap:
    """Map every place where a model drops, by running it.

    It runs in training and in evaluation mode, and is afterwards, bit by bit, what it was:
    parameters, buffers, modes, hooks, random state; also when it raises. What hides in slots,
    closures and classes is not reached, nor what it writes outside of the process. A model on the
    meta device runs without values or memory, and one that looks at values with made-up ones. Of
    what another process or thread does for it, or another generator than torch's draws, nothing is
    seen; the map says so in `unseen`.

    Args:
        model: any module, compiled or not; or an exported program, which is read and does not run.
        args: what it is called with.
        kwargs: what it is called with, by name.

    Returns:
        The sites in the order in which they ran; then those that the model holds and never ran.

    Raises:
        SettingError: it is no module, or cannot be called with these inputs.

    >>> import torch, dropkit
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Dropout(0.5))
    >>> found = dropkit.sites(net, torch.ones(2, 4))
    >>> [(site.path, site.kind, site.role, site.rate) for site in found]
    [('2', 'dropout', 'output', 0.5)]
    """
    return of(look(model, args, kwargs))


def of(evidence: Evidence) -> SiteMap:
    """The map that belongs to what was seen."""
    return SiteMap(evidence.name, evidence.sites, tuple(evidence.unseen), meta=evidence.passes.meta)
