"""The compiled kernels: addresses and numbers in, nothing checked.

Positions only. Types are numbered as in `dropkit.kernel.native.DTYPES`; strides count elements, and
those of a mask, indices; keys, bases and thresholds are unsigned, of 64 bits.
"""

from collections.abc import Sequence

def select(name: str, /) -> None: ...
def selected() -> str: ...
def available() -> list[str]: ...
def flat(
    x: int,
    y: int,
    dtype: int,
    n: int,
    base: int,
    key: int,
    threshold: int,
    scale: float,
    shift: float,
    fill: float,
    threads: int,
    /,
) -> None: ...
def strided(
    x: int,
    y: int,
    dtype: int,
    sizes: Sequence[int],
    x_strides: Sequence[int],
    y_strides: Sequence[int],
    mask_strides: Sequence[int],
    base: int,
    key: int,
    threshold: int,
    scale: float,
    shift: float,
    fill: float,
    threads: int,
    /,
) -> None: ...
def rated(
    x: int,
    y: int,
    dtype: int,
    sizes: Sequence[int],
    x_strides: Sequence[int],
    y_strides: Sequence[int],
    mask_strides: Sequence[int],
    base: int,
    key: int,
    thresholds: int,
    scales: int,
    rate_strides: Sequence[int],
    threads: int,
    /,
) -> None: ...
def keep(
    y: int,
    sizes: Sequence[int],
    y_strides: Sequence[int],
    mask_strides: Sequence[int],
    base: int,
    key: int,
    threshold: int,
    threads: int,
    /,
) -> None: ...
def rated_keep(
    y: int,
    sizes: Sequence[int],
    y_strides: Sequence[int],
    mask_strides: Sequence[int],
    base: int,
    key: int,
    thresholds: int,
    rate_strides: Sequence[int],
    threads: int,
    /,
) -> None: ...
def relu_flat(
    x: int,
    y: int,
    dtype: int,
    n: int,
    base: int,
    key: int,
    threshold: int,
    scale: float,
    threads: int,
    /,
) -> None: ...
def relu_backward_flat(
    grad: int, y: int, out: int, dtype: int, n: int, scale: float, threads: int, /
) -> None: ...
def add_flat(
    x: int,
    residual: int,
    y: int,
    dtype: int,
    n: int,
    base: int,
    key: int,
    threshold: int,
    scale: float,
    threads: int,
    /,
) -> None: ...
def bias_add(
    x: int,
    bias: int,
    residual: int,
    y: int,
    dtype: int,
    rows: int,
    columns: int,
    base: int,
    key: int,
    threshold: int,
    scale: float,
    threads: int,
    /,
) -> None: ...
def words(y: int, n: int, base: int, key: int, domain: int, threads: int, /) -> None: ...
def uniform(y: int, n: int, base: int, key: int, threads: int, /) -> None: ...
