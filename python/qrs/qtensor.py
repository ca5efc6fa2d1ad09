"""`QTensor`: packed codes, their parameters, a scheme and a shape. Immutable, and a plain array to NumPy."""

from __future__ import annotations

import math
import os
import threading
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import _core
from .arrays import deliver, lengths, plain, read_only, target
from .errors import QrsTypeError, QrsValueError, expect
from .scales import SCALE_DTYPES
from .scheme import Format, QParams, Scheme, Shape

__all__ = ["QTensor"]

# One lock for all tensors: packing is threaded inside, so two at once would not be faster. A forked child may
# inherit it locked by a thread that it does not have, and so takes a new one.
_packing = threading.Lock()


def _renew_lock() -> None:
    global _packing
    _packing = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class QTensor:
    """A quantized array: ``value = scale * (code - zero_point)``; ``scale * level`` unless an integer.

    Made by `quantize`, or from stored parts by `from_parts`. It never changes, so threads may share it.

    Parameters
    ----------
    codes : ndarray of uint8, shape (ceil(bits * size / 8),)
        Codes of the array in C order, packed without gaps, first element in the lowest bits; bits after the
        last code are 0. Ternary codes stand five to a byte, in powers of 3. A read-only array is used in
        place, one that could still be written is copied.
    qparams : QParams
        One scale and zero point for each cell.
    scheme : Scheme
        What the codes mean.
    shape : tuple of int
        Shape of the array that the codes stand for.

    Raises
    ------
    QrsTypeError, QrsValueError
        If a part does not fit the others; the message names it.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> q = qrs.quantize(np.array([[-1.0, 0.5], [0.25, 1.0]]), qrs.Scheme("int4", qrs.per_channel(0)))
    >>> q
    QTensor(Scheme('int4', per_channel(0)), shape=(2, 2), 10 bytes, 20 bits per element)
    >>> q.unpack()
    array([[-8,  4],
           [ 2,  7]], dtype=int8)
    """

    __slots__ = ("__weakref__", "_codes", "_filters", "_panels", "_qparams", "_scheme", "_shape")

    def __init__(self, codes: NDArray[np.uint8], qparams: QParams, scheme: Scheme, shape: Shape) -> None:
        expect(scheme, Scheme, "scheme")
        shape = lengths(shape)
        scheme.check_qparams(qparams, shape)
        data = plain(codes, "codes")
        if data.dtype != np.uint8:
            raise QrsTypeError(f"codes has dtype {data.dtype}, expected uint8")
        size, format = math.prod(shape), scheme.format
        expected = (format.packed_bytes(size),)
        if data.shape != expected:
            what = f"{scheme.dtype} of a {shape} array"
            raise QrsValueError(f"codes has shape {data.shape}, expected {expected} for {what}")
        _check_padding(data, format, size)
        self._codes: NDArray[np.uint8] = read_only(np.ascontiguousarray(data))
        self._qparams = qparams
        self._scheme = scheme
        self._shape = shape
        self._panels: _core.Panels | None = None
        self._filters: _core.Filters | None = None

    @classmethod
    def from_parts(
        cls,
        codes: NDArray[np.uint8],
        scale: ArrayLike,
        zero_point: ArrayLike,
        scheme: Scheme,
        shape: Shape,
        levels: ArrayLike | None = None,
    ) -> QTensor:
        """Build a tensor from the arrays that a file or a pickle holds; every part is validated.

        Parameters
        ----------
        codes : ndarray of uint8, shape (ceil(bits * size / 8),)
            As for `QTensor`.
        scale, zero_point : array_like
            As for `QParams`; a scale may be negative where the scheme ``turns``.
        scheme : Scheme
        shape : tuple of int
        levels : array_like, optional
            As for `QParams`.

        Returns
        -------
        QTensor

        Raises
        ------
        QrsTypeError, QrsValueError
            If a part does not fit the others; the message names it.

        Examples
        --------
        >>> import numpy as np, qrs
        >>> q = qrs.QTensor.from_parts(np.array([0x21], np.uint8), 0.5, 0, qrs.Scheme("int4"), (2,))
        >>> np.asarray(q)
        array([0.5, 1. ], dtype=float32)
        """
        expect(scheme, Scheme, "scheme")
        return cls(codes, QParams._fitted(scale, zero_point, levels, scheme.turns), scheme, shape)

    @classmethod
    def _made(cls, codes: NDArray[np.uint8], qparams: QParams, scheme: Scheme, shape: Shape) -> QTensor:
        """Wrap new codes whose parts are known to fit."""
        made = object.__new__(cls)
        codes.flags.writeable = False
        made._codes, made._qparams, made._scheme, made._shape = codes.view(), qparams, scheme, shape
        made._panels = made._filters = None
        return made

    @classmethod
    def _of_bytes(cls, codes: NDArray[np.uint8], qparams: QParams, scheme: Scheme, shape: Shape) -> QTensor:
        """Wrap a new flat array of codes, a byte for each, that are known to be codes of the scheme."""
        if scheme.format.bits < 8:
            values = codes.view(np.int8) if scheme.format.signed else codes
            codes = _core.pack(values.astype(np.int32), scheme.dtype)
        return cls._made(codes, qparams, scheme, shape)

    @property
    def codes(self) -> NDArray[np.uint8]:
        """Packed codes, read-only; `unpack` gives one integer for each element."""
        return self._codes

    @property
    def qparams(self) -> QParams:
        """`scale` and `zero_point` together."""
        return self._qparams

    @property
    def scale(self) -> NDArray[np.float32]:
        """Scale of each cell: float32 values, each exact in the scheme's ``scale_dtype``; read-only."""
        return self._qparams.scale

    @property
    def zero_point(self) -> NDArray[np.int32]:
        """Code that stands for 0.0 in each cell; read-only."""
        return self._qparams.zero_point

    @property
    def scheme(self) -> Scheme:
        """What the codes mean."""
        return self._scheme

    @property
    def shape(self) -> Shape:
        """Shape of the array that the codes stand for."""
        return self._shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self._shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self._shape)

    @property
    def nbytes(self) -> int:
        """Bytes as stored: packed codes, scales in ``scale_dtype``, zero points as codes, learned levels.

        A symmetric scheme's zero points follow from the scheme and take no byte.
        """
        scheme, cells = self._scheme, self.scale.size
        scales = SCALE_DTYPES[scheme.scale_dtype].nbytes(cells)
        points = 0 if scheme.symmetric else cells * scheme.format.code_dtype.itemsize
        levels = 0 if self._qparams.levels is None else self._qparams.levels.nbytes
        return self._codes.nbytes + (scales if cells else 0) + points + levels

    @property
    def bits_per_element(self) -> float:
        """`nbytes` in bits, divided by the number of elements; 0 for an empty array."""
        return 8 * self.nbytes / self.size if self.size else 0.0

    def unpack(self) -> NDArray[Any]:
        """Give the codes one by one; where elements have bytes in blocks only, there are none, and it is refused.

        Returns
        -------
        ndarray of int8, or uint8 for a dtype other than a signed integer, shape `shape`
            A new array; int16 or uint16 for 16 bits.

        Examples
        --------
        >>> import qrs
        >>> qrs.quantize([0.0, 1.0, 3.0], "uint2").unpack()
        array([0, 1, 3], dtype=uint8)
        """
        return np.asarray(_core.unpack(self._codes, self._scheme.dtype, self.size)).reshape(self._shape)

    def dequantize(self, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Decode every element: ``scale * float32(code - zero_point)``.

        Parameters
        ----------
        out : ndarray of float32, shape `shape`, optional
            Filled and returned; any strides.

        Returns
        -------
        ndarray of float32, shape `shape`

        Raises
        ------
        QrsTypeError, QrsValueError
            If ``out`` has another dtype or shape, is read-only, or overlaps the tensor's own arrays.

        Examples
        --------
        >>> import qrs
        >>> qrs.quantize([0.0, 0.6, 1.5], "uint2").dequantize()
        array([0. , 0.5, 1.5], dtype=float32)
        """
        filled = target(out, self._shape, np.float32, codes=self._codes, scale=self.scale)
        if self.size:
            scheme, qparams = self._scheme, self._qparams
            block = scheme.granularity.block(self._shape)
            _core.dequantize(self._codes, block, qparams.cells, scheme.dtype, filled)
        return deliver(filled, out)

    def take(self, rows: ArrayLike, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Decode some rows of a matrix, as an embedding does, and touch no others.

        Parameters
        ----------
        rows : array_like of int
            Row numbers from 0 to ``shape[0] - 1``, in any shape; negative ones are refused.
        out : ndarray of float32, shape ``rows.shape + (shape[1],)``, optional
            Filled and returned.

        Returns
        -------
        ndarray of float32, shape ``rows.shape + (shape[1],)``
            ``dequantize()[rows]``, bit for bit.

        Raises
        ------
        QrsTypeError
            If ``rows`` is not of an integer dtype.
        QrsValueError
            If the tensor is no matrix, or a row is out of range.

        Examples
        --------
        >>> import qrs
        >>> table = qrs.quantize([[0.0, 1.0], [2.0, 3.0]], "uint2")
        >>> table.take([1, 1, 0])
        array([[2., 3.],
               [2., 3.],
               [0., 1.]], dtype=float32)
        """
        if self.ndim != 2:
            raise QrsValueError(f"take needs a tensor of ndim 2, got shape {self._shape}")
        source = plain(rows, "rows")
        if source.dtype.kind not in "iu" and source.size:
            raise QrsTypeError(f"rows has dtype {source.dtype}, expected integers")
        count, columns = self._shape
        bad = (source < 0) | (source >= count)
        if np.any(bad):
            index = int(np.argmax(bad))
            raise QrsValueError(
                f"rows has {source.flat[index]} at flat index {index}, expected 0 to {count - 1}"
            )
        numbers = np.asarray(source, dtype=np.int64, order="C").reshape(-1)
        filled = target(
            out, (*source.shape, columns), np.float32, rows=rows, codes=self._codes, scale=self.scale
        )
        if filled.size:
            block, dtype = self._scheme.granularity.block(self._shape), self._scheme.dtype
            cells = self._qparams.cells
            _core.dequantize_rows(self._codes, self._shape, block, cells, dtype, numbers, filled)
        return deliver(filled, out)

    @property
    def panels(self) -> _core.Panels:
        """The tensor as a weight ``(n, k)``, packed for products on first use and kept.

        Raises
        ------
        QrsValueError
            If the tensor is no matrix.
        """
        if self._panels is None:
            if self.ndim != 2:
                raise QrsValueError(f"a weight needs ndim 2, got shape {self._shape}")
            with _packing:
                if self._panels is None:
                    block, dtype = self._scheme.granularity.block(self._shape), self._scheme.dtype
                    cells = self._qparams.cells
                    self._panels = _core.Panels(self._codes, self._shape, block, cells, dtype)
        return self._panels

    def filters(self, groups: int) -> _core.Filters:
        """Give the tensor as a weight ``(filters, channels, height, width)``, packed on first use and kept.

        Parameters
        ----------
        groups : int
            Of the convolution. The packing for the last one asked for is kept.

        Returns
        -------
        _core.Filters

        Raises
        ------
        QrsValueError
            If the tensor has not four axes, groups do not divide the filters, or a filter has several scales.
        """
        kept = self._filters
        if kept is None or kept.groups != groups:
            with _packing:
                kept = self._filters
                if kept is None or kept.groups != groups:
                    block, dtype = self._scheme.granularity.block(self._shape), self._scheme.dtype
                    cells = self._qparams.cells
                    kept = _core.Filters(self._codes, self._shape, block, cells, dtype, groups)
                    self._filters = kept
        return kept

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise QrsValueError("a QTensor has no float array to share; decoding always makes one")
        values = self.dequantize()
        return values if dtype is None else values.astype(dtype, copy=False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QTensor):
            return NotImplemented
        return (
            self._scheme == other._scheme
            and self._shape == other._shape
            and self._qparams == other._qparams
            and np.array_equal(self._codes, other._codes)
        )

    __hash__ = None  # type: ignore[assignment]

    def __copy__(self) -> QTensor:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> QTensor:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        parts = (self._codes, self.scale, self.zero_point, self._scheme, self._shape, self._qparams.levels)
        return QTensor.from_parts, parts

    def __repr__(self) -> str:
        return (
            f"QTensor({self._scheme!r}, shape={self._shape}, {self.nbytes} bytes, "
            f"{self.bits_per_element:.4g} bits per element)"
        )


def _check_padding(codes: NDArray[np.uint8], format: Format, size: int) -> None:
    """Refuse bytes that no codes make."""
    if format.is_ternary:
        most = np.full(codes.shape, 3**5 - 1)
        most[-1:] = 3 ** (size % 5 or 5) - 1
        bad = codes > most
        if bad.any():
            index = int(np.argmax(bad))
            raise QrsValueError(f"codes has {codes[index]} at index {index}, expected at most {most[index]}")
        return
    used = 0 if format.packing else format.bits * size % 8
    if used and int(codes[-1]) >> used:
        raise QrsValueError(
            f"codes ends in {int(codes[-1]):#04x}, expected zeros above the lowest {used} bits"
        )
