"""What observers share that keep counts: one state, from which each chooses a range by its own rule."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..arrays import quiet
from ..errors import FormatError, QrsTypeError, QrsValueError, quote
from ..scheme import Scheme
from .base import Observer
from .bins import BINS, Bins, count

__all__ = ["Counted"]

C = TypeVar("C", bound="Counted")


class Counted(Observer):
    """A base of observers whose state is how many values lie in each of 16384 bins of float32 patterns.

    Counts are integers and bins never move, so any split and order of the data gives the same state, bit for
    bit. A state takes 131,080 bytes (16384 counts of int64, and both ends), with ``axis`` that much for each
    channel and 8 bytes more, however much data is seen. A range is chosen when one is asked for, for the
    codes of the scheme that asks. Formats that find levels or scales in data themselves get all that was
    seen.

    Parameters
    ----------
    axis : int, optional
        Keep counts for each channel along this axis.
    """

    arrays = ("lo", "hi", "counts")

    lo: NDArray[np.float32]
    hi: NDArray[np.float32]
    counts: NDArray[np.int64]

    @abstractmethod
    def _choose(self, bins: Bins, scheme: Scheme) -> tuple[float, float]:
        """Choose a range within ``bins.lo`` and ``bins.hi``; the bins are not empty."""

    def to(self, observer: C) -> C:
        """Give an observer with another rule that has seen the same data; neither changes the other.

        Parameters
        ----------
        observer : Observer
            Of the same ``axis``, one that keeps counts; its own data is not used.

        Returns
        -------
        Observer
            Of the class and settings of ``observer``.

        Raises
        ------
        QrsTypeError
            If ``observer`` keeps no counts.
        QrsValueError
            If its axis is another one.

        Examples
        --------
        >>> import numpy as np, qrs
        >>> seen = qrs.observers.MSE()
        >>> seen.update(np.append(np.linspace(-1, 1, 9999), 50.0))
        >>> float(seen.to(qrs.observers.Percentile(percentile=99.9)).range("int8")[1]) < 1.01
        True
        """
        if not isinstance(observer, Counted):
            raise QrsTypeError(
                f"observer is {quote(observer)}, expected one that keeps counts, such as MSE()"
            )
        if observer.axis != self.axis:
            raise QrsValueError(f"{self!r} cannot become {observer!r}: their axes differ")
        made = observer.fresh()
        # States are replaced and never written to, so the arrays may be shared.
        for name in self.arrays if self.batches else ():
            setattr(made, name, getattr(self, name))
        made.batches, made.count = self.batches, self.count
        return made

    def _update(self, data: NDArray[np.float32], lo: NDArray[np.float32], hi: NDArray[np.float32]) -> None:
        counts = count(data, self.axis)
        if self.batches:
            counts += self.counts
            lo, hi = np.minimum(self.lo, lo), np.maximum(self.hi, hi)
        self.lo, self.hi, self.counts = lo, hi, counts

    def _merge(self, other: Counted) -> None:
        self.lo, self.hi = np.minimum(self.lo, other.lo), np.maximum(self.hi, other.hi)
        self.counts = self.counts + other.counts

    def _chosen(self, scheme: Scheme, entries: slice) -> tuple[NDArray[Any], NDArray[Any]]:
        rows = self.counts if entries.start else [self.counts.sum(axis=0)]
        lo, hi = self.lo[entries].copy(), self.hi[entries].copy()
        if scheme.format.kind in ("learned", "block", "trellis"):
            return lo, hi
        with quiet():
            for i, row in enumerate(rows):
                if lo[i] < hi[i]:
                    lo[i], hi[i] = self._choose(Bins.of(row, float(lo[i]), float(hi[i])), scheme)
        return lo, hi

    def _check_restored(self) -> None:
        super()._check_restored()
        counts, wanted = self.counts, (max(self._channels(), 1), BINS)
        if counts.dtype != np.int64 or counts.shape != wanted:
            came = f"{counts.dtype} {counts.shape}"
            raise FormatError(f"{self.kind} {self.id!r} has counts of {came}, expected int64 {wanted}")
        if (counts < 0).any() or int(counts.sum()) != self.count:
            raise FormatError(
                f"{self.kind} {self.id!r} has counts that are not those of {self.count} elements"
            )
        rows = counts.sum(axis=0)[None]
        if self.axis is not None:
            rows = np.concatenate([rows, counts])
        for row, lo, hi in zip(rows, self.lo, self.hi, strict=True):
            ends = count(np.array([lo, hi], np.float32), None)[0]
            if (row[ends > 0] == 0).any():
                raise FormatError(f"{self.kind} {self.id!r} has no counts where its ranges end")
