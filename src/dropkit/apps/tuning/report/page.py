"""Puts the page of a search together. Every text goes through the template, which escapes it."""

from __future__ import annotations

import json
import re
from collections import Counter
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from dropkit.apps.clock import words
from dropkit.apps.counting import count
from dropkit.apps.tuning.report import figures
from dropkit.apps.tuning.report.shares import FEWEST, shares
from dropkit.apps.tuning.results import Search, Tried, Worth
from dropkit.apps.tuning.summary import next_step, reasons, scored, sentences, shown
from dropkit.records import Space

MOST_KNOBS, MOST_ROWS, MOST_REASONS = 12, 60, 20
"""Limits, so that no search makes a huge page; the page says what it omits."""


def render(search: Search) -> str:
    """The whole `report.html`: self-contained, without scripts.

    Raises `ModuleNotFoundError` where matplotlib, jinja2 or scikit-learn are not installed.
    """
    here = files(__package__)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(shown=shown, scored=scored, duration=words)
    template = environment.from_string((here / "page.html.jinja").read_text(encoding="utf-8"))
    style = Markup((files("dropkit.apps.report") / "page.css").read_text(encoding="utf-8"))
    page = template.render(style=style, count=count, **_context(search))
    return page.encode("utf-8", "replace").decode("utf-8")


def _context(search: Search) -> dict[str, Any]:
    *said, _ = sentences(search)
    found = shares(search)
    order = {share.knob: place for place, share in enumerate(found)}
    done = search.of("done")
    knobs = sorted(search.space, key=lambda k: (k.kind != "rate", order.get(k.name, len(order))))
    drawn = knobs[:MOST_KNOBS] if len(done) > 1 else []
    rows = search.ranked[:MOST_ROWS]
    return {
        "search": search,
        "best": search.best,
        "opening": said[0],
        "rest": said[1:],
        "next": next_step(search),
        "places": Counter(trial.place for trial in search.trials),
        "total": sum(trial.seconds or 0.0 for trial in search.trials),
        "tied": {trial.number for trial in search.tied},
        "shares": found,
        "fewest": FEWEST,
        "worths": search.worths,
        "verdict": _verdict,
        "course": Markup(figures.course(search)),
        "share_figure": Markup(figures.shares(found)),
        "worth_figure": Markup(figures.worths(search.worths)),
        "against": [
            (knob, Markup(figures.against(search, knob, n))) for n, knob in enumerate(drawn)
        ],
        "more_knobs": len(search.space) - len(drawn),
        "rows": rows,
        "more_rows": len(done) - len(rows),
        "reasons": reasons(search)[:MOST_REASONS],
        "failed": _examples(search),
        "stopped": search.of("stopped"),
        "again": [trial for trial in search.trials if trial.attempts > 1],
        "setting": _toml(search.space, search.best),
    }


def _verdict(worth: Worth) -> str:
    """Whether what a knob was worth is more than chance."""
    if worth.error is None:
        return "not known"
    if not worth.sure:
        return "no difference"
    return "helped" if worth.loss > 0 else "hurt"


def _examples(search: Search) -> list[Tried]:
    """For each kind of failure, the first trial that has a traceback."""
    found: dict[str, Tried] = {}
    for why, _ in reasons(search)[:MOST_REASONS]:
        for trial in search.of("failed"):
            if trial.why == why and trial.traceback:
                found.setdefault(why, trial)
    return list(found.values())


def _toml(space: Space, best: Tried | None) -> str:
    """The best setting, to be copied."""
    if best is None:
        return ""
    return "\n".join(_line(name, best.params[name]) for name in space.names)


def _line(name: str, value: Any) -> str:
    plain = re.fullmatch(r"[A-Za-z0-9_-]+", name)
    key = name if plain else json.dumps(name)
    return f"# {key} is not used" if value is None else f"{key} = {json.dumps(value)}"
