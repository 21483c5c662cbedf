"""Where the key of a mask comes from: the caller, a generator, or a scope that was asked for.

Without any of them it is drawn from torch's default generator of the device, so that
`torch.manual_seed` makes a run reproducible, as it does for torch's own dropout.
"""

from __future__ import annotations

import itertools
import random
import sys
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from operator import index
from typing import NamedTuple, SupportsIndex

import torch
from torch import Tensor

from dropkit.errors import SettingError
from dropkit.kernel.context import backward_pass, checkpoints
from dropkit.kernel.mask import WORD64, Key, signed

_Ask = Callable[[], Key]


class _Answer(NamedTuple):
    """A scope: gives a key, and may ask for the one that there would be without it."""

    answer: Callable[[_Ask], Key]
    replays: bool
    """Whether it stands by whatever key there was, also one from a generator."""
    checkpoints: int
    """How many checkpoints there were around it when it was entered."""
    traced: bool = False
    """Whether its keys are values of the program that a compiler or an export makes."""


_scopes: ContextVar[tuple[_Answer, ...]] = ContextVar("dropkit.scopes", default=())
"""The scopes in force, the innermost last; each thread and each task of asyncio has its own."""

_LOWEST = -(1 << 63)
_MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def derive(key: int, *words: int) -> int:
    """Name a stream within a stream: a 64-bit key from a key and any integers.

    Mixing is SplitMix64's finalizer (Steele, Lea & Flood 2014), once per word.

    >>> derive(0, 1) != derive(1, 0)
    True
    """
    state = 0
    for word in map(int, (key, *words)):  # numpy integers have no room for 64 bits
        state = (state ^ (word & WORD64)) + _MIX[0] & WORD64
        state = (state ^ (state >> 30)) * _MIX[1] & WORD64
        state = (state ^ (state >> 27)) * _MIX[2] & WORD64
        state ^= state >> 31
    return state


def derive_on(key: Key, *words: int) -> Key:
    """`derive`; of a key in a tensor on its device, as `split` does."""
    if not isinstance(key, Tensor):
        return derive(key, *words)
    state = _mixed(key)
    for word in words:
        state = _mixed(state ^ (signed(word) if type(word) is int else word))  # or a symbol
    return state


def split(key: Key, count: int) -> tuple[Key, ...]:
    """Make `count` keys of one: `derive(key, n)` for n = 0, 1, ....

    A key in a tensor stays on its device, where the same arithmetic makes the same keys.

    Args:
        key: 64 bits, as an integer or in a tensor.
        count: how many keys.

    Raises:
        SettingError: a key of other than 64 bits, a negative count.

    >>> import torch, dropkit.functional as F
    >>> F.split(7, 2) == (F.derive(7, 0), F.derive(7, 1))
    True
    >>> [int(key) % 2**64 for key in F.split(torch.tensor(7), 2)] == list(F.split(7, 2))
    True
    """
    if count < 0:
        raise SettingError(f"count: expected the number of keys, 0 or more; got {count}")
    key = check_key(key)
    if not isinstance(key, Tensor):
        return tuple(derive(key, n) for n in range(count))
    numbers = torch.arange(count, dtype=torch.int64, device=key.device)
    return _mixed(_mixed(key) ^ numbers).unbind()


def _mixed(state: Tensor) -> Tensor:
    """A step of `derive`, in int64, which wraps as 64 bits without a sign do."""
    state = state + signed(_MIX[0])
    for shift, factor in ((30, _MIX[1]), (27, _MIX[2])):
        state = (state ^ _shifted(state, shift)) * signed(factor)
    return state ^ _shifted(state, 31)


def _shifted(state: Tensor, bits: int) -> Tensor:
    return (state >> bits) & (WORD64 >> bits)


class _Thread(threading.local):
    """A thread's own place to draw into."""

    def __init__(self) -> None:
        self.bits = array("q", [0])  # the same memory, which is read sooner than the tensor
        with torch.inference_mode(False):  # or it could be drawn into in no other mode
            self.word = torch.frombuffer(self.bits, dtype=torch.int64)


_thread = _Thread()


def draw_key(device: torch.device, generator: torch.Generator | None = None) -> Key:
    """A fresh key: of the scope in force, of the generator, or of the device's default one.

    On the CPU, and from a CPU generator, an integer. Otherwise a tensor on the device, which the
    host never reads; so a captured CUDA graph draws another key at every replay.
    """
    scopes = _scopes.get()
    if generator is not None:  # who has one counts no keys
        scopes = tuple(scope for scope in scopes if scope.replays)
    elif not scopes:
        return _drawn(device, None)
    if checkpoints() > (scopes[-1].checkpoints if scopes else 0):
        raise SettingError(
            "expected no gradient checkpoint, and no torch.autograd.Function, between this dropout "
            "and its generator, or keyed(), since they do not draw the same again when it is "
            "recomputed. Try torch.utils.checkpoint.checkpoint(..., "
            "context_fn=dropkit.functional.replayed_keys); in a Function of your own, key="
        )
    return _ask(scopes, device, generator)


def _ask(
    scopes: tuple[_Answer, ...], device: torch.device, generator: torch.Generator | None
) -> Key:
    """The key of the innermost scope, which may ask those around it."""
    if not scopes:
        return _drawn(device, generator)
    return scopes[-1].answer(lambda: _ask(scopes[:-1], device, generator))


def _drawn(device: torch.device, generator: torch.Generator | None) -> Key:
    if generator is not None and not isinstance(generator, torch.Generator):
        raise SettingError(f"generator: expected a torch.Generator; got {generator!r}")
    device = device if generator is None else generator.device
    if device.type == "cpu":
        return fresh(generator)
    word = torch.empty((), dtype=torch.int64, device=device)
    return word.random_(_LOWEST, None, generator=generator)


