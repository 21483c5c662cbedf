"""Applies edits to a model in place. All are applied, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from importlib import import_module
from typing import Any

import torch
from torch import nn

from dropkit.records import Edit

Undo = Callable[[], object]

_ROOMS = ("torch.nn", "dropkit.nn")
"""Where the classes that an edit puts in may come from."""


class Refused(Exception):
    """An edit that does not fit the model; nothing was changed for it."""


class Applied:
    """What was done to a model, and how to take it back."""

    def __init__(self) -> None:
        self.edits: list[Edit] = []
        self.refused: list[tuple[Edit, str]] = []
        self._undo = ExitStack()

    def undo(self) -> None:
        """The model is what it was before."""
        self._undo.close()
        self.edits.clear()

    def run(self, model: nn.Module, edit: Edit) -> None:
        """One edit more, or the reason why not."""
        try:
            self._undo.callback(_ACTIONS[edit.action](model, edit))
        except Refused as why:
            self.refused.append((edit, str(why)))
        else:
            self.edits.append(edit)


def applied(model: nn.Module, edits: Iterable[Edit]) -> Applied:
    """Apply edits in order.

    One that does not fit is refused, with the reason, and changes nothing. If anything else is
    raised, or a key of the state dictionary comes or goes, all is as it was before.
    """
    keys = model.state_dict().keys()
    done = Applied()
    try:
        for edit in edits:
            done.run(model, edit)
        if model.state_dict().keys() != keys:
            raise RuntimeError("expected edits that keep the keys of the state dictionary")
    except BaseException:
        done.undo()
        raise
    return done


# ---- what is at a path


def _module(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise Refused(f"the model has no module {path}") from None


def _held(model: nn.Module, path: str) -> tuple[nn.Module, str, nn.Module]:
    """(what holds a module, under which name, the module), where it is held once."""
    module = _module(model, path)
    if not path:
        raise Refused("the model itself cannot be put elsewhere")
    places = sum(
        part is module for outer in model.modules() for part in outer._modules.values() if part
    )
    if places != 1:
        raise Refused(f"{path} stands in {places} places of the model, and would change in all")
    outer_path, _, name = path.rpartition(".")
    outer = _module(model, outer_path)
    if isinstance(outer, torch.jit.ScriptModule):
        raise Refused(f"{path} is part of a scripted module, which is compiled")
    return outer, name, module


def _stateless(module: nn.Module, path: str) -> None:
    if module.state_dict() or any(True for _ in module.parameters()):
        raise Refused(f"{path} holds tensors, whose names in the state dictionary would change")
    if any(hooks for name, hooks in vars(module).items() if name.endswith("_hooks")):
        raise Refused(f"{path} has hooks, which would be lost")


def _sequential(outer: nn.Module, path: str) -> nn.Sequential:
    if not isinstance(outer, nn.Sequential) or type(outer).forward is not nn.Sequential.forward:
        raise Refused(f"{path} does not stand in a Sequential: its order is written in a forward")
    return outer


# ---- actions: each gives what takes it back


def _set(model: nn.Module, edit: Edit) -> Undo:
    path, _, name = edit.path.rpartition(".")
    module = _module(model, path)
    old = vars(module).get(name)
    if type(old) not in (int, float):
        raise Refused(f"{edit.path} is not a number of the model's")
    try:
        new = float(edit.to)
    except ValueError:
        raise Refused(f"{edit.path}: expected a number; got {edit.to!r}") from None
    if old == new:
        raise Refused(f"{edit.path} is {edit.to} already")
    setattr(module, name, new)
    return lambda: setattr(module, name, old)


def _switch(model: nn.Module, edit: Edit) -> Undo:
    if edit.to not in ("train", "eval"):
        raise Refused(f"{edit.path}: expected train or eval; got {edit.to!r}")
    module = _module(model, edit.path)
    old = [(part, part.training) for part in module.modules()]
    if all(training is (edit.to == "train") for _, training in old):
        raise Refused(f"{edit.path or 'the model'} is in that mode already")

    def undo() -> None:
        for part, training in old:
            part.training = training

    try:
        module.train(edit.to == "train")  # of a user's own: it may raise half-way
    except BaseException:
        undo()
        raise
    return undo


def _replace(model: nn.Module, edit: Edit) -> Undo:
    outer, name, old = _held(model, edit.path)
    _stateless(old, edit.path)
    made = _class(edit.to)
    if type(old) is made and all(vars(old).get(k) == v for k, v in edit.arguments.items()):
        raise Refused(f"{edit.path} is such a {made.__name__} already")
    new = made(**edit.arguments)
    _stateless(new, edit.to)
    outer._modules[name] = new.train(old.training)
    return lambda: outer._modules.update({name: old})


def _class(name: str) -> Callable[..., nn.Module]:
    room, _, kind = name.rpartition(".")
    made: Callable[..., nn.Module] | None = (
        getattr(import_module(room), kind, None) if room in _ROOMS else None
    )
    if made is None:
        raise Refused(f"expected a class of {' or '.join(_ROOMS)}; got {name!r}")
    return made


INSERTED = "dropkit_dropout"
"""The name that a dropout has in the layer before which it was put."""


def _insert(model: nn.Module, edit: Edit) -> Undo:
    """A part of the layer, which has no tensors and so no keys, and a hook that runs it first."""
    module = _module(model, edit.path)
    if isinstance(module, torch.jit.ScriptModule):
        raise Refused(f"{edit.path} is scripted: it is compiled, and takes no hooks")
    if hasattr(module, INSERTED):
        raise Refused(f"a dropout stands before {edit.path} already")
    new = _class(edit.to)(**edit.arguments)
    _stateless(new, edit.to)
    module._modules[INSERTED] = new.train(module.training)
    module.register_forward_pre_hook(_first, with_kwargs=True)
    return lambda: take_out(module)


def _first(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What comes into a layer is dropped by the part of it that was put in."""
    drop: nn.Module = module._modules[INSERTED]  # type: ignore[assignment]
    if args:
        return (drop(args[0]), *args[1:]), kwargs
    return args, {**kwargs, "input": drop(kwargs["input"])}


