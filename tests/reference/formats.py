"""Formats other than integers: levels, the level a value is rounded to, and the scale of a range."""

import itertools
import re

import numpy as np

from .rounding import round_to, uniform

# exponent bits, mantissa bits, bias, and what the codes of greatest magnitude are
FLOATS = {
    "float16": (5, 10, 15, "ieee"),
    "bfloat16": (8, 7, 127, "ieee"),
    "float8_e4m3fn": (4, 3, 7, "fn"),
    "float8_e5m2": (5, 2, 15, "ieee"),
    "float8_e4m3": (4, 3, 7, "ieee"),
    "float8_e3m4": (3, 4, 3, "ieee"),
    "float8_e4m3fnuz": (4, 3, 8, "fnuz"),
    "float8_e5m2fnuz": (5, 2, 16, "fnuz"),
    "float8_e4m3b11fnuz": (4, 3, 11, "fnuz"),
    "float6_e2m3fn": (2, 3, 1, "none"),
    "float6_e3m2fn": (3, 2, 3, "none"),
    "float4_e2m1fn": (2, 1, 1, "none"),
}
# element format, elements of a block, scale_dtype
BLOCKS = {
    "mxfp4": ("float4_e2m1fn", 32, "e8m0"),
    "mxfp6_e2m3": ("float6_e2m3fn", 32, "e8m0"),
    "mxfp6_e3m2": ("float6_e3m2fn", 32, "e8m0"),
    "mxfp8_e4m3": ("float8_e4m3fn", 32, "e8m0"),
    "mxfp8_e5m2": ("float8_e5m2", 32, "e8m0"),
    "mxint8": ("int8", 32, "e8m0"),
    "nvfp4": ("float4_e2m1fn", 16, "e4m3"),
}
NF4 = """-1.0 -0.6961928009986877 -0.5250730514526367 -0.39491748809814453 -0.28444138169288635
    -0.18477343022823334 -0.09105003625154495 0.0 0.07958029955625534 0.16093020141124725 0.24611230194568634
    0.33791524171829224 0.44070982933044434 0.5626170039176941 0.7229568362236023 1.0"""
BNB_FP4 = [0.0, 0.0052083334885537624, 2 / 3, 1, 1 / 3, 0.5, 1 / 6, 0.25]
# The sets whose sums are additive powers of two; the lowest bits of a code pick from the first.
APOT = {
    "apot:4": ([0, 8, 4, 1], [0, 2]),
    "apot:5": ([0, 32, 8, 2], [0, 16, 4, 1]),
    "apot:6": ([0, 64, 16, 2], [0, 32, 8, 1], [0, 4]),
    "apot:7": ([0, 256, 32, 4], [0, 128, 16, 2], [0, 64, 8, 1]),
}


def float_spec(fmt):
    """Exponent bits, mantissa bits, bias and specials of a floating-point format, or None."""
    fmt = BLOCKS.get(fmt, (fmt,))[0]
    generic = re.fullmatch(r"float:e(\d+)m(\d+)", fmt)
    if generic:
        exponent, mantissa = map(int, generic.groups())
        return exponent, mantissa, 2 ** (exponent - 1) - 1, "none"
    return FLOATS.get(fmt)


def float_levels(spec):
    """The value of every code."""
    exponent_bits, mantissa_bits, bias, special = spec
    code = np.arange(2 ** (exponent_bits + mantissa_bits))
    exponent, mantissa = code >> mantissa_bits, code & (2**mantissa_bits - 1)
    hidden = np.where(exponent > 0, 2**mantissa_bits, 0)
    level = (hidden + mantissa) * 2.0 ** (np.maximum(exponent, 1) - bias - mantissa_bits)
    if special == "ieee":
        level[exponent == 2**exponent_bits - 1] = np.nan
        level[(2**exponent_bits - 1) << mantissa_bits] = np.inf
    elif special == "fn":
        level[-1] = np.nan
    level = np.concatenate([level, -level])
    if special == "fnuz":
        level[code.size] = np.nan
    return level.astype(np.float32)


def levels(fmt):
    """The level of every code from 0 on, float32."""
    spec = float_spec(fmt)
    if spec:
        return float_levels(spec)
    if fmt == "nf4":
        return np.float32(NF4.split())
    if fmt == "bnb_fp4":
        return np.float32([*BNB_FP4, *(-level for level in BNB_FP4)])
    if fmt in ("binary", "ternary"):
        return np.float32([-1, 1] if fmt == "binary" else [-1, 0, 1])
    if fmt.startswith("pow2"):
        magnitude = [0, *(2.0**power for power in range(2 ** (int(fmt[5:]) - 1) - 1))]
    else:
        magnitude = [sum(terms) for terms in itertools.product(*reversed(APOT[fmt]))]
    return np.concatenate([np.float32(magnitude), -np.float32(magnitude)])


def packed(codes, fmt, bits):
    """Codes of a format to bytes; those of three values stand five to a byte."""
    from .tensor import pack

    if fmt != "ternary":
        return pack(codes, bits)
    flat = np.ravel(codes)
    flat = np.concatenate([flat, np.zeros(-flat.size % 5, flat.dtype)]).reshape(-1, 5)
    return (flat @ 3 ** np.arange(5)).astype(np.uint8)


