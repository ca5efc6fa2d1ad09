"""How long each layer of some models takes, measured in turns so that a busy machine slows all alike."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from numpy.typing import ArrayLike

from ..errors import QrsValueError, expect_all
from ..model import Model
from ..progress import Progress, track

__all__ = ["Times", "busy", "load_of_machine", "times"]

# Above it threads wait for a CPU more often than not.
_BUSY = 1.5


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of one model, medians over the runs.

    Attributes
    ----------
    total : float
        Of a whole run.
    layers : dict of str to float
        Of each layer, with the layers that it holds.
    """

    total: float
    layers: dict[str, float]


def times(
    models: Sequence[Model], batch: Mapping[str, ArrayLike], runs: int = 20, progress: Progress = None
) -> list[Times]:
    """Time models on one batch, a run of each in turn.

    Parameters
    ----------
    models : sequence of Model
    batch : mapping of str to array_like
    runs : int, default 20
        Of each model, after one that packs weights and does not count.
    progress : None, bool or callable, optional
        Called as ``progress(done, total)`` after each turn; True shows a bar.

    Returns
    -------
    list of Times
        In the order of the models.

    Raises
    ------
    QrsValueError
        When ``runs`` is less than 1.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> model = qrs.Model.chain({"head": qrs.nn.Linear(np.eye(2, dtype=np.float32))})
    >>> taken, = times([model], {"x": np.float32([[1, 2]])}, runs=3)
    >>> 0 < taken.layers["head"] < taken.total
    True
    """
    models = expect_all(models, Model, "models")
    if runs < 1:
        raise QrsValueError(f"runs is {runs}, expected at least 1")
    for model in models:
        model.run(batch)
    totals: list[list[float]] = [[] for _ in models]
    layers: list[dict[str, list[float]]] = [{} for _ in models]
    for _ in track(range(runs), progress, "time"):
        for i, model in enumerate(models):
            totals[i].append(_run(model, batch, layers[i]))
    return [
        Times(median(total), {name: median(all) for name, all in by_layer.items()})
        for total, by_layer in zip(totals, layers, strict=True)
    ]


def _run(model: Model, batch: Mapping[str, ArrayLike], layers: dict[str, list[float]]) -> float:
    started: dict[str, float] = {}

    def before(name: str, inputs: tuple[Any, ...]) -> None:
        started[name] = time.perf_counter()

    def after(name: str, output: Any) -> None:
        layers.setdefault(name, []).append(1000 * (time.perf_counter() - started[name]))

    start = time.perf_counter()
    model.run(batch, watch=before, after=after)
    return 1000 * (time.perf_counter() - start)


def load_of_machine() -> float | None:
    """Give how many threads want each CPU, of all programs, where the system tells."""
    return os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else None


def busy(load: float | None) -> str:
    """Say what a load does to the times of float32 products; nothing where it is low.

    Examples
    --------
    >>> busy(0.2), busy(3.0)[:19]
    ('', 'the machine is busy')
    """
    if load is None or load <= _BUSY:
        return ""
    return (
        f"the machine is busy (load {load:.1f} for each CPU): products in float32, whose threads wait for "
        f"one another, look slower than they are"
    )
