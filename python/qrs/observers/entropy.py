"""The range that keeps the shape of a distribution, by its relative entropy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..scheme import Scheme
from .bins import Bins
from .counted import Counted
from .search import search

__all__ = ["Entropy"]

F64 = NDArray[np.float64]
# Neighbouring bins are compared together until they hold so many values: fewer are noise, not shape.
_TOGETHER = 8


class Entropy(Counted, id="entropy"):
    """Range of the least relative entropy ``Σ p log(p / q) - p + q`` of the values to the quantized ones.

    ``p`` counts the values in the bins of the state, those that lie near each other taken together until they
    are eight, and what lies beyond the range added to the last ones within; ``q`` counts the values of each
    code spread evenly over its cell. This is the calibration of TensorRT (Migacz, "8-bit inference with
    TensorRT", 2017) and of ONNX Runtime without four of its faults. Bins follow the values, where theirs are
    even parts up to the largest one, so that a single outlier leaves them nothing to see. Exact zeros, which
    every candidate keeps, are left out, where after a ReLU they would outweigh all else. Both ends are
    searched where there is a zero point. And ``q`` is not scaled up for what was clipped, which hides the
    loss, and is at least half a value where some were, where theirs is a constant.

    One remains, as it is the idea itself: how *far* a clipped value lies costs nothing. Where outliers carry
    meaning, as in transformers, that loses much; prefer `MSE` unless results say otherwise. Integer formats
    of up to 8 bits only; others get all that was seen. Its state is described at `Histogram`.

    Parameters
    ----------
    axis : int, optional
        Keep a range for each channel along this axis.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> seen = qrs.observers.Entropy()
    >>> seen.update(np.append(np.random.default_rng(0).normal(size=100_000), 1000.0))
    >>> 3 < float(seen.range("int8")[1]) < 6
    True
    """

    def _choose(self, bins: Bins, scheme: Scheme) -> tuple[float, float]:
        row = scheme.format
        telling = bins.telling()
        if row.kind != "integer" or row.block is not None or row.bits > 8 or not telling.number.size:
            return bins.lo, bins.hi
        lowest, highest = scheme.code_range
        borders = np.arange(lowest, highest + 2) - 0.5
        below = np.append(0, np.cumsum(telling.number))
        total = int(below[-1])
        first = np.unique(below[:-1] // _TOGETHER, return_index=True)[1]
        low, start = telling.low[first], below[first]
        at, end = np.arange(low.size), np.append(start[1:], total)
        edges = np.append(low, telling.high[-1])
        values = np.stack([telling.low, telling.high], axis=1).ravel()
        reached = np.stack([below[:-1], below[1:]], axis=1).ravel()

        def loss(scale: F64, zero_point: F64) -> F64:
            cells = (borders - zero_point[:, None]) * scale[:, None]
            kept = np.interp(cells, values, reached)
            q = np.stack([np.diff(np.interp(edges, *pair)) for pair in zip(cells, kept, strict=True)])
            # What is clipped counts at the last bins that the range touches.
            left = np.clip(np.searchsorted(edges, cells[:, :1], side="right") - 1, 0, low.size - 1)
            right = np.clip(np.searchsorted(edges, cells[:, -1:]) - 1, 0, low.size - 1)
            p = np.where(at == right, total, end) - np.where(at == left, 0, start)
            p = np.where((at >= left) & (at <= right), p, 0)
            clipped = ((at == left) & (kept[:, :1] > 0)) | ((at == right) & (kept[:, -1:] < total))
            q = np.where(clipped, np.maximum(q, 0.5), q)
            ratio = np.where(p > 0, p, 1) / np.where(q > 0, q, 1)
            return np.sum(p * np.log(ratio) - p + q, axis=1)  # type: ignore[no-any-return]

        return search(bins, scheme, loss)
