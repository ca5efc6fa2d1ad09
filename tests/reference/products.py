"""Integer products and the quantized linear layer, in the order of operations of docs/numerics.md."""

from dataclasses import dataclass

import numpy as np

from .tensor import bits_of, code_range, min_max, qparams, quantize

F32 = np.float32


@dataclass(frozen=True)
class Weight:
    """A weight: codes (n, k), scale and zero_point (n, groups); group g covers k from g · group on."""

    codes: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    group: int
    fmt: str

    def groups(self):
        """For each group, ascending: its slice of k, and the column of parameters."""
        for g, start in enumerate(range(0, self.codes.shape[1], self.group)):
            yield slice(start, min(start + self.group, self.codes.shape[1])), g

    @property
    def shift(self):
        """What is added to codes and zero points before float32 is multiplied with them."""
        if bits_of(self.fmt) <= 4:
            return -code_range(self.fmt)[0]
        return -128 if self.fmt == "uint8" else 0


def matmul_integer(a, b, a_zero_point=0, b_zero_point=0):
    """(a − a_zero_point) · (b − b_zero_point) in int64."""
    return (a.astype(np.int64) - a_zero_point) @ (b.astype(np.int64) - b_zero_point)


def fma(a, b, c):
    """float32 a·b + c rounded once, for float32 a and c and |b| a whole number below 2²⁹.

    a·b is then exact in float64. The sum is taken in float64 and rounded to odd: where two-sum finds a
    remainder and the last bit is even, the result moves one step towards the remainder. 53 bits are more than
    2·24 + 2, so rounding that to float32 equals rounding the exact sum.
    """
    a, b, c = np.broadcast_arrays(a.astype(np.float64), np.asarray(b, np.float64), c.astype(np.float64))
    with np.errstate(over="ignore", invalid="ignore"):
        p = a * b
        s = p + c
        back = s - p
        rest = (p - (s - back)) + (c - back)
        even = s.view(np.int64) & 1 == 0
        odd = np.where((rest != 0) & np.isfinite(s) & even, np.nextafter(s, np.copysign(np.inf, rest)), s)
        return odd.astype(F32)


def per_token(x, fmt, symmetric, narrow_range):
    """Dynamic input, one cell a row: codes, and scale and zero_point of shape (m, 1)."""
    return _dynamic(x, (1, x.shape[1]), fmt, symmetric, narrow_range)


def per_tensor(x, fmt, symmetric, narrow_range):
    """Dynamic input, one cell in all: codes, and scale and zero_point of shape (m, 1)."""
    return _dynamic(x, x.shape, fmt, symmetric, narrow_range)


def _dynamic(x, block, fmt, symmetric, narrow_range):
    scale, zp = qparams(*min_max(x, block), fmt, symmetric, narrow_range)
    codes = quantize(x, block, scale, zp, fmt, narrow_range)
    m = x.shape[0]
    return codes, np.broadcast_to(scale[:, None], (m, 1)), np.broadcast_to(zp[:, None], (m, 1))


def static(x, fmt, scale, zero_point, narrow_range):
    """Static input: codes, and the given scale and zero_point as (m, 1)."""
    codes = quantize(x, x.shape, F32(scale), np.int32(zero_point), fmt, narrow_range)
    return codes, np.full((x.shape[0], 1), scale, F32), np.full((x.shape[0], 1), zero_point, np.int64)


def linear_integer(inputs, weight, bias=None, activation="none"):
    """Codes times codes; `inputs` is one of the results above.

    For each group, ascending: t is exact in integers; float32(t) · scale is added to the sum. Then · input
    scale, + bias.
    """
    codes, scale, zero_point = inputs
    y = np.zeros((codes.shape[0], weight.codes.shape[0]), F32)
    for part, g in weight.groups():
        t = matmul_integer(codes[:, part] - zero_point, (weight.codes[:, part] - weight.zero_point[:, [g]]).T)
        y = y + t.astype(F32) * weight.scale[:, g]
    return _finish(y * scale, bias, activation)


def lane_sum(x):
    """Sums along the last axis: element i goes to lane i mod 16, lanes are then added by halves."""
    lanes = np.zeros((*x.shape[:-1], 16), F32)
    for i in range(x.shape[-1]):
        lanes[..., i % 16] += x[..., i]
    for half in (8, 4, 2, 1):
        lanes[..., :half] += lanes[..., half : 2 * half]
    return lanes[..., :1]


def linear_float(x, weight, bias=None, activation="none"):
    """float32 input times codes, both codes and zero points shifted.

    For each group, ascending: p is a chain of fused multiply-adds over ascending k, s the lane sum of x;
    t = p − zero_point · s; t · scale is added to the sum. Then + bias.
    """
    codes, zero_point = weight.codes + weight.shift, (weight.zero_point + weight.shift).astype(F32)
    y = np.zeros((x.shape[0], codes.shape[0]), F32)
    for part, g in weight.groups():
        p = np.zeros_like(y)
        for i in range(part.start, part.stop):
            p = fma(x[:, [i]], codes[:, i], p)
        t = p - zero_point[:, g] * lane_sum(x[:, part])
        y = y + t * weight.scale[:, g]
    return _finish(y, bias, activation)


def _finish(y, bias, activation):
    if bias is not None:
        y = y + bias
    if activation == "relu":
        y = np.where(y <= 0, F32(0), y)
    return y.astype(F32)


def requantize(y, scale, zero_point, fmt, narrow_range=False):
    """A float32 result as codes: quantize with one cell."""
    return quantize(y, y.shape, F32(scale), np.int32(zero_point), fmt, narrow_range)
