"""Functions of windows that move over images: pooling, and the convolution of integers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..errors import QrsValueError
from .base import Array, operator

__all__ = ["Window", "conv_integer"]


@dataclass(frozen=True)
class Window:
    """How a window moves over the spatial axes of an image, as the attributes of ONNX say it.

    Parameters
    ----------
    kernel : sequence of int
    strides, dilations : sequence of int, optional
        One each by default.
    pads : sequence of int, optional
        Before each axis, then after each.
    auto_pad : str, default ``"NOTSET"``
        ``"SAME_UPPER"``, ``"SAME_LOWER"`` and ``"VALID"`` say the padding instead of ``pads``.
    ceil_mode : bool, default False
        A last window that begins inside may reach beyond the padding.
    """

    kernel: Sequence[int]
    strides: Sequence[int] | None = None
    dilations: Sequence[int] | None = None
    pads: Sequence[int] | None = None
    auto_pad: str = "NOTSET"
    ceil_mode: bool = False

    def steps(self) -> tuple[Sequence[int], Sequence[int], list[int]]:
        """Give strides, dilations and the reach of the window along each axis.

        Returns
        -------
        strides, dilations : sequence of int
        reach : list of int
        """
        ones = [1] * len(self.kernel)
        strides, dilations = self.strides or ones, self.dilations or ones
        return strides, dilations, [(k - 1) * d + 1 for k, d in zip(self.kernel, dilations, strict=True)]

    def padding(self, lengths: Sequence[int]) -> list[tuple[int, int]]:
        """Give the padding before and after each axis of an image.

        Parameters
        ----------
        lengths : sequence of int
            Of its spatial axes.

        Returns
        -------
        list of (int, int)

        Raises
        ------
        QrsValueError
            When kernel and image have different numbers of axes, or ``auto_pad`` is unknown.
        """
        if len(lengths) != len(self.kernel):
            raise QrsValueError(f"the window is {list(self.kernel)} for spatial axes {list(lengths)}")
        strides, _, reach = self.steps()
        if self.auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            found = []
            for n, s, r in zip(lengths, strides, reach, strict=True):
                total = max((-(-n // s) - 1) * s + r - n, 0)
                less, more = total // 2, total - total // 2
                found.append((less, more) if self.auto_pad == "SAME_UPPER" else (more, less))
            return found
        if self.auto_pad not in ("NOTSET", "VALID", ""):
            raise QrsValueError(f"auto_pad is {self.auto_pad!r}, which ONNX does not know")
        pads = self.pads if self.pads and self.auto_pad != "VALID" else [0] * 2 * len(lengths)
        return [(pads[i], pads[i + len(lengths)]) for i in range(len(lengths))]

    def outputs(self, lengths: Sequence[int]) -> list[int]:
        """Give how often the window fits along each axis.

        Parameters
        ----------
        lengths : sequence of int

        Returns
        -------
        list of int

        Raises
        ------
        QrsValueError
            When it does not fit once.
        """
        strides, _, reach = self.steps()
        counts = []
        for n, s, r, (before, after) in zip(lengths, strides, reach, self.padding(lengths), strict=True):
            room = n + before + after - r
            count = (-(-room // s) if self.ceil_mode else room // s) + 1
            # No window begins in the padding after the image.
            if self.ceil_mode and (count - 1) * s >= n + before:
                count -= 1
            if room < 0 and not self.ceil_mode:
                raise QrsValueError(f"a window that reaches {reach} does not fit into {list(lengths)}")
            counts.append(count)
        return counts

    def cover(self, x: Array, fill: float) -> Array:
        """Pad an image with a value until every window lies inside.

        Parameters
        ----------
        x : ndarray, shape (batch, channels, ...)
        fill : float

        Returns
        -------
        ndarray
        """
        strides, _, reach = self.steps()
        lengths = x.shape[2:]
        around = [(0, 0), (0, 0)]
        counts = self.outputs(lengths)
        for n, s, r, c, (before, after) in zip(
            lengths, strides, reach, counts, self.padding(lengths), strict=True
        ):
            around.append((before, max(after, (c - 1) * s + r - n - before)))
        return np.pad(x, around, constant_values=fill)

    def offsets(self, x: Array, counts: Sequence[int]) -> Iterator[Array]:
        """Yield, for each place in the window, what stands there in all windows.

        Parameters
        ----------
        x : ndarray
            As `cover` gave it.
        counts : sequence of int
            As `outputs` gave them.

        Yields
        ------
        ndarray, shape (batch, channels, *counts)
        """
        strides, dilations, _ = self.steps()
        for place in itertools.product(*(range(k) for k in self.kernel)):
            cut = [slice(None), slice(None)]
            for at, d, s, c in zip(place, dilations, strides, counts, strict=True):
                cut.append(slice(at * d, at * d + (c - 1) * s + 1, s))
            yield x[tuple(cut)]


def _window(kernel_shape: Sequence[int], how: dict[str, object]) -> Window:
    return Window(kernel_shape, **how)  # type: ignore[arg-type]


@operator("MaxPool")
def _max_pool(x: Array, kernel_shape: Sequence[int], storage_order: int = 0, **how: object) -> Array:
    window = _window(kernel_shape, how)
    counts = window.outputs(x.shape[2:])
    least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    y = np.full((*x.shape[:2], *counts), least, x.dtype)
    for part in window.offsets(window.cover(x, least), counts):
        np.maximum(y, part, out=y)
    return y


@operator("AveragePool")
def _average_pool(x: Array, kernel_shape: Sequence[int], count_include_pad: int = 0, **how: object) -> Array:
    window = _window(kernel_shape, how)
    counts = window.outputs(x.shape[2:])
    y = np.zeros((*x.shape[:2], *counts), x.dtype)
    for part in window.offsets(window.cover(x, 0), counts):
        y += part
    # What a window reaches beyond the padding is never counted, the padding where it is asked for.
    around = [(0, 0), (0, 0), *window.padding(x.shape[2:])]
    inside = np.pad(np.ones((1, 1, *x.shape[2:]), x.dtype), around, constant_values=count_include_pad)
    beyond = window.cover(np.zeros((1, 1, *x.shape[2:]), x.dtype), 0)
    beyond[tuple(slice(n) for n in inside.shape)] = inside[tuple(slice(n) for n in beyond.shape)]
    places = np.zeros((1, 1, *counts), x.dtype)
    for part in window.offsets(beyond, counts):
        places += part
    return y / places


@operator("GlobalAveragePool")
def _global_average_pool(x: Array) -> Array:
    return np.mean(x, axis=tuple(range(2, x.ndim)), keepdims=True, dtype=x.dtype)


@operator("GlobalMaxPool")
def _global_max_pool(x: Array) -> Array:
    return np.max(x, axis=tuple(range(2, x.ndim)), keepdims=True)


def conv_integer(x: Array, w: Array, window: Window, groups: int) -> Array:
    """Convolve integers exactly: float64 holds every sum of products of 8 bits below 2**53.

    Parameters
    ----------
    x : ndarray, shape (batch, channels, ...)
        Integers of at most 9 bits, zero points already taken away; padding counts as 0.
    w : ndarray, shape (filters, channels // groups, ...)
    window : Window
    groups : int

    Returns
    -------
    ndarray of int32, shape (batch, filters, ...)

    Raises
    ------
    QrsValueError
        When channels and groups disagree.
    """
    if x.shape[1] != groups * w.shape[1] or w.shape[0] % groups:
        raise QrsValueError(f"x has shape {x.shape} for a weight of shape {w.shape} in {groups} group(s)")
    strides, dilations, reach = window.steps()
    counts = window.outputs(x.shape[2:])
    spatial = tuple(range(2, x.ndim))
    padded = window.cover(x.astype(np.float64), 0)
    places = sliding_window_view(padded, reach, axis=spatial)
    cut = [slice(None), slice(None)]
    cut += [slice(0, (c - 1) * s + 1, s) for c, s in zip(counts, strides, strict=True)]
    cut += [slice(None, None, d) for d in dilations]
    taken = np.moveaxis(places[tuple(cut)], 1, x.ndim - 1)
    columns = taken.reshape(x.shape[0], math.prod(counts), groups, -1)
    filters = w.astype(np.float64).reshape(groups, w.shape[0] // groups, -1)
    y = np.matmul(filters, columns.transpose(0, 2, 3, 1))
    return y.reshape(x.shape[0], w.shape[0], *counts).astype(np.int64).astype(np.int32)
