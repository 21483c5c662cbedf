"""The kernels for GPUs, in Triton. `available` says where they run; nothing imports Triton before.

The calls are those of the native kernels, with tensors in the place of pointers. A key is an
integer, or an int64 tensor on the device, which is read as the kernel runs: so a captured CUDA
graph draws anew when it is replayed. What has no kernel raises NotImplementedError.
"""

from dropkit.kernel.triton.flat_calls import (
    activation,
    activation_backward,
    add,
    available,
    bias_add,
    bias_add_backward,
    flat,
    relu,
    relu_backward,
    uniform,
    words,
)
from dropkit.kernel.triton.strided_calls import keep, rated, rated_keep, strided

__all__ = [
    "activation",
    "activation_backward",
    "add",
    "available",
    "bias_add",
    "bias_add_backward",
    "flat",
    "keep",
    "rated",
    "rated_keep",
    "relu",
    "relu_backward",
    "strided",
    "uniform",
    "words",
]
