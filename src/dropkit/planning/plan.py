"""The rates of a model, as something that can be read, changed, applied, proven and taken back."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress
from typing import Any

from torch import nn

from dropkit.errors import DropkitWarning, PlanError, SettingError
from dropkit.inspection.names import fitting, nearest
from dropkit.inspection.passes import said
from dropkit.intercept import uncompiled
from dropkit.planning import text
from dropkit.planning.levers import Lever, found
from dropkit.planning.moving import Moved, Touched
from dropkit.planning.proving import Proof, proof
from dropkit.planning.showing import labelled, table
from dropkit.records import Role, Site


def rates(model: nn.Module, *args: Any, **kwargs: Any) -> Plan:
    """Read the dropout rates of a model, so that they can be changed by role and by path.

    The model runs in training and in evaluation mode, as by `dropkit.sites`, and is afterwards as
    it was. Meanwhile every number that it holds is moved by about 1e-11, each by something else: so
    what a rate hangs on is seen, be it an attribute of a module, a keep probability or an entry of
    a configuration; and a rate of 0 whose dropout is skipped shows, too. No other thread may run
    the model at that time, nor while a plan is proven.

    Args:
        model: any module, compiled or not, wrapped or not, with values or on the meta device.
        args, kwargs: what it is called with; a few rows will do.

    Returns:
        The plan. Nothing of the model changes before it is applied.

    Raises:
        SettingError: it is no module, or cannot be called with these inputs.

    >>> import torch, dropkit
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5),
    ...                           torch.nn.Linear(8, 2))
    >>> plan = dropkit.rates(net, torch.ones(2, 4))
    >>> plan["hidden"] = 0.2
    >>> with plan.applied() as done:
    ...     print(net[1].p, done.proof.holds)
    0.2 True
    >>> net[1].p
    0.5
    """
    looked = found(model, args, kwargs)
    return Plan(model, args, kwargs, looked.levers, looked.unread)


class Plan:
    """The rates of a model's sites, as they are to be.

    `plan["attention"] = 0.05` sets those of a role, `plan["encoder.layer.0-5"] = 0` those within a
    path; what is set last holds. `apply` writes them into the model, `restore` gives it back.
    """

    def __init__(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        levers: Sequence[Lever],
        unread: Sequence[Site] = (),
    ) -> None:
        self.model = uncompiled(model)
        self.levers = tuple(levers)
        self.unread = tuple(unread)
        """Sites whose rate is not seen, so that no plan has it: compared in Python with a draw."""
        self._inputs = args, dict(kwargs)
        self._moved = Moved(self.model)
        self._compiled = is_compiled(model)

    # ---- reading

    def __len__(self) -> int:
        return len(self.levers)

    def __iter__(self) -> Iterator[Lever]:
        return iter(self.levers)

    def __str__(self) -> str:
        return table(type(self.model).__name__, self.levers, self.unread)

    def __repr__(self) -> str:
        return (
            f"<plan of {type(self.model).__name__}: {len(self)} sites, {len(self.changes)} moved>"
        )

    def __getitem__(self, name: str) -> dict[str, float]:
        """The rates that are asked of a role or a path, by name of a site."""
        mine = set(self.named(name))
        return {label: lever.wanted for label, lever in labelled(self.levers) if lever in mine}

    @property
    def rates(self) -> dict[str, float]:
        """The rate that is asked of each site, by its name."""
        return {label: lever.wanted for label, lever in labelled(self.levers)}

    @property
    def changes(self) -> dict[str, tuple[float, float]]:
        """What the plan changes: by name of a site, the model's own rate and the one asked."""
        return {
            label: (lever.rate, lever.wanted)
            for label, lever in labelled(self.levers)
            if lever.wanted != lever.rate
        }

    @property
    def roles(self) -> dict[Role, tuple[Lever, ...]]:
        """The sites of each role."""
        found: defaultdict[Role, list[Lever]] = defaultdict(list)
        for lever in self.levers:
            found[lever.site.role].append(lever)
        return {role: tuple(levers) for role, levers in found.items()}

    @property
    def fixed(self) -> tuple[Lever, ...]:
        """Sites whose rate nothing moves: a mask made by hand, at a rate that the source has."""
        return tuple(lever for lever in self.levers if not lever.moves)

    # ---- asking

    def __setitem__(self, name: str, rate: float) -> None:
        """Ask for a rate, of all sites of a role or within a path.

        Raises:
            SettingError: no such role or path; a rate outside [0, 1]; sites that nothing moves.
        """
        self._ask(self._movable(name), checked(rate, name))

    def update(self, rates: Mapping[str, float]) -> None:
        """Ask for several at once: a path goes before a role, a longer path before a shorter.

        Raises:
            SettingError: as above; two names that are as particular, fit one site, and contradict.
        """
        asked: dict[Lever, tuple[tuple[int, ...], str, float]] = {}
        for name, rate in rates.items():
            weight = text.weight(name)
            for lever in self._differing(name, rate):
                there = asked.get(lever)
                if there is None or there[0] < weight:
                    asked[lever] = weight, name, checked(rate, name)
                elif there[0] == weight and there[2] != rate:
                    raise SettingError(
                        f"expected one rate for {lever.name}; got {there[2]:g} by {there[1]!r} and "
                        f"{rate:g} by {name!r}. Try a longer path for one of them"
                    )
        for lever, (_, _, rate) in asked.items():
            lever.asked = rate

    def scale(self, factor: float, name: str | None = None) -> None:
        """Multiply what is asked, of all sites or of some; nothing comes above 1.

        Raises:
            SettingError: a factor below 0 or that is no number; no such role or path.
        """
        if not isinstance(factor, float | int) or not 0 <= factor < math.inf:
            raise SettingError(f"factor: expected a number from 0 on; got {factor!r}")
        for lever in self._movable(name):
            lever.asked = min(1.0, lever.wanted * factor)

    def off(self, name: str | None = None) -> None:
        """Ask for 0, of all sites or of some."""
        self._ask(self._movable(name), 0.0)

    def reset(self, name: str | None = None) -> None:
        """Ask for what the model has itself, of all sites or of some."""
        self._ask(self.levers if name is None else self.named(name), None)

    def _ask(self, levers: Sequence[Lever], rate: float | None) -> None:
        for lever in levers:
            lever.asked = rate

    def named(self, name: str) -> tuple[Lever, ...]:
        """The sites of a role or a path.

        Raises:
            SettingError: there are none.
        """
        if not isinstance(name, str):
            raise SettingError(f"expected the name of a role or a path; got {name!r}")
        sites: list[Site] = [lever.site for lever in self.levers]
        mine = tuple(compress(self.levers, fitting(name, sites)))
        if not mine:
            near = ", ".join(map(repr, nearest(name, sites)))
            raise SettingError(
                f"expected a role or a path of {type(self.model).__name__}; {name!r} fits none of "
                f"its {len(self)} sites. Try {near or 'a model that drops'}"
            )
        return mine

    def _differing(self, name: str, rate: float) -> tuple[Lever, ...]:
        """Those of a name that can be moved; what cannot be may be asked for what it has."""
        mine = self.named(name)
        if any(not lever.moves and abs(lever.rate - checked(rate, name)) > 1e-9 for lever in mine):
            return self._movable(name)
        return tuple(lever for lever in mine if lever.moves)

    def _movable(self, name: str | None) -> tuple[Lever, ...]:
        mine = self.levers if name is None else self.named(name)
        stuck = [lever for lever in mine if not lever.moves]
        if stuck:
            places = "; ".join(f"{lever.name} at {lever.site.place}" for lever in stuck[:3])
            says = (
                f"the rate of {places} is written in the source, in a mask that the model makes "
                "itself. Try to make it an attribute of the module"
            )
            if len(stuck) == len(mine):
                raise SettingError(f"expected rates that can be moved; {says}")
            warnings.warn(f"left as it is: {says}", DropkitWarning, stacklevel=3)
        return tuple(lever for lever in mine if lever.moves)

    # ---- applying

    def apply(self, *, prove: bool = True, compiled: bool | None = None) -> Applied:
        """Give the model the rates that are asked, until `restore`.

        What a number of the model moves is moved by it; what the source says, and what one number
        shares with sites that are asked for others, is set at each call by hooks on the module that
        makes it. Applied again, only what differs is written.

        Args:
            prove: whether the model is run, and what its sites drop is counted. Without it a plan
                is applied in microseconds, fit for each step of a schedule.
            compiled: whether what `torch.compile` makes of the model reads rates from tensors, so
                that another rate compiles nothing anew; its dropout is then drawn by dropkit, and
                attention computed by its formula. To be given when it is applied first, before the
                model is run compiled; by default for a model that came compiled.

        Returns:
            What was changed, and the proof.

        Raises:
            SettingError: sites on one number are asked for two rates.
            PlanError: the model does not drop at the rates asked. It is given back as it was.
        """
        if compiled is not None:
            self._compiled = compiled
        if prove:
            self._check_model()
        self._moved.move(self.levers, compiled=self._compiled)
        try:
            proven = self._proven() if prove else None
        except BaseException:
            self.restore()
            raise
        if proven is not None and proven.unseen:
            names = ", ".join(row.name for row in proven.unseen[:5])
            warnings.warn(
                f"moved and not proven, since they did not run: {names}",
                DropkitWarning,
                stacklevel=2,
            )
        return Applied(self, self._moved.touched, proven)

    @contextmanager
    def applied(self, *, prove: bool = True, compiled: bool | None = None) -> Iterator[Applied]:
        """Within, the model has the rates that are asked; afterwards it is as it was."""
        try:
            yield self.apply(prove=prove, compiled=compiled)
        finally:
            self.restore()

    def restore(self) -> None:
        """Give the model back as it was; what is asked stays asked."""
        self._moved.restore()

    def prove(self) -> Proof:
        """Run the model in training mode, and count what each site drops, at whatever rates it has.

        On standard inputs of 65,536 draws at each call; a layer that makes its own mask is counted
        as it is used, and recurrent layers are asked which rate they were called with.
        """
        args, kwargs = self._inputs
        return proof(self.model, args, kwargs, self.levers)

    def _proven(self) -> Proof:
        try:
            proven = self.prove()
        except Exception as error:  # of somebody else's model
            raise PlanError(
                f"expected a model that runs in training mode at the rates asked; it raised "
                f"{said(error)}. It was given back as it was"
            ) from error
        if not proven.holds:
            raise PlanError(_failed(proven))
        return proven

    def _check_model(self) -> None:
        held = set(map(id, self.model.modules()))
        for lever in self.levers:
            owner = None if lever.number is None else lever.number.owner
            if isinstance(owner, nn.Module) and id(owner) not in held:
                raise SettingError(
                    f"expected the model that the plan was made of; {lever.name} is no more in it. "
                    "Try dropkit.rates(model, ...) again"
                )

    # ---- as text

    def to_json(self) -> str:
        """All rates that names tell apart, as one JSON object."""
        rates = {name: lever.wanted for name, lever in self._told()}
        return text.as_json(type(self.model).__name__, rates)

    def to_toml(self) -> str:
        """All rates that names tell apart, as a text that a person can edit."""
        rows = [(name, lever.wanted, lever.site.role) for name, lever in self._told()]
        return text.as_toml(type(self.model).__name__, len(self), dict.fromkeys(rows))

    def _told(self) -> list[tuple[str, Lever]]:
        """What a text can say; of sites that no name tells apart nothing, if nothing is asked."""
        told = list(labelled(self.levers))
        rates: defaultdict[str, set[float]] = defaultdict(set)
        for name, lever in told:
            rates[name].add(lever.wanted)
        mixed = {name for name, some in rates.items() if len(some) > 1}
        for name, lever in told:
            if name in mixed and lever.wanted != lever.rate:
                raise SettingError(
                    f"expected one rate for all that {name!r} names, or a text cannot tell them "
                    f"apart; got {', '.join(f'{rate:g}' for rate in sorted(rates[name]))}. Try to "
                    "write their calls on lines of their own"
                )
        return [(name, lever) for name, lever in told if name not in mixed]

    def load(self, written: str) -> Plan:
        """Ask for the rates of a text, of either form; of a longer path before a shorter one.

        Returns:
            The plan itself.

        Raises:
            SettingError: it is no plan; a name that fits no site; a rate outside [0, 1].
        """
        self.update(text.rates_of(written))
        return self


