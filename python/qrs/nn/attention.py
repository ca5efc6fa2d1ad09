"""Multi-head self-attention: four affine layers around the native softmax core."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .. import _core
from ..arrays import as_float32, integer
from ..errors import QrsTypeError, QrsValueError
from .base import F32, Layer, call
from .linear import Linear

__all__ = ["MultiHeadAttention"]


@dataclass(frozen=True, eq=False, repr=False)
class MultiHeadAttention(Layer, id="multi_head_attention"):
    r"""Self-attention with several heads.

    .. math:: y = O(concat_h(softmax(Q_h K_h^T / \sqrt{d} + mask) V_h)), \quad d = width / heads

    The four projections are layers with names of their own: in a model where this layer is
    ``"block0/attention"``, a recipe finds them as ``"block0/attention/query"`` and so on.

    Parameters
    ----------
    query, key, value : Linear, weight shape (width, k)
    output : Linear, weight shape (n, width)
    heads : int
        Divides width.

    Raises
    ------
    QrsTypeError
        When a projection is not a ``Linear``, or ``heads`` no integer.
    QrsValueError
        When the widths disagree or ``heads`` does not divide them.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> same = qrs.nn.Linear(np.eye(4, dtype=np.float32))
    >>> attention = qrs.nn.MultiHeadAttention(same, same, same, same, heads=2)
    >>> attention(np.ones((1, 3, 4), np.float32)).shape
    (1, 3, 4)
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    heads: int

    def __post_init__(self) -> None:
        for name, layer in (
            ("query", self.query),
            ("key", self.key),
            ("value", self.value),
            ("output", self.output),
        ):
            if not isinstance(layer, Linear):
                raise QrsTypeError(f"{name} is a {type(layer).__name__}, expected a Linear")
        rows = [layer.weight.shape[0] for layer in (self.query, self.key, self.value)]
        if len({*rows, self.output.weight.shape[1]}) != 1:
            taken = self.output.weight.shape[1]
            raise QrsValueError(
                f"query, key and value give widths {rows}, output takes {taken}; expected one width"
            )
        object.__setattr__(self, "heads", integer(self.heads, "heads"))
        if self.heads < 1 or rows[0] % self.heads:
            raise QrsValueError(
                f"heads is {self.heads}, expected a whole number from 1 that divides the width {rows[0]}"
            )

    def forward(self, x: ArrayLike, mask: ArrayLike | None = None) -> F32:
        """Let each position of a sequence look at all others.

        Parameters
        ----------
        x : ndarray of float32, shape (..., n, k)
        mask : ndarray of float32, shape (..., n), optional
            Added to the scores of each position: 0 keeps it, a large negative number hides it.

        Returns
        -------
        ndarray of float32, shape (..., n, width of output)

        Raises
        ------
        QrsTypeError
            When the mask is not a float array (a boolean mask does not say which of its values hides).
        QrsValueError
            When shapes disagree.
        """
        array = as_float32(x, "x")
        if array.ndim < 2:
            raise QrsValueError(f"x has shape {array.shape}, expected (..., n, k)")
        bias = None if mask is None else as_float32(mask, "mask")
        if bias is not None and bias.shape != array.shape[:-1]:
            raise QrsValueError(f"mask has shape {bias.shape}, expected {array.shape[:-1]}")
        q = call("query", self.query, array)
        k = call("key", self.key, array)
        v = call("value", self.value, array)
        mixed = np.empty_like(q)
        if mixed.size:
            n, columns = q.shape[-2:]
            batch = (-1, n, columns)
            _core.attention(
                q.reshape(batch),
                k.reshape(batch),
                v.reshape(batch),
                None if bias is None else bias.reshape(-1, n),
                self.heads,
                (columns // self.heads) ** -0.5,
                mixed.reshape(batch),
            )
        return call("output", self.output, mixed)
