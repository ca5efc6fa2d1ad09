"""qrs.linear against the reference, bit for bit, and the same row whatever stands beside it."""

import numpy as np
import pytest
import qrs
from machine import everywhere, machine
from qrs import _core
from reference import layers, products
from reference.products import Weight

BATCHES = (1, 2, 3, 5, 16, 33)
WEIGHTS = {
    "int8-channel": qrs.Scheme("int8", qrs.per_channel(0)),
    "int8-channel-asymmetric": qrs.Scheme("int8", qrs.per_channel(0), symmetric=False),
    "uint8-channel": qrs.Scheme("uint8", qrs.per_channel(0)),
    "int8-tensor": qrs.Scheme("int8"),
    "int6-group24": qrs.Scheme("int6", qrs.per_group(24)),
    "uint5-channel": qrs.Scheme("uint5", qrs.per_channel(0)),
    "int4-group32": qrs.Scheme("int4", qrs.per_group(32)),
    "int4-group32-asymmetric": qrs.Scheme("int4", qrs.per_group(32), symmetric=False),
    "int4-group128": qrs.Scheme("int4", qrs.per_group(128)),
    "uint4-group24": qrs.Scheme("uint4", qrs.per_group(24), scale_dtype="float16"),
    "int4-group1": qrs.Scheme("int4", qrs.per_group(1)),
    "int3-group24": qrs.Scheme("int3", qrs.per_group(24)),
    "uint2-group32": qrs.Scheme("uint2", qrs.per_group(32)),
    "int1-channel": qrs.Scheme("int1", qrs.per_channel(0)),
    "int8-token": qrs.Scheme("int8", qrs.per_token),
    "int8-column": qrs.Scheme("int8", qrs.per_channel(1)),
    "uint4-column": qrs.Scheme("uint4", qrs.per_channel(-1)),
    "int4-group8-of-rows": qrs.Scheme("int4", qrs.per_group(8, axis=0)),
    "uint8-block16x24": qrs.Scheme("uint8", qrs.per_block((16, 24))),
    "int4-block5x7": qrs.Scheme("int4", qrs.per_block((5, 7)), symmetric=False),
}
INPUTS = {
    "float": None,
    "int8-token": qrs.Dynamic(qrs.Scheme("int8", qrs.per_token)),
    "uint8-token": qrs.Dynamic(qrs.Scheme("uint8", qrs.per_token)),
    "uint8-tensor": qrs.Dynamic("uint8"),
    "uint4-token": qrs.Dynamic(qrs.Scheme("uint4", qrs.per_token)),
    "int8-static": qrs.Static("int8", qparams=qrs.QParams(0.02)),
    "uint8-static": qrs.Static("uint8", qparams=qrs.QParams(0.03, 117)),
}
TOKEN = INPUTS["int8-token"]
by_weight = pytest.mark.parametrize("scheme", WEIGHTS.values(), ids=WEIGHTS.keys())
by_input = pytest.mark.parametrize("how", INPUTS.values(), ids=INPUTS.keys())


