"""Two-dimensional convolution, in floats or in integers as the weight says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

from ..arrays import as_float32, integer, quiet, room
from ..errors import QrsValueError, quote
from ..ops import Dynamic, Static, own_parameters
from ..qtensor import QTensor
from ..scheme import per_tensor, per_token
from .activation import activate, check_activation
from .base import F32, Layer, Weight, vector, weight
from .linear import check_input, input_from_dict, input_to_dict

__all__ = ["Conv2d"]

# Elements that a band of rows of a float convolution takes, unfolded into columns: 4 MiB.
_BAND = 1 << 20


@dataclass(frozen=True, eq=False, repr=False)
class Conv2d(Layer, id="conv2d"):
    r"""Convolution of images, in the sense of neural networks: the window is not mirrored.

    .. math:: y_{bovh} = f(\sum_{c,i,j} x_{b,c,v s_0 + i d_0 - p_0,h s_1 + j d_1 - p_1} W_{ocij} + b_o)

    A float32 weight multiplies with NumPy's BLAS. A ``QTensor`` multiplies in the native core: with
    ``input=None`` its codes are decoded on the way and the products are float32; with ``Dynamic`` or
    ``Static`` the images become integer codes too and the products are exact in int32. Padding counts as 0.0.

    Parameters
    ----------
    weight : ndarray or QTensor, shape (filters, channels // groups, height, width)
        With ``input``, or to be decoded on the way, of one scale for each filter or for all:
        ``per_channel(0)`` or ``per_tensor``. Weights of other granularities are decoded as a whole in each
        call.
    bias : ndarray of float32, shape (filters,), optional
    stride : int or pair of int, default 1
        Vertical and horizontal, as all pairs.
    padding : int, pair of int or four int, default 0
        Four are top, left, bottom and right.
    dilation : int or pair of int, default 1
    groups : int, default 1
        Filters and channels fall into so many groups that do not see each other.
    input : Dynamic, Static or None
        How the images of a quantized weight are quantized: ``per_tensor``, one scale for the whole batch.
        Must be None for a float weight.
    activation : str, optional
        ``"relu"``, ``"gelu"``, ``"silu"``, ``"tanh"``; None applies none.

    Raises
    ------
    QrsValueError
        When shapes disagree, a number is out of range, the activation is unknown, or ``input`` is given for a
        float weight, is per token, or meets a weight of several scales for a filter.
    QrsTypeError
        When an array is not of a float dtype, or a number no integer.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> edges = qrs.nn.Conv2d(np.float32([[[[-1, 1]]]]), padding=(0, 0, 0, 1))
    >>> edges(np.float32([[[[1, 2, 4]]]]))
    array([[[[ 1.,  2., -4.]]]], dtype=float32)
    """

    weight: Weight
    bias: F32 | None = None
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] | tuple[int, int, int, int] = 0
    dilation: int | tuple[int, int] = 1
    groups: int = 1
    input: Dynamic | Static | None = None
    activation: str | None = None

    slots: ClassVar[tuple[str, ...]] = ("weight",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", weight(self.weight, "weight", 4))
        if 0 in self.weight.shape:
            raise QrsValueError(f"weight has shape {self.weight.shape}, expected no axis of length 0")
        object.__setattr__(self, "bias", vector(self.bias, "bias", self.weight.shape[0]))
        for name, least, counts in (("stride", 1, (2,)), ("padding", 0, (2, 4)), ("dilation", 1, (2,))):
            object.__setattr__(self, name, _numbers(getattr(self, name), name, least, counts))
        object.__setattr__(self, "groups", integer(self.groups, "groups"))
        if self.groups < 1 or self.weight.shape[0] % self.groups:
            raise QrsValueError(
                f"groups is {self.groups}, expected a divisor of the {self.weight.shape[0]} filters"
            )
        check_activation(self.activation)
        check_input(self.input, self.weight)
        if isinstance(self.input, Dynamic) and self.input.scheme.granularity == per_token:
            raise QrsValueError("input is Dynamic with per_token, expected per_tensor: images have no tokens")
        if self.input is not None and not self._is_packable():
            came = "a weight of several scales for a filter"
            if isinstance(self.weight, QTensor):
                came = repr(self.weight.scheme.granularity)
            raise QrsValueError(
                f"weight is {came}, expected per_channel(0) or per_tensor to multiply with a quantized input"
            )

    def forward(self, x: ArrayLike | QTensor) -> F32:
        """Apply the layer.

        Parameters
        ----------
        x : ndarray of float32, shape (batch, channels, height, width)
            A quantized weight also takes a ``per_tensor`` QTensor, whose codes are multiplied as they stand.

        Returns
        -------
        ndarray of float32, shape (batch, filters, new height, new width)
            ``(height + top + bottom - dilation * (window - 1) - 1) // stride + 1`` rows, and so for columns.

        Raises
        ------
        QrsValueError
            When ``x`` has another number of axes or channels, is smaller than the window with its padding, or
            is not finite where it is quantized.
        """
        native = None if self.input is None else self.input._native
        if native is None and isinstance(x, QTensor) and isinstance(self.weight, QTensor):
            native = own_parameters(x)
        array = as_float32(x, "x")
        filters, inputs, *_ = self.weight.shape
        if array.ndim != 4 or array.shape[1] != self.groups * inputs:
            raise QrsValueError(
                f"x has shape {array.shape}, expected (batch, {self.groups * inputs}, height, width) for a "
                f"weight of shape {self.weight.shape} in {self.groups} group(s)"
            )
        shape = (array.shape[0], filters, *self._size(array.shape))
        room(shape, np.float32, "the result")
        if not isinstance(self.weight, QTensor) or not self._is_packable():
            y = self._unfold(array, np.asarray(self.weight), np.empty(shape, np.float32))
            return activate(y, self.activation)
        out = np.empty(shape, np.float32)
        if out.size:
            moves = self.stride, self.padding, self.dilation
            packed = self.weight.filters(self.groups)
            packed.conv2d(array, self.bias, self.activation or "none", native, *moves, out)  # type: ignore[arg-type]
        return out

    def _is_packable(self) -> bool:
        """Say whether the weight multiplies as integers, with one scale for each filter."""
        if not isinstance(self.weight, QTensor) or not self.weight.scheme.format.integral:
            return False
        shape = self.weight.shape
        return self.weight.scheme.granularity.block(shape)[1:] == shape[1:]

    def _axes(self) -> list[tuple[int, int, int, int]]:
        """Give stride, dilation and the padding before and after of the vertical and the horizontal axis."""
        stride: Any = self.stride
        padding: Any = self.padding
        dilation: Any = self.dilation
        return [(stride[i], dilation[i], padding[i], padding[i + 2]) for i in range(2)]

    def _size(self, shape: Sequence[int]) -> tuple[int, int]:
        """Give the height and width of the result."""
        sizes = []
        for axis, (stride, dilation, before, after) in enumerate(self._axes(), 2):
            reach = dilation * (self.weight.shape[axis] - 1) + 1
            length = shape[axis] + before + after
            if length < reach:
                raise QrsValueError(
                    f"x has shape {tuple(shape)}: with padding {before} and {after} axis {axis} has length "
                    f"{length}, expected at least {reach}, the reach of the window"
                )
            sizes.append((length - reach) // stride + 1)
        return sizes[0], sizes[1]

    def _unfold(self, x: F32, w: F32, out: F32) -> F32:
        """Convolve in float32: the windows of a band of rows become columns of a product."""
        vertical, horizontal = self._axes()
        padded = np.pad(x, [(0, 0), (0, 0), vertical[2:], horizontal[2:]])
        reach = [axis[1] * (length - 1) + 1 for axis, length in zip(self._axes(), w.shape[2:], strict=True)]
        windows = sliding_window_view(padded, reach, axis=(2, 3))
        windows = windows[:, :, :: vertical[0], :: horizontal[0], :: vertical[1], :: horizontal[1]]
        filters = w.reshape(self.groups, w.shape[0] // self.groups, -1)
        columns = x.shape[1] * w.shape[2] * w.shape[3] * out.shape[3]
        band = max(1, _BAND // columns)
        with quiet():
            for image, result in zip(windows, out, strict=True):
                for start in range(0, out.shape[2], band):
                    part = image[:, start : start + band].transpose(0, 3, 4, 1, 2)
                    y = filters @ part.reshape(self.groups, filters.shape[2], -1)
                    result[:, start : start + band] = y.reshape(out.shape[1], -1, out.shape[3])
            if self.bias is not None:
                out += self.bias[:, None, None]
        return out

    def suited(self, input: Dynamic | Static) -> tuple[Dynamic | Static, str | None]:
        """Quantize per tensor where a recipe asks for one scale for each token, as the presets do.

        Parameters
        ----------
        input : Dynamic or Static

        Returns
        -------
        input : Dynamic or Static
        remark : str or None
        """
        if isinstance(input, Dynamic) and input.scheme.granularity == per_token:
            whole = Dynamic(replace(input.scheme, granularity=per_tensor))
            return whole, "images have no tokens: input is quantized per tensor"
        return input, None

    def attributes(self) -> dict[str, Any]:
        """Return the numbers, activation and input as JSON values; an observer stays out, its work is done.

        Returns
        -------
        dict of str to JSON value

        Examples
        --------
        >>> import numpy as np, qrs
        >>> qrs.nn.Conv2d(np.ones((1, 1, 3, 3), np.float32), padding=1).attributes()["padding"]
        (1, 1, 1, 1)
        """
        return {**super().attributes(), "input": input_to_dict(self.input)}

    @classmethod
    def from_parts(cls, arrays: Mapping[str, Any], attributes: Mapping[str, Any]) -> Conv2d:
        """Rebuild a layer from what ``arrays`` and ``attributes`` gave.

        Parameters
        ----------
        arrays : mapping of str to ndarray or QTensor
        attributes : mapping of str to JSON value
            ``input`` as the dictionary that ``attributes`` gave.

        Returns
        -------
        Conv2d

        Raises
        ------
        QrsTypeError, QrsValueError, FormatError
            When a part is missing, unknown or not valid.

        Examples
        --------
        >>> import numpy as np, qrs
        >>> qrs.nn.Conv2d.from_parts({"weight": np.ones((1, 1, 3, 3), np.float32)}, {"stride": [2, 1]}).stride
        (2, 1)
        """
        return super().from_parts(arrays, {**attributes, "input": input_from_dict(attributes.get("input"))})


def _numbers(value: object, name: str, least: int, counts: tuple[int, ...]) -> tuple[int, ...]:
    """Accept one number for all sides, or one for each, in as many as the longest of ``counts``."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if len(value) not in counts:
            wanted = " or ".join(map(str, counts))
            raise QrsValueError(f"{name} has {len(value)} numbers, expected one, or {wanted}")
        numbers = tuple(integer(one, f"{name}[{i}]") for i, one in enumerate(value))
    else:
        numbers = (integer(value, name),) * 2
    if not all(least <= one < 1 << 31 for one in numbers):
        raise QrsValueError(f"{name} is {quote(value)}, expected {least} to {(1 << 31) - 1}")
    return numbers * (max(counts) // len(numbers))
