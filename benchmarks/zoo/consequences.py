"""Extra findings that a bug brings with it, and why each of them is true."""

from __future__ import annotations

from benchmarks.zoo.injections import Injection

BY_PLACE = {
    "dropout-twice": "a dropout of the model's own follows where it was put",
    "dropout-before-activation": "an activation follows the linear map behind which it was put",
    "dropout-on-residual-trunk": "the norm behind which it was put gives the trunk of what follows",
}
"""Of rules that speak of a place: right where any dropout is put there."""

_RATE = "the bug drops more than 0.15, in a transformer"
_FEW = "what is dropped has few units: two classes, or a batch of two along the wrong axis"
BY_BUG = {
    **{
        (rule, "rate-outside-range"): _RATE
        for rule in (
            "dropout-without-scaling",
            "dropout-scaled-twice",
            "keep-probability-as-rate",
            "one-knob-for-unlike-roles",
            "rate-that-silences-a-layer",
            "wrong-fraction-dropped",
        )
    },
    **{
        (rule, "rate-that-silences-a-layer"): _FEW
        for rule in (
            "channel-dropout-over-wrong-axis",
            "dropout-before-softmax",
            "dropout-between-softmax-and-loss",
            "dropout-on-output",
        )
    },
    ("keep-probability-as-rate", "rate-that-silences-a-layer"): "0.9 ** 64 is 0.0012",
    ("wrong-fraction-dropped", "rate-that-silences-a-layer"): "0.8 ** 32 is 0.0008",
    ("bypassed-dropout", "left-in-train-mode"): "dropouts were switched on in evaluation mode",
    ("wrong-fraction-dropped", "dropout-without-scaling"): "it is scaled for another fraction",
    ("heavy-dropout-beside-batch-norm", "dropout-before-batch-norm"): "so is the model's own",
    **{
        (rule, "rate-that-never-acts"): "a layer beside it was there for the rate that was changed"
        for rule in ("keep-probability-as-rate", "rate-outside-range")
    },
}
"""(rule whose bug was put in, rule that speaks too): why."""


def why(injection: Injection, rule: str) -> str:
    """Why another rule is right to speak of a mutant; empty: it is not known to be."""
    return BY_BUG.get((injection.rule, rule)) or BY_PLACE.get(rule, "")
