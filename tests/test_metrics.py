"""What `compare` says, against float64 NumPy, and at the edges where a ratio has no value."""

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import qrs
from hypothesis import given
from hypothesis import strategies as st
from qrs import Comparison, compare


@pytest.mark.parametrize("shape", [(1,), (33,), (7, 1000), (3, 5, 7), ()], ids=str)
def test_compare_equals_float64(shape):
    rng = np.random.default_rng(4)
    x = rng.standard_normal(shape).astype(np.float32)
    y = (x + 0.01 * rng.standard_normal(shape)).astype(np.float32)
    got, a, b = compare(x, y), x.astype(np.float64), y.astype(np.float64)
    error = np.sum((a - b) ** 2)
    assert math.isclose(got.mse, error / a.size, rel_tol=1e-12)
    assert math.isclose(got.sqnr_db, 10 * np.log10(np.sum(a * a) / error), rel_tol=1e-12)
    cosine = np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b))
    assert math.isclose(got.cosine, cosine, rel_tol=1e-12)
    assert math.isclose(got.max_abs, np.abs(a - b).max(), rel_tol=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], Comparison(math.inf, 0.0, 1.0, 0.0)),
        ([0.0, 0.0], [0.0, 0.0], Comparison(math.inf, 0.0, 1.0, 0.0)),
        ([0.0, 0.0], [3.0, 4.0], Comparison(-math.inf, 12.5, 0.0, 4.0)),
        ([3.0, 4.0], [0.0, 0.0], Comparison(0.0, 12.5, 0.0, 4.0)),
        ([3.0, 4.0], [-3.0, -4.0], Comparison(10 * math.log10(0.25), 50.0, -1.0, 8.0)),
        ([], [], Comparison(math.inf, 0.0, 1.0, 0.0)),
        (np.ones((0, 4)), np.ones((0, 4)), Comparison(math.inf, 0.0, 1.0, 0.0)),
        ([1e-30], [1e-30], Comparison(math.inf, 0.0, 1.0, 0.0)),
    ],
)
def test_edges(x, y, expected):
    assert compare(x, y) == expected


def test_the_largest_values_do_not_overflow():
    x = np.full(1000, 3.4e38, np.float32)
    got = compare(x, -x)
    assert got.cosine == -1.0
    assert math.isclose(got.mse, 4 * float(np.float32(3.4e38)) ** 2, rel_tol=1e-9)
    assert math.isfinite(got.sqnr_db)


def test_a_tensor_is_compared_by_its_values():
    x = np.linspace(-1, 1, 101, dtype=np.float32)
    q = qrs.quantize(x, "int8")
    assert compare(x, q) == compare(x, q.dequantize())
    assert compare(x, q).sqnr_db > 40


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40), st.integers(-20, 20))
def test_more_bits_never_hurt_and_scale_does_not_matter(values, power):
    x = np.float32(values)
    x[np.abs(x) < 1e-3] = 0
    narrow, wide = (compare(x, qrs.quantize(x, fmt)).mse for fmt in ("int4", "int8"))
    assert wide <= narrow
    scaled = x * np.float32(2.0**power)
    got, same = compare(scaled, qrs.quantize(scaled, "int4")), compare(x, qrs.quantize(x, "int4"))
    assert got.cosine == same.cosine
    assert got.max_abs == same.max_abs * 2.0**power


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_by_name(bad):
    x = np.ones(40, np.float32)
    y = x.copy()
    y[17] = bad
    with pytest.raises(qrs.QrsValueError, match="y has values that are not finite"):
        compare(x, y)
    with pytest.raises(qrs.QrsValueError, match="x has values that are not finite"):
        compare(y, x)


def test_shapes_and_dtypes_are_checked():
    with pytest.raises(qrs.QrsValueError, match=r"x has shape \(3,\) and y \(4,\)"):
        compare([1.0] * 3, [1.0] * 4)
    with pytest.raises(qrs.QrsTypeError, match="y has dtype int64"):
        compare([1.0], np.ones(1, np.int64))
    with pytest.raises(FrozenInstanceError):
        compare([1.0], [1.0]).mse = 0
