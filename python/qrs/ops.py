"""Functions on arrays: quantize, fake-quantize and the products, and what may stand in a product's ``input``.

Everything that a caller chooses is checked here; the native calls below do arithmetic only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, overload, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from .arrays import as_float32, as_int8, deliver, flag, integer, target
from .errors import NotCalibratedError, QrsTypeError, QrsValueError, quote
from .qtensor import QTensor
from .registry import unknown
from .scheme import FORMATS, QParams, Scheme, Shape, per_group, per_tensor, per_token

__all__ = ["Dynamic", "RangeSource", "Static", "fake_quantize", "linear", "matmul_integer", "quantize"]

ACTIVATIONS = tuple(_core.activations())


@runtime_checkable
class RangeSource(Protocol):
    """What a `Static` input takes its parameters from; every observer is one."""

    def qparams(self, scheme: Scheme) -> QParams:
        """Give the parameters for what was seen."""
        ...


# What rows become that meet a trellis block by block.
BLOCKS16 = Scheme("int16", per_group(256))


def _input_scheme(value: Scheme | str, name: str, granularities: tuple[object, ...]) -> Scheme:
    scheme = Scheme.of(value)
    if scheme == BLOCKS16 and name == "Dynamic":
        return scheme
    if scheme.dtype == "int16" and name == "Dynamic":
        raise QrsValueError(
            f"Dynamic scheme is {scheme!r}, expected {BLOCKS16!r} of int16, or 8 bits or less"
        )
    if scheme.granularity not in granularities:
        allowed = " or ".join(repr(one) for one in granularities)
        raise QrsValueError(f"{name} scheme is {scheme.granularity!r}, expected {allowed}")
    for field, only in (("rounding", "half_even"), ("scale_dtype", "float32")):
        if getattr(scheme, field) != only:
            raise QrsValueError(f"{name} scheme has {field} {getattr(scheme, field)!r}, expected {only!r}")
    if scheme.format.kind != "integer" or scheme.format.bits > 8:
        raise QrsValueError(
            f"{name} scheme is of {scheme.dtype}, expected an integer dtype of at most 8 bits"
        )
    return scheme


@dataclass(frozen=True)
class Dynamic:
    """An input whose parameters are computed from each call's own values.

    Parameters
    ----------
    scheme : Scheme or str
        `per_token` (one scale for each row, the more accurate) or `per_tensor`. For weights along a trellis
        alone: ``Scheme("int16", per_group(256))``, which loses next to nothing and multiplies blocks as they
        are decoded, in integers; one pass over the weight for each row, so it is one for few rows.

    Examples
    --------
    >>> import qrs
    >>> Dynamic(qrs.Scheme("int8", qrs.per_token))
    Dynamic(scheme=Scheme('int8', per_token))
    """

    scheme: Scheme

    def __post_init__(self) -> None:
        object.__setattr__(self, "scheme", _input_scheme(self.scheme, "Dynamic", (per_token, per_tensor)))
        if self.scheme.fit != "minmax":
            raise QrsValueError(
                f"Dynamic scheme has fit {self.scheme.fit!r}, expected 'minmax': products find it themselves"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.scheme,)

    @cached_property
    def _native(self) -> _core.Input:
        """The same for the native products."""
        s = self.scheme
        if s == BLOCKS16:
            return _core.Input.blocks16()
        return _core.Input.dynamic(s.dtype, s.symmetric, s.narrow_range, s.granularity == per_token)


@dataclass(frozen=True)
class Static:
    """An input, or a result, whose parameters are known before the call, from calibration.

    Parameters
    ----------
    scheme : Scheme or str
        `per_tensor`.
    observer : RangeSource, optional
        What calibration collects the range with, an observer without data; calibration's default if ``None``.
    qparams : QParams, optional
        The parameters, once they are known. A product needs them.

    Examples
    --------
    >>> import qrs
    >>> s = qrs.Scheme("uint8")
    >>> Static(s, qparams=s.qparams(-1.0, 3.0)).scheme
    Scheme('uint8')
    """

    scheme: Scheme
    observer: RangeSource | None = None
    qparams: QParams | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scheme", _input_scheme(self.scheme, "Static", (per_tensor,)))
        # A class has the method too, but has seen nothing and never will.
        if self.observer is not None and (
            isinstance(self.observer, type) or not isinstance(self.observer, RangeSource)
        ):
            raise QrsTypeError(f"observer is {quote(self.observer)}, expected an observer such as MinMax()")
        if self.qparams is not None:
            self.scheme.check_qparams(self.qparams, ())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.scheme, self.observer, self.qparams)

    @cached_property
    def _native(self) -> _core.Input:
        """The same for the native products."""
        known = self.known()
        scale, zero_point = float(known.scale), int(known.zero_point)
        return _core.Input.static_(self.scheme.dtype, scale, zero_point, self.scheme.narrow_range)

    def known(self) -> QParams:
        """Give the parameters.

        Returns
        -------
        QParams

        Raises
        ------
        NotCalibratedError
            While there are none.

        Examples
        --------
        >>> Static("int8", qparams=QParams(0.5)).known().scale
        array(0.5, dtype=float32)
        """
        if self.qparams is None:
            raise NotCalibratedError(f"Static({self.scheme!r}) has no qparams; calibrate, or give qparams=")
        return self.qparams


# A tuple: the union that means the same would be made anew by each call.
INPUTS = (Dynamic, Static)


def _fit(
    data: NDArray[np.float32], weights: NDArray[np.float32] | None, scheme: Scheme, check_finite: bool
) -> QParams:
    """Compute a scheme's parameters from the array that is to be quantized."""
    block = scheme.granularity.block(data.shape)
    shape = scheme._params_shape(data.shape)
    if scheme.format.kind == "block":
        return QParams._made((np.empty(0, np.float32), np.empty(0, np.int32)), shape, scheme)
    how = (scheme.fit, scheme.dtype, scheme.symmetric, scheme.narrow_range, scheme.scale_dtype)
    scale, zero_point, levels = _core.fit(data, weights, block, *how, check_finite)
    return QParams._made((scale, zero_point), shape, scheme, levels)


