"""Batch ranges averaged with a fading memory: one odd batch does not set the range for ever."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import number
from ..errors import QrsValueError
from .base import Observer

__all__ = ["MovingAverage"]


class MovingAverage(Observer, id="moving_average"):
    """Exponential moving average of each batch's smallest and largest value, kept in float64.

    ``lo = momentum * lo + (1 - momentum) * min(batch)``, and ``hi`` likewise; the first batch sets both. A
    merge weighs both sides by their numbers of batches: ``lo = (n1 * lo1 + n2 * lo2) / (n1 + n2)``. Neither
    is free of order: later batches weigh more, and a merge is not what one observer would have seen.

    Parameters
    ----------
    axis : int, optional
        Keep a range for each channel along this axis too.
    momentum : float, default 0.9
        Weight of the past, from 0 (the last batch alone) to below 1.

    Examples
    --------
    >>> import qrs
    >>> seen = qrs.observers.MovingAverage(momentum=0.5)
    >>> seen.update([0.0, 1.0])
    >>> seen.update([0.0, 3.0])
    >>> float(seen.range("int8")[1])
    2.0
    """

    order_free = False

    lo: NDArray[np.float64]
    hi: NDArray[np.float64]

    def __init__(self, *, axis: int | None = None, momentum: float = 0.9) -> None:
        super().__init__(axis=axis)
        self.momentum = number(momentum, "momentum")
        if not 0 <= self.momentum < 1:
            raise QrsValueError(f"momentum is {momentum}, expected 0 <= momentum < 1")

    def settings(self) -> dict[str, Any]:
        """Give the keyword arguments that make an observer like this one, as plain data for JSON.

        Returns
        -------
        dict

        Examples
        --------
        >>> import qrs
        >>> qrs.observers.MovingAverage(momentum=0.5).settings()
        {'axis': None, 'momentum': 0.5}
        """
        return {**super().settings(), "momentum": self.momentum}

    def _update(self, data: NDArray[np.float32], lo: NDArray[np.float32], hi: NDArray[np.float32]) -> None:
        low, high = lo.astype(np.float64), hi.astype(np.float64)
        if self.batches:
            low = self.momentum * self.lo + (1 - self.momentum) * low
            high = self.momentum * self.hi + (1 - self.momentum) * high
        self.lo, self.hi = low, high

    def _merge(self, other: MovingAverage) -> None:
        total = self.batches + other.batches
        self.lo = (self.batches * self.lo + other.batches * other.lo) / total
        self.hi = (self.batches * self.hi + other.batches * other.hi) / total
