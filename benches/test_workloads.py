"""Time every row of ``workloads.json`` beside the peers; the results are checked, the times are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import qrs
from pytest_benchmark.fixture import BenchmarkFixture
from results import Results, summary
from sides import Side, fastest, ways
from workloads import ROWS, prepare

# Seconds for a row, and bounds on the number of rounds.
BUDGET, FEWEST, MOST = 2.0, 5, 100


@pytest.mark.parametrize("threads", sorted({1, qrs.get_num_threads()}), ids=lambda threads: f"{threads}t")
@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
@pytest.mark.filterwarnings("ignore")  # of the peers
def test_workload(row: dict[str, Any], threads: int, benchmark: BenchmarkFixture, results: Results) -> None:
    """Take turns: the peers, qrs, and again."""
    qrs.set_num_threads(threads)
    work = prepare(row)
    work.check()
    sides, failed = [], {}
    for name, peer in results.peers.items():
        if hasattr(peer, row["op"]):
            try:
                side = fastest(ways(name, peer, row, work, threads))
            except Exception as error:
                failed[name] = f"{type(error).__name__}: {error}"
            else:
                sides += [side] if side else []
    own = Side("qrs", work.run)
    quiet = results.machine.probe()
    cost = sum(side.repeat * side.cost for side in (own, *sides))
    rounds = int(np.clip(BUDGET / cost, FEWEST, MOST))

    def others() -> None:
        for side in sides:
            side.turn()

    benchmark.pedantic(own.turn, setup=others, rounds=rounds, iterations=1)  # type: ignore[no-untyped-call]
    quiet = min(quiet, results.machine.probe())
    results.rows.append({**summary(row, threads, own, sides), "failed": failed, "quiet": quiet})
