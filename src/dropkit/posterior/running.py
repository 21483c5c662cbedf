"""The passes of a sampled prediction: in whichever way takes the least time.

All ways give the same masks for the same draw, and the same values up to rounding:

- loop: the model runs once for each draw.
- prefix: what hangs on no draw was computed once; what does is done again for each draw.
- fold: the same, for several draws at once.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as trees

from dropkit import kernel
from dropkit.errors import DropkitError, SamplingError, SettingError
from dropkit.inspection.passes import copied, said, tensors
from dropkit.intercept.leaving import Left, leaving
from dropkit.intercept.steering import steering
from dropkit.posterior.choosing import Plan, form_of
from dropkit.posterior.directing import Directing, Probing
from dropkit.posterior.recording import Recorder
from dropkit.posterior.replay import Replay

Strategy = Literal["auto", "loop", "prefix", "fold"]

_TRIES = 2
"""So often a number of draws is tried before it is judged: a machine has other work, too."""
_WORSE = 1.05
"""Folding more draws has to make one draw cheaper than this many times the best so far."""
_STEP = 4
"""How many times more draws are tried at once, as long as it pays."""
_UNFOLDED = (
    "strategy: expected a model whose draws can be done at once for 'fold'. Try strategy='auto', "
    "since here"
)
_CACHES = ("past_key_values", "mems", "cache_params")
"""Outputs of Transformers that are no prediction, and large."""
_RELATIVE = 1e-4
"""How far the outputs of a draw may lie apart by rounding, as a share of the largest: operators
sum in another order where they have more draws before them. What is wrong lies further off."""


Route = tuple[int, int, int]
"""What a pass came to: modules and dropouts; operators; and where the model draws in training."""


class ElsewhereError(Exception):
    """The model goes another way with these inputs than where its sites were looked for."""

    def __init__(self, route: Route) -> None:
        super().__init__()
        self.route = route


@dataclass(slots=True)
class Chunk:
    """Some draws, one after the other."""

    first: int
    count: int
    leaves: list[Any]
    """Of the outputs, in order: tensors (count, ...); what is no tensor as it was."""


@dataclass(slots=True)
class Way:
    """What was found out about a model and the form of its inputs."""

    proven: bool = False
    """Whether a tape gave the same as the model, for another draw than that it was noted at."""
    why_not: str = ""
    """Why it did not, or cannot be noted; then the model runs for each draw."""
    folds: bool | None = None
    """Whether several draws at once give the same; None: not tried."""
    times: dict[int, float] = field(default_factory=dict)
    """Seconds that a draw took at least, by how many were done at once; at 0: by the model."""
    tries: Counter[int] = field(default_factory=Counter)

    def took(self, count: int, seconds: float) -> None:
        """So long for so many draws at once."""
        each = seconds / max(count, 1)
        self.times[count] = min(each, self.times.get(count, each))
        self.tries[count] += 1

    def best(self) -> int:
        """How many draws at once take least, as far as is known; 0: the model itself is faster."""
        return min(self.times, key=self.times.__getitem__)

    def loops(self, left: int) -> bool:
        """Whether the model itself is known to be the fastest."""
        return self.tries[1] >= _TRIES and self.best() == 0 and self.next(left) == 0

    def next(self, left: int) -> int:
        """How many to do at once: more than ever as long as that may pay, and then the best.

        One draw by the tape may take longer than the model, and many at once still far less.

        Args:
            left: how many are wanted, and fit.
        """
        if self.tries[1] < _TRIES:
            return 1
        most, best = max(self.times), self.best()
        if self.folds is False:
            return best
        if self.tries[most] < _TRIES:
            return most
        fewer = min(seconds for count, seconds in self.times.items() if count)
        pays = most < left and self.times[most] <= fewer * _WORSE
        return most * _STEP if pays and self.times[most] / _STEP <= self.times[best] else best


@dataclass(slots=True, eq=False)
class Runner:
    """Runs a model for one draw after another."""

    model: nn.Module
    call: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    plan: Plan
    key: int
    way: Way
    strategy: Strategy = "auto"
    anywhere: bool = False
    """Whether it may go ways on which its sites were not looked for."""
    left: Left | None = None
    """What puts the model back between two passes, where they change it."""
    memory: int = 1 << 62
    """Bytes that the draws of a chunk may take together."""
    strict: bool = False
    """Whether that holds for one draw, too."""
    most: int = 1 << 62
    """Draws that fit at once."""
    limit: int = 1 << 62
    """Draws that are wanted at once."""
    path: int = 0
    """The modules that the last pass came to, in order, as one number; as long as its way hangs on
    no draw."""
    form: Any = None
    """The structure of the outputs."""
    kinds: list[Any] = field(default_factory=list)
    """Of the outputs, in order: their types; of what is no tensor, the value."""
    directs: Callable[[Plan, int, int, Recorder | None], Directing] = Directing
    """Makes who decides in the pass of a draw."""
    calls: Counter[int] = field(default_factory=Counter)
    """By number of a site: how often it acted, at the most, in one pass of the model."""
    bits: list[tuple[float, int]] = field(default_factory=list)
    """Of each mask of the first draw: the rate, and how many draws are in it."""
    replay: Replay | None = None

    # ---- one pass of the model

    def directed(
        self, draw: int, recorder: Recorder | None = None, director: Directing | None = None
    ) -> tuple[Directing, Any]:
        """What decided in a pass, and what the pass gave."""
        director = director or self.directs(self.plan, self.key, draw, recorder)
        if self.left is not None:
            self.left.again()
        args, kwargs = copied((self.args, dict(self.kwargs)), None)
        seed = kernel.derive(self.key, draw)
        kernel.seed_torch(seed)
        if self.left is not None and self.left.draws:
            kernel.seed_others(seed)
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(kernel.keyed(seed))
            self.path = 0
            within = stack.enter_context(
                steering(self.model, director, lambda path: self._began(path, recorder))
            )
            within.begin_here()
            if recorder is not None:
                recorder.noticed = lambda: director.mark(within.where()) if within.here else None
                stack.enter_context(recorder)
            return director, self._called(draw, args, kwargs)

    def _began(self, path: str, recorder: Recorder | None) -> None:
        if recorder is None or recorder.sure:
            self.path = hash((self.path, path))

    @property
    def shapes(self) -> Any:
        """Of the inputs."""
        return tuple(x.shape for x in tensors((self.args, dict(self.kwargs))))

    def trained(self) -> int:
        """Where the model draws if all of it is in training, as one number.

        A line that looks at the mode of a module leaves no other trace in evaluation mode.
        """
        opened = {path for path, _ in self.model.named_modules()}
        plan = replace(self.plan, opened=opened)
        probe = replace(self, plan=plan, key=0, left=None)
        director = Probing(plan)
        with (
            leaving(self.model, opened, form=form_of(self.args, self.kwargs)),
            suppress(DropkitError),  # it may need more inputs then
        ):
            probe.directed(0, Recorder(0, 0), director)
        return hash(frozenset(director.keys))

    def _follow(self, director: Directing, recorder: Recorder) -> None:
        """Raise if the model goes another way than where its sites were looked for."""
        plan, shapes = self.plan, self.shapes
        here = hash((self.path, director.met)), recorder.route
        told = recorder.told or not recorder.sure
        unsure = told or here != plan.route or shapes not in plan.shapes
        trained = self.trained() if unsure else plan.trained
        if here != plan.route or trained != plan.trained:
            raise ElsewhereError((*here, trained))
        plan.shapes.add(shapes)

    def _called(self, draw: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        try:
            return self.call(*args, **kwargs)
        except DropkitError:
            raise
        except Exception as error:
            shapes = [f"{tuple(x.shape)}" for x in tensors((args, kwargs))]
            raise SamplingError(
                f"expected a model that runs with its inputs ({', '.join(shapes) or 'no tensor'}); "
                f"draw {draw} raised {said(error)}"
            ) from error

    def first(self, draw: int, left: int = 1) -> Chunk:
        """A draw that is looked at as it is made; others will follow."""
        if self.strategy == "auto" and self.way.loops(left) and (chunk := self._unlooked(draw)):
            return chunk
        recorder = Recorder(self.key, draw)
        director, result = self.directed(draw, recorder)
        if not self.anywhere:
            self._follow(director, recorder)
        leaves = self._begun(director, result)
        outputs = recorder.outputs(leaves)
        if recorder.tape.why_not:
            self.way.why_not = recorder.tape.why_not
        else:
            self.replay = Replay(recorder.tape, outputs)
        return Chunk(draw, 1, [_stacked(leaf) for leaf in leaves])

    def _unlooked(self, draw: int) -> Chunk | None:
        """A first draw by the model itself, which is the fastest; None: it has to be looked at."""
        plan = self.plan
        if plan.asks or self.shapes not in plan.shapes:
            return None
        director, result = self.directed(draw)
        other = hash((self.path, director.met)) != plan.route[0]
        if other or any(not director.calls[x.number] for x in plan.active):
            return None
        return Chunk(draw, 1, [_stacked(leaf) for leaf in self._begun(director, result)])

    def _begun(self, director: Directing, result: Any) -> list[Any]:
        """The outputs of the first draw, in order."""
        self._acted(director)
        self.bits = director.bits
        leaves, self.form = trees.tree_flatten(_plain(result))
        self.kinds = [_kind(leaf) for leaf in leaves]
        return leaves

    def _acted(self, director: Directing) -> None:
        """Note which sites acted in a pass."""
        site = director.unshared
        if site is not None:
            raise SettingError(
                "mask_scope: expected sites whose masks can be shared in each draw; "
                f"{site.path or 'the model itself'} ({site.owner}) is come to more often in some, "
                "or draws its own. Try mask_scope='element', or choose others with sites="
            )
        self.calls |= director.calls

    def loop(self, draw: int) -> Chunk:
        """A draw by the model itself."""
        director, result = self.directed(draw)
        self._acted(director)
        leaves, form = trees.tree_flatten(_plain(result))
        kinds = [_kind(leaf) for leaf in leaves]
        if form != self.form or kinds != self.kinds:
            raise SamplingError(
                f"expected outputs of one structure and type in all draws; got {self.form}, "
                f"{self.kinds} in the first, and {form}, {kinds} in draw {draw}"
            )
        return Chunk(draw, 1, [_stacked(leaf) for leaf in leaves])

    def prefix(self, draw: int) -> Chunk:
        """A draw by the tape."""
        tape = self._tape
        if tape.tape.seeded:
            kernel.seed_torch(kernel.derive(self.key, draw))
        with torch.no_grad():
            return Chunk(draw, 1, [_stacked(leaf) for leaf in tape.one(draw)])

    def fold(self, first: int, count: int) -> Chunk:
        """Several draws by the tape."""
        with torch.no_grad():
            return Chunk(first, count, self._tape.many(first, count))

    @property
    def _tape(self) -> Replay:
        if self.replay is None:
            raise SamplingError(f"expected a model that can be noted; {self.way.why_not}")
        return self.replay

    def blame(self, draw: int) -> str:
        """Where the first NaN of a draw comes from."""
        director = self.directs(self.plan, self.key, draw, None)
        director.suspicious = True
        self.directed(draw, None, director)
        if director.blamed is None:
            return "No site has it in what comes in or goes out: the layers behind them make it"
        site, made = director.blamed
        where = f"{site.path or 'the model itself'} ({site.owner})"
        return f"{where} made it of numbers" if made else f"It comes into {where} already"

    # ---- all passes

    def run(self, draws: int) -> Iterator[Chunk]:
        """The draws 0 to draws - 1, in chunks."""
        yield self.first(0, min(draws - 1, self.limit, self.most))
        self._check()
        done = 1
        while done < draws:
            chunk = self._next(done, min(draws - done, self.limit))
            yield chunk
            done += chunk.count

    def _check(self) -> None:
        """Raise if what was asked for cannot be."""
        if self.strategy in ("prefix", "fold") and self.way.why_not:
            raise SettingError(
                f"strategy: expected a model that can be run in parts for {self.strategy!r}; "
                f"{self.way.why_not}. Try strategy='loop' or 'auto'"
            )
        if self.strategy == "fold" and self.replay is not None and not self.replay.foldable:
            raise SettingError(
                "strategy: expected a model whose draws come from keys for 'fold'; it draws from "
                "torch's generator by itself. Try strategy='prefix' or 'auto'"
            )
        peak = max(self.replay.peak(), 1) if self.replay is not None else 1
        self.most = max(self.memory // peak, 1)
        if self.strict and self.memory < peak:
            raise SettingError(
                f"memory: expected room for one draw, {peak:,} bytes; got {self.memory:,}"
            )

    def _next(self, first: int, left: int) -> Chunk:
        way = self.way
        if self.strategy == "loop" or way.why_not or self.replay is None:
            return self.loop(first)
        if not way.proven:
            return self._proven(first)
        if self.strategy == "prefix" or not self.replay.foldable:
            return self._timed(1, self.prefix, first)
        left = min(left, self.most)
        if self.strategy == "fold":
            return self._folded(first, left)
        count = min(way.next(left), left)
        if count > 1:
            return self._folded(first, count)
        return self._timed(count, self.prefix if count else self.loop, first)

    def _timed(self, count: int, run: Callable[[int], Chunk], first: int) -> Chunk:
        began = perf_counter()
        chunk = run(first)
        self.way.took(count, perf_counter() - began)
        return chunk

    def _proven(self, first: int) -> Chunk:
        """A draw in two ways: what the tape gives has to be what the model gives."""
        chunk = self._timed(0, self.loop, first)
        if alike(chunk, self.prefix(first)):
            self.way.proven = True
        else:
            self.way.why_not = "a part of what hangs on a draw is not seen by torch"
            self._check()
        return chunk

    def _folded(self, first: int, count: int) -> Chunk:
        """Several draws at once; fewer where memory ends, and one where an operator has no rule."""
        try:
            if self.way.folds:
                return self._timed(count, lambda first: self.fold(first, count), first)
            chunk = self.fold(first, count)  # the first time is no measure
        except (RuntimeError, MemoryError) as error:
            if _is_memory(error) and count > 1:
                self.most = count // 2
                return self._folded(first, self.most)
            if _is_memory(error):
                raise
            self.way.folds = False
            if self.strategy == "fold":
                raise SettingError(f"{_UNFOLDED} an operator has no rule: {said(error)}") from error
            return self.prefix(first)
        self.way.folds = alike(part(chunk, 0), self.prefix(first))
        if self.way.folds:
            return chunk
        if self.strategy == "fold":
            raise SettingError(f"{_UNFOLDED} they come out otherwise than one by one")
        return self.prefix(first)


def _plain(result: Any) -> Any:
    """Outputs as a tree of dictionaries, tuples and lists; caches are left out."""
    if dataclasses.is_dataclass(result) and not isinstance(result, type | Mapping):
        names = [one.name for one in dataclasses.fields(result)]
        result = {name: getattr(result, name) for name in names}
    if isinstance(result, Mapping):
        return {
            name: _plain(value)
            for name, value in result.items()
            if value is not None and name not in _CACHES
        }
    return result


def _kind(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        if leaf.layout != torch.strided:
            raise SamplingError(
                f"expected dense tensors for outputs; got one of {leaf.layout}. Try to give "
                "x.to_dense()"
            )
        return leaf.dtype
    return leaf if isinstance(leaf, bool | int | float | str) else type(leaf)


def _stacked(leaf: Any) -> Any:
    return leaf.unsqueeze(0) if isinstance(leaf, Tensor) else leaf


def part(chunk: Chunk, at: int) -> Chunk:
    """One draw of a chunk."""
    leaves = [x[at : at + 1] if isinstance(x, Tensor) else x for x in chunk.leaves]
    return Chunk(chunk.first + at, 1, leaves)


def alike(first: Chunk, second: Chunk) -> bool:
    """Whether two ways gave the same draw."""
    pairs = zip(first.leaves, second.leaves, strict=True)
    return all(_same(a, b) for a, b in pairs if isinstance(a, Tensor))


def _same(a: Tensor, b: Any) -> bool:
    if not isinstance(b, Tensor) or a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point() and not a.is_complex():
        return torch.equal(a, b)
    if a.numel() == 0:
        return True
    scale = float(a.abs().nan_to_num(0.0, 0.0, 0.0).max())
    share = max(_RELATIVE, 8 * torch.finfo(a.dtype).eps)
    return torch.allclose(a, b, rtol=0.0, atol=share * scale, equal_nan=True)


def _is_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text
