"""What counts as an array: the one door in, and the one door out.

The native module takes aligned, C-contiguous arrays in native byte order and nothing else. Here any accepted
array-like becomes such an array, and a caller's ``out=`` is checked and, when it is strided, written through.
Dtypes are never changed silently: what would lose values is refused by name.
"""

from __future__ import annotations

import math
import operator
import sys
from numbers import Real
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from .errors import QrsTypeError, QrsValueError, quote

__all__ = [
    "as_float32",
    "as_int8",
    "deliver",
    "flag",
    "integer",
    "lengths",
    "number",
    "quiet",
    "read_only",
    "target",
]

AXES = 64 if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else 32
LARGEST = float(np.finfo(np.float32).max)
FLOATS = "float32, float64, float16 or bfloat16"
FLOAT32, INT8, UINT8 = np.dtype(np.float32), np.dtype(np.int8), np.dtype(np.uint8)


def integer(value: object, name: str) -> int:
    """Take an integer argument; a bool or a float is refused even where its value is whole."""
    if type(value) is int and value.bit_length() <= 64:  # what nearly every argument is
        return value
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise QrsTypeError(f"{name} is {quote(value)}, expected an integer") from None
    # No argument means one so large, and messages could not even write it.
    if number.bit_length() > 1024:
        raise QrsValueError(f"{name} is {quote(number)}, expected an integer within the range of float64")
    return number


def number(value: object, name: str) -> float:
    """Take a real number, of Python or of NumPy; a bool or a string is refused."""
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise QrsValueError(
                f"{name} is {quote(value)}, expected a number within the range of float64"
            ) from None
    raise QrsTypeError(f"{name} is {quote(value)}, expected a number")


def flag(value: object, name: str) -> bool:
    """Take a truth value; what merely counts as true or false is refused."""
    if isinstance(value, bool):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    raise QrsTypeError(f"{name} is {quote(value)}, expected True or False")


def lengths(value: object) -> tuple[int, ...]:
    """Take the shape of an array: a tuple or list of integers that some float32 array could have."""
    if not isinstance(value, tuple | list):
        raise QrsTypeError(f"shape is {quote(value)}, expected a tuple of integers")
    shape = tuple(n if type(n) is int else integer(n, "shape") for n in value)
    if any(n < 0 for n in shape):
        raise QrsValueError(f"shape is {quote(shape)}, expected lengths of 0 or more")
    # NumPy multiplies the lengths that are not 0, also where one is.
    if len(shape) > AXES or 4 * math.prod(n for n in shape if n) > sys.maxsize:
        raise QrsValueError(f"shape is {quote(shape)}, which no float32 array can have")
    return shape


def quiet() -> np.errstate:
    """Let NumPy compute in a ``with`` block as IEEE 754 says and report nothing, whatever the caller has set.

    ``numpy.seterr`` is for the caller's own arithmetic; the native module does not know it either.
    """
    return np.errstate(all="ignore")


def room(shape: tuple[int, ...], dtype: type[np.generic], name: str) -> None:
    """Refuse an array that no memory could hold, before NumPy tries; what is smaller is its own to refuse."""
    wanted = math.prod(shape) * np.dtype(dtype).itemsize
    if wanted > sys.maxsize:
        raise MemoryError(f"{name} of shape {shape} needs {wanted} bytes, more than can be addressed")


def is_masked_array(x: object) -> TypeGuard[np.ma.MaskedArray[Any, Any]]:
    """Tell whether ``x`` is a masked array, without loading the module where it cannot be one.

    NumPy loads ``numpy.ma`` when it is first named; a process forked at that moment would wait for the import
    lock for ever.
    """
    masked = getattr(sys.modules.get("numpy.ma"), "MaskedArray", None)
    return masked is not None and isinstance(x, masked)


def plain(x: object, name: str) -> NDArray[Any]:
    """View an array-like as a base-class ndarray, without a copy where it has memory of its own."""
    if is_masked_array(x) and np.ma.is_masked(x):
        masked = np.count_nonzero(x.mask)
        raise QrsTypeError(f"{name} is a masked array with {masked} masked elements; fill them first")
    if not isinstance(x, list | tuple):
        # Whatever the object's own conversion raises is the better message and passes through.
        return np.asarray(x)
    try:
        return np.asarray(x)
    except ValueError as error:
        raise QrsValueError(f"{name} is not a rectangular array: {error}") from error


