"""What every summary of data does alike: check a batch, count it, guard the state, save and load.

A subclass adds its one idea in two methods on plain vectors. Entry 0 of such a vector is the whole tensor;
with ``axis=`` given, entry ``1 + c`` is channel ``c``. So per-tensor and per-channel numbers need no two
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
from ..granularity import per_channel
from ..registry import Registered

__all__ = ["Statistic"]

S = TypeVar("S", bound="Statistic")


class Statistic(Registered, kind="statistic"):
    """A mergeable, constant-memory summary of data.

    A subclass is defined with an ``id``, names the arrays of its state in ``arrays``, and says in
    ``order_free`` whether the order of batches and merges leaves its result alone. It implements ``_update``,
    ``_merge``, ``_channels`` and ``_check_restored``. Updates and merges replace the arrays of the state and
    never write into them, so that ``copy.copy`` keeps what was seen up to then. One statistic belongs to one
    thread; threads that observe at once each take a `fresh` one and merge.

    Parameters
    ----------
    axis : int, optional
        Keep numbers for each channel along this axis too.

    Attributes
    ----------
    batches, count : int
        Batches and elements seen. Empty batches do not count.

    Examples
    --------
    >>> import qrs
    >>> qrs.observers.Statistic.ids()
    ['entropy', 'gram', 'histogram', 'magnitude', 'minmax', 'moving_average', 'mse', 'percentile']
    """

    arrays: ClassVar[tuple[str, ...]] = ()
    order_free: ClassVar[bool] = True

    def __init__(self, *, axis: int | None = None) -> None:
        self.axis = None if axis is None else integer(axis, "axis")
        self.batches = 0
        self.count = 0

    @abstractmethod
    def _update(self, data: NDArray[np.float32], lo: NDArray[np.float32], hi: NDArray[np.float32]) -> None:
        """Take in a batch, finite and not empty; ``lo`` and ``hi`` are its ranges, entry 0 the whole."""

    @abstractmethod
    def _merge(self: S, other: S) -> None:
        """Take in what another statistic of the same settings saw; both have seen data."""

    @abstractmethod
    def _channels(self) -> int:
        """Count the channels that were seen; 0 without an axis."""

    @abstractmethod
    def _check_restored(self) -> None:
        """Refuse a saved state that no data could have; ``batches`` and ``count`` are those of the file."""

    def settings(self) -> dict[str, Any]:
        """Give the keyword arguments that make a statistic like this one, as plain data for JSON.

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

    def fresh(self: S) -> S:
        """Make a statistic of the same settings that has seen nothing.

        Returns
        -------
        Statistic
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
        if self.axis is not None and self.batches and lo.size - 1 != self._channels():
            seen = self._channels()
            raise QrsValueError(
                f"{batch} has {lo.size - 1} channels on axis {self.axis}, expected {seen} as before"
            )
        with quiet():
            self._update(data, lo, hi)
        self.batches += 1
        self.count += data.size

    def merge(self, other: Statistic) -> None:
        """Take in what another one saw; ``other`` is left as it is.

        Parameters
        ----------
        other : Statistic
            Of the same class and settings.

        Raises
        ------
        QrsTypeError
            If ``other`` is of another kind.
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
            mine, others = self._channels(), other._channels()
            if mine != others:
                raise QrsValueError(f"{self!r} saw {mine} channels and cannot merge one that saw {others}")
            with quiet():
                self._merge(other)
        self.batches += other.batches
        self.count += other.count

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

    @classmethod
    def from_state(cls: type[S], data: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> S:
        """Build the statistic that `to_state` described; ``Observer.from_state`` accepts observers alone.

        Parameters
        ----------
        data : mapping
        arrays : mapping of str to ndarray

        Returns
        -------
        Statistic
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
            raise FormatError(f"{cls.kind} is {quote(data)}, expected a mapping")
        for field, kind in (("id", str), ("settings", Mapping), ("batches", int), ("count", int)):
            if not isinstance(data.get(field), kind) or isinstance(data.get(field), bool):
                raise FormatError(
                    f"{cls.kind} has {field} {quote(data.get(field))}, expected a {kind.__name__}"
                )
        try:
            made = cls.by_id(data["id"])(**data["settings"])
        except (TypeError, ValueError) as error:
            raise FormatError(f"{cls.kind} {quote(data['id'])}: {error}") from error
        batches, count = data["batches"], data["count"]
        if not 0 <= batches <= count or bool(batches) != bool(count):
            raise FormatError(f"{cls.kind} has {batches} batches of {count} elements, which cannot be")
        wanted = set(made.arrays) if batches else set()
        if set(arrays) != wanted:
            raise FormatError(f"{cls.kind} has arrays {quote(sorted(arrays))}, expected {sorted(wanted)}")
        if batches:
            made._restore({name: np.asarray(arrays[name]) for name in made.arrays})
        made.batches, made.count = batches, count
        if batches:
            made._check_restored()
        return made

    def _expect_data(self) -> None:
        if not self.batches:
            raise NotCalibratedError(f"{self!r} has seen no data; call update first")

    def _state_arrays(self) -> dict[str, NDArray[Any]]:
        return {name: getattr(self, name).copy() for name in self.arrays} if self.batches else {}

    def _restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        for name in self.arrays:
            setattr(self, name, np.array(arrays[name]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Statistic):
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
