"""Whether what a site drops are the predictions of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence
    from dropkit.inspection.runs import Run, Way

_SQUASHES = ("sigmoid", "sigmoid_", "log_sigmoid_forward")
LOSSES = ("CrossEntropyLoss", "NLLLoss", "BCELoss", "BCEWithLogitsLoss", "MultiMarginLoss")
"""Losses that take logits or probabilities."""


def dropped_prediction(evidence: Evidence, run: Run) -> Run | None:
    """The time that a site drops predictions, as a run of its own; None: it never does."""
    site = run.site
    if not run.acts or site.kind not in ("dropout", "feature_dropout", "alpha_dropout", "mask"):
        return None
    if site.role in ("attention", "lora"):
        return None
    given = {tuple(x.shape) for x in evidence.inputs if x.dim() > 2}
    ends = (one for one in run.each() if one.shape not in given and _ends(one) and _is_mapped(one))
    return next(ends, None)


def _ends(run: Run) -> bool:
    """Whether nothing follows but a softmax or a sigmoid."""
    if run.result is None:
        return False
    if _is_all(run):
        return not any(_weighs(way) for way in run.onward("activation", "softmax", "multiply"))
    ways = [way for way in run.onward("add", "multiply") if not _shifts(way)]
    last = [way for way in ways if _is_squashing(way) and run.is_given(way.node)]
    return len(ways) == len(last) == 1


def _is_all(run: Run) -> bool:
    """Whether what it gives is what the model gives, but for a constant added or multiplied on."""
    ways = list(run.onward("add", "multiply"))
    shifted = bool(ways) and all(map(_shifts, ways)) and run.is_given(ways[-1].node)
    return run.is_output or shifted


def _shifts(way: Way) -> bool:
    """Whether all that it does is to add or multiply what does not hang on the input."""
    return way.step in ("add", "multiply") and way.is_alone


def _weighs(way: Way) -> bool:
    return way.step in ("linear", "convolution", "matmul", "attention", "recurrence", "norm")


def _is_squashing(way: Way) -> bool:
    return way.step == "softmax" or way.node.name in _SQUASHES


def _is_mapped(run: Run) -> bool:
    """Whether it comes from a linear or convolutional layer, or a softmax or sigmoid of one."""
    for way in run.backward("softmax", "activation", "add"):
        if way.step in ("linear", "convolution"):
            return (
                all(
                    node.name in _SQUASHES or step in ("softmax", "add")
                    for node, step in zip(way.between, way.steps, strict=True)
                )
                and not way.mixes
            )
    return False


def softmax_before_loss(evidence: Evidence, run: Run) -> Way | None:
    """The softmax whose result is dropped, any time, right before a loss; None: there is none."""
    if evidence.loss is None or not run.acts:
        return None
    if not any(type(part).__name__ in LOSSES for part in evidence.loss.modules()):
        return None
    ways = (way for one in run.each() if _is_all(one) for way in one.backward())
    return next(filter(_is_squashing, ways), None)
