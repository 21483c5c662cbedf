"""All that a rule may ask about a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn

from dropkit.errors import SettingError
from dropkit.inspection import losses, twins
from dropkit.inspection.exported import passes_of
from dropkit.inspection.mapping import sites_of
from dropkit.inspection.passes import Passes, mapped, run, said, tensors
from dropkit.inspection.runs import Run, Way, runs_of
from dropkit.inspection.shifts import Shift, learns, shift
from dropkit.intercept import uncompiled
from dropkit.intercept.trace import Trace
from dropkit.records import Need, Site

T = TypeVar("T")


@dataclass(slots=True)
class Evidence:
    """What was seen of a model, and what its user says of it."""

    name: str
    """The class of the model."""
    model: nn.Module
    """As it was handed over; a rule reads it, and never runs or writes it."""
    passes: Passes
    sites: tuple[Site, ...]
    unseen: list[str] = field(default_factory=list)
    inputs: tuple[Any, ...] = ()
    optimizer: torch.optim.Optimizer | None = None
    loss: nn.Module | None = None
    rows: int | None = None
    """Examples (or tokens) that it is trained on."""
    pretrained: bool | None = None
    """Whether it is fine-tuned."""
    purpose: str | None = None
    """train or inference: what it is about to do; None: not said."""
    exported: bool = False
    """Whether it is an exported program, which has no modes and no modules."""
    _held: dict[str, nn.Module] = field(default_factory=dict, repr=False)
    _runs: list[Run] = field(default_factory=list, repr=False)
    _told: dict[object, Any] = field(default_factory=dict, repr=False)

    @property
    def runs(self) -> tuple[Run, ...]:
        """The sites that ran, each with the passes in which it did."""
        if not self._runs:
            self._runs.extend(runs_of(self.passes, self.sites))
        return tuple(self._runs)

    @property
    def has(self) -> frozenset[Need]:
        """What a rule can build on."""
        given: dict[Need, bool] = {
            "modules": not self.exported,
            "export": self.exported,
            "run": self.passes.train[0].failed is None and self.passes.evaluation.failed is None,
            "values": not self.passes.meta,
            "optimizer": self.optimizer is not None,
            "loss": self.loss is not None,
            "rows": self.rows is not None,
            "pretrained": self.pretrained is not None,
            "purpose": self.purpose is not None,
        }
        return frozenset(need for need, there in given.items() if there)

    def shift(self, run: Run, way: Way) -> Shift | None:
        """How much wider dropout makes what comes into a batch norm; None: it was not measured."""
        own = any(event.met is not None for event in run.events)  # a mask that nothing stills
        return None if own else shift(self.passes, run.trace, way.node)

    def learns(self, run: Run, way: Way) -> bool:
        """Whether a batch norm keeps the statistics of training for evaluation."""
        return learns(run.trace, way.node)

    def smoothing(self) -> float | None:
        """What the loss spreads of a label over all classes; None: it takes no classes."""
        return None if self.loss is None else losses.smoothing(self.loss)

    def smoothed(self) -> float | None:
        """The same, of labels among the model's inputs; None: there are none."""
        found = (losses.smoothed(x) for x in self.inputs)
        return next((share for share in found if share is not None), None)

    def once(self, what: Callable[[Evidence], T]) -> T:
        """What a function says of this model: it is asked the first time, and remembered."""
        if what not in self._told:
            self._told[what] = what(self)
        told: T = self._told[what]
        return told

    def module(self, path: str) -> nn.Module | None:
        """The module of a path; None if the model has none there."""
        if not self._held:
            self._held.update(self.model.named_modules())
        return self._held.get(path)


