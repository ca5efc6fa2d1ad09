"""Rows that multiply: integers, and layers with dynamic, float32 or static inputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import qrs
from common import F32, Codes, Workload, close, floats, in_turn, largest, moved, rms
from numpy.typing import NDArray


def some_rows(m: int) -> NDArray[np.intp]:
    """Give the rows of a product that are checked: all of a small one, 64 of a large one."""
    return np.linspace(0, m - 1, min(m, 64)).astype(np.intp)


@dataclass(frozen=True)
class IntegerProduct:
    """``a @ b`` exactly, with a (m, k) int8 or uint8 and b (k, n) int8."""

    a: Codes
    b: Codes


def matmul_integer(row: dict[str, Any], rng: np.random.Generator) -> Workload:
    """Take every code there is: kernels whose sums saturate show."""
    m, n, k = row["shape"]
    limits = np.iinfo(row.get("a", "int8"))
    a = rng.integers(limits.min, limits.max + 1, (m, k), limits.dtype)
    b = rng.integers(-128, 128, (k, n), np.int8)
    out = np.empty((m, n), np.int32)
    some = some_rows(m)
    expected = a[some].astype(np.float64) @ b.astype(np.float64)

    def check() -> None:
        assert np.array_equal(qrs.matmul_integer(a, b)[some], expected)

    return Workload(
        data=IntegerProduct(a, b),
        run=lambda: qrs.matmul_integer(a, b, out=out),
        check=check,
        error=lambda got: largest(got[some], expected),
        tolerance=0,
    )


@dataclass(frozen=True)
class Layer:
    """``x @ w.T`` for float32 x (m, k) and a weight of codes (n, k) around 0, with scales along k."""

    x: F32
    codes: Codes
    scale: F32  # (n, 1) or (n, k / group)
    bits: int
    group: int  # 0 for one scale to a row
    dynamic: bool  # x may be quantized to 8 bits
    copies: int  # of the weight, to go through in turn

    def weight(self) -> F32:
        """Decode the weight."""
        n, k = self.codes.shape
        return (self.codes.reshape(n, -1, self.group or k) * self.scale[..., None]).reshape(n, k)


def rounded_rows(x: F32) -> NDArray[np.float64]:
    """Round each row to its own 256 levels from its smallest to its largest element, zero among them."""
    lo = np.minimum(x.min(axis=-1, keepdims=True), 0).astype(np.float64)
    hi = np.maximum(x.max(axis=-1, keepdims=True), 0).astype(np.float64)
    scale = ((hi - lo) / 255).astype(np.float32)
    zero_point = np.clip(np.rint(-128 - lo / scale), -128, 127)
    steps = np.clip(np.rint(x / scale), -128 - zero_point, 127 - zero_point)
    return np.asarray(scale * steps, np.float64)


def linear(row: dict[str, Any], rng: np.random.Generator) -> Workload:
    """Quantize the input as the presets of `Recipe` have it, or not at all."""
    m, n, k = row["shape"]
    granularity = qrs.per_group(row["group"]) if row["group"] else qrs.per_channel(0)
    q = qrs.quantize(floats(rng, n, k), qrs.Scheme(row["weight"], granularity))
    x, out = floats(rng, m, k), np.empty((m, n), np.float32)
    dynamic = None
    if "input" in row:
        dynamic = qrs.Dynamic(qrs.Scheme(row["input"], qrs.per_token, symmetric=False))
    copies = [
        qrs.QTensor.from_parts(q.codes.copy(), q.scale, q.zero_point, q.scheme, q.shape)
        for _ in range(max(1, row.get("rotate", 0) // q.codes.nbytes))
    ]
    for copy in copies:
        qrs.linear(x[:1], copy, input=dynamic)  # packs the weight
    some, dense = some_rows(m), q.dequantize().T.astype(np.float64)
    exact = x[some] @ dense

    def check() -> None:
        expected = exact if dynamic is None else rounded_rows(x[some]) @ dense
        close(qrs.linear(x, q, input=dynamic)[some], expected, 1e-5)

    bits, scale = q.scheme.format.bits, q.scale.reshape(n, -1)
    return Workload(
        data=Layer(x, q.unpack(), scale, bits, row["group"], dynamic is not None, len(copies)),
        run=in_turn([partial(qrs.linear, x, copy, input=dynamic, out=out) for copy in copies]),
        check=check,
        error=lambda got: rms(got[some], exact),
        # Off by 0.8 % with 8 bits to a row, by 2.2 % with 7 bits to the tensor, by 0.2 % in bfloat16.
        tolerance=0.03 if dynamic else 0.005,
    )


@dataclass(frozen=True)
class StaticLayer:
    """A product from codes to codes: uint8 x (m, k), int8 weight (n, k), uint8 result (m, n).

    A peer may have x and the result as int8, all codes and zero points 128 lower.
    """

    x: Codes
    x_scale: float
    x_zero: int
    codes: Codes
    scale: F32  # (n,)
    y_scale: float
    y_zero: int


def linear_static(row: dict[str, Any], rng: np.random.Generator) -> Workload:
    """Take the range of the result for its scale, as calibration does."""
    m, n, k = row["shape"]
    w = qrs.quantize(floats(rng, n, k), qrs.Scheme("int8", qrs.per_channel(0)))
    x = qrs.quantize(floats(rng, m, k), "uint8")
    exact = x.dequantize().astype(np.float64) @ w.dequantize().T.astype(np.float64)
    y = x.scheme.qparams(exact.min(), exact.max())
    output = qrs.Static(x.scheme, qparams=y)
    y_scale, y_zero = float(y.scale), int(y.zero_point)
    expected = np.clip(np.rint(exact / y_scale) + y_zero, 0, 255).astype(np.uint8)

    def error(got: NDArray[Any]) -> float:
        return moved(got if got.dtype == np.uint8 else got.view(np.uint8) ^ 128, expected)

    def check() -> None:
        assert error(qrs.linear(x, w, output=output).unpack()) < 1e-3

    return Workload(
        data=StaticLayer(x.unpack(), float(x.scale), int(x.zero_point), w.unpack(), w.scale, y_scale, y_zero),
        run=lambda: qrs.linear(x, w, output=output),
        check=check,
        error=error,
        tolerance=0.01,
    )
