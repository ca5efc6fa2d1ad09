"""One tensor: cells, ranges, parameters, codes and bytes."""

import numpy as np

from .rounding import round_to


def bits_of(fmt):
    """Bits of a code of `int1` … `int8`, `uint1` … `uint8`."""
    return int(fmt.removeprefix("u").removeprefix("int"))


def code_range(fmt, narrow_range=False):
    """Lowest and highest code of `int1` … `int8`, `uint1` … `uint8`."""
    bits = bits_of(fmt)
    lo, hi = (0, 2**bits - 1) if fmt.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return lo + narrow_range, hi


def cells(shape, block):
    """For each element the number of its cell; cells are numbered in C order of the array of cells."""
    number = np.zeros(shape, np.int64)
    for axis, (size, length) in enumerate(zip(shape, block, strict=True)):
        along = np.arange(size) // max(length, 1)
        count = -(-size // max(length, 1))
        number = number * count + along.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return number


def cell_count(shape, block):
    """How many cells the grid has."""
    counts = [-(-size // max(length, 1)) for size, length in zip(shape, block, strict=True)]
    return int(np.prod(counts, dtype=int))


def min_max(x, block):
    """Smallest and largest element of each cell."""
    number, count = cells(x.shape, block), cell_count(x.shape, block)
    lo, hi = np.full(count, np.inf, np.float32), np.full(count, -np.inf, np.float32)
    np.minimum.at(lo, number.ravel(), x.ravel())
    np.maximum.at(hi, number.ravel(), x.ravel())
    return lo, hi


def to_scale_dtype(scale, scale_dtype):
    """Rounds float64 to float32, then to `scale_dtype`, half to even; kept normal and finite, as float32."""
    with np.errstate(over="ignore"):
        scale = scale.astype(np.float32)
        if scale_dtype == "bfloat16":
            bits = scale.view(np.uint32).astype(np.uint64)
            rounded = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
            scale = rounded.astype(np.uint32).view(np.float32)
            smallest, largest = np.float32(2.0**-126), np.float32((2 - 2.0**-7) * 2.0**127)
        else:
            info = np.finfo(scale_dtype)
            scale = scale.astype(scale_dtype).astype(np.float32)
            smallest, largest = np.float32(info.smallest_normal), np.float32(info.max)
    return np.clip(scale, smallest, largest)


def finite_levels(scale, zero_point, qmin, qmax, scale_dtype):
    """The scale; where a level would not be finite, the largest of its type with which all are."""
    steps = np.maximum(qmax - zero_point, zero_point - qmin)
    limit = np.float64(np.finfo(np.float32).max) / steps
    largest = to_scale_dtype(limit, scale_dtype)
    unit = np.uint32(1 << 16 if scale_dtype == "bfloat16" else 1)
    below = (largest.view(np.uint32) - unit).view(np.float32)
    largest = np.where(largest.astype(np.float64) > limit, below, largest)
    with np.errstate(over="ignore"):
        return np.where(np.isinf(scale * steps.astype(np.float32)), largest, scale)


def qparams(lo, hi, fmt, symmetric, narrow_range=False, scale_dtype="float32"):
    """scale (float32) and zero_point (int32) that hold the range [lo, hi], extended to hold 0."""
    qmin, qmax = code_range(fmt, narrow_range)
    lo = np.minimum(np.asarray(lo, np.float64), 0)
    hi = np.maximum(np.asarray(hi, np.float64), 0)
    empty = (lo == 0) & (hi == 0)
    if symmetric:
        middle = 2 ** (bits_of(fmt) - 1) if fmt.startswith("u") else 0
        ends = [end / step for end, step in ((hi, qmax - middle), (lo, qmin - middle)) if step]
        scale = to_scale_dtype(np.where(empty, 1.0, np.maximum.reduce(ends)), scale_dtype)
        zero_point = np.full(lo.shape, middle, np.int32)
        return finite_levels(scale, zero_point, qmin, qmax, scale_dtype), zero_point
    scale = to_scale_dtype(np.where(empty, 1.0, (hi - lo) / (qmax - qmin)), scale_dtype)
    zero_point = np.clip(np.rint(qmin - lo / scale.astype(np.float64)), qmin, qmax)
    zero_point = np.where(empty, np.clip(0, qmin, qmax), zero_point).astype(np.int32)
    return finite_levels(scale, zero_point, qmin, qmax, scale_dtype), zero_point


def quantize(x, block, scale, zero_point, fmt, narrow_range=False, rounding="half_even", seed=0):
    """Codes (int64, the shape of x). NaN becomes zero_point, infinities saturate."""
    qmin, qmax = code_range(fmt, narrow_range)
    number = cells(x.shape, block)
    scale, zp = np.ravel(scale)[number], np.ravel(zero_point).astype(np.int64)[number]
    with np.errstate(over="ignore", invalid="ignore"):
        v = np.clip(x / scale, (qmin - zp).astype(np.float32), (qmax - zp).astype(np.float32))
        v = np.where(np.isnan(v), np.float32(0), v)
    return round_to(v, rounding, seed).astype(np.int64) + zp


def dequantize(codes, block, scale, zero_point):
    """float32: scale · (code − zero_point), the difference taken in integers."""
    number = cells(codes.shape, block)
    offset = (codes - np.ravel(zero_point).astype(np.int64)[number]).astype(np.float32)
    with np.errstate(over="ignore"):
        return np.ravel(scale)[number] * offset


def fake_quantize(x, block, scale, zero_point, fmt, **how):
    """dequantize ∘ quantize, except that NaN stays NaN."""
    y = dequantize(quantize(x, block, scale, zero_point, fmt, **how), block, scale, zero_point)
    return np.where(np.isnan(x), np.float32(np.nan), y)


def pack(codes, bits):
    """Codes to bytes: `bits` bits each, first code lowest, nothing between; zeros fill the last byte."""
    flat = np.ravel(codes).astype(np.int64)
    return np.packbits((flat[:, None] >> np.arange(bits)) & 1, bitorder="little").astype(np.uint8)


def unpack(data, bits, signed, count):
    """The inverse of `pack` for `count` codes."""
    flat = np.unpackbits(data, bitorder="little")[: count * bits].reshape(count, bits).astype(np.int64)
    codes = (flat << np.arange(bits)).sum(axis=1)
    return codes - (codes >> (bits - 1) << bits) if signed else codes
