"""nn.Conv2d against the reference, bit for bit where the weight is quantized."""

import json

import numpy as np
import pytest
import qrs
from machine import everywhere, machine
from qrs import nn
from reference import convolutions as reference
from reference.tensor import bits_of, code_range, quantize
from test_linear import same_bits

CHANNELS = qrs.Scheme("int8", qrs.per_channel(0))
WEIGHTS = {
    "int8-channel": CHANNELS,
    "int8-channel-asymmetric": qrs.Scheme("int8", qrs.per_channel(0), symmetric=False),
    "uint8-tensor": qrs.Scheme("uint8"),
    "int4-channel": qrs.Scheme("int4", qrs.per_channel(0)),
    "uint3-tensor": qrs.Scheme("uint3"),
}
INPUTS = {
    "float": None,
    "uint8-dynamic": qrs.Dynamic("uint8"),
    "int8-dynamic": qrs.Dynamic("int8"),
    "uint8-static": qrs.Static("uint8", qparams=qrs.QParams(0.03, 117)),
    "int8-static": qrs.Static("int8", qparams=qrs.QParams(0.02)),
}
# Channels, filters, groups, kernel, image; stride, padding (top, left, bottom, right) and dilation.
PLAIN = ((1, 1), (0, 0, 0, 0), (1, 1))
SAME = ((1, 1), (1, 1, 1, 1), (1, 1))
CASES = {
    "1x1": (4, 16, 1, (1, 1), (5, 7), PLAIN),
    "1x1-wide": (17, 33, 1, (1, 1), (4, 70), PLAIN),
    "1x1-strided": (5, 3, 1, (1, 1), (7, 5), ((2, 2), (0, 0, 0, 0), (1, 1))),
    "1x1-padded": (3, 2, 1, (1, 1), (2, 3), ((3, 2), (1, 0, 2, 3), (1, 1))),
    "2x2": (3, 5, 1, (2, 2), (6, 9), ((2, 2), (0, 0, 0, 0), (1, 1))),
    "3x3": (16, 17, 1, (3, 3), (9, 11), SAME),
    "3x3-64": (64, 64, 1, (3, 3), (7, 7), SAME),
    "3x3-strided": (5, 18, 1, (3, 3), (13, 10), ((2, 2), (1, 1, 1, 1), (1, 1))),
    "3x3-dilated": (4, 6, 1, (3, 3), (9, 8), ((1, 1), (2, 2, 2, 2), (2, 2))),
    "3x3-mixed": (3, 6, 1, (3, 3), (9, 8), ((2, 3), (0, 2, 1, 0), (2, 1))),
    "3x2-lopsided": (8, 4, 1, (3, 2), (5, 6), ((1, 2), (2, 0, 0, 1), (1, 3))),
    "5x5": (3, 16, 1, (5, 5), (11, 9), ((1, 1), (2, 2, 2, 2), (1, 1))),
    "7x7-first": (3, 20, 1, (7, 7), (19, 23), ((2, 2), (3, 3, 3, 3), (1, 1))),
    "one-channel": (1, 5, 1, (3, 3), (8, 21), SAME),
    "one-output": (6, 9, 1, (5, 3), (5, 3), PLAIN),
    "padding-only": (2, 2, 1, (3, 3), (1, 1), ((1, 1), (2, 2, 2, 2), (1, 1))),
    "far-padding": (2, 2, 1, (2, 2), (3, 3), ((4, 4), (9, 9, 9, 9), (3, 3))),
    "far-stride": (2, 3, 1, (2, 2), (3, 4), ((1 << 30, 1 << 30), (0, 0, 0, 0), (1, 1))),
    "groups": (12, 20, 4, (3, 3), (6, 5), SAME),
    "groups-wide": (34, 36, 2, (3, 3), (5, 5), ((2, 1), (1, 0, 1, 0), (1, 2))),
    "depthwise": (6, 6, 6, (3, 3), (9, 19), SAME),
    "depthwise-strided": (5, 5, 5, (3, 3), (11, 37), ((2, 2), (0, 1, 1, 0), (1, 1))),
    "depthwise-dilated": (3, 3, 3, (3, 3), (12, 17), ((1, 3), (2, 2, 2, 2), (2, 2))),
    "depthwise-5x4": (4, 4, 4, (5, 4), (9, 8), ((3, 2), (2, 2, 2, 2), (1, 1))),
    "depthwise-multiplied": (3, 6, 3, (3, 3), (6, 7), SAME),
    "depthwise-far-stride": (2, 2, 2, (3, 1), (5, 4), ((1 << 30, 1 << 30), (0, 0, 0, 0), (1, 1))),
    "depthwise-1x1": (4, 4, 4, (1, 1), (3, 18), PLAIN),
}
by_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
by_weight = pytest.mark.parametrize("scheme", WEIGHTS.values(), ids=WEIGHTS.keys())
by_input = pytest.mark.parametrize("how", INPUTS.values(), ids=INPUTS.keys())


