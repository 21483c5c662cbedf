"""What was seen of a site, in the words of findings, and what several rules ask of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dropkit.inspection.showing import KINDS
from dropkit.records import Place, Site
from dropkit.rules.base import NotApplicable

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence
    from dropkit.intercept.trace import Draw

_DELIBERATE = re.compile(
    r"pre_?net|(?:^|[._])mc(?:[._]|dropout|$)|monte_?carlo|mc_?drop|always_?on|bayes", re.IGNORECASE
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def named(site: Site) -> str:
    """A site in words: what it drops, and its rate."""
    kind = KINDS.get(site.kind, site.kind)
    return kind if site.rate is None else f"{kind} with the rate {site.rate:.4g}"


def whereabouts(site: Site) -> str:
    """Where it stands: its line, or else its module."""
    return str(site.place) if site.place else site.path or "the model itself"


def is_deliberate(site: Site) -> bool:
    """Whether names around it say that it acts in evaluation by design."""
    function = site.place.function if site.place else ""
    names = ".".join((site.path, site.owner, function))
    return _DELIBERATE.search(_HUMP.sub("_", names)) is not None or bool(_DELIBERATE.search(names))


def strangers(evidence: Evidence) -> set[str]:
    """Paths of what ran in evaluation mode and is none of the model's own modules."""
    return {where.path for where in evidence.passes.evaluation.built}


def evaluated(evidence: Evidence) -> None:
    """Nothing; for a rule that found nothing in an evaluation pass.

    Raises:
        NotApplicable: the pass did not come to its end, so that nothing is no answer.
    """
    if evidence.passes.evaluation.failed is not None:
        raise NotApplicable("needs an evaluation pass to its end")


def times(evidence: Evidence, site: Site) -> str:
    """How often a site drew in evaluation mode, and whether its module was switched."""
    draws = _draws(evidence, site)
    if not draws:
        return "it drew in the evaluation pass"
    often = "once" if len(draws) == 1 else f"{len(draws)} times"
    mode = "training" if draws[0].where.training else "evaluation"
    whose = f"its module ({site.owner})" if site.path else f"the model ({site.owner})"
    drew = f"after eval() {draws[0].name} drew {often} at {whereabouts(site)}"
    return f"{drew}; {whose} was in {mode} mode"


def stays_in_training(evidence: Evidence, site: Site) -> bool:
    """Whether the module of a site was in training mode in the evaluation pass."""
    return any(draw.where.training for draw in _draws(evidence, site))


def _draws(evidence: Evidence, site: Site) -> list[Draw]:
    """What was drawn for a site in evaluation mode."""
    return evidence.once(_by_spot).get((site.path, site.place), [])


def _by_spot(evidence: Evidence) -> dict[tuple[str, Place | None], list[Draw]]:
    """All that was drawn in evaluation mode, by module and line."""
    drawn: dict[tuple[str, Place | None], list[Draw]] = {}
    for draw in evidence.passes.evaluation.draws:
        drawn.setdefault((draw.where.path, draw.where.place), []).append(draw)
    return drawn


def within(path: str, outer: str) -> bool:
    """Whether a path is another, or lies in it."""
    return not outer or path == outer or path.startswith(f"{outer}.")


def counted(number: int, what: str) -> str:
    """1 dropout, 2 dropouts, 3 biases."""
    many = "es" if what.endswith("s") else "s"
    return f"{number} {what}{'' if number == 1 else many}"


def listed(paths: list[str], most: int = 4) -> str:
    """Paths in words, the first of them by name."""
    shown = ", ".join(path or "the model itself" for path in paths[:most])
    return f"{shown} and {len(paths) - most} more" if len(paths) > most else shown