def as_float32(x: object, name: str) -> NDArray[np.float32]:
    """Turn an array-like into an aligned, C-contiguous float32 array in native byte order.

    Parameters
    ----------
    x : array_like
        Any shape and strides. float32 and float64 (rounded once), float16 and bfloat16 (exact) in either byte
        order; Python numbers and nested lists of them. Bool, integer, complex, longdouble and object arrays
        are refused, so that nothing is quantized by mistake.
    name : str
        The argument's name, for messages.

    Returns
    -------
    ndarray of float32
        Shares memory with ``x`` where no conversion is needed.

    Raises
    ------
    QrsTypeError
        If the dtype is not accepted, or a masked element would be used.
    QrsValueError
        If a finite float64 is too large for float32, or a nested list is ragged.

    Examples
    --------
    >>> as_float32([[1, 2], [3, 4]], "x").dtype
    dtype('float32')
    """
    if type(x) is np.ndarray:
        given = x.dtype
        # Most arrays share one dtype object, but not those that were unpickled.
        if given is FLOAT32 or (given.char == "f" and given.isnative):
            flags = x.flags
            if flags.c_contiguous and flags.aligned:
                return x
    source = plain(x, name)
    dtype = source.dtype
    # Python numbers have no dtype of their own, so whole ones among them stand for floats.
    weak = isinstance(x, list | tuple | int) and not isinstance(x, bool) and dtype.kind in "iu"
    if (dtype.kind == "f" and dtype.itemsize <= 8) or dtype.name == "bfloat16" or weak:
        room(source.shape, np.float32, name)
        with quiet():
            data: NDArray[np.float32] = np.asarray(source, dtype=np.float32, order="C")
    else:
        raise QrsTypeError(f"{name} has dtype {dtype}, expected {FLOATS}")
    if dtype.kind == "f" and dtype.itemsize == 8:
        lost = np.isinf(data) & np.isfinite(source)
        if lost.any():
            first = int(lost.argmax())
            raise QrsValueError(
                f"{name} has {np.count_nonzero(lost)} finite values too large for float32, the first "
                f"{source.flat[first]} at flat index {first}"
            )
    return data if data.flags.aligned else data.copy()


def as_int8(x: object, name: str) -> NDArray[Any]:
    """Turn an array of int8 or uint8 into a C-contiguous one of the same dtype; other dtypes are refused."""
    if type(x) is np.ndarray and (x.dtype is INT8 or x.dtype is UINT8) and x.flags.c_contiguous:
        return x
    source = plain(x, name)
    if source.dtype not in (np.int8, np.uint8):
        raise QrsTypeError(f"{name} has dtype {source.dtype}, expected int8 or uint8")
    return np.asarray(source, order="C")


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """View an array without the right to write; one that its owner could still change is copied first."""
    owner: Any = array
    while isinstance(owner, np.ndarray) and not owner.flags.writeable:
        owner = owner.base
    if isinstance(owner, np.ndarray):
        array = array.copy()
        array.flags.writeable = False
    # A view of what may not be written cannot be made writeable again; the owner of memory can.
    return array.view()


def shares_memory(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Tell whether two arrays have a byte in common; a case too hard to decide counts as yes."""
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]  # any effort is legal
    except np.exceptions.TooHardError:
        return True


def may_overlap_itself(array: NDArray[Any]) -> bool:
    """Tell whether two elements may have a byte in common; every slice and transpose of an array says no."""
    reach = array.itemsize
    axes = sorted((abs(step), n) for step, n in zip(array.strides, array.shape, strict=True) if n > 1)
    for step, n in axes if array.size else ():
        # What the finer axes span fits between two steps of this one.
        if step < reach:
            return True
        reach += step * (n - 1)
    return False


def target(out: object, shape: tuple[int, ...], dtype: type[np.generic], **inputs: object) -> NDArray[Any]:
    """Check ``out=`` and give the array that the native call fills; `deliver` then hands the result back.

    Parameters
    ----------
    out : ndarray or None
        What the caller gave. ``None`` asks for a new array.
    shape, dtype
        What the result has; ``out`` must have just these.
    **inputs
        The call's array arguments by name: ``out`` may not share memory with any of them.

    Returns
    -------
    ndarray
        C-contiguous and aligned: ``out`` itself where it is that, a new array otherwise.

    Raises
    ------
    QrsTypeError
        If ``out`` is no ndarray or has another dtype.
    QrsValueError
        If ``out`` has another shape, is read-only, or overlaps an input or itself.
    MemoryError
        If a new array would be larger than any memory.
    """
    if out is None:
        try:
            return np.empty(shape, dtype)
        except ValueError:
            room(shape, dtype, "the result")
            raise
    if not isinstance(out, np.ndarray) or is_masked_array(out):
        raise QrsTypeError(f"out is a {type(out).__name__}, expected a numpy.ndarray")
    # Comparing a dtype with a type makes a dtype of it first; these two attributes are only looked up.
    given = out.dtype
    if not (given.type is dtype and given.isnative) and given != dtype:
        raise QrsTypeError(
            f"out has dtype {out.dtype.str}, expected {np.dtype(dtype).name} in native byte order"
        )
    if out.shape != shape:
        raise QrsValueError(f"out has shape {out.shape}, expected {shape}")
    flags = out.flags
    if not flags.writeable:
        raise QrsValueError("out is read-only; give an array that may be written")
    whole = flags.c_contiguous and flags.aligned
    if not whole and may_overlap_itself(out):
        raise QrsValueError(
            f"out has shape {out.shape} and strides {out.strides}, with which elements may share memory; "
            f"give an array of its own"
        )
    for name, value in inputs.items():
        if value is not None and shares_memory(out, np.asarray(value)):
            raise QrsValueError(f"out overlaps {name} in memory; give an array of its own")
    return np.asarray(out) if whole else np.empty(shape, dtype)


def deliver(filled: NDArray[Any], out: NDArray[Any] | None) -> NDArray[Any]:
    """Hand over what `target` gave and the native call filled, through ``out`` where it is strided."""
    if out is None or filled is out:
        return filled
    if not np.may_share_memory(filled, out):
        out[...] = filled
    return out
