"""Noise: how much of a signal an approximation loses, summed over batches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import QrsValueError
from ..nn.base import Layer
from ..qtensor import QTensor

__all__ = ["Noise", "comparable", "is_quantized"]


@dataclass(frozen=True, slots=True)
class Noise:
    """Energy of a signal and of the error of its approximation.

    Attributes
    ----------
    signal, error : float
        ``sum y²`` and ``sum (y − ŷ)²``. Noises of several batches add.

    Examples
    --------
    >>> import numpy as np
    >>> one = Noise.between(np.float32([3, 4]), np.float32([3, 3.5]))
    >>> one, one.sqnr_db, one.ratio
    (Noise(signal=25.0, error=0.25), 20.0, 0.01)
    """

    signal: float = 0.0
    error: float = 0.0

    @classmethod
    def between(cls, exact: NDArray[Any], given: NDArray[Any]) -> Noise:
        """Measure one array against its approximation.

        Places where both hold the same infinity, as masks do, say nothing and are left out; where only one
        of them is finite, or one is NaN, the error is infinite.

        Parameters
        ----------
        exact, given : ndarray
            Of one shape.

        Returns
        -------
        Noise

        Raises
        ------
        QrsValueError
            When the shapes differ.
        """
        if exact.shape != given.shape:
            raise QrsValueError(f"outputs have shapes {exact.shape} and {given.shape}, expected one shape")
        a, b = exact.astype(np.float64).ravel(), given.astype(np.float64).ravel()
        told = np.isfinite(a) & np.isfinite(b)
        if not told.all():
            if not np.array_equal(a[~told], b[~told]):
                return cls(float(np.vdot(a[told], a[told])), math.inf)
            a, b = a[told], b[told]
        signal = float(np.vdot(a, a))
        a -= b
        return cls(signal, float(np.vdot(a, a)))

    @property
    def sqnr_db(self) -> float:
        """``10 log10(signal / error)``; infinite where nothing differs."""
        if not self.error:
            return math.inf
        return 10 * math.log10(self.signal / self.error) if self.signal else -math.inf

    @property
    def ratio(self) -> float:
        """``error / signal``; 0 where nothing differs."""
        if not self.error:
            return 0.0
        return self.error / self.signal if self.signal else math.inf

    def __add__(self, other: Noise) -> Noise:
        return Noise(self.signal + other.signal, self.error + other.error)

    def to_dict(self) -> dict[str, float | None]:
        """Return the values for JSON.

        Returns
        -------
        dict
            ``sqnr_db`` and ``ratio``; None for what is infinite: arrays that do not differ have the ratio 0.
        """
        told = {"sqnr_db": self.sqnr_db, "ratio": self.ratio}
        return {name: value if math.isfinite(value) else None for name, value in told.items()}


def comparable(outputs: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> dict[str, NDArray[Any]]:
    """Keep the outputs that hold floats: of numbers of rows or of shapes there is no noise."""
    arrays = {name: np.asarray(y) for name, y in dict(outputs).items() if not isinstance(y, tuple)}
    return {name: y for name, y in arrays.items() if y.dtype.kind == "f" or y.dtype.name == "bfloat16"}


def is_quantized(layer: Layer) -> bool:
    """Whether a slot of a layer holds codes."""
    return any(isinstance(layer.arrays().get(slot), QTensor) for slot in layer.slots)
