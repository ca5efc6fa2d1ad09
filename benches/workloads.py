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

ROWS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("workloads.json").read_text("utf-8"))

OPERATIONS: dict[str, Callable[[dict[str, Any], np.random.Generator], Workload]] = {
    "matmul_integer": products.matmul_integer,
    "linear": products.linear,
    "linear_static": products.linear_static,
    "quantize": elements.codes,
    "dequantize": elements.codes,
    "fake_quantize": elements.codes,
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
