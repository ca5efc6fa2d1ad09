"""Layers: the mathematics against NumPy, quantized slots, and every refusal by name."""

import json

import numpy as np
import pytest
import qrs
from models import array, linear
from qrs import nn
from qrs.nn.base import call, watching
from qrs.testing import check_layer
from reference import layers as reference

INT8 = qrs.Scheme("int8", qrs.per_channel(0))
TOKEN = qrs.Dynamic(qrs.Scheme("int8", qrs.per_token))


def attention(width=8, k=6, n=5, heads=2):
    three = [linear(width, k, seed=i) for i in range(3)]
    return nn.MultiHeadAttention(*three, linear(n, width, seed=9), heads=heads)


SAMPLES = {
    "linear": (linear(5, 4), [array(3, 4)]),
    "linear-gelu": (linear(5, 4, activation="gelu"), [array(2, 3, 4)]),
    "linear-plain": (nn.Linear(array(5, 4)), [array(4)]),
    "linear-dynamic": (nn.Linear(qrs.quantize(array(5, 4), INT8), input=TOKEN), [array(3, 4)]),
    "linear-static": (
        nn.Linear(
            qrs.quantize(array(5, 4), INT8),
            array(5),
            qrs.Static("uint8", qparams=qrs.QParams(0.03, 99)),
            "relu",
        ),
        [array(3, 4)],
    ),
    "conv2d": (
        nn.Conv2d(array(5, 4, 3, 3), array(5), padding=(1, 0, 2, 1), activation="relu"),
        [array(2, 4, 6, 7)],
    ),
    "conv2d-static": (
        nn.Conv2d(
            qrs.quantize(array(6, 2, 3, 2), INT8),
            stride=(2, 1),
            groups=3,
            input=qrs.Static("uint8", qparams=qrs.QParams(0.03, 99)),
        ),
        [array(2, 6, 5, 4)],
    ),
    "embedding": (nn.Embedding(array(7, 4)), [np.array([[0, 6], [3, 3]])]),
    "positions": (nn.Positions(array(7, 4)), [array(2, 5, 4)]),
    "layer_norm": (nn.LayerNorm(array(4), array(4)), [array(3, 4)]),
    "layer_norm-residual": (nn.LayerNorm(array(4), eps=1e-12), [array(3, 4), array(3, 4, seed=1)]),
    "normalize": (nn.Normalize(), [array(3, 4)]),
    "add": (nn.Add(), [array(3, 4), array(3, 4, seed=1)]),
    "mean_pool": (nn.MeanPool(), [array(2, 3, 4), array(2, 3)]),
    "activation": (nn.Activation("silu"), [array(3, 4)]),
    "function": (nn.Function("Add", constants={1: array(3, 4)}), [array(2, 3, 4)]),
    "function-absent": (
        nn.Function("Clip", constants={2: np.float32(0.5)}, absent=[1]),
        [array(3, 4)],
    ),
    "function-settings": (nn.Function("Transpose", {"perm": [1, 0]}), [array(3, 4)]),
    "softmax": (nn.Softmax(axis=1), [array(2, 3, 4)]),
    "attention": (attention(), [array(2, 3, 6), array(2, 3)]),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_conformance(name):
    layer, inputs = SAMPLES[name]
    check_layer(layer, *inputs)


def test_every_registered_layer_has_a_sample():
    tested = {layer.id for layer, _ in SAMPLES.values()}
    assert tested == {i for i in nn.Layer.ids() if nn.Layer.by_id(i).__module__.startswith("qrs.nn.")}


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 3), (0,), (2, 0)])
@pytest.mark.parametrize("activation", [None, "none", "relu", "tanh"])
def test_linear_is_an_affine_map_of_the_last_axis(lead, activation):
    layer, x = linear(5, 4, activation=activation), array(*lead, 4)
    expected = x @ layer.weight.T + layer.bias
    if activation in ("relu", "tanh"):
        expected = np.maximum(expected, 0) if activation == "relu" else np.tanh(expected)
    y = layer(x)
    assert y.shape == (*lead, 5) and y.dtype == np.float32
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("input", [None, TOKEN, qrs.Dynamic("uint8")])
def test_quantized_linear_is_the_array_function(input):
    q, bias, x = qrs.quantize(array(5, 4), INT8), array(5), array(2, 3, 4)
    y = nn.Linear(q, bias, input, "gelu")(x)
    np.testing.assert_array_equal(y, qrs.linear(x, q, bias, "gelu", input))
    np.testing.assert_allclose(y, nn.Linear(array(5, 4), bias, activation="gelu")(x), atol=0.1)


