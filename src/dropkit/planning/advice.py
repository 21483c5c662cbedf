"""What is recommended, as a value and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dropkit.errors import SettingError
from dropkit.inspection.showing import merged, pattern
from dropkit.planning.places import How
from dropkit.records import Role


@dataclass(frozen=True, slots=True)
class Advice:
    """What is recommended for one place."""

    name: str
    """Of a site, as `dropkit.rates` takes it; or the path of a layer to put dropout before."""
    role: Role
    rate: float
    low: float
    high: float
    """Between low and high a search may look."""
    reason: str
    """The rule and its threshold, in a sentence."""
    source: str
    now: float | None = None
    """The model's own rate; None: nothing drops there, and dropout is to be put in."""
    how: How | None = None
    """What to put in: elements, channels, or locked, one mask for all time steps."""

    fixed: bool = False
    """Whether nothing of the model moves its rate: it stands in the source."""

    @property
    def insert(self) -> bool:
        """Whether dropout is to be put in."""
        return self.how is not None


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Rates for a model, each with its reason; `print` shows the table."""

    model: str
    situation: str
    """What was known, in words."""
    advice: tuple[Advice, ...]
    notes: tuple[str, ...] = ()

    @property
    def rates(self) -> dict[str, float]:
        """Of the dropouts that can be moved, by name: `plan.update(recommendation.rates)`."""
        return {a.name: a.rate for a in self.advice if not (a.insert or a.fixed)}

    @property
    def inserts(self) -> dict[str, float]:
        """Of layers to put dropout before, by path: `dropkit.insert(model, recommendation, x)`."""
        return {a.name: a.rate for a in self.advice if a.insert and a.rate > 0}

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Where a search may look, by name."""
        return {advice.name: (advice.low, advice.high) for advice in self.advice}

    def __iter__(self) -> Iterator[Advice]:
        return iter(self.advice)

    def __len__(self) -> int:
        return len(self.advice)

    def __getitem__(self, name: str) -> Advice:
        """The advice of a name.

        Raises:
            SettingError: there is none.
        """
        for advice in self.advice:
            if advice.name == name:
                return advice
        known = ", ".join(repr(advice.name) for advice in self.advice[:6])
        raise SettingError(f"expected a name among the advice; got {name!r}. It has {known}")

    def __str__(self) -> str:
        lines = [f"{self.model}: {self.situation}"]
        lines += _table(self.advice) if self.advice else ["Nothing drops, nor is there a place."]
        return "\n".join([*lines, *self.notes])


_HEADINGS = ("where", "role", "now", "rate", "range", "why")


def _table(advice: Sequence[Advice]) -> list[str]:
    """One row for places that differ in the number of their layer alone; reasons are below."""
    reasons = list(dict.fromkeys(f"{one.reason} ({one.source})" for one in advice))
    rows: dict[tuple[str, ...], list[str]] = {}
    for one in advice:
        now = "put in" if one.now is None else f"{one.now:.4g}"
        why = f"[{1 + reasons.index(f'{one.reason} ({one.source})')}]"
        span = f"{one.low:.4g} to {one.high:.4g}"
        key = (pattern(one.name), one.role, now, f"{one.rate:.4g}", span, why)
        rows.setdefault(key, []).append(one.name)
    cells: list[tuple[str, ...]] = [_HEADINGS]
    cells += [(merged(names) or "the model itself", *key[1:]) for key, names in rows.items()]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
    return [*lines, *(f"[{number}] {reason}" for number, reason in enumerate(reasons, 1))]