def operands(case, batch=1):
    """Images with an offset, filters, bias, and the window as the reference takes it."""
    channels, filters, groups, kernel, image, moves = case
    rng = np.random.default_rng([channels, filters, groups, *kernel, *image, batch])
    x = (rng.standard_normal((batch, channels, *image)) + 0.4).astype(np.float32)
    w = rng.standard_normal((filters, channels // groups, *kernel)).astype(np.float32)
    return x, w, rng.standard_normal(filters).astype(np.float32), (*moves, groups)


def layer(weight, window, **how):
    stride, padding, dilation, groups = window
    return nn.Conv2d(weight, stride=stride, padding=padding, dilation=dilation, groups=groups, **how)


def weight_of(q, shifted):
    """Codes, scale and zero point as the reference takes them; for float32 images both as they are stored."""
    fmt, count = q.scheme.dtype, q.shape[0]
    shift = (-code_range(fmt)[0] if bits_of(fmt) <= 4 else -128 if fmt == "uint8" else 0) if shifted else 0
    scale, zero = (np.broadcast_to(part.reshape(-1), count) for part in (q.scale, q.zero_point))
    return q.unpack().astype(np.int64) + shift, scale, zero.astype(np.int64) + shift


def expected_conv(x, q, how, window, bias=None, activation="none"):
    if how is None:
        return reference.conv_float(x, weight_of(q, True), window, bias, activation)
    s = how.scheme
    known = s.qparams(x.min(), x.max()) if isinstance(how, qrs.Dynamic) else how.qparams
    codes = quantize(x, x.shape, known.scale, known.zero_point, s.dtype, s.narrow_range)
    return reference.conv_integer(
        (codes, known.scale, int(known.zero_point)), weight_of(q, False), window, bias, activation
    )


@pytest.mark.isa
@by_case
@by_weight
@by_input
def test_conv_equals_the_reference(case, scheme, how):
    x, w, bias, window = operands(case, batch=2 if case[0] < 6 else 1)
    q = qrs.quantize(w, scheme)
    expected = expected_conv(x, q, how, window, bias, "relu")
    conv = layer(q, window, bias=bias, activation="relu", input=how)
    for where, y in everywhere(lambda: conv(x)):
        assert same_bits(y, expected), where


@pytest.mark.isa
@by_input
@pytest.mark.parametrize(
    "case",
    [
        (64, 96, 1, (3, 3), (40, 41), SAME),
        (24, 130, 1, (1, 1), (30, 70), PLAIN),
        (3, 32, 1, (7, 7), (96, 80), ((2, 2), (3, 3, 3, 3), (1, 1))),
        (48, 48, 48, (3, 3), (60, 67), SAME),
        (2, 2, 2, (3, 3), (300, 301), ((2, 2), (1, 1, 1, 1), (1, 1))),
    ],
    ids=repr,
)
def test_large_convolutions_equal_the_reference(case, how):
    """Enough work for two threads, several bands of rows and of filters, and stretches of a row."""
    x, w, _, window = operands(case)
    q = qrs.quantize(w, CHANNELS)
    if how is None:
        # The chain of the definition is slow in NumPy: the decoded weight finds a misplaced band as well.
        expected = layer(q.dequantize(), window)(x)
        for where, y in everywhere(lambda: layer(q, window)(x)):
            np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-3, err_msg=where)
        return
    expected = expected_conv(x, q, how, window)
    for where, y in everywhere(lambda: layer(q, window, input=how)(x)):
        assert same_bits(y, expected), where


@pytest.mark.parametrize("batch", [0, 1, 3])
@by_input
@pytest.mark.parametrize("name", ["3x3-strided", "groups", "depthwise-strided"])
def test_images_of_a_batch_are_convolved_alike(name, how, batch):
    x, w, bias, window = operands(CASES[name], batch)
    q = qrs.quantize(w, CHANNELS)
    y = layer(q, window, bias=bias, input=how)(x)
    if batch:
        assert same_bits(y, expected_conv(x, q, how, window, bias))
    else:
        assert y.shape[0] == 0 and y.shape[1] == len(w)


@by_case
def test_float_weights_convolve_in_floats(case):
    x, w, bias, window = operands(case, batch=2)
    *moves, groups = window
    seen = reference.windows(x.astype(np.float64), w.shape[2:], *moves)
    parts = zip(np.split(seen, groups, axis=1), np.split(w, groups), strict=True)
    expected = np.concatenate([np.einsum("bcvhij,ocij->bovh", a, b) for a, b in parts], axis=1)
    expected = np.maximum(expected + bias[:, None, None], 0)
    y = layer(w, window, bias=bias, activation="relu")(x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "scheme", [qrs.Scheme("int4", qrs.per_group(2, axis=1)), qrs.Scheme("int8", qrs.per_token)]
)
def test_weights_of_other_granularities_are_decoded(scheme):
    x, w, bias, window = operands(CASES["3x3"])
    q = qrs.quantize(w, scheme)
    assert same_bits(layer(q, window, bias=bias)(x), layer(q.dequantize(), window, bias=bias)(x))


@pytest.mark.parametrize("name", ["3x3", "depthwise", "1x1"])
def test_codes_are_multiplied_as_they_stand(name):
    x, w, bias, window = operands(CASES[name])
    codes, q = qrs.quantize(x, "uint8"), qrs.quantize(w, CHANNELS)
    static = qrs.Static("uint8", qparams=codes.qparams)
    assert same_bits(layer(q, window, bias=bias)(codes), layer(q, window, bias=bias, input=static)(x))


def test_the_worst_codes_are_exact():
    """The largest magnitudes on both sides, in every lane."""
    x = np.full((1, 260, 5, 5), 255, np.float32)
    w = np.full((3, 260, 3, 3), -128, np.float32)
    one = qrs.QParams(1.0)
    q = qrs.quantize(w, qrs.Scheme("int8", narrow_range=False), qparams=one)
    conv = nn.Conv2d(q, input=qrs.Static("uint8", qparams=one))
    for where, y in everywhere(lambda: conv(x)):
        assert np.all(y == np.float32(-128 * 255 * 260 * 9)), where


def test_a_window_beyond_int32_is_refused():
    q = qrs.quantize(np.ones((1, 8000, 3, 3), np.float32), CHANNELS)
    x = np.ones((1, 8000, 3, 3), np.float32)
    with pytest.raises(OverflowError, match="k is 72000"):
        nn.Conv2d(q, input=qrs.Dynamic("uint8"))(x)


def test_padding_is_symmetric_or_named_side_by_side():
    w = np.ones((1, 1, 1, 1), np.float32)
    assert nn.Conv2d(w, padding=2).padding == (2, 2, 2, 2)
    assert nn.Conv2d(w, padding=(1, 2)).padding == (1, 2, 1, 2)
    assert nn.Conv2d(w, padding=[1, 2, 3, 4], stride=3).padding == (1, 2, 3, 4)
    y = nn.Conv2d(w, padding=(1, 2, 3, 4))(np.ones((1, 1, 1, 1), np.float32))
    assert y.shape == (1, 1, 5, 7) and np.argwhere(y[0, 0]).tolist() == [[1, 2]]


def test_strided_and_foreign_images_are_taken():
    x, w, _, window = operands(CASES["3x3"])
    conv = layer(qrs.quantize(w, CHANNELS), window, input=qrs.Dynamic("uint8"))
    y = conv(x)
    assert same_bits(conv(np.asfortranarray(x)), y)
    assert same_bits(conv(x.astype(">f4")), y)
    assert same_bits(conv(np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)), y)


