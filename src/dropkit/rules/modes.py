"""In which mode a model was handed over, and what of it would act in training mode."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropkit.rules.seen import counted, listed, within

if TYPE_CHECKING:
    from torch import nn

    from dropkit.inspection.evidence import Evidence


@dataclass(frozen=True, slots=True)
class Acting:
    """What differs between the modes, by path of its module."""

    dropouts: tuple[str, ...]
    """What was seen to drop in training mode, and not in evaluation mode."""
    norms: tuple[str, ...]
    """Batch norms, which take the statistics of a batch in training mode."""

    def only(self, wanted: Callable[[str], bool]) -> Acting:
        """Those whose paths are wanted."""
        return Acting(tuple(filter(wanted, self.dropouts)), tuple(filter(wanted, self.norms)))

    def within(self, outer: str) -> Acting:
        """Of one part."""
        return self.only(lambda path: within(path, outer))

    @property
    def words(self) -> str:
        """How many of each."""
        some = [
            counted(len(paths), what)
            for paths, what in ((self.dropouts, "dropout"), (self.norms, "batch norm"))
            if paths
        ]
        return " and ".join(some)

    @property
    def names(self) -> str:
        """The first of them."""
        return listed([*self.dropouts, *self.norms])


def acting(evidence: Evidence) -> Acting:
    """All that hangs on the mode in a model."""
    known = evidence.passes.modes
    drops = [
        site.path
        for site in evidence.sites
        if site.fired_in_train and not site.fired_in_eval and site.kind != "random"
    ]
    norms = [path for path, module in evidence.model.named_modules() if _is_batch_norm(module)]
    return Acting(tuple(p for p in dict.fromkeys(drops) if p in known), tuple(norms))


def _is_batch_norm(module: nn.Module) -> bool:
    has_statistics = getattr(module, "track_running_stats", True)
    return has_statistics and any(kind.__name__ == "_BatchNorm" for kind in type(module).__mro__)


def outermost(paths: Iterable[str], modes: dict[str, bool], *, training: bool) -> list[str]:
    """Of modules in a mode: the outermost around each that are in that mode as well."""
    tops: dict[str, None] = {}
    for path in paths:
        if modes.get(path) is not training:
            continue
        top = path
        while top and modes.get(parent := top.rpartition(".")[0]) is training:
            top = parent
        tops[top] = None
    return list(tops)


def is_frozen(evidence: Evidence, path: str) -> bool:
    """Whether a part has parameters, none of which is trained.

    Of a part without any it is asked of the next one further out that has some.
    """
    while True:
        module = evidence.module(path)
        trained = [x.requires_grad for x in module.parameters()] if module is not None else []
        if trained or not path:
            return bool(trained) and not any(trained)
        path = path.rpartition(".")[0]
