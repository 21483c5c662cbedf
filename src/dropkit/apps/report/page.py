"""Puts the page together. Every text goes through the template, which escapes it."""

from __future__ import annotations

import re
from importlib.resources import files
from math import log
from typing import Any

import jinja2
from markupsafe import Markup, escape

from dropkit.apps.clock import words
from dropkit.apps.counting import count
from dropkit.apps.report import curve_figures, row_figures, search_figures
from dropkit.apps.report.doubt_page import section
from dropkit.apps.report.judgement import Judgement, judge, reading, winner
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
from dropkit.apps.report.rows import calibration, confusion, hardest, per_class
from dropkit.apps.report.verdict import (
    effect_places,
    effect_range,
    name_of,
    reading_sentence,
    verdict,
)
from dropkit.records import REGULARIZERS, Cocktail, Effect, Fit, Holdout

CONFUSION_CLASSES = 12
CLASS_ROWS = 60
COLUMN_ROWS = 250
CELL_COLUMNS = 16
ENSEMBLE_ROWS = 32
"""Limits of the tables, so that no input makes a huge page; the page says what it omits."""


def render(fit: Fit) -> str:
    """The whole `report.html`: self-contained, without scripts, the same bytes for the same fit.

    Example:
        `Path("report.html").write_text(render(fit), encoding="utf-8")`
    """
    here = files(__package__)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        clip=clip, duration=words, percent=percent, range=range_text, short=short,
        printable=_printable, value=value_text, typeset=_typeset,
    )  # fmt: skip
    template = environment.from_string((here / "page.html.jinja").read_text(encoding="utf-8"))
    style = Markup((here / "page.css").read_text(encoding="utf-8"))
    page = template.render(style=style, **_context(fit))
    return page.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate cannot be written


def _context(fit: Fit) -> dict[str, Any]:
    judged, found = judge(fit), reading(fit)
    opening, *rest = verdict(fit)
    return {
        "fit": fit,
        "judged": judged,
        "opening": opening,
        "rest": rest,
        "best": winner(fit),
        "rivals": _rivals(judged),
        "effects": _effects(fit),
        "unused": _unused(fit),
        "figures": _figures(fit, judged),
        "reading": found,
        "reading_sentence": reading_sentence(fit, found) if found else "",
        "held": _held_out(fit) if fit.holdout and fit.holdout.truth else None,
        "trust": section(fit, CELL_COLUMNS),
        "entropy_of_all": log(max(1, len(fit.schema.classes))),
        "columns": fit.schema.columns[:COLUMN_ROWS],
        "ensemble": _ensemble(fit),
        "loss": METRICS[fit.outcome.metric].loss_title,
        "marks": {True: ("✓", "passed"), False: ("✗", "failed"), None: ("\u2013", "not looked at")},
        "count": count,
    }


def _figures(fit: Fit, judged: Judgement) -> dict[str, Markup]:
    drawn = {
        "scores": row_figures.scores(judged),
        "effects": search_figures.effects(fit),
        "curves": curve_figures.curves(fit),
        "overview": curve_figures.overview(fit),
        "rate": search_figures.rate(fit),
    }
    return {name: Markup(text) for name, text in drawn.items()}  # text in it is escaped already


def _rivals(judged: Judgement) -> list[dict[str, Any]]:
    """One line of the table of baselines: name, note, scores, difference, word."""
    metric = judged.headline.metric
    lines = []
    for rival in judged.rivals:
        scored = {score.metric.name: score for score in rival.scores}
        difference = rival.difference
        sign = "+" if difference and difference.value > 0 else "-"
        size = difference_text(metric, difference) if difference else ""
        zero = not size.strip("0. points")
        lines.append(
            {
                "name": rival.baseline.name,
                "note": rival.baseline.note,
                "scores": [scored.get(score.metric.name) for score in judged.scores],
                "difference": size if zero else sign + size,
                "range": difference_range(metric, difference) if difference else "",
                "word": rival.word,
            }
        )
    return lines


def _effects(fit: Fit) -> list[dict[str, str]]:
    """One line per regularizer that was compared, the most useful first."""
    each = [effect_places(effect) for effect in fit.outcome.effects]
    places = max(min(each), max(each) - 1) if each else 0  # one number of digits for the column
    return [
        {
            "name": name_of(effect.regularizer),
            "setting": short(effect.setting, 2),
            "gain": ("+" if effect.gain > 0 else "") + fixed(effect.gain, places),
            "range": effect_range(effect, places=places),
            "word": _effect_word(effect),
        }
        for effect in sorted(fit.outcome.effects, key=lambda effect: -effect.gain)
    ]


