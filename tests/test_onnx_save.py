"""ONNX files of quantized models: what other runtimes make of them, and what comes back."""

import numpy as np
import pytest
import qrs
from models import array, encoder, linear
from onnx_models import FEEDS, digits, parsed, real, with_constants
from qrs import nn

onnx = pytest.importorskip("onnx", reason="ONNX files are written with the onnx package: pip install onnx")
from onnx.reference import ReferenceEvaluator  # noqa: E402

CHANNEL = qrs.per_channel(0)


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def quantized(model, preset, feeds):
    recipe = qrs.Recipe.preset(preset)
    stats = qrs.calibrate(model, [feeds], recipe) if preset.endswith("static") else None
    return qrs.quantize_model(model, recipe, stats)[0]


def evaluated(path, feeds):
    return ReferenceEvaluator(str(path)).run(None, feeds)


def plain_session(path):
    """ONNX Runtime without its own fusions, which saturate sums of 8-bit products on CPUs without VNNI."""
    runtime = pytest.importorskip("onnxruntime", reason="the peer to compare with: pip install onnxruntime")
    choices = runtime.SessionOptions()
    choices.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    choices.log_severity_level = 3
    return runtime.InferenceSession(str(path), choices, providers=["CPUExecutionProvider"])


# Weights alone: float32 sums in another order. With inputs: a sum next to a tie moves a code by one step.
@pytest.mark.parametrize(
    ("preset", "least"), [(None, 110), ("w8a16", 110), ("w4a16-g32", 110), ("w8a8-static", 45)]
)
@pytest.mark.parametrize("path", FEEDS)
def test_real_models_go_to_onnx_runtime_and_come_back(path, preset, least, tmp_path):
    feeds, model = FEEDS[path](), qrs.onnx.load(real(path))
    small = model if preset is None else quantized(model, preset, feeds)
    file = tmp_path / "small.onnx"
    qrs.onnx.save(small, file)
    results, again = small.run(feeds), qrs.onnx.load(file)
    assert {type(layer) for layer in again.layers.values()} == {
        type(layer) for layer in small.layers.values()
    }
    back = again.run(feeds)
    for name, other in zip(small.outputs, plain_session(file).run(list(small.outputs), feeds), strict=True):
        assert qrs.compare(results[name], other).sqnr_db > least
        assert same_bits(results[name], back[name])


@pytest.mark.parametrize("activation", [None, "relu", "tanh", "gelu", "gelu_tanh", "silu"])
@pytest.mark.parametrize("bias", [True, False])
def test_activations(activation, bias, tmp_path):
    layer = nn.Linear(array(5, 4), array(5) if bias else None, activation=activation)
    qrs.onnx.save(qrs.Model.chain({"head": layer}), tmp_path / "m.onnx", {"x": array(3, 4)})
    x = array(2, 4)
    np.testing.assert_allclose(evaluated(tmp_path / "m.onnx", {"x": x})[0], layer(x), rtol=1e-5, atol=1e-6)
    (again,) = qrs.onnx.load(tmp_path / "m.onnx").layers.values()
    assert again.activation == activation


@pytest.mark.parametrize(
    "granularity", [qrs.per_tensor, qrs.per_channel(0), qrs.per_channel(1), qrs.per_group(3)]
)
@pytest.mark.parametrize("dtype", [f"{sign}int{bits}" for sign in ("", "u") for bits in range(2, 9)])
def test_codes_of_every_width(dtype, granularity, tmp_path):
    weight = qrs.quantize(array(6, 8), qrs.Scheme(dtype, granularity))
    layer, x = nn.Linear(weight), array(3, 8)
    qrs.onnx.save(qrs.Model.chain({"head": layer}), tmp_path / "m.onnx")
    np.testing.assert_allclose(
        evaluated(tmp_path / "m.onnx", {"x": x})[0], x @ np.asarray(weight).T, rtol=1e-4, atol=1e-5
    )
    (again,) = qrs.onnx.load(tmp_path / "m.onnx").layers.values()
    np.testing.assert_array_equal(np.asarray(again.weight), np.asarray(weight))
    assert again.weight.scheme.format.bits == next(
        width for width in (2, 4, 8) if width >= weight.scheme.format.bits
    )


@pytest.mark.parametrize(
    "input",
    [
        qrs.Static("uint8", qparams=qrs.QParams(0.02, 99)),
        qrs.Static("int8", qparams=qrs.QParams(0.01)),
        qrs.Static("int4", qparams=qrs.QParams(0.25)),
        qrs.Static("uint5", qparams=qrs.QParams(0.1, 16)),
        qrs.Dynamic("uint8"),
    ],
    ids=repr,
)
def test_inputs_in_codes(input, tmp_path):
    """Large values show that a code of the file's dtype beyond those of the scheme never occurs."""
    layer = nn.Linear(qrs.quantize(array(6, 8), qrs.Scheme("int8", CHANNEL)), array(6), input)
    x = 3 * array(5, 8)
    qrs.onnx.save(qrs.Model.chain({"head": layer}), tmp_path / "m.onnx")
    np.testing.assert_allclose(evaluated(tmp_path / "m.onnx", {"x": x})[0], layer(x), rtol=1e-4, atol=1e-4)
    again = qrs.onnx.load(tmp_path / "m.onnx")
    np.testing.assert_array_equal(again.run({"x": x})["y"], layer(x))
    assert isinstance(
        again.layers["head.product" if "head.product" in again.layers else list(again.layers)[-1]], nn.Linear
    )