def fresh(generator: torch.Generator | None = None) -> int:
    """64 bits of a CPU generator, the default one if none is given."""
    _thread.word.random_(_LOWEST, None, generator=generator)
    return _thread.bits[0] & WORD64


def seed_torch(key: int) -> None:
    """Let torch's own generators, of all devices, go on from what a key names."""
    seed = key >> 1  # it takes 63 bits
    torch.default_generator.manual_seed(seed)  # torch.manual_seed notes who called, for each device
    begun: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if begun:
        torch.cuda.manual_seed_all(seed)


def seed_others(key: int) -> None:
    """Let the generators of Python and NumPy go on from what a key names."""
    random.seed(key)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(key & 0xFFFFFFFF)


def check_key(key: Key | SupportsIndex) -> Key:
    """The key that a caller gave, if it has 64 bits."""
    if isinstance(key, Tensor):
        if key.numel() != 1 or key.dtype not in (torch.int64, torch.uint64):
            raise SettingError(
                "key: expected an integer of 64 bits, or a tensor that holds one (int64 or "
                f"uint64); got a tensor of {key.dtype} with shape {tuple(key.shape)}"
            )
        key = key.reshape(())
        return key if key.dtype == torch.int64 else key.view(torch.int64)
    if not isinstance(key, int) and hasattr(key, "__index__"):
        key = index(key)  # NumPy's integers
    if isinstance(key, bool) or not isinstance(key, int):
        raise SettingError(
            f"key: expected an integer of 64 bits, or a tensor that holds one; got {key!r}"
        )
    if not _LOWEST <= key <= WORD64:
        raise SettingError(
            f"key: expected an integer of 64 bits, from -2**63 to 2**64 - 1; got {key}. "
            "To make a key of any integers, try dropkit.functional.derive(0, first, second, ...)"
        )
    return key if torch.compiler.is_compiling() else key & WORD64  # a symbol is spared that


def in_traced_scope() -> bool:
    """Whether the innermost scope answers with values of a program that is being made."""
    scopes = _scopes.get()
    return bool(scopes) and scopes[-1].traced


def in_scope() -> bool:
    """Whether a scope answers for keys."""
    return bool(_scopes.get())


@contextmanager
def keyed(seed: Key) -> Iterator[None]:
    """Within the block, the n-th key that nobody gives is `derive(seed, n)`.

    A seed in a tensor may be the input of a program that is exported: its masks then hang on it.

    No global state is read or moved. Scopes belong to a thread, or to a task of asyncio, and nest:
    the innermost decides. A torch.utils.checkpoint within the block needs
    `context_fn=replayed_keys`, since what is recomputed is not counted; it is refused without it,
    and so is a torch.autograd.Function within which a key is asked for.

    >>> import torch, dropkit.functional as F
    >>> def twice() -> list[torch.Tensor]:
    ...     with F.keyed(7):
    ...         return [F.dropout(torch.ones(50)), F.dropout(torch.ones(50))]
    >>> first, again = twice(), twice()
    >>> [torch.equal(a, b) for a, b in zip(first, again)], torch.equal(*first)
    ([True, True], False)
    """
    with _Scope(lambda: _counting(seed)):
        yield


def replayed_keys() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """The `context_fn` of `torch.utils.checkpoint` that makes recomputation draw the same masks.

    Keys are 64 bits; so there is no state of a generator to stash, and
    `preserve_rng_state=False` is safe and saves the device a synchronization.

    >>> import torch, dropkit.functional as F
    >>> from torch.utils.checkpoint import checkpoint
    >>> x = torch.ones(64, requires_grad=True)
    >>> y = checkpoint(
    ...     F.dropout, x, use_reentrant=False, preserve_rng_state=False, context_fn=F.replayed_keys
    ... )
    >>> y.sum().backward()
    >>> torch.equal(x.grad, y)
    True
    """
    keys: list[Key] = []
    return _Scope(lambda: _recording(keys)), _Scope(lambda: _replaying(iter(tuple(keys))))


class _Scope(AbstractContextManager[None]):
    """Who answers when a key is asked for; made anew each time that the scope is entered."""

    def __init__(self, answer: Callable[[], _Answer]) -> None:
        self._answer = answer
        self._entered: list[_Answer] = []

    def __enter__(self) -> None:
        self._entered.append(self._answer())
        _scopes.set((*_scopes.get(), self._entered[-1]))

    def __exit__(self, *_: object) -> None:
        mine = self._entered.pop()  # not always the innermost, where generators are suspended
        _scopes.set(tuple(scope for scope in _scopes.get() if scope is not mine))


def _counting(seed: Key) -> _Answer:
    count, entered = itertools.count(), backward_pass()

    def answer(_: _Ask) -> Key:
        if backward_pass() != entered:  # a checkpoint recomputes
            raise SettingError(
                "expected no new key within a backward pass, since those of keyed() are counted "
                "and a recomputation would draw others. Try torch.utils.checkpoint.checkpoint(..., "
                "context_fn=dropkit.functional.replayed_keys)"
            )
        return derive_on(seed, next(count))

    return _Answer(
        answer, replays=False, checkpoints=checkpoints(), traced=isinstance(seed, Tensor)
    )


def _recording(keys: list[Key]) -> _Answer:
    def answer(ask: _Ask) -> Key:
        keys.append(ask())
        return keys[-1]

    return _Answer(answer, replays=True, checkpoints=checkpoints())


def _replaying(keys: Iterator[Key]) -> _Answer:
    def answer(ask: _Ask) -> Key:
        key = next(keys, None)
        return ask() if key is None else key

    return _Answer(answer, replays=True, checkpoints=checkpoints())
