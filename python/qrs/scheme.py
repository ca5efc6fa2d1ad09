"""How one tensor is quantized, as data: formats, `Scheme` and `QParams`.

A `Scheme` is frozen and knows no tensor: it says which codes, which elements share a scale, and how values
are rounded. The scale formula itself has one home, the native ``qparams``; `Scheme.qparams` is the only way
to it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from .arrays import as_float32, lengths, plain, quiet, read_only
from .errors import QrsTypeError, QrsValueError, quote
from .granularity import Granularity, Shape, per_block, per_channel, per_group, per_tensor, per_token
from .registry import unknown

__all__ = [
    "FORMATS",
    "Format",
    "Granularity",
    "QParams",
    "Scheme",
    "Shape",
    "per_block",
    "per_channel",
    "per_group",
    "per_tensor",
    "per_token",
]

FITS = tuple(_core.fits())
ROUNDINGS = tuple(_core.roundings())
SCALE_DTYPES = tuple(_core.scale_dtypes())


@dataclass(frozen=True, slots=True)
class Format:
    """One row of the native format table: the codes a tensor may hold.

    Attributes
    ----------
    name : str
        The ``dtype`` of a `Scheme`.
    bits : int
        Bits of one packed code.
    signed : bool
        Whether codes are two's complement.
    min, max : int
        The lowest and the highest code.

    Examples
    --------
    >>> FORMATS["int4"]
    Format(name='int4', bits=4, signed=True, min=-8, max=7)
    """

    name: str
    bits: int
    signed: bool
    min: int
    max: int


FORMATS: Mapping[str, Format] = {
    row["name"]: Format(row["name"], row["bits"], row["signed"], row["min"], row["max"])
    for row in _core.formats()
}


@dataclass(frozen=True, slots=True)
class _ScaleDtype:
    """How scales are stored: bytes of one, and the smallest that is normal."""

    bytes: int
    smallest: float

    def holds(self, scale: NDArray[np.float32], name: str) -> NDArray[np.bool_]:
        """Tell which float32 values the type represents exactly."""
        if name == "float16":
            with quiet():
                return np.asarray(scale.astype(np.float16).astype(np.float32) == scale)
        if name == "bfloat16":
            # A bfloat16 is the upper half of a float32.
            return np.asarray(scale.view(np.uint32) & 0xFFFF == 0)
        return np.ones(scale.shape, np.bool_)


_STORED = {
    "float32": _ScaleDtype(4, 2.0**-126),
    "float16": _ScaleDtype(2, 2.0**-14),
    "bfloat16": _ScaleDtype(2, 2.0**-126),
}


def _first(bad: NDArray[np.bool_], values: NDArray[Any]) -> str:
    """Say the first offending value, and where it stands in an array of more than one."""
    index = int(np.argmax(bad))
    return f"{values.flat[index]}" + (f" at flat index {index}" if values.size > 1 else "")


@dataclass(frozen=True, init=False, eq=False)
class QParams:
    """The numbers that turn codes into values: ``value = scale * (code - zero_point)``.

    Parameters
    ----------
    scale : array_like of float
        One for each cell, shaped as `Scheme.params_shape` says. Rounded once to float32; must be finite,
        positive and not subnormal.
    zero_point : array_like of int
        The code that stands for 0.0: the shape of ``scale``, or one for all.

    Raises
    ------
    QrsValueError
        If a scale is zero, negative, not finite or subnormal, or the shapes differ.
    QrsTypeError
        If ``zero_point`` is not of an integer dtype.

    Examples
    --------
    >>> QParams([0.5, 0.25], 0)
    QParams(scale=array([0.5 , 0.25], dtype=float32), zero_point=array([0, 0], dtype=int32))
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32]
    # No field: the last scheme that these numbers were found to fit. Neither ever changes, so one check does.
    _fits: ClassVar[Scheme | None] = None

    def __init__(self, scale: ArrayLike, zero_point: ArrayLike = 0) -> None:
        scales = as_float32(scale, "scale")
        bad = ~(np.isfinite(scales) & (scales >= np.float32(2.0**-126)))
        if bad.any():
            raise QrsValueError(
                f"scale is {_first(bad, scales)}, expected finite values > 0, the smallest 1.1754944e-38"
            )
        points = plain(zero_point, "zero_point")
        if points.dtype.kind not in "iu":
            raise QrsTypeError(f"zero_point has dtype {points.dtype}, expected integers")
        if points.shape not in ((), scales.shape):
            raise QrsValueError(f"zero_point has shape {points.shape}, expected {scales.shape} as scale has")
        bad = (points < -(2**31)) | (points >= 2**31)
        if bad.any():
            raise QrsValueError(f"zero_point is {_first(np.asarray(bad), points)}, outside of int32")
        if points.shape != scales.shape:
            points = np.full(scales.shape, points, np.int32)
        object.__setattr__(self, "scale", read_only(scales))
        object.__setattr__(self, "zero_point", read_only(np.asarray(points, dtype=np.int32, order="C")))

    @classmethod
    def _made(
        cls, cells: tuple[NDArray[np.float32], NDArray[np.int32]], shape: Shape, scheme: Scheme
    ) -> QParams:
        """Wrap what the native module computed for a scheme: new arrays, sound as they are."""
        made = object.__new__(cls)
        scale, zero_point = cells
        scale.flags.writeable = zero_point.flags.writeable = False
        # A frozen dataclass refuses assignment; filling its dict is faster than object.__setattr__ for each.
        vars(made).update(scale=scale.reshape(shape), zero_point=zero_point.reshape(shape), _fits=scheme)
        return made

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QParams):
            return NotImplemented
        return np.array_equal(self.scale, other.scale) and np.array_equal(self.zero_point, other.zero_point)

    def __hash__(self) -> int:
        return hash((self.scale.tobytes(), self.zero_point.tobytes()))

    def __reduce__(self) -> tuple[Any, ...]:
        # Copies are made by the constructor, so that they too are checked and cannot be written.
        return QParams, (self.scale, self.zero_point)


