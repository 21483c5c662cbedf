"""Models of torch, Transformers and timm, small and with random weights."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

Built = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Subject:
    """A model that can be built, and what it is called with."""

    library: str
    name: str
    build: Callable[[], Built]


# ---- torch


def torch_subjects() -> Iterator[Subject]:
    """Modules of torch.nn that drop, with dropout on."""
    sequence = torch.randn(2, 6, 16)
    made: Mapping[str, Callable[[], Built]] = {
        "Transformer": lambda: (
            nn.Transformer(16, 2, 2, 2, 32, 0.1, batch_first=True),
            (sequence, sequence),
            {},
        ),
        "TransformerEncoderLayer": lambda: (
            nn.TransformerEncoderLayer(16, 2, 32, 0.1, batch_first=True),
            (sequence,),
            {},
        ),
        "TransformerDecoderLayer": lambda: (
            nn.TransformerDecoderLayer(16, 2, 32, 0.1, batch_first=True),
            (sequence, sequence),
            {},
        ),
        "MultiheadAttention": lambda: (
            nn.MultiheadAttention(16, 2, 0.1, batch_first=True),
            (sequence, sequence, sequence),
            {},
        ),
        "LSTM": lambda: (nn.LSTM(16, 16, 2, dropout=0.2, batch_first=True), (sequence,), {}),
        "GRU": lambda: (nn.GRU(16, 16, 2, dropout=0.2, batch_first=True), (sequence,), {}),
        "RNN": lambda: (nn.RNN(16, 16, 2, dropout=0.2, batch_first=True), (sequence,), {}),
        "bidirectional LSTM": lambda: (
            nn.LSTM(16, 8, 2, dropout=0.2, batch_first=True, bidirectional=True),
            (sequence,),
            {},
        ),
    }
    for name, build in made.items():
        yield Subject("torch", name, build)


# ---- Transformers

_LAYERS = re.compile(r"(num_|n_|encoder_|decoder_)?(hidden_)?(layers?|blocks|layer)$")
_SIZES = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embed_dim"), 32),
    **dict.fromkeys(("embedding_size", "moe_intermediate_size"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "encoder_ffn_dim"), 64),
    **dict.fromkeys(("decoder_ffn_dim", "n_inner", "hidden_dim", "ffn_hidden_size", "d_inner"), 64),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), 64),
    **dict.fromkeys(("d_kv", "head_dim", "d_head"), 8),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "num_kv_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_experts", "num_local_experts"), 4),
    **dict.fromkeys(("n_routed_experts",), 4),
    "num_experts_per_tok": 2,
    "vocab_size": 120,
}
_TOKENS = ("pad", "bos", "eos", "decoder_start", "cls", "sep", "mask")


def transformers_subjects() -> Iterator[Subject]:
    """Every architecture of Transformers that takes tokens, from its own config made small."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    for name in sorted(CONFIG_MAPPING):
        yield Subject("transformers", name, lambda name=name: _of_transformers(name))


class NotATextModel(Exception):
    """It takes more than tokens, or a config alone does not build it."""


def _of_transformers(name: str) -> Built:
    model = _small(name)
    if model.main_input_name != "input_ids":
        raise NotATextModel(f"takes {model.main_input_name}")
    tokens = torch.arange(3, 19).view(2, 8)
    kwargs = {"input_ids": tokens}
    if getattr(model.config, "is_encoder_decoder", False):
        kwargs["decoder_input_ids"] = tokens[:, :6]
    return model, (), kwargs


def _small(name: str) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = CONFIG_MAPPING[name]()
    kind = _kind(config)
    try:
        shrink(config)
        return kind(config)
    except Exception:  # sizes that do not go together: its own, in two layers, without memory
        config = CONFIG_MAPPING[name]()
        shrink(config, sizes=False)
        with torch.device("meta"):
            return kind(config)


def _kind(config: Any) -> Any:
    from transformers.models.auto import modeling_auto as auto

    tables = (
        auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
        auto.MODEL_FOR_CAUSAL_LM_MAPPING,
        auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        auto.MODEL_FOR_MASKED_LM_MAPPING,
        auto.MODEL_MAPPING,
    )
    for table in tables:
        if type(config) in table:
            kind = table[type(config)]
            return kind[0] if isinstance(kind, tuple | list) else kind
    raise NotATextModel("is a part of others")


def shrink(config: Any, *, sizes: bool = True) -> None:
    """Two layers, and small sizes, in a config and those within it."""
    for name, value in list(vars(config).items()):
        number = type(value) is int
        if number and value > 2 and _LAYERS.fullmatch(name):
            setattr(config, name, 2)
        elif number and sizes and name in _SIZES and value > _SIZES[name]:
            setattr(config, name, _SIZES[name])
        elif number and sizes and name.endswith("_token_id") and value >= _SIZES["vocab_size"]:
            setattr(config, name, 1)
        elif isinstance(value, list) and len(value) > 2 and re.search("layer|block|type", name):
            setattr(config, name, value[:2])
        elif hasattr(value, "to_dict") and hasattr(value, "model_type"):
            shrink(value, sizes=sizes)


# ---- timm


def timm_subjects() -> Iterator[Subject]:
    """Every model of timm, with each of its dropouts on where it takes the rate."""
    timm = _timm()
    for name in timm.list_models():
        yield Subject("timm", name, lambda name=name: _of_timm(timm, name))


def _of_timm(timm: Any, name: str) -> Built:
    rates = {"drop_rate": 0.2, "drop_path_rate": 0.1, "attn_drop_rate": 0.05}
    while True:
        try:
            with torch.device("meta"):
                model = timm.create_model(name, **rates)
            break
        except TypeError as error:
            unknown = [rate for rate in rates if rate in str(error)]
            if not unknown:
                raise
            del rates[unknown[0]]
    size = model.default_cfg.get("input_size", (3, 224, 224))
    return model, (torch.zeros(2, *size),), {}


def _timm() -> Any:
    declare_operators()
    import timm

    return timm


def declare_operators() -> None:
    """Let torchvision load where its wheels for GPUs lack the operators that it speaks of."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None or _loads("torchvision"):
        return
    source = Path(found.origin).with_name("_meta_registrations.py").read_text("utf-8")
    library = torch.library.Library("torchvision", "FRAGMENT")
    for names in re.findall(r'"torchvision::(\w+)"|register_meta\("(\w+)"', source):
        name = names[0] or names[1]
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor x) -> Tensor")
    _KEPT.append(library)


def _loads(name: str) -> bool:
    try:
        importlib.import_module(name)
    except RuntimeError:  # an operator that is not there; what has loaded so far is of no use
        for part in [part for part in sys.modules if part.partition(".")[0] == name]:
            del sys.modules[part]
        return False
    return True


_KEPT: list[object] = []
