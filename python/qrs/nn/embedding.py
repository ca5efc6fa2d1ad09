"""Tables of vectors: rows picked by index, or added by position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import as_float32, quiet
from ..errors import QrsTypeError, QrsValueError
from ..qtensor import QTensor
from .base import F32, Layer, Weight, weight, width

__all__ = ["Embedding", "Positions"]


@dataclass(frozen=True, eq=False, repr=False)
class Embedding(Layer, id="embedding"):
    """Pick rows of a table: ``y[...] = W[ids[...]]``.

    Of a quantized table only the picked rows are decoded, so it stays as small in memory as in the file.

    Parameters
    ----------
    weight : ndarray or QTensor, shape (rows, width)

    Examples
    --------
    >>> import numpy as np, qrs
    >>> qrs.nn.Embedding(np.float32([[1, 2], [3, 4]]))(np.array([1, 0, 1]))
    array([[3., 4.],
           [1., 2.],
           [3., 4.]], dtype=float32)
    """

    weight: Weight

    slots: ClassVar[tuple[str, ...]] = ("weight",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", weight(self.weight, "weight", 2))

    def forward(self, ids: ArrayLike) -> F32:
        """Pick rows.

        Parameters
        ----------
        ids : ndarray of any integer dtype, shape (...)
            Each in [0, rows).

        Returns
        -------
        ndarray of float32, shape (..., width)

        Raises
        ------
        QrsTypeError
            When ``ids`` are not integers.
        QrsValueError
            When an index is out of range; the message gives the first one.
        """
        index = np.asarray(ids)
        if index.dtype.kind not in "iu" and index.size:
            raise QrsTypeError(f"ids have dtype {index.dtype}, expected integers")
        rows = self.weight.shape[0]
        wrong = (index < 0) | (index >= rows)
        if wrong.any():
            first = int(np.argmax(wrong))
            raise QrsValueError(
                f"ids[{first}] (flat) is {index.reshape(-1)[first]}, expected 0 <= id < {rows}"
            )
        return _rows(self.weight, index.astype(np.int64))


@dataclass(frozen=True, eq=False, repr=False)
class Positions(Layer, id="positions"):
    """Add one learned vector for each position: ``y[..., i, :] = x[..., i, :] + W[i]``.

    Parameters
    ----------
    weight : ndarray or QTensor, shape (longest, width)

    Examples
    --------
    >>> import numpy as np, qrs
    >>> qrs.nn.Positions(np.float32([[10], [20], [30]]))(np.zeros((1, 2, 1), np.float32))
    array([[[10.],
            [20.]]], dtype=float32)
    """

    weight: Weight

    slots: ClassVar[tuple[str, ...]] = ("weight",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", weight(self.weight, "weight", 2))

    def forward(self, x: ArrayLike) -> F32:
        """Add the vectors of the first n positions.

        Parameters
        ----------
        x : ndarray of float32, shape (..., n, width) with n <= longest

        Returns
        -------
        ndarray of float32, shape of ``x``

        Raises
        ------
        QrsValueError
            When the sequence is longer than the table, or the widths differ.
        """
        array = as_float32(x, "x")
        longest, columns = self.weight.shape
        width(array, columns, f"positions of shape {(longest, columns)}")
        if array.ndim < 2 or array.shape[-2] > longest:
            raise QrsValueError(
                f"x has shape {array.shape}, expected (..., n, {columns}) with n <= {longest}"
            )
        with quiet():
            return array + _rows(self.weight, np.arange(array.shape[-2]))


def _rows(table: Weight, index: NDArray[np.int64]) -> F32:
    if not isinstance(table, QTensor):
        return table[index]
    return table.take(index)
