"""Formats other than integers: equality with the reference and with other libraries, laws, and what is
refused.

Integers are held to the same laws in test_laws.py.
"""

import copy
import os
import pathlib
import pickle

import numpy as np
import pytest
import qrs
from hypothesis import given
from hypothesis import strategies as st
from machine import everywhere
from reference import formats, tensor

ROUNDINGS = qrs.scheme.ROUNDINGS
NEAREST = [name for name in ROUNDINGS if name.startswith("half")]
GENERIC = ["float:e1m1", "float:e3m0", "float:e2m5", "float:e6m1", "float:e7m8"]
ALL = [name for name, row in qrs.FORMATS.items() if row.kind in ("float", "table", "learned")] + GENERIC
GGUF = [name for name, row in qrs.FORMATS.items() if row.kind == "block"]
FIXED = [name for name in ALL if qrs.Format.named(name).kind != "learned"]
BLOCKS = [name for name, row in qrs.FORMATS.items() if row.block and row.kind != "block"]
LEARNED = [name for name in ALL if name not in FIXED]
FLOATS = [name for name in FIXED if qrs.Format.named(name).kind == "float"]
DATA = pathlib.Path(os.environ.get("QRS_TEST_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))
SEED = 0x1234_5678_9ABC_DEF0

GRIDS = [
    (qrs.per_tensor, (7, 33), (7, 33)),
    (qrs.per_tensor, (0, 4), (1, 4)),
    (qrs.per_channel(0), (5, 19), (1, 19)),
    (qrs.per_channel(-1), (5, 19), (5, 1)),
    (qrs.per_token, (2, 3, 17), (1, 1, 17)),
    (qrs.per_group(8), (4, 21), (1, 8)),
    (qrs.per_group(32), (3, 70), (1, 32)),
    (qrs.per_group(1), (2, 3), (1, 1)),
    (qrs.per_block((2, 3)), (2, 5, 7), (1, 2, 3)),
]


def grids_of(fmt):
    """Granularities with a shape and its blocks, as the format allows them."""
    size = qrs.Format.named(fmt).block
    if size is None:
        return GRIDS
    return [
        (qrs.per_group(size), (3, 70), (1, size)),
        (qrs.per_group(size), (5,), (5,)),
        (qrs.per_group(size, axis=0), (70, 3), (size, 1)),
        (qrs.per_group(size), (0, 4), (1, 4)),
    ]


def same_bits(a, b):
    """Equality of float32 arrays bit for bit, except that any NaN equals any other."""
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    return a.shape == b.shape and bool(
        np.all((a.view(np.int32) == b.view(np.int32)) | (np.isnan(a) & np.isnan(b)))
    )


def codebook(fmt):
    """Levels that ascend, with a tie, for a learned format."""
    count = 1 << qrs.Format.named(fmt).bits
    return np.sort(np.random.default_rng(count).standard_normal(count)).astype(np.float32)


def parameters(fmt, scale):
    """Parameters with these scales."""
    return qrs.QParams(scale, 0, codebook(fmt) if fmt in LEARNED else None)


def expected(x, scale, block, fmt, **how):
    """Codes and values by the reference."""
    each = np.ravel(scale)[tensor.cells(x.shape, block)].reshape(x.shape)
    table = codebook(fmt) if fmt in LEARNED else None
    if fmt == "mxint8":
        codes = tensor.quantize(x, block, scale, np.zeros(np.size(scale), int), "int8", **how)
        return codes, each * codes.astype(np.float32)
    codes, level = formats.encode(x, each, fmt, table=table, **how)
    with np.errstate(all="ignore"):
        return codes, each * level


def awkward(rng, shape, fmt, scale):
    """Levels, the middles between them, their neighbours, and numbers of every size."""
    row = qrs.Format.named(fmt)
    levels = codebook(fmt) if fmt in LEARNED else row.levels
    levels = np.unique(levels[np.isfinite(levels)]).astype(np.float64)
    middles = (levels[1:] + levels[:-1]) / 2
    size = int(np.prod(shape, dtype=int))
    points = rng.choice(np.concatenate([levels, middles]), size)
    with np.errstate(all="ignore"):
        x = (points * np.broadcast_to(scale, shape).ravel()).astype(np.float32)
        wild = (rng.standard_normal(size) * 10.0 ** rng.integers(-44, 38, size)).astype(np.float32)
        x = np.where(rng.random(size) < 0.2, wild, x)
        x = np.where(rng.random(size) < 0.3, np.nextafter(x, np.float32(np.inf)), x)
        x = np.where(rng.random(size) < 0.3, np.nextafter(x, np.float32(-np.inf)), x)
    special = np.float32([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3.4028235e38, -3e38])
    return np.where(rng.random(size) < 0.1, rng.choice(special, size), x).reshape(shape).astype(np.float32)


# ---- equality with the reference


@pytest.mark.parametrize("fmt", FIXED)
def test_levels_equal_the_reference(fmt):
    levels = np.arange(-128, 128) if fmt == "mxint8" else formats.levels(fmt)
    assert same_bits(qrs.Format.named(fmt).levels, levels)


SCALED = [
    (fmt, scale_dtype)
    for fmt in [*FIXED, "mxint8"]
    for scale_dtype in ("float32", "float16", "bfloat16", "e8m0", "e4m3")
    if qrs.Format.named(fmt).scale_dtype in (None, scale_dtype)
]


@pytest.mark.parametrize(("fmt", "scale_dtype"), SCALED)
def test_quantize_equals_the_reference(fmt, scale_dtype):
    """Scales, codes, bytes and values, from the data alone."""
    row = qrs.Format.named(fmt)
    for granularity, shape, block in grids_of(fmt):
        rng = np.random.default_rng(len(shape))
        x = (rng.standard_normal(shape) * 3 + 0.5).astype(np.float32)
        if x.ndim > 1:
            x[1:2] = 0
        scheme = qrs.Scheme(fmt, granularity, fit="minmax", scale_dtype=scale_dtype)
        cells = int(np.prod(scheme.params_shape(shape), dtype=int))
        lo, hi = tensor.min_max(x, block) if x.size else (np.zeros(cells), np.zeros(cells))
        scale = formats.scales(lo, hi, fmt, scale_dtype)
        codes, values = expected(x, scale, block, fmt) if x.size else (np.zeros(shape, int), x)
        for where, q in everywhere(lambda x=x, scheme=scheme: qrs.quantize(x, scheme)):
            assert same_bits(q.scale.ravel(), scale), (where, granularity)
            assert np.array_equal(q.unpack().astype(int), codes), (where, granularity)
            assert np.array_equal(q.codes, formats.packed(codes, fmt, row.bits)), where
            assert same_bits(q.dequantize(), values), (where, granularity)
        for where, y in everywhere(lambda x=x, scheme=scheme: qrs.fake_quantize(x, scheme)):
            assert same_bits(y, values), (where, granularity)


@pytest.mark.parametrize("fmt", ALL)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_awkward_values_equal_the_reference(fmt, rounding):
    rng = np.random.default_rng(ALL.index(fmt))
    overflows = [True, False] if qrs.Format.named(fmt).overflows else [True]
    for granularity, shape, block in grids_of(fmt):
        for saturate in overflows:
            scheme = qrs.Scheme(fmt, granularity, rounding=rounding, saturate=saturate)
            params = scheme.params_shape(shape)
            pool = [2.0**-126, 2.0**-20, 0.25, 1.0, 2.0**90] if scheme.scale_dtype == "e8m0" else []
            pool = pool or ([0.25, 1.0, 3.5] if scheme.scale_dtype == "e4m3" else [])
            scale = rng.choice(np.float32(pool or [2.0**-126, 1e-20, 0.1, 0.25, 1.0, 1 / 3, 1e30]), params)
            each = np.ravel(scale)[tensor.cells(shape, block)].reshape(shape)
            x = awkward(rng, shape, fmt, each)
            how = {"rounding": rounding, "seed": SEED}
            if fmt != "mxint8":
                how["saturate"] = saturate
            codes, values = expected(x, scale, block, fmt, **how) if x.size else (np.zeros(shape, int), x)
            qp = parameters(fmt, scale)
            q = qrs.quantize(x, scheme, qparams=qp, seed=SEED, check_finite=False)
            decoded = q.dequantize()
            # NaN has several codes.
            number = ~np.isnan(decoded)
            assert np.array_equal(q.unpack()[number].astype(int), codes[number]), (granularity, saturate)
            with np.errstate(all="ignore"):
                assert same_bits(decoded[~np.isnan(x)], values[~np.isnan(x)]), (granularity, saturate)
            fake = qrs.fake_quantize(x, scheme, qparams=qp, seed=SEED)
            assert same_bits(fake[~np.isnan(x)], decoded[~np.isnan(x)])
            assert np.isnan(fake[np.isnan(x)]).all()


@pytest.mark.parametrize("fmt", ALL)
def test_large_arrays_are_the_same_everywhere(fmt):
    """Enough elements to be shared between threads, at a size that no vector divides."""
    x = np.random.default_rng(1).standard_normal((13, 20_011)).astype(np.float32)
    row = qrs.Format.named(fmt)
    granularity = qrs.per_group(row.block or 128)
    for rounding in ("half_even", "stochastic"):
        scheme = qrs.Scheme(fmt, granularity, rounding=rounding, fit="minmax")
        qp = qrs.quantize(x, scheme).qparams
        codes, values = None, None
        for where, q in everywhere(lambda s=scheme, qp=qp: qrs.quantize(x, s, qparams=qp, seed=SEED)):
            codes = q.codes if codes is None else codes
            values = q.dequantize() if values is None else values
            assert np.array_equal(q.codes, codes), where
            assert same_bits(q.dequantize(), values), where
            assert same_bits(qrs.fake_quantize(x, scheme, qparams=qp, seed=SEED), values), where


# ---- laws


@pytest.mark.parametrize("fmt", ALL)
def test_every_level_encodes_to_itself(fmt):
    row = qrs.Format.named(fmt)
    levels = codebook(fmt) if fmt in LEARNED else row.levels
    levels = levels[np.isfinite(levels)]
    for rounding in ROUNDINGS:
        if fmt in BLOCKS:
            levels = np.resize(levels, -(-levels.size // row.block) * row.block)
        scheme = qrs.Scheme(fmt, rounding=rounding)
        qp = parameters(fmt, np.full(scheme.params_shape(levels.shape), 0.25, np.float32))
        q = qrs.quantize(levels / 4, scheme, qparams=qp)
        assert np.array_equal(q.dequantize() * 4, levels), rounding
        assert np.array_equal(qrs.quantize(q.dequantize(), scheme, qparams=qp).codes, q.codes), rounding


finite = st.floats(-1e6, 1e6, width=32)


@pytest.mark.parametrize("fmt", ALL)
@given(
    x=st.lists(finite, min_size=1, max_size=70), scale=st.integers(-20, 20), rounding=st.sampled_from(NEAREST)
)
def test_rounding_is_nearest_and_monotone(fmt, x, scale, rounding):
    levels = codebook(fmt) if fmt in LEARNED else qrs.Format.named(fmt).levels
    levels = np.unique(levels[np.isfinite(levels)]).astype(np.float64)
    x = np.sort(np.float32(x))
    scheme = qrs.Scheme(fmt, rounding=rounding)
    qp = parameters(fmt, np.full(scheme.params_shape(x.shape), 2.0**scale, np.float32))
    y = qrs.quantize(x, scheme, qparams=qp).dequantize().astype(np.float64) / 2.0**scale
    assert np.all(np.diff(y) >= 0)
    distance = np.abs(x.astype(np.float64)[:, None] / 2.0**scale - levels).min(axis=1)
    assert np.all(np.abs(x / 2.0**scale - y) <= distance * (1 + 1e-6) + 1e-30)


@pytest.mark.parametrize("fmt", ALL)
def test_stochastic_rounding_keeps_the_mean(fmt):
    levels = codebook(fmt) if fmt in LEARNED else qrs.Format.named(fmt).levels
    levels = np.unique(levels[np.isfinite(levels)])
    low, high = levels[levels.size // 2 - 1 :][:2]
    x = np.full(40_000, low + (high - low) * np.float32(0.3), np.float32)
    scheme = qrs.Scheme(fmt, rounding="stochastic")
    qp = parameters(fmt, np.ones(scheme.params_shape(x.shape), np.float32))
    y = qrs.fake_quantize(x, scheme, qparams=qp, seed=7)
    assert set(np.unique(y)) == {low, high}
    assert abs((y == high).mean() - 0.3) < 0.015


@pytest.mark.parametrize("fmt", ALL)
def test_a_fitted_scale_is_never_worse(fmt):
    x = np.random.default_rng(2).standard_normal((6, 96)).astype(np.float32) * 3
    size = qrs.Format.named(fmt).block or 48
    fitted, whole = (qrs.Scheme(fmt, qrs.per_group(size), fit=fit) for fit in ("mse", "minmax"))
    first = qrs.quantize(x, fitted)
    for where, q in everywhere(lambda: qrs.quantize(x, fitted)):
        assert q == first, where
    ours, theirs = (
        ((x - qrs.fake_quantize(x, scheme)) ** 2).reshape(-1, size).sum(1) for scheme in (fitted, whole)
    )
    if fmt in LEARNED:
        assert ours.sum() <= theirs.sum() * (1 + 1e-5)
    else:
        assert (ours <= theirs * (1 + 1e-5) + 1e-12).all()


@pytest.mark.parametrize("fmt", ALL + GGUF)
def test_parts_pickles_files_and_copies_are_whole(fmt, tmp_path):
    x = np.random.default_rng(3).standard_normal((4, 512 if fmt in GGUF else 70)).astype(np.float32)
    q = qrs.quantize(x, qrs.Scheme(fmt) if fmt in GGUF else qrs.Scheme(fmt, fit="mse"))
    for again in (pickle.loads(pickle.dumps(q)), copy.deepcopy(q)):
        assert again == q
        assert same_bits(again.dequantize(), q.dequantize())
    parts = (q.codes, q.scale, q.zero_point, q.scheme, q.shape, q.qparams.levels)
    assert qrs.QTensor.from_parts(*parts) == q
    assert qrs.Scheme.from_dict(q.scheme.to_dict()) == q.scheme
    assert eval(repr(q.scheme), vars(qrs)) == q.scheme
    qrs.Model([qrs.Node("f", qrs.nn.Linear(q), ["x"], "y")], ["x"], ["y"]).save(tmp_path / "model.qrs")
    assert qrs.load(tmp_path / "model.qrs").layers["f"].weight == q


# ---- products


@pytest.mark.parametrize("fmt", ALL + GGUF)
@pytest.mark.parametrize("shape", [(1, 64, 64), (5, 33, 70), (130, 17, 300)])
def test_products_are_those_of_the_decoded_weight(fmt, shape):
    m, n, k = shape
    k = 256 * -(-k // 256) if fmt in GGUF else k
    rng = np.random.default_rng(m)
    x, w = (rng.standard_normal(size).astype(np.float32) for size in ((m, k), (n, k)))
    bias = rng.standard_normal(n).astype(np.float32)
    size = qrs.Format.named(fmt).block
    for scheme in (qrs.Scheme(fmt, None if size else qrs.per_group(32)), qrs.Scheme(fmt)):
        q = qrs.quantize(w, scheme)
        with np.errstate(all="ignore"):
            wanted = x.astype(np.float64) @ q.dequantize().T.astype(np.float64) + bias
        first = qrs.linear(x, q, bias)
        assert np.allclose(first, wanted, rtol=1e-4, atol=1e-3)
        for where, y in everywhere(lambda q=q: qrs.linear(x, q, bias)):
            assert same_bits(y, first), where
        assert same_bits(qrs.nn.Linear(q, bias)(x), first)


@pytest.mark.parametrize(
    "fmt", ["float4_e2m1fn", "mxfp4", "nvfp4", "mxint8", "pow2:4", "apot:6", "ternary", "binary"]
)
def test_levels_that_are_whole_multiply_as_integers(fmt):
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((7, 96)).astype(np.float32), rng.standard_normal((20, 96)).astype(np.float32)
    q = qrs.quantize(w, qrs.Scheme(fmt, None if qrs.Format.named(fmt).block else qrs.per_group(32)))
    input = qrs.Dynamic(qrs.Scheme("uint8", qrs.per_token))
    for where, y in everywhere(lambda: qrs.linear(x, q, input=input)):
        wanted = qrs.fake_quantize(x, input.scheme).astype(np.float64) @ q.dequantize().T
        assert np.allclose(y, wanted, rtol=1e-4, atol=1e-4), where


def test_convolutions_decode_what_does_not_multiply():
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 16, 8, 8), (8, 16, 3, 3)))
    for fmt in ("nf4", "float16", "codebook:3", "float4_e2m1fn", "int16"):
        q = qrs.quantize(w, fmt)
        wanted = qrs.nn.Conv2d(q.dequantize())(x)
        assert np.allclose(qrs.nn.Conv2d(q)(x), wanted, rtol=1e-4, atol=1e-3), fmt


def test_layers_refuse_a_quantized_input_that_the_weight_cannot_take():
    q = qrs.quantize(np.eye(8, dtype=np.float32), "nf4")
    with pytest.raises(ValueError, match=r"weight of nf4.*leave input=None.*float4_e2m1fn"):
        qrs.nn.Linear(q, input=qrs.Dynamic(qrs.Scheme("int8", qrs.per_token)))
    with pytest.raises(ValueError, match=r"QTensor of nf4.*x\.dequantize\(\)"):
        qrs.linear(q, qrs.quantize(np.eye(8, dtype=np.float32), "int8"))


@pytest.mark.parametrize("fmt", ["int4", "mxint8", "nf4", "codebook:2"])
def test_powers_of_two_have_no_sign(fmt, tmp_path):
    w = np.linspace(1, 1.99, 32, dtype=np.float32)[None]
    granularity = None if qrs.Format.named(fmt).block else qrs.per_group(32)
    q = qrs.quantize(w, qrs.Scheme(fmt, granularity, fit="mse", scale_dtype="e8m0"))
    assert (q.scale > 0).all()
    assert pickle.loads(pickle.dumps(q)) == q
    qrs.Model.chain({"a": qrs.nn.Linear(q)}).save(tmp_path / "m.qrs")
    assert same_bits(qrs.load(tmp_path / "m.qrs").layers["a"].weight.dequantize(), q.dequantize())


def test_cells_far_apart_keep_a_scale():
    for small, large, scheme in [
        (1e-25, 1.0, qrs.Scheme("binary", qrs.per_group(16), scale_dtype="e4m3")),
        (1e-30, 1e30, qrs.Scheme("nvfp4", fit="mse")),
        (1e-30, 1e30, qrs.Scheme("int4", qrs.per_group(16), scale_dtype="e4m3", fit="mse")),
        (1e-39, 1e-39, qrs.Scheme("binary", qrs.per_group(16), scale_dtype="float16")),
    ]:
        x = np.repeat(np.float32([[small], [large]]), 16, axis=1)
        y = qrs.quantize(x, scheme).dequantize()
        assert np.isfinite(y).all()
        assert small == large or np.allclose(y[1], large, rtol=0.2)


def test_learned_levels_stay_finite():
    x = np.random.default_rng(28).uniform(-3.4028235e38, 3.4028235e38, (2, 4)).astype(np.float32)
    for bits in (1, 2, 5):
        q = qrs.quantize(x, qrs.Scheme(f"codebook:{bits}", qrs.per_channel(-1)))
        assert np.isfinite(q.dequantize()).all()
    with pytest.raises(ValueError, match="levels reach 1"):
        qrs.QParams(1e30, 0, [-1e30, 1e30])


@pytest.mark.parametrize("fmt", ["nf4", "float8_e4m3fn", "float16", "codebook:3", "pow2:6", "int16", "q4_0"])
def test_other_levels_are_refused_for_quantized_inputs(fmt):
    q = qrs.quantize(np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32), fmt)
    with pytest.raises(ValueError, match=f"weight of {fmt}"):
        qrs.linear(np.ones((2, 32), np.float32), q, input=qrs.Dynamic(qrs.Scheme("int8", qrs.per_token)))


# ---- other libraries


def oracle(name):
    path = DATA / "oracles" / name
    if not path.exists():
        pytest.skip(f"{path} is not here; set QRS_TEST_DATA")
    return np.load(path)


@pytest.mark.parametrize("fmt", [name for name in formats.FLOATS if name != "float16"])
def test_floats_are_those_of_ml_dtypes(fmt):
    """Every code, every float16, and awkward float32 numbers; NaN by its being one."""
    data = oracle("float_formats.npz")
    row = qrs.Format.named(fmt)
    levels = row.levels
    assert same_bits(levels, data[f"{fmt}/decode"])
    f16 = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    for x, codes in ((f16, data[f"{fmt}/from_f16"]), (data[f"{fmt}/x"], data[f"{fmt}/bits"])):
        scheme = qrs.Scheme(fmt, saturate=not row.overflows)
        q = qrs.quantize(x, scheme, qparams=qrs.QParams(1.0), check_finite=False)
        ours, theirs = levels[q.unpack()], levels[codes]
        # Where there is neither infinity nor NaN, NaN becomes 0 here.
        known = ~np.isnan(x) | row.overflows
        assert same_bits(ours[known], theirs[known])


def test_float16_is_that_of_numpy():
    x = np.random.default_rng(0).integers(0, 2**32, 1 << 18, dtype=np.uint32).view(np.float32)
    x = x[~np.isnan(x)]
    with np.errstate(over="ignore"):
        wanted = x.astype(np.float16).view(np.uint16)
    q = qrs.quantize(x, qrs.Scheme("float16", saturate=False), qparams=qrs.QParams(1.0), check_finite=False)
    assert np.array_equal(q.unpack(), wanted)
    every = np.arange(2**16, dtype=np.uint16)
    assert same_bits(qrs.Format.named("float16").levels, every.view(np.float16).astype(np.float32))


# The names of the types as the vectors have them, and of those that are encoded by a fixed rule.
TYPES = {name: name.removesuffix("_gguf").upper() for name in GGUF}
PLAIN = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "tq1_0", "tq2_0", "mxfp4_gguf"]


@pytest.mark.parametrize("fmt", GGUF)
def test_blocks_are_those_of_the_gguf_package(fmt):
    data = oracle("gguf_blocks.npz")
    stored, decoded = data[f"{TYPES[fmt]}/bytes"], data[f"{TYPES[fmt]}/deq"]
    scheme = qrs.Scheme(fmt)
    for where, y in everywhere(
        lambda: qrs.QTensor.from_parts(
            stored.reshape(-1), [], np.int32([]), scheme, decoded.shape
        ).dequantize()
    ):
        assert same_bits(y, decoded), where
    if fmt in PLAIN:
        for where, q in everywhere(lambda: qrs.quantize(data["x"], scheme)):
            assert np.array_equal(q.codes, stored.reshape(-1)), where


@pytest.mark.parametrize("fmt", GGUF)
def test_blocks_are_the_same_everywhere(fmt):
    x = np.random.default_rng(4).standard_normal((300, 512)).astype(np.float32)
    first = qrs.quantize(x, fmt)
    assert first.nbytes == first.codes.nbytes
    for where, q in everywhere(lambda: qrs.quantize(x, fmt)):
        assert q == first, where
        assert same_bits(qrs.fake_quantize(x, fmt), first.dequantize()), where
    assert same_bits(first.take([7, 0, 299]), first.dequantize()[[7, 0, 299]])
    parts = [qrs.quantize(part, fmt).codes for part in (x[:1], x[1:100], x[100:])]
    assert np.array_equal(np.concatenate(parts), first.codes)


@pytest.mark.parametrize("fmt", GGUF)
def test_what_blocks_do_not_allow_is_refused(fmt):
    size = qrs.Format.named(fmt).block
    with pytest.raises(ValueError, match=f"multiple of {size}"):
        qrs.quantize(np.zeros((2, size + 1), np.float32), fmt)
    with pytest.raises(ValueError, match="rule of their own"):
        qrs.Scheme(fmt, rounding="floor")
    with pytest.raises(ValueError, match="a code for each element"):
        qrs.quantize(np.zeros(size, np.float32), fmt).unpack()
    x = np.zeros(2 * size, np.float32)
    x[size + 1] = np.nan
    with pytest.raises(ValueError, match=f"flat index {size + 1}"):
        qrs.quantize(x, fmt)
    assert np.isfinite(qrs.quantize(x, fmt, check_finite=False).dequantize()).all()


# ---- what is known of normal numbers

DECIBELS = [
    ("int4", qrs.per_group(128), "mse", 20.25, 4.125),
    ("int4", qrs.per_group(32), "mse", 21.8, 4.5),
    ("int3", qrs.per_group(128), "mse", 14.6, 3.125),
    ("int2", qrs.per_group(128), "mse", 8.75, 2.125),
    ("nf4", qrs.per_group(64), "minmax", 20.7, 4.25),
    ("nf4", qrs.per_group(64), "mse", 21.6, 4.25),
    ("codebook:4", qrs.per_group(64), "mse", 21.8, 4.2505),
    ("codebook:2", qrs.per_tensor, "mse", 9.28, 2.0005),
    ("codebook:3", qrs.per_tensor, "mse", 14.6, 3.0005),
    ("codebook:4", qrs.per_tensor, "mse", 20.2, 4.001),
    ("mxfp4", None, "minmax", 18.75, 4.25),
    ("mxfp4", None, "mse", 19.0, 4.25),
    ("nvfp4", None, "minmax", 20.4, 4.501),
    ("nvfp4", None, "mse", 21.75, 4.501),
    ("float8_e4m3fn", qrs.per_channel(0), "minmax", 31.5, 8.02),
    ("float8_e5m2", qrs.per_channel(0), "minmax", 25.5, 8.02),
    ("float16", qrs.per_tensor, "minmax", 73.6, 16.001),
    ("bfloat16", qrs.per_tensor, "minmax", 55.5, 16.001),
    ("pow2:4", qrs.per_group(128), "mse", 15.0, 4.125),
    ("ternary", qrs.per_group(128), "mse", 7.27, 1.73),
    ("binary", qrs.per_group(128), "mse", 4.42, 1.125),
    ("q2_k", None, None, 10.55, 2.625),
    ("q3_k", None, None, 16.43, 3.4375),
    ("q4_k", None, None, 22.94, 4.5),
    ("q5_k", None, None, 28.85, 5.5),
    ("q6_k", None, None, 35.0, 6.5625),
    ("iq4_nl", None, None, 22.37, 4.5),
    ("iq4_xs", None, None, 22.31, 4.25),
]


@pytest.mark.parametrize(("fmt", "granularity", "fit", "least", "bits"), DECIBELS)
def test_normal_numbers_lose_no_more_than_is_known(fmt, granularity, fit, least, bits):
    x = np.random.default_rng(0).standard_normal((1024, 1024)).astype(np.float32)
    kind = {} if qrs.Format.named(fmt).block else {"scale_dtype": "float16"}
    q = qrs.quantize(x, qrs.Scheme(fmt, granularity, fit=fit, **kind))
    reached = qrs.compare(x, q.dequantize()).sqnr_db
    print(f"{fmt}, {granularity}, {fit}: {reached:.2f} dB at {q.bits_per_element:.3f} bits")
    assert reached >= least
    assert q.bits_per_element <= bits


# ---- what is refused


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        (("float:e8m7",), {}, "X from 1 to 7 bits of exponent"),
        (("mxfp5",), {}, "mxfp4"),
        (("nf4",), {"symmetric": False}, "nf4, which has no zero point"),
        (("float16",), {"narrow_range": True}, "only integers have one"),
        (("mxfp4", qrs.per_channel(0)), {}, r"expected per_group\(32\)"),
        (("mxfp4",), {"scale_dtype": "float32"}, "expected e8m0"),
        (("float4_e2m1fn",), {"saturate": False}, "neither infinity nor NaN"),
        (("int8",), {"saturate": False}, "neither infinity nor NaN"),
    ],
)
def test_impossible_schemes_are_refused(args, kwargs, text):
    with pytest.raises(ValueError, match=text):
        qrs.Scheme(*args, **kwargs)


