"""How each kind of layer is written in ONNX."""

from __future__ import annotations

import numpy as np

from ..errors import QrsValueError
from ..model import Node
from ..nn.activation import Activation
from ..nn.combine import Add
from ..nn.conv import Conv2d
from ..nn.embedding import Embedding
from ..nn.function import Function
from ..nn.linear import Linear
from ..nn.norm import LayerNorm
from ..nn.softmax import Softmax
from .fallback import OnnxOperator
from .writer import Writer, writes

__all__: list[str] = []

_ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh", "gelu": "Gelu", "gelu_tanh": "Gelu"}


def _activated(name: str | None, value: str, output: str, writer: Writer) -> None:
    """Write a non-linearity."""
    if name == "silu":
        writer.emit("Sigmoid", [value], f"{output}.sigmoid")
        writer.emit("Mul", [value, f"{output}.sigmoid"], output)
    elif name is None or name == "none":
        writer.emit("Identity", [value], output)
    elif name not in _ACTIVATIONS:
        raise QrsValueError(f"activation {name!r} has no operator in ONNX")
    else:
        attributes = {"approximate": "tanh"} if name == "gelu_tanh" else {}
        writer.emit(_ACTIVATIONS[name], [value], output, **attributes)


@writes(Activation)
def _activation(layer: Activation, node: Node, writer: Writer) -> None:
    _activated(layer.name, node.inputs[0], node.output, writer)


@writes(Linear)
def _linear(layer: Linear, node: Node, writer: Writer) -> None:
    x = writer.quantized(node.inputs[0], layer.input, f"{node.name}.input")
    weight = writer.weight(layer.weight, f"{node.name}.weight", is_turned=True)
    ends = layer.activation in (None, "none")
    last = node.output if ends else f"{node.output}.linear"
    product = last if layer.bias is None else f"{node.output}.product"
    writer.emit("MatMul", [x, weight], product)
    if layer.bias is not None:
        writer.emit("Add", [product, writer.tensor(layer.bias, f"{node.name}.bias")], last)
    if not ends:
        _activated(layer.activation, last, node.output, writer)


@writes(Conv2d)
def _conv2d(layer: Conv2d, node: Node, writer: Writer) -> None:
    source, pad = writer.same.get(node.inputs[0], (node.inputs[0], None))
    inputs = [writer.quantized(source, layer.input, f"{node.name}.input")]
    inputs.append(writer.weight(layer.weight, f"{node.name}.weight"))
    if layer.bias is not None:
        inputs.append(writer.tensor(layer.bias, f"{node.name}.bias"))
    stride, padding, dilation = (np.ravel(n).tolist() for n in (layer.stride, layer.padding, layer.dilation))
    how = {"strides": stride, "dilations": dilation, "group": layer.groups}
    how |= {"pads": padding} if pad is None else {"auto_pad": pad.settings["auto_pad"]}
    ends = layer.activation in (None, "none")
    last = node.output if ends else f"{node.output}.conv"
    writer.emit("Conv", inputs, last, kernel_shape=list(layer.weight.shape[2:]), **how)
    if not ends:
        _activated(layer.activation, last, node.output, writer)


@writes(Embedding)
def _embedding(layer: Embedding, node: Node, writer: Writer) -> None:
    table = writer.weight(layer.weight, f"{node.name}.weight")
    writer.emit("Gather", [table, node.inputs[0]], node.output, axis=0)


@writes(LayerNorm)
def _layer_norm(layer: LayerNorm, node: Node, writer: Writer) -> None:
    value = node.inputs[0]
    if len(node.inputs) > 1:
        value = writer.emit("Add", node.inputs, f"{node.output}.sum")
    parts = [writer.tensor(layer.weight, f"{node.name}.weight")]
    if layer.bias is not None:
        parts.append(writer.tensor(layer.bias, f"{node.name}.bias"))
    writer.emit("LayerNormalization", [value, *parts], node.output, axis=-1, epsilon=layer.eps)


@writes(Softmax)
def _softmax(layer: Softmax, node: Node, writer: Writer) -> None:
    writer.emit("Softmax", node.inputs, node.output, axis=layer.axis)


@writes(Add)
def _add(layer: Add, node: Node, writer: Writer) -> None:
    writer.emit("Add", node.inputs, node.output)


@writes(Function)
def _function(layer: Function, node: Node, writer: Writer) -> None:
    if layer.op == "Part":
        return  # the node that writes the parts names them
    if layer.op == "PadSame":
        readers = [other for other in writer.model.nodes if node.output in other.inputs]
        if node.output in writer.model.outputs or any(type(r.layer) is not Conv2d for r in readers):
            raise QrsValueError("PadSame is part of a convolution in ONNX, and is read by something else")
        writer.same[node.output] = node.inputs[0], layer
        return
    writer.operator(layer, node)


@writes(OnnxOperator)
def _evaluated(layer: OnnxOperator, node: Node, writer: Writer) -> None:
    writer.evaluated(layer, node)
