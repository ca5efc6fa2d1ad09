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
by_weight = pytest.mark.parametrize("scheme", WEIGHTS.values(), ids=WEIGHTS.keys())
by_input = pytest.mark.parametrize("how", INPUTS.values(), ids=INPUTS.keys())


def weight_of(q):
    """The parts of a QTensor as the reference takes them: parameters spread to (n, groups)."""
    n, k = q.shape
    group = q.scheme.block(q.shape)[1]
    shape = (n, -(-k // max(group, 1)))
    scale, zero_point = (np.broadcast_to(p.reshape(-1, shape[1]), shape) for p in (q.scale, q.zero_point))
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
