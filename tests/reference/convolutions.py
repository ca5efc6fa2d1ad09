"""Convolution with quantized filters, in the order of operations of docs/numerics.md.

A window is (stride, padding, dilation, groups): pairs are vertical and horizontal, padding is top, left,
bottom, right.
Filters are codes (filters, channels of a group, height, width) with scale and zero_point (filters,).
"""

import numpy as np

from .products import F32, _finish, fma, lane_sum


def windows(x, kernel, stride, padding, dilation):
    """Every window of the padded images: (batch, channels, rows, columns, height, width)."""
    x = np.pad(x, [(0, 0), (0, 0), padding[::2], padding[1::2]])
    size = [
        (n - d * (k - 1) - 1) // s + 1
        for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
    ]
    out = np.empty((*x.shape[:2], *size, *kernel), x.dtype)
    for at in np.ndindex(*kernel):
        v, h = (
            slice(i * d, i * d + (n - 1) * s + 1, s)
            for i, d, n, s in zip(at, dilation, size, stride, strict=True)
        )
        out[(..., *at)] = x[:, :, v, h]
    return out


def _grouped(x, w, window, products):
    """Apply `products` to the windows and filters of each group, and join the results along the filters."""
    *moves, groups = window
    seen = windows(x, w.shape[2:], *moves)
    pairs = zip(np.split(seen, groups, axis=1), np.split(np.arange(len(w)), groups), strict=True)
    return np.concatenate([products(part, filters) for part, filters in pairs], axis=1)


def exact(x, w, window):
    """Sums of products in int64, of codes less their zero points."""
    x, w = x.astype(np.int64), w.astype(np.int64)
    return _grouped(x, w, window, lambda part, own: np.einsum("bcvhij,ocij->bovh", part, w[own]))


def conv_integer(inputs, weight, window, bias=None, activation="none"):
    """Codes times codes; padding is the zero point. `inputs` and `weight` are (codes, scale, zero_point)."""
    (x, x_scale, x_zero), (w, scale, zero) = inputs, weight
    t = exact(x.astype(np.int64) - x_zero, w.astype(np.int64) - _spread(zero, 0), window)
    return _conclude(t.astype(F32) * _spread(scale) * F32(x_scale), bias, activation)


def conv_float(x, weight, window, bias=None, activation="none"):
    """float32 images times stored codes: p is a chain of fused steps over rows, columns and channels.

    s adds, over rows and columns, the lane sum of the channels.
    """
    w, scale, zero = weight

    def products(part, own):
        p, s = np.zeros((len(part), len(own), *part.shape[2:4]), F32), F32(0)
        for i, j in np.ndindex(*w.shape[2:]):
            for c in range(part.shape[1]):
                p = fma(part[:, c : c + 1, :, :, i, j], _spread(w[own, c, i, j]), p)
            s = s + np.moveaxis(lane_sum(np.moveaxis(part[..., i, j], 1, -1)), -1, 1)
        return (p - _spread(zero[own].astype(F32)) * s) * _spread(scale[own])

    return _conclude(_grouped(x, w, window, products), bias, activation)


def _spread(values, axis=-3):
    """One value for each filter, along the filters of a result, or of the weight itself."""
    return values.reshape(-1, 1, 1, 1) if axis == 0 else values.reshape(-1, 1, 1)


def _conclude(y, bias, activation):
    return _finish(y, None if bias is None else _spread(bias), activation)
