"""How large channels are: their mean squares and their largest magnitudes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..arrays import integer
from ..errors import FormatError
from ..granularity import per_channel
from .statistic import Statistic

__all__ = ["Magnitude"]


class Magnitude(Statistic, id="magnitude"):
    """Mean square and largest magnitude of each channel, as smoothing and importance weights need them.

    Maxima are exact. Squares are summed in float64, so splits and orders of the data differ in the last bits.
    It takes 12 bytes a channel.

    Parameters
    ----------
    axis : int, default -1
        Of the channels.

    Examples
    --------
    >>> import qrs
    >>> seen = qrs.observers.Magnitude()
    >>> seen.update([[1.0, 2.0], [-3.0, 4.0]])
    >>> seen.largest, seen.mean_square
    (array([3., 4.], dtype=float32), array([ 5., 10.]))
    """

    arrays = ("squares", "peaks")
    order_free = False

    axis: int
    squares: NDArray[np.float64]
    peaks: NDArray[np.float32]

    def __init__(self, *, axis: int = -1) -> None:
        super().__init__(axis=integer(axis, "axis"))

    @property
    def mean_square(self) -> NDArray[np.float64]:
        """The mean of ``x²``, shape (channels,); `NotCalibratedError` before any data was seen."""
        self._expect_data()
        return self.squares * (self.squares.size / self.count)

    @property
    def largest(self) -> NDArray[np.float32]:
        """The largest ``|x|``, shape (channels,); `NotCalibratedError` before any data was seen."""
        self._expect_data()
        return self.peaks

    def _update(self, data: NDArray[np.float32], lo: NDArray[np.float32], hi: NDArray[np.float32]) -> None:
        squares = _core.moments(data, per_channel(self.axis).block(data.shape))[1]
        peaks = np.maximum(-lo[1:], hi[1:])
        if self.batches:
            squares = self.squares + squares
            peaks = np.maximum(self.peaks, peaks)
        self.squares, self.peaks = squares, peaks

    def _merge(self, other: Magnitude) -> None:
        self.squares = self.squares + other.squares
        self.peaks = np.maximum(self.peaks, other.peaks)

    def _channels(self) -> int:
        return self.squares.size

    def _check_restored(self) -> None:
        for name, dtype in (("squares", np.float64), ("peaks", np.float32)):
            made = getattr(self, name)
            sound = made.shape == self.squares.shape[:1] and made.size and made.dtype == dtype
            if not sound or not (np.isfinite(made) & (made >= 0)).all():
                raise FormatError(
                    f"{self.kind} {self.id!r} has {name} of {made.dtype} {made.shape}, which cannot be"
                )
