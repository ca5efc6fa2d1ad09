"""Chains of nodes that one layer computes: batch normalisation, bias, activations, GELU, layer normalisation.

Each pass takes the nodes of a model and looks for one chain. A value that somebody else reads, or that the
model gives out, is never fused away.
"""

from __future__ import annotations

import graphlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..model import Node
from ..nn.activation import Activation
from ..nn.base import Layer
from ..nn.conv import Conv2d
from ..nn.function import Function
from ..nn.linear import Linear
from ..nn.norm import LayerNorm
from ..ops import Dynamic, Static
from ..qtensor import QTensor
from ..scheme import QParams, Scheme
from .codes import scheme_of

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
    net = _Net(nodes, outputs)
    if not is_double:
        for node in list(nodes):
            if node.output in net.nodes:
                _gelu(net, node)
                _silu(net, node)
                _layer_norm(net, node)
    for node in nodes:
        _codes(net, net.nodes.get(node.output))
    for node in nodes:
        # One reader may follow the other: normalisation, then activation.
        product: Node | None = net.nodes.get(node.output)
        while product is not None:
            product = _absorb(net, product)
    return net.read()


class _Net:
    """Nodes by the value they write, and who reads it."""

    def __init__(self, nodes: Sequence[Node], outputs: Sequence[str]) -> None:
        self.nodes = {node.output: node for node in nodes}
        self.readers: dict[str, list[Node]] = {}
        self.outputs = set(outputs)
        for node in nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)

    def read(self) -> list[Node]:
        """Give the nodes whose values somebody reads."""
        needed, found = set(self.outputs), []
        for node in reversed(_sorted(list(self.nodes.values()))):
            if node.output in needed:
                needed.update(node.inputs)
                found.append(node)
        return found[::-1]

    def redirect(self, node: Node, value: str, former: Node) -> None:
        """Let a node, which took the place of a former one, read another value alone."""
        self.nodes[node.output] = replace(node, inputs=[value])
        for name in former.inputs:
            self.readers[name] = [r for r in self.readers[name] if r is not former]
        self.readers.setdefault(value, []).append(self.nodes[node.output])

    def reader(self, value: str) -> Node | None:
        """Find the one node that reads a value, if there is but one."""
        found = self.readers.get(value, [])
        return found[0] if len(found) == 1 and value not in self.outputs else None

    def function(self, value: str, *ops: str) -> Node | None:
        """Find the node that writes a value, if it is a function of these operators."""
        node = self.nodes.get(value)
        return node if node is not None and _op(node) in ops else None

    def next(self, value: str, *ops: str) -> Node | None:
        """Find the one node that reads a value, if it is a function of these operators."""
        node = self.reader(value)
        return node if node is not None and _op(node) in ops else None

    def put(self, layer: Layer, inputs: Sequence[str], name: str, gone: Sequence[Node]) -> Node:
        """Write what the last of these nodes wrote with a layer; nodes that nobody reads then go."""
        target = gone[-1]
        for node in gone:
            for value in node.inputs:
                self.readers[value] = [r for r in self.readers[value] if r is not node]
        node = Node(name, layer, inputs, target.output)
        self.nodes[target.output] = node
        for value in inputs:
            self.readers.setdefault(value, []).append(node)
        for old in gone[:-1]:
            self.nodes.pop(old.output, None)
        return node


def _op(node: Node) -> str:
    return node.layer.op if isinstance(node.layer, Function) else ""


def _constant(node: Node | None) -> NDArray[Any] | None:
    """Give the constant of a function of two inputs, one of which changes."""
    layer = None if node is None else node.layer
    if not isinstance(layer, Function) or len(layer.constants) != 1 or node is None or len(node.inputs) != 1:
        return None
    (value,) = layer.constants.values()
    return value


def _number(node: Node | None) -> float:
    """Give the constant of a function as a number; NaN where it is none."""
    value = _constant(node)
    return float(value.reshape(())) if value is not None and value.size == 1 and value.ndim < 2 else math.nan


def _second(node: Node) -> bool:
    """Say whether the constant stands behind what changes."""
    return isinstance(node.layer, Function) and 1 in node.layer.constants


def _near(x: float, y: float) -> bool:
    # Exporters write constants in float32, some with four digits.
    return abs(x - y) <= 1e-4 * abs(y)


def _sorted(nodes: list[Node]) -> list[Node]:
    """Put nodes behind those they read from: what took the place of a chain stands where its end was."""
    place = {node.output: i for i, node in enumerate(nodes)}
    reads = {i: [place[name] for name in node.inputs if name in place] for i, node in enumerate(nodes)}
    return [nodes[i] for i in graphlib.TopologicalSorter(reads).static_order()]


# ---- the input of a product that is stored in codes


def _codes(net: _Net, node: Node | None) -> None:
    """Let a quantized product take what was quantized and decoded before it, and quantize it itself."""
    if node is None or not isinstance(node.layer, Linear | Conv2d) or node.layer.input is not None:
        return
    layer = node.layer
    # Padding is 0.0, which every quantized input holds exactly: it may as well stand before.
    pad = net.function(node.inputs[0], "PadSame")
    if pad is not None and net.reader(pad.output) is not node:
        return
    reader = node if pad is None else pad
    decode = net.function(reader.inputs[0], "DequantizeLinear")
    if not isinstance(layer.weight, QTensor) or decode is None or not isinstance(decode.layer, Function):
        return
    block, shape = layer.weight.scheme.granularity.block(layer.weight.shape), layer.weight.shape
    # Products of integers need one scale for each output; those of a matrix may have groups too.
    if isinstance(layer, Conv2d) and block[1:] != shape[1:]:
        return
    found = _static(net, decode) or _dynamic(net, decode)
    if found is None:
        return
    value, input = found
    net.nodes[node.output] = replace(node, layer=layer.replace(input=input))
    net.redirect(net.nodes[reader.output], value, reader)


