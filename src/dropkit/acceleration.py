"""A model that nobody wrote for dropkit draws its masks with dropkit's kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dropkit import functional
from dropkit.errors import SettingError
from dropkit.functional.attention import scaled_dot_product_attention
from dropkit.intercept import Operation, attach, detach

Model = TypeVar("Model", bound=nn.Module)


def accelerate(model: Model) -> Model:
    r"""Let a model draw its dropout masks with dropkit's kernels, as it is.

    Until `restore`, while the model runs in training, its dropouts are those of
    `dropkit.functional`: in modules, in its own functional calls, and within attention. They are of
    the same law, several times faster, and keep nothing for backward but a key. It comes from
    torch's generator; so `torch.manual_seed` still repeats a run, if with other masks than torch
    draws. In eval mode nothing is seen of dropkit, nor in modules that are frozen in eval mode.

    Parameters, buffers, classes, `state_dict` and the order of hooks stay as they are; a copy or a
    pickle of the model is accelerated too. To do it twice does nothing more.

    Left to torch: dropout between the layers of `nn.LSTM`, `nn.GRU` and `nn.RNN`, which have it
    within; attention on GPUs, which torch's fused kernels compute; tensors that are nested, sparse
    or of a class of their own; functions of other libraries that call no function of torch; and the
    functional dropouts that a gradient checkpoint runs outside of any module of the model.
    Left too: what is scripted; the parts of `nn.TransformerEncoderLayer` where a checkpoint runs
    it, or where they train and it does not; models of Transformers that drop by functions, under
    their gradient checkpointing; and what `torch.compile` makes of a checkpoint.

    `torch.compile` has to come after it, and `restore` asks for compiling again. `torch.jit.script`
    takes a model that was restored. Where the C++
    kernels were not built it slows a model down, and a warning says so. So do the hooks where the
    layers of a model take microseconds.

    Args:
        model: any module.

    Returns:
        The model itself.

    Raises:
        SettingError: what is given is no module.

    >>> import torch, dropkit.functional as F
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.Dropout(0.5))
    >>> accelerate(model) is model
    True
    >>> with F.keyed(7):
    ...     y = model(torch.ones(2, 4))
    >>> torch.equal(y, F.dropout(model[0](torch.ones(2, 4)), 0.5, key=F.derive(7, 0)))
    True
    >>> restore(model) is model
    True
    """
    attach(_checked(model), draw)
    return model


def restore(model: Model) -> Model:
    """Give an accelerated model back as it was; to one that was not accelerated it does nothing.

    A part of a model can be restored as well; what runs it in training may still be accelerated.

    Args:
        model: a model, or a part or a copy of one.

    Returns:
        The model itself.

    Raises:
        SettingError: what is given is no module.
    """
    detach(_checked(model), draw)
    return model


def _checked(model: object) -> nn.Module:
    if isinstance(model, torch.jit.ScriptModule):
        raise SettingError(
            "model: expected a module of torch that runs as Python; got a scripted one, whose "
            "dropouts nobody can see. Try the module that it was scripted from"
        )
    if not isinstance(model, nn.Module):
        raise SettingError(f"model: expected a torch.nn.Module; got {type(model).__name__}")
    return model


def draw(operation: Operation) -> Any:
    """The handler: dropkit's function where its kernels take the tensors, torch's elsewhere."""
    if not 0.0 < operation.rate <= 1.0 or not _is_known(operation.x):
        return operation.run()
    arguments = operation.arguments
    if operation.is_attention:
        on_cpu = operation.x.is_cpu  # elsewhere torch's fused kernels are the faster ones
        return scaled_dot_product_attention(**arguments) if on_cpu else operation.run()
    if operation.x.is_complex() and operation.name.removesuffix("_") != "dropout":
        return operation.run()
    return dropped(operation, arguments["p"])


def dropped(operation: Operation, rate: float | Tensor) -> Tensor:
    """What dropkit makes of a dropout, at some rate."""
    name = operation.name.removesuffix("_")
    inplace = operation.arguments.get("inplace", name != operation.name)
    return _OWN[name](operation.arguments["input"], rate, True, inplace)


_OWN: dict[str, Callable[..., Tensor]] = {
    "dropout": functional.dropout,
    "dropout1d": functional.dropout1d,
    "dropout2d": functional.dropout2d,
    "dropout3d": functional.dropout3d,
    "feature_dropout": functional.channel_dropout,
    "alpha_dropout": functional.alpha_dropout,
    "feature_alpha_dropout": functional.feature_alpha_dropout,
}


def _is_known(x: Tensor) -> bool:
    """Whether the kernels take it."""
    plain = x.layout == torch.strided and not x.is_nested and x.device.type in ("cpu", "cuda")
    return plain and (x.is_floating_point() or x.is_complex())
