"""PyTorch: FBGEMM and oneDNN behind its quantized operators, its own kernels for the rest."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from common import F32, Call, in_turn
from convolutions import Convolution
from elements import Elements
from layers import Heads, Norm
from numpy.typing import NDArray
from products import IntegerProduct, Layer, StaticLayer

VERSION = torch.__version__

OPS = torch.ops
ENGINES = [name for name in ("fbgemm", "onednn") if name in torch.backends.quantized.supported_engines]


def array(result: Any) -> NDArray[Any]:
    """Bring a tensor to NumPy: a quantized one as its codes, bfloat16 as float32."""
    if isinstance(result, tuple):
        return np.stack([array(part) for part in result])
    if result.is_quantized:
        result = result.int_repr()
    return np.asarray(result.float() if result.dtype == torch.bfloat16 else result)


def per_row(codes: torch.Tensor, scale: F32) -> torch.Tensor:
    """Make torch's own quantized weight, one symmetric scale to a row."""
    zeros = torch.zeros(len(codes), dtype=torch.long)
    return torch._make_per_channel_quantized_tensor(codes, torch.tensor(scale.reshape(-1)).double(), zeros, 0)


def matmul_integer(data: IntegerProduct, threads: int) -> Iterator[Call]:
    torch.set_num_threads(threads)
    a, w = torch.tensor(data.a), torch.tensor(data.b.T.copy())
    if a.dtype == torch.int8:
        yield lambda: torch._int_mm(a, w.T)
        return
    # oneDNN with a packed weight, which gives the sums as float32.
    packed = OPS.onednn.qlinear_prepack(w, list(a.shape))
    unit, zero = torch.ones(len(w)), torch.zeros(len(w), dtype=torch.long)
    result: tuple[Any, ...] = (1.0, 0, torch.float32, "none", [], "")
    yield partial(OPS.onednn.qlinear_pointwise, a, 1.0, 0, packed, unit, zero, None, *result)


def linear(data: Layer, threads: int) -> Iterator[Call]:
    torch.set_num_threads(threads)
    if data.bits == 4:
        yield from linear_int4(data)
    elif data.dynamic and not data.group:
        yield from linear_int8(data)


def linear_int8(data: Layer) -> Iterator[Call]:
    """Quantize x to 7 bits (the default, as the engines' sums may saturate with 8), or keep it bfloat16."""
    x, codes = torch.tensor(data.x), torch.tensor(data.codes)
    weight = per_row(codes, data.scale)
    for engine in ENGINES:
        torch.backends.quantized.engine = engine
        packed = [OPS.quantized.linear_prepack(weight, None) for _ in range(data.copies)]
        yield in_turn([partial(OPS.quantized.linear_dynamic, x, one, reduce_range=True) for one in packed])
    half, scale = x.bfloat16(), torch.tensor(data.scale[:, 0]).bfloat16()
    product = OPS.aten._weight_int8pack_mm
    yield in_turn([partial(product, half, codes.clone(), scale) for _ in range(data.copies)])


def linear_int4(data: Layer) -> Iterator[Call]:
    """Keep x in bfloat16, for which the kernel is made."""
    x, codes = torch.tensor(data.x).bfloat16(), torch.tensor(data.codes).int() + 8
    scale = torch.tensor(data.scale.T.copy()).bfloat16()
    scale_and_zero = torch.stack([scale, torch.zeros_like(scale)], 2).contiguous()
    pack, product = OPS.aten._convert_weight_to_int4pack_for_cpu, OPS.aten._weight_int4pack_mm_for_cpu
    packed = [pack(codes, 1) for _ in range(data.copies)]
    yield in_turn([partial(product, x, one, data.group, scale_and_zero) for one in packed])


def linear_static(data: StaticLayer, threads: int) -> Iterator[Call]:
    torch.set_num_threads(threads)
    x = torch._make_per_tensor_quantized_tensor(torch.tensor(data.x), data.x_scale, data.x_zero)
    weight = per_row(torch.tensor(data.codes), data.scale)
    for engine in ENGINES:
        torch.backends.quantized.engine = engine
        packed = OPS.quantized.linear_prepack(weight, None)
        yield partial(OPS.quantized.linear, x, packed, data.y_scale, data.y_zero)


