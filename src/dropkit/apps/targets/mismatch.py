"""Why inputs do not fit, in words: which layer expected what, and what came."""

from __future__ import annotations

from types import FrameType
from typing import Any

from torch import Tensor, nn

from dropkit.apps.targets.inputs import sized
from dropkit.apps.targets.telling import required
from dropkit.inspection.showing import printable


def translated(error: BaseException, model: nn.Module) -> str:
    """What did not fit, as far as it can be told from where the model raised; else empty."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TypeError) and "forward() " in str(cause):
            return _call(cause, model)
        said = _layer(cause, model)
        if said:
            return said
        cause = cause.__cause__ or cause.__context__
    return ""


def _call(error: TypeError, model: nn.Module) -> str:
    needed = ", ".join(required(model.forward)) or "nothing"
    return f"{printable(error)}; {type(model).__name__}.forward needs {needed}"


def _layer(error: BaseException, model: nn.Module) -> str:
    """Of the innermost of torch's layers that was running."""
    paths = {id(module): path for path, module in model.named_modules()}
    trace = error.__traceback__
    frames: list[FrameType] = []
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    for frame in reversed(frames):
        module = frame.f_locals.get("self")
        if isinstance(module, nn.Module) and frame.f_code.co_name.startswith("forward"):
            expected, given = _expected(module), _given(frame.f_locals)
            if not expected or given is None:
                return ""
            path = paths.get(id(module)) or "the model itself"
            got = f"{sized(given.shape) or 'a number'} of {str(given.dtype)[6:]}"
            return f"{printable(path)} ({type(module).__name__}) expected {expected}; it got {got}"
    return ""


def _given(names: dict[str, Any]) -> Tensor | None:
    for name in ("input", "x", "src", "query", "hidden_states", "input_ids"):
        if isinstance(names.get(name), Tensor):
            found: Tensor = names[name]
            return found
    return next((value for value in names.values() if type(value) is Tensor), None)


def _expected(module: nn.Module) -> str:
    if isinstance(module, nn.Linear):
        return f"...x{module.in_features}"
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return f"whole numbers below {module.num_embeddings} (int64)"
    if isinstance(module, nn.RNNBase):
        order = "BATCHxTIME" if module.batch_first else "TIMExBATCH"
        return f"{order}x{module.input_size}"
    if isinstance(module, nn.LayerNorm):
        return "...x" + sized(module.normalized_shape)
    if isinstance(module, nn.MultiheadAttention):
        return f"...x{module.embed_dim}"
    name = type(module).__name__
    channels = getattr(module, "in_channels", None) or getattr(module, "num_features", None)
    if isinstance(channels, int) and name[-2:] in ("1d", "2d", "3d"):
        rest = ("LENGTH", "HEIGHTxWIDTH", "DEPTHxHEIGHTxWIDTH")[int(name[-2]) - 1]
        return f"BATCHx{channels}x{rest}"
    return ""
