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
from .arrays import LARGEST, as_float32, flag, lengths, plain, read_only
from .errors import QrsTypeError, QrsValueError, quote
from .formats import FORMATS, NAMES, Format
from .granularity import Granularity, Shape, per_block, per_channel, per_group, per_tensor, per_token
from .registry import unknown
from .scales import SCALE_DTYPES

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


def _first(bad: NDArray[np.bool_], values: NDArray[Any]) -> str:
    """Say the first offending value, and where it stands in an array of more than one."""
    index = int(np.argmax(bad))
    return f"{values.flat[index]}" + (f" at flat index {index}" if values.size > 1 else "")


@dataclass(frozen=True, init=False, eq=False)
class QParams:
    """The numbers that turn codes into values: ``value = scale * (code - zero_point)``, or ``scale * level``.

    Parameters
    ----------
    scale : array_like of float
        One for each cell, shaped as `Scheme.params_shape` says. Rounded once to float32; must be finite,
        positive and not subnormal.
    zero_point : array_like of int
        The code that stands for 0.0: the shape of ``scale``, or one for all. 0 where formats are no integers.
    levels : array_like of float, shape (2**bits,), optional
        For a learned format (``codebook:b``): the level of each code, ascending.

    Raises
    ------
    QrsValueError
        If a scale is zero, negative, not finite or subnormal, the shapes differ, or levels are not finite
        or do not ascend.
    QrsTypeError
        If ``zero_point`` is not of an integer dtype.

    Notes
    -----
    A scale that was fitted to data may be negative where levels reach farther on one side of zero: it turns
    them round. See ``fit`` of `Scheme`.

    Examples
    --------
    >>> QParams([0.5, 0.25], 0)
    QParams(scale=array([0.5 , 0.25], dtype=float32), zero_point=array([0, 0], dtype=int32))
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32]
    levels: NDArray[np.float32] | None
    # No field: the last scheme that these numbers were found to fit. Neither ever changes, so one check does.
    _fits: ClassVar[Scheme | None] = None

    def __init__(self, scale: ArrayLike, zero_point: ArrayLike = 0, levels: ArrayLike | None = None) -> None:
        scales = as_float32(scale, "scale")
        bad = scales < 0
        if bad.any():
            raise QrsValueError(f"scale is {_first(bad, scales)}, expected finite values > 0")
        self._set(scales, zero_point, levels)

    def _set(self, scales: NDArray[np.float32], zero_point: ArrayLike, levels: ArrayLike | None) -> None:
        bad = ~(np.isfinite(scales) & (np.abs(scales) >= np.float32(2.0**-126)))
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
        object.__setattr__(self, "levels", None if levels is None else _ascending(levels))
        if self.levels is not None and scales.size:
            widest, largest = (float(np.abs(part).max()) for part in (self.levels, scales))
            if widest * largest > LARGEST:
                raise QrsValueError(f"levels reach {widest}, which times the scale {largest} is no float32")

    @classmethod
    def _fitted(
        cls, scale: ArrayLike, zero_point: ArrayLike, levels: ArrayLike | None, turned: bool = True
    ) -> QParams:
        """Do what the constructor does for numbers that were fitted once, whose scales may be negative."""
        if not turned:
            return cls(scale, zero_point, levels)
        made = object.__new__(cls)
        made._set(as_float32(scale, "scale"), zero_point, levels)
        return made

    @classmethod
    def _made(
        cls,
        cells: tuple[NDArray[np.float32], NDArray[np.int32]],
        shape: Shape,
        scheme: Scheme,
        levels: NDArray[np.float32] | None = None,
    ) -> QParams:
        """Wrap what the native module computed for a scheme: new arrays, sound as they are."""
        made = object.__new__(cls)
        scale, zero_point = cells
        scale.flags.writeable = zero_point.flags.writeable = False
        if levels is not None:
            levels.flags.writeable = False
        # A frozen dataclass refuses assignment; filling its dict is faster than object.__setattr__ for each.
        vars(made).update(
            scale=scale.reshape(shape), zero_point=zero_point.reshape(shape), levels=levels, _fits=scheme
        )
        return made

    @property
    def cells(self) -> _core.Cells:
        """All of it as native calls take it."""
        return self.scale, self.zero_point, self.levels

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QParams):
            return NotImplemented
        same = np.array_equal(self.scale, other.scale) and np.array_equal(self.zero_point, other.zero_point)
        if self.levels is None or other.levels is None:
            return same and self.levels is other.levels
        return same and np.array_equal(self.levels, other.levels)

    def __hash__(self) -> int:
        return hash((self.scale.tobytes(), self.zero_point.tobytes()))

    def __reduce__(self) -> tuple[Any, ...]:
        # Copies are made like new ones, so that they too are checked and cannot be written.
        return QParams._fitted, (self.scale, self.zero_point, self.levels)

    def __repr__(self) -> str:
        levels = "" if self.levels is None else f", levels={self.levels!r}"
        return f"QParams(scale={self.scale!r}, zero_point={self.zero_point!r}{levels})"


def _ascending(levels: ArrayLike) -> NDArray[np.float32]:
    """Take the levels of a learned format."""
    array = as_float32(levels, "levels")
    if array.ndim != 1 or not 2 <= array.size <= 256:
        raise QrsValueError(f"levels has shape {array.shape}, expected (2,) to (256,)")
    bad = ~np.isfinite(array)
    bad[1:] |= array[1:] < array[:-1]
    if bad.any():
        raise QrsValueError(f"levels is {_first(bad, array)}, expected finite values in ascending order")
    return read_only(array)


@dataclass(frozen=True, init=False, slots=True)
class Scheme:
    """Frozen description of how one tensor is quantized.

    Integers: ``code = clamp(round(x / scale)) + zero_point`` and ``value = scale * (code - zero_point)``.
    Other formats: the code of the level next to ``x / scale``, and ``value = scale * level``.

    Parameters
    ----------
    dtype : str
        A format name, one of `FORMATS`: ``int1`` to ``int8``, ``uint1`` to ``uint8``, ``int16``,
        ``uint16``; ``float16``, ``bfloat16``, ``float8_e4m3fn``, ``float8_e5m2``, ``float6_e2m3fn``,
        ``float4_e2m1fn`` and others of the names of ``ml_dtypes``; ``mxfp4``, ``mxint8``, ``nvfp4``;
        ``nf4``, ``pow2:4``, ``apot:4``, ``codebook:4`` (learned, the number is bits), ``binary``,
        ``ternary``; ``trellis:1`` to ``trellis:4`` and ``tcq:1`` to ``tcq:4``; the block types of GGUF,
        ``q4_0``, ``q4_k``, ``iq4_xs`` and others. Or ``float:eXmY``: X bits of exponent, Y of mantissa, 3 to
        8 bits or 16 with the sign.
    granularity : Granularity, optional
        Which elements share a scale. Default: `per_tensor`, or the blocks that the format prescribes, along
        the last axis.
    symmetric : bool, optional
        Whether the zero point is fixed (0, or ``2**(bits - 1)`` when unsigned). Default: all are but unsigned
        integers. Formats other than integers have none to choose.
    rounding : str, default ``"half_even"``
        Also ``half_away``, ``half_up``, ``floor``, ``ceil``, ``toward_zero``, ``stochastic``.
    fit : str, optional
        How a cell's scale is chosen when no parameters are given: ``minmax`` the smallest that holds its
        values; ``mse`` the one whose codes, rounded half to even, have the least squared error among some
        two hundred, never worse than ``minmax``. Where levels reach farther on one side of zero, ``mse``
        may turn them round by a negative scale. Given parameters, and ranges that an observer saw, override
        it. Default: ``minmax``, but ``mse`` for ``binary``, ``ternary`` and ``codebook:b``.
    scale_dtype : str, optional
        What scales are rounded to and stored as: ``float32`` (the default, unless the format prescribes
        another), ``float16``, ``bfloat16``, ``e8m0`` (powers of two) or ``e4m3`` (float8_e4m3fn times a
        float32 that all scales of the tensor share).
    narrow_range : bool, optional
        Whether the lowest code is left out. Default: for symmetric int8, so that its codes are -127 to 127.
    saturate : bool, default True
        Whether what is larger than the largest floating-point number becomes that, rather than infinity, or
        NaN in formats without infinity.
    L : int, default 12
        For a trellis: bits of its state, 8 to 16. Two more gain 0.15 dB at 2 bits and take four times as long
        to encode; decoding takes the same. It becomes a part of ``dtype``.
    code : str, optional
        For a trellis: what level a state stands for. ``table``: trained, the default where L is 8, 10 or 12;
        ``1mad`` and ``3inst``: the computed codes of QTIP (Tseng et al. 2024), the first the default for
        other L; ``quintic``: one for CPUs, that decodes fastest. It becomes a part of ``dtype``.
    states : int, default 8
        For ``tcq``, the classic trellis over scalar levels (Marcellin and Fischer 1990): its states, a power
        of two from 4 to 256. It becomes a part of ``dtype``.

    Raises
    ------
    QrsValueError, QrsTypeError
        If a name is unknown, narrowing leaves a single code, or the format does not go with a choice; the
        message says what does.

    Examples
    --------
    >>> Scheme("int4", per_group(128), scale_dtype="float16")
    Scheme('int4', per_group(128), scale_dtype='float16')
    >>> Scheme("int8").code_range, Scheme("uint8").symmetric
    ((-127, 127), False)
    >>> Scheme("trellis:2", L=10)
    Scheme('trellis:2:L=10')
    """

    dtype: str
    granularity: Granularity
    symmetric: bool
    rounding: str
    fit: str
    scale_dtype: str
    narrow_range: bool
    saturate: bool

    def __init__(
        self,
        dtype: str,
        granularity: Granularity | None = None,
        *,
        symmetric: bool | None = None,
        rounding: str = "half_even",
        fit: str | None = None,
        scale_dtype: str | None = None,
        narrow_range: bool | None = None,
        saturate: bool = True,
        L: int | None = None,
        code: str | None = None,
        states: int | None = None,
    ) -> None:
        if not isinstance(dtype, str):
            raise QrsTypeError(f"dtype is {quote(dtype)}, expected one of {', '.join((*FORMATS, *NAMES))}")
        row = Format.named(_trellis(dtype, L, code, states))
        dtype = row.name
        granularity = _granularity(row, granularity)
        fit = row.fit if fit is None else fit
        scale_dtype = (row.scale_dtype or "float32") if scale_dtype is None else scale_dtype
        for kind, name, known in (
            ("rounding", rounding, ROUNDINGS),
            ("fit", fit, FITS),
            ("scale_dtype", scale_dtype, tuple(SCALE_DTYPES)),
        ):
            if not isinstance(name, str):
                raise QrsTypeError(f"{kind} is {quote(name)}, expected one of {', '.join(known)}")
            if name not in known:
                raise unknown(kind, name, known)
        for kind, choice in (("symmetric", symmetric), ("narrow_range", narrow_range)):
            if choice is not None and not isinstance(choice, bool | np.bool_):
                raise QrsTypeError(f"{kind} is {quote(choice)}, expected True, False or None")
        saturate = flag(saturate, "saturate")
        plain_integer = row.kind == "integer" and row.block is None
        even = (row.signed or not plain_integer) if symmetric is None else bool(symmetric)
        narrow = plain_integer and row.bits == 8 and row.signed and even
        narrow = narrow if narrow_range is None else bool(narrow_range)
        if not even and not plain_integer:
            raise QrsValueError(f"symmetric is False for {dtype}, which has no zero point to choose")
        if narrow and not plain_integer:
            raise QrsValueError(f"narrow_range is True for {dtype}, expected False: only integers have one")
        if row.kind == "block":
            _check_blocks(row, rounding=rounding, fit=fit, scale_dtype=scale_dtype)
        if row.kind == "trellis" and rounding != "half_even":
            raise QrsValueError(
                f"rounding is {rounding} for {dtype}, which finds the best path; leave it at half_even"
            )
        if row.scale_dtype not in (None, scale_dtype):
            raise QrsValueError(f"scale_dtype is {scale_dtype} for {dtype}, expected {row.scale_dtype}")
        if not saturate and not row.overflows:
            raise QrsValueError(f"saturate is False for {dtype}, which has neither infinity nor NaN")
        if narrow and row.min + 1 >= row.max:
            raise QrsValueError(
                f"narrow_range leaves {dtype} with the single code {row.max}; use a wider dtype"
            )
        values = (dtype, granularity, even, rounding, fit, scale_dtype, narrow, saturate)
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
        return Format.named(self.dtype)

    @property
    def code_range(self) -> tuple[int, int]:
        """The lowest and the highest code in use."""
        return self.format.min + self.narrow_range, self.format.max

    @property
    def middle(self) -> int:
        """The zero point of a symmetric scheme: 0, or ``2**(bits - 1)`` of an unsigned integer."""
        unsigned = self.format.kind == "integer" and not self.format.signed
        return 1 << (self.format.bits - 1) if unsigned else 0

    @property
    def turns(self) -> bool:
        """Whether a fitted scale may be negative: where levels reach farther on one side of zero."""
        kind = self.format.kind
        if kind == "block" or (self.fit != "mse" and kind != "learned"):
            return False
        return _core.turns(self.dtype, self.symmetric, self.narrow_range, self.scale_dtype)

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
            ``(0,)`` where scales stand in blocks of bytes.

        Raises
        ------
        QrsTypeError, QrsValueError
            If ``shape`` is none of an array, an array of it has too few axes for the granularity, or its
            rows are no whole blocks.

        Examples
        --------
        >>> Scheme("int4", per_group(32)).params_shape((8, 70))
        (8, 3)
        """
        return self._params_shape(lengths(shape))

    def _params_shape(self, shape: Shape) -> Shape:
        """Do what `params_shape` says for the shape of an array that there is."""
        if self.format.kind != "block":
            return self.granularity.params_shape(shape)
        self._check_rows(shape)
        return (0,)

    def _check_rows(self, shape: Shape) -> None:
        """Refuse an array whose rows are not whole blocks of bytes."""
        size = self.format.block
        if size is not None and self.format.kind == "block" and (not shape or shape[-1] % size):
            raise QrsValueError(
                f"x has shape {shape}, expected a last axis of a multiple of {size}, the block of "
                f"{self.dtype}; pad the rows"
            )

    def qparams(self, lo: ArrayLike, hi: ArrayLike) -> QParams:
        """Turn ranges into parameters: the smallest scale with which the codes hold ``lo``, 0 and ``hi``.

        Parameters
        ----------
        lo, hi : array_like of float
            The ends of each cell's range, finite, of one shape, ``lo <= hi``. Zero is added to every range.

        Returns
        -------
        QParams
            Of the shape of ``lo``. Symmetric: ``scale = max(hi / highest, lo / lowest)``, the ends of the
            levels less the zero point; 1 where that is enough for a format of 16 bits; a power of two,
            ``2**(floor(log2(max |x|)) - floor(log2(highest)))``, for ``mx`` formats. Otherwise ``scale =
            (hi - lo) / (qmax - qmin)`` and ``zero_point = round(qmin - lo / scale)``. A cell of zeros has
            scale 1.

        Raises
        ------
        QrsValueError
            If the shapes differ, a value is not finite, ``lo > hi``, or the format learns its levels from
            data.

        Examples
        --------
        >>> qp = Scheme("uint8").qparams(-1.0, 4.1)
        >>> float(qp.scale), int(qp.zero_point)
        (0.019999999552965164, 50)
        """
        low, high = as_float32(lo, "lo"), as_float32(hi, "hi")
        if low.shape != high.shape:
            raise QrsValueError(f"lo has shape {low.shape} and hi {high.shape}, expected one shape")
        if self.format.kind in ("learned", "block"):
            what = "levels" if self.format.kind == "learned" else "scales"
            raise QrsValueError(f"{self.dtype} finds its {what} in data; quantize the data itself")
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
        expected = self._params_shape(shape)
        if qparams.scale.shape != expected:
            what = f"{self.granularity!r} of a {shape} array"
            raise QrsValueError(f"scale has shape {qparams.scale.shape}, expected {expected} for {what}")
        if qparams._fits is not self:
            self._check_values(qparams)
            object.__setattr__(qparams, "_fits", self)

    def _check_values(self, qparams: QParams) -> None:
        """Refuse what ``scale_dtype`` does not hold, or is no parameter of this scheme."""
        scale, points = qparams.scale, qparams.zero_point
        bad = ~SCALE_DTYPES[self.scale_dtype].holds(scale)
        if bad.any():
            raise QrsValueError(
                f"scale is {_first(bad, scale)}, which {self.scale_dtype} does not hold as a normal number; "
                f"round it first or use scale_dtype='float32'"
            )
        bad = scale < 0
        if bad.any() and not self.turns:
            raise QrsValueError(f"scale is {_first(bad, scale)}, expected finite values > 0")
        learned = 1 << self.format.bits if self.format.kind == "learned" else None
        count = None if qparams.levels is None else qparams.levels.size
        if count != learned:
            raise QrsValueError(
                f"levels has {count or 'no'} entries, expected {learned or 'none'} for {self.dtype}"
            )
        lowest, highest = self.code_range if self.format.kind == "integer" else (0, 0)
        if self.symmetric:
            lowest = highest = self.middle
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
        if self.granularity != plainest.granularity:
            parts.append(repr(self.granularity))
        if self.symmetric != plainest.symmetric:
            parts.append(f"symmetric={self.symmetric}")
            plainest = Scheme(self.dtype, symmetric=self.symmetric)
        rest = ("rounding", "fit", "scale_dtype", "narrow_range", "saturate")
        chosen = [name for name in rest if getattr(self, name) != getattr(plainest, name)]
        parts += [f"{name}={getattr(self, name)!r}" for name in chosen]
        return f"Scheme({', '.join(parts)})"


