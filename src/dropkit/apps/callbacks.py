"""Schedules of rates in the training loops of others: Lightning, Transformers, skorch.

Each puts the rates of a step in force before it begins, by the trainer's own count of optimizer
steps: so neither accumulated gradients nor a run that goes on from a checkpoint can shift them. In
a loop of one's own two lines do the same: make the schedule, and call its `step()` after each step.

The libraries are loaded when a callback is made.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torch import nn

from dropkit.errors import MissingExtraError, SettingError
from dropkit.planning.scheduling import RateSchedule

Scheduled = RateSchedule | Callable[[nn.Module], RateSchedule]
"""A schedule, or what makes one of the model, for loops that make their models themselves."""


def lightning(schedule: Scheduled) -> Any:
    """A callback for the Trainer of `lightning` and of `pytorch_lightning`.

    The step is `trainer.global_step`, which counts the steps of every optimizer. Its state is
    saved in checkpoints; a checkpoint of other schedules is refused.

    Args:
        schedule: a schedule, or a function that makes one of the `LightningModule`, which is
            called when the module is set up.

    Returns:
        A `Callback`: `Trainer(callbacks=[dropkit.callbacks.lightning(schedule)])`.

    Raises:
        MissingExtraError: neither package is installed.
        SettingError: it is no schedule.

    >>> from dropkit.apps import callbacks
    >>> callbacks.lightning("linear")
    Traceback (most recent call last):
    ...
    dropkit.errors.SettingError: schedule: expected a dropkit.RateSchedule, or a function ...
    """
    _Followed(schedule)
    return _made(_Lightning, _lightning_bases(), schedule)


def transformers(schedule: Scheduled) -> Any:
    """A callback for the Trainer of Transformers.

    The step is `state.global_step`. Its state is saved in `trainer_state.json` as that of every
    stateful callback; a run that goes on is refused where it was saved with other schedules,
    whether or not `restore_callback_states_from_checkpoint` is set.

    Args:
        schedule: a schedule, or a function that makes one of the model, which is called as training
            begins; for trainers with `model_init`.

    Returns:
        A `TrainerCallback`: `Trainer(..., callbacks=[dropkit.callbacks.transformers(schedule)])`.

    Raises:
        MissingExtraError: transformers is not installed.
        SettingError: it is no schedule.
    """
    _Followed(schedule)
    library = _needed("transformers")
    exportable = import_module("transformers.trainer_callback").ExportableState
    return _made(_Transformers, (library.TrainerCallback, exportable), schedule)


def skorch(schedule: Callable[[nn.Module], RateSchedule]) -> Any:
    """A callback for the nets of skorch.

    The step is the number of training batches in the net's history, which skorch keeps over
    `partial_fit` and saves with `f_history`; `fit` begins anew.

    Args:
        schedule: a function that makes one of the module, since `fit` makes a new module each time:
            `lambda module: dropkit.RateSchedule(dropkit.rates(module, x), {...})`.

    Returns:
        A `Callback`: `NeuralNet(..., callbacks=[dropkit.callbacks.skorch(make)])`.

    Raises:
        MissingExtraError: skorch is not installed.
        SettingError: it is no such function.
    """
    if isinstance(schedule, RateSchedule):
        raise SettingError(
            "schedule: expected a function that makes a dropkit.RateSchedule of the module, since "
            "skorch makes a new module at each fit; got a schedule of one module. Try "
            "lambda module: dropkit.RateSchedule(dropkit.rates(module, x), {...})"
        )
    _Followed(schedule)
    _needed("skorch")
    return _made(_Skorch, (import_module("skorch.callbacks").Callback,), schedule)


def _made(kind: type, bases: tuple[type, ...], schedule: Scheduled) -> Any:
    """A callback of a library's own class."""
    given = staticmethod(schedule) if callable(schedule) else schedule  # a function stays one
    return type("DropkitRates", (kind, *bases), {"__doc__": kind.__doc__, "given": given})()


