"""Chains of nodes that one layer computes: batch normalisation, bias, activations, GELU, layer normalisation.

Each pass takes the nodes of a model and looks for one chain. A value that somebody else reads, or that the
model gives out, is never fused away.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..model import Node
from ..nn.activation import Activation
from ..nn.base import Layer
from ..nn.conv import Conv2d
from ..nn.function import Function
from ..nn.linear import Linear
from ..nn.norm import LayerNorm
from ..qtensor import QTensor
from .integers import integers
from .net import Net, constant_of, is_second, number_of, op_of

__all__ = ["fused"]

F32: TypeAlias = NDArray[np.float32]
_ACTIVATIONS = {"Relu": "relu", "Tanh": "tanh"}


def fused(nodes: Sequence[Node], outputs: Sequence[str], is_double: bool = False) -> list[Node]:
    """Fuse what can be fused.

    Parameters
    ----------
    nodes : sequence of Node
        In order of execution.
    outputs : sequence of str
        Values that the model gives out.
    is_double : bool, default False
        Whether values may be float64, which layers of their own would round.

    Returns
    -------
    list of Node
        Of the same model, but for the order in which floats are added.
    """
    net = Net(nodes, outputs)
    if not is_double:
        for node in list(nodes):
            if node.output in net.nodes:
                _gelu(net, node)
                _silu(net, node)
                _layer_norm(net, node)
    integers(net, nodes)
    for node in nodes:
        # One reader may follow the other: normalisation, then activation.
        product: Node | None = net.nodes.get(node.output)
        while product is not None:
            product = _absorb(net, product)
    return net.read()


def _near(x: float, y: float) -> bool:
    # Exporters write constants in float32, some with four digits.
    return abs(x - y) <= 1e-4 * abs(y)


# ---- into a product


def _absorb(net: Net, node: Node) -> Node | None:
    """Let a product do what the one node that reads it does; give the new product where it can."""
    layer = node.layer
    if not isinstance(layer, Linear | Conv2d) or layer.activation is not None:
        return None
    reader = net.reader(node.output)
    if reader is None:
        return None
    new = _activated(layer, reader) or _shifted(layer, reader) or _normalised(layer, reader)
    return None if new is None else net.put(new, node.inputs, node.name, [node, reader])


def _activated(layer: Linear | Conv2d, reader: Node) -> Layer | None:
    name = _ACTIVATIONS.get(op_of(reader))
    if op_of(reader) == "Gelu" and isinstance(reader.layer, Function):
        name = "gelu_tanh" if reader.layer.settings.get("approximate") == "tanh" else "gelu"
    elif isinstance(reader.layer, Activation):
        name = reader.layer.name
    return None if name is None else layer.replace(activation=name)


def _of_channels(layer: Linear | Conv2d, value: NDArray[np.generic] | None) -> F32 | None:
    """Give a constant that has one number for each output of a product, in float32."""
    n = layer.weight.shape[0]
    if value is None or value.dtype.name not in ("float32", "float16", "bfloat16"):
        return None
    shapes: tuple[tuple[int, ...], ...] = ((n,),)
    if isinstance(layer, Conv2d):
        shapes = ((n, 1, 1), (1, n, 1, 1))
    if value.size != 1 and value.shape not in shapes:
        return None
    # Of a higher rank it would give the result another shape.
    if value.ndim > len(shapes[-1]):
        return None
    return np.broadcast_to(value.reshape(-1), (n,)).astype(np.float32)


def _shifted(layer: Linear | Conv2d, reader: Node) -> Layer | None:
    op, value = op_of(reader), _of_channels(layer, constant_of(reader))
    if value is None or op not in ("Add", "Sub", "Mul") or (op == "Sub" and not is_second(reader)):
        return None
    if op == "Mul":
        return _scaled(layer, value, np.zeros_like(value))
    bias = value if op == "Add" else -value
    return layer.replace(bias=bias if layer.bias is None else layer.bias + bias)


def _normalised(layer: Linear | Conv2d, reader: Node) -> Layer | None:
    if op_of(reader) != "BatchNormalization" or not isinstance(reader.layer, Function):
        return None
    parts = reader.layer.constants
    n = layer.weight.shape[0]
    if len(parts) != 4 or 0 in parts or any(p.dtype != np.float32 or p.shape != (n,) for p in parts.values()):
        return None
    # In float64, so that one rounding of the weight remains.
    scale, bias, mean, variance = (parts[i].astype(np.float64) for i in range(1, 5))
    factor = scale / np.sqrt(variance + reader.layer.settings.get("epsilon", 1e-5))
    if not np.isfinite(factor).all():
        return None
    return _scaled(layer, factor, bias - mean * factor)


def _scaled(
    layer: Linear | Conv2d, factor: NDArray[np.floating], shift: NDArray[np.floating]
) -> Layer | None:
    """Multiply each output of a product by a number and add another."""
    if isinstance(layer.weight, QTensor):
        return None
    each = factor.reshape(-1, *[1] * (layer.weight.ndim - 1))
    weight = (layer.weight * each).astype(np.float32)
    bias = shift if layer.bias is None else layer.bias * factor + shift
    return layer.replace(weight=weight, bias=bias.astype(np.float32))


# ---- layers that exporters write as several nodes


def _gelu(net: Net, node: Node) -> None:
    """``x · (1 + erf(x / √2)) / 2``, with the factors in any order."""
    if op_of(node) != "Erf" or (scaled := net.function(node.inputs[0], "Div", "Mul")) is None:
        return
    root = math.sqrt(2) if op_of(scaled) == "Div" else math.sqrt(0.5)
    if not _near(number_of(scaled), root) or not (is_second(scaled) or op_of(scaled) == "Mul"):
        return
    x, plus = scaled.inputs[0], net.next(node.output, "Add")
    if net.reader(scaled.output) is not node or plus is None or not _near(number_of(plus), 1.0):
        return
    gone, half, seen = [scaled, node, plus], 1.0, 0
    while (half, seen) != (0.5, 1):
        factor = net.next(gone[-1].output, "Mul")
        if factor is None or seen > 1 or len(gone) > 6:
            return
        other = next((name for name in factor.inputs if name != gone[-1].output), "")
        inner = net.function(other, "Mul")
        if not other:
            half *= number_of(factor)
        elif other == x:
            seen += 1
        elif inner is not None and list(inner.inputs) == [x] and net.reader(other) is factor:
            half, seen = half * number_of(inner), seen + 1
            gone.insert(0, inner)
        else:
            return
        gone.append(factor)
    net.put(Activation("gelu"), [x], gone[-1].name, gone)


def _silu(net: Net, node: Node) -> None:
    """``x · sigmoid(x)``."""
    if op_of(node) != "Sigmoid":
        return
    x, product = node.inputs[0], net.next(node.output, "Mul")
    if product is not None and Counter(product.inputs) == Counter([x, node.output]):
        net.put(Activation("silu"), [x], product.name, [node, product])


def _is_mean(node: Node | None) -> bool:
    """Say whether a node takes the mean along the last axis and keeps it."""
    if node is None or op_of(node) != "ReduceMean" or not isinstance(node.layer, Function):
        return False
    axes = node.layer.constants.get(1)
    keeps = node.layer.settings.get("keepdims", 1)
    return bool(keeps) and axes is not None and axes.ravel().tolist() == [-1]


def _layer_norm(net: Net, node: Node) -> None:
    """``(x - mean) / √(mean((x - mean)²) + eps) · w + b``."""
    if op_of(node) != "Sub" or len(node.inputs) != 2:
        return
    x, mean = node.inputs[0], net.nodes.get(node.inputs[1])
    if mean is None or not _is_mean(mean) or list(mean.inputs) != [x] or net.reader(mean.output) is not node:
        return
    centred = node.output
    quotient = next((r for r in net.readers.get(centred, []) if op_of(r) == "Div"), None)
    if quotient is None or len(quotient.inputs) != 2 or quotient.inputs[0] != centred:
        return
    root = net.function(quotient.inputs[1], "Sqrt")
    eps = None if root is None else net.function(root.inputs[0], "Add")
    variance = None if eps is None else net.nodes.get(eps.inputs[0])
    if root is None or eps is None or variance is None or not _is_mean(variance):
        return
    square = net.function(variance.inputs[0], "Pow", "Mul")
    if square is None or centred in net.outputs or not _is_square(square, centred):
        return
    chain = [mean, node, square, variance, eps, root, quotient]
    if any(len(net.readers[n.output]) != 1 or n.output in net.outputs for n in (square, variance, eps, root)):
        return
    if len(net.readers[centred]) != 1 + len(square.inputs):
        return
    weight = net.next(quotient.output, "Mul")
    value = constant_of(weight)
    if weight is None or value is None or value.ndim != 1 or value.dtype != np.float32:
        return
    layer = LayerNorm(value, None, number_of(eps))
    chain.append(weight)
    shift = net.next(weight.output, "Add")
    bias = constant_of(shift)
    if shift is not None and bias is not None and bias.shape == value.shape and bias.dtype == np.float32:
        layer = replace(layer, bias=bias)
        chain.append(shift)
    net.put(layer, [x], chain[-1].name, chain)


def _is_square(node: Node, value: str) -> bool:
    if op_of(node) == "Pow":
        return list(node.inputs) == [value] and is_second(node) and number_of(node) == 2.0
    return list(node.inputs) == [value, value]