def conv2d(data: Convolution, threads: int) -> Iterator[Call]:
    """Quantize, convolve channels last, and decode; oneDNN decodes by itself."""
    torch.set_num_threads(threads)
    x = torch.tensor(data.x).contiguous(memory_format=torch.channels_last)
    codes, scale = torch.tensor(data.codes), torch.tensor(data.scale)
    weight, zero = per_row(codes, data.scale), torch.zeros(len(codes), dtype=torch.long)
    entry = data.x_scale, data.x_zero
    moves = [data.stride] * 2, [data.padding] * 2, [1, 1], data.groups

    def quantized() -> torch.Tensor:
        return torch.quantize_per_tensor(x, *entry, torch.quint8)

    def convolve(packed: Any) -> torch.Tensor:
        return OPS.quantized.conv2d(quantized(), packed, data.y_scale, data.y_zero).dequantize()

    for engine in ENGINES:
        torch.backends.quantized.engine = engine
        yield partial(convolve, OPS.quantized.conv2d_prepack(weight, None, *moves))
    packed = OPS.onednn.qconv_prepack(codes, scale, *entry, *moves, list(x.shape))
    rest: tuple[Any, ...] = (packed, scale, zero, None, *moves, 1.0, 0, torch.float32, "none", [], "")
    yield lambda: OPS.onednn.qconv_pointwise(quantized().int_repr(), *entry, *rest)


def quantize(data: Elements, threads: int) -> Iterator[Call]:
    torch.set_num_threads(threads)
    x, scale = torch.tensor(data.x), torch.tensor(data.scale.reshape(-1))
    if data.group:
        return
    if x.ndim == 1:
        yield lambda: torch.quantize_per_tensor(x, float(data.scale), 0, torch.qint8)
    else:
        zeros = torch.zeros(len(x), dtype=torch.long)
        yield lambda: torch.quantize_per_channel(x, scale, zeros, 0, torch.qint8)


def dequantize(data: Elements, threads: int) -> Iterator[Call]:
    torch.set_num_threads(threads)
    codes, scale, out = torch.tensor(data.codes), torch.tensor(data.scale), torch.tensor(data.x)
    q = torch._make_per_tensor_quantized_tensor(codes, float(data.scale), 0)
    yield lambda: q.dequantize()
    yield lambda: torch.mul(codes, scale, out=out)


def fake_quantize(data: Elements, threads: int) -> Iterator[Call]:
    torch.set_num_threads(threads)
    x, scale = torch.tensor(data.x), torch.tensor(data.scale.reshape(-1))
    if x.ndim == 1:
        yield lambda: torch.fake_quantize_per_tensor_affine(x, float(data.scale), 0, -127, 127)
    else:
        zeros = torch.zeros(len(x), dtype=torch.int32)
        yield lambda: torch.fake_quantize_per_channel_affine(x, scale, zeros, 0, -127, 127)


def min_max(x: F32, threads: int) -> Iterator[Call]:
    torch.set_num_threads(threads)
    t, axis = torch.tensor(x), None if x.ndim == 1 else 1
    yield lambda: tuple(torch.aminmax(t, dim=axis))


def gelu(x: F32, threads: int) -> Iterator[Call]:
    torch.set_num_threads(threads)
    t = torch.tensor(x)
    for form in ("none", "tanh"):
        yield partial(torch.nn.functional.gelu, t, approximate=form)


def softmax(x: F32, threads: int) -> Iterator[Call]:
    torch.set_num_threads(threads)
    t, out = torch.tensor(x), torch.empty(x.shape)
    yield lambda: torch.softmax(t, -1, out=out)


def layer_norm(data: Norm, threads: int) -> Iterator[Call]:
    torch.set_num_threads(threads)
    x, residual, weight, bias = (torch.tensor(a) for a in (data.x, data.residual, data.weight, data.bias))
    total = torch.empty_like(x)

    def run() -> torch.Tensor:
        torch.add(x, residual, out=total)
        return torch.nn.functional.layer_norm(total, weight.shape, weight, bias, data.eps)

    yield run


def attention(data: Heads, threads: int) -> Iterator[Call]:
    torch.set_num_threads(threads)
    q, k, v = (torch.tensor(data.split(a)) for a in (data.q, data.k, data.v))
    yield lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v)
