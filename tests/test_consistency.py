"""Log-probabilities of the same tokens are the same, or it is said by how much not, and why."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dropkit.errors import SettingError
from dropkit.posterior.consistency import LogprobConsistency, logprob_consistency

VOCABULARY = 11
TOKENS = torch.arange(24).reshape(3, 8) % VOCABULARY


class Told(NamedTuple):
    logits: Tensor
    other: int = 0


class Language(nn.Module):
    """A small language model whose last part is what is asked for."""

    def __init__(self, middle: nn.Module, wrap: Callable[[Tensor], Any] = lambda x: x) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed, self.middle = nn.Embedding(VOCABULARY, 16), middle
        self.head, self.wrap = nn.Linear(16, VOCABULARY), wrap
        self.calls: list[bool] = []

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **more: Any) -> Any:
        self.calls.append("labels" in more)
        return self.wrap(self.head(self.middle(self.embed(input_ids))))


class Counting(nn.Module):
    """Another number at each call: what a model keeps from pass to pass."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(16)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return y


class Always(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x, 0.2)


def by_hand(model: Language, tokens: Tensor) -> Tensor:
    """Log-probabilities of the tokens after the first, one at a time."""
    logits = model.wrap(model.head(model.middle(model.embed(tokens))))
    rows, length = tokens.shape
    found = [
        float(logits[row, at].log_softmax(-1)[tokens[row, at + 1]])
        for row in range(rows)
        for at in range(length - 1)
    ]
    return torch.tensor(found)


def test_a_model_without_draws_is_bit_equal_in_all_passes() -> None:
    for model in (Language(nn.Tanh()), Language(nn.Dropout(0.0)), Language(nn.Dropout(0.0)).eval()):
        seen = logprob_consistency(model, TOKENS)
        assert seen.consistent
        assert (seen.repeated.largest, seen.repeated.mean) == (0.0, 0.0)
        assert seen.repeated.ratios == seen.modes.ratios == (1.0, 1.0)
        assert (seen.drew, seen.tokens) == ((), 3 * 7)
        assert "bit-equal in two passes and in both modes" in seen.verdict


def test_differences_are_those_of_the_very_draws() -> None:
    """By hand, from the same seeds. Catches logits that are not shifted to the token they predict,
    and differences of other tokens."""
    model = Language(nn.Dropout(0.1))
    torch.manual_seed(5)
    with torch.no_grad():
        first, second = (by_hand(model, TOKENS) for _ in range(2))
        evaluated = by_hand(model.eval(), TOKENS)
    torch.manual_seed(5)
    seen = logprob_consistency(model.train(), TOKENS)
    apart = (first - second).abs()
    assert seen.repeated.largest == pytest.approx(float(apart.max()), abs=1e-5)
    assert seen.repeated.mean == pytest.approx(float(apart.mean()), abs=1e-5)
    assert seen.repeated.ratios == pytest.approx(
        (math.exp(float((first - second).min())), math.exp(float((first - second).max()))), rel=1e-4
    )
    torch.manual_seed(5)  # in evaluation mode nothing draws before the pass in training mode
    alone = logprob_consistency(model.eval(), TOKENS)
    torch.manual_seed(5)
    with torch.no_grad():
        train = by_hand(model.train(), TOKENS)
    assert alone.modes.largest == pytest.approx(float((train - evaluated).abs().max()), abs=1e-5)


def test_what_drew_is_named() -> None:
    seen = logprob_consistency(Language(nn.Sequential(nn.Tanh(), nn.Dropout(0.1))), TOKENS)
    assert [(d.path, d.owner, d.kind, d.rate) for d in seen.drew] == [
        ("middle.1", "Dropout", "dropout", 0.1)
    ]
    assert seen.drew == seen.drew_in_train
    assert seen.drew_in_eval == ()
    assert "since 1 places draw, middle.1 (Dropout): dropout at 0.1 first" in seen.verdict
    assert "dropkit.disable(model)" in seen.verdict
    assert "middle.1" in str(seen)


CASES: dict[str, tuple[Callable[[], Language], bool, bool, str, str]] = {
    "evaluation": (
        lambda: Language(nn.Dropout(0.1)).eval(), True, False, "evaluation",
        "As it is, in evaluation mode, the model repeats.*in training mode 1 places draw",
    ),
    "batch norm": (
        lambda: Language(Normed()), True, False, "training", "nothing draws.*such as a batch norm"
    ),
    "kept from pass to pass": (
        lambda: Language(Counting()), False, False, "training", "nothing was seen to draw"
    ),
    "always on": (
        lambda: Language(Always()).eval(), False, False, "evaluation",
        "what draws then does not follow the mode: see dropkit.audit",
    ),
    "left on": (
        lambda: left_on(Language(nn.Dropout(0.1)).eval()), False, False, "mixed", "model.eval()"
    ),
}  # fmt: skip


def left_on(model: Language) -> Language:
    model.middle.train()
    return model


@pytest.mark.parametrize(("make", "repeats", "modes", "mode", "verdict"), CASES.values(), ids=CASES)
def test_the_verdict_says_why(
    make: Callable[[], Language], repeats: bool, modes: bool, mode: str, verdict: str
) -> None:
    seen = logprob_consistency(make(), TOKENS)
    assert (seen.repeated.equal, seen.modes.equal, seen.mode) == (repeats, modes, mode)
    assert re.search(verdict, seen.verdict), seen.verdict


