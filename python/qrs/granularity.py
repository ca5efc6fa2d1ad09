"""Which elements share a scale: a block length for each axis of an array.

The native module knows only block lengths; here they get their names, and the shapes that ``scale`` has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .arrays import integer
from .errors import QrsTypeError, QrsValueError, quote
from .registry import Registered

__all__ = ["Granularity", "per_block", "per_channel", "per_group", "per_tensor", "per_token"]

Shape = tuple[int, ...]


def _axis(axis: int, shape: Shape, granularity: Granularity) -> int:
    if not -len(shape) <= axis < len(shape):
        raise QrsValueError(
            f"axis {axis} of {granularity!r} is out of range for a {shape} array of ndim {len(shape)}"
        )
    return axis % len(shape)


def _cells(shape: Shape, block: Shape) -> Shape:
    return tuple(-(-length // size) for length, size in zip(shape, block, strict=True))


class Granularity(Registered, kind="granularity"):
    """Which elements share a scale: a block length for each axis.

    A cell is one block; the last block along an axis may be short. Frozen dataclasses by `id`: `per_tensor`,
    `per_channel`, `per_token`, `per_group`, `per_block`.

    Examples
    --------
    >>> import qrs
    >>> isinstance(qrs.per_group(32), qrs.Granularity), qrs.per_group(32).id
    (True, 'per_group')
    """

    def block(self, shape: Shape) -> Shape:
        """Give the block length on each axis of an array.

        Parameters
        ----------
        shape : tuple of int

        Returns
        -------
        tuple of int
            As many as axes; a full block of an empty axis has length 0.

        Raises
        ------
        QrsValueError
            If an array of ``shape`` has too few axes.

        Examples
        --------
        >>> import qrs
        >>> qrs.per_channel(0).block((8, 70)), qrs.per_block((4, 32)).block((8, 70))
        ((1, 70), (4, 32))
        """
        raise NotImplementedError

    def params_shape(self, shape: Shape) -> Shape:
        """Give the shape of ``scale`` and ``zero_point``, which have as many entries as there are cells.

        Parameters
        ----------
        shape : tuple of int
            Of the array.

        Returns
        -------
        tuple of int

        Raises
        ------
        QrsValueError
            If an array of ``shape`` has too few axes.

        Examples
        --------
        >>> import qrs
        >>> qrs.per_channel(0).params_shape((8, 70)), qrs.per_block((4, 32)).params_shape((8, 70))
        ((8,), (2, 3))
        """
        return _cells(shape, self.block(shape))

    def to_dict(self) -> dict[str, Any]:
        """Give plain data for JSON; `from_dict` reads it.

        Returns
        -------
        dict
            The id and the fields.

        Examples
        --------
        >>> import qrs
        >>> qrs.per_group(32).to_dict()
        {'id': 'per_group', 'size': 32, 'axis': -1}
        """
        return {"id": self.id, **vars(self)}

    @staticmethod
    def from_dict(data: object) -> Granularity:
        """Build the granularity that `to_dict` described.

        Parameters
        ----------
        data : mapping
            With an ``id`` and the fields of that granularity.

        Returns
        -------
        Granularity

        Raises
        ------
        QrsValueError
            If the id is unknown, or a field is missing, unknown or not valid.

        Examples
        --------
        >>> import qrs
        >>> qrs.Granularity.from_dict({"id": "per_channel", "axis": 1})
        per_channel(1)
        """
        if not isinstance(data, Mapping) or "id" not in data:
            raise QrsValueError(f"granularity is {quote(data)}, expected a mapping with an id")
        fields = {key: value for key, value in data.items() if key != "id"}
        try:
            return Granularity.by_id(data["id"])(**fields)
        except TypeError as error:
            raise QrsValueError(f"granularity {quote(data)} has wrong fields: {error}") from error


@dataclass(frozen=True, repr=False)
class PerTensor(Granularity, id="per_tensor"):
    """One cell for the whole array; ``scale`` has shape ``()``. Written with or without ``()``.

    Examples
    --------
    >>> import qrs
    >>> qrs.per_tensor, qrs.per_tensor.params_shape((8, 70))
    (per_tensor, ())
    """

    def __call__(self) -> PerTensor:
        return self

    def __repr__(self) -> str:
        return "per_tensor"

    def block(self, shape: Shape) -> Shape:
        return shape

    def params_shape(self, shape: Shape) -> Shape:
        return ()


@dataclass(frozen=True, repr=False)
class PerToken(Granularity, id="per_token"):
    """One cell for each vector along the last axis; ``scale`` has shape ``shape[:-1]``.

    Examples
    --------
    >>> import qrs
    >>> qrs.per_token, qrs.per_token.params_shape((2, 8, 70))
    (per_token, (2, 8))
    """

    def __call__(self) -> PerToken:
        return self

    def __repr__(self) -> str:
        return "per_token"

    def block(self, shape: Shape) -> Shape:
        if not shape:
            raise QrsValueError("per_token needs an array of ndim 1 or more, got ndim 0")
        return (1,) * (len(shape) - 1) + shape[-1:]

    def params_shape(self, shape: Shape) -> Shape:
        self.block(shape)
        return shape[:-1]


@dataclass(frozen=True, repr=False)
class PerChannel(Granularity, id="per_channel"):
    """One cell for each index on ``axis``; ``scale`` has shape ``(shape[axis],)``.

    Parameters
    ----------
    axis : int
        Negative ones count from the end.

    Examples
    --------
    >>> import qrs
    >>> qrs.per_channel(-1), qrs.per_channel(-1).params_shape((8, 70))
    (per_channel(-1), (70,))
    """

    axis: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "axis", integer(self.axis, "axis"))

    def __repr__(self) -> str:
        return f"per_channel({self.axis})"

    def block(self, shape: Shape) -> Shape:
        axis = _axis(self.axis, shape, self)
        return (*shape[:axis], 1, *shape[axis + 1 :])

    def params_shape(self, shape: Shape) -> Shape:
        return (shape[_axis(self.axis, shape, self)],)


@dataclass(frozen=True, repr=False)
class PerGroup(Granularity, id="per_group"):
    """One cell for each run of ``size`` elements along ``axis``; a last run may be short.

    ``scale`` has the array's shape with ``axis`` replaced by ``ceil(shape[axis] / size)``.

    Parameters
    ----------
    size : int
        From 1.
    axis : int, default -1

    Examples
    --------
    >>> import qrs
    >>> qrs.per_group(32), qrs.per_group(32).params_shape((8, 70))
    (per_group(32), (8, 3))
    """

    size: int
    axis: int = -1

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", integer(self.size, "size"))
        object.__setattr__(self, "axis", integer(self.axis, "axis"))
        if self.size < 1:
            raise QrsValueError(f"size of per_group is {self.size}, expected 1 or more")

    def __repr__(self) -> str:
        return f"per_group({self.size})" if self.axis == -1 else f"per_group({self.size}, axis={self.axis})"

    def block(self, shape: Shape) -> Shape:
        axis = _axis(self.axis, shape, self)
        length = min(self.size, max(shape[axis], 1))
        return (1,) * axis + (length,) + (1,) * (len(shape) - axis - 1)

    def params_shape(self, shape: Shape) -> Shape:
        axis = _axis(self.axis, shape, self)
        return (*shape[:axis], -(-shape[axis] // self.size), *shape[axis + 1 :])


@dataclass(frozen=True, repr=False)
class PerBlock(Granularity, id="per_block"):
    """One cell for each ``(rows, columns)`` block of the last two axes; blocks at the edges may be short.

    ``scale`` has the array's shape with the last two lengths divided by the block's and rounded up.

    Parameters
    ----------
    size : tuple of int
        Rows and columns, each from 1.

    Examples
    --------
    >>> import qrs
    >>> qrs.per_block((4, 32)), qrs.per_block((4, 32)).params_shape((8, 70))
    (per_block((4, 32)), (2, 3))
    """

    size: tuple[int, int]

    def __post_init__(self) -> None:
        given: object = self.size
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise QrsTypeError(f"size of per_block is {quote(given)}, expected (rows, columns)")
        rows, columns = integer(given[0], "rows"), integer(given[1], "columns")
        if rows < 1 or columns < 1:
            raise QrsValueError(f"size of per_block is {(rows, columns)}, expected 1 or more in both")
        object.__setattr__(self, "size", (rows, columns))

    def __repr__(self) -> str:
        return f"per_block({self.size})"

    def block(self, shape: Shape) -> Shape:
        if len(shape) < 2:
            raise QrsValueError(f"{self!r} needs an array of ndim 2 or more, got shape {shape}")
        tail = (min(size, max(n, 1)) for size, n in zip(self.size, shape[-2:], strict=True))
        return (1,) * (len(shape) - 2) + tuple(tail)


per_tensor = PerTensor()
per_token = PerToken()
per_channel = PerChannel
per_group = PerGroup
per_block = PerBlock