def _effect_word(effect: Effect) -> str:
    if effect.low > 0:
        return "helped"
    return "hurt" if effect.high < 0 else "not clear"


def _unused(fit: Fit) -> list[str]:
    """Regularizers that are off in the winning cocktail."""
    best = winner(fit)
    active = best.cocktail.active if best else ()
    measured = {effect.regularizer for effect in fit.outcome.effects}
    return [name_of(name) for name in REGULARIZERS if name not in {*active, *measured}]


def _held_out(fit: Fit) -> dict[str, Any]:
    """Everything that is told about single held-out rows or groups of them."""
    holdout = fit.holdout
    if holdout is None:
        return {}
    hard = hardest(fit, holdout)
    shared = {
        "hard": hard,
        "hard_columns": [column.name for column in fit.schema.columns[:CELL_COLUMNS]],
        "cells": [[clip(cell, 28) for cell in row.cells[:CELL_COLUMNS]] for row in hard],
    }
    if fit.schema.task == "regression":
        pictures = {
            "agreement": Markup(row_figures.predicted_and_true(holdout)),
            "residuals": Markup(row_figures.residuals(holdout)),
        }
        return {**shared, **pictures}
    found = calibration(fit, holdout)
    return {
        **shared,
        "calibration": found,
        "reliability": Markup(row_figures.reliability(found)),
        "classes": _largest(fit, holdout),
        "confusion": _confusion(fit, holdout),
    }


def _largest(fit: Fit, holdout: Holdout) -> list[Any]:
    """Results per class; of very many classes those with most rows."""
    results = per_class(fit, holdout)
    if len(results) <= CLASS_ROWS:
        return list(results)
    return sorted(results, key=lambda result: -result.rows)[:CLASS_ROWS]


def _confusion(fit: Fit, holdout: Holdout) -> list[dict[str, Any]]:
    """Rows of the confusion matrix with the share of each cell in its row; empty if too wide."""
    classes = fit.schema.classes
    if len(classes) > CONFUSION_CLASSES:
        return []
    table = confusion(holdout, len(classes))
    return [
        {
            "name": name,
            "cells": [
                {
                    "rows": int(rows),
                    "share": f"{rows / max(1, line.sum()):.2f}",
                    "hit": code == said,
                }
                for said, rows in enumerate(line)
            ],
        }
        for code, (name, line) in enumerate(zip(classes, table, strict=True))
    ]


def _ensemble(fit: Fit) -> list[dict[str, Any]]:
    """The members of the final ensemble, the heaviest first."""
    members = sorted(fit.outcome.ensemble, key=lambda member: -member[1])[:ENSEMBLE_ROWS]
    lines = []
    for index, weight in members:
        trial = fit.outcome.trials[index]
        places = decimals(trial.error)
        lines.append(
            {
                "trial": index + 1,
                "weight": weight,
                "origin": trial.origin,
                "winner": index == fit.outcome.winner,
                "loss": f"{fixed(trial.loss, places)} ± {fixed(trial.error, places)}",
                "cocktail": trial.cocktail,
                "others": _others(trial.cocktail),
            }
        )
    return lines


def _others(cocktail: Cocktail) -> str:
    """The regularizers that have no column of their own in the ensemble's table."""
    own = ("hidden_dropout", "input_dropout", "weight_decay")
    names = [name for name in cocktail.active if name not in own]
    return ", ".join(f"{name_of(name)} {short(getattr(cocktail, name), 2)}" for name in names)


def _printable(text: str) -> str:
    """A command as it has to be typed, but for marks that a browser would not show as they are."""
    return "".join(mark if mark.isprintable() or mark == "\n" else "?" for mark in text[:4000])


def _typeset(text: str) -> Markup:
    """Text with true minus signs, units beside their numbers, and options that do not break."""
    text = re.sub(r"(?<![^\s(])-(?=\d)", "\u2212", text).replace(" %", "\u00a0%")
    return Markup(re.sub(r"(?<!\S)(--[a-z-]+)", r"<code>\1</code>", str(escape(text))))
