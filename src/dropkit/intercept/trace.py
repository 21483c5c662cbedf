"""What a model did in one pass: operations, the calls that drop, the draws."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from dropkit.records import Place

INPUT, PARAMETER, NOISE = 1, 2, 4
"""What a value hangs on: the model's input, its parameters, draws. 0: constants."""


@dataclass(slots=True, eq=False)
class Where:
    """Where in a model something ran."""

    path: str
    """Of the innermost module; empty: the model itself, or outside of all of its modules."""
    owner: str
    """The class of that module."""
    place: Place | None
    """The innermost line that is neither torch's nor ours."""
    instruction: int
    """Of that line's function: two calls in one line are two."""
    training: bool
    """The mode of that module."""
    number: int
    """Of the operation that came next."""

    @property
    def key(self) -> tuple[object, ...]:
        """The same for each run of the same operation."""
        place = self.place
        line = None if place is None else (place.file, place.line, place.function)
        return self.path, line, self.instruction


@dataclass(slots=True, eq=False)
class Chance:
    """What is known of the law of a drawn value."""

    kind: Literal["uniform", "normal", "binary", "other"]
    """uniform: in [shift, 1 + shift). normal: of mean 0 and deviation 1. binary: of two values
    one is 0."""
    shift: float = 0.0
    nonzero: float | None = None
    """The chance of the value that is not 0; None: not known."""


@dataclass(slots=True, eq=False, repr=False)
class Node:
    """One operation, and what it gave."""

    number: int
    name: str
    """As torch has it, without overload: addmm, relu_, native_batch_norm."""
    inputs: tuple[Node, ...]
    origin: int
    """INPUT, PARAMETER, NOISE or a sum of them."""
    shape: tuple[int, ...]
    path: str
    owner: str
    scalars: tuple[float, ...] = ()
    """The numbers among its arguments, in order."""
    lists: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Of dropkit's own operators: lists among the arguments, by name."""
    cuts: dict[int, int] = field(default_factory=dict)
    """Single parts that were taken of it along an axis, one by one: by the axis' size, how many."""
    draws: tuple[Draw, ...] = ()
    """Of a value that hangs on draws and constants alone."""
    chance: Chance | None = None
    users: list[Node] = field(default_factory=list)

    def __repr__(self) -> str:  # and not those of all that it hangs on, which never ends
        return f"<{self.name} {self.number}>"

    @property
    def is_noise(self) -> bool:
        """Whether it hangs on draws, and on nothing that the model was given."""
        return bool(self.draws)


@dataclass(slots=True, eq=False)
class Call:
    """A call of one of torch's functions that drop, with what it was given."""

    name: str
    where: Where
    rate: float
    """As asked, whatever the mode."""
    training: bool
    """Whether it was told to drop."""
    x: Node | None
    shape: tuple[int, ...]
    result: Node | None = None
    drew: bool = False


@dataclass(slots=True, eq=False)
class Draw:
    """One operation that drew."""

    name: str
    where: Where
    rate: float | None
    """Of an operation that drops what it is given; None: it only draws."""
    node: Node
    call: Call | None
    """The call of a dropout within which it drew."""


@dataclass(slots=True, eq=False)
class Application:
    """Noise meets a value of the model."""

    node: Node
    noise: Node
    value: Node
    masks: bool
    """Whether the noise multiplies or selects; False: it is added, or used otherwise."""
    keeps: bool
    """Whether what is not 0 in the noise is what is kept; False: it is what is dropped."""
    shape: tuple[int, ...]
    """Of the value."""
    noise_shape: tuple[int, ...]
    counts: tuple[int, int, float, float] | None
    """Of the noise: elements, zeros, sum and sum of squares; None: it has no values."""
    fill: float | None = None
    """The one number that was given beside them as a tensor, such as 0 in x[mask] = 0."""


@dataclass(slots=True, eq=False)
class Normed:
    """What came into a batch norm."""

    path: str
    """Of its module."""
    rows: int
    """How many values each channel had."""
    variances: tuple[float, ...]
    """By channel; empty where it has no values."""
    learns: bool
    """Whether it took the statistics of the batch, and keeps them for evaluation."""


@dataclass(slots=True, eq=False)
class Trace:
    """All of one pass."""

    nodes: list[Node] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    draws: list[Draw] = field(default_factory=list)
    applications: list[Application] = field(default_factory=list)
    choices: list[Node] = field(default_factory=list)
    """Drawn values that Python looked at: which way a model goes hangs on them."""
    fused: list[Where] = field(default_factory=list)
    """Modules of which a fused path of torch did the work, dropouts left out."""
    normed: dict[int, Normed] = field(default_factory=dict)
    """By the number of its node: what came into a batch norm."""
    built: list[Where] = field(default_factory=list)
    """Modules that ran and are none of the model's: made in forward, or held in a list."""
    strangers: list[object] = field(default_factory=list)
    """Those modules, in the same order: one that is there in two passes was not made in them."""
    threads: bool = False
    """Whether parts of the model ran in threads that were not looked at."""
    ran: set[str] = field(default_factory=set)
    """Paths of the modules that ran."""
    outputs: list[Node] = field(default_factory=list)
    result: object = None
    failed: BaseException | None = None
    """What ended the pass early; what came before it was seen."""

    def drew(self) -> bool:
        """Whether anything was drawn."""
        return bool(self.draws)


def shape_of(x: Tensor) -> tuple[int, ...]:
    """Sizes; empty for what has none, such as a nested tensor."""
    return () if x.is_nested else tuple(x.shape)
