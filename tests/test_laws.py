"""Every number format under the same laws, over granularity, rounding, instruction set and thread count.

The rows come from the native registries: a new format or rounding is held to the laws by being listed there.
"""

import dataclasses
import itertools

import numpy as np
import pytest
import qrs
from hypothesis import given
from hypothesis import strategies as st
from machine import everywhere
from qrs import _core
from reference import tensor

# Other formats than integers, and wider ones, are held to the same laws in test_formats.py.
FORMATS = [row["name"] for row in _core.formats() if row["kind"] == "integer" and row["block"] is None]
FORMATS = [name for name in FORMATS if not name.endswith("16")]
ROUNDINGS = _core.roundings()
DETERMINISTIC = [name for name in ROUNDINGS if name != "stochastic"]
NEAREST = [name for name in ROUNDINGS if name.startswith("half")]
SEED = 0x1234_5678_9ABC_DEF0


@dataclasses.dataclass(frozen=True)
class Grid:
    """A granularity on a shape, with the blocks and the parameters' shape that numerics.md gives for it."""

    granularity: qrs.Granularity
    shape: tuple
    block: tuple
    params: tuple


GRIDS = [
    Grid(qrs.per_tensor, (7, 33), (7, 33), ()),
    Grid(qrs.per_tensor, (), (), ()),
    Grid(qrs.per_tensor, (0, 4), (1, 4), ()),
    Grid(qrs.per_channel(0), (5, 19), (1, 19), (5,)),
    Grid(qrs.per_channel(-1), (5, 19), (5, 1), (19,)),
    Grid(qrs.per_channel(1), (2, 3, 4, 5), (2, 1, 4, 5), (3,)),
    Grid(qrs.per_token, (2, 3, 17), (1, 1, 17), (2, 3)),
    Grid(qrs.per_token, (70,), (70,), ()),
    Grid(qrs.per_group(8), (4, 21), (1, 8), (4, 3)),
    Grid(qrs.per_group(64), (3, 16), (1, 16), (3, 1)),
    Grid(qrs.per_group(1), (2, 3), (1, 1), (2, 3)),
    Grid(qrs.per_group(3, axis=0), (7, 5), (3, 1), (3, 5)),
    Grid(qrs.per_block((2, 3)), (2, 5, 7), (1, 2, 3), (2, 3, 3)),
    Grid(qrs.per_block((16, 16)), (9, 40), (9, 16), (1, 3)),
]
by_grid = pytest.mark.parametrize("grid", GRIDS, ids=lambda g: f"{g.granularity}-{g.shape}")
by_format = pytest.mark.parametrize("fmt", FORMATS)
by_symmetry = pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])


def same_bits(a, b):
    """Equality of float32 arrays bit for bit, except that any NaN equals any other."""
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    return a.shape == b.shape and bool(
        np.all((a.view(np.int32) == b.view(np.int32)) | (np.isnan(a) & np.isnan(b)))
    )


def parameters(rng, grid, scheme):
    """Random legal parameters for a grid: powers of two beside odd scales, from smallest to huge."""
    lowest, highest = scheme.code_range
    scale = rng.choice(np.float32([2.0**-126, 1e-20, 0.1, 0.25, 1.0, 1 / 3, 1e30]), grid.params)
    middle = (0 if fmt_signed(scheme.dtype) else 2 ** (scheme.format.bits - 1)) if scheme.symmetric else None
    zero_point = (
        rng.integers(lowest, highest + 1, grid.params) if middle is None else np.full(grid.params, middle)
    )
    return qrs.QParams(scale, zero_point.astype(np.int32))


def fmt_signed(fmt):
    return not fmt.startswith("u")