def test_linear_shares_the_weight_and_forbids_writing():
    w = array(5, 4)
    layer = nn.Linear(w)
    assert np.shares_memory(layer.weight, w)
    assert not layer.weight.flags.writeable
    assert w.flags.writeable


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_other_floats_become_float32(dtype):
    layer = nn.Linear(array(5, 4).astype(dtype), array(5).astype(dtype))
    assert layer.weight.dtype == layer.bias.dtype == np.float32
    assert layer(array(3, 4).astype(dtype)).dtype == np.float32


@pytest.mark.parametrize("scheme", [None, INT8, qrs.Scheme("uint4", qrs.per_group(4), scale_dtype="float16")])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)])
def test_embedding_picks_rows(scheme, shape):
    table = array(9, 6)
    weight = table if scheme is None else qrs.quantize(table, scheme)
    ids = np.random.default_rng(0).integers(0, 9, shape)
    np.testing.assert_array_equal(nn.Embedding(weight)(ids), np.asarray(weight)[ids])


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.int64, ">i4"])
def test_embedding_takes_any_integers(dtype):
    np.testing.assert_array_equal(nn.Embedding(array(9, 6))(np.array([1, 8], dtype)), array(9, 6)[[1, 8]])


@pytest.mark.parametrize("scheme", [None, INT8])
def test_positions_add_the_first_rows(scheme):
    table, x = array(9, 6), array(2, 5, 6)
    weight = table if scheme is None else qrs.quantize(table, scheme)
    np.testing.assert_array_equal(nn.Positions(weight)(x), x + np.asarray(weight)[:5])


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("width", [1, 7, 64, 384])
def test_layer_norm_is_the_reference(residual, bias, width):
    x, r = array(3, 2, width), array(3, 2, width, seed=1) if residual else None
    w, b = array(width), array(width, seed=2) if bias else None
    expected = reference.layer_norm(
        x, np.zeros_like(x) if r is None else r, w, np.zeros_like(w) if b is None else b, 1e-5
    )
    np.testing.assert_allclose(
        nn.LayerNorm(w, b)(x, *([r] if residual else [])), expected, rtol=2e-5, atol=2e-6
    )


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_the_reference(lead, masked):
    layer, x = attention(), array(*lead, 4, 6)
    mask = np.where(array(*lead, 4) > 0.5, np.float32(-1e9), np.float32(0)) if masked else None
    q, k, v = (part(x).reshape(-1, 4, 8) for part in (layer.query, layer.key, layer.value))
    flat = None if mask is None else mask.reshape(-1, 4)
    mixed = reference.attention(q, k, v, flat, 2, 4**-0.5).astype(np.float32)
    expected = layer.output(mixed).reshape(*lead, 4, 5)
    np.testing.assert_allclose(layer(x, *([mask] if masked else [])), expected, rtol=1e-4, atol=1e-5)


def test_attention_does_not_see_what_the_mask_hides():
    layer, x = attention(), array(1, 4, 6)
    mask = np.float32([[0, 0, 0, -1e9]])
    other = x.copy()
    other[0, 3] = 100
    np.testing.assert_array_equal(layer(x, mask)[0, :3], layer(other, mask)[0, :3])


def test_attention_of_an_empty_batch():
    assert attention()(np.empty((0, 4, 6), np.float32)).shape == (0, 4, 5)


def test_mean_pool_and_normalize():
    x = array(2, 3, 4)
    np.testing.assert_allclose(nn.MeanPool()(x), x.mean(axis=1), rtol=1e-5, atol=1e-6)
    for constant in (0, -1e9, 50):
        mask = np.float32([[0, 0, -1e9], [0, 0, 0]]) + np.float32(constant)
        got = nn.MeanPool()(x, mask)
        if constant != -1e9:
            np.testing.assert_allclose(got[0], x[0, :2].mean(axis=0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(got[1], x[1].mean(axis=0), rtol=1e-5, atol=1e-6)
    unit = nn.Normalize()(np.vstack([array(3, 4), np.zeros((1, 4), np.float32)]))
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), [1, 1, 1, 0], rtol=1e-6)


@pytest.mark.parametrize("name", ["relu", "gelu", "silu", "tanh", "none"])
def test_activation_is_the_reference(name):
    x = array(5, 33) * 3
    np.testing.assert_allclose(nn.Activation(name)(x), reference.activate(x, name), rtol=1e-4, atol=1e-5)