def weight_of(q):
    """The parts of a QTensor as the reference takes them: parameters spread to (n, groups)."""
    n, k = q.shape
    rows, group = (max(length, 1) for length in q.scheme.block(q.shape))
    scale, zero_point = (
        np.repeat(p.reshape(-(-n // rows), -(-k // group)), rows, axis=0)[:n] for p in (q.scale, q.zero_point)
    )
    return Weight(q.unpack().astype(np.int64), scale, zero_point.astype(np.int64), group, q.scheme.dtype)


def expected_linear(x, q, how, bias=None, activation="none"):
    """The reference's answer for one kind of input."""
    weight = weight_of(q)
    if how is None:
        return products.linear_float(x, weight, bias, activation)
    s = how.scheme
    if isinstance(how, qrs.Static):
        inputs = products.static(x, s.dtype, how.qparams.scale, how.qparams.zero_point, s.narrow_range)
    else:
        cells = products.per_token if s.granularity == qrs.per_token else products.per_tensor
        inputs = cells(x, s.dtype, s.symmetric, s.narrow_range)
    return products.linear_integer(inputs, weight, bias, activation)


def operands(m, n, k, seed=0):
    """Activations with an offset and an outlier in each row, weights, bias."""
    rng = np.random.default_rng([m, n, k, seed])
    x = (rng.standard_normal((m, k)) + 0.4).astype(np.float32)
    x[np.arange(m), rng.integers(0, k, m)] *= 9
    return x, rng.standard_normal((n, k)).astype(np.float32), rng.standard_normal(n).astype(np.float32)


def same_bits(a, b):
    return a.shape == b.shape and np.array_equal(a.view(np.int32), b.view(np.int32))


@by_weight
@by_input
def test_linear_equals_the_reference(scheme, how):
    """Every batch size and edge of n and k, on every instruction set and thread count."""
    shapes = [(m, 37, 75) for m in BATCHES] + [
        (5, 1, 1),
        (2, 15, 33),
        (3, 16, 64),
        (7, 65, 31),
        (33, 17, 129),
    ]
    for m, n, k in shapes:
        x, w, bias = operands(m, n, k)
        q = qrs.quantize(w, scheme)
        relu = m % 2 == 1
        expected = expected_linear(x, q, how, bias if relu else None, "relu" if relu else "none")
        arguments = {"bias": bias, "activation": "relu"} if relu else {}
        for where, y in everywhere(lambda x=x, q=q, kw=arguments: qrs.linear(x, q, input=how, **kw)):
            assert same_bits(y, expected), (where, m, n, k)


@pytest.mark.parametrize("name", ["int8-channel", "int4-group32-asymmetric", "uint4-group24"])
@by_input
def test_large_products_equal_the_reference(name, how):
    """Enough work for two threads and several blocks of rows and panels."""
    x, w, bias = operands(130, 200, 390)
    q = qrs.quantize(w, WEIGHTS[name])
    expected = expected_linear(x, q, how, bias)
    for where, y in everywhere(lambda: qrs.linear(x, q, bias, input=how)):
        assert same_bits(y, expected), where


@by_weight
@pytest.mark.parametrize("how", [h for h in INPUTS.values() if h != INPUTS["uint8-tensor"]], ids=repr)
def test_a_row_does_not_depend_on_its_batch(scheme, how):
    x, w, bias = operands(64, 50, 200)
    q = qrs.quantize(w, scheme)
    for where, whole in everywhere(lambda: qrs.linear(x, q, bias, "gelu", how)):
        isa, threads = where.split(", ")
        with machine(isa, int(threads[0])):
            for m in BATCHES:
                for start in (0, 64 - m):
                    part = qrs.linear(x[start : start + m], q, bias, "gelu", how)
                    assert same_bits(part, whole[start : start + m]), (where, m, start)


@pytest.mark.parametrize("activation", _core.activations())
@by_input
def test_activations_follow_the_product(activation, how):
    """Within the stated error of the activation of what `none` gives, and the same bits everywhere."""
    x, w, bias = operands(9, 40, 64)
    q = qrs.quantize(w, WEIGHTS["int8-channel"])
    plain = qrs.linear(x, q, bias, input=how)
    exact = layers.activate(plain, activation)
    first = qrs.linear(x, q, bias, activation, how)
    assert np.all(np.abs(first - exact) <= 2.5e-7 * np.maximum(1, np.abs(plain)))
    for where, y in everywhere(lambda: qrs.linear(x, q, bias, activation, how)):
        assert same_bits(y, first), where


@by_input
def test_leading_axes_and_out(how):
    x, w, bias = operands(12, 20, 48)
    q = qrs.quantize(w, WEIGHTS["int4-group32"])
    flat = qrs.linear(x, q, bias, input=how)
    assert same_bits(qrs.linear(x.reshape(2, 3, 2, 48), q, bias, input=how), flat.reshape(2, 3, 2, 20))
    assert same_bits(qrs.linear(x[0], q, bias, input=how), qrs.linear(x[:1], q, bias, input=how)[0])
    wide = np.full((12, 40), 7, np.float32)
    out = wide[:, ::2]
    assert qrs.linear(x, q, bias, input=how, out=out) is out
    assert same_bits(np.ascontiguousarray(out), flat)
    assert np.all(wide[:, 1::2] == 7)


@by_input
@pytest.mark.parametrize(("m", "n", "k"), [(0, 4, 8), (3, 0, 8), (3, 4, 0)])
def test_empty_dimensions(how, m, n, k):
    bias = np.arange(n, dtype=np.float32)
    q = qrs.quantize(np.ones((n, k), np.float32), qrs.Scheme("int8", qrs.per_channel(0)))
    y = qrs.linear(np.ones((m, k), np.float32), q, bias, input=how)
    assert y.shape == (m, n)
    if k == 0:
        assert np.array_equal(y, np.broadcast_to(bias, (m, n)))


def test_a_product_that_could_leave_int32_is_refused():
    k = 140_000
    x, w = np.ones((1, k), np.float32), np.ones((1, k), np.float32)
    token = qrs.Dynamic(qrs.Scheme("int8", qrs.per_token))
    with pytest.raises(OverflowError, match="140000"):
        qrs.linear(x, qrs.quantize(w, qrs.Scheme("int8", qrs.per_channel(0))), input=token)
    grouped = qrs.quantize(w, qrs.Scheme("int8", qrs.per_group(1000)))
    np.testing.assert_allclose(qrs.linear(x, grouped, input=token), [[k]], rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_quantized_input_must_be_finite(bad):
    x, w, _ = operands(4, 5, 30)
    x[2, 7] = bad
    q = qrs.quantize(w, "int8")
    for how in INPUTS.values():
        if how is None:
            y = qrs.linear(x, q)
            assert np.all(np.isfinite(y[[0, 1, 3]]))
            assert not np.any(np.isfinite(y[2]))
        else:
            with pytest.raises(ValueError, match=r"\b1 .*\b67\b"):
                qrs.linear(x, q, input=how)


OUTPUTS = {
    "int8": qrs.Static("int8", qparams=qrs.QParams(0.05)),
    "int8-full": qrs.Static(qrs.Scheme("int8", narrow_range=False), qparams=qrs.QParams(0.05)),
    "int8-asymmetric": qrs.Static(qrs.Scheme("int8", symmetric=False), qparams=qrs.QParams(0.3, -77)),
    "uint8": qrs.Static("uint8", qparams=qrs.QParams(0.11, 97)),
    "uint8-saturated": qrs.Static("uint8", qparams=qrs.QParams(0.002, 128)),
    "uint8-symmetric": qrs.Static(qrs.Scheme("uint8", symmetric=True), qparams=qrs.QParams(0.1, 128)),
    "int5": qrs.Static("int5", qparams=qrs.QParams(0.7)),
    "uint3": qrs.Static("uint3", qparams=qrs.QParams(2.5, 3)),
    "int1": qrs.Static("int1", qparams=qrs.QParams(4.0)),
}
by_output = pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS.keys())


@by_output
@pytest.mark.parametrize("activation", ["none", "relu"])
@by_input
def test_a_requantized_result_is_the_reference(how, activation, output):
    """Code for code, at every edge, on every instruction set and thread count."""
    s, qp = output.scheme, output.qparams
    for scheme, (m, n, k) in [
        (WEIGHTS["int8-channel"], (5, 37, 75)),
        (WEIGHTS["int4-group32-asymmetric"], (3, 17, 70)),
        (WEIGHTS["int4-group1"], (1, 1, 9)),
    ]:
        x, w, bias = operands(m, n, k)
        q = qrs.quantize(w, scheme)
        y = expected_linear(x, q, how, bias, activation)
        expected = products.requantize(y, qp.scale, qp.zero_point, s.dtype, s.narrow_range)
        for where, got in everywhere(
            lambda x=x, q=q, bias=bias: qrs.linear(x, q, bias, activation, how, output=output)
        ):
            assert got.scheme == s and got.qparams == qp and got.shape == (m, n)
            assert np.array_equal(got.unpack(), expected), (where, m, n, k)


@by_output
def test_saturation_reaches_both_ends_of_the_codes(output):
    x = np.float32([[-1e6], [1e6], [-3e38], [3e38]])
    codes = qrs.linear(x, qrs.quantize([[1.0]], "int8"), output=output).unpack()
    assert codes.ravel().tolist() == [*output.scheme.code_range] * 2


@by_output
@pytest.mark.parametrize("activation", _core.activations())
def test_a_requantized_result_is_quantize_of_the_float_one(activation, output):
    """Also for the activations that the reference has tolerances for, and for shares of two threads."""
    x, w, bias = operands(130, 200, 64)
    q = qrs.quantize(w, WEIGHTS["int8-channel"])
    expected = qrs.quantize(qrs.linear(x, q, bias, activation, TOKEN), output.scheme, qparams=output.qparams)
    for where, got in everywhere(lambda: qrs.linear(x, q, bias, activation, TOKEN, output=output)):
        assert got == expected, where


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@by_output
def test_a_result_that_is_not_finite_becomes_codes_as_without_check_finite(output, special):
    x, q = np.float32([[special], [1.0]]), qrs.quantize([[1.0]], "int8")
    expected = qrs.quantize(qrs.linear(x, q), output.scheme, qparams=output.qparams, check_finite=False)
    assert qrs.linear(x, q, output=output) == expected


@by_output
@pytest.mark.parametrize("shape", [(0, 8), (2, 0, 8), (8,), (2, 3, 8), (3, 0)])
def test_a_requantized_result_has_the_leading_axes_and_owns_its_codes(output, shape):
    x, q = np.ones(shape, np.float32), qrs.quantize(np.ones((5, shape[-1]), np.float32), "int8")
    bias = np.arange(5, dtype=np.float32)
    got = qrs.linear(x, q, bias, output=output)
    assert got == qrs.quantize(qrs.linear(x, q, bias), output.scheme, qparams=output.qparams)
    assert got.shape == (*shape[:-1], 5)
    with pytest.raises(ValueError, match="WRITEABLE"):
        got.codes.flags.writeable = True


@by_output
@by_weight
def test_a_quantized_input_is_multiplied_by_its_codes(scheme, output):
    """The same as its values with its own parameters, so that codes flow from layer to layer."""
    x, w, bias = operands(5, 37, 75)
    q = qrs.quantize(w, scheme)
    codes = qrs.quantize(x, output.scheme, qparams=output.qparams)
    s, qp = codes.scheme, codes.qparams
    inputs = codes.unpack().astype(np.int64), *(np.full((5, 1), p) for p in (qp.scale, qp.zero_point))
    expected = products.linear_integer(inputs, weight_of(q), bias, "relu")
    for where, y in everywhere(lambda: qrs.linear(codes, q, bias, "relu")):
        assert same_bits(y, expected), where
    assert same_bits(qrs.linear(codes.dequantize(), q, bias, "relu", output), expected)
    assert same_bits(qrs.nn.Linear(q, bias, activation="relu")(codes), expected)
    chained = qrs.linear(codes, q, bias, "relu", output=output)
    assert np.array_equal(
        chained.unpack(), products.requantize(expected, qp.scale, qp.zero_point, s.dtype, s.narrow_range)
    )


def test_how_a_quantized_input_was_rounded_does_not_matter():
    x, w, _ = operands(5, 7, 75)
    q = qrs.quantize(w, "int8")
    for scheme in (
        qrs.Scheme("uint8", rounding="stochastic"),
        qrs.Scheme("int8", rounding="floor", scale_dtype="bfloat16", symmetric=False),
        qrs.Scheme("int4", scale_dtype="float16"),
    ):
        codes = qrs.quantize(x, scheme)
        plain = qrs.Scheme(scheme.dtype, symmetric=scheme.symmetric)
        values = qrs.linear(codes.dequantize(), q, input=qrs.Static(plain, qparams=codes.qparams))
        assert same_bits(qrs.linear(codes, q), values)


def test_with_input_a_quantized_input_counts_as_its_values():
    x, w, _ = operands(5, 7, 75)
    q, codes = qrs.quantize(w, "int8"), qrs.quantize(x, qrs.Scheme("uint8", qrs.per_token))
    assert same_bits(qrs.linear(codes, q, input=TOKEN), qrs.linear(codes.dequantize(), q, input=TOKEN))
    with pytest.raises(qrs.QrsValueError, match="x is a QTensor of per_token, expected per_tensor"):
        qrs.linear(codes, q)


def test_what_cannot_be_an_output_is_refused():
    x, w, _ = operands(5, 7, 75)
    q = qrs.quantize(w, "int8")
    with pytest.raises(qrs.QrsTypeError, match="output is Dynamic"):
        qrs.linear(x, q, output=qrs.Dynamic("uint8"))
    with pytest.raises(qrs.QrsTypeError, match="output is 'uint8', expected None or Static"):
        qrs.linear(x, q, output="uint8")
    with pytest.raises(qrs.NotCalibratedError, match="no qparams"):
        qrs.linear(x, q, output=qrs.Static("uint8"))
    with pytest.raises(qrs.QrsValueError, match=r"Static scheme is .*, expected per_tensor"):
        qrs.Static(qrs.Scheme("uint8", qrs.per_channel(1)))
    out = np.full((5, 7), 7, np.float32)
    with pytest.raises(qrs.QrsValueError, match="out and output are both given"):
        qrs.linear(x, q, out=out, output=OUTPUTS["uint8"])
    assert np.all(out == 7)


@pytest.mark.parametrize("shape", [(2, 150), (150,), (4, 50), (2, 2, 37), ()])
def test_the_last_axis_of_the_input_is_k(shape):
    """Also where the number of elements is a whole number of rows."""
    q = qrs.quantize(np.ones((7, 75), np.float32), "int8")
    for call in (
        lambda x: qrs.linear(x, q),
        lambda x: qrs.linear(x, q, output=OUTPUTS["uint8"]),
        qrs.nn.Linear(q),
    ):
        with pytest.raises(qrs.QrsValueError, match=r"x has shape .*, expected \(\.\.\., 75\)") as caught:
            call(np.ones(shape, np.float32))
        assert str(shape) in str(caught.value)
