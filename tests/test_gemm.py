"""matmul_integer is exact: every sign mix, edge shape, instruction set and thread count, against int64."""

import itertools
import re

import numpy as np
import pytest
import qrs
from machine import ISAS, THREADS, everywhere, machine
from reference.products import matmul_integer as reference

EDGES = (1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129)
DTYPES = (np.int8, np.uint8)
MIXES = [pytest.param(a, b, id=f"{a.__name__}-{b.__name__}") for a in DTYPES for b in DTYPES]
EXTREMES = {np.int8: (-128, 127, 0, -1), np.uint8: (0, 255, 128, 1)}


def operand(rng, shape, dtype):
    """Random codes, a third of them extreme."""
    info = np.iinfo(dtype)
    codes = rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    return np.where(rng.random(shape) < 0.3, rng.choice(np.array(EXTREMES[dtype], dtype), shape), codes)


def largest(dtype, zero_point):
    """The largest |code − zero_point|."""
    info = np.iinfo(dtype)
    return max(info.max - zero_point, zero_point - info.min)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("a_dtype", "b_dtype"), MIXES)
def test_every_edge_shape_is_exact(a_dtype, b_dtype, isa):
    rng = np.random.default_rng(11)
    a_all, b_all = operand(rng, (129, 129), a_dtype), operand(rng, (129, 129), b_dtype)
    zero_points = [(0, 0), (3, 0), (0, 7), (EXTREMES[a_dtype][1], EXTREMES[b_dtype][0])]
    for number, (m, n, k) in enumerate(itertools.product(EDGES, repeat=3)):
        a, b = np.ascontiguousarray(a_all[:m, :k]), np.ascontiguousarray(b_all[:k, :n])
        za, zb = zero_points[number % len(zero_points)]
        expected = reference(a, b, za, zb)
        for threads in THREADS:
            with machine(isa, threads):
                got = qrs.matmul_integer(a, b, a_zero_point=za, b_zero_point=zb)
            assert got.dtype == np.int32
            assert np.array_equal(got, expected), (m, n, k, za, zb, threads)


@pytest.mark.parametrize(("a_dtype", "b_dtype"), MIXES)
def test_operands_full_of_extremes_are_exact(a_dtype, b_dtype):
    """The products that saturate in 16 bits on CPUs without exact 8-bit dot products."""
    for x, y in itertools.product(EXTREMES[a_dtype][:3], EXTREMES[b_dtype][:3]):
        for m, n, k in [(1, 1, 2), (1, 17, 64), (7, 16, 64), (65, 33, 129), (13, 200, 1000)]:
            a, b = np.full((m, k), x, a_dtype), np.full((k, n), y, b_dtype)
            for where, got in everywhere(lambda a=a, b=b: qrs.matmul_integer(a, b)):
                assert np.all(got == k * x * y), (where, m, n, k, x, y)


def test_all_products_of_two_codes_are_exact():
    for a_dtype, b_dtype in itertools.product(DTYPES, repeat=2):
        a = np.arange(256).astype(a_dtype).reshape(256, 1)
        b = np.arange(256).astype(b_dtype).reshape(1, 256)
        for where, got in everywhere(lambda a=a, b=b: qrs.matmul_integer(a, b)):
            assert np.array_equal(got, reference(a, b)), where


@pytest.mark.parametrize("seed", range(12))
def test_large_random_shapes_are_exact(seed):
    """Shapes that cross the cache blocks and are shared between threads."""
    rng = np.random.default_rng(seed)
    m, n = (int(x) for x in rng.integers(1, 400, 2))
    k = int(rng.integers(1, 3000)) if seed % 2 else int(rng.integers(1, 300))
    a_dtype, b_dtype = (DTYPES[i] for i in rng.integers(0, 2, 2))
    a, b = operand(rng, (m, k), a_dtype), operand(rng, (k, n), b_dtype)
    za, zb = (int(rng.integers(np.iinfo(d).min, np.iinfo(d).max + 1)) for d in (a_dtype, b_dtype))
    # Exact in float64 (below 2⁵³), and far faster than NumPy's int64 product.
    expected = (a.astype(np.float64) - za) @ (b.astype(np.float64) - zb)
    for where, got in everywhere(lambda: qrs.matmul_integer(a, b, za, zb)):
        assert np.array_equal(got, expected), (where, m, n, k, za, zb)