@dataclass(frozen=True, init=False, slots=True)
class Scheme:
    """Frozen description of how one tensor is quantized.

    ``code = clamp(round(x / scale)) + zero_point`` and ``value = scale * (code - zero_point)``.

    Parameters
    ----------
    dtype : str
        A format name: ``int1`` to ``int8``, ``uint1`` to ``uint8``.
    granularity : Granularity, default `per_tensor`
        Which elements share a scale.
    symmetric : bool, optional
        Whether the zero point is fixed (0, or ``2**(bits - 1)`` when unsigned). Default: signed formats are.
    rounding : str, default ``"half_even"``
        Also ``half_away``, ``half_up``, ``floor``, ``ceil``, ``toward_zero``, ``stochastic``.
    fit : str, default ``"minmax"``
        How a cell's range is chosen when no parameters are given: ``minmax`` from its smallest to its largest
        value; ``mse`` the one whose codes, rounded half to even, have the least squared error among some two
        hundred, never worse than ``minmax``. Given parameters, and ranges that an observer saw, override it.
    scale_dtype : str, default ``"float32"``
        What scales are rounded to and stored as: also ``float16``, ``bfloat16``.
    narrow_range : bool, optional
        Whether the lowest code is left out. Default: for symmetric int8, so that its codes are -127 to 127.

    Raises
    ------
    QrsValueError, QrsTypeError
        If a name is unknown, or narrowing leaves a single code.

    Examples
    --------
    >>> Scheme("int4", per_group(128), scale_dtype="float16")
    Scheme('int4', per_group(128), scale_dtype='float16')
    >>> Scheme("int8").code_range, Scheme("uint8").symmetric
    ((-127, 127), False)
    """

    dtype: str
    granularity: Granularity
    symmetric: bool
    rounding: str
    fit: str
    scale_dtype: str
    narrow_range: bool

    def __init__(
        self,
        dtype: str,
        granularity: Granularity = per_tensor,
        *,
        symmetric: bool | None = None,
        rounding: str = "half_even",
        fit: str = "minmax",
        scale_dtype: str = "float32",
        narrow_range: bool | None = None,
    ) -> None:
        for kind, name, known in (
            ("dtype", dtype, tuple(FORMATS)),
            ("rounding", rounding, ROUNDINGS),
            ("fit", fit, FITS),
            ("scale_dtype", scale_dtype, SCALE_DTYPES),
        ):
            if not isinstance(name, str):
                raise QrsTypeError(f"{kind} is {quote(name)}, expected one of {', '.join(known)}")
            if name not in known:
                raise unknown(kind, name, known)
        if not isinstance(granularity, Granularity):
            raise QrsTypeError(
                f"granularity is {quote(granularity)}, expected one of {', '.join(Granularity.ids())}"
            )
        for kind, flag in (("symmetric", symmetric), ("narrow_range", narrow_range)):
            if flag is not None and not isinstance(flag, bool | np.bool_):
                raise QrsTypeError(f"{kind} is {quote(flag)}, expected True, False or None")
        row = FORMATS[dtype]
        even = row.signed if symmetric is None else bool(symmetric)
        narrow = (row.bits == 8 and row.signed and even) if narrow_range is None else bool(narrow_range)
        if narrow and row.min + 1 >= row.max:
            raise QrsValueError(
                f"narrow_range leaves {dtype} with the single code {row.max}; use a wider dtype"
            )
        values = (dtype, granularity, even, rounding, fit, scale_dtype, narrow)
        for field, value in zip(dataclasses.fields(self), values, strict=True):
            object.__setattr__(self, field.name, value)

    @staticmethod
    def of(value: Scheme | str, name: str = "scheme") -> Scheme:
        """Take a `Scheme`, or a dtype name that stands for ``Scheme(name)``.

        Parameters
        ----------
        value : Scheme or str
        name : str, default "scheme"
            What it is called in messages.

        Returns
        -------
        Scheme

        Raises
        ------
        QrsTypeError
            If ``value`` is neither.
        QrsValueError
            If the dtype is unknown.

        Examples
        --------
        >>> Scheme.of("int8") == Scheme("int8")
        True
        """
        if isinstance(value, Scheme):
            return value
        if isinstance(value, str):
            return _of_name(value)
        raise QrsTypeError(f"{name} is {quote(value)}, expected a Scheme or one of {', '.join(FORMATS)}")

    @property
    def format(self) -> Format:
        """The format table's row of ``dtype``."""
        return FORMATS[self.dtype]

    @property
    def code_range(self) -> tuple[int, int]:
        """The lowest and the highest code in use."""
        return self.format.min + self.narrow_range, self.format.max

    @property
    def scale_bytes(self) -> int:
        """Bytes that one stored scale takes."""
        return _STORED[self.scale_dtype].bytes

    def block(self, shape: Shape) -> Shape:
        """Give the block length on each axis of an array: the elements that share a scale.

        Parameters
        ----------
        shape : tuple of int

        Returns
        -------
        tuple of int

        Raises
        ------
        QrsTypeError, QrsValueError
            If ``shape`` is none of an array, or an array of it has too few axes for the granularity.

        Examples
        --------
        >>> Scheme("int4", per_group(32)).block((8, 70))
        (1, 32)
        """
        return self.granularity.block(lengths(shape))

    def params_shape(self, shape: Shape) -> Shape:
        """Give the shape of ``scale`` and ``zero_point`` for an array of ``shape``.

        Parameters
        ----------
        shape : tuple of int

        Returns
        -------
        tuple of int

        Raises
        ------
        QrsTypeError, QrsValueError
            If ``shape`` is none of an array, or an array of it has too few axes for the granularity.

        Examples
        --------
        >>> Scheme("int4", per_group(32)).params_shape((8, 70))
        (8, 3)
        """
        return self.granularity.params_shape(lengths(shape))

    def qparams(self, lo: ArrayLike, hi: ArrayLike) -> QParams:
        """Turn ranges into parameters: the smallest scale with which the codes hold ``lo``, 0 and ``hi``.

        Parameters
        ----------
        lo, hi : array_like of float
            The ends of each cell's range, finite, of one shape, ``lo <= hi``. Zero is added to every range.

        Returns
        -------
        QParams
            Of the shape of ``lo``. Symmetric: ``scale = max(hi / (qmax - zero_point), lo / (qmin -
            zero_point))``. Otherwise ``scale = (hi - lo) / (qmax - qmin)`` and ``zero_point = round(qmin - lo
            / scale)``. A cell of zeros has scale 1.

        Raises
        ------
        QrsValueError
            If the shapes differ, a value is not finite, or ``lo > hi``.

        Examples
        --------
        >>> qp = Scheme("uint8").qparams(-1.0, 4.1)
        >>> float(qp.scale), int(qp.zero_point)
        (0.019999999552965164, 50)
        """
        low, high = as_float32(lo, "lo"), as_float32(hi, "hi")
        if low.shape != high.shape:
            raise QrsValueError(f"lo has shape {low.shape} and hi {high.shape}, expected one shape")
        cells = _core.qparams(low, high, self.dtype, self.symmetric, self.narrow_range, self.scale_dtype)
        return QParams._made(cells, low.shape, self)

    def check_qparams(self, qparams: object, shape: Shape) -> None:
        """Raise unless ``qparams`` fits this scheme and an array of ``shape``.

        Parameters
        ----------
        qparams : QParams
        shape : tuple of int

        Raises
        ------
        QrsTypeError
            If it is no `QParams`.
        QrsValueError
            If there are not as many scales as cells, a zero point is no code or not the fixed one of a
            symmetric scheme, or ``scale_dtype`` cannot hold a scale.

        Examples
        --------
        >>> Scheme("int4", per_channel(0)).check_qparams(QParams([0.5, 0.25], 0), (2, 70))
        """
        self._check(qparams, lengths(shape))

    def _check(self, qparams: object, shape: Shape) -> None:
        """Do what `check_qparams` says for the shape of an array that there is."""
        if not isinstance(qparams, QParams):
            raise QrsTypeError(f"qparams is {quote(qparams)}, expected QParams")
        expected = self.granularity.params_shape(shape)
        if qparams.scale.shape != expected:
            what = f"{self.granularity!r} of a {shape} array"
            raise QrsValueError(f"scale has shape {qparams.scale.shape}, expected {expected} for {what}")
        if qparams._fits is not self:
            self._check_values(qparams)
            object.__setattr__(qparams, "_fits", self)

    def _check_values(self, qparams: QParams) -> None:
        """Refuse scales that ``scale_dtype`` does not hold, and zero points that are none of this scheme."""
        scale, points = qparams.scale, qparams.zero_point
        stored = _STORED[self.scale_dtype]
        bad = ~stored.holds(scale, self.scale_dtype) | (scale < stored.smallest)
        if bad.any():
            raise QrsValueError(
                f"scale is {_first(bad, scale)}, which {self.scale_dtype} does not hold as a normal number; "
                f"round it first or use scale_dtype='float32'"
            )
        lowest, highest = self.code_range
        if self.symmetric:
            lowest = highest = 0 if self.format.signed else 1 << (self.format.bits - 1)
        bad = (points < lowest) | (points > highest)
        if bad.any():
            what = (
                f"{lowest} as {self.dtype} is symmetric"
                if self.symmetric
                else f"[{lowest}, {highest}] of {self.dtype}"
            )
            raise QrsValueError(f"zero_point is {_first(bad, points)}, expected {what}")

    def to_dict(self) -> dict[str, Any]:
        """Give plain data for JSON, every choice spelled out; `from_dict` reads it.

        Returns
        -------
        dict

        Examples
        --------
        >>> data = Scheme("int4", per_group(32)).to_dict()
        >>> data["dtype"], data["granularity"], data["symmetric"]
        ('int4', {'id': 'per_group', 'size': 32, 'axis': -1}, True)
        """
        data = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**data, "granularity": self.granularity.to_dict()}

    @staticmethod
    def from_dict(data: object) -> Scheme:
        """Build the scheme that `to_dict` described; a missing choice takes its default.

        Parameters
        ----------
        data : mapping

        Returns
        -------
        Scheme

        Raises
        ------
        QrsValueError
            If the data is no mapping, has no ``dtype`` or has a field that is not known.

        Examples
        --------
        >>> Scheme.from_dict({"dtype": "uint4", "granularity": {"id": "per_channel", "axis": 0}})
        Scheme('uint4', per_channel(0))
        """
        known = [field.name for field in dataclasses.fields(Scheme)]
        if not isinstance(data, Mapping) or "dtype" not in data:
            raise QrsValueError(f"scheme is {quote(data)}, expected a mapping with a dtype")
        for key in data:
            if key not in known:
                raise unknown("field of a scheme", key, known)
        fields = dict(data)
        if "granularity" in fields:
            fields["granularity"] = Granularity.from_dict(fields["granularity"])
        return Scheme(**fields)

    def __repr__(self) -> str:
        plainest = Scheme(self.dtype)
        parts = [repr(self.dtype)]
        if self.granularity != per_tensor:
            parts.append(repr(self.granularity))
        if self.symmetric != plainest.symmetric:
            parts.append(f"symmetric={self.symmetric}")
            plainest = Scheme(self.dtype, symmetric=self.symmetric)
        rest = ("rounding", "fit", "scale_dtype", "narrow_range")
        chosen = [name for name in rest if getattr(self, name) != getattr(plainest, name)]
        parts += [f"{name}={getattr(self, name)!r}" for name in chosen]
        return f"Scheme({', '.join(parts)})"


@cache
def _of_name(dtype: str) -> Scheme:
    return Scheme(dtype)