def _seed(seed: int) -> int:
    number = integer(seed, "seed")
    if not 0 <= number < 1 << 64:
        raise QrsValueError(f"seed is {number}, expected 0 to 2**64 - 1")
    return number


def _importance(
    importance: ArrayLike, data: NDArray[np.float32], scheme: Scheme, qparams: QParams | None
) -> NDArray[np.float32]:
    """Take an importance for each element, if there is something that it decides."""
    kind = scheme.format.kind
    decides = kind in ("block", "trellis") or (qparams is None and (scheme.fit == "mse" or kind == "learned"))
    if not decides:
        why = "qparams are given" if qparams is not None else f"fit is {scheme.fit}"
        raise QrsValueError(
            f"importance is given, but {why}, so it decides nothing; leave it out or fit='mse'"
        )
    return broadcast_importance(importance, data.shape)


def broadcast_importance(importance: ArrayLike, shape: Shape) -> NDArray[np.float32]:
    """Give an importance for each element of an array of ``shape``."""
    weights = as_float32(importance, "importance")
    try:
        return np.ascontiguousarray(np.broadcast_to(weights, shape))
    except ValueError:
        raise QrsValueError(
            f"importance has shape {weights.shape}, expected one that broadcasts to {shape} as x has"
        ) from None


def quantize(
    x: ArrayLike,
    scheme: Scheme | str,
    *,
    qparams: QParams | None = None,
    seed: int = 0,
    check_finite: bool = True,
    importance: ArrayLike | None = None,
) -> QTensor:
    """Quantize an array: ``code = clamp(round(x / scale)) + zero_point``, or that of the level next to it.

    Parameters
    ----------
    x : array_like of float
        Any shape, strides and byte order; float64 is rounded to float32 first.
    scheme : Scheme or str
        How; ``"int8"`` stands for ``Scheme("int8")``.
    qparams : QParams, optional
        Scale and zero point of each cell; computed from ``x`` by the scheme's ``fit`` if not given.
    seed : int, default 0
        Key of stochastic rounding, 0 to 2**64 - 1: equal seeds give equal codes.
    check_finite : bool, default True
        Refuse NaN and infinities. Otherwise NaN becomes 0.0 and an infinity the end of the code range.
    importance : array_like of float, broadcastable to the shape of ``x``, optional
        How much the squared error of each element counts, finite and at least 0 (alike, if all are 0):
        scales with ``fit="mse"``, learned levels, the scales in blocks of GGUF and the path of a trellis are
        chosen for the least ``sum(importance * (x - values)**2)``. For a weight ``(n, k)`` the mean square of
        each of its ``k`` inputs is a good one.

    Returns
    -------
    QTensor
        Of the shape of ``x``.

    Raises
    ------
    QrsTypeError
        If ``x`` is not an array of floats.
    QrsValueError
        If ``x`` is not finite (the message counts and locates), ``qparams`` does not fit scheme and shape, or
        ``importance`` is illegal or has nothing to decide.

    Examples
    --------
    >>> import qrs
    >>> q = qrs.quantize([0.0, 1.0, 2.0, 3.0], "uint2")
    >>> q.unpack()
    array([0, 1, 2, 3], dtype=uint8)
    >>> qrs.quantize([1.0, 0.3, 30.0], qrs.Scheme("int4", fit="mse"), importance=[1, 1, 0]).unpack()
    array([7, 2, 7], dtype=int8)
    """
    scheme = Scheme.of(scheme)
    seed, check_finite = _seed(seed), flag(check_finite, "check_finite")
    data = as_float32(x, "x")
    block = scheme.granularity.block(data.shape)
    weights = None if importance is None else _importance(importance, data, scheme, qparams)
    # Where nothing counts, all counts alike.
    weights = None if weights is None or not weights.any() else weights
    if qparams is None:
        qparams = _fit(data, weights, scheme, check_finite)
    else:
        scheme._check(qparams, data.shape)
    codes = np.empty(scheme.format.packed_bytes(data.size), np.uint8)
    if data.size:
        _core.quantize(
            data,
            weights,
            block,
            qparams.cells,
            scheme.dtype,
            scheme.narrow_range,
            scheme.rounding,
            seed,
            check_finite,
            scheme.saturate,
            codes,
        )
    return QTensor._made(codes, qparams, scheme, data.shape)


