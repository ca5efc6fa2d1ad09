"""The softmax as a layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .. import _core
from ..arrays import as_float32, integer
from ..errors import QrsValueError
from .base import F32, Layer

__all__ = ["Softmax"]


@dataclass(frozen=True, eq=False, repr=False)
class Softmax(Layer, id="softmax"):
    r"""Bring the values along an axis to a sum of one.

    .. math:: y_i = e^{x_i - max(x)} / \sum_j e^{x_j - max(x)}

    Parameters
    ----------
    axis : int, default -1

    Raises
    ------
    QrsTypeError
        When ``axis`` is no integer.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> qrs.nn.Softmax()(np.float32([[0, 0], [0, -np.inf]]))
    array([[0.5, 0.5],
           [1. , 0. ]], dtype=float32)
    """

    axis: int = -1

    def __post_init__(self) -> None:
        object.__setattr__(self, "axis", integer(self.axis, "axis"))

    def forward(self, x: ArrayLike) -> F32:
        """Apply the layer.

        Parameters
        ----------
        x : ndarray of float32

        Returns
        -------
        ndarray of float32, shape of ``x``

        Raises
        ------
        QrsTypeError
            When ``x`` is not an array of floats.
        QrsValueError
            When it has no such axis.
        """
        array = as_float32(x, "x")
        if not -array.ndim <= self.axis < array.ndim:
            raise QrsValueError(f"x has shape {array.shape}, which has no axis {self.axis}")
        rows = np.ascontiguousarray(np.moveaxis(array, self.axis, -1))
        out = np.empty_like(rows)
        if out.size:
            _core.softmax(rows, out)
        return np.moveaxis(out, -1, self.axis)
