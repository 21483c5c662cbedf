"""Models that bugs are put into, and the places in them where one can go."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from benchmarks.zoo.subjects import Built, Subject, transformers_subjects
from torch import Tensor, nn

import dropkit
from dropkit.records import Report, Site

WORDS, WIDE = 50, 32

OF_TRANSFORMERS = (
    *("albert", "bart", "bert", "biogpt", "blenderbot-small", "bloom", "camembert"),
    *("ctrl", "distilbert", "electra", "ernie", "falcon", "gemma", "gpt2", "gpt_neo", "gpt_neox"),
    *("granite", "layoutlm", "llama", "marian", "mbart", "mistral", "mpnet", "nystromformer"),
    *("olmo", "opt", "pegasus", "phi", "qwen2", "rembert", "roberta", "roformer", "stablelm"),
    *("starcoder2", "t5", "xglm", "xlm-roberta", "xlnet"),
)
"""Text models that are built with values, and run, in a fraction of a second."""


def subjects(libraries: tuple[str, ...] = ("torch", "transformers")) -> Iterator[Subject]:
    """All hosts."""
    if "torch" in libraries:
        for name, body in _BODIES.items():
            yield Subject("torch", name, lambda body=body: _tagger(body()))
    if "transformers" in libraries:
        yield from (s for s in transformers_subjects() if s.name in OF_TRANSFORMERS)


# ---- torch: its own modules between an embedding and a head


class _Tagger(nn.Module):
    """A class for each word."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.embed, self.body = nn.Embedding(WORDS, WIDE), body
        self.mix, self.act = nn.Linear(WIDE, WIDE), nn.GELU()
        self.norm, self.head = nn.LayerNorm(WIDE), nn.Linear(WIDE, 7)

    def forward(self, words: Tensor) -> Tensor:
        x = self.embed(words)
        if isinstance(self.body, nn.Transformer):
            x = self.body(x, x)
        elif isinstance(self.body, nn.MultiheadAttention):
            x = x + self.body(x, x, x)[0]
        else:
            x = self.body(x)
            x = x[0] if isinstance(x, tuple) else x
        return self.head(self.norm(self.act(self.mix(x))))


def _tagger(body: nn.Module) -> Built:
    return _Tagger(body), (torch.arange(3, 19).view(2, 8),), {}


def _layer(**how: Any) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(WIDE, 4, 64, 0.1, **how)


# Without batch_first, so that no fused path of evaluation goes around what is put in.
_BODIES: dict[str, Callable[[], nn.Module]] = {
    "Transformer": lambda: nn.Transformer(WIDE, 4, 2, 2, 64, 0.1),
    "TransformerEncoder": lambda: nn.TransformerEncoder(
        _layer(norm_first=True), 2, enable_nested_tensor=False
    ),
    "TransformerEncoder, norm last": lambda: nn.TransformerEncoder(
        _layer(), 2, enable_nested_tensor=False
    ),
    "MultiheadAttention": lambda: nn.MultiheadAttention(WIDE, 4, 0.1),
    "LSTM": lambda: nn.LSTM(WIDE, WIDE, 2, dropout=0.2, batch_first=True),
    "GRU": lambda: nn.GRU(WIDE, 16, 2, dropout=0.2, batch_first=True, bidirectional=True),
}


# ---- places


@dataclass(slots=True)
class Host:
    """A model that nothing was done to, with what it is called with and what was found in it."""

    name: str
    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    report: Report
    sites: tuple[Site, ...]
    """Those that drop in training."""
    middle: str = ""
    """A linear map of a sequence, in the middle third of what runs."""
    norm: str = ""
    """A norm of a sequence, in the middle third of what runs."""
    head: str = ""
    """The linear map that gives what the model predicts; empty: it predicts nothing."""
    entry: str = ""
    """The same, where what comes into it are a sequence of features."""
    activation: str = ""
    """A module that is an activation with a curve."""
    blocks: tuple[str, ...] = ()
    """Layers that follow each other, each of which adds to what it is given."""
    sizes: dict[str, int] = field(default_factory=dict)
    """By path: how many features a place gives."""

    def audit(self, model: nn.Module, **settings: Any) -> Report:
        """What the rules say of a model that is called as this one is."""
        torch.manual_seed(0)
        return dropkit.audit(model, *self.args, example_kwargs=self.kwargs, **settings)


