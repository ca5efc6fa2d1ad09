"""The reference against hand-computed examples and the released numbers of other libraries."""

import json
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from reference import layers, products, rounding, tensor

DATA = Path(os.environ.get("QRS_TEST_DATA", Path(__file__).parents[2] / "shared/data")).resolve()
ONNX_FORMATS = {f"{sign}INT{bits}": f"{sign}int{bits}".lower() for sign in ("", "U") for bits in (2, 4, 8)}


def vectors(operator):
    """The single-node cases of this operator whose types the reference knows, as pytest parameters."""
    return [case for folder in ("onnx_node", "onnx_ops") for case in vectors_in(folder, operator)]


def vectors_in(folder, operator):
    listing = DATA / folder / "cases.json"
    if not listing.exists():
        reason = f"no {folder} vectors under {DATA}: set QRS_TEST_DATA to the folder that holds them"
        return [pytest.param(None, id=folder, marks=pytest.mark.skip(reason=reason))]
    known = {*ONNX_FORMATS, "FLOAT", "INT32"}
    found = []
    for case in json.loads(listing.read_text()):
        types = {slot["dtype"] for slot in case["inputs"] + case["outputs"] if slot}
        if case["op"] == operator and types <= known and case["inputs"][0]["dtype"] != "INT32":
            found.append(pytest.param((folder, case), id=case["name"]))
    return found


def arrays(found):
    """Attributes, four inputs (None: left out) and outputs, each with its second acceptable form if any."""
    folder, case = found
    store = np.load(DATA / folder / "cases.npz")

    def array(slot, key="key"):
        stored = store[slot[key]]
        return stored.view(np.int8) if slot["dtype"] == "INT2" else stored

    inputs = [slot and array(slot) for slot in case["inputs"]]
    outputs = [[array(slot, key) for key in ("key", "alt_key") if key in slot] for slot in case["outputs"]]
    return case["attrs"], inputs + [None] * (4 - len(inputs)), outputs


def block_of(shape, scale, attrs):
    """The block lengths of an ONNX QuantizeLinear node."""
    block, axis = list(shape), attrs.get("axis", 1)
    if scale.size > 1 or attrs.get("block_size"):
        size = attrs.get("block_size", 0)
        block = [1] * len(shape) if size else block
        block[axis] = size or 1
    return block


# ---- worked by hand


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("half_even", [-2, -2, 0, 0, 2, 2, 0, 0, 3, -3]),
        ("half_away", [-3, -2, -1, 1, 2, 3, 0, 0, 3, -3]),
        ("half_up", [-2, -1, 0, 1, 2, 3, 0, 0, 3, -3]),
        ("floor", [-3, -2, -1, 0, 1, 2, 0, -1, 2, -4]),
        ("ceil", [-2, -1, 0, 1, 2, 3, 1, 0, 3, -3]),
        ("toward_zero", [-2, -1, 0, 0, 1, 2, 0, 0, 2, -3]),
    ],
)
def test_rounding_of_ties_and_of_the_largest_value_below_a_half(mode, expected):
    below = 0.49999997
    v = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, below, -below, 2.75, -3.25], np.float32)
    np.testing.assert_array_equal(rounding.round_to(v, mode), expected)


