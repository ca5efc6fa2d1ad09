"""NumPy: products of float32 by BLAS, other operations pass by pass."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from common import F32, Call, in_turn
from elements import Elements
from layers import Heads, Norm, numpy_softmax
from numpy.typing import NDArray
from products import IntegerProduct, Layer

try:
    from threadpoolctl import threadpool_limits
except ImportError:
    threadpool_limits = None

VERSION = np.__version__


def blas(threads: int) -> bool:
    """Give BLAS so many threads; without threadpoolctl it has all of them and no other number."""
    if threadpool_limits is None:
        return threads > 1
    threadpool_limits(threads, "blas")
    return True


def matmul_integer(data: IntegerProduct, threads: int) -> Iterator[Call]:
    """Multiply in float32: of NumPy's integer products none is fast."""
    a, b = data.a.astype(np.float32), data.b.astype(np.float32)
    out = np.empty((len(a), b.shape[1]), np.float32)
    if blas(threads):
        yield lambda: np.matmul(a, b, out=out)


def linear(data: Layer, threads: int) -> Iterator[Call]:
    """Multiply by the decoded weight."""
    dense = data.weight()
    # As many bytes to go through as with the codes, not as many copies.
    copies = max(1, data.copies * data.codes.size * data.bits // 8 // dense.nbytes)
    out = np.empty((len(data.x), len(dense)), np.float32)
    if blas(threads):
        yield in_turn([partial(np.matmul, data.x, dense.copy().T, out=out) for _ in range(copies)])


# Into buffers made beforehand, as qrs where it takes `out`


def rounding(data: Elements) -> tuple[Call, F32]:
    """Round to steps of the scale; with the array of them."""
    shape = (len(data.x), -1, data.group) if data.group else data.x.shape
    x, scale = data.x.reshape(shape), data.scale[..., None] if data.group else data.scale
    steps = np.empty_like(x)

    def run() -> None:
        np.divide(x, scale, out=steps)
        np.rint(steps, out=steps)
        np.clip(steps, *data.ends, out=steps)

    return run, steps.reshape(data.x.shape)


def quantize(data: Elements, threads: int) -> Iterator[Call]:
    (round_, steps), codes = rounding(data), np.empty_like(data.codes)

    def run() -> NDArray[Any]:
        round_()
        np.copyto(codes, steps, casting="unsafe")
        return codes

    def pack() -> NDArray[Any]:
        nibbles = run().view(np.uint8)
        return (nibbles[:, ::2] & 15 | nibbles[:, 1::2] << 4).reshape(-1)

    yield pack if data.bits == 4 else run


def dequantize(data: Elements, threads: int) -> Iterator[Call]:
    out = np.empty_like(data.x)
    yield lambda: np.multiply(data.codes, data.scale, out=out)


def fake_quantize(data: Elements, threads: int) -> Iterator[Call]:
    round_, steps = rounding(data)

    def run() -> F32:
        round_()
        return np.multiply(steps, data.scale, out=steps)

    yield run


def min_max(x: F32, threads: int) -> Iterator[Call]:
    axis = None if x.ndim == 1 else 1
    yield lambda: (x.min(axis=axis), x.max(axis=axis))


def gelu(x: F32, threads: int) -> Iterator[Call]:
    """Take the tanh form: there is no error function."""
    inner = np.empty_like(x)

    def run() -> F32:
        np.multiply(x, x, out=inner)
        np.multiply(inner, np.float32(0.044715), out=inner)
        np.add(inner, np.float32(1), out=inner)
        np.multiply(inner, x, out=inner)
        np.multiply(inner, np.float32(math.sqrt(2 / math.pi)), out=inner)
        np.tanh(inner, out=inner)
        np.add(inner, np.float32(1), out=inner)
        np.multiply(inner, x, out=inner)
        return np.multiply(inner, np.float32(0.5), out=inner)

    yield run


def softmax(x: F32, threads: int) -> Iterator[Call]:
    out = np.empty_like(x)
    yield lambda: numpy_softmax(x, out)


def layer_norm(data: Norm, threads: int) -> Iterator[Call]:
    total = np.empty_like(data.x)

    def run() -> F32:
        np.add(data.x, data.residual, out=total)
        np.subtract(total, total.mean(axis=-1, keepdims=True), out=total)
        deviation = np.sqrt(np.mean(np.square(total), axis=-1, keepdims=True))
        np.multiply(np.divide(total, deviation, out=total), data.weight, out=total)
        return np.add(total, data.bias, out=total)

    yield run


def attention(data: Heads, threads: int) -> Iterator[Call]:
    q, k, v = (data.split(a) for a in (data.q, data.k, data.v))
    scores, mixed = np.empty((*q.shape[:3], k.shape[2]), np.float32), np.empty_like(q)
    scale = np.float32(q.shape[3] ** -0.5)

    def run() -> F32:
        np.matmul(q, k.swapaxes(2, 3), out=scores)
        np.multiply(scores, scale, out=scores)
        return np.matmul(numpy_softmax(scores, scores), v, out=mixed)

    if blas(threads):
        yield run


def encoder(model: Call, threads: int) -> Iterator[Call]:
    """Run the model in float32: its linear layers multiply with NumPy, qrs does the rest."""
    if blas(threads):
        yield model
