"""How scales are stored: the types that hold them, and what of a float32 each of them holds.

Scales are float32 in memory, whatever they are rounded to and stored as. A type of one byte, ``e4m3``,
holds them as multiples of a factor that all scales of a tensor share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _core
from .arrays import quiet
from .errors import QrsValueError

__all__ = ["SCALE_DTYPES", "ScaleDtype"]

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ScaleDtype:
    """One type of stored scales.

    Attributes
    ----------
    name : str
        The ``scale_dtype`` of a `Scheme`.
    dtype : numpy.dtype
        Of the array that holds them in a file.
    shared : bool
        Whether they are multiples of a float32 that is stored beside them.
    """

    name: str
    dtype: np.dtype[Any]
    shared: bool
    _encode: Callable[[F32], tuple[NDArray[Any], NDArray[np.bool_]]]
    _decode: Callable[[NDArray[Any]], F32]

    def nbytes(self, cells: int) -> int:
        """Count the bytes that scales take as stored.

        Parameters
        ----------
        cells : int
            How many there are.

        Returns
        -------
        int
        """
        return cells * self.dtype.itemsize + (4 if self.shared else 0)

    def holds(self, scale: F32) -> NDArray[np.bool_]:
        """Tell which scales the type represents exactly.

        Parameters
        ----------
        scale : ndarray of float32

        Returns
        -------
        ndarray of bool
            Of the shape of ``scale``; of multiples of a factor all or none, as it is one for all.
        """
        if not self.shared:
            return self._encode(scale)[1]
        return np.full(scale.shape, _factor(scale) is not None)

    def stored(self, scale: F32) -> tuple[NDArray[Any], F32 | None]:
        """Give scales as a file holds them.

        Parameters
        ----------
        scale : ndarray of float32
            Which the type holds.

        Returns
        -------
        ndarray, ndarray of float32 or None
            The scales, and the factor that they share, if their type has one.
        """
        if not self.shared:
            codes, held = self._encode(scale)
            if not held.all():
                raise QrsValueError(f"scale holds values that are not {self.name}")
            return codes, None
        factor = _factor(scale)
        if factor is None:
            raise QrsValueError(f"scale holds values that are not {self.name} times one factor")
        return _encode_e4m3(scale, factor)[0], np.asarray(factor, np.float32)

    def loaded(self, stored: NDArray[Any], factor: F32 | None) -> F32:
        """Give the scales that a file holds; the inverse of `stored`.

        Parameters
        ----------
        stored : ndarray
        factor : ndarray of float32 or None

        Returns
        -------
        ndarray of float32

        Raises
        ------
        QrsValueError
            If an array has another dtype, or is missing or too many.
        """
        if stored.dtype != self.dtype:
            raise QrsValueError(f"scale has dtype {stored.dtype}, expected {self.dtype} for {self.name}")
        if (factor is not None) != self.shared:
            raise QrsValueError(
                f"scale_factor is {'missing' if self.shared else 'unexpected'} for {self.name}"
            )
        scale = self._decode(stored)
        if factor is None:
            return scale
        if factor.dtype != np.float32 or factor.shape != ():
            raise QrsValueError(f"scale_factor is {factor.dtype} of shape {factor.shape}, expected a float32")
        with quiet():
            return np.asarray(scale * factor, np.float32)


def _encode_float16(scale: F32) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    with quiet():
        codes = scale.astype(np.float16)
    return codes, (codes == scale) & (np.abs(scale) >= np.float32(2.0**-14))


def _encode_bfloat16(scale: F32) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    # A bfloat16 is the upper half of a float32.
    bits = scale.view(np.uint32)
    return (bits >> 16).astype(np.uint16), bits & 0xFFFF == 0


def _decode_bfloat16(codes: NDArray[Any]) -> F32:
    return (codes.astype(np.uint32) << 16).view(np.float32)


def _encode_e8m0(scale: F32) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    # The exponent of a float32, with the same bias.
    bits = scale.view(np.uint32)
    return (bits >> 23).astype(np.uint8), bits & 0x807F_FFFF == 0


def _decode_e8m0(codes: NDArray[Any]) -> F32:
    return (codes.astype(np.uint32) << 23).view(np.float32)


@cache
def _levels() -> F32:
    """Give the positive numbers of float8_e4m3fn, ascending: code - 1 is the index."""
    return np.asarray(_core.levels("float8_e4m3fn"))[1:127]


def _encode_e4m3(scale: F32, factor: Any = 1.0) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    with quiet():
        multiples = np.asarray(_levels() * np.float32(factor), np.float32)
    size = np.abs(scale)
    index = np.minimum(np.searchsorted(multiples, size), multiples.size - 1)
    codes = (index + 1 + np.where(scale < 0, 128, 0)).astype(np.uint8)
    return codes, multiples[index] == size


def _decode_e4m3(codes: NDArray[Any]) -> F32:
    levels: F32 = _core.levels("float8_e4m3fn")[codes]
    return levels


def _factor(scale: F32) -> np.float32 | None:
    """Find a factor that makes scales float8_e4m3fn numbers; None where there is none."""
    if not scale.size:
        return np.float32(1)
    largest = np.abs(scale).max()
    # The largest scale is most often 448 factors; a quotient may be off by a unit or two.
    for level in _levels()[::-1]:
        nearest = np.float32(largest / level)
        for bits in range(-2, 3):
            factor = (nearest.view(np.int32) + np.int32(bits)).view(np.float32)
            if not np.isfinite(factor) or factor < 2.0**-117:
                continue
            # A few tell most of those that do not fit.
            if all(_encode_e4m3(part, factor)[1].all() for part in (scale.ravel()[:64], scale)):
                return np.float32(factor)
    return None


def _whole(scale: F32) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    return scale, np.ones(scale.shape, np.bool_)


_KINDS = (
    ScaleDtype("float32", np.dtype(np.float32), False, _whole, lambda codes: codes),
    ScaleDtype(
        "float16", np.dtype(np.float16), False, _encode_float16, lambda codes: codes.astype(np.float32)
    ),
    ScaleDtype("bfloat16", np.dtype(np.uint16), False, _encode_bfloat16, _decode_bfloat16),
    ScaleDtype("e8m0", np.dtype(np.uint8), False, _encode_e8m0, _decode_e8m0),
    ScaleDtype("e4m3", np.dtype(np.uint8), True, _encode_e4m3, _decode_e4m3),
)
SCALE_DTYPES: Mapping[str, ScaleDtype] = {kind.name: kind for kind in _KINDS}