def adversarial(rng, shape, scale):
    """Values that quantizers get wrong: ties and their neighbours, infinities, NaN, subnormal and huge."""
    size = int(np.prod(shape, dtype=int))
    with np.errstate(over="ignore", under="ignore"):
        ties = (rng.integers(-300, 300, size) + np.float32(0.5)).astype(np.float32) * np.broadcast_to(
            scale, size
        )
        x = np.where(
            rng.random(size) < 0.5, ties, rng.standard_normal(size) * 10.0 ** rng.integers(-12, 12, size)
        )
        x = x.astype(np.float32)
        x = np.where(rng.random(size) < 0.3, np.nextafter(x, np.float32(np.inf)), x)
        x = np.where(rng.random(size) < 0.3, np.nextafter(x, np.float32(-np.inf)), x)
    special = np.float32([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-40, 3.4028235e38, -3e38, 0.49999997])
    return np.where(rng.random(size) < 0.2, rng.choice(special, size), x).reshape(shape).astype(np.float32)


# ---- equality with the reference


@by_format
@by_symmetry
@by_grid
def test_quantize_equals_the_reference(fmt, symmetric, grid):
    """Range, parameters, codes, bytes and decoded values, from the data alone."""
    rng = np.random.default_rng(len(grid.shape))
    scheme = qrs.Scheme(fmt, grid.granularity, symmetric=symmetric)
    x = (rng.standard_normal(grid.shape) * 3 + 0.5).astype(np.float32)
    if x.size:
        lo, hi = tensor.min_max(x, grid.block)
    else:
        lo = hi = np.zeros(int(np.prod(grid.params, dtype=int)), np.float32)
    scale, zero_point = tensor.qparams(lo, hi, fmt, symmetric, scheme.narrow_range)
    codes = tensor.quantize(x, grid.block, scale, zero_point, fmt, scheme.narrow_range)
    values = tensor.dequantize(codes, grid.block, scale, zero_point)
    for where, q in everywhere(lambda: qrs.quantize(x, scheme)):
        assert q.scale.shape == q.zero_point.shape == grid.params, where
        assert same_bits(q.scale.ravel(), scale), where
        assert np.array_equal(q.zero_point.ravel(), zero_point), where
        assert np.array_equal(q.unpack(), codes), where
        assert np.array_equal(q.codes, tensor.pack(codes, scheme.format.bits)), where
        assert same_bits(q.dequantize(), values), where
        assert same_bits(np.asarray(q), values), where
    for where, y in everywhere(lambda: qrs.fake_quantize(x, scheme)):
        assert same_bits(y, values), where


@by_format
@by_symmetry
@by_grid
def test_a_fitted_range_is_never_worse_than_the_whole(fmt, symmetric, grid):
    """Cell by cell, everywhere the same, and not moved by what it has quantized itself."""
    whole = qrs.Scheme(fmt, grid.granularity, symmetric=symmetric)
    fitted = dataclasses.replace(whole, fit="mse")
    x = (np.random.default_rng(2).standard_normal(grid.shape) * 3 + 0.5).astype(np.float32)
    first = qrs.quantize(x, fitted)
    for where, q in everywhere(lambda: qrs.quantize(x, fitted)):
        assert q.scale.shape == grid.params, where
        assert q == first, where
    values = first.dequantize()
    assert same_bits(qrs.fake_quantize(x, fitted), values)
    if not x.size:
        return
    squares = [(np.float64(x) - y) ** 2 for y in (values, qrs.fake_quantize(x, whole))]
    ours, theirs = (_core.moments(np.asarray(square, np.float32), grid.block)[0] for square in squares)
    assert (ours <= theirs * (1 + 1e-5) + 1e-12).all()


def test_a_fitted_range_of_special_values():
    fitted = qrs.Scheme("uint4", qrs.per_token, fit="mse")
    x = np.zeros((3, 40), np.float32)
    x[1] = 2.5
    x[2, ::2] = 1e-42
    assert np.allclose(qrs.fake_quantize(x, fitted), x, rtol=1e-6, atol=1e-38)
    with pytest.raises(ValueError, match="flat index 1"):
        qrs.quantize([1.0, np.nan], fitted)
    q = qrs.quantize([1.0, np.nan, -np.inf, np.inf], fitted, check_finite=False)
    assert q.unpack()[1:].tolist() == [int(q.zero_point), 0, 15]


