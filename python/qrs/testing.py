"""The laws that formats, schemes and observers keep, as checks that anybody may run on their own.

Each check raises `AssertionError` with the law that failed, and returns nothing. They use the public
functions alone, so they hold for what a third party registered just as for what qrs brings.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _core
from .arrays import LARGEST
from .errors import NotCalibratedError
from .nn import Layer
from .observers import Observer, Statistic
from .ops import fake_quantize, quantize
from .qtensor import QTensor
from .scheme import (
    ROUNDINGS,
    Format,
    Granularity,
    QParams,
    Scheme,
    per_block,
    per_channel,
    per_group,
    per_tensor,
    per_token,
)

__all__ = ["check_format", "check_layer", "check_observer", "check_scheme", "check_statistic"]

F32 = NDArray[np.float32]


def _hold(truth: bool | np.bool_, law: str) -> None:
    if not truth:
        raise AssertionError(law)


def _raises(kind: type[Exception], call: Callable[[], object]) -> bool:
    try:
        call()
    except kind:
        return True
    return False


def _same(a: NDArray[np.generic], b: NDArray[np.generic], law: str) -> None:
    _hold(a.shape == b.shape, f"{law}: shape {a.shape} against {b.shape}")
    _hold(a.dtype == b.dtype, f"{law}: dtype {a.dtype} against {b.dtype}")
    differ = np.flatnonzero(a.reshape(-1) != b.reshape(-1))
    if differ.size:
        first = differ[0]
        raise AssertionError(
            f"{law}: {differ.size} differ, first {a.flat[first]} and {b.flat[first]} at {first}"
        )


def _spread(cells: NDArray[Any], scheme: Scheme, shape: tuple[int, ...]) -> NDArray[Any]:
    """Give every element its cell's entry."""
    grid = cells.reshape(
        [-(-n // b) if n != b else 1 for n, b in zip(shape, scheme.block(shape), strict=True)]
    )
    for axis, (length, block) in enumerate(zip(shape, scheme.block(shape), strict=True)):
        grid = np.repeat(grid, block, axis=axis)[(slice(None),) * axis + (slice(length),)]
    return grid


def check_scheme(scheme: Scheme | str, shape: Sequence[int] = (6, 37), *, seed: int = 0) -> None:
    """Check the laws of quantization for one scheme on random data.

    Decoding is exact at the levels; no value is off by more than half a step (a whole one, for rounding that
    is not to nearest) inside the range; rounding again changes nothing; order is kept; zero is exact; scaling
    by a power of two commutes; fake-quantize, `QTensor` and its stored parts agree bit for bit.

    Parameters
    ----------
    scheme : Scheme or str
    shape : sequence of int, default (6, 37)
        Shape of the data; it should not be a multiple of the scheme's blocks.
    seed : int, default 0
        Chooses the data.

    Raises
    ------
    AssertionError
        Naming the first law that does not hold.

    Examples
    --------
    >>> import qrs
    >>> check_scheme(qrs.Scheme("int4", qrs.per_group(8)))
    """
    scheme = Scheme.of(scheme)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=tuple(shape)).astype(np.float32)
    q = quantize(x, scheme, seed=seed)
    values, params = q.dequantize(), q.qparams
    name = repr(scheme)

    _same(
        fake_quantize(x, scheme, seed=seed), values, f"{name}: fake_quantize equals quantize and dequantize"
    )
    again = QTensor.from_parts(q.codes, q.scale, q.zero_point, q.scheme, q.shape, params.levels)
    _hold(again == q, f"{name}: a tensor built from its parts is equal")
    _hold(
        Scheme.from_dict(json.loads(json.dumps(scheme.to_dict()))) == scheme,
        f"{name}: to_dict and back is equal",
    )

    lowest, highest = scheme.code_range
    codes = q.unpack().astype(np.int64)
    _hold(((codes >= lowest) & (codes <= highest)).all(), f"{name}: codes lie in {lowest} to {highest}")
    _check_distance(x, q)

    levels = quantize(values, scheme, qparams=params, seed=seed)
    if scheme.rounding in ("half_even", "half_away", "half_up"):
        _same(levels.codes, q.codes, f"{name}: quantizing the levels again changes nothing")
    zero = fake_quantize(np.zeros_like(x), scheme, qparams=params, seed=seed)
    if 0 in _levels(params, scheme):
        _hold(not zero.any(), f"{name}: zero is exact")
    # Powers of two commute wherever the scale's own type neither overflows nor becomes subnormal.
    eight = QParams._fitted(params.scale * np.float32(8), params.zero_point, params.levels)
    scaled = fake_quantize(x * np.float32(8), scheme, qparams=eight, seed=seed)
    _same(scaled, values * np.float32(8), f"{name}: scaling by a power of two commutes")
    if scheme.rounding != "stochastic":
        _check_order(scheme, params, x.shape)
    _check_split(scheme, seed)


def _check_order(scheme: Scheme, params: QParams, shape: tuple[int, ...]) -> None:
    """Check that larger values never get smaller codes, and that a symmetric range is odd."""
    single, one = _single(scheme, params)
    levels = _levels(one, scheme).astype(np.float64)
    width = np.linspace(levels[0] - 2, levels[-1] + 2, 997) * float(one.scale.flat[0])
    ramp = np.sort(np.clip(width, -LARGEST, LARGEST).astype(np.float32))
    values = quantize(ramp, single, qparams=one).dequantize()
    _hold((np.diff(values) >= 0).all(), f"{scheme!r}: larger values never get smaller ones")
    odd = ("half_even", "half_away", "toward_zero")
    if scheme.rounding in odd and np.array_equal(levels, -levels[::-1]):
        mirrored = quantize(-ramp, single, qparams=one).dequantize()
        # Between the levels of a table the even code decides, and one of two mirrored codes may be odd.
        same = mirrored == -values
        tied = np.isin(np.abs(ramp / one.scale.flat[0]), (levels[1:] + levels[:-1]) / 2)
        _hold((same | tied).all(), f"{scheme!r}: the negative of a value gets the negative of its level")


def _single(scheme: Scheme, params: QParams) -> tuple[Scheme, QParams]:
    """Give the scheme and the parameters of the first cell alone, for arrays that are one cell."""
    block = scheme.format.block
    granularity = per_tensor if block is None else per_group(block)
    single = Scheme.from_dict({**scheme.to_dict(), "granularity": granularity.to_dict()})
    shape = () if block is None else (-(-997 // block),)
    scale, zero_point = (np.full(shape, cells.flat[0]) for cells in (params.scale, params.zero_point))
    return single, QParams._fitted(scale, zero_point, params.levels)


def _levels(params: QParams, scheme: Scheme) -> NDArray[np.float32]:
    """Give the levels of a cell less its zero point, ascending."""
    if scheme.format.kind == "integer":
        lowest, highest = scheme.code_range
        return np.arange(lowest, highest + 1, dtype=np.float32) - np.float32(params.zero_point.flat[0])
    levels = scheme.format.levels if params.levels is None else params.levels
    return np.unique(levels[np.isfinite(levels)])


def _check_distance(x: NDArray[np.float32], q: QTensor) -> None:
    """Check that a value becomes one of the two levels around it, and in rounding to nearest the nearer."""
    scheme, values = q.scheme, q.dequantize().ravel()
    scale, zero_point = (_spread(cells, scheme, x.shape).ravel() for cells in (q.scale, q.zero_point))
    levels = _levels(q.qparams, scheme).astype(np.float64)
    if scheme.format.kind == "integer":
        # Those of the first cell; another cell's are shifted.
        levels = levels + float(q.zero_point.flat[0])
    inside = np.clip(x.ravel() / scale.astype(np.float64) + zero_point, levels[0], levels[-1])
    reached = values / scale.astype(np.float64) + zero_point
    above = np.searchsorted(levels, inside).clip(1, levels.size - 1)
    gaps = levels[above - 1], levels[above]
    allowed = np.minimum(inside - gaps[0], gaps[1] - inside)
    if not scheme.rounding.startswith("half"):
        allowed = gaps[1] - gaps[0]
    # The quotient is rounded to float32 before it is rounded to a level: a few units in the last place.
    slack = allowed + 2.0**-21 * (np.abs(inside) + np.abs(reached) + np.abs(zero_point) + 1e-6)
    what = "the nearest level" if scheme.rounding.startswith("half") else "a level next to it"
    _hold((np.abs(reached - inside) <= slack).all(), f"{scheme!r}: every value becomes {what}")


def _check_split(scheme: Scheme, seed: int) -> None:
    """Check that a code hangs on the element's value alone, not on where in the array it stands."""
    if scheme.rounding == "stochastic":
        return
    rng = np.random.default_rng(seed)
    if scheme.format.block is not None:
        return
    single = Scheme.from_dict({**scheme.to_dict(), "granularity": per_tensor.to_dict()})
    x = rng.normal(size=131).astype(np.float32)
    params = quantize(x, single).qparams
    whole = quantize(x, single, qparams=params).unpack()
    for cut in (1, 7, 16, 63, 64, 65, 130):
        parts = [quantize(part, single, qparams=params).unpack() for part in (x[:cut], x[cut:])]
        _same(
            np.concatenate(parts), whole, f"{scheme!r}: quantizing parts cut at {cut} is quantizing the whole"
        )


def check_format(name: str) -> None:
    """Check one format: its levels, its packing at every length modulo 64, and `check_scheme` all over.

    Parameters
    ----------
    name : str
        A dtype of the format table. Every granularity and rounding is combined with it.

    Raises
    ------
    AssertionError
        Naming the first law that does not hold.

    Examples
    --------
    >>> check_format("int4")
    """
    row = Format.named(name)
    if row.kind in ("block", "trellis"):
        _check_blocks(row)
        return
    integer = row.kind == "integer" and row.block is None
    levels = row.levels[np.isfinite(row.levels)]
    scheme = Scheme(name, symmetric=not integer, narrow_range=False)
    learned = levels if row.kind == "learned" else None
    one = QParams(np.ones(scheme.params_shape(levels.shape), np.float32), 0, learned)
    q = quantize(levels, scheme, qparams=one)
    _hold(np.array_equal(q.dequantize(), levels), f"{name}: a level decodes to itself")
    if integer:
        _hold(np.array_equal(q.unpack(), levels), f"{name}: a level's code is the level")

    rng = np.random.default_rng(0)
    for length in (*range(130), 255, 256, 257):
        codes = rng.integers(row.min, row.max + 1, length).astype(np.int32)
        packed = _core.pack(codes, name)
        _hold(packed.size == row.packed_bytes(length), f"{name}: {length} codes take no byte too many")
        _hold(
            np.array_equal(_core.unpack(packed, name, length), codes),
            f"{name}: {length} codes unpack as packed",
        )

    if row.block is not None:
        for rounding in ROUNDINGS:
            check_scheme(Scheme(name, per_group(row.block, axis=int(rounding == "ceil")), rounding=rounding))
        return
    granularities: tuple[Granularity, ...] = (
        per_tensor,
        per_token,
        per_channel(0),
        per_channel(1),
        per_group(8),
        per_group(4, axis=0),
        per_block((4, 16)),
    )
    for granularity in granularities:
        check_scheme(Scheme(name, granularity))
        even = row.signed is False or not integer
        check_scheme(Scheme(name, granularity, symmetric=even, scale_dtype="float16"))
    for rounding in ROUNDINGS:
        check_scheme(Scheme(name, per_channel(0), rounding=rounding, scale_dtype="bfloat16"))
        check_scheme(Scheme(name, per_group(8), rounding=rounding, symmetric=not integer))


def _check_blocks(row: Format) -> None:
    """Check a format whose elements have bytes in blocks only."""
    rng = np.random.default_rng(0)
    size = row.packing[0] if row.packing else 37
    x = rng.normal(size=(5, 2 * size)).astype(np.float32)
    q = quantize(x, row.name)
    _hold(q.codes.size == row.packed_bytes(x.size), f"{row.name}: blocks take no byte too many")
    _same(
        fake_quantize(x, row.name),
        q.dequantize(),
        f"{row.name}: fake_quantize equals quantize and dequantize",
    )
    again = QTensor.from_parts(q.codes, q.scale, q.zero_point, q.scheme, q.shape)
    _hold(again == q, f"{row.name}: a tensor built from its parts is equal")
    params = None if row.kind == "block" else q.qparams
    if row.packing:
        parts = [quantize(part, row.name, qparams=params).codes for part in (x[:2], x[2:])]
        _same(np.concatenate(parts), q.codes, f"{row.name}: quantizing parts is quantizing the whole")
    zero = fake_quantize(np.zeros_like(x), row.name)
    least = 0 if row.kind == "block" else 1e-30
    _hold((np.abs(zero) <= least).all(), f"{row.name}: zero is exact, or as near as a scale lets it be")
    eight = fake_quantize(x * np.float32(8), row.name)
    _hold(np.allclose(eight, 8 * q.dequantize(), rtol=0.05, atol=0.05), f"{row.name}: scaling commutes")


def check_statistic(statistic: Statistic, *, seed: int = 0) -> None:
    """Check what every statistic promises, and what one with ``order_free`` promises beyond that.

    An empty batch changes nothing; a batch with NaN or another number of channels is refused and changes
    nothing; inputs are left alone; a shallow copy keeps what was seen; state survives JSON; merging counts.
    With ``order_free``: chunks of varying shape, their order and the order of merges give equal state.

    Parameters
    ----------
    statistic : Statistic
        Its settings are what is checked; it is left as it is.
    seed : int, default 0
        Chooses the data.

    Raises
    ------
    AssertionError
        Naming the first law that does not hold.

    Examples
    --------
    >>> import qrs
    >>> check_statistic(qrs.observers.Gram())
    """
    name, batches = repr(statistic), _batches(seed)
    fresh = statistic.fresh()
    _hold(fresh == statistic.fresh() and not fresh.batches, f"{name}: fresh gives one without data")
    seen = statistic.fresh()
    for batch in batches:
        kept = batch.copy()
        seen.update(batch)
        _same(batch, kept, f"{name}: update leaves its input alone")
    _hold(seen.batches == 4 and seen.count == 4 * 320, f"{name}: batches and elements are counted")
    _check_unmoved(seen, batches[0])
    data, arrays = seen.to_state()
    restored = type(statistic).from_state(json.loads(json.dumps(data)), arrays)
    _hold(restored == seen, f"{name}: state survives JSON")
    copied = copy.copy(seen)
    for one in (seen, restored):
        one.update(batches[0])
        one.merge(copied)
    _hold(restored == seen, f"{name}: a restored one goes on as the saved one")
    unmoved = copied == type(statistic).from_state(data, arrays)
    _hold(unmoved, f"{name}: a shallow copy keeps what was seen")
    _check_merge(statistic, batches)


def check_observer(observer: Observer, *, seed: int = 0) -> None:
    """Check what every observer promises: what `check_statistic` does, and that its ranges are sound.

    Without data there is no range; with data it is finite, ordered, and gives parameters. With
    ``order_free``, chunks of other sizes give equal parameters.

    Parameters
    ----------
    observer : Observer
        Its settings are what is checked; it is left as it is.
    seed : int, default 0
        Chooses the data.

    Raises
    ------
    AssertionError
        Naming the first law that does not hold.

    Examples
    --------
    >>> import qrs
    >>> check_observer(qrs.observers.MinMax(axis=0))
    """
    name, batches = repr(observer), _batches(seed)
    raised = _raises(NotCalibratedError, lambda: observer.fresh().range("int8"))
    _hold(raised, f"{name}: range without data raises NotCalibratedError")
    seen = observer.fresh()
    for batch in batches:
        seen.update(batch)
    schemes = [Scheme("int8"), Scheme("uint4"), Scheme("float8_e4m3fn")]
    if seen.axis is not None:
        schemes += [Scheme(dtype, per_channel(seen.axis)) for dtype in ("int8", "uint4")]
    for scheme in schemes:
        lo, hi = seen.range(scheme)
        _hold(bool(np.isfinite(lo).all() and np.isfinite(hi).all()), f"{name}: the range is finite")
        _hold(bool((lo <= hi).all()), f"{name}: lo is not above hi")
        _hold(
            seen.qparams(scheme) == scheme.qparams(lo, hi),
            f"{name}: parameters are the scheme's for the range",
        )
    check_statistic(observer, seed=seed)
    if observer.order_free and observer.axis is None:
        flat = np.concatenate([batch.reshape(-1) for batch in batches])
        pieces = observer.fresh()
        for piece in np.array_split(flat, 7):
            pieces.update(piece)
        same = pieces.qparams("int8") == seen.qparams("int8")
        _hold(same, f"{name}: chunks of other sizes give equal parameters")


def _batches(seed: int) -> list[F32]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(8, 5, 8)).astype(np.float32) for _ in range(4)]


def _check_unmoved(seen: Statistic, batch: F32) -> None:
    """Check that a batch that is empty or refused leaves the state alone."""
    before = copy.deepcopy(seen)
    seen.update(np.empty((0, 5, 8), np.float32))
    _hold(seen == before, f"{seen!r}: an empty batch changes nothing")
    wrong = [np.where(np.arange(8) == 3, np.float32(bad), batch) for bad in (np.nan, np.inf)]
    if seen.axis is not None:
        wrong.append(np.ones((7, 7, 7), np.float32))
    for refused in wrong:
        raised = _raises(ValueError, functools.partial(seen.update, refused))
        _hold(raised, f"{seen!r}: a batch that is not finite or has other channels is refused")
        _hold(seen == before, f"{seen!r}: a refused batch changes nothing")


def _check_merge(statistic: Statistic, batches: Sequence[F32]) -> None:
    name = repr(statistic)

    def saw(*some: F32) -> Statistic:
        one = statistic.fresh()
        for batch in some:
            one.update(batch)
        return one

    def merged(*some: Statistic) -> Statistic:
        one = statistic.fresh()
        for other in some:
            one.merge(other)
        return one

    whole, parts = saw(*batches), [saw(batch) for batch in batches]
    total = merged(*parts)
    _hold((total.batches, total.count) == (whole.batches, whole.count), f"{name}: merging adds the counts")
    _hold(merged(whole) == whole, f"{name}: merging into a fresh statistic is a copy")
    _hold(parts[0] == saw(batches[0]), f"{name}: merge leaves the other observer alone")
    if not statistic.order_free:
        return
    _hold(total == whole, f"{name}: merging what saw the parts is seeing the whole")
    _hold(saw(*reversed(batches)) == whole, f"{name}: the order of batches does not matter")
    _hold(merged(*reversed(parts)) == whole, f"{name}: the order of merges does not matter")
    left, right = merged(*parts[:2]), merged(*parts[2:])
    _hold(merged(left, right) == whole, f"{name}: the grouping of merges does not matter")


def check_layer(layer: Layer, *inputs: NDArray[Any]) -> None:
    """Check what every layer promises to models, recipes and files.

    It is found by its id; its parts rebuild it, attributes by way of JSON; it is deterministic, gives a
    float32 array and leaves inputs and arrays alone; and a layer whose ``slots`` hold float arrays runs as
    well with quantized ones, and gives the same shape.

    Parameters
    ----------
    layer : Layer
    *inputs : ndarray
        What to call it with.

    Raises
    ------
    AssertionError
        Naming the first law that does not hold.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> check_layer(qrs.nn.Activation("relu"), np.ones((2, 3), np.float32))
    """
    name = repr(layer)
    _hold(Layer.by_id(layer.id) is type(layer), f"{name}: its id leads to its class")
    _hold(set(layer.slots) <= set(layer.arrays()), f"{name}: every slot holds an array")
    kept = [np.array(x) for x in inputs]
    arrays = {field: np.array(array) for field, array in layer.arrays().items()}
    y = layer(*inputs)
    _hold(np.asarray(y).dtype == np.float32, f"{name}: the output is a float32 array")
    _same(layer(*inputs), y, f"{name}: a second call gives the same")
    for before, after in zip(kept, inputs, strict=True):
        _same(np.asarray(after), before, f"{name}: inputs are left alone")
    for field, array in layer.arrays().items():
        _same(np.asarray(array), arrays[field], f"{name}: array {field!r} is left alone")
        _hold(
            isinstance(array, QTensor) or not array.flags.writeable,
            f"{name}: array {field!r} cannot be written to",
        )
    attributes = json.loads(json.dumps(layer.attributes(), allow_nan=False))
    again = type(layer).from_parts({**layer.arrays(), **layer.layers()}, attributes)
    _same(again(*inputs), y, f"{name}: a layer rebuilt from its parts gives the same")
    _hold(again.attributes() == layer.attributes(), f"{name}: a rebuilt layer has the same attributes")
    _same(layer.replace()(*inputs), y, f"{name}: a copy gives the same")
    floats = {slot: layer.arrays()[slot] for slot in layer.slots}
    floats = {slot: array for slot, array in floats.items() if not isinstance(array, QTensor)}
    if floats:
        small = layer.replace(**{slot: quantize(np.asarray(a), "int8") for slot, a in floats.items()})
        z = small(*inputs)
        _hold(z.shape == y.shape and z.dtype == y.dtype, f"{name}: a quantized slot gives the same shape")
