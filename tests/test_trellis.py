"""Trellis-coded formats: decoding by the book, the error on normal numbers, any shape, what is refused."""

import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import qrs
from hypothesis import given
from hypothesis import strategies as st
from machine import everywhere
from reference import tensor, trellis

ROWS = [name for name, row in qrs.FORMATS.items() if name.startswith("trellis:")]
CLASSIC = ["tcq:1", "tcq:2", "tcq:3", "tcq:4", "tcq:2:states=4", "tcq:3:states=256"]
OTHERS = [
    "trellis:2:L=8",
    "trellis:3:L=10",
    "trellis:1:L=9:code=3inst",
    "trellis:4:L=16",
    "trellis:2:code=quintic",
]
GRIDS = [
    (qrs.per_tensor, (7, 33), (7, 33)),
    (qrs.per_tensor, (0, 4), (1, 4)),
    (qrs.per_tensor, (), ()),
    (qrs.per_channel(0), (5, 119), (1, 119)),
    (qrs.per_channel(1), (5, 119), (5, 1)),
    (qrs.per_token, (2, 3, 17), (1, 1, 17)),
    (qrs.per_group(128), (4, 300), (1, 128)),
    (qrs.per_group(256), (2, 512), (1, 256)),
]


def gauss(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def bits_of(fmt):
    return qrs.Format.named(fmt).bits


@pytest.mark.parametrize("fmt", ROWS + OTHERS)
def test_any_bytes_decode_as_the_reference_does(fmt):
    codes = np.random.default_rng(1).integers(0, 256, qrs.Format.named(fmt).packed_bytes(1000), np.uint8)
    q = qrs.QTensor.from_parts(codes, np.float32(0.5), np.int32(0), qrs.Scheme(fmt), (1000,))
    levels = trellis.decode(codes, bits_of(fmt), qrs.Format.named(fmt).levels, 1000)
    assert np.array_equal(q.dequantize(), np.float32(0.5) * levels)
    matrix = qrs.QTensor.from_parts(codes, np.float32(0.5), np.int32(0), qrs.Scheme(fmt), (8, 125))
    assert np.array_equal(matrix.take([7, 0]), q.dequantize().reshape(8, 125)[[7, 0]])


@pytest.mark.parametrize("fmt", CLASSIC)
def test_any_codes_of_the_classic_trellis_decode_as_the_reference_does(fmt):
    size, row = 70_000, qrs.Format.named(fmt)
    codes = np.random.default_rng(1).integers(0, 256, row.packed_bytes(size), np.uint8)
    q = qrs.QTensor.from_parts(codes, np.float32(0.5), np.int32(0), qrs.Scheme(fmt), (70, 1000))
    states = 8 if "=" not in fmt else int(fmt.split("=")[1])
    levels = trellis.decode_tcq(q.unpack().ravel(), states, row.levels)
    assert np.array_equal(q.dequantize().ravel(), np.float32(0.5) * levels)
    # Rows begin anywhere, runs end at 65536.
    rows = [69, 0, 13, 65, 66]
    assert np.array_equal(q.take(rows), q.dequantize()[rows])
    assert np.array_equal(qrs.linear(np.eye(1000, dtype=np.float32)[:3], q), q.dequantize().T[:3])


# What trained levels gave elsewhere, near the tables of Marcellin and Fischer (1990).
@pytest.mark.parametrize(
    ("fmt", "decibels"),
    [
        ("tcq:1:states=4", 5.03),
        ("tcq:1", 5.21),
        ("tcq:1:states=256", 5.55),
        ("tcq:2:states=4", 10.56),
        ("tcq:2", 10.70),
        ("tcq:2:states=256", 11.02),
        ("tcq:3", 16.32),
        ("tcq:3:states=256", 16.63),
        ("tcq:4", 22.0),
    ],
)
def test_the_classic_trellis_loses_what_was_published(fmt, decibels):
    x = gauss(1 << 17)
    assert qrs.compare(x, qrs.quantize(x, fmt).dequantize()).sqnr_db >= decibels - 0.03


@pytest.mark.parametrize("L", [8, 12, 16])
def test_computed_levels_are_the_published_ones(L):
    assert np.array_equal(qrs.Scheme("trellis:2", L=L, code="1mad").format.levels, trellis.levels_1mad(L))
    assert np.array_equal(qrs.Scheme("trellis:2", L=L, code="3inst").format.levels, trellis.levels_3inst(L))


@pytest.mark.parametrize(
    ("fmt", "error"),
    [
        ("trellis:2:L=8", 0.0773),
        ("trellis:2:L=10", 0.0740),
        ("trellis:2", 0.0714),
        ("trellis:1", 10**-0.56),
        ("trellis:3", 10**-1.72),
        ("trellis:4", 10**-2.30),
    ],
)
def test_normal_numbers_lose_no_more_than_this(fmt, error):
    x = gauss(1 << 17)
    q = qrs.quantize(x, fmt)
    assert np.mean((x - q.dequantize()) ** 2) / np.mean(x**2) <= error
    assert q.bits_per_element == bits_of(fmt) + 32 / x.size


@pytest.mark.parametrize(("granularity", "shape", "block"), GRIDS)
@pytest.mark.parametrize("fmt", ["trellis:2:L=8", "trellis:3:L=8", "tcq:2"])
def test_every_shape_and_granularity(fmt, granularity, shape, block):
    scheme = qrs.Scheme(fmt, granularity)
    # Cells of very different size share blocks.
    x = gauss(*shape) * np.float32(10) ** (np.arange(shape[0] if shape else 1) % 5).reshape(
        (-1,) + (1,) * (len(shape) - 1) if shape else ()
    ).astype(np.float32)

    def run():
        q = qrs.quantize(x, scheme)
        assert np.array_equal(qrs.fake_quantize(x, scheme), q.dequantize())
        return q.codes, q.scale, q.dequantize()

    (_, (codes, scale, values)), *rest = everywhere(run)
    for label, other in rest:
        assert all(map(np.array_equal, other, (codes, scale, values))), label
    if scheme.format.packing:
        levels = trellis.decode(codes, bits_of(fmt), scheme.format.levels, x.size)
    else:
        q = qrs.QTensor.from_parts(codes, scale, np.zeros_like(scale, np.int32), scheme, shape)
        levels = trellis.decode_tcq(q.unpack().ravel(), 8, scheme.format.levels)
    levels = levels.reshape(shape)
    each = np.ravel(scale)[tensor.cells(shape, block)].reshape(shape)
    assert np.array_equal(values, each * levels)
    if granularity not in (qrs.per_tensor, qrs.per_channel(1)):
        assert qrs.compare(x, values).sqnr_db > (9 if bits_of(fmt) == 2 else 13)


@given(size=st.integers(1, 600), fmt=st.sampled_from(["trellis:1:L=8", "trellis:2:L=8", "trellis:4:L=8"]))
def test_a_path_leads_back_to_itself(size, fmt):
    params = qrs.QParams(np.float32(0.25))
    codes = np.random.default_rng(size).integers(0, 256, qrs.Format.named(fmt).packed_bytes(size), np.uint8)
    values = qrs.QTensor.from_parts(
        codes, params.scale, params.zero_point, qrs.Scheme(fmt), (size,)
    ).dequantize()
    again = qrs.quantize(values, fmt, qparams=params).dequantize()
    whole = size // 256 * 256
    assert np.abs(again[:whole] - values[:whole]).max(initial=0) < 0.02


def test_scales_of_every_type_and_of_a_range():
    x = gauss(4, 512)
    for kind in ("float16", "bfloat16", "e8m0", "e4m3"):
        q = qrs.quantize(x, qrs.Scheme("trellis:2", qrs.per_group(256), L=8, scale_dtype=kind))
        assert qrs.compare(x, q.dequantize()).sqnr_db > (9 if kind == "e8m0" else 10.5)
    wide = qrs.quantize(x, qrs.Scheme("trellis:2", L=8, fit="minmax"))
    levels = wide.scheme.format.levels
    assert np.isclose(wide.scale, max(x.max() / levels.max(), x.min() / levels.min()), rtol=1e-6)
    scaled = qrs.quantize(x * 8, qrs.Scheme("trellis:2", L=8))
    plain = qrs.quantize(x, qrs.Scheme("trellis:2", L=8))
    assert np.array_equal(scaled.codes, plain.codes) and scaled.scale == 8 * plain.scale


@pytest.mark.parametrize("shape", [(40, 512), (24, 384), (3, 100)])
def test_products_are_those_of_the_decoded_weight(shape):
    w, x = gauss(*shape), gauss(5, shape[1], seed=1)
    q = qrs.quantize(w, qrs.Scheme("trellis:2", qrs.per_channel(0), L=8))
    y = qrs.linear(x, q, activation="relu")
    for label, other in everywhere(lambda: qrs.linear(x, q, activation="relu")):
        assert np.array_equal(other, y), label
    assert np.allclose(y, np.maximum(x @ q.dequantize().T, 0), rtol=1e-4, atol=1e-4)
    assert np.array_equal(qrs.linear(x[:1], q, activation="relu"), y[:1])
    assert np.array_equal(qrs.nn.Linear(q, activation="relu")(x), y)
    with pytest.raises(ValueError, match="trellis:2:L=8"):
        qrs.linear(x, q, input=qrs.Dynamic("uint8"))


@pytest.mark.parametrize("fmt", ["trellis:2:L=8", "trellis:4", "trellis:1:L=14", "trellis:3:code=quintic"])
@pytest.mark.parametrize("granularity", [qrs.per_tensor, qrs.per_channel(0), qrs.per_group(256)])
def test_rows_in_16_bits_multiply_as_their_codes_do(fmt, granularity):
    rows = qrs.Dynamic(qrs.Scheme("int16", qrs.per_group(256)))
    w, x, bias = gauss(40, 768), gauss(3, 768, seed=1), gauss(40, seed=2)
    x[1] = 0
    q = qrs.quantize(w, qrs.Scheme(fmt, granularity))
    y = qrs.linear(x, q, bias, "relu", input=rows)
    for label, other in everywhere(lambda: qrs.linear(x, q, bias, "relu", input=rows)):
        assert np.array_equal(other, y), label
    rounded = qrs.fake_quantize(x, rows.scheme).astype(np.float64)
    exact = rounded @ q.dequantize().astype(np.float64).T + bias
    assert np.allclose(y, np.maximum(exact, 0), rtol=1e-5, atol=1e-5)
    assert np.array_equal(qrs.linear(x[2], q, bias, "relu", input=rows), y[2])
    layer = qrs.nn.Linear(q, bias, input=rows, activation="relu")
    assert np.array_equal(layer(x), y)
    assert np.array_equal(type(layer).from_parts(layer.arrays(), layer.attributes())(x), y)
    codes = qrs.Static("uint8", qparams=qrs.QParams(0.5, 3))
    made = qrs.linear(x, q, bias, "relu", input=rows, output=codes)
    assert np.array_equal(made.codes, qrs.quantize(y, codes.scheme, qparams=codes.qparams).codes)


def test_rows_in_16_bits_meet_whole_blocks_of_a_trellis():
    rows = qrs.Dynamic(qrs.Scheme("int16", qrs.per_group(256)))
    for fmt, granularity, k, words in [
        ("int8", qrs.per_tensor, 512, "expected trellis:B"),
        ("nf4", qrs.per_tensor, 512, "expected trellis:B"),
        ("tcq:2", qrs.per_tensor, 512, "expected trellis:B"),
        ("trellis:2:L=8:code=3inst", qrs.per_tensor, 512, "no whole numbers"),
        ("trellis:2:L=8", qrs.per_tensor, 384, "whole blocks of 256"),
        ("trellis:2:L=8", qrs.per_group(128), 512, "whole blocks of 256"),
        ("trellis:2:L=8", qrs.per_group(512), 768, "as many to each scale"),
    ]:
        q = qrs.quantize(gauss(4, k), qrs.Scheme(fmt, granularity))
        with pytest.raises(ValueError, match=words):
            qrs.linear(gauss(1, k), q, input=rows)
        with pytest.raises(ValueError, match=words):
            qrs.nn.Linear(q, input=rows)
    for granularity in (qrs.per_group(128), qrs.per_token):
        with pytest.raises(ValueError, match=r"expected Scheme\('int16', per_group\(256\)\)"):
            qrs.Dynamic(qrs.Scheme("int16", granularity))


@pytest.mark.parametrize("fmt", ["trellis:2:L=8", "tcq:2"])
def test_what_has_no_importance_still_follows_its_values(fmt):
    x, weights = gauss(4, 512), np.ones((4, 512), np.float32)
    weights[:, 256:] = 0
    scheme = qrs.Scheme(fmt, qrs.per_group(256))
    y = qrs.quantize(x, scheme, importance=weights).dequantize()
    for half in (slice(0, 256), slice(256, None)):
        assert qrs.compare(x[:, half], y[:, half]).sqnr_db > 9
    for even in (0.0, 1e-43, 1e30):
        y = qrs.quantize(x, scheme, importance=even).dequantize()
        assert qrs.compare(x, y).sqnr_db > qrs.compare(x, qrs.fake_quantize(x, scheme)).sqnr_db - 0.2


def test_zeros_and_what_is_not_finite():
    zeros = qrs.quantize(np.zeros((2, 300)), qrs.Scheme("trellis:2", qrs.per_channel(0)))
    assert np.abs(zeros.dequantize()).max() < 1e-30
    x = gauss(3, 200)
    x[1, 7], x[2, 0] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"2 .*flat index 207"):
        qrs.quantize(x, "trellis:2")
    q = qrs.quantize(x, qrs.Scheme("trellis:2"), qparams=qrs.QParams(1.0), check_finite=False)
    assert np.isfinite(q.dequantize()).all() and q.dequantize()[2, 0] > 2
    faked = qrs.fake_quantize(x, "trellis:2", qparams=qrs.QParams(1.0))
    assert np.isnan(faked[1, 7]) and np.isnan(faked).sum() == 1


