"""Intel oneMKL through ctypes: its one product of integers, with the weight packed."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import c_float, c_int, c_int8, c_size_t, c_void_p
from importlib import metadata
from typing import Any

import numpy as np
from common import Call
from numpy.typing import NDArray
from products import IntegerProduct

ROW_MAJOR, PLAIN, PACKED, B_MATRIX, ONE_OFFSET = 101, 111, 151, 162, 173


def library() -> ctypes.CDLL:
    """Load the library that the package `mkl` brought."""
    try:
        files = metadata.files("mkl") or []
    except metadata.PackageNotFoundError as error:
        raise ImportError(str(error)) from error
    for file in files:
        if "mkl_rt" in file.name:
            return ctypes.CDLL(str(file.locate()))
    raise ImportError("the package mkl has no library mkl_rt")


MKL = library()
MKL.cblas_gemm_s8u8s32_pack_get_size.restype = c_size_t
VERSION = metadata.version("mkl")


def pointer(array: NDArray[Any]) -> c_void_p:
    """Give the address of an array, and keep the array."""
    return array.ctypes.data_as(c_void_p)


def matmul_integer(data: IntegerProduct, threads: int) -> Iterator[Call]:
    """Multiply uint8 by int8; row by row the left operand is the unsigned one."""
    a, b = data.a, data.b
    if a.dtype != np.uint8:
        return
    MKL.MKL_Set_Num_Threads(threads)
    (m, k), n = a.shape, b.shape[1]
    sizes = c_int(m), c_int(n), c_int(k)
    room = np.empty(MKL.cblas_gemm_s8u8s32_pack_get_size(c_int(B_MATRIX), *sizes) + 64, np.uint8)
    packed = pointer(room[-room.ctypes.data % 64 :])
    rows, plain, none = c_int(ROW_MAJOR), c_int(PLAIN), c_int8(0)
    MKL.cblas_gemm_s8u8s32_pack(rows, c_int(B_MATRIX), plain, *sizes, pointer(b), c_int(n), packed)
    out, offset = np.empty((m, n), np.int32), np.zeros(1, np.int32)
    left = rows, plain, c_int(PACKED), c_int(ONE_OFFSET), *sizes, c_float(1), pointer(a), c_int(k), none
    right = packed, c_int(n), none, c_float(0), pointer(out), c_int(n), pointer(offset)

    def run() -> NDArray[np.int32]:
        MKL.cblas_gemm_s8u8s32_compute(*left, *right)
        return out

    yield run
