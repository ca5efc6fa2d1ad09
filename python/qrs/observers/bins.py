"""Counts of float32 values in bins that are known beforehand: the top 14 bits of their pattern.

Sign, 8 bits of exponent and 5 of mantissa give 16384 bins: 32 in each octave, so a bin is 1/32 to 1/64 of
its values wide, whatever their magnitude. Other histograms lay their bins by the first batch, and have to
stretch them when a later one reaches farther; these stay, and counts are integers, so any split and order of
the data gives the same counts. A row of them is 128 KiB.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["BINS", "Bins", "count"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

BINS = 1 << 14
_SHIFT = 32 - 14
# Patterns from this one on are infinities and NaN, in each half.
_FINITE = 0x7F800000 >> _SHIFT
# Elements that become indices at a time: temporary memory that does not grow with the batch.
_CHUNK = 1 << 18
# The share of the largest magnitude below which values stop to tell ranges apart: those of all ranges that
# are searched have steps above it, so each becomes 0.
_DEPTH = 2.0**-28


def _magnitudes() -> F64:
    """Give the edges of the bins of positive values, ascending from 0 to 2**128."""
    edges = (np.arange(_FINITE, dtype=np.uint32) << np.uint32(_SHIFT)).view(np.float32).astype(np.float64)
    return np.append(edges, 2.0**128)


_EDGES = _magnitudes()
# All finite bins, by ascending value: those of the negative half stand in reverse.
_ORDER = np.concatenate([np.arange(_FINITE - 1, -1, -1) + BINS // 2, np.arange(_FINITE)])
_LOW = np.concatenate([-_EDGES[:0:-1], _EDGES[:-1]])
_HIGH = np.concatenate([-_EDGES[-2::-1], _EDGES[1:]])


def count(data: NDArray[np.float32], axis: int | None) -> I64:
    """Count the values of an array.

    Parameters
    ----------
    data : ndarray of float32
        Finite, C-contiguous.
    axis : int or None
        Of the channels, if there are any.

    Returns
    -------
    ndarray of int64, shape (1, 16384) or (channels, 16384)
        Column ``pattern >> 18``, the pattern read as an unsigned integer.
    """
    rows = data.reshape(1, -1)
    if axis is not None:
        rows = np.moveaxis(data, axis, 0)
        rows = rows.reshape(rows.shape[0], -1)
    counts = np.zeros((rows.shape[0], BINS), np.int64)
    for row, total in zip(rows, counts, strict=True):
        for start in range(0, row.size, _CHUNK):
            patterns = np.ascontiguousarray(row[start : start + _CHUNK]).view(np.uint32)
            total += np.bincount(patterns >> np.uint32(_SHIFT), minlength=BINS)
    return counts


class Bins(NamedTuple):
    """The bins that hold anything, by ascending value.

    Attributes
    ----------
    low, high : ndarray of float64
        Edges of each bin, cut to what was seen.
    number : ndarray of int64
        Elements in each bin.
    lo, hi : float
        The smallest and the largest value seen.
    """

    low: F64
    high: F64
    number: I64
    lo: float
    hi: float

    @staticmethod
    def of(counts: I64, lo: float, hi: float) -> Bins:
        """Take a row of counts and the ends of the values in it."""
        ordered = counts[_ORDER]
        held = np.flatnonzero(ordered)
        low, high = np.clip(_LOW[held], lo, hi), np.clip(_HIGH[held], lo, hi)
        return Bins(low, high, ordered[held], lo, hi)

    @property
    def total(self) -> int:
        """How many elements there are."""
        return int(self.number.sum())

    def telling(self) -> Bins:
        """Leave out what is too small to tell one range from another: 0, and values next to it."""
        reach = max(-self.lo, self.hi) * _DEPTH
        keep = (self.low < -reach) | (self.high > reach)
        return self._replace(low=self.low[keep], high=self.high[keep], number=self.number[keep])

    def side(self, sign: int) -> Bins:
        """Give the bins of the magnitudes of positive values, or with -1 of negative ones."""
        keep = self.low >= 0 if sign > 0 else self.high <= 0
        return self._replace(low=self.low[keep], high=self.high[keep], number=self.number[keep]).folded()

    def folded(self) -> Bins:
        """Give the bins of the magnitudes."""
        negative = self.high <= 0
        low = np.where(negative, -self.high, self.low)
        high = np.where(negative, -self.low, self.high)
        order = np.argsort(low, kind="stable")
        # A bin of each sign, cut to what was seen where it is the last.
        low, first = np.unique(low[order], return_index=True)
        high = np.maximum.reduceat(high[order], first)
        number = np.add.reduceat(self.number[order], first)
        return Bins(low, high, number, float(low[0]), float(high[-1]))
