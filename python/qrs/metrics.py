"""How far apart two arrays are: what quantization cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from numpy.typing import ArrayLike

from . import _core
from .arrays import as_float32
from .errors import QrsValueError
from .qtensor import QTensor

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Distances between an array and its approximation.

    Attributes
    ----------
    sqnr_db : float
        Signal to quantization noise, ``10 log10(sum x² / sum (x − y)²)``; infinite where nothing differs.
    mse : float
        ``mean (x − y)²``.
    cosine : float
        ``sum xy / sqrt(sum x² · sum y²)``; 1 where both are zero, 0 where one is.
    max_abs : float
        ``max |x − y|``.

    Examples
    --------
    >>> compare([3.0, 4.0], [3.0, 3.5]).max_abs
    0.5
    """

    sqnr_db: float
    mse: float
    cosine: float
    max_abs: float


def compare(x: ArrayLike | QTensor, y: ArrayLike | QTensor) -> Comparison:
    """Measure how well ``y`` stands for ``x``.

    Parameters
    ----------
    x, y : array_like of float or QTensor
        Of one shape, finite. Sums are taken in float64.

    Returns
    -------
    Comparison
        Two empty arrays do not differ.

    Raises
    ------
    QrsValueError
        If the shapes differ or a value is not finite.

    Examples
    --------
    >>> compare([1.0, 2.0], [1.0, 2.5])
    Comparison(sqnr_db=13.010299956639813, mse=0.125, cosine=0.9965457582448796, max_abs=0.5)
    """
    a, b = as_float32(x, "x"), as_float32(y, "y")
    if a.shape != b.shape:
        raise QrsValueError(f"x has shape {a.shape} and y {b.shape}, expected one shape")
    if not a.size:
        return Comparison(math.inf, 0.0, 1.0, 0.0)
    xx, yy, xy, error, worst = _core.error_sums(a, b)
    # Squares of float32 cannot overflow float64, so a sum that is not finite had a value that was not.
    if not math.isfinite(xx + yy):
        name = "x" if not math.isfinite(xx) else "y"
        raise QrsValueError(f"{name} has values that are not finite; compare takes finite arrays")
    sqnr = math.inf
    if error:
        sqnr = 10 * math.log10(xx / error) if xx else -math.inf
    norm = math.sqrt(xx * yy)
    cosine = xy / norm if norm else float(xx == yy)
    return Comparison(sqnr, error / a.size, max(-1.0, min(1.0, cosine)), worst)
