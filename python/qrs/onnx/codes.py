"""Codes in an ONNX file as tensors of qrs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..granularity import Granularity, PerChannel, PerGroup, per_channel, per_group, per_tensor
from ..qtensor import QTensor
from ..scheme import QParams, Scheme

__all__ = ["decoded", "scheme_of", "turned"]

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