def _check_blocks(row: Format, **choices: str) -> None:
    """Refuse choices that a format with scales of its own leaves nobody."""
    only = {"rounding": "half_even", "fit": row.fit, "scale_dtype": "float32"}
    for kind, name in choices.items():
        if name != only[kind]:
            raise QrsValueError(
                f"{kind} is {name} for {row.name}, whose blocks have a rule of their own; "
                f"leave it at {only[kind]}"
            )


def _trellis(dtype: str, L: object, code: object, states: object) -> str:
    """Put what is said of a trellis into its name."""
    for kind, value, family, expected in (
        ("L", L, "trellis:", "an integer from 8 to 16"),
        ("code", code, "trellis:", "table, 1mad, 3inst or quintic"),
        ("states", states, "tcq:", "an integer from 4 to 256"),
    ):
        if value is None:
            continue
        if not isinstance(value, str if kind == "code" else int | np.integer) or isinstance(value, bool):
            raise QrsTypeError(f"{kind} is {quote(value)}, expected {expected}")
        if not dtype.startswith(family):
            raise QrsValueError(
                f"{kind} is {quote(value)} for {dtype}, expected None: only {family}B has one"
            )
        dtype += f":{kind}={value}"
    return dtype


def _granularity(row: Format, given: object) -> Granularity:
    """Take a granularity for a format, or the one that the format prescribes."""
    if given is None:
        return per_tensor if row.block is None else per_group(row.block)
    if not isinstance(given, Granularity):
        raise QrsTypeError(f"granularity is {quote(given)}, expected one of {', '.join(Granularity.ids())}")
    axis = -1 if row.kind == "block" else getattr(given, "axis", -1)
    if row.block is not None and given != per_group(row.block, axis):
        raise QrsValueError(f"granularity is {given!r} for {row.name}, expected per_group({row.block})")
    return given


@cache
def _of_name(dtype: str) -> Scheme:
    return Scheme(dtype)
