"""Seeds, generators, modes and copies: where randomness comes from, and what a layer leaves."""

from __future__ import annotations

import copy
import pickle

import torch
from torch import nn

from dropkit.testing.bench import Bench, dependence
from dropkit.testing.bounds import FALSE_ALARM
from dropkit.testing.report import concerns, require
from dropkit.testing.seeding import private_generator

_P = 0.375  # a rate that is written alike in any repr


def seeded(bench: Bench) -> str:
    """`torch.manual_seed` decides the masks: the same seed, the same; another seed, others."""
    x = bench.input()
    apply = bench.layer(_P)
    first = bench.seeded(apply, 1)(x)
    require(torch.equal(first, bench.seeded(apply, 1)(x)), "one seed, two outputs")
    fresh = bench.seeded(bench.layer(_P), 1)(x)
    require(torch.equal(first, fresh), "one seed, another output of a new layer")
    x = bench.plenty()
    ones, twos = (
        bench.untied(bench.arranged(bench.mask(_P, x, bench.seeded(apply, seed)(x))))
        for seed in (1, 2)
    )
    require(dependence(ones, twos) >= FALSE_ALARM, "two seeds, masks that agree")
    return "a seed is a result"


def generator(bench: Bench) -> str:
    """A generator that is handed over moves, and the global random state does not."""
    concerns(bench.subject.generator is not None, "takes no generator")
    assert bench.subject.generator is not None
    x, draw = bench.plenty(), bench.subject.generator(_P)
    source = private_generator(bench.subject.device, 1)
    before = source.get_state()
    first, moved = bench.moved(lambda x: draw(x, source), x)
    require(not moved, "the global random state moved")
    require(not torch.equal(before, source.get_state()), "the generator did not move")
    second = draw(x, source)
    require(not torch.equal(first, second), "the same mask again")
    again = draw(x, private_generator(bench.subject.device, 1))
    require(torch.equal(first, again), "equal generators, other masks")
    return "only the generator moves"


def eval_mode(bench: Bench) -> str:
    """In eval mode the output is the input, bit for bit (classic: times 1 - p)."""
    x = bench.input() - 1.5  # of both signs
    for p in (0.1, *bench.subject.ends):
        y = bench.layer(p, training=False)(x)
        if bench.subject.scaling == "classic":
            near = torch.finfo(x.dtype).eps * bench.subject.ulps * x.abs()
            require(bool(((y - x * (1 - p)).abs() <= near).all()), f"not x * (1 - p) at {p}")
        else:
            require(torch.equal(x, y), f"{int((x != y).sum())} of {x.numel()} changed at {p}")
    return "identity" if bench.subject.scaling != "classic" else "x * (1 - p)"


def eval_draws_nothing(bench: Bench) -> str:
    """In eval mode the global random state stays where it is."""
    _, moved = bench.moved(bench.layer(0.5, training=False), bench.input())
    require(not moved, "the global random state moved")
    return "nothing drawn"


def copies(bench: Bench) -> str:
    """Copies (deepcopy, pickle, state_dict) drop alike, and the repr says the rate."""
    concerns("copy" in bench.subject.claims, "not claimed")
    layer = bench.subject.make(_P)
    concerns(isinstance(layer, nn.Module), "no module")
    assert isinstance(layer, nn.Module)
    require(str(_P) in repr(layer), f"the repr {layer!r} does not say the rate {_P}")
    x = bench.input()
    expected = bench.seeded(layer.train())(x)
    twin = bench.subject.make(_P)
    assert isinstance(twin, nn.Module)
    twin.load_state_dict(layer.state_dict())
    others = {
        "deepcopy": copy.deepcopy(layer),
        "pickle": pickle.loads(pickle.dumps(layer)),
        "state_dict": twin,
    }
    for name, other in others.items():
        require(torch.equal(expected, bench.seeded(other.train())(x)), f"{name} drops otherwise")
        require(not other.eval().training and layer.training, f"{name} shares its mode")
    return "deepcopy, pickle, state_dict, repr"


def no_trace(bench: Bench) -> str:
    """A call changes neither its input nor a parameter, a buffer, a mode or the threads."""
    made = bench.subject.make(_P)
    state = made.state_dict() if isinstance(made, nn.Module) else {}
    before = {name: value.clone() for name, value in state.items()}
    x = bench.input()
    threads, enabled = torch.get_num_threads(), torch.is_grad_enabled()
    for training in (True, False):
        apply = made.train(training) if isinstance(made, nn.Module) else bench.layer(_P)
        apply(x)
        changed = isinstance(made, nn.Module) and made.training != training
        require(not changed, "its mode changed")
    require(torch.equal(x, bench.input()), "its input changed")
    after = made.state_dict() if isinstance(made, nn.Module) else {}
    same = before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)
    require(same, "its state_dict changed")
    require(threads == torch.get_num_threads(), "the number of threads changed")
    require(enabled == torch.is_grad_enabled(), "grad mode changed")
    return "no trace"