@dataclass(slots=True)
class _Ran:
    path: str
    module: nn.Module
    came: Any
    gave: Any


def host(subject: Subject) -> Host:
    """A model, looked at once."""
    torch.manual_seed(0)
    model, args, kwargs = subject.build()
    report = dropkit.audit(model, *args, example_kwargs=kwargs)
    acting = tuple(site for site in report.sites if site.fired_in_train and site.kind != "random")
    found = Host(subject.name, model, args, kwargs, report, acting)
    ran = _ran(found)
    linear = [one for one in ran if _is_linear(one.module) and _is_sequence(one.gave)]
    norms = [one for one in ran if _is_norm(one.module) and _is_sequence(one.gave)]
    found.head = _head(found, ran)
    head_ran = [one for one in ran if one.path == found.head and _is_sequence(one.came)]
    found.entry = found.head if head_ran else ""
    inner = [one for one in linear if one.path != found.head]
    found.middle = _inner(inner, subject.name)
    found.norm = _inner(norms, subject.name)
    found.activation = next((one.path for one in ran if _is_curved(one.module)), "")
    found.blocks = _blocks(ran)
    for one in (*linear, *norms):
        found.sizes[one.path] = one.gave.shape[-1]
    if head_ran:
        found.sizes[found.head] = head_ran[0].came.shape[-1]
    return found


def _ran(host: Host) -> list[_Ran]:
    """All modules in the order in which they ended, in evaluation mode."""
    found: list[_Ran] = []
    hooks = []
    for path, module in host.model.named_modules():

        def note(module: nn.Module, args: Any, gave: Any, path: str = path) -> None:
            gave = gave[0] if isinstance(gave, tuple | list) and gave else gave
            found.append(_Ran(path, module, args[0] if args else None, gave))

        hooks.append(module.register_forward_hook(note))
    was = host.model.training
    with torch.no_grad():
        host.model.eval()(*host.args, **host.kwargs)
    host.model.train(was)
    for hook in hooks:
        hook.remove()
    return found


def _inner(ran: list[_Ran], name: str) -> str:
    """One of the middle third: another in each model, and the same at each run."""
    third = len(ran) // 3
    return ran[third + zlib.crc32(name.encode()) % max(1, third)].path if ran else ""


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"  # as GPT-2 has it


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower() and hasattr(module, "weight")


def _is_curved(module: nn.Module) -> bool:
    name = type(module).__name__
    return bool(re.search("GELU|SiLU|Tanh$|Sigmoid", name)) and not list(module.parameters())


def _is_sequence(x: Any) -> bool:
    if not isinstance(x, Tensor) or x.dim() != 3 or not x.is_floating_point():
        return False
    return x.shape[-1] >= 16 and x.shape[-1] not in x.shape[:-1]


def _head(host: Host, ran: list[_Ran]) -> str:
    result = ran[-1].gave  # of the model itself, which ends last
    logits = result if isinstance(result, Tensor) else getattr(result, "logits", None)
    last = next((one for one in reversed(ran) if _is_linear(one.module)), None)
    if logits is None or last is None or not isinstance(last.gave, Tensor):
        return ""
    return last.path if last.gave.shape[-1] == logits.shape[-1] else ""


def _blocks(ran: list[_Ran]) -> tuple[str, ...]:
    """Of the outermost list whose members keep the shape: its members."""
    lists: dict[str, dict[str, int]] = {}
    for one in ran:
        outer, _, number = one.path.rpartition(".")
        keeps = isinstance(one.came, Tensor) and isinstance(one.gave, Tensor)
        if number.isdigit() and keeps and one.came.shape == one.gave.shape and one.came.dim() == 3:
            counts = lists.setdefault(outer, {})
            counts[one.path] = counts.get(one.path, 0) + 1
    several = [members for members in lists.values() if sum(members.values()) > 1]
    best = min(several, key=lambda members: next(iter(members)).count("."), default={})
    return tuple(best)
