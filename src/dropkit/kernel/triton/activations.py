"""Activations that are fused with dropout, and their slopes. Imported only where Triton is."""
# mypy: ignore-errors
# Triton reads these functions as its own language, whose types are not Python's.

import triton
import triton.language as tl


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)); exp's overflow gives the limit 0."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def tanh_gate(x):
    """(1 + tanh(u)) / 2 = sigmoid(2 u), with u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    return sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))


@triton.jit
def normal_gate(x):
    """The normal distribution function."""
    return 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def activated(x, KIND: tl.constexpr):
    """f(x), for the KIND none, relu, gelu, gelu_tanh or silu; nan stays nan."""
    if KIND == "relu":
        return tl.where(x <= 0.0, 0.0, x)
    elif KIND == "gelu":
        return x * normal_gate(x)
    elif KIND == "gelu_tanh":
        return x * tanh_gate(x)
    elif KIND == "silu":
        return x * sigmoid(x)
    else:
        return x


@triton.jit
def slope(x, KIND: tl.constexpr):
    """f'(x)."""
    if KIND == "relu":
        return tl.where(x <= 0.0, 0.0, 1.0)
    elif KIND == "gelu":
        return normal_gate(x) + x * 0.3989422804014327 * tl.exp(-0.5 * x * x)
    elif KIND == "gelu_tanh":
        gate = tanh_gate(x)  # and that of -x is 1 - gate, without the cancellation
        return gate + x * gate * tanh_gate(-x) * 1.5957691216057308 * (1.0 + 0.134145 * x * x)
    elif KIND == "silu":
        gate = sigmoid(x)
        return gate * (1.0 + x * sigmoid(-x))
    else:
        return 1.0
