"""Programs that are frozen: what they draw, they draw whenever they run."""

from __future__ import annotations

from collections.abc import Collection

from dropkit.apps.targets.target import Target
from dropkit.records import Place, Report, Role, Site, SiteKind
from dropkit.rules.choosing import chosen
from dropkit.rules.mode.left_in_train_mode import RULE, exported

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
    judging = [RULE.name] if RULE.name in asked and purpose != "train" else []
    why = {name: "a frozen program is read and not run" for name in asked}
    why[RULE.name] = "the program is meant to train"
    return Report(
        target=target.name,
        findings=tuple(exported(frozen.sites)) if judging else (),
        judged=tuple(judging),
        not_applicable=tuple((name, why[name]) for name in asked if name not in judging),
        unseen=frozen.unseen,
        sites=frozen.sites,
    )
