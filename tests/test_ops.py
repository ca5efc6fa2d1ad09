"""Array functions: what they accept, what they hand to the native calls, what they refuse by name.

Which numbers come out is the matter of test_laws.py, test_gemm.py and test_linear.py.
"""

import numpy as np
import pytest
import qrs
from qrs import Dynamic, Scheme, Static, per_channel, per_group, per_token


def values(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# ---- quantize and fake_quantize


def test_parameters_may_be_given():
    x = values((4, 6))
    scheme = Scheme("uint8", per_channel(0))
    qp = scheme.qparams(np.full(4, -2.0), np.full(4, 3.0))
    q = qrs.quantize(x, scheme, qparams=qp)
    assert q.qparams == qp
    assert q.qparams is qp
    assert np.array_equal(qrs.fake_quantize(x, scheme, qparams=qp), q.dequantize())
    assert qrs.quantize(x, scheme).qparams == scheme.qparams(x.min(axis=1), x.max(axis=1))


def test_the_seed_chooses_stochastic_roundings():
    x = values(1000)
    scheme = Scheme("int4", rounding="stochastic")
    first = qrs.quantize(x, scheme, seed=1)
    assert first == qrs.quantize(x, scheme, seed=1)
    assert first != qrs.quantize(x, scheme, seed=2)
    assert np.array_equal(qrs.fake_quantize(x, scheme, seed=1), first.dequantize())
    assert qrs.quantize(x, scheme, seed=2**64 - 1).shape == (1000,)


@pytest.mark.parametrize(
    ("seed", "error"), [(-1, ValueError), (2**64, ValueError), (1.0, TypeError), (None, TypeError)]
)
def test_a_wrong_seed_is_named(seed, error):
    for use in (qrs.quantize, qrs.fake_quantize):
        with pytest.raises(error, match=f"seed is {seed}"):
            use([1.0], "int8", seed=seed)


@pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0), (0, 0, 3)], ids=str)
@pytest.mark.parametrize(
    "scheme", [Scheme("int8"), Scheme("uint4", per_token), Scheme("uint4", per_group(3))], ids=repr
)
def test_an_empty_array_is_empty_and_has_scale_1(shape, scheme):
    x = np.ones(shape, np.float32)
    q = qrs.quantize(x, scheme)
    assert (q.shape, q.codes.size, q.unpack().shape) == (shape, 0, shape)
    assert (q.scale == 1).all()
    assert q.scale.shape == scheme.params_shape(shape)
    assert q.dequantize().shape == qrs.fake_quantize(x, scheme).shape == shape
    out = np.ones(shape, np.float32)
    assert qrs.fake_quantize(x, scheme, out=out) is out


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 17, 255, 256])
def test_values_that_are_not_finite_are_counted_and_located(bad, at):
    x = values(257)
    x[[at, -1]] = bad
    count = len({at, 256})
    qp = qrs.quantize(values(257), "int8").qparams
    for use in (
        lambda: qrs.quantize(x, "int8"),
        lambda: qrs.quantize(x, "int8", qparams=qp),
        lambda: qrs.fake_quantize(x, "int8"),
        lambda: qrs.linear(x, qrs.quantize(values((3, 257)), "int8"), input=Dynamic("int8")),
    ):
        with pytest.raises(qrs.QrsValueError, match=rf"\b{count}\b.*\b{at}\b"):
            use()


def test_unchecked_values_have_their_written_answers():
    qp = qrs.QParams(0.5, 3)
    x = np.float32([np.nan, np.inf, -np.inf, 1.0])
    assert qrs.quantize(x, "uint4", qparams=qp, check_finite=False).unpack().tolist() == [3, 15, 0, 5]
    y = qrs.fake_quantize(x, "uint4", qparams=qp)
    assert np.isnan(y[0])
    assert y[1:].tolist() == [6.0, -1.5, 1.0]


def test_unchecked_values_that_are_not_finite_leave_a_finite_range():
    q = qrs.quantize([1.0, np.nan, -2.0], "int8", check_finite=False)
    assert q.qparams == qrs.quantize([1.0, -2.0], "int8").qparams
    assert q.dequantize()[1] == 0
    q = qrs.quantize([1.0, np.inf], "int8", check_finite=False)
    assert q.qparams == Scheme("int8").qparams(0.0, np.finfo(np.float32).max)
    assert q.unpack().tolist() == [0, 127]
    rows = qrs.quantize(np.full((2, 3), np.nan), Scheme("uint8", per_channel(0)), check_finite=False)
    assert (rows.scale == 1).all()
    assert (rows.dequantize() == 0).all()


# ---- matmul_integer