def _static(net: _Net, decode: Node) -> tuple[str, Static] | None:
    encode = net.function(decode.inputs[0], "QuantizeLinear")
    if encode is None or not isinstance(encode.layer, Function) or not isinstance(decode.layer, Function):
        return None
    scale, zero = (encode.layer.constants.get(i) for i in (1, 2))
    others = [decode.layer.constants.get(i) for i in (1, 2)]
    if scale is None or zero is None or scale.size != 1 or zero.dtype.name not in ("int8", "uint8"):
        return None
    if any(a is None or not np.array_equal(a, b) for a, b in zip(others, (scale, zero), strict=True)):
        return None
    if scale.dtype != np.float32 or not np.finfo(np.float32).tiny <= float(scale.reshape(())) < np.inf:
        return None
    qparams = QParams(scale.reshape(()), zero.reshape(()).astype(np.int32))
    return encode.inputs[0], Static(scheme_of(zero.dtype, zero), qparams=qparams)


def _dynamic(net: _Net, decode: Node) -> tuple[str, Dynamic] | None:
    parts = [net.function(name, "Part") for name in decode.inputs]
    sources = {part.inputs[0] for part in parts if part is not None}
    if len(parts) != 3 or None in parts or len(sources) != 1:
        return None
    encode = net.function(sources.pop(), "DynamicQuantizeLinear")
    return None if encode is None else (encode.inputs[0], Dynamic(Scheme("uint8")))


# ---- into a product


def _absorb(net: _Net, node: Node) -> Node | None:
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
    name = _ACTIVATIONS.get(_op(reader))
    if _op(reader) == "Gelu" and isinstance(reader.layer, Function):
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
    op, value = _op(reader), _of_channels(layer, _constant(reader))
    if value is None or op not in ("Add", "Sub", "Mul") or (op == "Sub" and not _second(reader)):
        return None
    if op == "Mul":
        return _scaled(layer, value, np.zeros_like(value))
    bias = value if op == "Add" else -value
    return layer.replace(bias=bias if layer.bias is None else layer.bias + bias)


def _normalised(layer: Linear | Conv2d, reader: Node) -> Layer | None:
    if _op(reader) != "BatchNormalization" or not isinstance(reader.layer, Function):
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


def _gelu(net: _Net, node: Node) -> None:
    """``x · (1 + erf(x / √2)) / 2``, with the factors in any order."""
    if _op(node) != "Erf" or (scaled := net.function(node.inputs[0], "Div", "Mul")) is None:
        return
    root = math.sqrt(2) if _op(scaled) == "Div" else math.sqrt(0.5)
    if not _near(_number(scaled), root) or not (_second(scaled) or _op(scaled) == "Mul"):
        return
    x, plus = scaled.inputs[0], net.next(node.output, "Add")
    if net.reader(scaled.output) is not node or plus is None or not _near(_number(plus), 1.0):
        return
    gone, half, seen = [scaled, node, plus], 1.0, 0
    while (half, seen) != (0.5, 1):
        factor = net.next(gone[-1].output, "Mul")
        if factor is None or seen > 1 or len(gone) > 6:
            return
        other = next((name for name in factor.inputs if name != gone[-1].output), "")
        inner = net.function(other, "Mul")
        if not other:
            half *= _number(factor)
        elif other == x:
            seen += 1
        elif inner is not None and list(inner.inputs) == [x] and net.reader(other) is factor:
            half, seen = half * _number(inner), seen + 1
            gone.insert(0, inner)
        else:
            return
        gone.append(factor)
    net.put(Activation("gelu"), [x], gone[-1].name, gone)


def _silu(net: _Net, node: Node) -> None:
    """``x · sigmoid(x)``."""
    if _op(node) != "Sigmoid":
        return
    x, product = node.inputs[0], net.next(node.output, "Mul")
    if product is not None and Counter(product.inputs) == Counter([x, node.output]):
        net.put(Activation("silu"), [x], product.name, [node, product])


def _is_mean(node: Node | None) -> bool:
    """Say whether a node takes the mean along the last axis and keeps it."""
    if node is None or _op(node) != "ReduceMean" or not isinstance(node.layer, Function):
        return False
    axes = node.layer.constants.get(1)
    keeps = node.layer.settings.get("keepdims", 1)
    return bool(keeps) and axes is not None and axes.ravel().tolist() == [-1]


def _layer_norm(net: _Net, node: Node) -> None:
    """``(x - mean) / √(mean((x - mean)²) + eps) · w + b``."""
    if _op(node) != "Sub" or len(node.inputs) != 2:
        return
    x, mean = node.inputs[0], net.nodes.get(node.inputs[1])
    if mean is None or not _is_mean(mean) or list(mean.inputs) != [x] or net.reader(mean.output) is not node:
        return
    centred = node.output
    quotient = next((r for r in net.readers.get(centred, []) if _op(r) == "Div"), None)
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
    value = _constant(weight)
    if weight is None or value is None or value.ndim != 1 or value.dtype != np.float32:
        return
    layer = LayerNorm(value, None, _number(eps))
    chain.append(weight)
    shift = net.next(weight.output, "Add")
    bias = _constant(shift)
    if shift is not None and bias is not None and bias.shape == value.shape and bias.dtype == np.float32:
        layer = replace(layer, bias=bias)
        chain.append(shift)
    net.put(layer, [x], chain[-1].name, chain)


def _is_square(node: Node, value: str) -> bool:
    if _op(node) == "Pow":
        return list(node.inputs) == [value] and _second(node) and _number(node) == 2.0
    return list(node.inputs) == [value, value]
