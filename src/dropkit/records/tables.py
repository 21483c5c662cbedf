"""Tables as they were understood, and what was fitted to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dropkit.records.uncertainty import Uncertainty

Task = Literal["regression", "classification"]
Origin = Literal["grid", "sampled", "refined", "ablation"]
Kind = Literal["number", "category", "boolean", "date"]

REGULARIZERS = (
    "hidden_dropout",
    "input_dropout",
    "weight_decay",
    "l1",
    "label_smoothing",
    "mixup",
    "feature_masking",
    "feature_noise",
    "max_norm",
    "weight_averaging",
)
"""The fields of a `Cocktail` that regularize; 0 means off in each of them."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table as it was understood."""

    name: str
    kind: Kind
    used: bool
    """False: the column carries nothing that could generalize; `reason` says why."""
    reason: str
    """How it was read, or why it was dropped; words for a person."""
    missing: int
    distinct: int
    example: str
    levels: tuple[str, ...] = ()
    """Levels of a category or boolean in the training table, most frequent first."""
    layout: str = ""
    """How a date was written in the training table, as strptime takes it, or ISO8601."""


@dataclass(frozen=True, slots=True)
class Schema:
    """A table as it was understood: its columns in order, without the target."""

    columns: tuple[Column, ...]
    target: str
    task: Task
    classes: tuple[str, ...]
    """Class labels in order of their codes; empty for regression."""
    rows: int
    reason: str = ""
    """Why this task; words for a person."""

    @property
    def used(self) -> tuple[Column, ...]:
        """The columns that the model sees."""
        return tuple(column for column in self.columns if column.used)


@dataclass(frozen=True, slots=True)
class Cocktail:
    """A joint setting of the regularizers and the learning rate of one member.

    Rates follow PyTorch's convention: the fraction dropped. 0 switches a regularizer off.
    """

    hidden_dropout: float = 0.0
    """Rate on hidden activations, after the activation function."""
    input_dropout: float = 0.0
    """Rate on whole input features, inverted scaling."""
    weight_decay: float = 0.0
    """Decoupled (AdamW) decay of weight matrices per unit of learning rate; never of biases."""
    learning_rate: float = 1e-2
    l1: float = 0.0
    """Proximal L1 on the first layer's weights: drives weights to exactly zero."""
    label_smoothing: float = 0.0
    """Mass moved from the label to the uniform distribution; classification only."""
    mixup: float = 0.0
    """Alpha of the Beta(alpha, alpha) from which the mixing share is drawn."""
    feature_masking: float = 0.0
    """Rate at which a cell is replaced by the same column's cell of another row."""
    feature_noise: float = 0.0
    """Standard deviation of Gaussian noise on scaled numeric inputs."""
    max_norm: float = 0.0
    """Largest Euclidean norm of a hidden unit's incoming weights."""
    weight_averaging: float = 0.0
    """Decay of the exponential moving average of the weights, per epoch."""

    @property
    def active(self) -> tuple[str, ...]:
        """Names of the regularizers that are on."""
        return tuple(name for name in REGULARIZERS if getattr(self, name) > 0)


@dataclass(frozen=True, slots=True)
class Curve:
    """A training history with three losses; only `train` and `validation` may be compared."""

    epochs: tuple[float, ...]
    noisy: tuple[float, ...]
    """Training loss as trained: with dropout, mixup, smoothing and every other noise on."""
    train: tuple[float, ...]
    """Loss on training rows in evaluation mode."""
    validation: tuple[float, ...]
    """Loss on validation rows in evaluation mode."""
    best: int
    """Index of the point whose weights were restored."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One cocktail, trained on every fold."""

    origin: Origin
    cocktail: Cocktail
    losses: tuple[float, ...]
    """Validation loss of each fold at its best point, in units of the metric (lower is better)."""
    loss: float
    """Validation loss over all validation rows of all folds."""
    error: float
    """Standard error of `loss` over validation rows."""
    left: float
    """Share of the planned epochs after which it left; 1.0 means it stayed to the end."""
    curves: tuple[Curve, ...]


@dataclass(frozen=True, slots=True)
class Effect:
    """What one regularizer bought: the same cocktail without it, on the same folds and seeds."""

    regularizer: str
    setting: float
    gain: float
    """Validation loss without it minus validation loss with it: above 0, it helped."""
    low: float
    high: float
    """95 % interval of `gain`: over folds, or over the rows of a single holdout."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the checklist for dropout, with its evidence."""

    claim: str
    passed: bool | None
    """None: not applicable, or not looked at; `evidence` says why."""
    evidence: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a search stands."""

    phase: str
    done: float
    """Share of the work budget that is spent, 0 to 1."""
    best: float | None
    """Best validation loss so far, in units of the metric."""
    alive: int
    members: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search found, for a report; the networks themselves are in the model."""

    metric: str
    """Metric by which validation chose: log_loss, accuracy, balanced_accuracy, roc_auc, rmse, mae
    or r2."""
    trials: tuple[Trial, ...]
    winner: int
    """Index of the trial that validation, with ties to the simpler cocktail, chose."""
    effects: tuple[Effect, ...]
    ensemble: tuple[tuple[int, float], ...]
    """(trial index, weight) of the final ensemble; each trial stands with all its folds."""
    validation: float
    """Validation loss of the ensemble: out of fold, and slightly optimistic, since it was chosen
    by it."""
    folds: int
    """Number of cross-validation folds; 1 means a holdout."""
    validation_rows: int
    work: float
    """Member-epochs spent."""
    budget: float
    """Member-epochs allowed."""
    parameters: int
    """Trainable parameters of one member."""
    network: str
    """The network in words: layers, widths, activation."""
    hurried: bool
    """Whether a time limit had a say in what was tried, so that a faster machine does more."""
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class Holdout:
    """Rows that no choice has seen, with what was predicted for them."""

    source: str
    """Where they come from, in words: a file name, or "20 % of the rows, set aside"."""
    ids: tuple[str, ...]
    """Id of each row: the id column's value if there is one, else the row number in its file,
    from 1."""
    truth: tuple[float, ...]
    """Values, or class codes as floats."""
    prediction: tuple[tuple[float, ...], ...]
    """One tuple per row: class probabilities, or a single value."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """An honest rival fitted on the same training rows."""

    name: str
    note: str
    prediction: tuple[tuple[float, ...], ...]
    """On the holdout's rows, as in `Holdout`."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Everything that a report tells."""

    table: str
    """Name of the table, for the title."""
    schema: Schema
    outcome: Outcome
    holdout: Holdout | None
    """None: every row was used for training, and only validation can be reported."""
    uncertainty: Uncertainty | None
    """None: its draws would all be the same, or an older dropkit made it."""
    baselines: tuple[Baseline, ...]
    cells: tuple[tuple[str, ...], ...]
    """The holdout's rows as text, in the order of `schema.columns`."""
    stopped: Literal["", "time", "interrupted"]
    """Why it stopped before its budget was spent; empty if it was not."""
    seconds: float
    seed: int
    command: str
    """What to type to get the same again."""
    versions: tuple[tuple[str, str], ...]
    device: str
    threads: int
