"""A program of torch that draws: for a service that calls it, and switches nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from dropkit import kernel
from dropkit.errors import SamplingError, SettingError
from dropkit.intercept import uncompiled
from dropkit.intercept.facts import facts
from dropkit.intercept.leaving import deliberate, leaving
from dropkit.intercept.steering import steering
from dropkit.intercept.within import Within
from dropkit.posterior.choosing import Choice, Rates
from dropkit.posterior.directing import Directing
from dropkit.posterior.preparing import NEW, Asked, prepared


def sampling_program(
    model: nn.Module,
    *inputs: Any,
    sites: Choice = None,
    rates: Rates = None,
    insert: Rates = None,
    dynamic_shapes: Any = None,
    **kwargs: Any,
) -> torch.export.ExportedProgram:
    """Export a model with its dropout switched on, and the key of the masks as its first input.

    The program is called with an int64 tensor that holds a key, and then with what the model is
    called with. It gives the draw that `sample` gives as its first for that key, so another key is
    another draw; nothing in it hangs on a mode, or on a generator. Where it runs, dropkit's
    operators have to be known: `import dropkit.functional`.

    Args:
        model: any module that torch.export takes.
        inputs, kwargs: an example of what it is called with.
        sites, rates, insert: as in `sample`.
        dynamic_shapes: as in torch.export, for the inputs alone.

    Raises:
        SamplingError: a site that draws its own mask, which no key reaches.
        SettingError: what is given is no module.

    >>> import torch, dropkit
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5)).eval()
    >>> x = torch.ones(3, 4)
    >>> program = dropkit.sampling_program(net, x).module()
    >>> draws = dropkit.sample(net, x, draws=2, key=7)
    >>> torch.equal(program(torch.tensor(7), x), draws.samples[0])
    True
    """
    if not isinstance(model, nn.Module):
        raise SettingError(f"model: expected a torch.nn.Module; got {type(model).__name__}")
    inner = uncompiled(model)
    with deliberate():
        plan, _ = prepared(inner, inputs, kwargs, Asked(sites, rates, insert), route=NEW)
        key = torch.zeros((), dtype=torch.int64)
        director = Directing(plan, key, 0)
        with ExitStack() as stack:
            stack.enter_context(leaving(inner, plan.opened, plan.rates))
            stack.enter_context(torch.no_grad())
            within = stack.enter_context(steering(inner, director))
            program = torch.export.export(
                _Keyed(inner, director, within), (key, *inputs), dict(kwargs),
                dynamic_shapes=_shapes(dynamic_shapes, kwargs),
            )  # fmt: skip
    _check(program)
    return program


class _Keyed(nn.Module):
    """A model, and before what it takes a key."""

    def __init__(self, model: nn.Module, director: Directing, within: Within) -> None:
        super().__init__()
        self.model = model
        self.begins: tuple[Callable[[Tensor], None], Callable[[], None]] = (
            director.begin,
            within.begin_here,
        )

    def forward(self, key: Tensor, *inputs: Any, **kwargs: Any) -> Any:
        """One draw."""
        begin, begin_here = self.begins
        begin(key)
        begin_here()
        with kernel.keyed(kernel.derive_on(key, 0)):
            return self.model(*inputs, **kwargs)


def _shapes(shapes: Any, kwargs: Mapping[str, Any]) -> Any:
    if shapes is None:
        return None
    own = tuple(shapes) if isinstance(shapes, tuple | list) else ()
    named = dict(shapes) if isinstance(shapes, Mapping) else {}
    return {"key": None, "inputs": own, **{name: named.get(name) for name in kwargs}}


def _check(program: torch.export.ExportedProgram) -> None:
    """Nothing in it draws from a generator."""
    for node in program.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            known = facts(node.target)
            args, given = node.args, node.kwargs
            if known.draws(args, given) or (known.seeded and known.dropped(args, given)):
                raise SamplingError(
                    "expected sites whose masks a key names; the program draws from a generator "
                    f"({known.name}). Leave the site out with sites="
                )
