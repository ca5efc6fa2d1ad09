"""Arrays of an ONNX file, inside of it and beside it, checked before a byte is read."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, quote
from .base import package

__all__ = ["array_of", "dtype_name"]

# Fields other than raw_data that hold elements, by the names of element types that use them.
_TYPED = {
    "float_data": ("FLOAT", "COMPLEX64"),
    "double_data": ("DOUBLE", "COMPLEX128"),
    "int64_data": ("INT64",),
    "uint64_data": ("UINT32", "UINT64"),
    "string_data": ("STRING",),
}
_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}


def dtype_name(element: int, what: str) -> str:
    """Name the dtype of an ONNX element type as NumPy and ``ml_dtypes`` do.

    Raises
    ------
    FormatError
        When the number stands for no type.
    """
    onnx = package()
    try:
        return str(package("onnx.helper").tensor_dtype_to_np_dtype(element).name)
    except (KeyError, TypeError, ValueError):
        known = len(onnx.TensorProto.DataType.values())
        raise FormatError(f"{what} has element type {element}, expected 1 to {known - 1}") from None


def array_of(tensor: Any, folder: str | None, what: str) -> NDArray[Any]:
    """Turn a ``TensorProto`` into an array that cannot be written to.

    Parameters
    ----------
    tensor : onnx.TensorProto
    folder : str or None
        Where files that hold external data stand.
    what : str
        How messages name it.

    Returns
    -------
    ndarray
        A view of the mapped file where the data is external.

    Raises
    ------
    FormatError
        When the shape needs more or fewer bytes than there are, or the external data is refused.
    """
    dtype_name(tensor.data_type, what)
    if tensor.HasField("segment"):
        raise FormatError(f"{what} is stored in segments; save the model with whole tensors")
    shape = tuple(tensor.dims)
    if any(n < 0 for n in shape) or len(shape) > 32:
        raise FormatError(f"{what} has shape {quote(list(shape))}, expected lengths from 0 of up to 32 axes")
    element = package().TensorProto.DataType.Name(tensor.data_type)
    if tensor.data_location == package().TensorProto.EXTERNAL:
        array = _external(tensor, shape, folder, what)
    else:
        _check_count(tensor, element, shape, what)
        array = _parsed(tensor, what)
    array.flags.writeable = False
    return array


def _bytes_of(element: str, tensor: Any, shape: tuple[int, ...]) -> int:
    bits = _BITS.get(element)
    if bits is None:
        bits = 8 * package("onnx.helper").tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return -(-math.prod(shape) * bits // 8)


def _check_count(tensor: Any, element: str, shape: tuple[int, ...], what: str) -> None:
    """Compare what the shape needs with what is there, before memory is taken for it."""
    if tensor.HasField("raw_data"):
        need, found = _bytes_of(element, tensor, shape), len(tensor.raw_data)
        if need != found:
            raise FormatError(f"{what} of shape {list(shape)} needs {need} bytes of {element}, holds {found}")
        return
    field = next((name for name, kinds in _TYPED.items() if element in kinds), "int32_data")
    need = math.prod(shape)
    if element in _BITS:
        need = -(-need * _BITS[element] // 8)
    need *= 2 if element.startswith("COMPLEX") else 1
    found = len(getattr(tensor, field))
    if need != found:
        raise FormatError(f"{what} of shape {list(shape)} needs {need} entries of {field}, holds {found}")


def _parsed(tensor: Any, what: str) -> NDArray[Any]:
    try:
        array = package("onnx.numpy_helper").to_array(tensor)
    except Exception as error:
        raise FormatError(f"{what} cannot be read: {error}") from error
    return np.asarray(array).view()


def _external(tensor: Any, shape: tuple[int, ...], folder: str | None, what: str) -> NDArray[Any]:
    # Keys beyond the specification (runtimes write some) say nothing that is needed here.
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if folder is None:
        raise FormatError(f"{what} is stored in another file; load the model by its path")
    path = _safe_path(entries, folder, what)
    size = path.stat().st_size
    offset = _number(entries, "offset", 0, what)
    length = _number(entries, "length", size - offset, what)
    element = package().TensorProto.DataType.Name(tensor.data_type)
    need = _bytes_of(element, tensor, shape)
    if element == "STRING" or length != need:
        raise FormatError(f"{what} of shape {list(shape)} needs {need} bytes of {element}, names {length}")
    if offset + length > size:
        raise FormatError(f"{what} ends at byte {offset + length} of {path.name!r}, which has {size}")
    if not need:
        return np.empty(shape, package("onnx.helper").tensor_dtype_to_np_dtype(tensor.data_type))
    mapped = np.memmap(path, np.uint8, "r", offset, (length,))
    dtype = package("onnx.helper").tensor_dtype_to_np_dtype(tensor.data_type)
    if element in _BITS or dtype.itemsize * math.prod(shape) != length:
        copy = package().TensorProto(data_type=tensor.data_type, dims=shape, raw_data=mapped.tobytes())
        return _parsed(copy, what)
    array: NDArray[Any] = np.asarray(mapped).view(dtype.newbyteorder("<")).reshape(shape)
    return array


def _number(entries: Mapping[str, str], key: str, default: int, what: str) -> int:
    text = entries.get(key, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise FormatError(f"{what}: external data has {key} {quote(text)}, expected a number from 0")
    return int(text)


def _safe_path(entries: Mapping[str, str], folder: str, what: str) -> Path:
    """Accept a plain file in the model's folder or below, reached by no link."""
    location = entries.get("location", "")
    refused = f"{what}: external data lies at {quote(location)}"
    parts = location.replace("\\", "/").split("/")
    if not location or "\0" in location or ":" in location or ".." in parts or not parts[0]:
        raise FormatError(f"{refused}, expected a file in the folder of the model")
    path = Path(folder)
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise FormatError(f"{refused}, which is reached by a link; put the file itself there")
    try:
        found = os.lstat(path)
    except OSError as error:
        raise FormatError(f"{refused}, which cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise FormatError(f"{refused}, which is no plain file with one name; copy it there")
    return path
