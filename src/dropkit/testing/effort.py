"""How much a run draws, and what it sees for that.

Every effort makes every check, by the same exact bounds and with the same false alarms; only the
draws are fewer, or more. The smallest deviation of a rate that `rate` finds in 99 of 100 runs, in
independent draws, which a batch of any length gives by the million:

| effort   |      draws | at 0.1 | at 0.3 | at 0.5 |
|----------|-----------:|-------:|-------:|-------:|
| small    |  1 million | 0.0025 | 0.0038 | 0.0042 |
| usual    |  4 million | 0.0013 | 0.0019 | 0.0021 |
| thorough | 67 million | 0.0004 | 0.0005 | 0.0006 |

In each circumstance `rate_by_input` has 131,072, 262,144 and 4,194,304 draws, and finds 0.012,
0.008 and 0.002 at 0.3. Where no call's draws can be made more, a small run has 128 calls in place
of 2,048: with 96 draws in each, `rate` finds 0.036 in place of 0.009 at 0.3; with one draw, as in a
batch of one under a channel mask, `rate_by_input` finds 0.38 in place of 0.092. So `small` is for
what is slow by the call: an interpreter, a device far away. It finds what is wrong outright.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from dropkit.errors import SettingError

Effort = Literal["small", "usual", "thorough"]


class Sizes(NamedTuple):
    """The sizes of a run's samples."""

    elements: int
    """Of one sample, at most: 1 << 22 are 16 MB, and 40 ms of PyTorch's own dropout."""
    few: int
    """Of a sample in each circumstance; where they need many calls, an eighth."""
    calls: int
    """Of one sample, where every call gives few draws."""
    bits: int
    """Of a series of calls, at least."""
    times: int = 1
    """How often each sample is drawn."""


USUAL = Sizes(elements=1 << 22, few=1 << 18, calls=2048, bits=4096)
SIZES: dict[Effort, Sizes] = {
    "small": Sizes(elements=1 << 20, few=1 << 17, calls=128, bits=1024),
    "usual": USUAL,
    "thorough": USUAL._replace(times=16),
}


def sizes(effort: Effort) -> Sizes:
    """What an effort draws.

    Raises:
        SettingError: There is no such effort.
    """
    if not isinstance(effort, str) or effort not in SIZES:
        raise SettingError(f"effort: expected one of {get_args(Effort)}; got {effort!r}")
    return SIZES[effort]
