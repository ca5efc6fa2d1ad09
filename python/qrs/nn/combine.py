"""Layers that bring several values of a graph together: sums and means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..arrays import as_float32, quiet
from ..errors import QrsValueError
from .base import F32, Layer

__all__ = ["Add", "MeanPool"]


@dataclass(frozen=True, eq=False, repr=False)
class Add(Layer, id="add"):
    """Add two arrays of the same shape.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> qrs.nn.Add()(np.float32([1]), np.float32([2]))
    array([3.], dtype=float32)
    """

    def forward(self, a: ArrayLike, b: ArrayLike) -> F32:
        """Add.

        Parameters
        ----------
        a, b : ndarray of float32
            Of one shape.

        Returns
        -------
        ndarray of float32, shape of ``a``

        Raises
        ------
        QrsTypeError
            When one is not an array of floats.
        QrsValueError
            When the shapes differ; the message tells both.
        """
        left, right = as_float32(a, "a"), as_float32(b, "b")
        if left.shape != right.shape:
            raise QrsValueError(f"b has shape {right.shape}, expected {left.shape} like a")
        with quiet():
            return np.asarray(left + right)


@dataclass(frozen=True, eq=False, repr=False)
class MeanPool(Layer, id="mean_pool"):
    """Average the vectors of a sequence, weighted by ``exp(mask)``.

    The mask is the one attention takes: 0 keeps a position, a large negative number leaves it out. A sequence
    whose every entry is -inf has no position left, and zeros as its mean.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> qrs.nn.MeanPool()(np.float32([[[1], [3], [9]]]), np.float32([[0, 0, -1e9]]))
    array([[2.]], dtype=float32)
    """

    def forward(self, x: ArrayLike, mask: ArrayLike | None = None) -> F32:
        """Average over the axis before the last.

        Parameters
        ----------
        x : ndarray of float32, shape (..., n, width)
        mask : ndarray of float32, shape (..., n), optional

        Returns
        -------
        ndarray of float32, shape (..., width)

        Raises
        ------
        QrsValueError
            When ``x`` has no sequence to average, or the mask has another shape.
        """
        array = as_float32(x, "x")
        if array.ndim < 2 or array.shape[-2] == 0:
            raise QrsValueError(f"x has shape {array.shape}, expected (..., n, width) with n >= 1")
        bias = None if mask is None else as_float32(mask, "mask")
        if bias is not None and bias.shape != array.shape[:-1]:
            raise QrsValueError(f"mask has shape {bias.shape}, expected {array.shape[:-1]}")
        with quiet():
            if bias is None:
                pooled: F32 = array.mean(axis=-2)
            else:
                pooled = np.matmul(_shares(bias)[..., None, :], array)[..., 0, :]
        return pooled


def _shares(bias: F32) -> F32:
    """Give each position its part of the mean; where every entry is -inf, none."""
    # Relative to the largest entry the weights cannot all vanish, whatever constant the mask carries.
    peak = bias.max(axis=-1, keepdims=True)
    share: F32 = np.exp(bias - np.where(peak == -np.inf, np.float32(0), peak))
    total = share.sum(axis=-1, keepdims=True)
    share /= np.where(total == 0, np.float32(1), total)
    return share
