"""Products of channels with each other, summed over all rows: what second-order algorithms need."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..arrays import integer
from ..errors import FormatError
from .statistic import Statistic

__all__ = ["Gram"]

# Bytes of float64 rows that are multiplied at a time, beside the matrix.
_CHUNK = 1 << 22


class Gram(Statistic, id="gram"):
    """The Gram matrix ``XᵀX`` of the rows that were seen, in float64.

    ``X`` has a row for each place on all axes but ``axis``. Products of float32 are exact in float64 and sums
    are not: splits and orders of the data differ in the last bits. It takes ``8 · channels²`` bytes, an
    update twice as much again and 4 MiB.

    Parameters
    ----------
    axis : int, default -1
        Of the channels.

    Examples
    --------
    >>> import qrs
    >>> seen = qrs.observers.Gram()
    >>> seen.update([[1.0, 2.0], [3.0, 4.0]])
    >>> seen.matrix
    array([[10., 14.],
           [14., 20.]])
    """

    arrays = ("products",)
    order_free = False

    axis: int
    products: NDArray[np.float64]

    def __init__(self, *, axis: int = -1) -> None:
        super().__init__(axis=integer(axis, "axis"))

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The sums of products, shape (channels, channels); `NotCalibratedError` before any data was seen."""
        self._expect_data()
        return self.products

    def _update(self, data: NDArray[np.float32], lo: NDArray[np.float32], hi: NDArray[np.float32]) -> None:
        rows = np.moveaxis(data, self.axis, -1)
        channels = rows.shape[-1]
        rows = rows.reshape(-1, channels)
        products = self.products.copy() if self.batches else np.zeros((channels, channels))
        step = max(_CHUNK // (8 * channels), 1)
        for start in range(0, len(rows), step):
            part = rows[start : start + step].astype(np.float64)
            products += part.T @ part
        self.products = products

    def _merge(self, other: Gram) -> None:
        self.products = self.products + other.products

    def _channels(self) -> int:
        return len(self.products)

    def _check_restored(self) -> None:
        made = self.products
        square = made.ndim == 2 and made.shape[0] == made.shape[1] and made.size and made.dtype == np.float64
        if not square or not np.isfinite(made).all() or (made != made.T).any() or (made.diagonal() < 0).any():
            raise FormatError(
                f"{self.kind} {self.id!r} has products of {made.dtype} {made.shape}, which are no Gram matrix"
            )
