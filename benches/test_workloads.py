"""Time every row of ``workloads.json`` against NumPy; the results are checked, the times are not."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import qrs
from pytest_benchmark.fixture import BenchmarkFixture
from results import Results, Times
from workloads import ROWS, Call, prepare

# Seconds for a row and its bounds on the number of rounds.
BUDGET, FEWEST, MOST = 2.0, 5, 100


def seconds(call: Call) -> float:
    """Time one call by the wall clock."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def alone(call: Call) -> tuple[float, float]:
    """Time one call on a single thread of qrs: wall clock and CPU time."""
    threads = qrs.get_num_threads()
    qrs.set_num_threads(1)
    try:
        wall, cpu = time.perf_counter(), time.thread_time()
        call()
        return time.perf_counter() - wall, time.thread_time() - cpu
    finally:
        qrs.set_num_threads(threads)


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_workload(row: dict[str, Any], benchmark: BenchmarkFixture, results: Results) -> None:
    """Take turns: NumPy, qrs on one thread, qrs on all threads, and again."""
    case = prepare(row)
    case.check()
    times = Times(quiet=results.machine.probe())
    cost = seconds(case.peer) + alone(case.run)[0] + seconds(case.run)
    rounds = int(np.clip(BUDGET / cost, FEWEST, MOST))

    def others() -> None:
        times.peer.append(seconds(case.peer))
        times.one.append(alone(case.run))

    def run() -> None:
        times.all.append(seconds(case.run))

    benchmark.pedantic(run, setup=others, rounds=rounds, iterations=1)  # type: ignore[no-untyped-call]
    times.quiet = min(times.quiet, results.machine.probe())
    results.add(row, times)
