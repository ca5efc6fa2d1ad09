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
# In how many parts of the range distributions are compared: as many as TensorRT has bins.
_PARTS = 2048


class Entropy(Counted, id="entropy"):
    """Range of the least relative entropy ``Σ p log(p / q) - p + q`` of the values to the quantized ones.

    The range of a candidate is cut into 2048 parts. ``p`` counts the values in each, with those beyond the
    range added to its last parts; ``q`` counts those within the range, spread evenly over the parts of a
    code's cell that hold any. This is the calibration of TensorRT (Migacz, "8-bit inference with TensorRT",
    2017) and of ONNX Runtime without four of its faults: parts follow the candidate, where theirs end at the
    largest value seen, so that one outlier leaves them little to see; exact zeros, which every candidate
    keeps, are left out, where after a ReLU they would outweigh all else; both ends are searched where there
    is a zero point; and ``q`` is not scaled up for what was clipped, which hides the loss, and is at least
    half an element where values were clipped, where theirs is a constant.

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
        cells = highest - lowest + 1
        each_cell = max(_PARTS // cells, 2)
        parts = lowest - 0.5 + np.arange(cells * each_cell + 1) / each_cell
        below = np.append(0, np.cumsum(telling.number)).astype(np.float64)
        total = below[-1]
        values = np.stack([telling.low, telling.high], axis=1).ravel()
        shares = np.stack([below[:-1], below[1:]], axis=1).ravel()

        def loss(scale: F64, zero_point: F64) -> F64:
            at = (parts - zero_point[:, None]) * scale[:, None]
            reached = np.interp(at, values, shares)
            inside = np.diff(reached)
            p = inside.copy()
            p[:, 0] += reached[:, 0]
            p[:, -1] += total - reached[:, -1]
            held = inside > 1e-9 * total / parts.size
            shape = (-1, cells, each_cell)
            kept = np.where(held, inside, 0).reshape(shape).sum(axis=2)
            each = kept / np.maximum(held.reshape(shape).sum(axis=2), 1)
            q = np.where(held, np.repeat(each, each_cell, axis=1), 0)
            q = np.where(p > inside, np.maximum(q, 0.5), q)
            ratio = np.where(q > 0, p, 1) / np.where(q > 0, q, 1)
            return np.sum(np.where(q > 0, p * np.log(ratio) - p, 0) + q, axis=1)  # type: ignore[no-any-return]

        return search(bins, scheme, loss)
