"""Functions of one element, or of elements that broadcast together."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ..errors import QrsTypeError, QrsValueError
from .base import TABLE, Array, dtype_of, operator, saturated_cast

_erf = np.frompyfunc(math.erf, 1, 1)

TABLE.update(
    {
        "Abs": np.abs,
        "Acos": np.arccos,
        "Acosh": np.arccosh,
        "Add": np.add,
        "And": np.logical_and,
        "Asin": np.arcsin,
        "Asinh": np.arcsinh,
        "Atan": np.arctan,
        "Atanh": np.arctanh,
        "BitwiseAnd": np.bitwise_and,
        "BitwiseNot": np.invert,
        "BitwiseOr": np.bitwise_or,
        "BitwiseXor": np.bitwise_xor,
        "Ceil": np.ceil,
        "Cos": np.cos,
        "Cosh": np.cosh,
        "Equal": np.equal,
        "Exp": np.exp,
        "Floor": np.floor,
        "Greater": np.greater,
        "GreaterOrEqual": np.greater_equal,
        "IsNaN": np.isnan,
        "Less": np.less,
        "LessOrEqual": np.less_equal,
        "Log": np.log,
        "Mul": np.multiply,
        "Neg": np.negative,
        "Not": np.logical_not,
        "Or": np.logical_or,
        "Reciprocal": np.reciprocal,
        "Round": np.rint,
        "Sign": np.sign,
        "Sin": np.sin,
        "Sinh": np.sinh,
        "Sqrt": np.sqrt,
        "Sub": np.subtract,
        "Tan": np.tan,
        "Tanh": np.tanh,
        "Xor": np.logical_xor,
    }
)


@operator("Identity", "Dropout")
def _identity(x: Any, *_: Array, seed: int = 0) -> Any:
    return x


@operator("Part")
def _part(values: tuple[Array, ...], index: int) -> Array:
    """One of the outputs of a function that has several; not an operator of ONNX."""
    return values[index]


@operator("Div")
def _div(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.divide(a, b)
    # Towards zero, as in C.
    quotient = np.floor_divide(a, b)
    return quotient + ((quotient < 0) & (quotient * b != a)).astype(quotient.dtype)


@operator("Mod")
def _mod(a: Array, b: Array, fmod: int = 0) -> Array:
    return np.fmod(a, b) if fmod else np.mod(a, b)


@operator("Pow")
def _pow(base: Array, exponent: Array) -> Array:
    if exponent.size == 1 and exponent.ndim <= base.ndim and float(exponent.reshape(())) == 2.0:
        return np.square(base)
    return np.power(base, exponent).astype(base.dtype)


@operator("BitShift")
def _bit_shift(x: Array, by: Array, direction: str) -> Array:
    return np.left_shift(x, by) if direction == "LEFT" else np.right_shift(x, by)


@operator("IsInf")
def _is_inf(x: Array, detect_negative: int = 1, detect_positive: int = 1) -> Array:
    ends = [np.isneginf(x)] * bool(detect_negative) + [np.isposinf(x)] * bool(detect_positive)
    return functools.reduce(np.logical_or, ends, np.zeros(x.shape, np.bool_))


@operator("Min")
def _min(*values: Array) -> Array:
    return functools.reduce(np.minimum, values)


@operator("Max")
def _max(*values: Array) -> Array:
    return functools.reduce(np.maximum, values)


@operator("Sum")
def _sum(*values: Array) -> Array:
    return functools.reduce(np.add, values)


@operator("Mean")
def _mean(*values: Array) -> Array:
    return _sum(*values) / values[0].dtype.type(len(values))


@operator("Where")
def _where(condition: Array, x: Array, y: Array) -> Array:
    return np.where(condition, x, y)


@operator("Clip")
def _clip(x: Array, least: Array | None = None, most: Array | None = None) -> Array:
    # The upper end wins where the ends cross.
    y = x if least is None else np.maximum(x, least)
    return y if most is None else np.minimum(y, most)


@operator("Cast")
def _cast(x: Array, to: str) -> Array:
    """To a dtype that NumPy has; a float goes to an integer by way of the wide ones, so that it wraps."""
    dtype = dtype_of(to)
    if dtype.kind in "iu" and x.dtype.kind == "f" and dtype.itemsize < 8:
        return x.astype(np.int64).astype(dtype)
    return x.astype(dtype)


@operator("CastLike")
def _cast_like(x: Array, like: Array) -> Array:
    if like.dtype.isbuiltin == 1:
        return _cast(x, str(like.dtype))
    return saturated_cast(x, like.dtype)


# ---- activations


@operator("Relu")
def _relu(x: Array) -> Array:
    return np.maximum(x, x.dtype.type(0))


@operator("Sigmoid")
def _sigmoid(x: Array) -> Array:
    one = x.dtype.type(1)
    return one / (one + np.exp(-x))


@operator("Erf")
def _error_function(x: Array) -> Array:
    return np.asarray(_erf(x)).astype(x.dtype)


@operator("Gelu")
def _gelu(x: Array, approximate: str = "none") -> Array:
    half, one = x.dtype.type(0.5), x.dtype.type(1)
    if approximate == "tanh":
        inner = x.dtype.type(math.sqrt(2 / math.pi)) * (x + x.dtype.type(0.044715) * x * x * x)
        return half * x * (one + np.tanh(inner))
    return half * x * (one + _error_function(x * x.dtype.type(math.sqrt(0.5))))


@operator("Elu")
def _elu(x: Array, alpha: float = 1.0) -> Array:
    return np.where(x < 0, x.dtype.type(alpha) * np.expm1(x), x)


@operator("Celu")
def _celu(x: Array, alpha: float = 1.0) -> Array:
    a = x.dtype.type(alpha)
    return np.where(x < 0, a * np.expm1(x / a), x)


@operator("Selu")
def _selu(x: Array, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805) -> Array:
    return x.dtype.type(gamma) * _elu(x, alpha)


@operator("LeakyRelu")
def _leaky_relu(x: Array, alpha: float = 0.01) -> Array:
    return np.where(x < 0, x.dtype.type(alpha) * x, x)


@operator("PRelu")
def _prelu(x: Array, slope: Array) -> Array:
    return np.where(x < 0, slope * x, x)


@operator("ThresholdedRelu")
def _thresholded_relu(x: Array, alpha: float = 1.0) -> Array:
    return np.where(x > x.dtype.type(alpha), x, x.dtype.type(0))


@operator("HardSigmoid")
def _hard_sigmoid(x: Array, alpha: float = 0.2, beta: float = 0.5) -> Array:
    kind = x.dtype.type
    return np.clip(kind(alpha) * x + kind(beta), kind(0), kind(1))


@operator("HardSwish")
def _hard_swish(x: Array) -> Array:
    return x * _hard_sigmoid(x, 1 / 6, 0.5)


@operator("Softplus")
def _softplus(x: Array) -> Array:
    return np.logaddexp(x, x.dtype.type(0))


@operator("Softsign")
def _softsign(x: Array) -> Array:
    return x / (x.dtype.type(1) + np.abs(x))


@operator("Mish")
def _mish(x: Array) -> Array:
    return x * np.tanh(_softplus(x))


# ---- products of arrays that both come from the graph


@operator("MatMul")
def _matmul(a: Array, b: Array) -> Array:
    return np.matmul(a, b)


@operator("Gemm")
def _gemm(
    a: Array,
    b: Array,
    c: Array | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    **turned: int,
) -> Array:
    unknown = set(turned) - {"transA", "transB"}
    if unknown:
        raise QrsTypeError(f"Gemm has no attributes {sorted(unknown)}")
    y = np.matmul(a.T if turned.get("transA") else a, b.T if turned.get("transB") else b)
    y = y if alpha == 1 else y * y.dtype.type(alpha)
    return y if c is None else y + (c if beta == 1 else c * c.dtype.type(beta))


@operator("Einsum")
def _einsum(*inputs: Array, equation: str) -> Array:
    if len(inputs) != len(equation.split("->")[0].split(",")):
        raise QrsValueError(f"equation is {equation!r} for {len(inputs)} inputs")
    if inputs[0].dtype.kind == "V":  # bfloat16
        wide = _einsum(*(x.astype(np.float32) for x in inputs), equation=equation)
        return wide.astype(inputs[0].dtype)
    # The best order of many operands is searched for; of two there is but one.
    return np.asarray(np.einsum(equation.replace(" ", ""), *inputs, optimize=len(inputs) > 2))
