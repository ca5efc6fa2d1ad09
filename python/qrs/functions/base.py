"""The table of functions, and how one enters it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import QrsTypeError, QrsValueError

__all__ = ["TABLE", "Array", "axes_of", "dtype_of", "operator", "saturated_cast"]

Array: TypeAlias = NDArray[Any]
Compute = TypeVar("Compute", bound=Callable[..., Any])

TABLE: dict[str, Callable[..., Any]] = {}


def operator(*names: str) -> Callable[[Compute], Compute]:
    """Enter a function under the names of its operators.

    Parameters
    ----------
    *names : str
        As ONNX spells them.

    Returns
    -------
    callable
        A decorator that gives the function back as it is.
    """

    def enter(compute: Compute) -> Compute:
        for name in names:
            TABLE[name] = compute
        return compute

    return enter


def dtype_of(name: str) -> np.dtype[Any]:
    """Find a dtype by its name, one of `ml_dtypes` among them.

    Raises
    ------
    QrsTypeError
        When nobody knows it, or ``ml_dtypes`` is not installed.
    """
    try:
        return np.dtype(name)
    except TypeError:
        pass
    try:
        import ml_dtypes
    except ImportError:
        raise QrsTypeError(f"arrays of {name} need ml_dtypes: pip install ml_dtypes") from None
    if not hasattr(ml_dtypes, name):
        raise QrsTypeError(f"dtype {name!r} is unknown")
    return np.dtype(getattr(ml_dtypes, name))


def saturated_cast(x: Array, dtype: np.dtype[Any]) -> Array:
    """Round to a dtype of ``ml_dtypes``; in a float of 8 bits or less what is too large becomes the largest.

    Parameters
    ----------
    x : ndarray
    dtype : numpy.dtype

    Returns
    -------
    ndarray of dtype
    """
    if dtype.itemsize > 1 or "float" not in dtype.name:
        return x.astype(dtype)
    import ml_dtypes

    limits: Any = ml_dtypes.finfo
    most = x.dtype.type(float(limits(dtype).max))
    return np.clip(x, -most, most).astype(dtype)


def axes_of(axes: Array | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """Give axes as sorted numbers from 0, all of them where none are named.

    Raises
    ------
    QrsValueError
        When one is out of range or named twice.
    """
    if axes is None:
        return tuple(range(ndim))
    given = [int(axis) for axis in np.asarray(axes).ravel()]
    found = sorted({axis + ndim if axis < 0 else axis for axis in given})
    if len(found) != len(given) or any(not 0 <= axis < ndim for axis in found):
        raise QrsValueError(f"axes are {given}, expected different ones of -{ndim} to {ndim - 1}")
    return tuple(found)
