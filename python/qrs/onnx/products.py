"""Lowering of what holds weights: matrix products, convolutions, tables and normalisations."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import QrsValueError
from ..functions.windows import Window
from ..nn.conv import Conv2d
from ..nn.embedding import Embedding
from ..nn.function import Function
from ..nn.linear import Linear
from ..nn.norm import LayerNorm
from ..nn.softmax import Softmax
from ..qtensor import QTensor
from .base import Operation
from .codes import of_blocks
from .lowering import Array, Builder, lowering

__all__: list[str] = []


@lowering("MatMul")
def _matmul(operation: Operation, builder: Builder) -> bool:
    x, name = operation.inputs
    if x in builder.constants or builder.weight(name, 2) is None:
        return False
    builder.node(Linear(builder.turned(name)), [x], operation.outputs[0], operation.name)
    return True


@lowering("Gemm")
def _gemm(operation: Operation, builder: Builder) -> bool:
    x, name, *rest = operation.inputs
    how = operation.attributes
    given = builder.weight(name, 2)
    bias = builder.constants.get(rest[0]) if rest and rest[0] else None
    dynamic_bias = bool(rest and rest[0]) and bias is None
    if x in builder.constants or given is None or dynamic_bias or how.get("transA", 0):
        return False
    weight = builder.stored(name) if how.get("transB", 0) else builder.turned(name)
    if how.get("alpha", 1.0) != 1.0:
        weight = np.asarray(weight) * np.float32(how["alpha"])
    if bias is not None:
        if bias.size not in (1, weight.shape[0]) or (bias.ndim > 1 and bias.shape[:-1] != (1,)):
            return False
        bias = np.broadcast_to(bias.reshape(-1), weight.shape[:1]) * np.float32(how.get("beta", 1.0))
    builder.node(Linear(weight, bias), [x], operation.outputs[0], operation.name)
    return True


@lowering("Gather")
def _gather(operation: Operation, builder: Builder) -> bool:
    table, indices = operation.inputs
    weight = builder.weight(table, 2)
    if weight is None or indices in builder.constants or operation.attributes.get("axis", 0):
        return False
    builder.node(Embedding(builder.stored(table)), [indices], operation.outputs[0], operation.name)
    return True


@lowering("Conv")
def _conv(operation: Operation, builder: Builder) -> bool:
    x, name, *rest = operation.inputs
    how = dict(operation.attributes)
    planar = builder.weight(name, 4)
    weight = planar if planar is not None else builder.weight(name, 3)
    bias = builder.constants.get(rest[0]) if rest and rest[0] else None
    if weight is None or x in builder.constants or (rest and rest[0] and bias is None):
        return False
    kernel = how.pop("kernel_shape", weight.shape[2:])
    if list(kernel) != list(weight.shape[2:]):
        return False
    groups = how.pop("group", 1)
    window = Window(kernel, **how)
    value, output = x, operation.outputs[0]
    strides, dilations, _ = window.steps()
    if window.auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        value = f"{output}.padded"
        same = {"kernel_shape": list(kernel), "auto_pad": window.auto_pad}
        same |= {"strides": list(strides), "dilations": list(dilations)}
        builder.node(Function("PadSame", same), [x], value, f"{operation.name}.pad")
        sides = [(0, 0)] * len(kernel)
    else:
        sides = window.padding(kernel)
    if min(min(side) for side in sides) < 0:
        return False
    whole = builder.stored(name) if planar is not None else weight
    moves = _Moves(whole, [*zip(strides, dilations, sides, strict=True)])
    if planar is None:
        _conv1d(builder, operation, value, moves.layer(bias, groups))
    else:
        builder.node(moves.layer(bias, groups), [value], output, operation.name)
    return True


class _Moves:
    """A weight and, for each spatial axis, its stride, dilation and padding; one axis becomes two."""

    def __init__(self, weight: Array | QTensor, axes: list[Any]) -> None:
        lines = len(axes) == 1
        self.weight = np.asarray(weight)[:, :, None, :] if lines else weight
        self.axes = [(1, 1, (0, 0)), *axes] if lines else axes

    def layer(self, bias: Array | None, groups: int) -> Conv2d:
        strides, dilations, sides = zip(*self.axes, strict=True)
        (top, bottom), (left, right) = sides
        padding = (top, left, bottom, right)
        return Conv2d(self.weight, bias, tuple(strides), padding, tuple(dilations), groups)


def _conv1d(builder: Builder, operation: Operation, value: str, layer: Conv2d) -> None:
    """Convolve lines as images of height one."""
    output, name, axis = operation.outputs[0], operation.name, np.array([2], np.int64)
    builder.node(Function("Unsqueeze", constants={1: axis}), [value], f"{output}.image", f"{name}.image")
    builder.node(layer, [f"{output}.image"], f"{output}.rows", name)
    builder.node(Function("Squeeze", constants={1: axis}), [f"{output}.rows"], output, f"{name}.line")


@lowering("MatMulNBits")
def _matmul_nbits(operation: Operation, builder: Builder) -> bool:
    """Take the weights of few bits that ONNX Runtime multiplies, one scale for a block of each row."""
    x, *names = operation.inputs
    codes, scale, zero, order, bias = ([*map(builder.constants.get, names), *[None] * 5])[:5]
    if codes is None or scale is None or x in builder.constants or order is not None:
        raise QrsValueError("MatMulNBits is read with constant codes and scales, and without g_idx")
    if len(names) > 2 and any(n and n not in builder.constants for n in names[2:]):
        raise QrsValueError("MatMulNBits is read with constant zero points and bias")
    weight = of_blocks(operation.attributes, codes, scale, zero)
    builder.node(Linear(weight, bias), [x], operation.outputs[0], operation.name)
    return True


@lowering("LayerNormalization")
def _layer_norm(operation: Operation, builder: Builder) -> bool:
    x, scale, *rest = operation.inputs
    how = operation.attributes
    weight = builder.weight(scale, 1)
    bias = builder.weight(rest[0], 1) if rest and rest[0] else None
    dynamic_bias = bool(rest and rest[0]) and bias is None
    if weight is None or dynamic_bias or how.get("axis", -1) != -1 or len(operation.outputs) > 1:
        return False
    layer = LayerNorm(weight, bias, how.get("epsilon", 1e-5))
    builder.node(layer, [x], operation.outputs[0], operation.name)
    return x not in builder.constants


@lowering("Softmax", "LogSoftmax")
def _softmax(operation: Operation, builder: Builder) -> bool:
    x, axis = operation.inputs[0], operation.attributes.get("axis", -1)
    output, name = operation.outputs[0], operation.name
    if builder.graph.opset >= 13:
        if operation.op != "Softmax" or builder.graph.is_double:
            return False
        builder.node(Softmax(axis), [x], output, name)
        return True
    # Before version 13 all axes from one on count as one.
    axis = operation.attributes.get("axis", 1)
    if axis == -1:
        builder.function(operation, {"axis": -1})
        return True
    builder.node(Function("Shape"), [x], f"{output}.shape", f"{name}.shape")
    builder.node(Function("Flatten", {"axis": axis}), [x], f"{output}.flat", f"{name}.flat")
    builder.node(Function(operation.op, {"axis": -1}), [f"{output}.flat"], f"{output}.shares", name)
    builder.node(Function("Reshape"), [f"{output}.shares", f"{output}.shape"], output, f"{name}.back")
    return True


@lowering("GroupNormalization")
def _group_norm(operation: Operation, builder: Builder) -> bool:
    # Before version 21 there is one scale for each group.
    if builder.graph.opset < 21:
        builder.fallback(operation)
        return True
    return False


@lowering("BatchNormalization")
def _batch_norm(operation: Operation, builder: Builder) -> bool:
    how = {name: value for name, value in operation.attributes.items() if name != "training_mode"}
    if operation.attributes.get("training_mode", 0) or len(operation.outputs) > 1:
        builder.fallback(operation)
    else:
        builder.function(operation, how)
    return True


@lowering("Dropout")
def _dropout(operation: Operation, builder: Builder) -> bool:
    training = operation.inputs[2] if len(operation.inputs) > 2 else ""
    if any(operation.outputs[1:]) or (training and bool(builder.constants.get(training, np.True_))):
        builder.fallback(operation)
    else:
        builder.function(operation, {}, operation.inputs[:1], "Identity")
    return True
