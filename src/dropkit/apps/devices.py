"""Where and with how many threads a fit computes."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from dropkit.errors import InputError, SettingError


def device(wanted: str) -> str:
    """The device that `wanted` means here: `auto` takes CUDA if it is there, else the CPU.

    Raises `SettingError` for a device that is unknown or not there. Apple's MPS is not offered:
    it has no float64, which predictions are computed in.
    """
    import torch

    available = torch.cuda.is_available()
    if wanted == "auto":
        return "cuda" if available else "cpu"
    match = re.fullmatch(r"cuda(?::(\d+))?", wanted)
    if wanted != "cpu" and not match:
        raise SettingError(f"expected --device auto, cpu, cuda or cuda:N; got {wanted!r}")
    if match and (not available or int(match[1] or 0) >= torch.cuda.device_count()):
        raise SettingError(
            f"--device {wanted} was asked for, but PyTorch finds no such device here"
        )
    return wanted


def name(device: str) -> str:
    """A device's name for a person."""
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"


def sleepy_threads() -> None:
    """Let threads that wait for each other soon sleep; to be called before torch is loaded.

    By default (GNU OpenMP) they spin for milliseconds. Where other programs want the cores too, one
    then burns the time that the other needs: two threads on two busy cores were ten times slower
    than with this. Sleeping at once (OMP_WAIT_POLICY=PASSIVE) takes half as long again on free
    ones.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")


@contextmanager
def threads(wanted: int | None) -> Iterator[None]:
    """So many threads for the length of a block; None changes nothing, below 0 means all cores."""
    import torch

    before = torch.get_num_threads()
    try:
        if wanted is not None:
            torch.set_num_threads(wanted if wanted > 0 else cores())
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def enough_memory() -> Iterator[None]:
    """Turn a failed allocation into an `InputError` that says what to try."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise InputError(
            "the table needs more memory than there is. Leave columns out with --type NAME=drop, "
            "or try --budget quick."
        ) from error


@contextmanager
def held_memory() -> Iterator[None]:
    """Keep freed memory in the process for the length of a block, on Linux with the GNU C library.

    Afterwards both limits stand at the library's first defaults; it no longer adapts them itself.
    Training frees and asks for the same megabytes at each step; by default they go back to the
    system every time, and a third of the computing time goes into getting them again.
    """
    trim, mapped, held, usual = -1, -3, 1 << 30, 1 << 17
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallopt"):
        yield
        return
    try:
        library.mallopt(mapped, 1 << 25)
        library.mallopt(trim, held)
        yield
    finally:
        library.mallopt(mapped, usual)
        library.mallopt(trim, usual)
        library.malloc_trim(0)


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usual_threads() -> int:
    """As many as there are cores, and no more than OMP_NUM_THREADS says, where that is set."""
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(cores(), int(told)) if told.isdecimal() and int(told) else cores()
