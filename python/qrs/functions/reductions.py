"""Functions that bring many elements to one, and the normalisations made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .base import TABLE, Array, axes_of, operator


def _reduction(reduce: Callable[[Array, tuple[int, ...]], Array]) -> Callable[..., Array]:
    """Give a reduction the ways of ONNX to name axes."""

    def compute(
        x: Array, axes: Array | None = None, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Array:
        if axes is not None and not axes.size:
            axes = None
            if noop_with_empty_axes:
                return reduce(x, ())
        along = axes_of(axes, x.ndim) if axes is not None or not noop_with_empty_axes else ()
        # The mean of integers is an integer.
        y = np.asarray(reduce(x, along)).astype(x.dtype, copy=False)
        return np.expand_dims(y, along) if keepdims else y

    return compute


def _end(dtype: np.dtype[Any], sign: int) -> Any:
    """Give what the largest (sign -1) or smallest (sign 1) of no elements is."""
    if dtype.kind == "b":
        return sign > 0
    if dtype.kind in "iu":
        return np.iinfo(dtype).max if sign > 0 else np.iinfo(dtype).min
    return sign * np.inf


def _log_sum_exp(x: Array, axes: tuple[int, ...]) -> Array:
    peak = np.max(x, axis=axes, keepdims=True, initial=-np.inf)
    safe = np.where(np.isfinite(peak), peak, x.dtype.type(0))
    total = np.sum(np.exp(x - safe), axis=axes, keepdims=True)
    return np.squeeze(np.log(total) + safe, axis=axes)


TABLE.update(
    {
        "ReduceL1": _reduction(lambda x, axes: np.sum(np.abs(x), axis=axes)),
        "ReduceL2": _reduction(lambda x, axes: np.sqrt(np.sum(np.square(x), axis=axes))),
        "ReduceLogSum": _reduction(lambda x, axes: np.log(np.sum(x, axis=axes))),
        "ReduceLogSumExp": _reduction(_log_sum_exp),
        "ReduceMax": _reduction(lambda x, axes: np.max(x, axis=axes, initial=_end(x.dtype, -1))),
        "ReduceMean": _reduction(lambda x, axes: np.mean(x, axis=axes)),
        "ReduceMin": _reduction(lambda x, axes: np.min(x, axis=axes, initial=_end(x.dtype, 1))),
        "ReduceProd": _reduction(lambda x, axes: np.prod(x, axis=axes)),
        "ReduceSum": _reduction(lambda x, axes: np.sum(x, axis=axes)),
        "ReduceSumSquare": _reduction(lambda x, axes: np.sum(np.square(x), axis=axes)),
    }
)


@operator("ArgMax")
def _argmax(x: Array, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Array:
    if select_last_index:
        last = x.shape[axis] - 1
        return np.asarray(last - np.argmax(np.flip(x, axis), axis=axis, keepdims=bool(keepdims)))
    return np.asarray(np.argmax(x, axis=axis, keepdims=bool(keepdims)))


@operator("ArgMin")
def _argmin(x: Array, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Array:
    if select_last_index:
        last = x.shape[axis] - 1
        return np.asarray(last - np.argmin(np.flip(x, axis), axis=axis, keepdims=bool(keepdims)))
    return np.asarray(np.argmin(x, axis=axis, keepdims=bool(keepdims)))


@operator("Softmax")
def _softmax(x: Array, axis: int = -1) -> Array:
    y = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return y / np.sum(y, axis=axis, keepdims=True)


@operator("LogSoftmax")
def _log_softmax(x: Array, axis: int = -1) -> Array:
    y = x - np.max(x, axis=axis, keepdims=True)
    return y - np.log(np.sum(np.exp(y), axis=axis, keepdims=True))


def _standard(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    """Bring the elements along the axes to mean 0 and variance 1."""
    centred = x - np.mean(x, axis=axes, keepdims=True)
    spread = np.sqrt(np.mean(np.square(centred), axis=axes, keepdims=True) + x.dtype.type(eps))
    return centred / spread


@operator("LayerNormalization")
def _layer_norm(
    x: Array,
    scale: Array,
    bias: Array | None = None,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Array:
    first = axis + x.ndim if axis < 0 else axis
    y = _standard(x, tuple(range(first, x.ndim)), epsilon) * scale
    return y if bias is None else y + bias


@operator("RMSNormalization")
def _rms_norm(x: Array, scale: Array, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Array:
    axes = tuple(range(axis + x.ndim if axis < 0 else axis, x.ndim))
    size = np.sqrt(np.mean(np.square(x), axis=axes, keepdims=True) + x.dtype.type(epsilon))
    return x / size * scale


def _channels(values: Array, ndim: int) -> Array:
    return values.reshape(-1, *[1] * (ndim - 2))


@operator("BatchNormalization")
def _batch_norm(x: Array, *parts: Array, epsilon: float = 1e-5, momentum: float = 0.9) -> Array:
    scale, bias, mean, variance = (_channels(part, x.ndim) for part in parts)
    factor = scale / np.sqrt(variance + variance.dtype.type(epsilon))
    return x * factor + (bias - mean * factor)


@operator("InstanceNormalization")
def _instance_norm(x: Array, scale: Array, bias: Array, epsilon: float = 1e-5) -> Array:
    y = _standard(x, tuple(range(2, x.ndim)), epsilon)
    return y * _channels(scale, x.ndim) + _channels(bias, x.ndim)


@operator("GroupNormalization")
def _group_norm(
    x: Array, scale: Array, bias: Array, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Array:
    groups = x.reshape(x.shape[0], num_groups, -1)
    y = _standard(groups, (2,), epsilon).reshape(x.shape)
    return y * _channels(scale, x.ndim) + _channels(bias, x.ndim)