def test_philox_matches_the_published_vectors():
    f = 0xFFFFFFFF
    known = [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([f] * 4, [f] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ]
    for counter, key, words in known:
        assert rounding.philox4x32(counter, key) == words
    first = [word >> 8 for word in known[0][2]]
    assert (rounding.uniform(6, seed=0)[:4] * 2**24).tolist() == first


def test_stochastic_rounding_has_the_mean_of_its_input():
    v = np.full(4000, 0.25, np.float32)
    assert abs(rounding.round_to(v, "stochastic", seed=7).mean() - 0.25) < 0.03


def test_cells_of_every_granularity():
    assert tensor.cells((2, 3), (2, 3)).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert tensor.cells((2, 3), (1, 3)).tolist() == [[0, 0, 0], [1, 1, 1]]
    assert tensor.cells((2, 3), (2, 1)).tolist() == [[0, 1, 2], [0, 1, 2]]
    assert tensor.cells((2, 5), (1, 2)).tolist() == [[0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]
    assert tensor.cells((3, 3), (2, 2)).tolist() == [[0, 0, 1], [0, 0, 1], [2, 2, 3]]
    assert tensor.cell_count((3, 0), (3, 0)) == 0
    assert tensor.cell_count((), ()) == 1


@pytest.mark.parametrize(
    ("lo", "hi", "fmt", "symmetric", "narrow", "scale", "zero_point"),
    [
        (-1.0, 2.54, "int8", True, True, 2.54 / 127, 0),
        (-1.6, 0.7, "int4", True, False, 0.2, 0),
        (-0.8, 1.4, "int4", True, False, 0.2, 0),
        (0.0, 2.55, "uint8", False, False, 0.01, 0),
        (-1.0, 1.55, "uint8", False, False, 0.01, 100),
        (0.5, 2.55, "uint8", False, False, 0.01, 0),
        (-2.55, -0.5, "uint8", False, False, 0.01, 255),
        (0.0, 0.0, "int8", True, True, 1.0, 0),
        (0.0, 0.0, "uint4", True, False, 1.0, 8),
        (0.0, 1.4, "uint4", True, False, 0.2, 8),
        (-1.0, 1.0, "int1", True, False, 1.0, 0),
        (0.0, 1e-44, "int8", True, True, 2.0**-126, 0),
        # The largest scales with which every code is finite: 127 · scale and 128 · scale stay below infinity.
        (-3.4028235e38, 3.4028235e38, "int8", True, True, np.nextafter(np.float32(3.4028235e38) / 127, 0), 0),
        (-3.4028235e38, 3.4028235e38, "uint8", False, False, 3.4028235e38 / 128, 128),
    ],
)
def test_qparams_by_hand(lo, hi, fmt, symmetric, narrow, scale, zero_point):
    s, zp = tensor.qparams(np.float32([lo]), np.float32([hi]), fmt, symmetric, narrow)
    np.testing.assert_allclose(s, np.float32([scale]), rtol=1e-7)
    assert zp.tolist() == [zero_point]


def test_scale_dtypes_round_half_to_even_and_stay_normal_and_finite():
    one = np.float64([1 + 2.0**-8, 1 + 3 * 2.0**-8])
    assert tensor.to_scale_dtype(one, "bfloat16").tolist() == [1.0, 1 + 4 * 2.0**-8]
    ends = np.float64([1e-9, 1e9])
    assert tensor.to_scale_dtype(ends, "float16").tolist() == [2.0**-14, 65504.0]
    ends = np.float64([1e-45, 3.4028235e38])
    assert tensor.to_scale_dtype(ends, "bfloat16").tolist() == [2.0**-126, float(2.0**128 - 2.0**120)]


def test_special_values():
    x = np.float32([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3e38, -3e38])
    codes = tensor.quantize(x, x.shape, np.float32(0.1), np.int32(3), "uint8")
    assert codes.tolist() == [3, 255, 0, 3, 3, 255, 0]
    y = tensor.fake_quantize(x, x.shape, np.float32(0.5), np.int32(3), "uint8")
    assert np.isnan(y[0])
    assert y[1:].tolist() == [126.0, -1.5, 0.0, 0.0, 126.0, -1.5]


def test_packing_by_hand():
    assert tensor.pack(np.array([1, 2, 3]), 4).tolist() == [0x21, 0x03]
    assert tensor.pack(np.array([-1, 0, -8]), 4).tolist() == [0x0F, 0x08]
    assert tensor.pack(np.array([1, 2, 3, 4, 5, 6, 7, 0, 1]), 3).tolist() == [0xD1, 0x58, 0x1F, 0x01]
    assert tensor.pack(np.array([-1, 0, 0, -1]), 1).tolist() == [0x09]
    assert tensor.unpack(np.uint8([0x0F, 0x08]), 4, True, 3).tolist() == [-1, 0, -8]
    assert tensor.unpack(np.uint8([0x0F, 0x08]), 4, False, 3).tolist() == [15, 0, 8]


def test_fma_rounds_once():
    """Against exact rationals, on triples where a float64 sum rounded twice goes wrong."""
    rng = np.random.default_rng(3)
    a = np.concatenate([rng.standard_normal(2000), rng.standard_normal(2000) * 2.0**-24, [1 + 2.0**-23] * 3])
    b = np.concatenate([rng.integers(-255, 256, 4000), [1, 3, 255]])
    c = np.concatenate([rng.standard_normal(4000), [2.0**-24, 2.0**-48, -(2.0**30)]])
    a, c = a.astype(np.float32), c.astype(np.float32)
    for x, y, z, got in zip(a, b, c, products.fma(a, b, c), strict=True):
        exact = Fraction(float(x)) * int(y) + Fraction(float(z))
        candidates = [np.nextafter(got, np.float32(end)) for end in (-np.inf, np.inf)]
        distance = abs(Fraction(float(got)) - exact)
        for other in candidates:
            gap = abs(Fraction(float(other)) - exact)
            assert distance < gap or (distance == gap and got.view(np.int32) % 2 == 0)


def test_fma_of_a_sum_that_two_roundings_get_wrong():
    """5237765 · 205 = 2³⁰ + 1: the exact sum is 2⁻⁵⁴ above a tie of float32, which float64 rounds away."""
    a, one = np.float32([5237765 * 2.0**-54]), np.float32([1])
    assert products.fma(a, 205, one) == 1 + 2.0**-23
    assert products.fma(a, -205, -one) == -1 - 2.0**-23
    assert np.float32(np.float64(a) * 205 + 1) == 1


def test_linear_by_hand():
    x = np.float32([[1.0, -2.0, 0.5]])
    weight = products.Weight(np.array([[1, 2, -3]]), np.float32([[0.5, 0.25]]), np.array([[0, 1]]), 2, "int4")
    # Group 0: 1·1 − 2·2 = −3, times 0.5; group 1: 0.5·(−3 − 1) = −2, times 0.25.
    assert products.linear_float(x, weight).tolist() == [[-2.0]]
    assert products.linear_float(x, weight, np.float32([1.0]), "relu").tolist() == [[0.0]]
    inputs = products.static(x, "int8", 0.5, 0, True)
    assert inputs[0].tolist() == [[2, -4, 1]]
    assert products.linear_integer(inputs, weight, np.float32([3.0])).tolist() == [[1.0]]


def test_lane_sum_order():
    """Sixteen lanes, then halves: 1 + 2⁻²⁴ is lost in one lane and kept across lanes."""
    x = np.zeros(33, np.float32)
    x[0], x[16], x[32] = 1, 2.0**-24, 2.0**-24
    assert products.lane_sum(x) == 1
    x[16], x[1], x[9] = 0, 2.0**-24, 2.0**-24
    x[32] = 0
    assert products.lane_sum(x) == 1 + 2.0**-23


def test_layers_by_hand():
    x = np.float32([[1.0, 3.0]])
    np.testing.assert_allclose(layers.layer_norm(x, None, np.float32([1, 2]), None, 0.0), [[-1, 2]])
    np.testing.assert_allclose(layers.softmax(np.log(x)), [[0.25, 0.75]], rtol=1e-7)
    q = np.zeros((1, 1, 4), np.float32)
    v = np.float32([[[1, 2, 3, 4], [3, 4, 5, 6]]])
    np.testing.assert_allclose(layers.attention(q, v, v, None, 2, 1.0), [[[2, 3, 4, 5]]])
    hidden = np.float32([[0, -np.inf]])
    np.testing.assert_allclose(layers.attention(q, v, v, hidden, 2, 1.0), [[[1, 2, 3, 4]]])
    np.testing.assert_allclose(layers.activate(np.float32([-800, 1]), "silu"), [0, 0.7310585786], atol=1e-10)


# ---- other libraries' numbers


@pytest.mark.parametrize("found", vectors("QuantizeLinear"))
def test_quantize_linear(found):
    attrs, (x, scale, zero_point, _), (accepted,) = arrays(found)
    fmt = ONNX_FORMATS[found[1]["outputs"][0]["dtype"]]
    if zero_point is None:
        zero_point = np.zeros(scale.shape, np.int32)
    codes = tensor.quantize(x, block_of(x.shape, scale, attrs), scale, zero_point, fmt)
    assert np.all(np.any([codes == want for want in accepted], axis=0))


@pytest.mark.parametrize("found", vectors("DequantizeLinear"))
def test_dequantize_linear(found):
    attrs, (codes, scale, zero_point, _), (accepted,) = arrays(found)
    if zero_point is None:
        zero_point = np.zeros(scale.shape, np.int32)
    y = tensor.dequantize(codes.astype(np.int64), block_of(codes.shape, scale, attrs), scale, zero_point)
    np.testing.assert_array_equal(y, accepted[0])


@pytest.mark.parametrize("found", vectors("DynamicQuantizeLinear"))
def test_dynamic_quantize_linear(found):
    _, (x, *_), outputs = arrays(found)
    scale, zero_point = tensor.qparams(*tensor.min_max(x, x.shape), "uint8", symmetric=False)
    # The operator computes its scale in float32, ours is float64 rounded once: the last bit may differ.
    assert any(abs(scale[0] - want) <= np.spacing(want) for want in outputs[1])
    assert zero_point[0] == outputs[2][0]
    if scale[0] == outputs[1][0] or not x.any():
        codes = tensor.quantize(x, x.shape, scale, zero_point, "uint8")
        np.testing.assert_array_equal(codes, outputs[0][0])


@pytest.mark.parametrize("found", vectors("MatMulInteger"))
def test_matmul_integer(found):
    _, (a, b, a_zero_point, b_zero_point), (accepted,) = arrays(found)
    a_zero_point = np.int64(0) if a_zero_point is None else a_zero_point.astype(np.int64)
    b_zero_point = np.int64(0) if b_zero_point is None else b_zero_point.astype(np.int64)
    np.testing.assert_array_equal(products.matmul_integer(a, b, a_zero_point, b_zero_point), accepted[0])


def torch_cases(*functions):
    """The recorded calls of torch whose conventions are ours, as pytest parameters."""
    listing = DATA / "oracles" / "torch.json"
    if not listing.exists():
        return [pytest.param(None, id="torch", marks=pytest.mark.skip(reason=f"no oracles under {DATA}"))]
    cases = json.loads(listing.read_text())["cases"]
    return [pytest.param(case, id=case["name"]) for case in cases if case["fn"].split(" ")[0] in functions]


@pytest.mark.parametrize("case", torch_cases("torch.quantize_per_tensor", "torch.quantize_per_channel"))
def test_torch_quantize(case):
    """torch multiplies by 1 / scale: a quotient next to a tie may fall to the other side, by one code."""
    store = np.load(DATA / "oracles" / "torch.npz")
    x, name = store["x"], case["name"]
    scale, zero_point, block = case.get("scale"), case.get("zero_point"), x.shape
    if "axis" in case:
        scale, zero_point = store[f"{name}/scale"], store[f"{name}/zp"]
        block = (1, x.shape[1]) if case["axis"] == 0 else (x.shape[0], 1)
    scale, zero_point = np.float32(scale), np.int32(zero_point)
    codes = tensor.quantize(x, block, scale, zero_point, "uint8" if "quint8" in case["dtype"] else "int8")
    want = store[f"{name}/q"].astype(np.int64)
    quotient = x / scale.ravel()[tensor.cells(x.shape, block)]
    tie = np.abs(np.abs(quotient - np.trunc(quotient)) - 0.5) < 1e-4
    assert np.array_equal(codes[~tie], want[~tie])
    assert np.abs(codes - want).max() <= 1
    decoded = tensor.dequantize(want, block, scale, zero_point)
    # Per channel, torch multiplies by a float64 scale.
    np.testing.assert_allclose(decoded, store[f"{name}/dq"], rtol=2.0**-22 if "axis" in case else 0)