@by_format
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_adversarial_values_equal_the_reference(fmt, rounding):
    """Explicit parameters, unchecked data: every value has one written answer."""
    rng = np.random.default_rng(FORMATS.index(fmt))
    for grid in GRIDS:
        for symmetric in (True, False):
            scheme = qrs.Scheme(fmt, grid.granularity, symmetric=symmetric, rounding=rounding)
            qp = parameters(rng, grid, scheme)
            per_element = np.ravel(qp.scale)[tensor.cells(grid.shape, grid.block)].ravel()
            x = adversarial(rng, grid.shape, per_element)
            how = {"narrow_range": scheme.narrow_range, "rounding": rounding, "seed": SEED}
            codes = tensor.quantize(x, grid.block, qp.scale, qp.zero_point, fmt, **how)
            q = qrs.quantize(x, scheme, qparams=qp, seed=SEED, check_finite=False)
            assert np.array_equal(q.unpack(), codes), (grid, symmetric)
            values = tensor.fake_quantize(x, grid.block, qp.scale, qp.zero_point, fmt, **how)
            assert same_bits(qrs.fake_quantize(x, scheme, qparams=qp, seed=SEED), values), (grid, symmetric)


@by_format
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_every_float16_equals_the_reference(fmt, rounding):
    x16 = np.arange(2**16, dtype=np.uint16).view(np.float16)
    x = x16.astype(np.float32)
    scheme = qrs.Scheme(fmt, symmetric=False, rounding=rounding)
    lowest, highest = scheme.code_range
    for scale, zero_point in [(1.0, lowest), (0.1, highest), (2.0**-126, (lowest + highest) // 2)]:
        qp = qrs.QParams(scale, zero_point)
        codes = tensor.quantize(x, x.shape, qp.scale, qp.zero_point, fmt, False, rounding, SEED)
        packed = tensor.pack(codes, scheme.format.bits)
        values = tensor.dequantize(codes, x.shape, qp.scale, qp.zero_point)
        for where, q in everywhere(
            lambda qp=qp: qrs.quantize(x, scheme, qparams=qp, seed=SEED, check_finite=False)
        ):
            assert np.array_equal(q.codes, packed), (where, scale)
            assert same_bits(q.dequantize(), values), (where, scale)
    half = qrs.quantize(x16, scheme, qparams=qp, seed=SEED, check_finite=False)
    assert np.array_equal(half.codes, packed)


@by_format
def test_large_arrays_equal_the_reference(fmt):
    """Enough elements to be shared between threads, at a size that no vector divides."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((13, 20_011)).astype(np.float32)
    blocks = {qrs.per_tensor: x.shape, qrs.per_group(128): (1, 128), qrs.per_channel(1): (13, 1)}
    for granularity, block in blocks.items():
        scheme = qrs.Scheme(fmt, granularity, symmetric=False)
        scale, zero_point = tensor.qparams(*tensor.min_max(x, block), fmt, symmetric=False)
        codes = tensor.quantize(x, block, scale, zero_point, fmt)
        values = tensor.dequantize(codes, block, scale, zero_point)
        packed = tensor.pack(codes, scheme.format.bits)
        for where, q in everywhere(lambda scheme=scheme: qrs.quantize(x, scheme)):
            assert same_bits(q.scale.ravel(), scale), where
            assert np.array_equal(q.codes, packed), where
            assert same_bits(q.dequantize(), values), where


@by_format
@by_symmetry
@given(data=st.data())
def test_qparams_equal_the_reference(fmt, symmetric, data):
    bits = int(fmt.lstrip("uint"))
    narrow = data.draw(st.booleans()) if bits > 1 and fmt != "uint1" else False
    scale_dtype = data.draw(st.sampled_from(["float32", "float16", "bfloat16"]))
    ends = st.floats(width=32, allow_nan=False, allow_infinity=False)
    pairs = data.draw(st.lists(st.tuples(ends, ends), min_size=1, max_size=9))
    lo, hi = np.float32([min(p) for p in pairs]), np.float32([max(p) for p in pairs])
    scheme = qrs.Scheme(fmt, symmetric=symmetric, narrow_range=narrow, scale_dtype=scale_dtype)
    qp = scheme.qparams(lo, hi)
    scale, zero_point = tensor.qparams(lo, hi, fmt, symmetric, narrow, scale_dtype)
    assert same_bits(qp.scale, scale)
    assert np.array_equal(qp.zero_point, zero_point)


# ---- laws


@by_format
@by_symmetry
@pytest.mark.parametrize("scale_dtype", _core.scale_dtypes())
def test_every_level_is_finite_however_wide_the_range(fmt, symmetric, scale_dtype):
    widest = np.finfo(np.float32).max
    scheme = qrs.Scheme(fmt, symmetric=symmetric, scale_dtype=scale_dtype)
    parts = np.float32([0, 0.1, 0.25, 1 / 3, 0.5, 0.9, 1])
    for lo, hi in itertools.product(-widest * parts, widest * parts):
        ends = np.float32([lo, hi])
        assert np.isfinite(qrs.quantize(ends, scheme).dequantize()).all(), (lo, hi)
        assert np.isfinite(qrs.fake_quantize(ends, scheme)).all(), (lo, hi)


@by_format
def test_every_level_encodes_to_its_code(fmt):
    """decode(encode(level)) == level, for every code and every zero point."""
    scheme = qrs.Scheme(fmt, qrs.per_channel(0), symmetric=False)
    lowest, highest = scheme.code_range
    points = np.arange(lowest, highest + 1)
    codes = np.broadcast_to(points, (points.size, points.size))
    for rounding in ROUNDINGS:
        # Whole quotients need no rounding; with a scale that is no power of two they are only near.
        for scale in (0.5, 1 / 3) if rounding in NEAREST else (0.5,):
            qp = qrs.QParams(np.full(points.size, scale, np.float32), points)
            x = tensor.dequantize(codes, (1, points.size), qp.scale, qp.zero_point)
            named = qrs.Scheme(fmt, qrs.per_channel(0), symmetric=False, rounding=rounding)
            q = qrs.quantize(x, named, qparams=qp)
            assert np.array_equal(q.unpack(), codes), (rounding, scale)
            assert same_bits(q.dequantize(), x)


finite = st.floats(-1e6, 1e6, width=32)
vectors = st.lists(finite, min_size=1, max_size=70).map(np.float32)
scales = st.floats(2.0**-10, 2.0**10, width=32)


def one_cell(fmt, scale, data, rounding="half_even"):
    """A scheme with one cell and drawn parameters."""
    scheme = qrs.Scheme(fmt, symmetric=False, rounding=rounding)
    return scheme, qrs.QParams(scale, data.draw(st.integers(*scheme.code_range)))


@by_format
@given(x=vectors, scale=scales, rounding=st.sampled_from(ROUNDINGS), data=st.data())
def test_inside_the_range_the_error_is_at_most_half_a_step(fmt, x, scale, rounding, data):
    scheme, qp = one_cell(fmt, scale, data, rounding)
    lowest, highest = scheme.code_range
    zero_point = int(qp.zero_point)
    x = np.clip(x, (lowest - zero_point) * scale, (highest - zero_point) * scale).astype(np.float32)
    y = qrs.quantize(x, scheme, qparams=qp, seed=SEED).dequantize()
    # A quotient of up to 255 carries a rounding error of 2⁻¹⁶ steps.
    step = (0.5 if rounding in NEAREST else 1.0) + 2.0**-15
    assert np.all(np.abs(x.astype(np.float64) - y) <= step * scale)


@by_format
@given(x=vectors, scale=scales, rounding=st.sampled_from(DETERMINISTIC), data=st.data())
def test_rounding_is_monotone_and_idempotent(fmt, x, scale, rounding, data):
    scheme, qp = one_cell(fmt, scale, data, rounding)
    q = qrs.quantize(np.sort(x), scheme, qparams=qp)
    assert np.all(np.diff(q.unpack().astype(int)) >= 0)
    if rounding in NEAREST:
        assert np.array_equal(qrs.quantize(q.dequantize(), scheme, qparams=qp).codes, q.codes)


@by_format
@given(x=vectors, data=st.data())
def test_fake_quantize_equals_quantize_then_dequantize(fmt, x, data):
    rounding = data.draw(st.sampled_from(ROUNDINGS))
    granularities = [qrs.per_tensor, qrs.per_token, qrs.per_group(5), qrs.per_channel(0)]
    granularity = data.draw(st.sampled_from(granularities))
    scheme = qrs.Scheme(fmt, granularity, symmetric=data.draw(st.booleans()), rounding=rounding)
    assert same_bits(qrs.fake_quantize(x, scheme, seed=7), qrs.quantize(x, scheme, seed=7).dequantize())


@by_format
@given(parts=st.lists(vectors, min_size=1, max_size=4), scale=scales, data=st.data())
def test_split_law(fmt, parts, scale, data):
    """Quantizing a concatenation is concatenating: no element knows its place."""
    scheme, qp = one_cell(fmt, scale, data)
    whole = qrs.quantize(np.concatenate(parts), scheme, qparams=qp).unpack()
    pieces = [qrs.quantize(part, scheme, qparams=qp).unpack() for part in parts]
    assert np.array_equal(whole, np.concatenate(pieces))


@by_format
@given(value=finite, scale=scales, data=st.data())
def test_head_body_and_tail_agree(fmt, value, scale, data):
    scheme, qp = one_cell(fmt, scale, data)
    x = np.full(data.draw(st.integers(1, 200)), value, np.float32)
    q = qrs.quantize(x, scheme, qparams=qp)
    assert np.unique(q.unpack()).size == 1
    assert np.unique(q.dequantize()).size == 1


@by_format
@by_symmetry
@given(x=vectors, power=st.integers(-20, 20))
def test_scaling_by_a_power_of_two_commutes(fmt, symmetric, x, power):
    x = np.where(np.abs(x) < 1e-6, np.float32(0), x)
    scheme = qrs.Scheme(fmt, symmetric=symmetric)
    q, scaled = qrs.quantize(x, scheme), qrs.quantize(x * np.float32(2.0**power), scheme)
    assert np.array_equal(q.codes, scaled.codes)
    # int1 cannot hold a positive end: its scale is then the smallest there is, and that does not scale.
    if x.any() and q.scale > 2.0**-100:
        assert scaled.scale == q.scale * np.float32(2.0**power)


@pytest.mark.parametrize("fmt", [f for f in FORMATS if fmt_signed(f) and f != "int1"])
@pytest.mark.parametrize("rounding", ["half_even", "half_away", "toward_zero"])
@given(x=vectors)
def test_symmetric_formats_are_odd(fmt, rounding, x):
    scheme = qrs.Scheme(fmt, narrow_range=True, rounding=rounding)
    codes, mirrored = (qrs.quantize(v, scheme).unpack() for v in (x, -x))
    assert np.array_equal(codes, -mirrored)


@by_format
@by_symmetry
@given(x=vectors, where=st.integers(0, 69))
def test_zero_is_exact(fmt, symmetric, x, where):
    x[where % x.size] = 0
    q = qrs.quantize(x, qrs.Scheme(fmt, symmetric=symmetric))
    assert q.dequantize()[where % x.size] == 0
    assert q.unpack()[where % x.size] == q.zero_point


@by_format
@given(seed=st.integers(0, 2**32 - 1))
def test_permuting_channels_commutes(fmt, seed):
    rng = np.random.default_rng(seed)
    x, order = rng.standard_normal((6, 11)).astype(np.float32), rng.permutation(6)
    scheme = qrs.Scheme(fmt, qrs.per_channel(0))
    q, permuted = qrs.quantize(x, scheme), qrs.quantize(x[order], scheme)
    assert same_bits(q.scale[order], permuted.scale)
    assert np.array_equal(q.unpack()[order], permuted.unpack())


@by_format
def test_packing_is_dense_at_every_length(fmt):
    """Bytes as the reference draws them, and back, at every length modulo 64."""
    scheme = qrs.Scheme(fmt, symmetric=False)
    lowest, highest = scheme.code_range
    codes = np.random.default_rng(2).integers(lowest, highest + 1, 260)
    for size in range(codes.size):
        q = qrs.quantize(codes[:size].astype(np.float32), scheme, qparams=qrs.QParams(1.0, max(lowest, 0)))
        assert np.array_equal(q.codes, tensor.pack(codes[:size], scheme.format.bits))
        assert np.array_equal(q.unpack(), codes[:size])
        assert np.array_equal(tensor.unpack(q.codes, scheme.format.bits, fmt_signed(fmt), size), codes[:size])


@by_format
def test_stochastic_rounding_depends_on_seed_and_index_alone(fmt):
    scheme = qrs.Scheme(fmt, qrs.per_group(7), symmetric=False, rounding="stochastic")
    x = np.random.default_rng(3).standard_normal((50, 1003)).astype(np.float32)
    results = [q.codes for _, q in everywhere(lambda: qrs.quantize(x, scheme, seed=5))]
    assert all(np.array_equal(codes, results[0]) for codes in results)
    assert not np.array_equal(qrs.quantize(x, scheme, seed=6).codes, results[0])


@pytest.mark.parametrize(
    "granularity", [qrs.per_tensor, qrs.per_channel(1), qrs.per_group(4), qrs.per_token], ids=repr
)
def test_the_form_of_an_array_does_not_matter(granularity):
    x = np.random.default_rng(4).standard_normal((6, 10)).astype(np.float32)
    scheme = qrs.Scheme("int4", granularity)
    expected = qrs.quantize(x, scheme)
    wide = np.zeros((12, 20), np.float32)
    wide[::2, ::2] = x
    shifted = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    read_only = x.copy()
    read_only.flags.writeable = False
    forms = {
        "Fortran order": np.asfortranarray(x),
        "negative strides": x[::-1, ::-1].copy()[::-1, ::-1],
        "strided": wide[::2, ::2],
        "misaligned": shifted,
        "byte-swapped": x.astype(x.dtype.newbyteorder()),
        "float64": x.astype(np.float64),
        "read-only": read_only,
        "list": x.tolist(),
    }
    for name, form in forms.items():
        q = qrs.quantize(form, scheme)
        assert np.array_equal(q.codes, expected.codes), name
        assert same_bits(q.scale, expected.scale), name


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", [0, 33, 63, 129])
def test_data_that_is_not_finite_is_refused_with_count_and_place(bad, index):
    x = np.ones(130, np.float32)
    x[index:] = bad
    for scheme in (qrs.Scheme("int8"), qrs.Scheme("uint4", qrs.per_group(32))):
        with pytest.raises(ValueError, match=rf"\b{130 - index}\b.*\b{index}\b"):
            qrs.quantize(x, scheme)
        qp = qrs.quantize(np.ones(130, np.float32), scheme).qparams
        with pytest.raises(ValueError, match=rf"\b{130 - index}\b.*\b{index}\b"):
            qrs.quantize(x, scheme, qparams=qp)
