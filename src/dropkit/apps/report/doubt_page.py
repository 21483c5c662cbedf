"""What the page says of uncertainty: sentences, each with its number, its rule and its noise."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from dropkit.apps.counting import count
from dropkit.apps.report import doubt_figures
from dropkit.apps.report.doubt import (
    HANDED,
    LEVEL,
    Alarm,
    Handed,
    LookRow,
    Promise,
    Sampled,
    against_plain,
    alarm,
    handed,
    looks,
    promise,
    sampled,
)
from dropkit.apps.report.metrics import METRICS, Interval
from dropkit.apps.report.numerals import (
    clip,
    decimals,
    difference_range,
    difference_text,
    fixed,
    percent,
    short,
)
from dropkit.records import Fit, Holdout, Uncertainty

_DRAWN = {
    "masks and networks": "one of its networks, thinned by dropout masks of the rate at which it "
    "was trained",
    "masks": "its network, thinned by dropout masks of the rate at which it was trained",
    "networks": "one of its networks. None of them drops anything, so the draws differ by the "
    "network alone",
}


def section(fit: Fit, columns: int) -> dict[str, Any] | None:
    """Everything that the page tells of uncertainty; None where no row was sampled."""
    found, seen, holdout = fit.uncertainty, sampled(fit), fit.holdout
    if found is None or seen is None or holdout is None:
        return None
    kept, away = promise(seen, found), handed(seen)
    rows = looks(fit, seen, holdout)
    return {
        "intro": intro(fit, seen, found),
        "promise": kept,
        "promise_title": _promise_title(seen, kept) if kept else "",
        "promise_said": promise_said(seen, found, kept) if kept else _no_promise(found),
        "promise_figure": Markup(doubt_figures.promises(seen, found)),
        "handed": away,
        "handed_word": handed_word(away) if away else "",
        "handed_said": handed_said(seen, away) if away else "",
        "handed_figure": Markup(doubt_figures.handing(seen)),
        "alarms": [_alarm(alarm(seen, strange)) for strange in found.strange],
        "alarm_figure": Markup(doubt_figures.unlike(seen, found)),
        "plain_said": plain_said(fit, seen, holdout),
        "looks": [_look(row, columns, seen.classes) for row in rows],
    }


def intro(fit: Fit, seen: Sampled, found: Uncertainty) -> str:
    """What was drawn, and what calibrated it."""
    held = len(fit.holdout.truth) if fit.holdout else 0
    some = f"{len(seen.truth):,} of the " if held > len(seen.truth) else ""
    one = found.calibration
    how = (
        f"each draw was tempered to be as sure as it is right (temperature "
        f"{short(one.temperature)})"
        if seen.classes
        else f"the truth was found to lie around a draw with a standard deviation of "
        f"{short(one.noise)}"
    )
    return (
        f"Beside its plain prediction the model was asked {found.draws} times about {some}"
        f"{count(held, 'held-out row')}; each draw is {_DRAWN[found.varied]}. What the draws "
        "disagree about is what the model does not know (epistemic uncertainty). On "
        f"{count(one.rows, 'validation row')}, by networks that had not trained on them, {how}."
    )


def _promise_title(seen: Sampled, kept: Promise) -> str:
    what = "sets" if seen.classes else "intervals"
    return f"{percent(LEVEL)} {what} hold the truth of {percent(kept.held.value, 1)} of the rows"


def promise_said(seen: Sampled, found: Uncertainty, kept: Promise) -> str:
    """Whether the promise was kept, as far as so many rows can tell."""
    rows = count(len(seen.truth), "row")
    noise = (
        f"With {rows} to judge by and {found.calibration.rows:,} to set the threshold by, chance "
        f"alone moves it by up to {fixed(100 * kept.reach, 1)} points 19 times in 20"
    )
    verdict = {
        "as promised": "so this is as promised",
        "too rarely": "so this is less than was promised: do not rely on it",
        "more often": "so this is more than was promised: the sets are larger than they need be"
        if seen.classes
        else "so this is more than was promised: the intervals are wider than they need be",
    }[kept.kept]
    if seen.classes and kept.kept == "more often" and kept.alone > LEVEL:
        verdict = (
            "so this is more than was promised, as a set always holds the class that is predicted"
        )
    return f"{noise}, {verdict}. {_sizes_said(seen, kept)}"


def _sizes_said(seen: Sampled, kept: Promise) -> str:
    if seen.classes:
        rows = kept.sizes[0][1] if kept.sizes else 0
        share = percent(rows / len(seen.truth))
        return f"Sets of a single class, which decide, were given for {share} of the rows."
    low, middle, high = (short(width) for width in kept.widths)
    return (
        f"Half of the intervals are narrower than {middle}; the narrowest tenth is below {low}, "
        f"the widest tenth above {high}."
    )


def _no_promise(found: Uncertainty) -> str:
    return (
        f"{count(found.calibration.rows, 'validation row')} cannot promise {percent(LEVEL)}: that "
        "takes 9 at least."
    )


def handed_word(away: Handed) -> str:
    """Whether the rows handed over are worse than those kept."""
    if away.difference.low > 0:
        return "worth it"
    return "misleads" if away.difference.high < 0 else "not clear"


def handed_said(seen: Sampled, away: Handed) -> str:
    """What handing the least sure fifth to a person buys."""
    if seen.classes:
        theirs, ours = (_share(part) for part in (away.handed, away.kept))
        gap = away.difference
        size = (
            f"{fixed(100 * gap.value, 0)} points ({fixed(100 * gap.low, 0)} to "
            f"{fixed(100 * gap.high, 0)})"
        )
        facts = f"{theirs} are wrong; of the others {ours}"
    else:
        theirs, ours, size = (_amount(part) for part in (away.handed, away.kept, away.difference))
        facts = f"the mean absolute error is {theirs}; of the others {ours}"
    ending = {
        "worth it": "so a person's time is well spent on them",
        "not clear": "which so many rows cannot tell from nothing",
        "misleads": "so that this order misleads: do not hand rows over by it",
    }[handed_word(away)]
    return (
        f"Of the {count(away.rows, 'row')} ({percent(HANDED)}) that it is least sure of, {facts}. "
        f"The difference is {size}, {ending}."
    )


def _share(part: Interval) -> str:
    return f"{percent(part.value)} ({fixed(100 * part.low, 0)} to {fixed(100 * part.high, 0)})"


def _amount(part: Interval) -> str:
    places = decimals((part.high - part.low) / 2)
    ends = f"{fixed(part.low, places)} to {fixed(part.high, places)}"
    return f"{fixed(part.value, places)} ({ends})"


def alarm_said(found: Alarm) -> str:
    """Whether doubt rises about rows unlike the table, and what an alarm would catch."""
    area = found.area
    caught = _share(found.caught)
    facts = (
        f"A made-up row has more of it than a row of the table {fixed(100 * area.value, 0)} times "
        f"in 100 ({fixed(100 * area.low, 0)} to {fixed(100 * area.high, 0)}; 50 means that it "
        "cannot tell). An alarm that 5 % of the table's rows set off would catch "
    )
    if found.word == "rises":
        rest = "the others would pass" if found.caught.value >= 0.5 else "most would pass"
        return f"{facts}{caught} of them; {rest}."
    if found.word == "falls":
        return f"{facts}{caught}: it is surer of rows that cannot be. Do not rely on it for them."
    return f"{facts}{caught}: it cannot be used to find such rows."


def _alarm(found: Alarm) -> dict[str, str]:
    name, how = clip(found.name, 40), clip(found.how, 300)
    return {
        "name": name[:1].upper() + name[1:],
        "how": f"{how[:1].upper()}{how[1:]}.",
        "word": found.word,
        "said": alarm_said(found),
    }


def plain_said(fit: Fit, seen: Sampled, holdout: Holdout) -> str:
    """Whether the mean of the draws predicts better than the plain prediction."""
    metric = METRICS["log_loss" if seen.classes else "rmse"]
    gain = against_plain(fit, seen, holdout)
    same = (
        f"On the same rows, the mean of the draws and the plain prediction differ in {metric.title}"
    )
    size = difference_text(metric, gain)
    if gain.low > 0:
        return f"{same}: the mean is better by {size} ({difference_range(metric, gain)})."
    if gain.high < 0:
        return f"{same}: the mean is worse by {size} ({difference_range(metric, gain, -1.0)})."
    range_of = difference_range(metric, gain)
    return f"{same} by no clear amount ({range_of}, above 0 if the mean is better)."


def _doubt(value: float, classes: bool) -> str:
    return fixed(value, 3) if classes else short(value, 3)


def _look(row: LookRow, columns: int, classes: bool) -> dict[str, Any]:
    return {
        "id": clip(row.id, 24),
        "said": clip(row.said, 28),
        "truth": clip(row.truth, 28),
        "wrong": row.wrong,
        "epistemic": _doubt(row.epistemic, classes),
        "total": _doubt(row.total, classes),
        "cells": [clip(cell, 28) for cell in row.cells[:columns]],
    }


def trust_sentence(fit: Fit) -> str:
    """The uncertainty in one sentence for the verdict; empty where no row was sampled."""
    found, seen = fit.uncertainty, sampled(fit)
    if found is None or seen is None:
        return ""
    kept, away = promise(seen, found), handed(seen)
    parts = []
    if kept:
        what = "sets of classes" if seen.classes else "intervals"
        parts.append(
            f"its {percent(LEVEL)} {what} hold the truth in {_share(kept.held)} of these rows"
        )
    if away and handed_word(away) == "worth it":
        theirs, ours = (
            (percent(part.value) for part in (away.handed, away.kept))
            if seen.classes
            else (short(part.value) for part in (away.handed, away.kept))
        )
        facts = (
            f"{theirs} are wrong, and of the others {ours}"
            if seen.classes
            else f"the mean absolute error is {theirs}, and of the others {ours}"
        )
        parts.append(f"of the fifth that it is least sure of {facts}")
    text = "; ".join(parts)
    return f"Sampled with dropout on, {text}." if text else ""
