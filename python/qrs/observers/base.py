"""What every observer does alike: check a batch, count it, guard the state, save and load.

A subclass adds its one idea in two methods on plain vectors. Entry 0 of such a vector is the whole tensor;
with ``axis=`` given, entry ``1 + c`` is channel ``c``. So per-tensor and per-channel ranges need no two
codes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from ..arrays import as_float32, integer, quiet
from ..errors import FormatError, NotCalibratedError, QrsTypeError, QrsValueError, quote
from ..registry import Registered
from ..scheme import QParams, Scheme, per_channel, per_tensor

__all__ = ["Observer"]

O = TypeVar("O", bound="Observer")  # noqa: E741
Ends = tuple[NDArray[np.float32], NDArray[np.float32]]


class Observer(Registered, kind="observer"):
    """A mergeable, constant-memory summary of data that answers `range`.

    A subclass is defined with an ``id``, names the arrays of its state in ``arrays``, and says in
    ``order_free`` whether the order of batches and merges leaves its result alone. It implements ``_update``
    and ``_merge``, and ``_range`` where the state is not the range itself. One observer belongs to one
    thread; threads that observe at once each take a `fresh` one and merge.

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

    arrays: ClassVar[tuple[str, ...]] = ("lo", "hi")
    order_free: ClassVar[bool] = True

    def __init__(self, *, axis: int | None = None) -> None:
        self.axis = None if axis is None else integer(axis, "axis")
        self.batches = 0
        self.count = 0

    @abstractmethod
    def _update(self, data: NDArray[np.float32], lo: NDArray[np.float32], hi: NDArray[np.float32]) -> None:
        """Take in a batch, finite and not empty; ``lo`` and ``hi`` are its ranges, entry 0 the whole."""

    @abstractmethod
    def _merge(self: O, other: O) -> None:
        """Take in what another observer of the same settings saw; both have seen data."""

    def _range(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Give the ranges, entry 0 the whole tensor."""
        return self.lo, self.hi  # type: ignore[attr-defined]

    def settings(self) -> dict[str, Any]:
        """Give the keyword arguments that make an observer like this one, as plain data for JSON.

        Returns
        -------
        dict

        Examples
        --------
        >>> import qrs
        >>> qrs.observers.MinMax(axis=0).settings()
        {'axis': 0}
        """
        return {"axis": self.axis}

    def fresh(self: O) -> O:
        """Make an observer of the same settings that has seen nothing.

        Returns
        -------
        Observer
            Of the same class.

        Examples
        --------
        >>> import qrs
        >>> qrs.observers.MovingAverage(momentum=0.5).fresh()
        MovingAverage(momentum=0.5)
        """
        return type(self)(**self.settings())

    def update(self, x: ArrayLike) -> None:
        """Take in one batch.

        Parameters
        ----------
        x : array_like of float
            Any shape that has ``axis``; an empty batch changes nothing.

        Raises
        ------
        QrsTypeError
            If ``x`` is not an array of floats.
        QrsValueError
            If a value is not finite, or the number of channels is not that of the batches before. The state
            then is what it was.

        Examples
        --------
        >>> import qrs
        >>> seen = qrs.observers.MinMax()
        >>> seen.update([0.5, -1.0])
        >>> seen.batches, seen.count
        (1, 2)
        """
        data = as_float32(x, "x")
        if not data.size:
            return
        batch = f"batch {self.batches} of {self!r}"
        if self.axis is None:
            block = data.shape
        elif -data.ndim <= self.axis < data.ndim:
            block = per_channel(self.axis).block(data.shape)
        else:
            raise QrsValueError(f"{batch} has shape {data.shape}, which has no axis {self.axis}")
        try:
            lo, hi = _core.min_max(data, block, True)
        except ValueError as error:
            raise QrsValueError(f"{batch}: {error}") from error
        if self.axis is not None:
            lo, hi = np.append(lo.min(), lo), np.append(hi.max(), hi)
        if self.batches and lo.size != self._range()[0].size:
            seen = self._range()[0].size - 1
            raise QrsValueError(
                f"{batch} has {lo.size - 1} channels on axis {self.axis}, expected {seen} as before"
            )
        with quiet():
            self._update(data, lo, hi)
        self.batches += 1
        self.count += data.size

    def merge(self, other: Observer) -> None:
        """Take in what another observer saw; ``other`` is left as it is.

        Parameters
        ----------
        other : Observer
            Of the same class and settings.

        Raises
        ------
        QrsTypeError
            If ``other`` is another kind of observer.
        QrsValueError
            If its settings or its number of channels differ.

        Examples
        --------
        >>> import qrs
        >>> one, two = qrs.observers.MinMax(), qrs.observers.MinMax()
        >>> one.update([0.5, -1.0])
        >>> two.update([2.0])
        >>> one.merge(two)
        >>> [float(end) for end in one.range("int8")]
        [-1.0, 2.0]
        """
        if type(other) is not type(self):
            raise QrsTypeError(
                f"{self!r} cannot merge a {type(other).__name__}, expected a {type(self).__name__}"
            )
        if other.settings() != self.settings():
            raise QrsValueError(f"{self!r} cannot merge {other!r}: their settings differ")
        if not other.batches:
            return
        if not self.batches:
            self._restore(other._state_arrays())
        else:
            mine, others = self._range()[0].size - 1, other._range()[0].size - 1
            if mine != others:
                raise QrsValueError(f"{self!r} saw {mine} channels and cannot merge one that saw {others}")
            with quiet():
                self._merge(other)
        self.batches += other.batches
        self.count += other.count

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
        if not self.batches:
            raise NotCalibratedError(f"{self!r} has seen no data; call update first")
        with quiet():
            lo, hi = (np.asarray(ends, np.float32) for ends in self._range())
        return (lo[0].reshape(()), hi[0].reshape(())) if whole else (lo[1:].copy(), hi[1:].copy())

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

    def to_state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Give the settings and counts as plain data for JSON, and the state's arrays by name.

        Returns
        -------
        data : dict
        arrays : dict of str to ndarray
            Copies; none before any data was seen.

        Examples
        --------
        >>> from qrs.observers import MinMax
        >>> seen = MinMax()
        >>> seen.update([1.0, -2.0])
        >>> seen.to_state()[0]
        {'id': 'minmax', 'settings': {'axis': None}, 'batches': 1, 'count': 2}
        """
        data = {"id": self.id, "settings": self.settings(), "batches": self.batches, "count": self.count}
        return data, self._state_arrays()

    @staticmethod
    def from_state(data: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Observer:
        """Build the observer that `to_state` described.

        Parameters
        ----------
        data : mapping
        arrays : mapping of str to ndarray

        Returns
        -------
        Observer
            Of the class that the id names.

        Raises
        ------
        FormatError
            If a field or array is missing or cannot be; the message names it.

        Examples
        --------
        >>> import qrs
        >>> seen = qrs.observers.MinMax()
        >>> seen.update([1.0, -2.0])
        >>> qrs.observers.Observer.from_state(*seen.to_state()) == seen
        True
        """
        if not isinstance(data, Mapping):
            raise FormatError(f"observer is {quote(data)}, expected a mapping")
        for field, kind in (("id", str), ("settings", Mapping), ("batches", int), ("count", int)):
            if not isinstance(data.get(field), kind) or isinstance(data.get(field), bool):
                raise FormatError(
                    f"observer has {field} {quote(data.get(field))}, expected a {kind.__name__}"
                )
        try:
            observer = Observer.by_id(data["id"])(**data["settings"])
        except (TypeError, ValueError) as error:
            raise FormatError(f"observer {quote(data['id'])}: {error}") from error
        batches, count = data["batches"], data["count"]
        if not 0 <= batches <= count or bool(batches) != bool(count):
            raise FormatError(f"observer has {batches} batches of {count} elements, which cannot be")
        wanted = set(observer.arrays) if batches else set()
        if set(arrays) != wanted:
            raise FormatError(f"observer has arrays {quote(sorted(arrays))}, expected {sorted(wanted)}")
        if batches:
            observer._restore({name: np.asarray(arrays[name]) for name in observer.arrays})
            observer._check_restored()
        observer.batches, observer.count = batches, count
        return observer

    def _state_arrays(self) -> dict[str, NDArray[Any]]:
        return {name: getattr(self, name).copy() for name in self.arrays} if self.batches else {}

    def _restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        for name in self.arrays:
            setattr(self, name, np.array(arrays[name]))

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

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Observer):
            return NotImplemented
        (mine, arrays), (others, other_arrays) = self.to_state(), other.to_state()
        return (
            type(self) is type(other)
            and mine == others
            and all(np.array_equal(arrays[name], other_arrays[name]) for name in arrays)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        plainest = type(self)().settings()
        shown = (f"{key}={value!r}" for key, value in self.settings().items() if value != plainest[key])
        return f"{type(self).__name__}({', '.join(shown)})"
