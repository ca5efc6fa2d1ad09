"""Functions between values and codes, and products of codes, as ONNX defines them.

Codes of less than 8 bits, and those of small floats, are arrays of the dtypes of `ml_dtypes`, which is loaded
where one is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _core
from ..errors import QrsTypeError, QrsValueError
from .base import Array, dtype_of, operator, saturated_cast
from .windows import Window, conv_integer

__all__: list[str] = []

# Products of 8 bits up to this length fit into int32, whatever they and their zero points are.
_EXACT = (1 << 31) // (255 * 255) - 1
_RANGES = {
    **{f"int{bits}": (-(1 << bits - 1), (1 << bits - 1) - 1) for bits in (2, 4, 8, 16, 32)},
    **{f"uint{bits}": (0, (1 << bits) - 1) for bits in (2, 4, 8, 16, 32)},
}


def _spread(values: Array, x: Array, axis: int, block_size: int) -> Array:
    """Repeat a scale or zero point until it stands beside each element of ``x``, or broadcasts to it."""
    if values.size == 1 and not block_size:
        return values.reshape(())
    along = axis + x.ndim if axis < 0 else axis
    if not 0 <= along < x.ndim:
        raise QrsValueError(f"axis is {axis}, expected -{x.ndim} to {x.ndim - 1}")
    if block_size:
        return np.repeat(values, block_size, axis=along)[
            tuple(slice(x.shape[i] if i == along else None) for i in range(x.ndim))
        ]
    if values.shape != (x.shape[along],):
        raise QrsValueError(f"scale or zero point has shape {values.shape}, expected {(x.shape[along],)}")
    return values.reshape([-1 if i == along else 1 for i in range(x.ndim)])


def _saturated(y: Array, zero_point: Array | float, dtype: np.dtype[Any]) -> Array:
    """Round to even, add the zero point and keep within the codes of a dtype."""
    least, most = _RANGES[dtype.name]
    # In float64 the sum of any float and any zero point that matters here is exact.
    codes = np.rint(y).astype(np.float64) + zero_point
    return np.clip(codes, least, most).astype(np.int64).astype(dtype)


@operator("QuantizeLinear")
def _quantize_linear(
    x: Array, scale: Array, zero_point: Array | None = None, *, axis: int = 1, **how: Any
) -> Array:
    block_size, saturate = how.pop("block_size", 0), how.pop("saturate", 1)
    name, precision = how.pop("output_dtype", None), how.pop("precision", None)
    if how:
        raise QrsTypeError(f"QuantizeLinear has no attributes {sorted(how)}")
    dtype = zero_point.dtype if zero_point is not None else dtype_of(name or "uint8")
    step = _spread(scale, x, axis, block_size)
    if precision:
        y = x.astype(dtype_of(precision)) / step.astype(dtype_of(precision))
    else:
        y = x.astype(np.float32) / step.astype(np.float32)
    if dtype.name in _RANGES:
        offset = 0.0 if zero_point is None else _spread(zero_point, x, axis, block_size).astype(np.float64)
        return _saturated(y, offset, dtype)
    if dtype.name.startswith(("float4", "float6")) and zero_point is not None:
        y = y + _spread(zero_point, x, axis, block_size).astype(np.float32)
    return saturated_cast(y, dtype) if saturate else y.astype(dtype)


@operator("DequantizeLinear")
def _dequantize_linear(
    codes: Array,
    scale: Array,
    zero_point: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: str | None = None,
) -> Array:
    step = _spread(scale, codes, axis, block_size).astype(np.float32)
    small = codes.dtype.name in _RANGES
    # Differences of codes are taken as integers: those of 32 bits are not exact in float32.
    values = codes.astype(np.int64) if small else codes.astype(np.float32)
    if zero_point is not None and small:
        values = values - _spread(zero_point, codes, axis, block_size).astype(np.int64)
    dtype = dtype_of(output_dtype) if output_dtype else scale.dtype
    return (values.astype(np.float32) * step).astype(dtype)


@operator("DynamicQuantizeLinear")
def _dynamic_quantize_linear(x: Array) -> tuple[Array, Array, Array]:
    lo, hi = np.minimum(x.min(), np.float32(0)), np.maximum(x.max(), np.float32(0))
    # Of zeros alone every scale is right; 1 / 255 is that of the reference.
    scale = np.float32((np.float32(1) if lo == hi else hi - lo) / np.float32(255))
    zero_point = np.rint(np.clip(-lo / scale, 0, 255))
    codes = _saturated(x / scale, float(zero_point), np.dtype(np.uint8))
    return codes, np.asarray(scale, np.float32), np.asarray(zero_point, np.uint8)


def _shifted(codes: Array, zero_point: Array | None, axis: int = -1) -> Array:
    """Take a zero point away: one for all, or one for each row or column."""
    values = codes.astype(np.int32)
    if zero_point is None:
        return values
    if zero_point.ndim == 1 and zero_point.size > 1:
        zero_point = zero_point.reshape([-1 if i == axis % codes.ndim else 1 for i in range(codes.ndim)])
    elif zero_point.size == 1:
        zero_point = zero_point.reshape(())
    return values - zero_point.astype(np.int32)


def _matmul_exact(a: Array, b: Array) -> Array:
    """Multiply integers by way of float64, which holds every sum below 2**53; the result wraps at 32 bits."""
    return np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(np.int64).astype(np.int32)


@operator("MatMulInteger")
def _matmul_integer(
    a: Array, b: Array, a_zero_point: Array | None = None, b_zero_point: Array | None = None
) -> Array:
    zeros = [0 if z is None else z for z in (a_zero_point, b_zero_point)]
    if b.ndim == 2 and a.ndim > 1 and b.size and all(np.size(z) == 1 for z in zeros) and len(b) <= _EXACT:
        out = np.empty((*a.shape[:-1], b.shape[1]), np.int32)
        left = np.ascontiguousarray(a).reshape(-1, b.shape[0])
        first, second = (int(np.reshape(z, ())) for z in zeros)
        if out.size:
            flat = out.reshape(-1, b.shape[1])
            _core.matmul_integer(left, np.ascontiguousarray(b), first, second, flat)
        return out
    rows = -2 if a.ndim > 1 else -1
    return _matmul_exact(_shifted(a, a_zero_point, rows), _shifted(b, b_zero_point))


@operator("ConvInteger")
def _conv_integer(
    x: Array,
    w: Array,
    x_zero_point: Array | None = None,
    w_zero_point: Array | None = None,
    **how: Any,
) -> Array:
    window, groups = _conv_window(w.shape, how)
    return conv_integer(_shifted(x, x_zero_point), _shifted(w, w_zero_point, 0), window, groups)


@operator("QLinearMatMul")
def _qlinear_matmul(*operands: Array) -> Array:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = operands
    rows = -2 if a.ndim > 1 else -1
    total = _matmul_exact(_shifted(a, a_zero, rows), _shifted(b, b_zero))
    left = a_scale.reshape(-1, 1) if a_scale.ndim == 1 and a_scale.size > 1 else a_scale
    return _requantized(total, left * b_scale / y_scale, y_zero)


@operator("QLinearConv")
def _qlinear_conv(*operands: Array, **how: Any) -> Array:
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, *bias = operands
    window, groups = _conv_window(w.shape, how)
    total = conv_integer(_shifted(x, x_zero), _shifted(w, w_zero, 0), window, groups)
    each = (-1, *[1] * (w.ndim - 2))
    if bias and bias[0] is not None:
        total = total + bias[0].reshape(each)
    scale = w_scale.reshape(each) if w_scale.size > 1 else w_scale.reshape(())
    return _requantized(total, x_scale * scale / y_scale, y_zero)


def _requantized(total: Array, factor: Array, zero_point: Array) -> Array:
    """Bring int32 sums to codes: the factor is rounded as its scales are, the product is taken in float64."""
    y = total.astype(np.float64) * factor.astype(np.float64)
    return _saturated(y, zero_point.astype(np.float64), zero_point.dtype)


def _conv_window(shape: Sequence[int], how: dict[str, Any]) -> tuple[Window, int]:
    groups = how.pop("group", 1)
    kernel = how.pop("kernel_shape", None) or shape[2:]
    return Window(kernel, **how), groups