def take_out(model: nn.Module) -> list[str]:
    """Every dropout that was put in, of a copy of the model too; paths of the layers it was in."""
    found = []
    for path, module in model.named_modules():
        if module._modules.pop(INSERTED, None) is not None:
            found.append(path)
        for number, hook in list(module._forward_pre_hooks.items()):
            if hook is _first:
                del module._forward_pre_hooks[number]
                module._forward_pre_hooks_with_kwargs.pop(number, None)
    return found


def _exchange(model: nn.Module, edit: Edit) -> Undo:
    outer, first, _ = _held(model, edit.path)
    other, second, _ = _held(model, edit.to)
    if other is not outer:
        raise Refused(f"{edit.path} and {edit.to} do not stand in the same Sequential")
    order = list(_sequential(outer, edit.path)._modules)
    a, b = order.index(first), order.index(second)
    if a > b:
        raise Refused(f"{edit.path} stands behind {edit.to} already")
    order[a], order[b] = order[b], order[a]
    return _ordered(outer, order)


def _move(model: nn.Module, edit: Edit) -> Undo:
    source, name, module = _held(model, edit.path)
    target, last, _ = _held(model, edit.to)
    _stateless(module, edit.path)
    _sequential(source, edit.path)
    _sequential(target, edit.to)
    if source is target:
        order = [other for other in source._modules if other != name]
        order.insert(order.index(last) + 1, name)
        if order == list(source._modules):
            raise Refused(f"{edit.path} stands behind {edit.to} already")
        return _ordered(source, order)
    order = list(target._modules)
    fresh = name
    while fresh in order:
        fresh += "_moved"
    order.insert(order.index(last) + 1, fresh)
    source._modules[name] = nn.Identity().train(module.training)
    target._modules[fresh] = module
    back = _ordered(target, order)

    def undo() -> None:
        back()
        del target._modules[fresh]
        source._modules[name] = module

    return undo


def _ordered(outer: nn.Module, names: list[str]) -> Undo:
    """Runs the parts of a Sequential in another order; each keeps its name, and so its keys."""
    old = dict(outer._modules)

    def fill(order: Iterable[str], parts: dict[str, nn.Module | None]) -> None:
        outer._modules.clear()
        outer._modules.update({name: parts[name] for name in order})

    fill(names, old)
    return lambda: fill(old, old)


def _hold(model: nn.Module, edit: Edit) -> Undo:
    path, _, name = edit.path.rpartition(".")
    owner = _module(model, path)
    old = vars(owner).get(name)
    if not isinstance(old, list | dict) or type(old) not in (list, dict):
        raise Refused(f"{edit.path} is no plain list or dictionary")
    parts: list[Any] = list(old.values() if isinstance(old, dict) else old)
    if not all(isinstance(part, nn.Module) for part in parts):
        raise Refused(f"{edit.path} holds other things than modules")
    for part in parts:
        _stateless(part, edit.path)
    modes = [(inner, inner.training) for part in parts for inner in part.modules()]
    new = nn.ModuleDict(old) if isinstance(old, dict) else nn.ModuleList(old)
    del owner.__dict__[name]
    owner._modules[name] = new.train(owner.training)

    def undo() -> None:
        del owner._modules[name]
        owner.__dict__[name] = old
        for inner, training in modes:
            inner.training = training

    return undo


_ACTIONS: dict[str, Callable[[nn.Module, Edit], Undo]] = {
    "set": _set,
    "switch": _switch,
    "replace": _replace,
    "exchange": _exchange,
    "move": _move,
    "insert": _insert,
    "hold": _hold,
}
