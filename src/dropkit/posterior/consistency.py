"""Whether a language model gives the same tokens the same log-probabilities, pass after pass."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dropkit.errors import SettingError
from dropkit.inspection.events import Event, events
from dropkit.inspection.passes import copied, tensors
from dropkit.intercept import uncompiled, untouched, watching
from dropkit.posterior.options import check_model
from dropkit.records import Place, SiteKind

_IGNORED = -100
"""The label of a token that counts for nothing, in torch's losses and in Transformers."""
_ROUNDING = 1e-3
"""Of log-probabilities in float32, where other kernels compute the same."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far the log-probabilities of the same tokens are apart in two passes."""

    largest: float
    """The largest absolute difference of a token."""
    mean: float
    """The mean absolute difference."""
    ratios: tuple[float, float]
    """The smallest and the largest exp(difference): importance ratios, which ought to be 1."""
    equal: bool
    """Whether all of them are the same, bit by bit."""

    def __str__(self) -> str:
        if self.equal:
            return "bit-equal"
        low, high = self.ratios
        return (
            f"up to {self.largest:.3g} per token, {self.mean:.3g} on average: "
            f"ratios from {low:.4g} to {high:.4g}"
        )


@dataclass(frozen=True, slots=True)
class Drawn:
    """Something that drew in a pass."""

    path: str
    """Of the module within which it ran; empty: the model itself."""
    owner: str
    """The class of that module."""
    kind: SiteKind
    rate: float | None
    place: Place | None

    def __str__(self) -> str:
        rate = "" if self.rate is None else f" at {self.rate:.4g}"
        return f"{self.path or 'the model itself'} ({self.owner}): {self.kind}{rate}"


@dataclass(frozen=True, slots=True)
class LogprobConsistency:
    """What passes of one model over one batch say of its tokens; `print` shows it."""

    model: str
    mode: str
    """In which the model is: training, evaluation or mixed."""
    tokens: int
    """How many tokens were compared."""
    repeated: Difference
    """Between two passes of the model as it is."""
    modes: Difference
    """Between a pass in training mode and one in evaluation mode."""
    drew: tuple[Drawn, ...]
    """What drew in the model as it is."""
    drew_in_train: tuple[Drawn, ...]
    drew_in_eval: tuple[Drawn, ...]

    @property
    def consistent(self) -> bool:
        """Whether all passes are bit-equal."""
        return self.repeated.equal and self.modes.equal

    @property
    def verdict(self) -> str:
        """What it comes to, and what to do, in one or two sentences."""
        if self.consistent:
            return (
                f"The log-probabilities of {self.tokens:,} tokens are bit-equal in two passes and "
                "in both modes: ratios begin at 1, and a reference is the model itself."
            )
        if not self.repeated.equal:
            return _unrepeatable(self)
        return _moded(self)

    def __str__(self) -> str:
        lines = [
            f"{self.model} in {self.mode} mode, {self.tokens:,} tokens",
            f"  two passes as it is:     {self.repeated}",
            f"  training to evaluation:  {self.modes}",
        ]
        told = (("as it is", self.drew), ("in evaluation mode", self.drew_in_eval))
        for when, drawn in told:
            if drawn:
                lines.append(f"  drew {when}: {'; '.join(map(str, drawn[:4]))}{_more(drawn, 4)}")
        return "\n".join([*lines, self.verdict])


def logprob_consistency(
    model: nn.Module, batch: Any, *, tokens: Tensor | None = None, shift: bool | None = None
) -> LogprobConsistency:
    r"""Whether the log-probabilities of a batch's tokens are the same in each pass of a model.

    .. math:: d_t = \log p(x_t \mid x_{<t}) - \log p'(x_t \mid x_{<t})

    Preference optimization compares log-probabilities of the same tokens: of a policy and its
    reference (DPO), of a policy now and as it sampled (PPO, GRPO). What dropout moves between two
    passes is taken for preference. The model runs twice as it is, once in training and once in
    evaluation mode, without gradients; and once more in each mode to see what draws. Afterwards
    it is, bit by bit, what it was, and so is the random state.

    Args:
        model: gives logits of shape (rows, length, vocabulary): as a tensor, as `.logits`, as
            "logits" of a dictionary, or first in a tuple.
        batch: a dictionary of what it is called with by name, as Transformers have it; or a tensor
            of tokens, or a tuple of arguments of which the first is one. `labels` says which tokens
            count (-100: not), and `attention_mask` which are there.
        tokens: (rows, length), where they do not stand in the batch; -100 for those that do not
            count.
        shift: whether the logits at a place are of the next token; by default, unless the model is
            an encoder-decoder of Transformers.

    Returns:
        The differences, what drew, and a verdict.

    Raises:
        SettingError: no module, no tokens, other shapes, log-probabilities that are no numbers.

    >>> import torch, dropkit
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Embedding(9, 8), nn.Dropout(0.1), nn.Linear(8, 9))
    >>> seen = logprob_consistency(net, torch.arange(8).reshape(2, 4))
    >>> seen.repeated.equal, [(drawn.path, drawn.rate) for drawn in seen.drew]
    (False, [('1', 0.1)])
    >>> logprob_consistency(net.eval(), torch.arange(8).reshape(2, 4)).modes.equal
    False

    Source: Huang et al. 2024, "The N+ Implementation Details of RLHF with PPO": with dropout, the
    KL penalty is unreliable and the ratios are not 1 in the first epoch.
    """
    check_model(model)
    return _compared(model, _Asked(model, batch, tokens, shift))


