"""The table of workloads, and how a row of it is made ready."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import convolutions
import elements
import layers
import numpy as np
import products
from common import Workload

# The table, and two rows for each number format: 64 MiB of elements, which no cache holds.
ROWS: list[dict[str, Any]] = [
    *json.loads(Path(__file__).with_name("workloads.json").read_text("utf-8")),
    *elements.each_format(1 << 24),
]

OPERATIONS: dict[str, Callable[[dict[str, Any], np.random.Generator], Workload]] = {
    "matmul_integer": products.matmul_integer,
    "linear": products.linear,
    "linear_static": products.linear_static,
    "quantize": elements.codes,
    "dequantize": elements.codes,
    "fake_quantize": elements.codes,
    "encode": elements.one_format,
    "decode": elements.one_format,
    "min_max": elements.min_max,
    "gelu": layers.gelu,
    "softmax": layers.softmax,
    "layer_norm": layers.layer_norm,
    "attention": layers.attention,
    "encoder": layers.encoder,
    "conv2d": convolutions.conv2d,
}


def prepare(row: dict[str, Any]) -> Workload:
    """Make the data of a row; a row that cannot run here skips with the reason."""
    return OPERATIONS[row["op"]](row, np.random.default_rng(0))