@dataclass(frozen=True, slots=True)
class Applied:
    """What a plan has done to a model."""

    plan: Plan
    touched: tuple[Touched, ...]
    """Attributes that have another value, and calls that are given another rate."""
    proof: Proof | None
    """None: it was not asked for."""

    def restore(self) -> None:
        """Give the model back as it was."""
        self.plan.restore()

    def __str__(self) -> str:
        lines = [*map(str, self.touched)] or ["nothing was changed"]
        return "\n".join([*lines, *([str(self.proof)] if self.proof else [])])


def _failed(proven: Proof) -> str:
    rows = "; ".join(map(str, proven.failed[:5]))
    more = f"; and {len(proven.failed) - 5} more" if len(proven.failed) > 5 else ""
    return (
        f"expected a model that drops at the rates asked; {rows}{more}. It was given back as it "
        "was. Try those sites at the model's own rate: plan.reset(path)"
    )


def is_compiled(model: nn.Module) -> bool:
    """Whether `torch.compile` made it, or is asked to as it is called."""
    return uncompiled(model) is not model or model._compiled_call_impl is not None


def checked(rate: object, name: str) -> float:
    """A rate.

    Raises:
        SettingError: it is none.
    """
    if isinstance(rate, bool) or not isinstance(rate, float | int) or not 0 <= rate <= 1:
        raise SettingError(
            f"{name}: expected a rate from 0 to 1, the fraction that is dropped; got {rate!r}"
        )
    return float(rate)
