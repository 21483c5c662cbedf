"""Seeds, generators, modes and copies: where randomness comes from, and what a layer leaves."""

from __future__ import annotations

import copy
import pickle
from functools import partial

import torch
from torch import nn

from dropkit.bounds import FALSE_ALARM
from dropkit.testing.bench import Bench, applied, dependence, difference
from dropkit.testing.circumstances import PLAIN, RATE
from dropkit.testing.report import concerns, require
from dropkit.testing.seeding import private_generator
from dropkit.testing.subject import Apply, Made
from dropkit.testing.values import alike, spoiled

_P = 0.375  # a rate that is written alike in any repr
_SWITCHES = 3
_CALLS = 8


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
    first, moved = bench.moved(lambda: draw(x, source))
    require(not moved, "the global random state moved")
    require(not torch.equal(before, source.get_state()), "the generator did not move")
    second = draw(x, source)
    require(not torch.equal(first, second), "the same mask again")
    again = draw(x, private_generator(bench.subject.device, 1))
    require(torch.equal(first, again), "equal generators, other masks")
    return "only the generator moves"


def eval_mode(bench: Bench) -> str:
    """In eval mode the output is the input, bit for bit (classic: times 1 - p)."""
    given = bench.input() - 1.5  # of both signs
    plain = [(PLAIN, p, given) for p in (0.1, *bench.subject.ends, *bench.unforeseen)]
    if "nan and inf" in bench.subject.claims:
        plain.append((PLAIN, RATE, spoiled(given)))
    ways = [how for how in bench.circumstances if how.make is None]
    for how, p, given in [*plain, *((how, RATE, bench.input()) for how in ways)]:
        x, y = how.call(bench.layer(p, training=False), given)
        expected = x
        if bench.subject.scaling == "classic":
            expected = x * (1 - p)
            near = torch.finfo(x.dtype).eps * bench.subject.ulps * x.nan_to_num().abs()
            y = torch.where((y - expected).abs() <= near, expected, y)
        wrong = int(((y != expected) & ((x == x) | (y == y))).sum())
        require(alike(y, expected), f"{wrong} of {x.numel()} are not what they were to be at {p}")
    return "identity" if bench.subject.scaling != "classic" else "x * (1 - p)"


def switched(bench: Bench) -> str:
    """Switched to eval mode and back, it is off and on as a new one is, each time."""
    x = bench.plenty()
    still = bench.layer(_P, training=False)(x)
    usual = bench.repeated(bench.layer(_P), _P, x, _CALLS)
    for order, switch in (((True, False), _within), ((False, True), _by_itself)):
        model = bench.subject.make(_P)
        for training in order * _SWITCHES:
            apply = switch(model, training)
            if not training:
                require(torch.equal(apply(x), still), "not off, switched off again")
                continue
            bits = bench.repeated(apply, _P, x, _CALLS)
            chance = difference(usual, bits)
            said = f"{float((~bits).double().mean()):.3f} dropped at {_P}, switched on again; "
            require(
                chance >= FALSE_ALARM / (2 * _SWITCHES),
                f"{said}{float((~usual).double().mean()):.3f} when new: chance {chance:.1e}",
            )
    return f"off and on {_SWITCHES} times"


def eval_draws_nothing(bench: Bench) -> str:
    """In eval mode the global random state stays where it is."""
    _, moved = bench.moved(partial(bench.layer(0.5, training=False), bench.input()))
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


def _within(made: Made, training: bool) -> Apply:
    """Switched as a part of a model, where it can be one."""
    return applied(nn.Sequential(made) if isinstance(made, nn.Module) else made, training)


def _by_itself(made: Made, training: bool) -> Apply:
    if isinstance(made, nn.Module) and not training:
        return made.eval()
    return applied(made, training)
