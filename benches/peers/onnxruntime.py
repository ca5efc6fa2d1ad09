"""ONNX Runtime: a model of one operator, its input and output bound to arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime
from common import F32, Call, in_turn
from convolutions import Convolution
from elements import Elements
from layers import Heads, Norm
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from products import IntegerProduct, Layer, StaticLayer

VERSION = onnxruntime.__version__

MICROSOFT = "com.microsoft"
Arrays = dict[str, NDArray[Any]]
Node = helper.make_node


def session(nodes: list[Any], inputs: Arrays, constants: Arrays, outputs: Arrays, threads: int) -> Call:
    """Build a session; its call fills the outputs and gives them. Flat uint8 is int4 in the shape of x."""

    def kind(array: NDArray[Any]) -> tuple[int, tuple[int, ...]]:
        if array.dtype == np.uint8 and array.ndim == 1:
            return TensorProto.INT4, inputs["x"].shape
        return helper.np_dtype_to_tensor_dtype(array.dtype), array.shape

    def value(name: str, array: NDArray[Any]) -> Any:
        return helper.make_tensor_value_info(name, *kind(array))

    graph = helper.make_graph(
        nodes,
        "row",
        [value(*item) for item in inputs.items()],
        [value(*item) for item in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    domains = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    ready = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    bound = ready.io_binding()
    for bind, arrays in ((bound.bind_input, inputs), (bound.bind_output, outputs)):
        for name, array in arrays.items():
            bind(name, "cpu", 0, *kind(array), array.ctypes.data)

    filled = list(outputs.values())
    result = filled if len(filled) > 1 else filled[0]

    def run() -> NDArray[Any] | list[NDArray[Any]]:
        ready.run_with_iobinding(bound)
        return result

    return run


def weights(codes: NDArray[Any], count: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Give a weight and ``count`` zero points: int8, and uint8 around 128, whose kernels do not saturate."""
    yield codes, np.zeros(count, np.int8)
    yield (codes.view(np.uint8) ^ 128), np.full(count, 128, np.uint8)


def ends(data: StaticLayer | Convolution) -> Arrays:
    """Give what the codes of the input and of the result mean."""
    return {
        "x_scale": np.array(data.x_scale, np.float32),
        "x_zero": np.array(data.x_zero, np.uint8),
        "y_scale": np.array(data.y_scale, np.float32),
        "y_zero": np.array(data.y_zero, np.uint8),
    }


def matmul_integer(data: IntegerProduct, threads: int) -> Iterator[Call]:
    out = np.empty((len(data.a), data.b.shape[1]), np.int32)
    for codes, zero in weights(data.b, 1):
        node = Node("MatMulInteger", ["a", "w", "", "zero"], ["y"])
        yield session([node], {"a": data.a}, {"w": codes, "zero": zero[0]}, {"y": out}, threads)


