"""Elementwise non-linearities, and the layer that applies one by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .. import _core
from ..arrays import as_float32
from ..registry import unknown
from .base import F32, Layer

__all__ = ["Activation"]


@dataclass(frozen=True, eq=False, repr=False)
class Activation(Layer, id="activation"):
    """Apply a non-linearity to every element.

    Parameters
    ----------
    name : str
        One of ``"relu"``, ``"gelu"`` (the exact one, by the error function), ``"silu"``, ``"tanh"``,
        ``"none"``.

    Raises
    ------
    QrsValueError
        When the name is unknown; the message lists the known ones.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> qrs.nn.Activation("relu")(np.float32([-1, 2]))
    array([0., 2.], dtype=float32)
    """

    name: str

    def __post_init__(self) -> None:
        check_activation(self.name)

    def forward(self, x: ArrayLike) -> F32:
        """Apply the non-linearity.

        Parameters
        ----------
        x : ndarray of float32
            Any shape.

        Returns
        -------
        ndarray of float32, shape of ``x``

        Raises
        ------
        QrsTypeError
            When ``x`` is not an array of floats.
        """
        return activate(as_float32(x, "x"), self.name)


def check_activation(name: str | None) -> None:
    """Refuse a name that the native core does not know."""
    if name is not None and name not in _core.activations():
        raise unknown("activation", name, _core.activations())


def activate(x: F32, name: str | None) -> F32:
    """Return ``f(x)``; ``x`` itself when there is nothing to do."""
    if name is None or name == "none":
        return x
    out = np.empty_like(x)
    _core.activate(x, name, out)
    return out