@pytest.mark.parametrize("zero_points", [(0, 0), (-128, 127)])
@pytest.mark.parametrize(("a_dtype", "b_dtype"), MIXES)
def test_k_up_to_the_limit_is_exact_and_beyond_it_an_error(a_dtype, b_dtype, zero_points):
    za, zb = (z if d is np.int8 else z % 256 for z, d in zip(zero_points, (a_dtype, b_dtype), strict=True))
    limit = (2**31 - 1) // (largest(a_dtype, za) * largest(b_dtype, zb))
    worst_a = max(EXTREMES[a_dtype], key=lambda x: abs(x - za))
    worst_b = max(EXTREMES[b_dtype], key=lambda x: abs(x - zb))
    for m in (1, 3):
        a, b = np.full((m, limit), worst_a, a_dtype), np.full((limit, 2), worst_b, b_dtype)
        for where, got in everywhere(lambda a=a, b=b: qrs.matmul_integer(a, b, za, zb)):
            assert np.all(got.astype(np.int64) == limit * (worst_a - za) * (worst_b - zb)), where
    a, b = np.full((1, limit + 1), worst_a, a_dtype), np.full((limit + 1, 1), worst_b, b_dtype)
    with pytest.raises(OverflowError, match=re.escape(str(limit))):
        qrs.matmul_integer(a, b, za, zb)


@pytest.mark.parametrize(("m", "n", "k"), [(0, 4, 3), (4, 0, 3), (0, 0, 0), (2, 3, 0)])
def test_empty_dimensions(m, n, k):
    a, b = np.zeros((m, k), np.int8), np.ones((k, n), np.uint8)
    for where, got in everywhere(lambda: qrs.matmul_integer(a, b, 1, 2)):
        assert got.shape == (m, n), where
        assert not got.any(), where


def test_the_form_of_an_operand_does_not_matter():
    rng = np.random.default_rng(5)
    a, b = operand(rng, (9, 14), np.int8), operand(rng, (14, 10), np.uint8)
    expected = reference(a, b, 1, 2)
    wide = np.zeros((18, 28), np.int8)
    wide[::2, ::2] = a
    read_only = a.copy()
    read_only.flags.writeable = False
    for form in (np.asfortranarray(a), wide[::2, ::2], a[::-1].copy()[::-1], read_only):
        assert np.array_equal(qrs.matmul_integer(form, np.asfortranarray(b), 1, 2), expected)


@pytest.mark.parametrize(
    ("a", "b", "error"),
    [
        (np.zeros((2, 3), np.int8), np.zeros((4, 2), np.int8), ValueError),
        (np.zeros(3, np.int8), np.zeros((3, 2), np.int8), ValueError),
        (np.zeros((2, 3), np.int16), np.zeros((3, 2), np.int8), TypeError),
        (np.zeros((2, 3), np.float32), np.zeros((3, 2), np.int8), TypeError),
        (np.zeros((2, 3), bool), np.zeros((3, 2), np.int8), TypeError),
    ],
)
def test_wrong_operands_are_named(a, b, error):
    with pytest.raises(error, match=r"\b(a|b)\b"):
        qrs.matmul_integer(a, b)


@pytest.mark.parametrize(("za", "zb"), [(128, 0), (-129, 0), (0, 256), (0, -1)])
def test_zero_points_outside_of_the_type_are_refused(za, zb):
    with pytest.raises(ValueError, match="zero_point"):
        qrs.matmul_integer(np.zeros((2, 3), np.int8), np.zeros((3, 2), np.uint8), za, zb)


def test_every_kernel_name_states_its_row():
    names = [row["name"] for row in qrs.kernels()]
    assert len(set(names)) == len(names)
    for row in qrs.kernels():
        assert row["name"].startswith("gemm_")
        assert row["name"].endswith(f"_{row['isa']}")
