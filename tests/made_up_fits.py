"""Made-up `Fit` records, as real as they need be to judge a report by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dropkit.records import (
    Baseline,
    Calibration,
    Check,
    Cocktail,
    Column,
    Curve,
    Effect,
    Fit,
    Holdout,
    Outcome,
    Schema,
    Strange,
    Trial,
    Uncertainty,
)

RATES = (0.0, 0.1, 0.2, 0.3, 0.5)


def columns() -> tuple[Column, ...]:
    """Columns of every kind, used and not."""
    return (
        Column(
            "customer_id",
            "category",
            False,
            "an id: every row has its own value",
            0,
            800,
            "C-00417",
        ),
        Column("duration", "number", True, "read as a number", 0, 33, "24"),
        Column("credit_amount", "number", True, "read as a number", 12, 743, "2,835"),
        Column(
            "purpose", "category", True, "text with few levels", 31, 10, "furniture", ("tv", "car")
        ),
        Column("savings", "category", True, "text with few levels", 0, 5, "below 100"),
        Column(
            "foreign_worker", "boolean", True, "two levels: yes, no", 0, 2, "yes", ("yes", "no")
        ),
        Column(
            "opened", "date", True, "day, month and weekday are taken from it", 4, 611, "2019-04-02"
        ),
        Column("country", "category", False, "constant: it has a single value", 0, 1, "DE"),
    )


def curve(
    seed: int, floor: float, epochs: float = 60, points: int = 300, start: float = 0.72
) -> Curve:
    """A history whose noisy loss lies above validation, and validation above train."""
    generator = np.random.default_rng(seed)
    epoch = np.linspace(0.2, epochs, points)
    shape = (start - floor) * np.exp(-epoch / 9)
    wobble = generator.normal(0, 0.006, points) * floor
    validation = floor + shape + 0.0009 * floor * np.maximum(0, epoch - 35) + wobble
    train = 0.9 * floor + shape - 0.0016 * floor * epoch + 0.3 * wobble
    noisy = 1.09 * floor + 1.05 * shape + generator.normal(0, 0.02, points) * floor
    best = int(validation.argmin())
    listed = [tuple(part.tolist()) for part in (epoch, noisy, train, validation)]
    return Curve(listed[0], listed[1], listed[2], listed[3], best)


def trials(number: int, folds: int, level: float, points: int = 300) -> tuple[Trial, ...]:
    """The grid first, then sampled and refined ones, some of which left early."""
    generator, made = np.random.default_rng(5), []
    for index in range(number):
        grid = index < len(RATES)
        rate = (
            RATES[index] if grid else float(generator.choice([0.05, 0.15, 0.25, 0.3, 0.35, 0.45]))
        )
        loss = level * (1 + 0.55 * (rate - 0.3) ** 2 + (0 if grid else generator.exponential(0.03)))
        left = 1.0 if grid or index % 3 == 0 else float(generator.choice([0.12, 0.25, 0.5]))
        cocktail = Cocktail(
            hidden_dropout=rate,
            input_dropout=0.0 if grid else float(generator.choice([0.0, 0.05])),
            weight_decay=0.01 if grid else float(10 ** generator.uniform(-4, -1)),
            learning_rate=0.008,
            label_smoothing=0.05,
            feature_noise=0.03,
            weight_averaging=0.9,
        )
        fits = tuple(
            curve(
                100 * index + fold,
                loss * (1 + 0.02 * fold),
                60 * left,
                max(5, int(points * left)),
                1.5 * level,
            )
            for fold in range(folds)
        )
        losses = tuple(loss * (1 + 0.02 * fold) for fold in range(folds))
        origin = "grid" if grid else "sampled" if index % 2 else "refined"
        made.append(Trial(origin, cocktail, losses, loss, 0.02 * level, left, fits))  # type: ignore[arg-type]
    return tuple(made)


CHECKS = (
    Check(
        "Evaluation mode at prediction", True, "The same rows predicted twice gave the same bits."
    ),
    Check("Dropout stands after the activation", True, "Both hidden sites follow a SiLU."),
    Check("Inverted scaling", True, "Kept activations were scaled by 1 / (1 - 0.3) in training."),
    Check("Weight decay beside dropout", True, "The winner uses both: 0.3 and 0.01."),
    Check("No dropout on the output", True, "No site after the last linear layer."),
    Check("Dropout after batch normalization", None, "This network has no batch normalization."),
)


def outcome(metric: str, made: tuple[Trial, ...], folds: int, level: float, rows: int) -> Outcome:
    """What a search of a few minutes finds."""
    unit = 0.05 * level
    winner = min(3, len(made) - 1)
    effects = (
        Effect("hidden_dropout", 0.3, 1.0 * unit, 0.5 * unit, 1.5 * unit),
        Effect("weight_decay", 0.01, 0.35 * unit, -0.05 * unit, 0.75 * unit),
        Effect("weight_averaging", 0.9, 0.22 * unit, 0.06 * unit, 0.38 * unit),
        Effect("label_smoothing", 0.05, -0.02 * unit, -0.2 * unit, 0.16 * unit),
        Effect("feature_noise", 0.03, -0.3 * unit, -0.5 * unit, -0.1 * unit),
    )
    active = made[winner].cocktail.active
    return Outcome(
        metric=metric,
        trials=made,
        winner=winner,
        effects=tuple(effect for effect in effects if effect.regularizer in active),
        ensemble=tuple(
            (index, weight)
            for index, weight in ((winner, 0.55), (7, 0.3), (2, 0.15))
            if index < len(made)
        ),
        validation=level,
        folds=folds,
        validation_rows=rows,
        work=5120.0,
        budget=5120.0,
        parameters=18_946,
        network="numeric embedding, 2 hidden layers of 128, SiLU, linear head",
        hurried=False,
        checks=CHECKS,
    )


def _cells(rows: int) -> tuple[tuple[str, ...], ...]:
    kinds = ("furniture", "car (new)", "tv", "", "education")
    return tuple(
        (f"C-{row:05d}", str(6 + row % 40), f"{500 + 37 * row % 9000:,}", kinds[row % 5],
         "below 100", "yes", f"2019-{1 + row % 12:02d}-{1 + row % 28:02d}", "DE")
        for row in range(rows)
    )  # fmt: skip


def _holdout(truth: np.ndarray, prediction: np.ndarray) -> Holdout:
    return Holdout(
        "20 % of the rows, set aside",
        tuple(f"C-{row:05d}" for row in range(len(truth))),
        tuple(truth.astype(float).tolist()),
        tuple(tuple(line) for line in prediction.tolist()),
    )


def doubt(holdout: Holdout, schema: Schema) -> Uncertainty:
    """Draws that scatter about the predictions, and more about made-up rows."""
    generator, rows = np.random.default_rng(4), len(holdout.truth)
    mean = np.array(holdout.prediction)
    truth = np.array(holdout.truth)
    wild = generator.gamma(3.0, 1.0, rows)
    if schema.classes:
        total = -(mean * np.log(mean)).sum(axis=1)
        epistemic, noise = 0.03 * total * wild, 0.0
        scores = 1 - mean[np.arange(rows), truth.astype(int)]
    else:
        noise = 0.1 * float(truth.std()) or 1.0
        epistemic = noise * wild / 2
        total = np.hypot(epistemic, noise)
        scores = np.abs(mean[:, 0] - truth) / total
    return Uncertainty(
        varied="masks and networks",
        draws=100,
        calibration=Calibration(
            rows, 100, 0.93 if schema.classes else 1.0, noise, tuple(np.sort(scores).tolist())
        ),
        rows=tuple(range(rows)),
        prediction=holdout.prediction,
        total=tuple(total.tolist()),
        epistemic=tuple(epistemic.tolist()),
        strange=(
            Strange("columns shuffled", "shuffled", tuple((1.1 * epistemic[::-1]).tolist())),
            Strange("numbers out of range", "far", tuple((3.0 * epistemic).tolist())),
        ),
    )


def _rows(prediction: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(line) for line in prediction.tolist())


def _fit(schema: Schema, found: Outcome, holdout: Holdout, baselines: tuple[Baseline, ...]) -> Fit:
    return Fit(
        table="credit.csv",
        schema=schema,
        outcome=found,
        holdout=holdout,
        uncertainty=doubt(holdout, schema),
        baselines=baselines,
        cells=_cells(len(holdout.truth)),
        stopped="",
        seconds=83.4,
        seed=0,
        command="dropkit fit credit.csv --target risk --seed 0",
        versions=(
            ("dropkit", "0.1.0"),
            ("python", "3.11.2"),
            ("torch", "2.13.0"),
            ("numpy", "2.4.6"),
        ),
        device="CPU",
        threads=2,
    )


def classification(
    classes: tuple[str, ...] = ("good", "bad"),
    rows: int = 200,
    number: int = 24,
    folds: int = 5,
    points: int = 300,
) -> Fit:
    """A calibrated model, a weaker boosted rival, and the class shares as the weakest."""
    generator, many = np.random.default_rng(1), len(classes)
    prior = np.linspace(2.4, 1.0, many)
    logits = generator.normal(0, 1.25, (rows, many)) + np.log(prior)
    prediction = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.array([generator.choice(many, p=line) for line in prediction])
    noisy = np.exp(logits + generator.normal(0, 0.75, logits.shape))
    noisy /= noisy.sum(axis=1, keepdims=True)
    shares = np.tile(prior / prior.sum(), (rows, 1))
    level = float(-np.log(prediction[np.arange(rows), truth]).mean()) * 1.02
    schema = Schema(columns(), "risk", "classification", classes, 800)
    found = outcome("log_loss", trials(number, folds, level, points), folds, level, 800)
    baselines = (
        Baseline(
            "class shares",
            "Predicts how often each class occurs in the training rows.",
            _rows(shares),
        ),
        Baseline(
            "HistGradientBoosting", "scikit-learn's default gradient-boosted trees.", _rows(noisy)
        ),
    )
    return _fit(schema, found, _holdout(truth, prediction), baselines)


def regression(rows: int = 160, number: int = 24, folds: int = 5) -> Fit:
    """Car prices in dollars."""
    generator = np.random.default_rng(2)
    truth = np.exp(generator.normal(9.4, 0.5, rows))
    ours = truth * np.exp(generator.normal(0, 0.13, rows))
    theirs = truth * np.exp(generator.normal(0, 0.15, rows))
    rmse = float(np.sqrt(((ours - truth) ** 2).mean()))
    made = tuple(
        replace(
            trial,
            cocktail=replace(trial.cocktail, label_smoothing=0.0),
            curves=tuple(
                curve(7 * fold, 0.09 * (trial.loss / rmse) ** 9, 60 * trial.left, start=1.0)
                for fold in range(folds)
            ),
        )
        for trial in trials(number, folds, rmse)
    )  # fmt: skip
    schema = Schema(columns(), "price", "regression", (), 640)
    found = outcome("rmse", made, folds, rmse, 640)
    baselines = (
        Baseline(
            "mean",
            "Predicts the mean of the training rows.",
            _rows(np.full((rows, 1), truth.mean())),
        ),
        Baseline(
            "HistGradientBoosting",
            "scikit-learn's default gradient-boosted trees.",
            _rows(theirs[:, None]),
        ),
    )
    return _fit(schema, found, _holdout(truth, ours[:, None]), baselines)


HOSTILE = "<script>alert(1)</script> $x_1$ \"'&]]>--> =cmd() \x00\u202e#0d0f00"


def _hostile(found: Uncertainty | None) -> Uncertainty | None:
    if found is None:
        return None
    names = tuple(replace(strange, name=HOSTILE, how=HOSTILE) for strange in found.strange)
    return replace(found, strange=names)


def hostile() -> Fit:
    """Names, levels, ids and cells that try to break out of the page."""
    fit = classification((HOSTILE, "b" + HOSTILE, "c"))
    named = tuple(
        replace(column, name=HOSTILE, reason=HOSTILE, example=HOSTILE) for column in columns()
    )
    holdout = fit.holdout
    assert holdout is not None
    return replace(
        fit,
        table=HOSTILE,
        schema=replace(fit.schema, columns=named, target=HOSTILE),
        holdout=replace(holdout, source=HOSTILE, ids=tuple(HOSTILE for _ in holdout.ids)),
        uncertainty=_hostile(fit.uncertainty),
        baselines=tuple(replace(one, name=HOSTILE, note=HOSTILE) for one in fit.baselines),
        cells=tuple((HOSTILE,) * len(named) for _ in fit.cells),
        outcome=replace(fit.outcome, checks=(Check(HOSTILE, False, HOSTILE),), network=HOSTILE),
        command=HOSTILE,
        device=HOSTILE,
    )
