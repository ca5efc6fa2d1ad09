"""What an observer adds to a statistic: it answers which range a tensor's values have."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..arrays import quiet
from ..errors import FormatError, QrsValueError, quote
from ..scheme import QParams, Scheme, per_channel, per_tensor
from .statistic import Statistic

__all__ = ["Ends", "Observer"]

Ends = tuple[NDArray[np.float32], NDArray[np.float32]]


class Observer(Statistic):
    """A mergeable, constant-memory summary of data that answers `range`.

    A subclass keeps the arrays ``lo`` and ``hi``, or implements ``_range``: the smallest and the largest
    value of each entry. Where ranges hang on the scheme that asks, it implements ``_chosen`` as well.

    Parameters
    ----------
    axis : int, optional
        Keep a range for each channel along this axis too, as `per_channel` needs.

    Attributes
    ----------
    batches, count : int
        Batches and elements seen. Empty batches do not count.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> class Widest(qrs.observers.Observer, id="doctest-widest"):
    ...     def _update(self, data, lo, hi):
    ...         reach = np.maximum(-lo, hi)
    ...         if self.batches:
    ...             reach = np.maximum(reach, self.hi)
    ...         self.lo, self.hi = -reach, reach
    ...     def _merge(self, other):
    ...         self.hi = np.maximum(self.hi, other.hi)
    ...         self.lo = -self.hi
    >>> seen = Widest()
    >>> seen.update([-3.0, 1.0])
    >>> [float(end) for end in seen.range("int8")]
    [-3.0, 3.0]
    """

    kind = "observer"
    arrays: ClassVar[tuple[str, ...]] = ("lo", "hi")

    def _range(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Give the ranges, entry 0 the whole tensor."""
        return self.lo, self.hi  # type: ignore[attr-defined]

    def _chosen(self, scheme: Scheme, entries: slice) -> tuple[NDArray[Any], NDArray[Any]]:
        """Give the ranges of some entries for a scheme: what was seen, unless a subclass chooses."""
        lo, hi = self._range()
        return lo[entries], hi[entries]

    def _channels(self) -> int:
        return int(self._range()[0].size) - 1

    def range(self, scheme: Scheme | str) -> Ends:
        """Give the range of what was seen, for a scheme's granularity.

        Parameters
        ----------
        scheme : Scheme or str
            `per_tensor`, or `per_channel` along the axis that is observed.

        Returns
        -------
        lo, hi : ndarray of float32, shape () or (channels,)

        Raises
        ------
        NotCalibratedError
            If no data was seen.
        QrsValueError
            If ranges of that granularity are not kept.

        Examples
        --------
        >>> import qrs
        >>> seen = qrs.observers.MinMax(axis=0)
        >>> seen.update([[0.5, -1.0], [2.0, 3.0]])
        >>> seen.range(qrs.Scheme("int8", qrs.per_channel(0)))
        (array([-1.,  2.], dtype=float32), array([0.5, 3. ], dtype=float32))
        """
        granularity = Scheme.of(scheme).granularity
        whole = granularity == per_tensor
        if not whole and (self.axis is None or granularity != per_channel(self.axis)):
            kept = "per_tensor" if self.axis is None else f"per_tensor and per_channel({self.axis})"
            raise QrsValueError(
                f"{self!r} keeps ranges for {kept}, not for {granularity!r}; choose its axis= to match"
            )
        self._expect_data()
        with quiet():
            ends = self._chosen(Scheme.of(scheme), slice(1) if whole else slice(1, None))
            lo, hi = (np.array(end, np.float32) for end in ends)
        return (lo.reshape(()), hi.reshape(())) if whole else (lo, hi)

    def qparams(self, scheme: Scheme | str) -> QParams:
        """Give the scheme's parameters for the range of what was seen.

        Parameters
        ----------
        scheme : Scheme or str
            As in `range`.

        Returns
        -------
        QParams

        Raises
        ------
        NotCalibratedError, QrsValueError
            As `range`.

        Examples
        --------
        >>> import qrs
        >>> seen = qrs.observers.MinMax()
        >>> seen.update([-1.0, 2.0])
        >>> seen.qparams("uint2")
        QParams(scale=array(1., dtype=float32), zero_point=array(1, dtype=int32))
        """
        scheme = Scheme.of(scheme)
        return scheme.qparams(*self.range(scheme))

    def _check_restored(self) -> None:
        """Refuse a saved state whose ranges no data could have."""
        lo, hi = self._range()
        sound = all(
            ends.ndim == 1 and ends.dtype.kind == "f" and np.isfinite(ends).all() for ends in (lo, hi)
        )
        if not sound or lo.shape != hi.shape or not lo.size or (lo > hi).any():
            raise FormatError(
                f"observer {self.id!r} has ranges lo {quote(lo)} and hi {quote(hi)}, which cannot be"
            )
        if self.axis is None and lo.size != 1:
            raise FormatError(f"observer {self.id!r} has {lo.size} ranges, expected 1 without an axis")
