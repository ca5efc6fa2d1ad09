"""Layers that bring vectors to a common size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .. import _core
from ..arrays import LARGEST, as_float32, number, quiet
from ..errors import QrsValueError
from .base import F32, Layer, frozen, vector, width

__all__ = ["LayerNorm", "Normalize"]


@dataclass(frozen=True, eq=False, repr=False)
class LayerNorm(Layer, id="layer_norm"):
    r"""Layer normalisation over the last axis, with an optional residual added first.

    .. math:: y = \frac{s - mean(s)}{\sqrt{var(s) + eps}} w + b, \quad s = x + residual

    Parameters
    ----------
    weight : ndarray of float32, shape (width,)
    bias : ndarray of float32, shape (width,), optional
    eps : float, default 1e-5
        From 0; added in float32.

    Raises
    ------
    QrsTypeError
        When an array is not of a float dtype, or ``eps`` no number.
    QrsValueError
        When the lengths differ, or ``eps`` is negative or too large for float32.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> norm = qrs.nn.LayerNorm(np.ones(2, np.float32), eps=0.0)
    >>> norm(np.float32([[1, 3]]))
    array([[-1.,  1.]], dtype=float32)
    """

    weight: F32
    bias: F32 | None = None
    eps: float = 1e-5

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", frozen(self.weight, "weight", 1))
        object.__setattr__(self, "bias", vector(self.bias, "bias", len(self.weight)))
        object.__setattr__(self, "eps", number(self.eps, "eps"))
        if not 0.0 <= self.eps <= LARGEST:
            raise QrsValueError(f"eps is {self.eps}, expected 0 to {LARGEST}, the largest float32")

    def forward(self, x: ArrayLike, residual: ArrayLike | None = None) -> F32:
        """Normalise ``x``, or ``x + residual``.

        Parameters
        ----------
        x : ndarray of float32, shape (..., width)
        residual : ndarray of float32, shape of ``x``, optional

        Returns
        -------
        ndarray of float32, shape of ``x``

        Raises
        ------
        QrsValueError
            When the last axis is not as wide as the weight, or the shapes differ.
        """
        array = as_float32(x, "x")
        width(array, len(self.weight), f"a weight of shape {self.weight.shape}")
        other = None if residual is None else as_float32(residual, "residual")
        if other is not None and other.shape != array.shape:
            raise QrsValueError(f"residual has shape {other.shape}, expected {array.shape} like x")
        out = np.empty_like(array)
        _core.layer_norm(array, other, self.weight, self.bias, self.eps, out)
        return out


@dataclass(frozen=True, eq=False, repr=False)
class Normalize(Layer, id="normalize"):
    """Divide each vector along the last axis by its Euclidean length: ``y = x / max(|x|, eps)``.

    Parameters
    ----------
    eps : float, default 1e-12
        Above 0; compared in float64.

    Raises
    ------
    QrsTypeError
        When ``eps`` is no number.
    QrsValueError
        When it is not finite or not above 0.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> qrs.nn.Normalize()(np.float32([3, 4]))
    array([0.6, 0.8], dtype=float32)
    """

    eps: float = 1e-12

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", number(self.eps, "eps"))
        if not 0.0 < self.eps < np.inf:
            raise QrsValueError(f"eps is {self.eps}, expected a finite number > 0")

    def forward(self, x: ArrayLike) -> F32:
        """Give the vectors length one; a zero vector stays zero.

        Parameters
        ----------
        x : ndarray of float32, shape (..., width)

        Returns
        -------
        ndarray of float32, shape of ``x``

        Raises
        ------
        QrsTypeError
            When ``x`` is not an array of floats.
        QrsValueError
            When it has no axis.
        """
        array = as_float32(x, "x")
        if not array.ndim:
            raise QrsValueError("x has shape (), expected (..., width)")
        # In float64 no square of a float32 overflows or vanishes.
        with quiet():
            length = np.sqrt(np.square(array, dtype=np.float64).sum(axis=-1, keepdims=True))
            y: F32 = (array / np.maximum(length, self.eps)).astype(np.float32)
        return y