def look(
    model: nn.Module | torch.export.ExportedProgram,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    device: str = "auto",
    purpose: str | None = None,
    gradients: bool = True,
    **told: Any,
) -> Evidence:
    """Run a model in both modes, and make of what was seen all that can be.

    Args:
        model: any module; what `torch.compile` made of one is taken for that one. An exported
            program is read, and does not run.
        args: what it is called with.
        kwargs: what it is called with, by name.
        device: meta: without values; real: with made-up ones, where the model has none; auto: as it
            is, and with made-up ones where it cannot run without.
        purpose: train or inference: what it is about to do.
        gradients: whether the training pass has them, as training has.
        told: what else is known: fields of `Evidence`.

    Raises:
        SettingError: it is no model, or neither pass came to an end.
    """
    if device not in ("auto", "meta", "real"):
        raise SettingError(f"device: expected auto, meta or real; got {device!r}")
    if purpose not in (None, "train", "inference"):
        raise SettingError(f"purpose: expected train or inference; got {purpose!r}")
    told["purpose"] = purpose
    if isinstance(model, torch.export.ExportedProgram):
        passes, name, module = passes_of(model), type(model).__name__, model.graph_module
        return Evidence(name, module, passes, sites_of(None, passes), exported=True, **told)
    inner = _checked(model)
    passes, ran = _passes(inner, args, kwargs, device, gradients)
    broken = [
        (name, trace.failed)
        for name, trace in (("training", passes.train[0]), ("evaluation", passes.evaluation))
        if trace.failed is not None
    ]
    if len(broken) == 2:
        raise SettingError(explained(broken[0][1], passes.train[0])) from broken[0][1]
    rest = (f"the rest of the {name} pass, which raised {said(error)}" for name, error in broken)
    return Evidence(
        name=type(inner).__name__,
        model=inner,
        passes=passes,
        sites=sites_of(ran, passes),
        unseen=[*passes.unseen, *rest],
        inputs=tuple(tensors((args, dict(kwargs)))),
        **told,
    )


def _checked(model: object) -> nn.Module:
    """A model that can be run; of a compiled one the module that was compiled."""
    if not isinstance(model, nn.Module):
        raise SettingError(
            f"model: expected a torch.nn.Module; got {type(model).__name__}. Try the module "
            "itself, with its inputs behind it: dropkit.sites(model, x)"
        )
    inner = uncompiled(model)
    lazy = [path for path, parameter in inner.named_parameters() if nn.parameter.is_lazy(parameter)]
    if lazy:
        raise SettingError(
            f"expected a model that has its parameters; {lazy[0]} of a lazy module has none yet. "
            "Try to run the model once before"
        )
    return inner


def _passes(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    device: str,
    gradients: bool,
) -> tuple[Passes, nn.Module]:
    """Both passes, on the device that will do; and what ran: the model, or a twin of it."""
    if device == "meta":
        model = twins.on_meta(model)
    meta = any(x.is_meta for x in (*model.parameters(), *model.buffers()))
    if meta and device != "real":
        passes = run(model, args, kwargs, gradients=gradients)
        if passes.train[0].failed is None or device == "meta":
            return passes, model
        failed, elements = said(passes.train[0].failed), twins.size(model)
        if elements > twins.MOST:
            passes.unseen.append(
                f"what depends on values: without them it raised {failed}, and {elements:,} of "
                "them are too many to make up. Try a smaller model of the same form"
            )
            return passes, model
    if meta:
        model = twins.with_values(model)
        args, kwargs = mapped((args, dict(kwargs)), twins.valued())
    return run(model, args, kwargs, gradients=gradients), model


def explained(error: BaseException | None, trace: Trace) -> str:
    """Why a model could not be run, and where it stopped."""
    last = max(trace.nodes, key=lambda node: node.number, default=None)
    place = f" in {last.path} ({last.owner})" if last is not None and last.path else ""
    inputs = [f"{tuple(node.shape)}" for node in trace.nodes if node.name == "input"]
    given = f"; it was given {', '.join(inputs)}" if inputs else "; it was given no tensor"
    reason = said(error).rstrip(".") if error is not None else "it stopped"
    return (
        f"expected inputs that the model can be called with{given}. It raised{place}: {reason}. "
        "Try the arguments of its own forward"
    )