def fake_quantize(
    x: ArrayLike,
    scheme: Scheme | str,
    *,
    qparams: QParams | None = None,
    seed: int = 0,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Round an array to the values of its codes: ``quantize(x, scheme).dequantize()``, bit for bit.

    Parameters
    ----------
    x, scheme, qparams, seed
        As in `quantize`.
    out : ndarray of float32, shape of ``x``, optional
        Filled and returned; any strides.

    Returns
    -------
    ndarray of float32, shape of ``x``
        With ``qparams`` given, NaN stays NaN and an infinity becomes the end of the range. Without them the
        values set the range and must be finite.

    Raises
    ------
    QrsTypeError, QrsValueError
        As `quantize`, and if ``out`` has another dtype or shape, is read-only, or overlaps ``x``.

    Examples
    --------
    >>> import qrs
    >>> qrs.fake_quantize([0.2, 1.1, 3.0], "uint2")
    array([0., 1., 3.], dtype=float32)
    """
    scheme = Scheme.of(scheme)
    seed = _seed(seed)
    data = as_float32(x, "x")
    filled = target(out, data.shape, np.float32, x=x)
    block = scheme.granularity.block(data.shape)
    if qparams is None:
        qparams = _fit(data, None, scheme, True)
    else:
        scheme._check(qparams, data.shape)
    if data.size:
        how = (scheme.dtype, scheme.narrow_range, scheme.rounding, seed, scheme.saturate)
        _core.fake_quantize(data, block, qparams.cells, *how, filled)
    return deliver(filled, out)


def _operand_zero_point(value: int, name: str, operand: NDArray[Any]) -> int:
    number = integer(value, name)
    least, most = (-128, 127) if operand.dtype.kind == "i" else (0, 255)
    if not least <= number <= most:
        raise QrsValueError(f"{name} is {number}, expected {least} to {most} of {operand.dtype}")
    return number


def matmul_integer(
    a: ArrayLike,
    b: ArrayLike,
    a_zero_point: int = 0,
    b_zero_point: int = 0,
    out: NDArray[np.int32] | None = None,
) -> NDArray[np.int32]:
    """Multiply integer matrices exactly: ``(a - a_zero_point) @ (b - b_zero_point)``.

    Parameters
    ----------
    a : array_like of int8 or uint8, shape (m, k)
    b : array_like of int8 or uint8, shape (k, n)
        Of either dtype, whatever the other has.
    a_zero_point, b_zero_point : int, default 0
        A value of the operand's dtype.
    out : ndarray of int32, shape (m, n), optional
        Filled and returned; any strides.

    Returns
    -------
    ndarray of int32, shape (m, n)
        The same on every instruction set and for every number of threads.

    Raises
    ------
    QrsTypeError, QrsValueError
        If a dtype, shape or zero point is not accepted.
    OverflowError
        If ``k`` is so large that int32 could overflow.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> a = np.array([[255, 255]], np.uint8)
    >>> qrs.matmul_integer(a, np.array([[127], [-128]], np.int8))
    array([[-255]], dtype=int32)
    """
    left, right = as_int8(a, "a"), as_int8(b, "b")
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0]:
        raise QrsValueError(f"a has shape {left.shape} and b {right.shape}, expected (m, k) and (k, n)")
    a_zero_point = _operand_zero_point(a_zero_point, "a_zero_point", left)
    b_zero_point = _operand_zero_point(b_zero_point, "b_zero_point", right)
    filled = target(out, (left.shape[0], right.shape[1]), np.int32, a=a, b=b)
    if filled.size and left.shape[1]:
        _core.matmul_integer(left, right, a_zero_point, b_zero_point, filled)
    else:
        filled[...] = 0
    return deliver(filled, out)


@overload
def linear(
    x: ArrayLike | QTensor,
    q: QTensor,
    bias: ArrayLike | None = None,
    activation: str | None = None,
    input: Dynamic | Static | None = None,
    out: NDArray[np.float32] | None = None,
    output: None = None,
) -> NDArray[np.float32]: ...


@overload
def linear(
    x: ArrayLike | QTensor,
    q: QTensor,
    bias: ArrayLike | None = None,
    activation: str | None = None,
    input: Dynamic | Static | None = None,
    out: None = None,
    *,
    output: Static,
) -> QTensor: ...


def linear(
    x: ArrayLike | QTensor,
    q: QTensor,
    bias: ArrayLike | None = None,
    activation: str | None = None,
    input: Dynamic | Static | None = None,
    out: NDArray[np.float32] | None = None,
    output: Static | None = None,
) -> NDArray[np.float32] | QTensor:
    """Multiply by a quantized weight: ``activation(x @ w.T + bias)``.

    Parameters
    ----------
    x : array_like of float or QTensor, shape (..., k)
        The codes of a ``per_tensor`` QTensor are multiplied in integers as they stand: decoded, they would be
        quantized to the same codes by its own parameters. With ``input`` given it counts as its values.
    q : QTensor, shape (n, k)
        The weight ``w``; packed for products on first use.
    bias : array_like of float, shape (n,), optional
    activation : str, optional
        ``relu``, ``gelu``, ``gelu_tanh``, ``silu`` or ``tanh``.
    input : Dynamic or Static, optional
        Quantize ``x`` and multiply in integers. By default a float ``x`` stays float32 and the weight
        is decoded.
    out : ndarray of float32, shape (..., n), optional
        Filled and returned; any strides. Not with ``output``.
    output : Static, optional
        Quantize the result, tile by tile and without a float32 copy of it. NaN becomes 0.0 and an infinity
        the end of the code range.

    Returns
    -------
    ndarray of float32, shape (..., n)
        The same on every instruction set and for every number of threads.
    QTensor, shape (..., n)
        With ``output``: ``quantize(linear(...), output.scheme, qparams=output.qparams)``, code for code.

    Raises
    ------
    QrsTypeError, QrsValueError
        If a dtype, shape or name is not accepted, ``x`` is not finite where it is quantized, ``x`` is a
        QTensor of another granularity without ``input``, or both ``out`` and ``output`` are given.
    NotCalibratedError
        If ``input`` or ``output`` is a `Static` without parameters.
    OverflowError
        If ``k``, or the weight's group, is so long that an int32 sum could overflow.

    Examples
    --------
    >>> import qrs
    >>> w = qrs.quantize([[1.0, -1.0], [0.5, 0.25]], qrs.Scheme("int8", qrs.per_channel(0)))
    >>> qrs.linear([[2.0, 1.0]], w, activation="relu").round(2)
    array([[1.  , 1.25]], dtype=float32)

    From codes to codes, with nothing in float32 between two layers:

    >>> codes = qrs.Static("uint8", qparams=qrs.QParams(0.01, 100))
    >>> hidden = qrs.linear([[2.0, 1.0]], w, output=codes)
    >>> hidden.unpack()
    array([[200, 225]], dtype=uint8)
    >>> qrs.linear(hidden, w, output=codes).unpack()
    array([[ 75, 181]], dtype=uint8)
    """
    _check_choices(q, activation, input, output)
    n, k = q.shape
    check_operands(input, q)
    native = None if input is None else input._native
    if native is None and isinstance(x, QTensor):
        native = own_parameters(x)
    data = x.dequantize() if isinstance(x, QTensor) else as_float32(x, "x")
    if not data.ndim or data.shape[-1] != k:
        raise QrsValueError(f"x has shape {data.shape}, expected (..., {k}) for a weight of shape {q.shape}")
    offsets = None if bias is None else as_float32(bias, "bias")
    if offsets is not None and offsets.shape != (n,):
        raise QrsValueError(
            f"bias has shape {offsets.shape}, expected {(n,)} for a weight of shape {q.shape}"
        )
    shape = (*data.shape[:-1], n)
    activation = activation or "none"
    if output is None:
        filled = target(out, shape, np.float32, x=x, bias=bias)
        if filled.size:
            q.panels.linear(data, offsets, activation, native, filled)
        return deliver(filled, out)
    if out is not None:
        raise QrsValueError("out and output are both given; out takes float32 results, output makes codes")
    scheme, known = output.scheme, output.known()
    scale, zero_point = float(known.scale), int(known.zero_point)
    codes = target(None, (math.prod(shape),), np.uint8)
    if codes.size:
        how = (scheme.dtype, scale, zero_point, scheme.narrow_range)
        q.panels.linear_requantized(data, offsets, activation, native, *how, codes)
    return QTensor._of_bytes(codes, known, scheme, shape)


def _check_choices(
    q: object, activation: str | None, input: Dynamic | Static | None, output: Static | None
) -> None:
    """Refuse what cannot stand in these places of a product, whatever its array is."""
    if not isinstance(q, QTensor):
        raise QrsTypeError(f"q is a {type(q).__name__}, expected a QTensor; quantize the weight first")
    if input is not None and not isinstance(input, INPUTS):
        raise QrsTypeError(f"input is {quote(input)}, expected None, Dynamic or Static")
    if output is not None and not isinstance(output, Static):
        raise QrsTypeError(f"output is {quote(output)}, expected None or Static")
    if activation is not None and activation not in ACTIVATIONS:
        raise unknown("activation", activation, ACTIVATIONS)
    if len(q.shape) != 2:
        raise QrsValueError(f"q has shape {q.shape}, expected (n, k)")


def check_operands(input: Dynamic | Static | None, q: QTensor) -> None:
    """Refuse an input whose codes cannot multiply those of a weight."""
    if input is None:
        return
    weight = q.scheme.format
    if input.scheme != BLOCKS16:
        if not weight.integral:
            whole = ", ".join(name for name, row in FORMATS.items() if row.integral and row.kind != "integer")
            raise QrsValueError(
                f"input is quantized for a weight of {q.scheme.dtype}, whose levels are no multiples of a "
                f"step; leave input=None, or quantize the weight to an integer dtype or one of {whole}"
            )
        return
    if not weight.name.startswith("trellis:") or "3inst" in weight.name:
        raise QrsValueError(
            f"input is int16 for a weight of {q.scheme.dtype}, expected trellis:B of any code but 3inst, "
            f"whose levels are no whole numbers; give input of at most 8 bits, or none"
        )
    group = q.scheme.granularity.block(q.shape)[-1]
    if q.shape[-1] % 256 or group % 256 or q.shape[-1] % group:
        raise QrsValueError(
            f"input is int16 for a weight of shape {q.shape} and {q.scheme.granularity!r}, expected rows of "
            f"whole blocks of 256, as many to each scale; leave input=None"
        )


def own_parameters(x: QTensor) -> _core.Input:
    """Describe a quantized input to the native products by the parameters that it carries.

    Decoding and quantizing again gives the same codes: the rounding errors of a product and a quotient move a
    code by far less than half a step. So neither the rounding nor the scale dtype that made them matters.
    """
    s = x.scheme
    if s.granularity != per_tensor:
        raise QrsValueError(
            f"x is a QTensor of {s.granularity!r}, expected per_tensor; give input=, or x.dequantize() to "
            f"multiply in float32"
        )
    if s.format.kind != "integer" or s.format.bits > 8:
        raise QrsValueError(
            f"x is a QTensor of {s.dtype}, expected an integer dtype of at most 8 bits; give x.dequantize() "
            f"to multiply in float32"
        )
    # A tensor made from parts may hold the code that a narrow range leaves out: it too is taken as it is.
    return _core.Input.static_(s.dtype, float(x.scale), int(x.zero_point), False)