# ---- passes


def _compared(model: nn.Module, asked: _Asked) -> LogprobConsistency:
    with untouched(model), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        mode = _mode(model)
        first, second = asked.logprobs(), asked.logprobs()
        drew = asked.drew()
        seen = {}
        for training in (True, False):
            model.train(training)
            seen[training] = asked.logprobs(), asked.drew()
    (train, drew_in_train), (evaluated, drew_in_eval) = seen[True], seen[False]
    return LogprobConsistency(
        model=type(uncompiled(model)).__name__,
        mode=mode,
        tokens=first.numel(),
        repeated=_difference(first, second),
        modes=_difference(train, evaluated),
        drew=drew,
        drew_in_train=drew_in_train,
        drew_in_eval=drew_in_eval,
    )


class _Asked:
    """A model with its batch: what is passed, and which tokens count."""

    def __init__(
        self, model: nn.Module, batch: Any, tokens: Tensor | None, shift: bool | None
    ) -> None:
        self.model = model
        both = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
        self.shift = not both if shift is None else shift
        self.args, self.kwargs = _arguments(batch, keep_labels=both)
        self.tokens, self.counts = _tokens(batch, tokens)

    def _run(self) -> Any:
        args, kwargs = copied((self.args, self.kwargs), None)
        return self.model(*args, **kwargs)

    def logprobs(self) -> Tensor:
        """Of each token that counts, in one pass."""
        logits = _logits(self._run())
        if logits.dim() != 3 or logits.shape[:2] != self.tokens.shape:
            raise SettingError(
                f"expected logits of shape {(*self.tokens.shape, 'vocabulary')}, one row for each "
                f"token; the model gave {tuple(logits.shape)}. Try tokens=, aligned with them"
            )
        tokens, counts = self.tokens.to(logits.device), self.counts.to(logits.device)
        if self.shift:
            logits, tokens, counts = logits[:, :-1], tokens[:, 1:], counts[:, 1:]
        if not counts.any():
            raise SettingError("batch: expected tokens that count; all are masked, or the first")
        if int(tokens[counts].max()) >= logits.shape[2] or int(tokens[counts].min()) < 0:
            raise SettingError(
                f"tokens: expected numbers from 0 to {logits.shape[2] - 1}, as there are logits; "
                f"got {int(tokens[counts].min())} to {int(tokens[counts].max())}"
            )
        rows = zip(logits, tokens, counts, strict=True)
        found = torch.cat([_of_row(*row) for row in rows if bool(row[2].any())])
        if found.isnan().any():
            raise SettingError(
                f"expected log-probabilities; {int(found.isnan().sum()):,} of {found.numel():,} "
                f"tokens have NaN in {_mode(self.model)} mode"
            )
        return found

    def drew(self) -> tuple[Drawn, ...]:
        """What draws in a pass."""
        inner = uncompiled(self.model)
        with watching(inner) as watch:
            for value in tensors((self.args, self.kwargs)):
                watch.given(value)
            args, kwargs = copied((self.args, self.kwargs), None)
            inner(*args, **kwargs)
        fired = (event for event in events(watch.trace) if event.fired)
        return tuple(dict.fromkeys(map(_drawn, fired)))


def _of_row(logits: Tensor, tokens: Tensor, counts: Tensor) -> Tensor:
    """In float32 at least, and one row at a time: all logits again would be much memory."""
    wide = logits[counts].to(torch.promote_types(logits.dtype, torch.float32))
    return wide.log_softmax(-1).gather(1, tokens[counts].unsqueeze(1)).squeeze(1)


