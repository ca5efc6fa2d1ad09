"""Those that take turns on a row: qrs, and each peer in its fastest way that is right."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from common import Call, Workload

# Seconds: the least that one sample takes, by repeating; what a call takes that needs no warming.
SAMPLE, LONG = 5e-4, 0.1


@dataclass
class Side:
    """One of those that take turns on a row, and its samples: wall clock and CPU time of one call."""

    name: str
    call: Call
    error: float = 0.0  # of its result
    good: bool = True  # the error is within the row's tolerance
    cost: float = field(init=False)  # about how long a call takes
    repeat: int = field(default=1, init=False)
    samples: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cost, _ = self.sample()
        if self.cost < LONG:
            self.cost, _ = min(self.sample() for _ in range(3))
        self.repeat = max(1, round(SAMPLE / self.cost))

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
    return min(sides, key=lambda side: (not side.good, side.cost), default=None)
