"""The judgement in plain sentences, as the command prints them and the report opens with them."""

from __future__ import annotations

from dropkit.apps.clock import words
from dropkit.apps.counting import count
from dropkit.apps.report.doubt_page import trust_sentence
from dropkit.apps.report.judgement import (
    OVERFITS,
    OVERFITS_A_LITTLE,
    UNDERFITS,
    Judgement,
    Reading,
    Rival,
    effect_of,
    has_shares,
    judge,
    reading,
    winner,
)
from dropkit.apps.report.metrics import METRICS
from dropkit.apps.report.numerals import (
    clip,
    decimals,
    difference_range,
    difference_text,
    fixed,
    percent,
    range_text,
    short,
    value_text,
)
from dropkit.records import Effect, Fit, Trial

NAMES = {
    "hidden_dropout": "hidden dropout",
    "input_dropout": "input dropout",
    "l1": "L1",
    "mixup": "mixup",
}
"""Regularizers whose name is more than their field with spaces."""


def name_of(regularizer: str) -> str:
    """A regularizer's name in prose."""
    return NAMES.get(regularizer, regularizer.replace("_", " "))


def verdict(fit: Fit) -> list[str]:
    """The verdict on a fit in two to six plain sentences.

    The held-out score with its interval, the comparison with the baselines, what dropout bought,
    how far single predictions can be trusted, and, where there is one, why it stopped early or one
    next step.
    """
    judged = judge(fit)
    sentences = [_score(fit, judged), _against(judged), dropout_sentence(fit), trust_sentence(fit)]
    sentences += [_stopped(fit) or _next_step(fit, judged)]
    return [sentence for sentence in sentences if sentence]


def _score(fit: Fit, judged: Judgement) -> str:
    score = judged.headline
    better = "lower" if score.metric.lower_is_better else "higher"
    number = (
        f"{score.metric.title} is {value_text(score.metric, score.interval)} "
        f"(95 % interval {range_text(score.metric, score.interval)}; {better} is better)"
    )
    if fit.holdout is None or not judged.held_out:
        return (
            f"No rows were set aside, so only validation can speak: {number}, "
            "a little optimistic because the same rows chose the model."
        )
    rows = f"{judged.rows:,} rows" if judged.rows != 1 else "1 row"
    source = clip(fit.holdout.source, 80)
    return f"On {rows} that no choice has seen ({source}), {number}."


def _against(judged: Judgement) -> str:
    parts = [_beside(judged, rival) for rival in judged.rivals if rival.difference]
    return f"Against {'; against '.join(parts)}." if parts else ""


def _beside(judged: Judgement, rival: Rival) -> str:
    metric, difference, name = judged.headline.metric, rival.difference, clip(rival.baseline.name)
    if difference is None:
        return f"{name} there is no comparison"
    size = difference_text(metric, difference)
    if rival.word == "no clear difference":
        return (
            f"{name} there is no clear difference "
            f"({difference_range(metric, difference)}, above 0 if better)"
        )
    sign = 1.0 if rival.word == "better" else -1.0
    return f"{name} it is {rival.word} by {size} ({difference_range(metric, difference, sign)})"


def dropout_sentence(fit: Fit) -> str:
    """What dropout bought, or that validation chose none, or that it was not measured."""
    best = winner(fit)
    if best is None:
        return "It was stopped before any network could be compared with another."
    if len(fit.outcome.trials) < 2:
        return "Only one trial was trained, so that no dropout rate was compared with another."
    cocktail = best.cocktail
    for regularizer in ("hidden_dropout", "input_dropout"):
        effect = effect_of(fit, regularizer)
        if effect is not None and getattr(cocktail, regularizer) > 0:
            return effect_sentence(fit, effect)
    if cocktail.hidden_dropout > 0 or cocktail.input_dropout > 0:
        rate = max(cocktail.hidden_dropout, cocktail.input_dropout)
        return (
            f"Validation chose a dropout rate of {short(rate, 2)}; what it bought was not measured."
        )
    return _no_dropout(fit) + _dropout_of_others(fit)


def effect_sentence(fit: Fit, effect: Effect) -> str:
    """What one regularizer bought, in one sentence with its interval."""
    loss = METRICS[fit.outcome.metric].loss_title
    subject = f"{name_of(effect.regularizer)} of {short(effect.setting, 2)}"
    subject = subject[0].upper() + subject[1:]
    same = "against the same network without it"
    if effect.low <= 0 <= effect.high:
        return (
            f"{subject} made no clear difference to the validation {loss} {same} "
            f"(it saved {effect_range(effect)})."
        )
    verb, sign = ("lowered", 1.0) if effect.low > 0 else ("raised", -1.0)
    size = fixed(sign * effect.gain, effect_places(effect))
    return (
        f"{subject} {verb} the validation {loss} by {size} ({effect_range(effect, sign)}) {same}."
    )


def effect_places(effect: Effect) -> int:
    """Decimals that an effect's interval allows."""
    spread = (effect.high - effect.low) / 2
    return decimals(spread if spread > 0 else abs(effect.gain))


def effect_range(effect: Effect, sign: float = 1.0, places: int | None = None) -> str:
    """An effect's interval, seen from the side of `sign`."""
    places = effect_places(effect) if places is None else places
    low, high = sorted((sign * effect.low, sign * effect.high))
    return f"{fixed(low, places)} to {fixed(high, places)}"


