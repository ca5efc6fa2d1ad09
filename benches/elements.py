"""Rows that pass over an array once: codes and ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import qrs
from common import F32, Call, Codes, Workload, floats, largest, moved
from numpy.typing import NDArray

# What bounds a pass over data in memory.
LIMIT = "copy 192 MiB"


@dataclass(frozen=True)
class Elements:
    """An array, symmetric scales for it, and its codes: int8 to the tensor or the row, or grouped int4.

    A peer may give int4 codes two to a byte, flat, the first in the low bits.
    """

    x: F32  # one axis or (rows, columns)
    scale: F32  # (), (rows, 1) or (rows, columns / group)
    codes: Codes
    bits: int
    group: int
    ends: tuple[int, int]  # the lowest and the highest code


def codes(row: dict[str, Any], rng: np.random.Generator) -> Workload:
    """Give one of quantize, dequantize and fake_quantize."""
    x, group = floats(rng, *row["shape"]), row.get("group", 0)
    granularity = qrs.per_group(group) if group else qrs.per_channel(0) if x.ndim > 1 else qrs.per_tensor
    scheme = qrs.Scheme(row.get("format", "int8"), granularity)
    q, out = qrs.quantize(x, scheme), np.empty_like(x)
    qp = q.qparams
    scale = qp.scale.reshape(len(x), -1) if x.ndim > 1 else qp.scale
    blocks, cells = (x.reshape(len(x), -1, group), scale[..., None]) if group else (x, scale)
    steps = np.rint(blocks / cells).reshape(x.shape)
    np.clip(steps, *scheme.code_range, out=steps)

    def error(got: NDArray[Any]) -> float:
        if row["op"] == "quantize":
            if got.size < x.size:
                got = np.stack([got.view(np.int8) << 4 >> 4, got.view(np.int8) >> 4], axis=1)
            return moved(got.reshape(x.shape), steps)
        if row["op"] == "fake_quantize":
            return moved(np.rint(got.reshape(blocks.shape) / cells).reshape(x.shape), steps)
        return largest(got.reshape(blocks.shape), steps.reshape(blocks.shape) * cells)

    def check() -> None:
        got = run()
        assert error(got.unpack() if isinstance(got, qrs.QTensor) else got) == 0

    calls: dict[str, Call] = {
        "quantize": lambda: qrs.quantize(x, scheme, qparams=qp),
        "dequantize": lambda: q.dequantize(out=out),
        "fake_quantize": lambda: qrs.fake_quantize(x, scheme, qparams=qp, out=out),
    }
    run = calls[row["op"]]
    return Workload(
        data=Elements(x, scale, q.unpack(), scheme.format.bits, group, scheme.code_range),
        run=run,
        check=check,
        error=error,
        # A quotient by way of the reciprocal may round the other way near a tie.
        tolerance=1e-6 if row["op"] == "dequantize" else 1e-3,
    )


def each_format(count: int) -> list[dict[str, Any]]:
    """Give a row for each way of each format there is, over ``count`` elements that come from memory.

    The bytes that must move are the elements, the packed codes and, if they stand apart, the scales of cells.
    """
    rows: list[dict[str, Any]] = []
    for name, form in qrs.FORMATS.items():
        # A search takes a microsecond for some elements.
        size = count >> 6 if form.kind == "trellis" else count
        block = qrs.Scheme(name).granularity.block((size,))
        scales = 0 if form.kind == "block" else 4 * -(-size // block[0])
        work = 4 * size + form.packed_bytes(size) + scales
        rows += [
            {"name": f"{op}-{name}", "op": op, "shape": [size], "format": name, "limit": LIMIT, "work": work}
            for op in ("encode", "decode")
        ]
    return rows


def one_format(row: dict[str, Any], rng: np.random.Generator) -> Workload:
    """Give one of encode and decode: quantize and dequantize in any format, with the scale of the range."""
    x = floats(rng, *row["shape"])
    scheme = qrs.Scheme(row["format"], fit="minmax")
    # Levels are learned, and a range is looked for, in a part; it holds nearly all of the rest.
    seen = x[: 1 << 16] if scheme.granularity == qrs.per_tensor else x
    qp = qrs.quantize(seen, scheme).qparams
    q, out = qrs.quantize(x, scheme, qparams=qp), np.empty_like(x)
    calls: dict[str, Call] = {
        "encode": lambda: qrs.quantize(x, scheme, qparams=qp),
        "decode": lambda: q.dequantize(out=out),
    }

    def check() -> None:
        again = qrs.quantize(x, scheme, qparams=qp).dequantize()
        assert np.array_equal(again, qrs.fake_quantize(x, scheme, qparams=qp))

    return Workload(x, calls[row["op"]], check, lambda got: largest(got, q.dequantize()), tolerance=0)


def min_max(row: dict[str, Any], rng: np.random.Generator) -> Workload:
    """Update an observer, which refuses NaN and infinities on the way."""
    x = floats(rng, *row["shape"])
    axis = None if x.ndim == 1 else 0
    seen = qrs.observers.MinMax(axis=axis)
    along = None if axis is None else 1
    expected = np.stack([x.min(axis=along), x.max(axis=along)])

    def check() -> None:
        seen.update(x)
        first = slice(0, 1) if axis is None else slice(1, None)  # entry 0 is the whole tensor's
        assert np.array_equal(np.stack([seen.lo[first], seen.hi[first]]).reshape(expected.shape), expected)

    def error(got: NDArray[Any]) -> float:
        return largest(got.reshape(expected.shape), expected)

    return Workload(x, lambda: seen.update(x), check, error, tolerance=0)