@pytest.mark.parametrize(
    "body",
    [
        "y = Conv <pads = [1, 0, 2, 1], strides = [2, 1], group = 2, dilations = [1, 2]> (x, w)",
        'y = Conv <auto_pad = "SAME_UPPER", strides = [2, 2], group = 2> (x, w)',
    ],
)
@pytest.mark.parametrize("preset", [None, "w8a8-static", "w8a8-dynamic", "w4a16-g32"])
def test_convolutions(body, preset, tmp_path):
    model = with_constants(
        parsed(f"g (float[N,4,9,8] x) => (float[N,6,H,W] y) {{ {body} }}"), w=array(6, 2, 3, 3)
    )
    loaded, feeds = qrs.onnx.load(model), {"x": array(2, 4, 9, 8)}
    small = loaded if preset is None else quantized(loaded, preset, feeds)
    qrs.onnx.save(small, tmp_path / "m.onnx")
    expected = small.run(feeds)["y"]
    np.testing.assert_allclose(evaluated(tmp_path / "m.onnx", feeds)[0], expected, rtol=1e-4, atol=1e-4)
    assert same_bits(qrs.onnx.load(tmp_path / "m.onnx").run(feeds)["y"], expected)


MIXED = """g (float[N,4] x) => (float[N,2] y, float[N,2] v, float[N,4] h)
    { a, b = Split <axis: int = 1> (x, parts) c = Cast <to = 11> (a) d = Cast <to = 1> (c)
      e = Clip (d, , most) y = Sub (e, b) v, i = TopK (x, two) h = Hardmax (x) }"""


def test_functions_and_evaluated_operators(tmp_path):
    given = {"parts": np.array([2, 2]), "most": np.float32(0.5), "two": np.array([2])}
    model = qrs.onnx.load(with_constants(parsed(MIXED, opset=18), **given))
    qrs.onnx.save(model, tmp_path / "m.onnx", {"x": array(1, 4)})
    x = array(3, 4)
    results, again = model.run({"x": x}), qrs.onnx.load(tmp_path / "m.onnx").run({"x": x})
    for name, other in zip(model.outputs, evaluated(tmp_path / "m.onnx", {"x": x}), strict=True):
        np.testing.assert_array_equal(results[name], other)
        np.testing.assert_array_equal(results[name], again[name])


def test_an_example_says_dtypes_and_axes(tmp_path):
    model = qrs.Model([qrs.Node("y", nn.Function("Shape"), ["x"])], ["x"], ["y"])
    qrs.onnx.save(model, tmp_path / "m.onnx", {"x": np.zeros((2, 3), np.int32)})
    (value,) = onnx.load(tmp_path / "m.onnx").graph.input
    assert value.type.tensor_type.elem_type == onnx.TensorProto.INT32
    assert len(value.type.tensor_type.shape.dim) == 2


def test_a_shared_array_is_stored_once(tmp_path):
    layer = linear(64, 64)
    model = qrs.Model.chain({"a": layer, "b": layer})
    qrs.onnx.save(quantized(model, "w8a16", {"x": array(1, 64)}), tmp_path / "m.onnx")
    assert (
        sum(len(tensor.raw_data) == 64 * 64 for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer)
        == 1
    )


def test_what_is_refused_leaves_the_former_file(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"former")
    token = qrs.Dynamic(qrs.Scheme("uint8", qrs.per_token))
    int8 = qrs.quantize(array(5, 4), qrs.Scheme("int8", CHANNEL))
    later = with_constants(parsed("g (float[N,4] x) => (float[N,4] y) { y = Hardmax(x) }", opset=12))
    cases = [
        (
            qrs.Model.chain({"head": nn.Linear(int8, input=token)}),
            "layer 'head': ONNX has dynamic inputs of uint8",
        ),
        (
            qrs.Model.chain({"head": nn.Linear(qrs.quantize(array(5, 4), "nf4"))}),
            "'head': ONNX has no codes of nf4",
        ),
        (
            qrs.Model.chain(
                {"p": nn.Linear(qrs.quantize(array(6, 4), qrs.Scheme("int8", qrs.per_block((2, 2)))))}
            ),
            "ONNX has no scales per_block",
        ),
        (encoder(), "layer 'places': Positions is not written to ONNX"),
        (qrs.onnx.load(later), "Hardmax is that of version 12, and the file needs version 18"),
        (qrs.Model.chain({"d": nn.Function("Gather", {"axis": 0})}), "makes no valid ONNX file"),
    ]
    for model, message in cases:
        with pytest.raises(qrs.QrsValueError, match=message):
            qrs.onnx.save(model, path)
    with pytest.raises(qrs.QrsValueError, match=r"example names \['z'\], the model takes \['x'\]"):
        qrs.onnx.save(cases[0][0], path, {"z": array(1)})
    with pytest.raises(qrs.QrsTypeError, match="model is 3"):
        qrs.onnx.save(3, path)
    assert path.read_bytes() == b"former"


