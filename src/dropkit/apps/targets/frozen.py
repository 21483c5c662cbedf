"""Programs that are frozen: what they draw, they draw whenever they run."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from dropkit.apps.targets.target import Target
from dropkit.inspection.showing import printable
from dropkit.records import Finding, Place, Report, Role, Site, SiteKind
from dropkit.rules.choosing import chosen

RULE, CODE = "left-in-train-mode", "DK104"

_ROLES: dict[str, Role] = {"attention": "attention", "recurrent": "recurrent", "path": "path"}


def site(
    *,
    path: str,
    owner: str,
    kind: SiteKind,
    rate: float | None,
    operation: str,
    acts: bool,
    place: Place | None = None,
    shape: tuple[int, ...] = (),
) -> Site:
    """A place in a frozen program; it has no modes, so that it acts in both or in none."""
    return Site(
        path=path,
        owner=owner,
        kind=kind,
        role=_ROLES.get(kind, "hidden"),
        rate=rate,
        place=place,
        operation=operation,
        fired_in_train=acts,
        fired_in_eval=acts,
        bypassed=False,
        shape=shape,
        calls=1,
    )


def judged(
    target: Target, purpose: str | None, select: Collection[str] = (), ignore: Collection[str] = ()
) -> Report:
    """The report on a program that was read."""
    assert target.frozen is not None
    frozen = target.frozen
    asked = [rule.name for rule in chosen(select, ignore) if rule.on_model]
    judges = RULE in asked and purpose != "train"
    why = {name: "a frozen program is read and not run" for name in asked}
    why[RULE] = "the program is meant to train"
    return Report(
        target=target.name,
        findings=tuple(_findings(frozen.sites)) if judges else (),
        judged=(RULE,) if judges else (),
        not_applicable=tuple((name, why[name]) for name in asked if not judges or name != RULE),
        unseen=frozen.unseen,
        sites=frozen.sites,
    )


def _findings(sites: tuple[Site, ...]) -> Iterator[Finding]:
    for found in sites:
        if found.fired_in_eval and found.kind != "random":
            rate = "" if found.rate is None else f" at rate {found.rate:.4g}"
            yield Finding(
                RULE,
                CODE,
                "error",
                f"the program drops{rate} whenever it runs: it was exported in training mode, and "
                "eval() cannot reach it",
                f"{printable(found.operation, 80)} with its training switch on",
                found,
                found.path,
                found.place,
            )
