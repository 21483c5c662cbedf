"""A model that is about to predict, or a part of it, is in training mode.

A model is born in training mode, and `train()` puts it back there. The rule looks at the mode of
every module as the model was handed over. With `purpose="inference"` it reports what would drop, or
take batch statistics, in the predictions to come. Without a purpose it reports only what no purpose
explains: a model in evaluation mode with parts of it in training mode. Where dropouts are all that
is on, which is how Monte Carlo dropout is switched on, the finding is one degree milder.

Why it matters:
Predictions differ from call to call, and batch norms mix the rows of a batch and go on learning
their statistics from what they are served. An exported graph keeps the dropout for good.

How to fix:
Call `model.eval()` last, before predictions and before an export. Where a part comes back to
training mode, look for a `train()` of its own, or for one that is called after `eval()`;
`dropkit.fix` switches the part that was found.

When to allow:
Monte Carlo dropout: passes that are sampled on purpose, with the dropouts on and all else off.

References:
- [torch.nn.Module.eval](https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.eval)
- [Saving and loading models](https://docs.pytorch.org/tutorials/beginner/saving_loading_models.html):
  "you must call model.eval() to set dropout and batch normalization layers to evaluation mode"
- An exported graph that kept its mode: [pytorch#103681](https://github.com/pytorch/pytorch/issues/103681)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from dropkit.records import Edit, Finding, Severity, Site
from dropkit.rules.base import NotApplicable, Rule
from dropkit.rules.modes import Acting, acting, outermost

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """What is in training mode, and would act."""
    modes, purpose = evidence.passes.modes, evidence.purpose
    if purpose == "train":
        raise NotApplicable("the model is about to be trained")
    if evidence.exported:
        yield from exported(evidence.sites)
        return
    if purpose is None and modes[""]:
        raise NotApplicable("needs purpose=: a model in training mode may be about to train")
    parts = acting(evidence)
    tops = outermost((*parts.dropouts, *parts.norms), modes, training=True)
    sampled = _is_sampled(parts, modes, tops)
    severity: Severity = "error" if purpose else "warning"
    for top in [""] if sampled else tops:
        on = _on(parts.within(top), modes)
        message = f"{top or 'the model'} is in training mode: {on.words} would act in predictions"
        says = f"call {top + '.' if top else ''}eval() before predictions"
        if sampled:
            severity = "warning" if purpose else "note"
            message = f"{on.words} of a model in evaluation mode are switched on: predictions are "
            message += "samples, as in Monte Carlo dropout"
        yield RULE.finding(
            message,
            evidence=f"in training mode when it was handed over: {on.names}",
            severity=severity,
            path=top,
            edit=Edit("switch", top, "eval", safe=not sampled, says=says),
        )


def exported(sites: Iterable[Site]) -> Iterator[Finding]:
    """What is said of a program that was exported in training mode, by what its graph draws."""
    for site in sites:
        if site.fired_in_eval and site.kind not in ("noise", "random"):
            rate = "" if site.rate is None else f" at the rate {site.rate:.4g}"
            yield RULE.finding(
                f"the program drops{rate} whenever it runs: it was exported in training mode, and "
                "eval() cannot reach it",
                evidence=f"{site.operation} is in its graph, switched on",
                site=site,
                path=site.path,
                place=site.place,
            )


def _on(parts: Acting, modes: dict[str, bool]) -> Acting:
    return Acting(
        tuple(path for path in parts.dropouts if modes[path]),
        tuple(path for path in parts.norms if modes[path]),
    )


def _is_sampled(parts: Acting, modes: dict[str, bool], tops: list[str]) -> bool:
    """Whether all dropouts are on, and nothing else in the model is."""
    drops = set(parts.dropouts)
    on = {path for path, training in modes.items() if training}
    return bool(tops) and "" not in tops and set(tops) <= drops <= on and not on & set(parts.norms)


RULE = Rule(
    name="left-in-train-mode",
    code="DK104",
    severity="error",
    page=__doc__,
    on_model=on_model,
    wrong=(
        """
from torch import nn, ones

model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))
inputs, settings = (ones(2, 8),), {"purpose": "inference"}
""",
        """
from torch import nn, ones

backbone = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU())
model = nn.Sequential(backbone, nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))
model.eval()
backbone.train()
inputs, settings = (ones(2, 8),), {"purpose": "inference"}
""",
    ),
    right=(
        """
from torch import nn, ones

model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1)).eval()
inputs, settings = (ones(2, 8),), {"purpose": "inference"}
""",
        """
from torch import nn, ones

model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))
inputs = (ones(2, 8),)
""",
        """
from torch import nn, ones

model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, 1)).eval()
model[0].train()
model[2].train()
inputs, settings = (ones(2, 8),), {"purpose": "inference"}
""",
    ),
)
