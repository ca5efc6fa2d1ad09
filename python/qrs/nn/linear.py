"""The affine layer: ``y = activation(x · Wᵀ + b)``, in floats or in integers as the weight says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from .. import ops
from ..arrays import as_float32, quiet
from ..errors import FormatError, QrsTypeError, QrsValueError, quote
from ..ops import Dynamic, Static, check_operands
from ..qtensor import QTensor
from ..scheme import QParams, Scheme
from .activation import activate, check_activation
from .base import F32, Layer, Weight, vector, weight, width

__all__ = ["Linear"]


@dataclass(frozen=True, eq=False, repr=False)
class Linear(Layer, id="linear"):
    r"""Affine map along the last axis.

    .. math:: y_{..j} = f(\sum_i x_{..i} W_{ji} + b_j)

    A float32 weight multiplies with NumPy's BLAS. A ``QTensor`` multiplies in the native core: with
    ``input=None`` its codes are decoded on the way and the products are float32; with ``Dynamic`` or
    ``Static`` the input becomes integer codes too and the products are exact in int32.

    Parameters
    ----------
    weight : ndarray or QTensor, shape (n, k)
    bias : ndarray of float32, shape (n,), optional
    input : Dynamic, Static or None
        How the input of a quantized weight is quantized. Must be None for a float weight.
    activation : str, optional
        ``"relu"``, ``"gelu"``, ``"silu"``, ``"tanh"``; None applies none.

    Raises
    ------
    QrsValueError
        When shapes disagree, the activation is unknown, or ``input`` is given for a float weight.
    QrsTypeError
        When an array is not of a float dtype.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> layer = qrs.nn.Linear(np.eye(3, dtype=np.float32), activation="relu")
    >>> layer(np.float32([[1, -2, 3]]))
    array([[1., 0., 3.]], dtype=float32)
    """

    weight: Weight
    bias: F32 | None = None
    input: Dynamic | Static | None = None
    activation: str | None = None

    slots: ClassVar[tuple[str, ...]] = ("weight",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", weight(self.weight, "weight", 2))
        object.__setattr__(self, "bias", vector(self.bias, "bias", self.weight.shape[0]))
        check_activation(self.activation)
        check_input(self.input, self.weight)

    def forward(self, x: ArrayLike | QTensor) -> F32:
        """Apply the layer.

        Parameters
        ----------
        x : ndarray of float32, shape (..., k)
            A quantized weight also takes a ``per_tensor`` QTensor, as `qrs.linear` does.

        Returns
        -------
        ndarray of float32, shape (..., n)

        Raises
        ------
        QrsValueError
            When the last axis of ``x`` is not k long.
        """
        if isinstance(self.weight, QTensor):
            return ops.linear(x, self.weight, bias=self.bias, activation=self.activation, input=self.input)
        array = as_float32(x, "x")
        n, k = self.weight.shape
        width(array, k, f"a weight of shape {(n, k)}")
        rows = array if array.ndim == 2 else array.reshape(math.prod(array.shape[:-1]), k)
        with quiet():
            y: F32 = np.matmul(rows, self.weight.T)
            if self.bias is not None:
                y += self.bias
        y = activate(y, self.activation)
        return y if array.ndim == 2 else y.reshape(*array.shape[:-1], n)

    def attributes(self) -> dict[str, Any]:
        """Return activation and input as JSON values; an observer stays out, its work is done.

        Returns
        -------
        dict of str to JSON value

        Examples
        --------
        >>> import numpy as np, qrs
        >>> qrs.nn.Linear(np.eye(3, dtype=np.float32), activation="relu").attributes()
        {'bias': None, 'input': None, 'activation': 'relu'}
        """
        return {**super().attributes(), "input": input_to_dict(self.input)}

    @classmethod
    def from_parts(cls, arrays: Mapping[str, Any], attributes: Mapping[str, Any]) -> Linear:
        """Rebuild a layer from what ``arrays`` and ``attributes`` gave.

        Parameters
        ----------
        arrays : mapping of str to ndarray or QTensor
        attributes : mapping of str to JSON value
            ``input`` as the dictionary that ``attributes`` gave.

        Returns
        -------
        Linear

        Raises
        ------
        QrsTypeError, QrsValueError, FormatError
            When a part is missing, unknown or not valid.

        Examples
        --------
        >>> import numpy as np, qrs
        >>> qrs.nn.Linear.from_parts({"weight": np.eye(3, dtype=np.float32)}, {"activation": "relu"})
        Linear(weight=float32[3, 3], activation='relu')
        """
        return super().from_parts(arrays, {**attributes, "input": input_from_dict(attributes.get("input"))})


def check_input(input: object, weight: Weight) -> None:
    """Refuse what cannot stand in the input slot of a layer with this weight."""
    if input is not None and not isinstance(input, Dynamic | Static):
        raise QrsTypeError(f"input is {quote(input)}, expected Dynamic, Static or None")
    if input is not None and not isinstance(weight, QTensor):
        raise QrsValueError(
            "input is given for a float32 weight; quantize the weight first or leave input=None"
        )
    if input is not None and isinstance(weight, QTensor):
        check_operands(input, weight)


def input_to_dict(input: Dynamic | Static | None) -> dict[str, Any] | None:
    """Describe an input as values that JSON can hold."""
    if input is None:
        return None
    data: dict[str, Any] = {"kind": "static" if isinstance(input, Static) else "dynamic"}
    data["scheme"] = input.scheme.to_dict()
    if isinstance(input, Static) and input.qparams is not None:
        # A float32 is exact as a Python float, and so in JSON.
        data["scale"] = float(input.qparams.scale)
        data["zero_point"] = int(input.qparams.zero_point)
    return data


def input_from_dict(data: object) -> Dynamic | Static | None:
    """Rebuild what ``input_to_dict`` described; a ``FormatError`` says what is wrong."""
    if data is None:
        return None
    if not isinstance(data, Mapping) or data.get("kind") not in ("static", "dynamic"):
        raise FormatError(f"input is {quote(data)}, expected null or an object of kind 'static' or 'dynamic'")
    fields = set(data) - {"kind", "scheme"}
    if fields not in ((set(), {"scale", "zero_point"}) if data["kind"] == "static" else (set(),)):
        raise FormatError(f"input of kind {data['kind']!r} has unexpected fields {quote(sorted(fields))}")
    scheme = Scheme.from_dict(data.get("scheme", {}))
    if data["kind"] == "dynamic":
        return Dynamic(scheme)
    return Static(scheme, qparams=QParams(data["scale"], data["zero_point"]) if fields else None)