def round_float(v, spec, rounding, seed, saturate):
    """The level of `spec` that float32 `v` is rounded to, with its sign; infinity and NaN as they come."""
    _, mantissa_bits, bias, special = spec
    finite = float_levels(spec)
    top = float(np.max(finite[np.isfinite(finite)]))
    v = v.astype(np.float64)
    held = np.clip(v, -top, top) if saturate else np.clip(v, -2.0 * top, 2.0 * top)
    exponent = np.maximum(np.frexp(held)[1] - 1, 1 - bias)
    step = 2.0 ** (exponent - mantissa_bits)
    level = np.abs(round_to((held / step).astype(np.float32), rounding, seed)) * step
    if not saturate:
        level = np.where(level > top, np.inf if special == "ieee" else np.nan, level)
    level = np.where(np.signbit(v), -level, level)
    return np.where((level == 0) & (special == "fnuz"), 0.0, level).astype(np.float32)


def codes_of(level, table):
    """The first code of each level, told apart by the sign of zero."""
    bits, finite = table.view(np.int32), ~np.isnan(table)
    unique, first = np.unique(bits[finite], return_index=True)
    found = np.searchsorted(unique, level.view(np.int32)).clip(0, unique.size - 1)
    nan = np.flatnonzero(~finite)[:1]
    code = np.flatnonzero(finite)[first][found]
    return np.where(np.isnan(level), nan[0] if nan.size else 0, code)


def pick(v, table, rounding, seed):
    """The code of the level of a table that `v` is rounded to; of equal levels the first code stands for
    all."""
    order = np.argsort(table, kind="stable")
    order = order[np.concatenate([[True], np.diff(table[order]) != 0])]
    values = table[order].astype(np.float64)
    v = np.clip(np.nan_to_num(v.astype(np.float64)), values[0], values[-1])
    below = np.searchsorted(values, v, "right") - 1
    below = below.clip(0, values.size - 2)
    low, high = values[below], values[below + 1]
    even = order[below + 1] % 2 == 0
    near = v - (low + high) / 2
    outwards = np.where(low >= 0, True, np.where(high <= 0, False, near >= 0))
    up = {
        "half_even": (near > 0) | ((near == 0) & even),
        "half_up": near >= 0,
        "half_away": (near > 0) | ((near == 0) & (low + high >= 0)),
        "floor": v >= high,
        "ceil": v > low,
        "toward_zero": np.where(low >= 0, v >= high, np.where(high <= 0, v > low, outwards)),
    }
    if rounding == "stochastic":
        part = (v.astype(np.float32) - low.astype(np.float32)) / (high - low).astype(np.float32)
        return order[below + (uniform(v.size, seed).reshape(v.shape) < part)]
    return order[below + up[rounding]]


def encode(x, scale, fmt, rounding="half_even", seed=0, saturate=True, table=None):
    """Codes (int64) and levels (float32) of `x` with the scale of each element."""
    with np.errstate(all="ignore"):
        v = (x / scale).astype(np.float32)
    spec = float_spec(fmt)
    if spec:
        table = float_levels(spec)
        level = round_float(np.where(np.isnan(v), np.float32(0), v), spec, rounding, seed, saturate)
        code = codes_of(level, table)
        no_number = np.flatnonzero(np.isnan(table))
        code = np.where(np.isnan(v), no_number[0] if no_number.size else 0, code)
        return code, table[code]
    table = levels(fmt) if table is None else table
    code = pick(v, table, rounding, seed)
    # NaN becomes what 0 is rounded to, and is not drawn.
    zero = pick(np.zeros(1), table, "floor" if rounding == "stochastic" else rounding, seed)
    code = np.where(np.isnan(v), zero, code)
    return code, table[code]


def to_e8m0(scale):
    """The power of two at or above."""
    mantissa, exponent = np.frexp(np.clip(scale, 2.0**-126, 2.0**127))
    return np.ldexp(1.0, np.where(mantissa == 0.5, exponent - 1, exponent)).astype(np.float32)


def scales(lo, hi, fmt, scale_dtype="float32"):
    """The scale of each range, float32, by the rule of the format."""
    from .tensor import to_scale_dtype

    table = np.arange(-128, 128, dtype=np.float32) if fmt == "mxint8" else levels(fmt)
    table = table[np.isfinite(table)].astype(np.float64)
    lowest, highest = table.min(), table.max()
    lo, hi = np.minimum(lo, 0).astype(np.float64), np.maximum(hi, 0).astype(np.float64)
    needed = np.maximum(hi / highest, lo / lowest)
    if float_spec(fmt) and sum(float_spec(fmt)[:2]) == 15:
        needed = np.maximum(needed, 1)
    zero = (lo == 0) & (hi == 0)
    if fmt in BLOCKS and scale_dtype == "e8m0":
        exponents = [np.frexp(np.where(zero, 1, one))[1] for one in (np.maximum(hi, -lo), highest)]
        scale = np.ldexp(1.0, (exponents[0] - exponents[1]).clip(-126, 127))
        return np.where(zero, 1, scale).astype(np.float32)
    empty = np.float64(1.0 if (table == 0).any() else 0.0)
    needed = np.where(zero, empty, needed)
    if scale_dtype == "e4m3":
        factor = np.float32(needed[~zero].max() / 448 if (~zero).any() else 1)
        with np.errstate(all="ignore"):
            parts = np.clip((needed.astype(np.float32) / factor), np.float32(2.0**-9), np.float32(448))
        return round_float(parts, FLOATS["float8_e4m3fn"], "half_even", 0, True) * factor
    if scale_dtype == "e8m0":
        return to_e8m0(needed.astype(np.float32))
    return to_scale_dtype(needed, scale_dtype)
