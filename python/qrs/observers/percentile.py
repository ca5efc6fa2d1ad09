"""The range that leaves out a stated share of the values."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from ..arrays import number
from ..errors import QrsValueError
from ..scheme import Scheme
from .bins import Bins
from .counted import Counted

__all__ = ["Percentile"]


class Percentile(Counted, id="percentile"):
    """Range that holds a percentage of the values, whatever error the others then make.

    For symmetric schemes it is the percentile of ``|x|``; with a zero point to choose, half of what is left
    out lies beyond each end. The share is counted exactly; within its bin, a value's place is interpolated.
    Data of fewer values than it takes to leave one out has the range of `MinMax`. Its state is described at
    `Histogram`.

    Parameters
    ----------
    axis : int, optional
        Keep a range for each channel along this axis.
    percentile : float, default 99.999
        Above 50, up to 100. On all-MiniLM-L6-v2 with int8 inputs, less than 99.999 was harmful, since the few
        largest values of a transformer carry meaning.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> seen = qrs.observers.Percentile(percentile=99.0)
    >>> seen.update(np.append(np.linspace(-1, 1, 9999), 50.0))
    >>> 0.98 < float(seen.range("int8")[1]) < 1.0
    True
    """

    def __init__(self, *, axis: int | None = None, percentile: float = 99.999) -> None:
        super().__init__(axis=axis)
        self.percentile = number(percentile, "percentile")
        if not 50 < self.percentile <= 100:
            raise QrsValueError(f"percentile is {percentile}, expected 50 < percentile <= 100")

    def settings(self) -> dict[str, Any]:
        """Give the keyword arguments that make an observer like this one, as plain data for JSON.

        Returns
        -------
        dict

        Examples
        --------
        >>> import qrs
        >>> qrs.observers.Percentile(percentile=99.9).settings()
        {'axis': None, 'percentile': 99.9}
        """
        return {**super().settings(), "percentile": self.percentile}

    def _choose(self, bins: Bins, scheme: Scheme) -> tuple[float, float]:
        # Decimal digits as they were given: 100 - 99.9 in binary would leave out one element too few.
        outside = (100 - Fraction(repr(self.percentile))) / 100 * bins.total
        if scheme.symmetric:
            reach = _upper(bins.folded(), int(outside))
            return max(bins.lo, -reach), min(bins.hi, reach)
        return _lower(bins, int(outside / 2)), _upper(bins, int(outside / 2))


def _upper(bins: Bins, outside: int) -> float:
    """Give the value that ``outside`` elements are beyond."""
    if not outside:
        return bins.hi
    above = np.cumsum(bins.number[::-1])
    at = int(np.searchsorted(above, outside, side="right"))
    before = int(above[at - 1]) if at else 0
    j = bins.number.size - 1 - at
    # The middle of the share of the bin that each of its elements has.
    share = (outside - before + 0.5) / float(bins.number[j])
    return float(bins.high[j] - share * (bins.high[j] - bins.low[j]))


def _lower(bins: Bins, outside: int) -> float:
    return -_upper(Bins(-bins.high[::-1], -bins.low[::-1], bins.number[::-1], -bins.hi, -bins.lo), outside)
