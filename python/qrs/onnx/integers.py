"""Products whose inputs an ONNX file quantizes: they become layers that quantize them themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..granularity import per_channel, per_tensor
from ..model import Node
from ..nn.conv import Conv2d
from ..nn.function import Function
from ..nn.linear import Linear
from ..ops import Dynamic, Static
from ..qtensor import QTensor
from ..scheme import QParams, Scheme
from .codes import scheme_of
from .net import Net, constant_of, op_of

__all__ = ["integers"]

_DYNAMIC = Dynamic(Scheme("uint8"))


def integers(net: Net, nodes: Sequence[Node]) -> None:
    """Let products quantize their inputs where the file does it before them.

    Parameters
    ----------
    net : Net
    nodes : sequence of Node
        Whose values to look at.
    """
    for node in nodes:
        _codes(net, net.nodes.get(node.output))
        _integer(net, net.nodes.get(node.output))


def _codes(net: Net, node: Node | None) -> None:
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


def _static(net: Net, decode: Node) -> tuple[str, Static] | None:
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


def _dynamic(net: Net, decode: Node) -> tuple[str, Dynamic] | None:
    if len(decode.inputs) != 3:
        return None
    sources = {_encoded(net, name, i) for i, name in enumerate(decode.inputs)}
    source = sources.pop()
    return None if sources or source is None else (source, _DYNAMIC)


def _encoded(net: Net, value: str, index: int) -> str | None:
    """Name what was quantized where a value is such a part of the result of DynamicQuantizeLinear."""
    part = net.function(value, "Part")
    if part is None or not isinstance(part.layer, Function) or part.layer.settings.get("index") != index:
        return None
    encode = net.function(part.inputs[0], "DynamicQuantizeLinear")
    return None if encode is None else encode.inputs[0]


def _integer(net: Net, node: Node | None) -> None:
    """Take ``float(codes · W) · (scale · scale of W)``, as ONNX Runtime's tools write it, as one layer."""
    if node is None or op_of(node) not in ("MatMulInteger", "ConvInteger") or len(node.inputs) != 2:
        return
    cast = net.next(node.output, "Cast")
    product = None if cast is None else net.next(cast.output, "Mul")
    if cast is None or product is None or len(product.inputs) != 2:
        return
    (other,) = [name for name in product.inputs if name != cast.output] or [""]
    scales = net.function(other, "Mul")
    step = constant_of(scales)
    if scales is None or step is None or step.dtype != np.float32:
        return
    sources = [
        _encoded(net, name, i) for name, i in zip([*node.inputs, *scales.inputs], (0, 2, 1), strict=True)
    ]
    if sources[0] is None or len(set(sources)) != 1:
        return
    layer = _quantized(node, step)
    if layer is not None:
        net.put(layer, [sources[0]], node.name, [node, cast, product])


def _quantized(node: Node, step: NDArray[Any]) -> Linear | Conv2d | None:
    """Make the layer of an integer product whose weight and zero point are constant."""
    function = node.layer
    if not isinstance(function, Function) or 1 not in function.constants or set(function.constants) - {1, 3}:
        return None
    codes, is_matrix = function.constants[1], function.op == "MatMulInteger"
    if codes.ndim != (2 if is_matrix else 4) or codes.dtype.name not in ("int8", "uint8"):
        return None
    rows = codes.T if is_matrix else codes
    zero = function.constants.get(3, np.zeros((), codes.dtype)).astype(np.int32)
    if {step.size, zero.size} - {1, len(rows)} or not np.all((step > 1e-37) & np.isfinite(step)):
        return None
    each = () if step.size == zero.size == 1 else (len(rows),)
    scale, zeros = (np.broadcast_to(p.reshape(-1) if each else p.reshape(()), each) for p in (step, zero))
    scheme = scheme_of(codes.dtype, zero, per_channel(0) if each else per_tensor)
    packed = _core.pack(np.ascontiguousarray(rows, np.int32).ravel(), codes.dtype.name)
    weight = QTensor(packed, QParams(scale, zeros), scheme, rows.shape)
    if is_matrix:
        return Linear(weight, input=_DYNAMIC)
    how = dict(function.settings)
    if how.pop("auto_pad", "NOTSET") != "NOTSET" or list(how.pop("kernel_shape", rows.shape[2:])) != list(
        rows.shape[2:]
    ):
        return None
    stride, padding, dilation = (
        tuple(how.get(k, d)) for k, d in (("strides", (1, 1)), ("pads", (0,) * 4), ("dilations", (1, 1)))
    )
    return Conv2d(weight, None, stride, padding, dilation, how.get("group", 1), _DYNAMIC)
