"""OpenVINO: a compiled model of one operation on shared tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import openvino
from common import F32, Call, in_turn
from convolutions import Convolution
from elements import Elements
from numpy.typing import NDArray
from openvino import Tensor, Type
from openvino import opset13 as op
from products import Layer, StaticLayer

VERSION = openvino.__version__.partition("-")[0]

CORE = openvino.Core()
f32 = np.float32


def compiled(result: Any, entry: Any, x: NDArray[Any], out: NDArray[Any], threads: int, **more: Any) -> Call:
    """Compile a model of one input and one output; its call fills ``out``."""
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "f32",
        **more,
    }
    model = openvino.Model([result], [entry], "row")
    request = CORE.compile_model(model, "CPU", settings).create_infer_request()
    request.set_input_tensor(Tensor(x, shared_memory=True))
    request.set_output_tensor(Tensor(out, shared_memory=True))

    def run() -> NDArray[Any]:
        request.infer()
        return out

    return run


def decoded(data: Layer) -> Any:
    """Give the weight as codes with their scales, which the plugin keeps packed."""
    n, k = data.codes.shape
    if data.bits == 8:
        return op.multiply(op.convert(op.constant(data.codes, Type.i8), "f32"), op.constant(data.scale))
    codes = (data.codes.view(np.uint8).reshape(-1) ^ 8) & 15
    shape = openvino.Shape([n, k // data.group, data.group])
    packed = op.constant(Tensor(codes[::2] | codes[1::2] << 4, shape, Type.u4), shared_memory=False)
    steps = op.subtract(op.convert(packed, "f32"), op.constant(np.full((1, 1, 1), 8, f32)))
    return op.reshape(op.multiply(steps, op.constant(data.scale[..., None])), np.array([n, k]), False)


def linear(data: Layer, threads: int) -> Iterator[Call]:
    out = np.empty((len(data.x), len(data.codes)), f32)
    for group in (0, 32) if data.dynamic else (0,):  # elements of x that share a scale; 0 for none
        calls = []
        for _ in range(data.copies):
            x = op.parameter(data.x.shape, f32)
            y = op.matmul(x, decoded(data), False, True)
            calls.append(compiled(y, x, data.x, out, threads, DYNAMIC_QUANTIZATION_GROUP_SIZE=group))
        yield in_turn(calls)


def linear_static(data: StaticLayer, threads: int) -> Iterator[Call]:
    out = np.empty((len(data.x), len(data.codes)), np.uint8)
    entry = op.parameter(data.x.shape, np.uint8)
    steps = op.subtract(op.convert(entry, "f32"), op.constant(f32(data.x_zero)))
    x = op.multiply(steps, op.constant(f32(data.x_scale)))
    w = op.multiply(op.convert(op.constant(data.codes, Type.i8), "f32"), op.constant(data.scale[:, None]))
    lo, hi = (f32((end - data.y_zero) * data.y_scale) for end in (0, 255))
    y = op.fake_quantize(op.matmul(x, w, False, True), lo, hi, f32(0), f32(255), 256)
    yield compiled(op.convert(y, "u8"), entry, data.x, out, threads)


def conv2d(data: Convolution, threads: int) -> Iterator[Call]:
    size = (data.x.shape[2] + 2 * data.padding - data.codes.shape[2]) // data.stride + 1
    entry, out = op.parameter(data.x.shape, f32), np.empty((len(data.x), len(data.codes), size, size), f32)
    lo, hi = (f32((end - data.x_zero) * data.x_scale) for end in (0, 255))
    x = op.fake_quantize(entry, lo, hi, lo, hi, 256)
    filters = len(data.codes) // data.groups
    shape = (data.groups, filters) if data.groups > 1 else (filters,)
    codes = data.codes.reshape(*shape, *data.codes.shape[1:])
    scale = op.constant(data.scale.reshape(*shape, 1, 1, 1))
    w = op.multiply(op.convert(op.constant(codes, Type.i8), "f32"), scale)
    convolve = op.group_convolution if data.groups > 1 else op.convolution
    y = convolve(x, w, [data.stride] * 2, [data.padding] * 2, [data.padding] * 2, [1, 1])
    yield compiled(y, entry, data.x, out, threads)


def ends(data: Elements) -> tuple[F32, F32]:
    """Give the smallest and the largest value that has a code."""
    return np.asarray(-127 * data.scale, f32), np.asarray(127 * data.scale, f32)


def quantize(data: Elements, threads: int) -> Iterator[Call]:
    if data.group:
        return
    entry, out = op.parameter(data.x.shape, f32), np.empty(data.x.shape, np.int8)
    codes = op.fake_quantize(entry, *ends(data), f32(-127), f32(127), 255)
    yield compiled(op.convert(codes, "i8"), entry, data.x, out, threads)


def dequantize(data: Elements, threads: int) -> Iterator[Call]:
    entry, out = op.parameter(data.codes.shape, np.int8), np.empty_like(data.x)
    y = op.multiply(op.convert(entry, "f32"), op.constant(data.scale))
    yield compiled(y, entry, data.codes, out, threads)


def fake_quantize(data: Elements, threads: int) -> Iterator[Call]:
    entry, out = op.parameter(data.x.shape, f32), np.empty_like(data.x)
    y = op.fake_quantize(entry, *ends(data), *ends(data), 255)
    yield compiled(y, entry, data.x, out, threads)


def gelu(x: F32, threads: int) -> Iterator[Call]:
    for form in ("erf", "tanh"):
        entry = op.parameter(x.shape, f32)
        yield compiled(op.gelu(entry, form), entry, x, np.empty_like(x), threads)


def softmax(x: F32, threads: int) -> Iterator[Call]:
    entry = op.parameter(x.shape, f32)
    yield compiled(op.softmax(entry, -1), entry, x, np.empty_like(x), threads)