def test_levels_are_checked():
    for levels, text in (([1.0, 0.0], "ascending"), ([0.0, np.nan], "finite"), ([[0.0, 1.0]], "shape")):
        with pytest.raises(ValueError, match=text):
            qrs.QParams(1.0, 0, levels)
    with pytest.raises(ValueError, match="levels has no entries, expected 4"):
        qrs.quantize([1.0], "codebook:2", qparams=qrs.QParams(1.0))
    with pytest.raises(ValueError, match="levels has 2 entries, expected none"):
        qrs.quantize([1.0], "int8", qparams=qrs.QParams(1.0, 0, [0.0, 1.0]))
    with pytest.raises(ValueError, match="finds its levels"):
        qrs.Scheme("codebook:4").qparams(-1.0, 1.0)
    with pytest.raises(ValueError, match=r"zero_point is 3, expected 0"):
        qrs.quantize([1.0], "nf4", qparams=qrs.QParams(1.0, 3))


def test_bytes_that_no_codes_make_are_refused():
    scheme = qrs.Scheme("ternary")
    with pytest.raises(ValueError, match="243 at index 0, expected at most 242"):
        qrs.QTensor.from_parts(np.uint8([243, 0]), 1.0, 0, scheme, (6,))
    with pytest.raises(ValueError, match="9 at index 1, expected at most 2"):
        qrs.QTensor.from_parts(np.uint8([242, 9]), 1.0, 0, scheme, (6,))


def test_negative_scales_are_for_fitted_schemes():
    fitted = qrs.quantize(
        np.float32([[-7, 8] * 8, [7, -8] * 8]), qrs.Scheme("int4", qrs.per_channel(0), fit="mse")
    )
    assert fitted.scale[0] < 0 < fitted.scale[1]
    assert np.array_equal(np.asarray(fitted)[0, :2], [-7, 8])
    assert pickle.loads(pickle.dumps(fitted.qparams)) == fitted.qparams
    plain = qrs.Scheme("int4", qrs.per_channel(0))
    with pytest.raises(ValueError, match=r"scale is -1\.0"):
        qrs.QTensor.from_parts(fitted.codes, fitted.scale, 0, plain, fitted.shape)
    with pytest.raises(ValueError, match=r"scale is -1\.0"):
        qrs.quantize(np.zeros((2, 16)), plain, qparams=fitted.qparams)