@pytest.mark.parametrize("left", [np.int8, np.uint8])
@pytest.mark.parametrize("right", [np.int8, np.uint8])
def test_products_of_any_form_are_exact(left, right):
    rng = np.random.default_rng(5)
    a, b = (rng.integers(0, 256, shape).astype(np.uint8) for shape in ((7, 33), (33, 9)))
    a, b = a.view(left), b.view(right)
    za, zb = int(a[0, 0]), int(b[0, 0])
    expected = (a.astype(np.int64) - za) @ (b.astype(np.int64) - zb)
    for x in (a, np.asfortranarray(a), a[:, ::-1][:, ::-1]):
        for y in (b, np.asfortranarray(b), b[::-1][::-1]):
            got = qrs.matmul_integer(x, y, za, zb)
            assert got.dtype == np.int32
            assert np.array_equal(got, expected)
    out = np.empty((9, 7), np.int32).T
    assert qrs.matmul_integer(a, b, za, zb, out=out) is out
    assert np.array_equal(out, expected)


@pytest.mark.parametrize(("m", "k", "n"), [(0, 3, 4), (3, 4, 0), (3, 0, 4), (0, 0, 0)])
def test_empty_products(m, k, n):
    out = np.full((m, n), 7, np.int32)
    got = qrs.matmul_integer(np.ones((m, k), np.int8), np.ones((k, n), np.uint8), 1, 2, out=out)
    assert got is out
    assert (got == 0).all()


I8 = np.ones((2, 3), np.int8)


@pytest.mark.parametrize(
    ("a", "b", "more", "error", "message"),
    [
        (I8, I8, {}, ValueError, r"a has shape \(2, 3\) and b \(2, 3\), expected \(m, k\) and \(k, n\)"),
        (I8[0], I8.T, {}, ValueError, r"a has shape \(3,\)"),
        (I8[None], I8.T, {}, ValueError, r"a has shape \(1, 2, 3\)"),
        (I8.astype(np.int16), I8.T, {}, TypeError, "a has dtype int16, expected int8 or uint8"),
        (I8, I8.T.astype(np.float32), {}, TypeError, "b has dtype float32"),
        (I8, I8.T.astype(bool), {}, TypeError, "b has dtype bool"),
        ([[1, 2, 3]], I8.T, {}, TypeError, "a has dtype int64"),
        (I8, I8.T, {"a_zero_point": 128}, ValueError, "a_zero_point is 128, expected -128 to 127 of int8"),
        (I8, I8.T.view(np.uint8), {"b_zero_point": -1}, ValueError, "b_zero_point is -1, expected 0 to 255"),
        (I8, I8.T, {"b_zero_point": 1.0}, TypeError, "b_zero_point is 1.0, expected an integer"),
        (I8, I8.T, {"out": np.zeros((2, 2))}, TypeError, "out has dtype <f8, expected int32"),
        (
            I8,
            I8.T,
            {"out": np.zeros((2, 3), np.int32)},
            ValueError,
            r"out has shape \(2, 3\), expected \(2, 2\)",
        ),
    ],
)
def test_wrong_operands_are_named(a, b, more, error, message):
    with pytest.raises(error, match=message) as caught:
        qrs.matmul_integer(a, b, **more)
    assert isinstance(caught.value, qrs.QrsError)


def test_out_of_a_product_overlaps_no_operand():
    base = np.zeros(64, np.int32)
    a = base.view(np.int8)[3:9].reshape(2, 3)
    with pytest.raises(qrs.QrsValueError, match="out overlaps a"):
        qrs.matmul_integer(a, I8.T, out=base[2:6].reshape(2, 2))
    with pytest.raises(qrs.QrsValueError, match="out overlaps b"):
        qrs.matmul_integer(I8, a.T, out=base[2:6].reshape(2, 2))


# ---- linear


@pytest.fixture(scope="module")
def weight():
    return qrs.quantize(values((5, 48)), Scheme("int8", per_channel(0)))


S8 = Scheme("uint8")
INPUTS = [
    None,
    Dynamic(Scheme("int8", per_token)),
    Dynamic("uint8"),
    Static(S8, qparams=S8.qparams(-4.0, 4.0)),
]
by_input = pytest.mark.parametrize("input", INPUTS, ids=["none", "per token", "dynamic", "static"])


@by_input
def test_linear_is_near_the_float_product(weight, input):
    x, bias = values((2, 3, 48), 1), values(5, 2)
    expected = x @ np.asarray(weight).T + bias
    y = qrs.linear(x, weight, bias, input=input)
    assert (y.shape, y.dtype) == ((2, 3, 5), np.float32)
    assert qrs.compare(expected, y).sqnr_db > (90 if input is None else 35)
    assert np.array_equal(qrs.linear(x, weight, bias, "relu", input), np.maximum(y, 0))


@by_input
def test_linear_takes_any_form_and_writes_through_out(weight, input):
    x, bias = values((7, 48), 1), values(5, 2)
    y = qrs.linear(x, weight, bias, input=input)
    for form in (x.tolist(), np.asfortranarray(x), x[::-1][::-1], x.astype(np.float64), x.astype(">f4")):
        assert np.array_equal(qrs.linear(form, weight, bias.tolist(), input=input), y)
    for out in (
        np.empty((7, 5), np.float32),
        np.empty((5, 7), np.float32).T,
        np.empty((7, 10), np.float32)[:, ::2],
    ):
        assert qrs.linear(x, weight, bias, input=input, out=out) is out
        assert np.array_equal(out, y)


