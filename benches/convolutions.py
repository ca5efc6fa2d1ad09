"""Convolutions of float32 images with int8 filters, the images quantized with known parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import qrs
from common import F32, Codes, Workload, close, floats, rms
from numpy.typing import NDArray

# Three standard deviations to both sides of 0.
QPARAMS = qrs.QParams(6 / 255, 128)


@dataclass(frozen=True)
class Convolution:
    """Images (batch, channels, height, width) and filters (filters, channels / groups, side, side)."""

    x: F32
    x_scale: float
    x_zero: int
    codes: Codes
    scale: F32  # (filters,)
    stride: int
    padding: int  # on each side
    groups: int
    y_scale: float  # of a result in uint8
    y_zero: int


def conv2d(row: dict[str, Any], rng: np.random.Generator) -> Workload:
    """Pad so that a stride of 1 keeps the size; the exact result is that of the decoded filters and codes."""
    batch, channels, filters, size, side = row["shape"]
    stride, groups, padding = row.get("stride", 1), row.get("groups", 1), side // 2
    x = floats(rng, batch, channels, size, size)
    w = qrs.quantize(
        floats(rng, filters, channels // groups, side, side), qrs.Scheme("int8", qrs.per_channel(0))
    )
    known = qrs.Static(qrs.Scheme("uint8"), qparams=QPARAMS)
    layer = qrs.nn.Conv2d(w, stride=stride, padding=padding, groups=groups, input=known)
    exact = layer.replace(weight=w.dequantize(), input=None)
    expected = exact(qrs.fake_quantize(x, "uint8", qparams=QPARAMS))

    def check() -> None:
        close(layer(x), expected, 1e-4)

    def error(got: NDArray[Any]) -> float:
        return rms(got, expected)

    scale, zero_point = float(QPARAMS.scale), int(QPARAMS.zero_point)
    y = known.scheme.qparams(expected.min(), expected.max())
    ends = float(y.scale), int(y.zero_point)
    data = Convolution(x, scale, zero_point, w.unpack(), w.scale, stride, padding, groups, *ends)
    # A result that was uint8 on its way is off by 1 %.
    return Workload(data, lambda: layer(x), check, error, tolerance=0.015)