def test_the_model_and_the_random_state_are_untouched() -> None:
    model = Language(nn.Sequential(Normed(), nn.Dropout(0.1)))
    model.middle[1].eval()  # type: ignore[index]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    logprob_consistency(model, TOKENS)
    assert torch.equal(torch.rand(3), expected)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.calls == []
    assert all(parameter.grad is None for parameter in model.parameters())


FORMS: dict[str, Callable[[Tensor], Any]] = {
    "tensor": lambda x: x,
    "attribute": Told,
    "tuple": lambda x: (x, None),
    "dictionary": lambda x: {"loss": torch.zeros(()), "logits": x},
}


@pytest.mark.parametrize("wrap", FORMS.values(), ids=FORMS)
def test_logits_come_in_any_form(wrap: Callable[[Tensor], Any]) -> None:
    assert logprob_consistency(Language(nn.Tanh(), wrap), TOKENS).tokens == 21


def test_only_tokens_that_count_are_compared() -> None:
    """Catches padding in the mean, and labels of the prompt."""
    model = Language(nn.Dropout(0.3))
    mask = torch.ones_like(TOKENS)
    mask[:, 5:] = 0
    labels = TOKENS.clone()
    labels[:, :3] = -100
    for batch, count in (
        ({"input_ids": TOKENS, "attention_mask": mask}, 3 * 4),
        ({"input_ids": TOKENS, "labels": labels}, 3 * 5),
        ({"input_ids": TOKENS, "labels": labels, "attention_mask": mask}, 3 * 2),
    ):
        assert logprob_consistency(model, batch).tokens == count
    assert logprob_consistency(model, (TOKENS, mask)).tokens == 21
    assert logprob_consistency(model, TOKENS, tokens=labels, shift=False).tokens == 15


def test_labels_make_no_loss() -> None:
    called: list[bool] = []

    def note(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        called.append("labels" in kwargs)

    model = Language(nn.Tanh())
    model.register_forward_pre_hook(note, with_kwargs=True)
    logprob_consistency(model, {"input_ids": TOKENS, "labels": TOKENS})
    assert called
    assert not any(called)


def test_impossible_tokens_that_stay_impossible_are_the_same() -> None:
    """-inf - -inf is no number; catches a mean of NaN."""

    def banned(logits: Tensor) -> Tensor:
        return logits.index_fill(2, torch.tensor([3]), -math.inf)

    seen = logprob_consistency(Language(nn.Tanh(), banned), TOKENS)
    assert seen.consistent
    dropped = logprob_consistency(Language(nn.Dropout(0.2), banned), TOKENS)
    assert math.isfinite(dropped.repeated.mean)


BAD: dict[str, tuple[Callable[[], LogprobConsistency], str]] = {
    "no module": (lambda: logprob_consistency(3, TOKENS), "expected a torch.nn.Module"),  # type: ignore[arg-type]
    "no tokens": (
        lambda: logprob_consistency(Language(nn.Tanh()), {"attention_mask": TOKENS}),
        "tokens: expected whole numbers",
    ),
    "fractions": (
        lambda: logprob_consistency(Language(nn.Tanh()), TOKENS.float()), "got '?\\(3, 8\\) of"
    ),
    "no logits": (
        lambda: logprob_consistency(Language(nn.Tanh(), lambda x: {"y": x}), TOKENS),
        "expected a model that gives logits.*it gave dict",
    ),
    "one for each row": (
        lambda: logprob_consistency(Language(nn.Tanh(), lambda x: x[:, 0]), TOKENS),
        "expected logits of shape",
    ),
    "all masked": (
        lambda: logprob_consistency(
            Language(nn.Tanh()), {"input_ids": TOKENS, "attention_mask": 0 * TOKENS}
        ),
        "expected tokens that count",
    ),
    "other vocabulary": (
        lambda: logprob_consistency(Language(nn.Tanh()), TOKENS, tokens=TOKENS + 90),
        "expected numbers from 0 to 10, as there are logits; got 90 to 100",
    ),
    "NaN": (
        lambda: logprob_consistency(Language(nn.Tanh(), lambda x: x * math.nan), TOKENS),
        "21 of 21 tokens have NaN in training mode",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        call()


# ---- models of Transformers


@pytest.fixture(params=["gpt2", "llama", "t5"])
def causal(request: pytest.FixtureRequest) -> tuple[nn.Module, dict[str, Tensor]]:
    transformers = pytest.importorskip("transformers")
    if request.param == "gpt2":
        small = transformers.GPT2Config(
            vocab_size=VOCABULARY, n_positions=16, n_embd=16, n_layer=2, n_head=2,
            bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        return transformers.GPT2LMHeadModel(small), {"input_ids": TOKENS}
    if request.param == "llama":
        small = transformers.LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=16, attention_dropout=0.1,
        )  # fmt: skip
        mask = torch.ones_like(TOKENS)
        mask[0, 6:] = 0
        return transformers.LlamaForCausalLM(small), {"input_ids": TOKENS, "attention_mask": mask}
    small = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
        decoder_start_token_id=0,
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(small), {
        "input_ids": TOKENS, "labels": TOKENS[:, :5].clone(),
    }  # fmt: skip


def test_models_of_transformers(causal: tuple[nn.Module, dict[str, Tensor]]) -> None:
    model, batch = causal
    seen = logprob_consistency(model.train(), batch)
    assert not seen.repeated.equal
    assert seen.drew
    counted = {"GPT2LMHeadModel": 21, "LlamaForCausalLM": 19, "T5ForConditionalGeneration": 15}
    assert seen.tokens == counted[seen.model]
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, float) and (name == "p" or "dropout" in name):
                setattr(module, name, 0.0)
    assert logprob_consistency(model, batch).consistent