# ---- files that others quantized


class Batches:
    def __init__(self, images):
        self.parts = iter([{"x": images[i : i + 16]} for i in range(0, len(images), 16)])

    def get_next(self):
        return next(self.parts, None)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["QDQ", "dynamic"])
def test_what_onnx_runtime_quantized(kind, tmp_path):
    tool = pytest.importorskip(
        "onnxruntime.quantization", reason="the peer that quantizes: pip install onnxruntime"
    )
    source, path = real("mnist/cnn_mnist.onnx"), str(tmp_path / "small.onnx")
    images = digits()[0][0][:64]
    if kind == "dynamic":
        tool.quantize_dynamic(source, path)
    else:
        tool.quantize_static(
            source, path, Batches(images), quant_format=tool.QuantFormat.QDQ, per_channel=True
        )
    model = qrs.onnx.load(path)
    products = [layer for layer in model.layers.values() if isinstance(layer, nn.Linear | nn.Conv2d)]
    how = qrs.Static if kind == "QDQ" else qrs.Dynamic
    assert len(products) == 5 and all(isinstance(layer.input, how) for layer in products)
    (expected,) = plain_session(path).run(None, {"x": images})
    # The last bit of a dynamic scale, which ONNX computes in float32, moves codes next to a tie by one step.
    least = 80 if kind == "QDQ" else 50
    assert qrs.compare(expected, model.run({"x": images})["logits"]).sqnr_db > least


def blocks(n, k, size, bits, has_zeros):
    """A MatMulNBits node as ONNX Runtime's tools write it, and the matrix it holds."""
    rng, count = np.random.default_rng(bits), -(-k // size)
    codes = rng.integers(0, 1 << bits, (n, count * size))
    zeros = rng.integers(0, 1 << bits, (n, count)) if has_zeros else np.full((n, count), 1 << (bits - 1))
    scale = rng.uniform(0.5, 1, (n, count)).astype(np.float32)
    per_byte = 8 // bits

    def packed(values):
        whole = np.pad(values, [(0, 0), (0, -values.shape[1] % per_byte)]).reshape(n, -1, per_byte)
        return (whole << np.arange(0, 8, bits)).sum(axis=-1).astype(np.uint8)

    matrix = (codes - np.repeat(zeros, size, axis=1)) * np.repeat(scale, size, axis=1)
    given = {"codes": packed(codes).reshape(n, count, -1), "scale": scale.reshape(-1)}
    given |= {"zeros": packed(zeros).reshape(-1)} if has_zeros else {}
    node = onnx.helper.make_node(
        "MatMulNBits", ["x", *given], ["y"], domain="com.microsoft", K=k, N=n, bits=bits, block_size=size
    )
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["a", None]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:])
    versions = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = with_constants(onnx.helper.make_model(graph, opset_imports=versions, ir_version=8), **given)
    return model, matrix[:, :k].astype(np.float32)


@pytest.mark.parametrize(("n", "k", "size"), [(8, 64, 32), (5, 48, 32), (3, 40, 16)])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("has_zeros", [False, True])
def test_weights_of_few_bits(n, k, size, bits, has_zeros, tmp_path):
    model, matrix = blocks(n, k, size, bits, has_zeros)
    loaded, x = qrs.onnx.load(model), array(4, k)
    (layer,) = loaded.layers.values()
    assert layer.weight.scheme.dtype == f"uint{bits}" and layer.weight.scheme.granularity == qrs.per_group(
        size
    )
    np.testing.assert_array_equal(np.asarray(layer.weight), matrix)
    y = loaded.run({"x": x})["y"]
    if bits == 4:  # what ONNX Runtime has had from the first day
        onnx.save(model, tmp_path / "m.onnx")
        (expected,) = plain_session(tmp_path / "m.onnx").run(None, {"x": x})
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-3)
    qrs.onnx.save(loaded, tmp_path / "again.onnx")
    assert same_bits(qrs.onnx.load(tmp_path / "again.onnx").run({"x": x})["y"], y)


def test_weights_of_few_bits_that_do_not_fit():
    model, _ = blocks(8, 64, 32, 4, True)
    for name, value, message in (("K", 96, "codes have shape"), ("bits", 3, "and bits 3")):
        bad = onnx.ModelProto()
        bad.CopyFrom(model)
        next(a for a in bad.graph.node[0].attribute if a.name == name).i = value
        with pytest.raises(qrs.FormatError, match=message):
            qrs.onnx.load(bad)
    del model.graph.initializer[0]
    model.graph.input.append(onnx.helper.make_tensor_value_info("codes", onnx.TensorProto.UINT8, None))
    with pytest.raises(qrs.FormatError, match="MatMulNBits is read with constant codes"):
        qrs.onnx.load(model)