def linear(data: Layer, threads: int) -> Iterator[Call]:
    out = np.empty((len(data.x), len(data.codes)), np.float32)

    def turns(node: Any, constants: Arrays) -> Call:
        return in_turn(
            [session([node], {"x": data.x}, constants, {"y": out}, threads) for _ in range(data.copies)]
        )

    if data.group:
        n, k = data.codes.shape
        codes = (data.codes.view(np.uint8) ^ 8) & 15
        packed = (codes[:, ::2] | codes[:, 1::2] << 4).reshape(n, k // data.group, -1)
        settings = {"K": k, "N": n, "bits": 4, "block_size": data.group}
        for level in (0, 4):  # of freedom to round x: none, and to int8
            node = Node(
                "MatMulNBits", ["x", "w", "s"], ["y"], domain=MICROSOFT, accuracy_level=level, **settings
            )
            yield turns(node, {"w": packed, "s": data.scale})
    elif data.dynamic:
        node = Node("DynamicQuantizeMatMul", ["x", "w", "s", "z"], ["y"], domain=MICROSOFT)
        for columns, zero in weights(np.ascontiguousarray(data.codes.T), len(data.codes)):
            yield turns(node, {"w": columns, "s": data.scale[:, 0], "z": zero})


def linear_static(data: StaticLayer, threads: int) -> Iterator[Call]:
    out = np.empty((len(data.x), len(data.codes)), np.uint8)
    names = ["x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero"]
    for codes, zero in weights(np.ascontiguousarray(data.codes.T), len(data.codes)):
        constants = {"w": codes, "w_scale": data.scale, "w_zero": zero, **ends(data)}
        yield session([Node("QLinearMatMul", names, ["y"])], {"x": data.x}, constants, {"y": out}, threads)


def conv2d(data: Convolution, threads: int) -> Iterator[Call]:
    """Quantize, convolve to uint8, and decode."""
    names = ["q", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero"]
    moves = {"strides": [data.stride] * 2, "pads": [data.padding] * 4, "group": data.groups}
    nodes = [
        Node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["q"]),
        Node("QLinearConv", names, ["p"], **moves),
        Node("DequantizeLinear", ["p", "y_scale", "y_zero"], ["y"]),
    ]
    size = (data.x.shape[2] + 2 * data.padding - data.codes.shape[2]) // data.stride + 1
    out = np.empty((len(data.x), len(data.codes), size, size), np.float32)
    for codes, zero in weights(data.codes, len(data.codes)):
        constants = {"w": codes, "w_scale": data.scale, "w_zero": zero, **ends(data)}
        yield session(nodes, {"x": data.x}, constants, {"y": out}, threads)


def scales(data: Elements) -> tuple[Arrays, dict[str, int]]:
    """Give scale and zero point as constants, and the attributes that say what they belong to."""
    flat = data.scale if data.group or not data.scale.ndim else data.scale[:, 0]
    attributes = {"axis": 1, "block_size": data.group} if data.group else {"axis": 0}
    zero = np.zeros(flat.shape, ml_dtypes.int4 if data.group else np.int8)
    return {"s": flat, "z": zero}, attributes if flat.ndim else {}


def quantize(data: Elements, threads: int) -> Iterator[Call]:
    constants, attributes = scales(data)
    node = Node("QuantizeLinear", ["x", "s", "z"], ["y"], **attributes)
    out = np.empty(data.x.size // 2, np.uint8) if data.group else np.empty(data.x.shape, np.int8)
    yield session([node], {"x": data.x}, constants, {"y": out}, threads)


def dequantize(data: Elements, threads: int) -> Iterator[Call]:
    constants, attributes = scales(data)
    node = Node("DequantizeLinear", ["x", "s", "z"], ["y"], **attributes)
    yield session([node], {"x": data.codes}, constants, {"y": np.empty_like(data.x)}, threads)


def fake_quantize(data: Elements, threads: int) -> Iterator[Call]:
    constants, attributes = scales(data)
    nodes = [
        Node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes),
        Node("DequantizeLinear", ["q", "s", "z"], ["y"], **attributes),
    ]
    yield session(nodes, {"x": data.x}, constants, {"y": np.empty_like(data.x)}, threads)


def min_max(x: F32, threads: int) -> Iterator[Call]:
    out = {name: np.empty(x.shape[: x.ndim - 1], np.float32) for name in ("lo", "hi")}
    nodes = [Node(f"Reduce{e}", ["x", "a"], [n], keepdims=0) for e, n in (("Min", "lo"), ("Max", "hi"))]
    yield session(nodes, {"x": x}, {"a": np.array([x.ndim - 1])}, out, threads)


def one(kind: str, x: F32, threads: int, **attributes: Any) -> Call:
    """Apply an operator that takes an array and gives one of its shape."""
    return session([Node(kind, ["x"], ["y"], **attributes)], {"x": x}, {}, {"y": np.empty_like(x)}, threads)


def gelu(x: F32, threads: int) -> Iterator[Call]:
    for form in ("none", "tanh"):
        yield one("Gelu", x, threads, approximate=form)


def softmax(x: F32, threads: int) -> Iterator[Call]:
    yield one("Softmax", x, threads, axis=-1)


def layer_norm(data: Norm, threads: int) -> Iterator[Call]:
    node = Node("SkipLayerNormalization", ["x", "r", "w", "b"], ["y"], domain=MICROSOFT, epsilon=data.eps)
    inputs, constants = {"x": data.x[None], "r": data.residual[None]}, {"w": data.weight, "b": data.bias}
    yield session([node], inputs, constants, {"y": np.empty_like(data.x)[None]}, threads)


def attention(data: Heads, threads: int) -> Iterator[Call]:
    node = Node("MultiHeadAttention", ["q", "k", "v"], ["y"], domain=MICROSOFT, num_heads=data.heads)
    inputs = {"q": data.q, "k": data.k, "v": data.v}
    yield session([node], inputs, {}, {"y": np.empty_like(data.q)}, threads)
