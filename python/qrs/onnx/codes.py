"""Codes in an ONNX file as tensors of qrs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..errors import QrsValueError
from ..granularity import Granularity, PerChannel, PerGroup, per_channel, per_group, per_tensor
from ..qtensor import QTensor
from ..scheme import QParams, Scheme

__all__ = ["decoded", "of_blocks", "scheme_of", "turned"]

Array = NDArray[Any]
_DTYPES = {f"{sign}int{bits}" for sign in ("", "u") for bits in (2, 4, 8)}


def scheme_of(codes: np.dtype[Any], zero_point: Array, granularity: Granularity = per_tensor) -> Scheme:
    """Describe codes of an ONNX file: every code may occur, the lowest too.

    Parameters
    ----------
    codes : numpy.dtype
        Of at most 8 bits.
    zero_point : ndarray
    granularity : Granularity

    Returns
    -------
    Scheme
    """
    symmetric = codes.name.startswith("int") and not np.any(zero_point.astype(np.int32))
    return Scheme(codes.name, granularity, symmetric=symmetric, narrow_range=False)


def decoded(operation: Any, codes: Array, scale: Array, zero_point: Array | None) -> QTensor | None:
    """Give what a DequantizeLinear of constants decodes, where a QTensor can hold it.

    Parameters
    ----------
    operation : Operation
    codes, scale : ndarray
    zero_point : ndarray, optional

    Returns
    -------
    QTensor or None
    """
    if codes.dtype.name not in _DTYPES or scale.dtype != np.float32 or not codes.ndim:
        return None
    axis = operation.attributes.get("axis", 1)
    size = operation.attributes.get("block_size", 0)
    axis = axis + codes.ndim if axis < 0 else axis
    granularity: Granularity = per_tensor
    if size:
        granularity = per_group(size, axis)
    elif scale.size > 1 or (scale.ndim == 1 and 0 <= axis < codes.ndim and codes.shape[axis] == 1):
        granularity = per_channel(axis)
    zero = np.zeros(scale.shape, np.int32) if zero_point is None else zero_point.astype(np.int32)
    if zero.size != scale.size or not np.all((scale >= np.finfo(np.float32).tiny) & np.isfinite(scale)):
        return None
    if granularity is per_tensor:
        scale, zero = scale.reshape(()), zero.reshape(())
    packed = _core.pack(np.ascontiguousarray(codes, np.int32).ravel(), codes.dtype.name)
    return QTensor(packed, QParams(scale, zero), scheme_of(codes.dtype, zero, granularity), codes.shape)


def turned(q: QTensor) -> QTensor:
    """Transpose a matrix of codes.

    Parameters
    ----------
    q : QTensor, shape (k, n)
        Per tensor, channel or group.

    Returns
    -------
    QTensor, shape (n, k)
    """
    kind, scale, zero = q.scheme.granularity, q.scale, q.zero_point
    if isinstance(kind, PerChannel):
        kind = per_channel(1 - kind.axis)
    elif isinstance(kind, PerGroup):
        kind, scale, zero = per_group(kind.size, 1 - kind.axis), scale.T, zero.T
    packed = _core.pack(np.ascontiguousarray(q.unpack().T, np.int32).ravel(), q.scheme.dtype)
    return QTensor(packed, QParams(scale, zero), replace(q.scheme, granularity=kind), q.shape[::-1])


def of_blocks(how: Mapping[str, Any], codes: Array, scale: Array, zero_point: Array | None) -> QTensor:
    """Give the weight of a MatMulNBits node.

    Parameters
    ----------
    how : mapping of str to int
        Its attributes: ``N`` rows of ``K`` codes, ``bits`` each, of which ``block_size`` share a scale.
    codes : ndarray of uint8, shape (N, blocks, block_size * bits // 8)
        The first code in the lowest bits.
    scale : ndarray, N * blocks elements
    zero_point : ndarray of uint8, optional
        In the same way, a row at a time; the middle code by default.

    Returns
    -------
    QTensor, shape (N, K)

    Raises
    ------
    QrsValueError
        When sizes disagree, or zero points are no codes.
    """
    n, k, size, bits = (
        int(how.get(name, 4 if name == "bits" else 0)) for name in ("N", "K", "block_size", "bits")
    )
    if bits not in (2, 4, 8) or min(n, k, size) < 1 or size * bits % 8:
        raise QrsValueError(f"MatMulNBits has N {n}, K {k}, block_size {size} and bits {bits}")
    blocks = -(-k // size)
    if codes.dtype != np.uint8 or codes.size * 8 != n * blocks * size * bits or scale.size != n * blocks:
        raise QrsValueError(f"codes have shape {codes.shape} and scales {scale.shape} for N {n} and K {k}")
    zero = np.full((n, blocks), 1 << (bits - 1), np.int32)
    if zero_point is not None:
        row = -(-blocks * bits // 8)
        if zero_point.dtype != np.uint8 or zero_point.size != n * row:
            raise QrsValueError(f"zero points are {zero_point.dtype}{list(zero_point.shape)}, expected codes")
        zero = _unpacked(zero_point.reshape(n, row), bits)[:, :blocks].astype(np.int32)
    values = _unpacked(codes.reshape(n, -1), bits)[:, :k]
    packed = _core.pack(np.ascontiguousarray(values, np.int32).ravel(), f"uint{bits}")
    scheme = Scheme(f"uint{bits}", per_group(size), symmetric=False)
    return QTensor(packed, QParams(scale.astype(np.float32).reshape(n, blocks), zero), scheme, (n, k))


def _unpacked(rows: Array, bits: int) -> Array:
    """Take the codes of each row out of its bytes, lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return ((rows[:, :, None] >> shifts) & np.uint8((1 << bits) - 1)).reshape(len(rows), -1)
