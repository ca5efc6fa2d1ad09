"""The search for the range of the least loss: coarse over octaves, then fine around the best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..scheme import Scheme
from .bins import Bins

__all__ = ["search"]

F64 = NDArray[np.float64]
# Of the scales and zero points of candidate ranges: the loss of each.
Loss = Callable[[F64, F64], F64]
# Of the magnitudes of an end: the loss of each.
Measure = Callable[[F64], F64]

# Octaves between candidates of each pass. A basin narrower than the first lies at the edge of a cluster of
# outliers, where the next candidate above costs at most 1.5 dB, and later passes close in, to 0.03 %.
_STEPS = (1 / 4, 1 / 32, 1 / 256)
_AROUND = np.arange(-8, 9) / 8
# No range that clips half of the values is best, but with a single bit; two octaves below is enough for that.
_BELOW = 2
# Beyond that, values are too small to tell ranges apart at all.
_OCTAVES = 28


def search(bins: Bins, scheme: Scheme, loss: Loss) -> tuple[float, float]:
    """Find the range of the least loss within what was seen.

    One bound for both ends shrinks first; with a zero point to choose, each then moves alone, and once more
    by the finer steps, since they are coupled through the step. Of equal losses the widest range wins.

    Parameters
    ----------
    bins : Bins
        Not empty.
    scheme : Scheme
        Makes scales and zero points of candidate ranges, so that what is measured is what will be used.
    loss : callable
        ``loss(scale, zero_point)`` for vectors of both.

    Returns
    -------
    lo, hi : float
    """
    lo, hi = min(bins.lo, 0.0), max(bins.hi, 0.0)
    # Scales in e4m3 share a factor, and candidates are no scales of one tensor.
    plain = replace(scheme, scale_dtype="float32") if scheme.scale_dtype == "e4m3" else scheme

    def measure(lows: F64, highs: F64) -> F64:
        lows, highs = np.broadcast_arrays(lows, highs)
        made = plain.qparams(lows.astype(np.float32), highs.astype(np.float32))
        return loss(made.scale.astype(np.float64), made.zero_point.astype(np.float64))

    def mirrored(high: F64, reach: F64) -> F64:
        return measure(-reach, high)

    reach = max(-lo, hi)
    bound = _coarse(lambda r: measure(np.maximum(lo, -r), np.minimum(hi, r)), reach, bins.folded(), reach)
    low, high = max(lo, -bound), min(hi, bound)
    if not scheme.symmetric and lo < 0 < hi:
        upper, lower = bins.side(1), bins.side(-1)
        for close_in in (_coarse, _fine):
            high = close_in(partial(measure, np.array(low)), hi, upper, high)
            low = -close_in(partial(mirrored, np.array(high)), -lo, lower, -low)
    return low, high


def _coarse(measure: Measure, top: float, magnitudes: Bins, best: float) -> float:
    """Find the end of the least loss among all that the values could call for; ``best`` is the known one."""
    middle = np.searchsorted(np.cumsum(magnitudes.number), magnitudes.total / 2)
    median = float(magnitudes.high[middle])
    octaves = _OCTAVES if median * 2.0**_OCTAVES < top else float(np.log2(top / median)) + _BELOW
    ends = top * 2.0 ** -np.arange(0, octaves, _STEPS[0])
    return _fine(measure, top, magnitudes, float(ends[np.argmin(measure(ends))]))


def _fine(measure: Measure, top: float, magnitudes: Bins, best: float) -> float:
    """Find the end of the least loss around the best known, at most ``top``."""
    least = float(measure(np.array([best]))[0])
    for step in _STEPS:
        ends = np.minimum(best * 2.0 ** (-step * _AROUND), top)
        losses = measure(ends)
        at = int(np.argmin(losses))
        if losses[at] < least:
            best, least = float(ends[at]), float(losses[at])
    return best
