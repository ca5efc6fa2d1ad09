"""The float32 operations beside the products: near float64, and the same bits everywhere."""

import numpy as np
import pytest
from machine import everywhere
from qrs import _core
from reference import layers


def same_bits(a, b):
    return np.array_equal(a.view(np.int32), b.view(np.int32))


def check(call, shape, expected, rtol, atol):
    """`call(out)` is within tolerance, and gives the same bits on every instruction set and thread count."""

    def compute():
        out = np.empty(shape, np.float32)
        call(out)
        return out

    first = compute()
    np.testing.assert_allclose(first, expected, rtol, atol)
    for where, got in everywhere(compute):
        assert same_bits(got, first), where


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", _core.activations())
def test_activations_keep_their_stated_error(name):
    x = np.concatenate(
        [np.linspace(-110, 110, 20_001), np.linspace(-5, 5, 20_001), [0.0, -0.0, 1e-40, 3e38, -3e38]]
    )
    x = x.astype(np.float32)
    exact = layers.activate(x, name)
    limit = (
        2.5e-7 * np.maximum(1, np.abs(x))
        if name != "tanh"
        else 4 * np.spacing(np.abs(exact).astype(np.float32))
    )

    def compute():
        out = np.empty_like(x)
        _core.activate(x, name, out)
        return out

    first = compute()
    assert np.all(np.abs(first - exact) <= limit)
    assert all(same_bits(got, first) for _, got in everywhere(compute))


@pytest.mark.parametrize("name", _core.activations())
def test_activations_of_special_values(name):
    x = np.float32([np.nan, np.inf, -np.inf])
    out = np.empty_like(x)
    _core.activate(x, name, out)
    assert np.isnan(out[0])
    limits = {"none": (np.inf, -np.inf), "tanh": (1, -1)}
    assert tuple(out[1:]) == limits.get(name, (np.inf, 0))


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (5, 16), (33, 129), (400, 384)])
def test_softmax(shape):
    x = normal(shape[1], *shape) * 8
    check(lambda out: _core.softmax(x, out), shape, layers.softmax(x), 2e-6, 1e-9)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (5, 16), (33, 129), (400, 384)])
@pytest.mark.parametrize("extras", [True, False], ids=["residual-bias", "plain"])
def test_layer_norm(shape, extras):
    x = normal(1, *shape) * 3 + 40
    weight, eps = normal(2, shape[1]), 1e-5
    residual, bias = (normal(3, *shape), normal(4, shape[1])) if extras else (None, None)
    expected = layers.layer_norm(x, residual, weight, bias, eps)
    check(lambda out: _core.layer_norm(x, residual, weight, bias, eps, out), shape, expected, 1e-4, 1e-4)


@pytest.mark.parametrize(
    ("batch", "m", "n", "heads", "width"), [(1, 1, 1, 1, 1), (2, 3, 5, 2, 6), (3, 40, 33, 12, 384)]
)
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "open"])
def test_attention(batch, m, n, heads, width, masked):
    q, k, v = normal(5, batch, m, width), normal(6, batch, n, width), normal(7, batch, n, width)
    mask = None
    if masked:
        mask = np.zeros((batch, n), np.float32)
        mask[:, n // 2 + 1 :] = -np.inf
    scale = (width / heads) ** -0.5
    expected = layers.attention(q, k, v, mask, heads, scale)
    check(lambda out: _core.attention(q, k, v, mask, heads, scale, out), q.shape, expected, 1e-4, 2e-6)


def test_a_query_without_keys_gives_zeros():
    q, v = normal(8, 1, 2, 4), normal(9, 1, 3, 4)
    out = np.full((1, 2, 4), 7, np.float32)
    _core.attention(q, v, v, np.full((1, 3), -np.inf, np.float32), 2, 1.0, out)
    assert not out.any()
