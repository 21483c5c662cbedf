"""The global random state, as strangers use it: set within a block, and put back after it.

Strangers draw from torch's default generators; so to exercise them these must be seeded. All of
the package's seeding is here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def isolated(device: str) -> Iterator[None]:
    """Leave the default generators of the CPU and the device, and the threads, as they were."""
    threads = torch.get_num_threads()
    kind = torch.device(device).type
    try:
        if kind == "cpu":
            with torch.random.fork_rng(devices=[]):
                yield
        else:
            with torch.random.fork_rng(devices=[device], device_type=kind):
                yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def reseed(seed: int) -> None:
    """Seed the default generators of all devices."""
    torch.manual_seed(seed & (1 << 63) - 1)


def random_state(device: str) -> list[Tensor]:
    """The states of the default generators of the CPU and the device."""
    states = [torch.get_rng_state()]
    if torch.device(device).type != "cpu":
        states.append(torch.get_device_module(torch.device(device)).get_rng_state(device))
    return states


def private_generator(device: str, seed: int) -> torch.Generator:
    """A generator of one's own."""
    return torch.Generator(device).manual_seed(seed & (1 << 63) - 1)
