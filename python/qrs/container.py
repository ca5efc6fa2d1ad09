"""One file of named arrays: the safetensors container, written and read by strict code.

Layout, all little-endian: eight bytes with the header's length, the header (JSON, padded with spaces so that
the data starts at a multiple of 64), then the arrays back to back. Arrays with wider elements stand first, so
every array is aligned for its dtype. The header maps each name to ``dtype``, ``shape`` and ``data_offsets``
and holds a string map ``__metadata__``; the ``safetensors`` package reads such a file as it is.

Two things go beyond safetensors, both in ``__metadata__``: ``crc32`` holds a checksum for each array, and
``header_crc32`` one for the header itself (computed with its own eight digits set to zero). A reader that
does not know them loses nothing. `read` takes any safetensors file; `expect` then asks for what every file
of qrs has, the checksums among it. This module knows arrays and bytes; what a file means is said in
:mod:`qrs.io`.
"""

from __future__ import annotations

import errno
import json
import math
import mmap
import os
import re
import stat
import tempfile
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from .errors import FormatError, QrsTypeError, QrsValueError, quote

Array = NDArray[Any]
Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}
_FIELDS = {"dtype", "shape", "data_offsets"}
_ALIGNMENT = 64
_HEADER_CAP = 100_000_000  # the limit of the safetensors package: a longer header is an attack or an accident
_MAX_NDIM = 32
_NO_CRC = '"header_crc32":"00000000"'
_CRC = re.compile(rb'"header_crc32":"([0-9a-f]{8})"')
_FOREIGN = (
    (b"PK\x03\x04", "a zip archive (.npz, .pt)"),
    (b"\x93NUMPY", "a NumPy .npy file"),
    (b"GGUF", "a GGUF model"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x80\x02", "a pickle"),
    (b"\x80\x03", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
)


class _Entry(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def file_name(path: Path) -> str:
    """Give a path as text, as messages show it."""
    try:
        name = os.fsdecode(path)
    except TypeError:
        raise QrsTypeError(f"path is {quote(path)}, expected a str, bytes or os.PathLike") from None
    if "\0" in name:
        raise QrsValueError(f"path is {quote(name)}, expected a name without null characters")
    return name


def write(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write ``arrays`` and ``metadata`` to one file, completely or not at all.

    The bytes go to a temporary file in the same directory, which is flushed to the disk and then renamed.
    Whatever fails (a full disk, a signal), the former file stays as it was and the temporary one is removed.
    A symbolic link at ``path`` is replaced; the file it points to is not touched.

    Parameters
    ----------
    path : str, bytes or os.PathLike
    arrays : mapping of str to ndarray
        Any shape; dtypes float16/32/64, (u)int8/16/32/64, bool.
    metadata : mapping of str to str

    Raises
    ------
    QrsTypeError
        When an array has a dtype that the container cannot name.
    OSError
        When the file cannot be written; it names ``path``, whatever file the fault was in.
    """
    target = file_name(path)
    ordered = sorted(
        ((name, _storable(name, a)) for name, a in arrays.items()), key=lambda item: -item[1].itemsize
    )
    checksums = {name: f"{zlib.crc32(_bytes(array).data):08x}" for name, array in ordered}
    entries: dict[str, Any] = {
        "__metadata__": {**metadata, "crc32": _dumps(checksums), "header_crc32": "00000000"}
    }
    offset = 0
    for name, array in ordered:
        span = [offset, offset + array.nbytes]
        entries[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": span}
        offset += array.nbytes
    header = _dumps(entries).encode()
    header += b" " * (-(len(header) + 8) % _ALIGNMENT)
    # Inside a JSON string the quotes would be escaped, so the first match is the metadata's own key.
    crc = f'"header_crc32":"{zlib.crc32(header):08x}"'.encode()
    header = header.replace(_NO_CRC.encode(), crc, 1)

    def save(file: BinaryIO) -> None:
        file.write(len(header).to_bytes(8, "little") + header)
        for _, array in ordered:
            file.write(_bytes(array).data)

    try:
        replace_file(target, save)
    except OSError as error:
        if error.errno is None:
            raise
        # The temporary file and its name are of no use to a caller.
        raise OSError(error.errno, error.strerror, target) from error


def read(path: Path, verify: bool = True) -> tuple[dict[str, Array], dict[str, str]]:
    """Map a container into memory and return its arrays and metadata.

    Parameters
    ----------
    path : str or os.PathLike
    verify : bool, default True
        Compare each array with its checksum. That reads the whole file once: 24 MB took 12 ms instead of
        0.5 ms. ``False`` leaves every page on the disk until it is used. Structure and header checksum are
        checked in both cases.

    Returns
    -------
    arrays : dict of str to ndarray
        Read-only views of the mapped file, no copies. The mapping lives as long as a view does.
    metadata : dict of str to str
        As the file holds it, with the entries ``crc32`` and ``header_crc32`` where it has them.

    Raises
    ------
    FormatError
        When the file is not a sound container: the message names the field and says what was found.
    OSError
        When the file cannot be opened.
    """
    name = file_name(path)
    with open(name, "rb", opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise FormatError(f"{name}: not a regular file")
        size = status.st_size
        head = file.read(8)
        length = _header_length(name, head, size)
        header = file.read(length)
        if len(header) != length:
            raise FormatError(f"{name}: header has {len(header)} bytes, expected {length}")
        entries, metadata = _parse(name, header)
        _check_layout(name, entries, size - 8 - length)
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if len(data) < size:
        raise FormatError(
            f"{name}: the file shrank to {len(data)} bytes while it was opened, expected {size}"
        )
    arrays = {key: _view(data, 8 + length, entry) for key, entry in entries.items()}
    _check_sums(name, arrays, metadata.get("crc32"), verify)
    return arrays, metadata


def expect(path: str, metadata: Mapping[str, str], format: str, version: str, fields: set[str]) -> None:
    """Check what a file says of itself: its format, its version, both checksums and just the known fields.

    Raises
    ------
    FormatError
        Naming the field, what was found and what is supported.
    """
    if "format" not in metadata or not metadata["format"].startswith("qrs"):
        raise FormatError(
            f"{path}: a safetensors file, but not of qrs: format is {quote(metadata.get('format'))}"
        )
    if metadata["format"] != format:
        raise FormatError(f"{path}: format is {quote(metadata['format'])}, expected {format!r}")
    if metadata.get("version") != version:
        found = quote(metadata.get("version"))
        raise FormatError(
            f"{path}: version is {found}, supported {version!r}; upgrade qrs to read a newer file"
        )
    for checksum in ("crc32", "header_crc32"):
        if checksum not in metadata:
            raise FormatError(
                f"{path}: {checksum} is missing, which qrs writes into every file; save it anew"
            )
    known = fields | {"format", "version", "crc32", "header_crc32"}
    if set(metadata) != known:
        raise FormatError(f"{path}: metadata fields {quote(sorted(metadata))}, expected {sorted(known)}")


def parse_json(text: str | bytes, what: str) -> Any:
    """Parse JSON strictly: no duplicate keys, no NaN or infinity, no bottomless nesting.

    Raises
    ------
    FormatError
        Naming ``what`` and the fault.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise FormatError(f"{what} is not UTF-8: byte {error.start}") from None
    except RecursionError:
        raise FormatError(f"{what} is nested too deeply") from None
    except FormatError as error:
        raise FormatError(f"{what}: {error}") from None
    except ValueError as error:  # json.JSONDecodeError, or an integer of more digits than Python converts
        raise FormatError(f"{what} is not JSON: {error}") from None


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _storable(name: str, array: Array) -> Array:
    little = array.dtype.newbyteorder("<") if array.dtype.byteorder != "|" else array.dtype
    if little not in _NAMES:
        raise QrsTypeError(
            f"array {quote(name)} has dtype {array.dtype}, expected one of {sorted(_DTYPES.values())}"
        )
    if name == "__metadata__":
        raise QrsValueError("an array cannot be named '__metadata__'")
    return np.asarray(array, dtype=little, order="C")


def _bytes(array: Array) -> NDArray[np.uint8]:
    return array.reshape(-1).view(np.uint8)


def replace_file(path: str, save: Any) -> None:
    """Let ``save(file)`` write a file that takes the place of ``path`` once it is complete."""
    directory = os.path.dirname(path) or "."
    if os.path.isdir(path):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    # A part of the name tells whose file it is; all of it could be too long with what mkstemp adds.
    handle, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)[:32]}.", dir=directory)
    try:
        with os.fdopen(handle, "wb") as file:
            save(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(path))
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _flush_directory(directory)


def _mode(path: str) -> int:
    """Permissions of the file that is replaced, else what a new file would get (mkstemp gives 0600)."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def _flush_directory(directory: str) -> None:
    """Make the rename itself durable, where directories can be opened (not on Windows)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _open_without_waiting(name: str, flags: int) -> int:
    # A FIFO would block until somebody writes to it.
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def _header_length(name: str, head: bytes, size: int) -> int:
    if size < 8:
        raise FormatError(f"{name}: too short: {size} bytes, a file starts with 8 bytes of header length")
    length, limit = int.from_bytes(head, "little"), min(_HEADER_CAP, size - 8)
    if length <= limit:
        return length
    # Only now: a sound length may have the bytes that another kind of file begins with.
    for magic, looks_like in _FOREIGN:
        if head.startswith(magic):
            raise FormatError(f"{name}: looks like {looks_like}, expected a qrs file")
    onnx = head[0] == 0x08 and head[2:3] in (b"\x12", b"\x1a", b":")
    hint = "; it looks like an ONNX model" if onnx else ""
    raise FormatError(
        f"{name}: header length {length}, at most {limit} possible in a file of {size} bytes{hint}"
    )


def _parse(name: str, header: bytes) -> tuple[dict[str, _Entry], dict[str, str]]:
    if not header.startswith(b"{"):
        raise FormatError(f"{name}: header starts with {header[:8]!r}, expected a JSON object")
    found = _CRC.search(header)
    if found is not None:
        blank = header[: found.start()] + _NO_CRC.encode() + header[found.end() :]
        if zlib.crc32(blank) != int(found[1], 16):
            raise FormatError(f"{name}: header does not match its checksum {found[1].decode()}")
    fields = parse_json(header, f"{name}: header")
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError(f"{name}: __metadata__ is not a map of strings")
    if found is None and "header_crc32" in metadata:
        raise FormatError(
            f"{name}: header_crc32 is {quote(metadata['header_crc32'])}, expected eight hexadecimal digits"
        )
    return {key: _entry(name, key, value) for key, value in fields.items()}, metadata


def _entry(name: str, key: str, value: object) -> _Entry:
    where = f"{name}: array {quote(key)}"
    if not isinstance(value, dict) or set(value) != _FIELDS:
        got = quote(sorted(value)) if isinstance(value, dict) else type(value).__name__
        raise FormatError(f"{where}: fields {got}, expected {sorted(_FIELDS)}")
    dtype = value["dtype"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise FormatError(f"{where}: unknown dtype {quote(dtype)}, expected one of {sorted(_DTYPES)}")
    shape, offsets = value["shape"], value["data_offsets"]
    if not isinstance(shape, list) or len(shape) > _MAX_NDIM or not all(_natural(n) for n in shape):
        raise FormatError(f"{where}: shape {quote(shape)}, expected at most {_MAX_NDIM} whole numbers >= 0")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_natural(n) for n in offsets):
        raise FormatError(f"{where}: data_offsets {quote(offsets)}, expected two whole numbers >= 0")
    start, end = offsets
    needed = math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize  # Python integers: no overflow
    if end - start != needed:
        raise FormatError(
            f"{where}: data_offsets span {end - start} bytes, shape {quote(shape)} of {dtype} needs {needed}"
        )
    return _Entry(dtype, tuple(shape), start, end)


def _check_layout(name: str, entries: Mapping[str, _Entry], size: int) -> None:
    position, last = 0, ""
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != position:
            fault = "overlaps" if entry.start < position else "leaves a hole after"
            before = f"array {quote(last)} (ends at {position})" if position else "the header"
            raise FormatError(f"{name}: array {quote(key)} starts at {entry.start} and {fault} {before}")
        position, last = entry.end, key
    if position != size:
        kind = "trailing bytes" if size > position else "truncated"
        raise FormatError(f"{name}: {kind}: arrays need {position} bytes, the file holds {size}")


def _view(data: mmap.mmap, base: int, entry: _Entry) -> Array:
    count = math.prod(entry.shape)
    view: Array = np.frombuffer(
        data, dtype=_DTYPES[entry.dtype], count=count, offset=base + entry.start if count else 0
    )
    return view.reshape(entry.shape)


def _check_sums(name: str, arrays: Mapping[str, Array], text: str | None, verify: bool) -> None:
    if text is None:
        return
    sums = parse_json(text, f"{name}: crc32")
    if not isinstance(sums, dict) or set(sums) != set(arrays):
        raise FormatError(f"{name}: crc32 does not name the same arrays as the header")
    for key, array in arrays.items() if verify else ():
        if f"{zlib.crc32(_bytes(array).data):08x}" != sums[key]:
            raise FormatError(f"{name}: array {quote(key)} does not match its checksum {quote(sums[key])}")


def _natural(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise FormatError(f"duplicate name {quote(key)}")
            seen.add(key)
    return found


def _refuse(text: str) -> NoReturn:
    raise FormatError(f"{text} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise FormatError(f"{quote(text)} is not a finite number")
    return value