class _Lightning:
    """Puts the rates of each step in force."""

    given: Any
    state_key = "dropkit.RateSchedule"

    def __init__(self) -> None:
        super().__init__()
        self.followed = _Followed(self.given)

    def __reduce__(self) -> tuple[object, ...]:
        return lightning, (self.given,)

    def setup(self, trainer: Any, pl_module: nn.Module, stage: str) -> None:
        """The module is known."""
        if stage == "fit":
            self.followed.begin(pl_module)

    def on_train_batch_start(
        self, trainer: Any, pl_module: nn.Module, batch: Any, batch_idx: int
    ) -> None:
        """A batch begins."""
        self.followed.move_to(trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return self.followed.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """A checkpoint is gone on from."""
        self.followed.load(state_dict)


class _Transformers:
    """Puts the rates of each step in force. A trainer may make another one of its class."""

    given: Any

    def __init__(self) -> None:
        super().__init__()
        self.followed = _Followed(self.given)

    def __reduce__(self) -> tuple[object, ...]:
        return transformers, (self.given,)

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Training begins, or goes on."""
        self.followed.begin(given["model"])
        kept = state.stateful_callbacks
        saved = kept.setdefault(type(self).__name__, self.state())  # a run without it may go on
        if state.global_step and isinstance(saved, Mapping):
            self.followed.load(saved["attributes"]["saved"])

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """An optimizer step begins."""
        self.followed.move_to(state.global_step)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"args": {}, "attributes": {"saved": self.followed.state()}}


class _Skorch:
    """Puts the rates of each training batch in force."""

    given: Any

    def __init__(self) -> None:
        self.followed_ = _Followed(self.given)
        self.step_ = 0

    def __reduce__(self) -> tuple[object, ...]:
        return skorch, (self.given,)

    def on_train_begin(self, net: Any, **given: Any) -> None:
        """Training begins, or goes on."""
        self.followed_.begin(net.module_)
        self.step_ = sum(map(_trained, net.history))

    def on_batch_begin(self, net: Any, training: bool = False, **given: Any) -> None:
        """A batch begins."""
        if training:
            self.followed_.move_to(self.step_)

    def on_batch_end(self, net: Any, training: bool = False, **given: Any) -> None:
        """A batch is done."""
        self.step_ += bool(training)


def _trained(epoch: Mapping[str, Any]) -> int:
    """How many batches of an epoch were trained on; one that was broken off has no count."""
    batches: list[Mapping[str, Any]] = epoch.get("batches", [])
    counted = sum("train_batch_size" in batch for batch in batches)
    return int(epoch.get("train_batch_count", counted))


class _Followed:
    """A schedule, once there is one, and what was loaded before."""

    def __init__(self, given: Scheduled) -> None:
        if not isinstance(given, RateSchedule) and (isinstance(given, type) or not callable(given)):
            raise SettingError(
                "schedule: expected a dropkit.RateSchedule, or a function that makes one of the "
                f"model; got {given!r}"
            )
        self._given = given
        self._schedule = given if isinstance(given, RateSchedule) else None

    def begin(self, model: nn.Module) -> None:
        """The model is known."""
        if isinstance(self._given, RateSchedule):
            return
        made = self._given(model)
        if not isinstance(made, RateSchedule):
            raise SettingError(
                f"schedule: expected a function that makes a dropkit.RateSchedule; it gave {made!r}"
            )
        self._schedule = made

    def move_to(self, step: int) -> None:
        """A step begins."""
        if self._schedule is not None:
            self._schedule.move_to(step)

    def state(self) -> dict[str, Any]:
        """What is to be saved."""
        return {} if self._schedule is None else self._schedule.state_dict()

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what was saved."""
        if self._schedule is not None and state:
            self._schedule.load_state_dict(state)


def _lightning_bases() -> tuple[type, ...]:
    """The class of callbacks of each of the two packages that is in use; else of one that is there.

    They are the same code under two names, whose classes know nothing of each other.
    """
    names = ("lightning.pytorch", "pytorch_lightning")
    used = [name for name in names if name in sys.modules]
    there = used or [name for name in names if find_spec(name.partition(".")[0])][:1]
    if not there:
        raise _missing("lightning")
    return tuple(import_module(name).Callback for name in there)


def _needed(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise _missing(name) from error


def _missing(name: str) -> MissingExtraError:
    return MissingExtraError(
        f"dropkit.callbacks.{name} needs the package {name}, which is not installed; try: "
        f"pip install {name}"
    )
