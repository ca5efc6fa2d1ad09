"""Functions that move, pick and repeat elements, and those that tell about shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..errors import QrsValueError
from .base import Array, axes_of, operator
from .windows import Window


def _numbers(values: Array) -> list[int]:
    return [int(value) for value in values.ravel()]


@operator("Shape")
def _shape(x: Array, start: int = 0, end: int | None = None) -> Array:
    return np.array(x.shape[start:end], np.int64)


@operator("Size")
def _size(x: Array) -> Array:
    return np.array(x.size, np.int64)


@operator("Reshape")
def _reshape(x: Array, shape: Array, allowzero: int = 0) -> Array:
    lengths = _numbers(shape)
    if not allowzero:
        if any(n == 0 and i >= x.ndim for i, n in enumerate(lengths)):
            raise QrsValueError(f"shape is {lengths}, whose 0 stands for no axis of {x.shape}")
        lengths = [x.shape[i] if n == 0 else n for i, n in enumerate(lengths)]
    return x.reshape(lengths)


@operator("Flatten")
def _flatten(x: Array, axis: int = 1) -> Array:
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Squeeze")
def _squeeze(x: Array, axes: Array | None = None) -> Array:
    return np.squeeze(x, axis=None if axes is None else axes_of(axes, x.ndim))


@operator("Unsqueeze")
def _unsqueeze(x: Array, axes: Array) -> Array:
    return np.expand_dims(x, axes_of(axes, x.ndim + axes.size))


@operator("Transpose")
def _transpose(x: Array, perm: Sequence[int] | None = None) -> Array:
    return np.transpose(x, perm)


@operator("Concat")
def _concat(*values: Array, axis: int) -> Array:
    return np.concatenate(values, axis=axis)


@operator("Slice")
def _slice(
    x: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None
) -> Array:
    cuts = [slice(None)] * x.ndim
    named = range(len(starts)) if axes is None else _numbers(axes)
    strides = [1] * len(starts) if steps is None else _numbers(steps)
    for start, end, axis, step in zip(_numbers(starts), _numbers(ends), named, strides, strict=True):
        length = x.shape[axis]
        # Backwards, an end before the first element has no number of its own in Python.
        before_first = step < 0 and end < -length
        cuts[axis] = slice(start, None if before_first else end, step)
    return x[tuple(cuts)]


@operator("Gather")
def _gather(x: Array, indices: Array, axis: int = 0) -> Array:
    return np.take(x, indices, axis=axis)


@operator("GatherElements")
def _gather_elements(x: Array, indices: Array, axis: int = 0) -> Array:
    # Along the other axes the indices may be shorter than the data.
    axis = axis + x.ndim if axis < 0 else axis
    cut = tuple(slice(None) if i == axis else slice(n) for i, n in enumerate(indices.shape))
    return np.take_along_axis(x[cut], indices, axis)


@operator("GatherND")
def _gather_nd(x: Array, indices: Array, batch_dims: int = 0) -> Array:
    lead, depth = x.shape[:batch_dims], indices.shape[-1]
    at = tuple(np.moveaxis(indices, -1, 0))
    spread = indices.ndim - 1
    for i, length in enumerate(lead):
        numbers = np.arange(length).reshape([-1 if j == i else 1 for j in range(spread)])
        at = (*at[:i], numbers, *at[i:])
    return x[at] if depth or lead else np.broadcast_to(x, (*indices.shape[:-1], *x.shape))


@operator("Expand")
def _expand(x: Array, shape: Array) -> Array:
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(_numbers(shape))))


@operator("Tile")
def _tile(x: Array, repeats: Array) -> Array:
    return np.tile(x, _numbers(repeats))


@operator("Pad")
def _pad(
    x: Array,
    pads: Array,
    value: Array | None = None,
    axes: Array | None = None,
    mode: str = "constant",
) -> Array:
    named = list(range(x.ndim)) if axes is None else [a % x.ndim for a in _numbers(axes)]
    around, sides = [(0, 0)] * x.ndim, _numbers(pads)
    for i, axis in enumerate(named):
        around[axis] = (sides[i], sides[i + len(named)])
    # A negative pad takes elements away.
    y = x[tuple(slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(around, x.shape, strict=True))]
    around = [(max(a, 0), max(b, 0)) for a, b in around]
    if mode == "constant":
        return np.pad(y, around, constant_values=x.dtype.type(0) if value is None else value.reshape(()))
    return np.pad(y, around, mode=mode)  # type: ignore[call-overload]


@operator("Split")
def _split(
    x: Array, split: Array | None = None, axis: int = 0, num_outputs: int | None = None
) -> tuple[Array, ...]:
    if split is None:
        # The last part is the smaller one.
        part = -(-x.shape[axis] // (num_outputs or 1))
        ends = [part * i for i in range(1, num_outputs or 1)]
    else:
        ends = [int(end) for end in np.cumsum(split)[:-1]]
        if int(split.sum()) != x.shape[axis]:
            raise QrsValueError(f"split is {_numbers(split)}, expected a sum of {x.shape[axis]}")
    return tuple(np.split(x, ends, axis=axis))


@operator("Range")
def _range(start: Array, limit: Array, delta: Array) -> Array:
    first, end, step = (x.reshape(()).item() for x in (start, limit, delta))
    return np.arange(first, end, step, dtype=start.dtype)


@operator("ConstantOfShape")
def _constant_of_shape(shape: Array, value: float = 0.0, dtype: str = "float32") -> Array:
    return np.full(_numbers(shape), value, dtype)


@operator("EyeLike")
def _eye_like(x: Array, k: int = 0, dtype: str | None = None) -> Array:
    rows, columns = x.shape
    return np.eye(rows, columns, k, dtype=np.dtype(dtype) if dtype else x.dtype)


@operator("Trilu")
def _trilu(x: Array, k: Array | None = None, upper: int = 1) -> Array:
    shift = 0 if k is None else int(k.reshape(()))
    return np.triu(x, shift) if upper else np.tril(x, shift)


@operator("NonZero")
def _nonzero(x: Array) -> Array:
    return np.array(np.nonzero(x), np.int64).reshape(x.ndim, -1)


@operator("CumSum")
def _cumsum(x: Array, axis: Array, exclusive: int = 0, reverse: int = 0) -> Array:
    along = int(axis.reshape(()))
    y = np.flip(x, along) if reverse else x
    total = np.cumsum(y, axis=along, dtype=x.dtype)
    total = total - y if exclusive else total
    return np.flip(total, along) if reverse else total


@operator("OneHot")
def _one_hot(indices: Array, depth: Array, values: Array, axis: int = -1) -> Array:
    classes = int(depth.reshape(()))
    wanted = indices[..., None].astype(np.int64)
    hit = (np.where(wanted < 0, wanted + classes, wanted) == np.arange(classes)).astype(np.int64)
    return np.moveaxis(values[hit], -1, axis)


@operator("ScatterND")
def _scatter_nd(x: Array, indices: Array, updates: Array, reduction: str = "none") -> Array:
    y = x.copy()
    at = tuple(np.moveaxis(indices, -1, 0))
    return _scattered(y, at, updates, reduction)


@operator("ScatterElements")
def _scatter_elements(
    x: Array, indices: Array, updates: Array, axis: int = 0, reduction: str = "none"
) -> Array:
    y = x.copy()
    at: list[Array] = list(np.indices(indices.shape, sparse=True))
    at[axis] = indices
    return _scattered(y, tuple(at), updates, reduction)


def _scattered(y: Array, at: tuple[Array, ...], updates: Array, reduction: str) -> Array:
    join = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}
    if reduction == "none":
        y[at] = updates
    else:
        join[reduction].at(y, at, updates)
    return y


@operator("DepthToSpace")
def _depth_to_space(x: Array, blocksize: int, mode: str = "DCR") -> Array:
    n, c, h, w = x.shape
    b, depth = blocksize, c // blocksize**2
    split, order = (b, b, depth), (0, 3, 4, 1, 5, 2)
    if mode == "CRD":
        split, order = (depth, b, b), (0, 1, 4, 2, 5, 3)
    return x.reshape(n, *split, h, w).transpose(order).reshape(n, depth, h * b, w * b)


@operator("SpaceToDepth")
def _space_to_depth(x: Array, blocksize: int) -> Array:
    n, c, h, w = x.shape
    b = blocksize
    parts = x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4)
    return parts.reshape(n, c * b * b, h // b, w // b)


@operator("PadSame")
def _pad_same(x: Array, kernel_shape: Sequence[int], **how: object) -> Array:
    """Pad an image as ``auto_pad`` of a convolution asks for; not an operator of ONNX."""
    return Window(kernel_shape, **how).cover(x, 0)  # type: ignore[arg-type]