def test_a_packed_weight_is_kept_and_packed_again_for_other_groups():
    q = qrs.quantize(np.ones((4, 2, 1, 1), np.float32), CHANNELS)
    assert q.filters(2) is q.filters(2)
    assert q.filters(2).groups == 2 and q.filters(1).groups == 1
    assert q.filters(1).nbytes > 0


def test_a_row_of_threads_gives_the_same_bits():
    x, w, bias, window = operands((16, 40, 1, (3, 3), (60, 60), SAME), batch=3)
    conv = layer(qrs.quantize(w, CHANNELS), window, bias=bias, activation="gelu", input=qrs.Dynamic("uint8"))
    first = conv(x)
    for threads in (1, 2, 3, 7):
        with machine(threads=threads):
            assert same_bits(conv(x), first)


ONES = np.ones((2, 3, 3, 3), np.float32)
Q = qrs.quantize(ONES, CHANNELS)
REFUSED = {
    "weight has shape (2, 3), expected 4 dimensions": lambda: nn.Conv2d(ONES[:, :, 0, 0]),
    "weight has shape (2, 0, 3, 3), expected no axis of length 0": lambda: nn.Conv2d(ONES[:, :0]),
    "bias has length 3, expected 2": lambda: nn.Conv2d(ONES, ONES[0, :, 0, 0]),
    "stride is 0, expected 1 to": lambda: nn.Conv2d(ONES, stride=0),
    "stride has 3 numbers, expected one, or 2": lambda: nn.Conv2d(ONES, stride=(1, 1, 1)),
    "padding is (0, -1), expected 0 to": lambda: nn.Conv2d(ONES, padding=(0, -1)),
    "padding has 3 numbers, expected one, or 2 or 4": lambda: nn.Conv2d(ONES, padding=(1, 2, 3)),
    "dilation is": lambda: nn.Conv2d(ONES, dilation=1 << 40),
    "groups is 3, expected a divisor of the 2 filters": lambda: nn.Conv2d(ONES, groups=3),
    "unknown activation 'rleu'": lambda: nn.Conv2d(ONES, activation="rleu"),
    "input is given for a float32 weight": lambda: nn.Conv2d(ONES, input=qrs.Dynamic("int8")),
    "expected per_tensor: images have no tokens": lambda: nn.Conv2d(
        Q, input=qrs.Dynamic(qrs.Scheme("int8", qrs.per_token))
    ),
    "weight is per_group(2), expected per_channel(0) or per_tensor": lambda: nn.Conv2d(
        qrs.quantize(ONES, qrs.Scheme("int8", qrs.per_group(2))), input=qrs.Dynamic("int8")
    ),
    "x has shape (3, 5, 5), expected (batch, 3, height, width)": lambda: nn.Conv2d(ONES)(
        np.ones((3, 5, 5), np.float32)
    ),
    "expected (batch, 6, height, width) for a weight of shape (2, 3, 3, 3) in 2 group(s)": (
        lambda: nn.Conv2d(ONES, groups=2)(np.ones((1, 4, 5, 5), np.float32))
    ),
    "axis 3 has length 4, expected at least 5, the reach of the window": lambda: nn.Conv2d(
        ONES, padding=(0, 1), dilation=2
    )(np.ones((1, 3, 5, 2), np.float32)),
    "x has 2 NaN or infinite element(s), the first at flat index 3": lambda: nn.Conv2d(
        Q, input=qrs.Dynamic("int8")
    )(np.float32([0, 0, 0, np.nan, np.inf, *[0] * 22]).reshape(1, 3, 3, 3)),
    "x has 1 NaN or infinite element(s), the first at flat index 26": lambda: nn.Conv2d(
        Q, input=qrs.Static("int8", qparams=qrs.QParams(1.0))
    )(np.float32([*[0] * 26, np.inf]).reshape(1, 3, 3, 3)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refusals_say_what_came(message):
    with pytest.raises(qrs.QrsValueError) as caught:
        REFUSED[message]()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv2d(np.ones((2, 3, 3, 3), np.int8)),
        lambda: nn.Conv2d(ONES, stride=1.0),
        lambda: nn.Conv2d(ONES, padding=(True, 1)),
        lambda: nn.Conv2d(ONES, groups="2"),
        lambda: nn.Conv2d(Q, input="int8"),
        lambda: nn.Conv2d(ONES)(np.ones((1, 3, 5, 5), np.int32)),
    ],
)
def test_wrong_types_are_type_errors(make):
    with pytest.raises(TypeError):
        make()