REFUSED = {
    "x has shape (3, 5), expected (..., 4)": lambda: linear(5, 4)(array(3, 5)),
    "x has shape (), expected (..., 4)": lambda: linear(5, 4)(np.float32(1)),
    "bias has length 4, expected 5": lambda: nn.Linear(array(5, 4), array(4)),
    "weight has shape (5,), expected 2 dimensions": lambda: nn.Linear(array(5)),
    "unknown activation 'rleu'; did you mean 'relu'?": lambda: nn.Linear(array(5, 4), activation="rleu"),
    "input is given for a float32 weight": lambda: nn.Linear(array(5, 4), input=TOKEN),
    "ids[1] (flat) is 7, expected 0 <= id < 7": lambda: nn.Embedding(array(7, 4))([0, 7]),
    "ids[0] (flat) is -1": lambda: nn.Embedding(array(7, 4))(np.array([-1])),
    "with n <= 3": lambda: nn.Positions(array(3, 4))(array(5, 4)),
    "eps is -1.0": lambda: nn.LayerNorm(array(4), eps=-1),
    "eps is nan": lambda: nn.LayerNorm(array(4), eps=float("nan")),
    "residual has shape (1, 4), expected (3, 4)": lambda: nn.LayerNorm(array(4))(array(3, 4), array(1, 4)),
    "b has shape (4,), expected (3, 4)": lambda: nn.Add()(array(3, 4), array(4)),
    "mask has shape (3,), expected (2, 3)": lambda: nn.MeanPool()(array(2, 3, 4), array(3)),
    "expected (..., n, width) with n >= 1": lambda: nn.MeanPool()(np.empty((2, 0, 4), np.float32)),
    "heads is 3, expected a whole number from 1 that divides the width 8": lambda: attention(heads=3),
    "expected one width": lambda: nn.MultiHeadAttention(*[linear(4, 4)] * 3, linear(4, 5), heads=2),
    "mask has shape (3,), expected (2, 3)  ": lambda: attention()(array(2, 3, 6), array(3)),
    "layer 'query': x has shape": lambda: attention()(array(2, 3, 5)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refusals_say_what_came(message):
    with pytest.raises(qrs.QrsValueError) as caught:
        REFUSED[message]()
    assert message.strip() in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(np.ones((5, 4), np.int32)),
        lambda: nn.Linear(array(5, 4), np.ones(5, bool)),
        lambda: nn.Linear(qrs.quantize(array(5, 4), INT8), input="int8"),
        lambda: linear(5, 4)(np.ones((3, 4), int)),
        lambda: nn.Embedding(array(7, 4))(np.array([1.0])),
        lambda: attention()(array(2, 3, 6), np.ones((2, 3), bool)),
        lambda: nn.MultiHeadAttention(*[nn.Add()] * 4, heads=2),
    ],
)
def test_wrong_types_are_type_errors(make):
    with pytest.raises(TypeError):
        make()


def test_parts_that_do_not_fit_are_listed():
    with pytest.raises(qrs.QrsValueError, match=r"missing parts \['weight'\], unknown parts \['wieght'\]"):
        nn.Linear.from_parts({"wieght": array(5, 4)}, {})


def test_a_part_that_a_layer_does_not_have_cannot_be_replaced():
    with pytest.raises(qrs.QrsValueError, match="unknown part of Linear 'wieght'; did you mean 'weight'"):
        linear(5, 4).replace(wieght=array(5, 4))


def test_static_input_without_ranges_is_named():
    layer = nn.Linear(qrs.quantize(array(5, 4), INT8), input=qrs.Static("uint8"))
    with pytest.raises(qrs.NotCalibratedError, match="layer 'head'"):
        call("head", layer, array(3, 4))


def test_watchers_see_inner_layers_and_leave():
    seen = []
    x = array(2, 3, 6)
    with watching(lambda path, inputs: seen.append((path, inputs[0].shape))):
        call("block", attention(), x)
    assert [path for path, _ in seen] == [
        "block",
        *(f"block/{p}" for p in ("query", "key", "value", "output")),
    ]
    assert seen[1][1] == (2, 3, 6) and seen[4][1] == (2, 3, 8)
    call("block", attention(), x)
    assert len(seen) == 5


def test_attributes_survive_json():
    layer = SAMPLES["linear-static"][0]
    attributes = json.loads(json.dumps(layer.attributes()))
    again = nn.Linear.from_parts(layer.arrays(), attributes)
    assert again.input == qrs.Static("uint8", qparams=layer.input.qparams)
    assert repr(again) == repr(layer)
