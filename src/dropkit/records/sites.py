"""Places in a model where randomness acts on activations or weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Role = Literal[
    "input",
    "embedding",
    "hidden",
    "conv",
    "recurrent",
    "attention",
    "residual",
    "path",
    "head",
    "output",
    "lora",
]
"""What a site is for."""

Kind = Literal[
    "dropout",  # elements
    "feature_dropout",  # whole channels or features
    "alpha_dropout",  # elements, set to a value that keeps mean and variance
    "attention",  # weights of attention, within the call that computes it
    "recurrent",  # between the layers of a recurrent network, within the call that computes it
    "path",  # whole branches or layers: stochastic depth, layer drop
    "weights",  # parameters
    "noise",  # nothing is dropped: continuous noise is added or multiplied
    "mask",  # a mask that the model draws itself, of no other kind
    "random",  # a draw that is no mask: sampling, shuffling, choosing
]
"""What a site does."""

Step = Literal[
    "input",
    "output",
    "parameter",
    "constant",
    "linear",
    "matmul",
    "convolution",
    "batch_norm",
    "norm",
    "activation",
    "softmax",
    "attention",
    "embedding",
    "recurrence",
    "residual_add",
    "add",
    "multiply",
    "pool",
    "dropout",
    "random",
    "other",
]
"""An operation, as far as a rule wants to know."""


@dataclass(frozen=True, slots=True)
class Place:
    """A line of source."""

    file: str
    line: int
    function: str = ""
    column: int = 0
    """From 1; 0 where it is not known."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An operation before or after a site; what only moves elements is passed over."""

    step: Step
    name: str
    """Of the operation, as torch has it: relu, addmm, native_batch_norm."""
    path: str
    """Of the module within which it ran."""
    distance: int
    """1: next to the site."""
    shape: tuple[int, ...] = ()
    """Of what the operation gave."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the masks of a site were, in the passes that were looked at."""

    drawn: int
    """Independent draws: elements, less those that share one."""
    dropped: int
    scale: float
    """Mean factor of what was kept."""
    spread: float
    """Standard deviation of that factor; above 0 where noise is continuous."""
    mean: float
    """Mean factor of all: 1 where the expectation is kept."""


@dataclass(frozen=True, slots=True)
class Site:
    """One place in a model where randomness acts, with the evidence of how it acted."""

    path: str
    """Of the innermost module within which it ran; empty: the model itself."""
    owner: str
    """The class of that module."""
    kind: Kind
    role: Role
    rate: float | None
    """The fraction that is asked to be dropped in training; None: it is not known."""
    place: Place | None
    """The innermost line that is not torch's own; None where there is none."""
    operation: str
    """What drew: dropout, scaled_dot_product_attention, bernoulli_, lstm."""
    fired_in_train: bool
    fired_in_eval: bool
    bypassed: bool
    """Whether a fused path of torch skips it in eval mode, so that it cannot be switched on."""
    ran: bool = True
    """False: a dropout that the model holds, and the passes never came to."""
    shape: tuple[int, ...] = ()
    """Of what came in, at its first call."""
    shared: tuple[int, ...] = ()
    """Axes along which one draw is shared."""
    calls: int = 0
    """How often it ran in one training pass."""
    in_step: bool = False
    """Whether a later call hangs on what an earlier one gave: a step of a recurrence."""
    holder: str = ""
    """Where the rate stands: the path of an attribute, such as encoder.drop.p; empty: not found."""
    measured: Measured | None = None
    """None: nothing fired, or it ran without values (on the meta device)."""
    fed_by: tuple[Neighbour, ...] = field(default=(), repr=False)
    """What came before, nearest first, along all ways."""
    feeds: tuple[Neighbour, ...] = field(default=(), repr=False)
    """What came after, nearest first, along all ways."""

    @property
    def source(self) -> tuple[str, int] | None:
        """File and line, where there is one."""
        return None if self.place is None else (self.place.file, self.place.line)
