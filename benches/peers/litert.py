"""LiteRT (TensorFlow Lite), which multiplies with XNNPACK: a model of one operator."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from common import Call, in_turn
from elements import Elements
from numpy.typing import NDArray
from products import Layer, StaticLayer

VERSION = metadata.version("ai-edge-litert")

KINDS = {np.dtype(name): getattr(schema.TensorType, name.upper()) for name in ("float32", "float16", "int8")}


class Model:
    """A graph of one operator; tensors are added in turn, and known by their numbers."""

    def __init__(self) -> None:
        self.buffers, self.tensors = [schema.BufferT()], list[Any]()

    def add(self, like: NDArray[Any], quantization: Any = None, data: NDArray[Any] | None = None) -> int:
        """Add a tensor of the shape and type of ``like``, constant where there is ``data``."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = f"t{len(self.tensors)}", like.shape, KINDS[like.dtype]
        tensor.quantization = quantization
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = data.reshape(-1).view(np.uint8)
            tensor.buffer = len(self.buffers)
            self.buffers.append(buffer)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def ready(self, code: str, version: int, inputs: list[int], x: NDArray[Any], threads: int) -> Call:
        """Build the graph; its call applies the operator, and gives what views the last tensor."""
        builtin, operator = schema.OperatorCodeT(), schema.OperatorT()
        builtin.builtinCode = builtin.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, code)
        builtin.version, operator.opcodeIndex = version, 0
        operator.inputs, operator.outputs = inputs, [len(self.tensors) - 1]
        if code == "FULLY_CONNECTED":
            operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
            operator.builtinOptions = schema.FullyConnectedOptionsT()
        graph, model = schema.SubGraphT(), schema.ModelT()
        graph.tensors, graph.operators = self.tensors, [operator]
        graph.inputs, graph.outputs = inputs[:1], operator.outputs
        model.version, model.operatorCodes, model.subgraphs, model.buffers = (
            3,
            [builtin],
            [graph],
            self.buffers,
        )
        builder = flatbuffers.Builder()
        builder.Finish(model.Pack(builder), b"TFL3")
        interpreter = Interpreter(model_content=bytes(builder.Output()), num_threads=threads)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
        result = interpreter.tensor(interpreter.get_output_details()[0]["index"])

        def run() -> Call:
            interpreter.invoke()
            return result

        return run


def array(result: Call) -> NDArray[Any]:
    """Copy the tensor: the interpreter does not run while there is a view of it."""
    return np.array(result(), copy=True)


def uniform(scale: Any, zero_point: int = 0) -> Any:
    """Give the parameters of a tensor with one scale, or with one to each row."""
    parameters = schema.QuantizationParametersT()
    parameters.scale = np.atleast_1d(np.asarray(scale, np.float32))
    parameters.zeroPoint = np.full(parameters.scale.shape, zero_point, np.int64)
    return parameters


def blockwise(scales: int, size: int) -> Any:
    """Give the parameters of a tensor in groups; ``scales`` is the number of the tensor that holds them."""
    parameters, groups = schema.QuantizationParametersT(), schema.BlockwiseQuantizationT()
    groups.scales, groups.zeroPoints, groups.blockSize = scales, -1, size
    parameters.detailsType = schema.QuantizationDetails.BlockwiseQuantization
    parameters.details = groups
    return parameters


def linear(data: Layer, threads: int) -> Iterator[Call]:
    """Quantize x row by row."""
    if not data.dynamic:
        return
    out = np.empty((len(data.x), len(data.codes)), np.float32)

    def one() -> Call:
        model = Model()
        x = model.add(data.x)
        if data.group:
            half = data.scale.astype(np.float16)
            codes = data.codes.view(np.uint8) & 15
            scales = model.add(half, data=half)
            w = model.add(data.codes, blockwise(scales, data.group), codes[:, ::2] | codes[:, 1::2] << 4)
            model.tensors[w].type = schema.TensorType.INT4
        else:
            w = model.add(data.codes, uniform(data.scale[:, 0]), data.codes)
        model.add(out)
        return model.ready("FULLY_CONNECTED", 13, [x, w, -1], data.x, threads)

    yield in_turn([one() for _ in range(data.copies)])


def linear_static(data: StaticLayer, threads: int) -> Iterator[Call]:
    """Take int8 codes, 128 lower: the layer has no others."""
    x, out = (data.x ^ 128).view(np.int8), np.empty((len(data.x), len(data.codes)), np.int8)
    model = Model()
    entry = model.add(x, uniform(data.x_scale, data.x_zero - 128))
    w = model.add(data.codes, uniform(data.scale), data.codes)
    model.add(out, uniform(data.y_scale, data.y_zero - 128))
    yield model.ready("FULLY_CONNECTED", 4, [entry, w, -1], x, threads)


def quantize(data: Elements, threads: int) -> Iterator[Call]:
    if data.scale.ndim:
        return
    model = Model()
    x = model.add(data.x)
    model.add(data.codes, uniform(data.scale))
    yield model.ready("QUANTIZE", 2, [x], data.x, threads)


def dequantize(data: Elements, threads: int) -> Iterator[Call]:
    model = Model()
    codes = model.add(data.codes, uniform(data.scale))
    model.add(data.x)
    yield model.ready("DEQUANTIZE", 2, [codes], data.codes, threads)
