"""The smallest and the largest value seen: exact, and the same in whatever order the data came."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .base import Observer

__all__ = ["MinMax"]


class MinMax(Observer, id="minmax"):
    """Range from the smallest to the largest value seen.

    Updates and merges are exact and free of order: any split of the same data gives the same bits.

    Parameters
    ----------
    axis : int, optional
        Keep a range for each channel along this axis too.

    Examples
    --------
    >>> import qrs
    >>> seen = qrs.observers.MinMax()
    >>> seen.update([0.5, -1.0])
    >>> seen.update([2.0])
    >>> [float(end) for end in seen.range("int8")]
    [-1.0, 2.0]
    """

    lo: NDArray[np.float32]
    hi: NDArray[np.float32]

    def _update(self, data: NDArray[np.float32], lo: NDArray[np.float32], hi: NDArray[np.float32]) -> None:
        self.lo = np.minimum(self.lo, lo) if self.batches else lo
        self.hi = np.maximum(self.hi, hi) if self.batches else hi

    def _merge(self, other: MinMax) -> None:
        self.lo = np.minimum(self.lo, other.lo)
        self.hi = np.maximum(self.hi, other.hi)
