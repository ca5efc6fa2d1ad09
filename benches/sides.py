"""Those that take turns on a row: qrs, and each peer in its fastest way that is right."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from common import Call, Workload

# The least that one sample takes, in seconds: short calls are repeated.
SAMPLE = 5e-4


@dataclass
class Side:
    """One of those that take turns on a row, and its samples: wall clock and CPU time of one call."""

    name: str
    call: Call
    error: float = 0.0  # of its result
    good: bool = True  # the error is within the row's tolerance
    repeat: int = 1
    samples: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.call()  # warm
        self.repeat = max(1, round(SAMPLE / self.sample()[0]))

    def sample(self) -> tuple[float, float]:
        """Time a call. The CPU time is the process's: some peers work in a thread of their own."""
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(self.repeat):
            self.call()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return wall / self.repeat, cpu / self.repeat

    def turn(self) -> None:
        """Take a sample."""
        self.samples.append(self.sample())


def ways(name: str, peer: ModuleType, row: dict[str, Any], work: Workload, threads: int) -> Iterator[Side]:
    """Give every way that a peer has to do a row, with how good its result is."""
    for call in getattr(peer, row["op"])(work.data, threads):
        error = work.error(getattr(peer, "array", np.asarray)(call()))
        yield Side(name, call, error, error <= work.tolerance)


def fastest(sides: Iterator[Side]) -> Side | None:
    """Choose the fastest way that is good enough, else the fastest."""
    best, cost = None, (True, np.inf)
    for side in sides:
        known = (not side.good, min(side.sample()[0] for _ in range(2)))
        if known < cost:
            best, cost = side, known
    return best