def test_names_keywords_and_copies():
    assert qrs.Scheme("trellis:2", L=12, code="table") == qrs.Scheme("trellis:2")
    scheme = qrs.Scheme("trellis:3", qrs.per_channel(0), L=10, code="quintic")
    assert scheme.dtype == "trellis:3:L=10:code=quintic"
    assert eval(repr(scheme), vars(qrs)) == scheme
    assert qrs.Scheme.from_dict(scheme.to_dict()) == scheme
    q = qrs.quantize(gauss(4, 300), scheme)
    assert pickle.loads(pickle.dumps(q)) == q


def test_files_keep_the_codes(tmp_path):
    q = qrs.quantize(gauss(8, 300), qrs.Scheme("trellis:2", qrs.per_channel(0), L=10, scale_dtype="float16"))
    model = qrs.Model([qrs.Node("linear", qrs.nn.Linear(q), ["x"], "y")], ["x"], ["y"])
    model.save(tmp_path / "model.qrs")
    assert qrs.load(tmp_path / "model.qrs").layers["linear"].weight == q


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"dtype": "trellis:5"}, "1 to 4 bits"),
        ({"dtype": "trellis:2", "L": 7}, "8 to 16 bits of state"),
        ({"dtype": "trellis:2", "L": 14, "code": "table"}, "L = 8, 10, 12"),
        ({"dtype": "trellis:2", "L": 8.0}, "L is 8.0, expected an integer"),
        ({"dtype": "trellis:2", "L": True}, "L is True"),
        ({"dtype": "int4", "L": 8}, "only trellis:B has one"),
        ({"dtype": "int4", "code": "1mad"}, "only trellis:B has one"),
        ({"dtype": "trellis:2", "code": 3}, "code is 3"),
        ({"dtype": "trellis:2", "states": 8}, "only tcq:B has one"),
        ({"dtype": "tcq:2", "L": 8}, "only trellis:B has one"),
        ({"dtype": "tcq:2", "states": 12}, "power of two from 4 to 256"),
        ({"dtype": "tcq:5"}, "1 to 4 bits"),
        ({"dtype": "trellis:2", "rounding": "floor"}, "leave it at half_even"),
        ({"dtype": "trellis:2", "symmetric": False}, "no zero point"),
        ({"dtype": "trellis:2", "saturate": False}, "neither infinity nor NaN"),
    ],
)
def test_impossible_choices_are_named(arguments, words):
    with pytest.raises((ValueError, TypeError), match=words):
        qrs.Scheme(**arguments)


def test_there_are_no_codes_to_unpack():
    with pytest.raises(ValueError, match="code for each element"):
        qrs.quantize(gauss(256), "trellis:2").unpack()


def test_ctrl_c_ends_a_long_search():
    program = """
import numpy as np, qrs
x = np.random.default_rng(0).standard_normal((1 << 15, 1 << 10), np.float32)
print("ready", flush=True)
try:
    qrs.quantize(x, qrs.Scheme("trellis:2", L=16))
except KeyboardInterrupt:
    print("interrupted", qrs.quantize(x[:1], "trellis:2").size, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        time.sleep(1)
        child.send_signal(signal.SIGINT)
        # The search would take minutes.
        assert child.communicate(timeout=60)[0] == "interrupted 1024\n"
