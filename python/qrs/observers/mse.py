"""The range with which the squared error is expected to be least."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..scheme import Scheme
from .bins import Bins
from .counted import Counted
from .search import search

__all__ = ["MSE"]

F64 = NDArray[np.float64]


class MSE(Counted, id="mse"):
    """Range of the least expected squared error, ``E (x - x̂)²``, rounding and clipping together.

    Values are taken to lie evenly within each bin of the counts, which gives the error of a bin in closed
    form. Candidates are the scales and zero points that the scheme makes of ranges. On a hundred thousand
    values of normal, Laplace, rectified and heavy-tailed data the one chosen is within 0.04 dB of an exact
    search on the data, on inputs of all-MiniLM-L6-v2 within 0.011 dB. Its state is described at `Histogram`.

    Parameters
    ----------
    axis : int, optional
        Keep a range for each channel along this axis.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> seen = qrs.observers.MSE()
    >>> seen.update(np.random.default_rng(0).normal(size=100_000))
    >>> lo, hi = seen.range("int4")
    >>> bool(2.2 < hi < 2.6)
    True
    """

    def _choose(self, bins: Bins, scheme: Scheme) -> tuple[float, float]:
        telling = bins.telling()
        levels = _levels(scheme)
        edges = np.union1d(telling.low, telling.high)
        at = np.searchsorted(edges, telling.low), np.searchsorted(edges, telling.high)

        def loss(scale: F64, zero_point: F64) -> F64:
            t = edges / scale[:, None]
            integral, square = _errors(t, zero_point[:, None], scheme, levels)
            width = t[:, at[1]] - t[:, at[0]]
            within = integral[:, at[1]] - integral[:, at[0]]
            mean = np.where(width > 0, within / np.where(width > 0, width, 1), square[:, at[0]])
            # Not a product of matrices: its order of sums would hang on the machine and its threads.
            return scale**2 * np.sum(mean * telling.number, axis=1)  # type: ignore[no-any-return]

        return search(bins, scheme, loss)


def _levels(scheme: Scheme) -> F64 | None:
    """Give the levels of a format, ascending; None where codes are the levels."""
    if scheme.format.kind == "integer" and scheme.format.block is None:
        return None
    levels = scheme.format.levels.astype(np.float64)
    return np.unique(levels[np.isfinite(levels)])


def _errors(t: F64, zero_point: F64, scheme: Scheme, levels: F64 | None) -> tuple[F64, F64]:
    """Integrate ``(t - Q(t))²`` up to each ``t``, but for a constant; and give the square itself.

    From the middle of a cell the integral is ``d³ / 3``, ``d = t - Q(t)``, so what is added from one level to
    the next is ``gap³ / 12``. Beyond the last level ``d`` grows on, which is what clipping costs.
    """
    if levels is None:
        lowest, highest = scheme.code_range
        nearest = np.clip(np.rint(t), lowest - zero_point, highest - zero_point)
        passed = nearest / 12
    else:
        gaps = np.diff(levels)
        cell = np.searchsorted(levels[:-1] + gaps / 2, t)
        nearest = levels[cell]
        passed = np.append(0.0, np.cumsum(gaps**3 / 12))[cell]
    d = t - nearest
    return passed + d**3 / 3, d**2
