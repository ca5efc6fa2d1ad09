"""Every peer has its operations right, in small: before anything is timed."""

from __future__ import annotations

from typing import Any

import peers
import pytest
from sides import ways
from workloads import OPERATIONS, prepare

# One of every kind of row. Where x is uint8 a sum has one product: some kernels add two in 16 bits, and
# saturate.
SMALL: list[dict[str, Any]] = [
    {"op": "matmul_integer", "shape": [7, 33, 40]},
    {"op": "matmul_integer", "shape": [7, 33, 1], "a": "uint8"},
    {"op": "linear", "shape": [5, 64, 256], "weight": "int8", "group": 0, "input": "int8"},
    {"op": "linear", "shape": [1, 64, 256], "weight": "int8", "group": 0, "input": "int8", "rotate": 50000},
    {"op": "linear", "shape": [5, 64, 256], "weight": "int4", "group": 32, "input": "int8"},
    {"op": "linear", "shape": [5, 64, 256], "weight": "int4", "group": 128},
    {"op": "linear_static", "shape": [5, 16, 1]},
    {"op": "quantize", "shape": [4096]},
    {"op": "quantize", "shape": [16, 256]},
    {"op": "quantize", "shape": [16, 256], "format": "int4", "group": 128},
    {"op": "dequantize", "shape": [4096]},
    {"op": "fake_quantize", "shape": [4096]},
    {"op": "fake_quantize", "shape": [16, 256]},
    {"op": "encode", "shape": [4096], "format": "nf4"},
    {"op": "decode", "shape": [4096], "format": "q4_k"},
    {"op": "min_max", "shape": [4096]},
    {"op": "min_max", "shape": [16, 256]},
    {"op": "gelu", "shape": [16, 256]},
    {"op": "softmax", "shape": [16, 256]},
    {"op": "layer_norm", "shape": [16, 256]},
    {"op": "attention", "shape": [2, 16, 64, 4]},
    {"op": "conv2d", "shape": [2, 1, 8, 9, 1], "stride": 2},
    {"op": "conv2d", "shape": [1, 8, 8, 9, 3], "groups": 8},
]
IDS = ["-".join(map(str, [row["op"], *row["shape"], row.get("weight", "")])).strip("-") for row in SMALL]


def test_every_operation_is_here() -> None:
    assert {row["op"] for row in SMALL} == set(OPERATIONS) - {"encoder"}


@pytest.fixture
def found(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Any:
    """Import a peer, where it is to be measured and there."""
    name = request.param
    if name != "numpy" and not pytestconfig.getoption("peers", default=False):
        pytest.skip("only with --peers")
    loaded, missing = peers.load([name])
    if missing:
        pytest.skip(missing[name])
    return loaded[name]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("row", SMALL, ids=IDS)
@pytest.mark.parametrize("found", peers.names(), indirect=True)
@pytest.mark.filterwarnings("ignore")  # of the peers
def test_peer_is_right(found: Any, row: dict[str, Any], threads: int) -> None:
    work = prepare(row)
    work.check()
    sides = list(ways("peer", found, row, work, threads)) if hasattr(found, row["op"]) else []
    # Some ways may round more than the row allows: those are not timed.
    assert not sides or any(side.good for side in sides), [side.error for side in sides]