def _no_dropout(fit: Fit) -> str:
    grid = [trial for trial in fit.outcome.trials if trial.origin == "grid"]
    without = [trial.loss for trial in grid if trial.cocktail.hidden_dropout == 0]
    dropped = [trial for trial in grid if trial.cocktail.hidden_dropout > 0]
    if not without or not dropped:
        return "The chosen cocktail has no dropout."
    best = min(dropped, key=_loss)
    loss = METRICS[fit.outcome.metric].loss_title
    rate, places = short(best.cocktail.hidden_dropout, 2), decimals(best.error)
    return (
        f"The chosen cocktail has no dropout: the best rate above 0, {rate}, had a validation "
        f"{loss} of {fixed(best.loss, places)} (standard error {fixed(best.error, places)}), "
        f"and rate 0 had {fixed(min(without), places)}."
    )


def _dropout_of_others(fit: Fit) -> str:
    """How much of the ensemble drops although the winner does not."""
    drops = [
        (share, fit.outcome.trials[index].cocktail.hidden_dropout)
        for index, share in fit.outcome.ensemble
        if fit.outcome.trials[index].cocktail.hidden_dropout > 0
    ]
    if not drops:
        return ""
    share, rates = sum(share for share, _ in drops), sorted(rate for _, rate in drops)
    low, high = short(rates[0], 2), short(rates[-1], 2)
    span = f"a rate of {low}" if low == high else f"rates of {low} to {high}"
    return f" Networks with {span} make up {percent(share)} of the ensemble."


def _loss(trial: Trial) -> float:
    return trial.loss


def _stopped(fit: Fit) -> str:
    if not fit.stopped:
        return ""
    share = min(1.0, fit.outcome.work / fit.outcome.budget) if fit.outcome.budget > 0 else 1.0
    reason = "the time cap" if fit.stopped == "time" else "hand"
    if not _typed(fit):
        remedy = "allow more time"
    elif fit.stopped == "time":
        remedy = "continue it with --resume, or allow more time"
    else:
        remedy = "continue it with --resume"
    return (
        f"It was stopped by {reason} after {words(fit.seconds)}, with {percent(share)} of its "
        f"budget spent; {remedy}."
    )


def _typed(fit: Fit) -> bool:
    """Whether it was made by the command, and not in Python, where there are no options."""
    return fit.command.startswith("dropkit fit ")


def _next_step(fit: Fit, judged: Judgement) -> str:
    """The one thing to do next, the most pressing first; empty if nothing presses."""
    failed = [check for check in fit.outcome.checks if check.passed is False]
    beside = [rival.word for rival in judged.rivals]
    found = reading(fit)
    thorough = "--budget thorough" if _typed(fit) else 'budget="thorough"'
    if failed:
        return f"Next: look into the check that failed ({clip(failed[0].claim, 100)})."
    if not judged.held_out:
        how = "set rows aside with --test-size 0.2" if _typed(fit) else "score it on other rows"
        return f"Next: {how} to get a score that can be trusted."
    if beside and beside[0] != "better":
        return (
            "Next: find more rows, or columns that say more about the target; "
            f"{count(judged.rows, 'held-out row')} cannot tell it from "
            f"{clip(judged.rivals[0].baseline.name)}."
            if beside[0] == "no clear difference"
            else "Next: look for columns that say more about the target; from these it learned "
            f"nothing that beats {clip(judged.rivals[0].baseline.name)}."
        )
    if "worse" in beside:
        rival = judged.rivals[beside.index("worse")].baseline.name
        return f"Next: try {thorough}, and until then prefer {clip(rival)} on this table."
    if found and found.word == "underfits":
        return f"Next: it underfits; allow more work with {thorough}."
    if found and found.word == "overfits":
        return f"Next: it still overfits; more rows would help most, then {thorough}."
    return ""


def reading_sentence(fit: Fit, found: Reading) -> str:
    """What the curves say, with the rule that says so."""
    return _gap_sentence(fit, found) + _late_sentence(found)


def _late_sentence(found: Reading) -> str:
    if found.late <= found.validation + OVERFITS_A_LITTLE * found.blank:
        return ""
    late = fixed(found.late, decimals(found.validation / 10))
    return (
        f" Trained on beyond that point, validation rose to {late}: early stopping did a part of "
        "the regularizing."
    )


def _gap_sentence(fit: Fit, found: Reading) -> str:
    gap = percent(found.gap, 1)
    knows = "the mean" if fit.schema.task == "regression" else "the class shares"
    if fit.schema.classes and not has_shares(fit):
        knows = "equal shares of the classes"
    places = decimals(found.validation / 10)
    numbers = (
        f"Where the weights were restored, the training loss is {fixed(found.train, places)} "
        f"and the validation loss {fixed(found.validation, places)}"
    )
    scale = f"of {short(found.blank)}, the loss of always predicting {knows}"
    if found.word == "underfits":
        return (
            f"{numbers}: it underfits. Even on the training rows it stays above "
            f"{percent(UNDERFITS)} {scale}. Lower rates, a longer run or better columns may help."
        )
    rule = f"{numbers}; the gap is {gap} {scale}"
    if found.word == "healthy":
        return f"{rule}. Below {percent(OVERFITS_A_LITTLE)} counts as healthy."
    advice = "More rows may help, or stronger regularization than was tried."
    if found.word == "overfits":
        return f"{rule}. Above {percent(OVERFITS)} counts as overfitting. {advice}"
    return f"{rule}. Above {percent(OVERFITS_A_LITTLE)} counts as overfitting a little. {advice}"
