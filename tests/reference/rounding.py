"""Rounding modes and the counter-based random numbers of stochastic rounding."""

import numpy as np


def philox4x32(counter, key):
    """Philox4x32-10 (Salmon et al., 2011): four 32-bit words for one 128-bit counter and one 64-bit key.

    Words are whole numbers or uint64 arrays of them.
    """
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def uniform(count, seed):
    """The numbers in [0, 1) that decide elements 0 … count − 1: 24 random bits, so exact in float32."""
    four = np.arange(-(-count // 4), dtype=np.uint64)
    counter = [four & 0xFFFFFFFF, four >> 32, four * 0, four * 0]
    words = np.stack(philox4x32(counter, [seed & 0xFFFFFFFF, seed >> 32]), axis=1)
    return ((words.ravel()[:count] >> 8) * 2.0**-24).astype(np.float32)


def half_up(v):
    """Nearest, ties towards +inf."""
    f = np.floor(v)
    return f + (v - f >= np.float32(0.5))


def half_away(v):
    """Nearest, ties away from zero."""
    return np.copysign(half_up(np.abs(v)), v)


MODES = {
    "half_even": np.rint,
    "half_away": half_away,
    "half_up": half_up,
    "floor": np.floor,
    "ceil": np.ceil,
    "toward_zero": np.trunc,
}


def round_to(v, mode, seed=0):
    """Rounds float32 `v` to whole numbers; `stochastic` rounds up with the probability of the fraction."""
    if mode != "stochastic":
        return MODES[mode](v).astype(np.float32)
    f = np.floor(v)
    return (f + (uniform(v.size, seed).reshape(v.shape) < v - f)).astype(np.float32)