def images(seed=0):
    return {"x": np.random.default_rng(seed).normal(size=(2, 3, 9, 9)).astype(np.float32)}


def network():
    """A first layer, a depthwise one and a pointwise one."""
    rng = np.random.default_rng(0)

    def conv(*shape, **how):
        w = rng.normal(size=shape).astype(np.float32) / np.sqrt(np.prod(shape[1:]))
        return nn.Conv2d(w, np.zeros(shape[0], np.float32), **how)

    return qrs.Model.chain(
        {
            "stem": conv(8, 3, 3, 3, stride=2, padding=1, activation="relu"),
            "depth": conv(8, 1, 3, 3, padding=(0, 1, 2, 1), groups=8, activation="relu"),
            "point": conv(16, 8, 1, 1),
        }
    )


@pytest.mark.parametrize("preset", ["w8a8-static", "w8a16"])
def test_recipes_reach_convolutions_and_files_hold_them(preset, tmp_path):
    model, recipe = network(), qrs.Recipe.preset(preset)
    stats = qrs.calibrate(model, [images(i) for i in range(3)], recipe) if preset == "w8a8-static" else None
    small, report = qrs.quantize_model(model, recipe, stats)
    assert [row.name for row in report.rows if row.weight is not None] == ["stem", "depth", "point"]
    (expected,), (y,) = model.run(images(9)).values(), small.run(images(9)).values()
    assert qrs.compare(expected, y).sqnr_db > 25
    small.save(tmp_path / "small.qrs")
    (again,) = qrs.load(tmp_path / "small.qrs").run(images(9)).values()
    assert same_bits(again, y)


def test_an_input_per_token_becomes_one_per_tensor_and_the_report_says_so():
    small, report = qrs.quantize_model(network(), qrs.Recipe.preset("w8a8-dynamic"))
    assert {row.reason for row in report.rows} == {"images have no tokens: input is quantized per tensor"}
    assert small.layers["stem"].input == qrs.Dynamic("uint8")
    (expected,), (y,) = network().run(images(9)).values(), small.run(images(9)).values()
    assert qrs.compare(expected, y).sqnr_db > 25
    with pytest.raises(qrs.QrsValueError, match="layer 'stem': weight is per_group"):
        qrs.quantize_model(network(), qrs.Recipe.preset("w4a8-g32"))


def test_attributes_survive_json():
    conv = nn.Conv2d(
        Q, stride=(1, 2), padding=(0, 1, 2, 3), input=qrs.Static("uint8", qparams=qrs.QParams(0.5, 3))
    )
    again = nn.Conv2d.from_parts(conv.arrays(), json.loads(json.dumps(conv.attributes())))
    assert repr(again) == repr(conv)
    assert again.padding == (0, 1, 2, 3)
