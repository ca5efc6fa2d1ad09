"""What a row becomes, and how far a result may be off."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Call = Callable[[], Any]
F32 = NDArray[np.float32]
Codes = NDArray[Any]  # int8 or uint8, one to an element


@dataclass(frozen=True)
class Workload:
    """One row, ready to run.

    ``data`` is what peers are given. ``check`` holds qrs to its own numerics; ``error`` says how far a peer's
    result is from the exact one, and at ``tolerance`` a peer still counts as having done the same work.
    """

    data: Any
    run: Call
    check: Callable[[], None]
    error: Callable[[NDArray[Any]], float]
    tolerance: float


def floats(rng: np.random.Generator, *shape: int) -> F32:
    """Give normally distributed float32 numbers."""
    return rng.standard_normal(shape, np.float32)


def in_turn(calls: list[Call]) -> Call:
    """Give a call that makes the next of them each time."""
    ring = itertools.cycle(calls)
    return lambda: next(ring)()


# How far a result is off


def close(got: NDArray[Any], expected: NDArray[Any], tolerance: float) -> None:
    """Compare with a tolerance relative to the largest element."""
    error = largest(got, expected)
    assert error <= tolerance, f"off by {error:.2g} of the largest element, expected {tolerance:.2g}"


def largest(got: NDArray[Any], expected: NDArray[Any]) -> float:
    """Give the largest difference, relative to the largest element."""
    return float(np.max(np.abs(got - expected))) / float(np.max(np.abs(expected)))


def rms(got: NDArray[Any], expected: NDArray[Any]) -> float:
    """Give the root of the mean square difference, relative to that of what is expected."""
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def moved(got: NDArray[Any], expected: NDArray[Any]) -> float:
    """Give the share of codes that are one step off; a code that is further off spoils the result."""
    steps = np.abs(np.subtract(got, expected, dtype=np.float32))
    return float(np.mean(steps)) if steps.max() <= 1 else math.inf