@by_input
def test_linear_of_one_vector_and_of_none(weight, input):
    x = values((4, 48), 1)
    rows = qrs.linear(x, weight, input=input)
    if input is None or input.scheme.granularity == per_token or isinstance(input, Static):
        assert np.array_equal(qrs.linear(x[2], weight, input=input), rows[2])
        assert np.array_equal(qrs.linear(x.reshape(2, 2, 48), weight, input=input), rows.reshape(2, 2, 5))
    assert qrs.linear(x[0], weight, input=input).shape == (5,)
    assert qrs.linear(x[:0], weight, input=input).shape == (0, 5)
    assert qrs.linear(np.ones((2, 0, 48)), weight, input=input).shape == (2, 0, 5)


@by_input
def test_linear_without_columns_or_without_depth(input):
    thin = qrs.quantize(np.ones((0, 4), np.float32), Scheme("int8", per_channel(0)))
    assert qrs.linear(np.ones((3, 4)), thin, input=input).shape == (3, 0)
    flat = qrs.quantize(np.ones((2, 0), np.float32), Scheme("int8", per_channel(0)))
    bias = np.float32([1.5, -2.5])
    assert (qrs.linear(np.ones((3, 0)), flat, input=input) == 0).all()
    assert (qrs.linear(np.ones((3, 0)), flat, bias, input=input) == bias).all()
    assert (qrs.linear(np.ones((3, 0)), flat, bias, "relu", input=input) == [1.5, 0.0]).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"q": np.ones((5, 48))}, TypeError, "q is a ndarray, expected a QTensor; quantize the weight first"),
        ({"q": qrs.quantize([1.0], "int8")}, ValueError, r"q has shape \(1,\), expected \(n, k\)"),
        (
            {"x": np.ones((2, 47))},
            ValueError,
            r"x has shape \(2, 47\), expected \(..., 48\) for a weight of shape",
        ),
        ({"x": 1.0}, ValueError, r"x has shape \(\), expected"),
        ({"x": np.ones((2, 48), np.int8)}, TypeError, "x has dtype int8"),
        ({"bias": np.ones(4)}, ValueError, r"bias has shape \(4,\), expected \(5,\) for a weight of shape"),
        ({"bias": np.ones(5, bool)}, TypeError, "bias has dtype bool"),
        ({"activation": "rleu"}, ValueError, "unknown activation 'rleu'; did you mean 'relu'"),
        ({"activation": 1}, ValueError, "unknown activation 1"),
        ({"input": "int8"}, TypeError, "input is 'int8', expected None, Dynamic or Static"),
        (
            {"input": Static("uint8")},
            qrs.NotCalibratedError,
            r"Static\(Scheme\('uint8'\)\) has no qparams; calibrate",
        ),
        ({"out": np.zeros((2, 4), np.float32)}, ValueError, r"out has shape \(2, 4\), expected \(2, 5\)"),
    ],
)
def test_wrong_arguments_of_linear_are_named(weight, arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        qrs.linear(**{"x": np.ones((2, 48), np.float32), "q": weight, **arguments})
    assert isinstance(caught.value, qrs.QrsError)


def test_out_of_linear_overlaps_no_input(weight):
    base = np.zeros(200, np.float32)
    x, bias = base[:96].reshape(2, 48), base[100:105]
    with pytest.raises(qrs.QrsValueError, match="out overlaps x"):
        qrs.linear(x, weight, out=base[90:100].reshape(2, 5))
    with pytest.raises(qrs.QrsValueError, match="out overlaps bias"):
        qrs.linear(x, weight, bias, out=base[96:106].reshape(2, 5))


# ---- inputs


def test_inputs_are_values():
    assert Dynamic("int8") == Dynamic(Scheme("int8"))
    assert Static("uint8", qrs.observers.MinMax()) == Static("uint8", qrs.observers.MinMax())
    assert eval(repr(Dynamic(Scheme("int8", per_token)))) == Dynamic(Scheme("int8", per_token))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Dynamic(Scheme("int8", per_channel(0))), ValueError, r"expected per_token or per_tensor"),
        (
            lambda: Static(Scheme("int8", per_token)),
            ValueError,
            "Static scheme is per_token, expected per_tensor",
        ),
        (
            lambda: Dynamic(Scheme("int8", rounding="floor")),
            ValueError,
            "rounding 'floor', expected 'half_even'",
        ),
        (lambda: Dynamic(Scheme("int8", scale_dtype="float16")), ValueError, "scale_dtype 'float16'"),
        (lambda: Dynamic(Scheme("uint8", fit="mse")), ValueError, "fit 'mse', expected 'minmax'"),
        (lambda: Dynamic(8), TypeError, "scheme is 8"),
        (lambda: Static("int8", observer="minmax"), TypeError, "observer is 'minmax', expected an observer"),
        (lambda: Static("int8", qparams=qrs.QParams([1.0])), ValueError, r"scale has shape \(1,\)"),
        (lambda: Static("int8", qparams=qrs.QParams(1.0, 5)), ValueError, "zero_point is 5, expected 0"),
        (lambda: Static("int8", qparams=(1.0, 0)), TypeError, "expected QParams"),
    ],
)
def test_wrong_inputs_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