def _drawn(event: Event) -> Drawn:
    where = event.where
    return Drawn(where.path, where.owner, event.kind, event.rate, where.place)


def _mode(model: nn.Module) -> str:
    modes = {module.training for module in model.modules()}
    return "mixed" if len(modes) > 1 else "training" if True in modes else "evaluation"


def _logits(output: Any) -> Tensor:
    found = getattr(output, "logits", None)
    if found is None and isinstance(output, Mapping):
        found = output.get("logits")
    if found is None and isinstance(output, tuple | list) and output:
        found = output[0]
    found = output if found is None else found
    if not isinstance(found, Tensor) or not found.is_floating_point():
        raise SettingError(
            "expected a model that gives logits, as a tensor, as .logits, or first in a tuple; it "
            f"gave {type(output).__name__}"
        )
    return found


# ---- the batch


def _arguments(batch: Any, *, keep_labels: bool) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the model is called with: without labels, of which it would only make a loss."""
    if isinstance(batch, Mapping):
        kept = {name: batch[name] for name in batch if keep_labels or name != "labels"}
        return (), kept
    return (tuple(batch), {}) if isinstance(batch, tuple | list) else ((batch,), {})


def _tokens(batch: Any, tokens: Tensor | None) -> tuple[Tensor, Tensor]:
    """The tokens, and which of them count."""
    named: Mapping[str, Any] = batch if isinstance(batch, Mapping) else {}
    if tokens is None:
        tokens = named.get("labels", named.get("input_ids"))
    if tokens is None and not named:
        tokens = batch[0] if isinstance(batch, tuple | list) and batch else batch
    whole = isinstance(tokens, Tensor) and tokens.dim() == 2 and not tokens.is_floating_point()
    if tokens is None or not whole or tokens.dtype == torch.bool:
        got = f"{tuple(tokens.shape)} of {tokens.dtype}" if isinstance(tokens, Tensor) else tokens
        raise SettingError(
            f"tokens: expected whole numbers of shape (rows, length); got {got!r}. Try a batch "
            "with input_ids, or tokens="
        )
    counts = tokens != _IGNORED
    mask = named.get("attention_mask")
    if isinstance(mask, Tensor) and mask.shape == tokens.shape:
        counts = counts & (mask != 0)
    return tokens, counts


# ---- what it comes to


def _difference(first: Tensor, second: Tensor) -> Difference:
    apart = torch.where(first == second, 0.0, first.double() - second.double())  # of -inf, too
    lowest, highest = float(apart.min()), float(apart.max())
    return Difference(
        largest=max(-lowest, highest),
        mean=float(apart.abs().mean()),
        ratios=(_exp(lowest), _exp(highest)),
        equal=torch.equal(first, second),
    )


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _more(drawn: Sequence[Drawn], shown: int) -> str:
    return f"; and {len(drawn) - shown} more" if len(drawn) > shown else ""


def _unrepeatable(seen: LogprobConsistency) -> str:
    if not seen.drew:
        return (
            f"Two passes of the model as it is differ by {seen.repeated}, and nothing was seen to "
            "draw: kernels that do not repeat, or something that the model keeps from pass to pass."
        )
    advice = (
        "Turn them off with dropkit.disable(model), for the policy and its reference"
        if seen.mode == "training"
        else "Call model.eval(); what draws then does not follow the mode: see dropkit.audit(model)"
    )
    return (
        f"Two passes of the model as it is differ by {seen.repeated}, since {len(seen.drew)} "
        f"places draw, {seen.drew[0]} first. {advice}."
    )


def _moded(seen: LogprobConsistency) -> str:
    repeats = f"As it is, in {seen.mode} mode, the model repeats bit by bit"
    if seen.drew_in_train or seen.drew_in_eval:
        mode, drawn = (
            ("training", seen.drew_in_train)
            if seen.drew_in_train
            else ("evaluation", seen.drew_in_eval)
        )
        return (
            f"{repeats}; in {mode} mode {len(drawn)} places draw, {drawn[0]} first, and its "
            f"log-probabilities differ by {seen.modes}. Turn them off with dropkit.disable(model) "
            "before it trains on ratios."
        )
    if seen.modes.largest <= _ROUNDING:
        return (
            f"{repeats}, and nothing draws in either mode; between them it differs by rounding "
            f"({seen.modes})."
        )
    return (
        f"{repeats}, and nothing draws; yet training and evaluation differ by {seen.modes}: "
        "something else depends on the mode, such as a batch norm."
    )
