"""Float64 yardsticks for the float32 operations beside the products: these have tolerances, not bits."""

import math

import numpy as np

F64 = np.float64
_erf = np.vectorize(math.erf, otypes=[F64])

ACTIVATIONS = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * 0.5 * (1 + _erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
}


def activate(x, name):
    """The activation of this name."""
    with np.errstate(over="ignore"):
        return ACTIVATIONS[name](x.astype(F64))


def layer_norm(x, residual, weight, bias, eps):
    """(x + residual − mean) / √(variance + eps) · weight + bias on the last axis; the variance is biased."""
    x = x.astype(F64) + (0 if residual is None else residual)
    centred = x - x.mean(axis=-1, keepdims=True)
    y = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps) * weight
    return y if bias is None else y + bias


def softmax(x):
    """exp(x − max) / Σ along the last axis."""
    e = np.exp(x.astype(F64) - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def attention(q, k, v, mask, heads, scale):
    """softmax(q·kᵀ·scale + mask)·v for each head.

    q (batch, m, width); k, v (batch, n, width); mask (batch, n).
    """

    def split(x):
        return x.astype(F64).reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)

    scores = split(q) @ split(k).swapaxes(-1, -2) * scale
    if mask is not None:
        scores = scores + mask[:, None, None, :]
    return (softmax(scores) @ split(v)).swapaxes(1, 2).reshape(q.shape)
