"""ONNX models: operators and real networks against stored results and ONNX Runtime, fused and quantized."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import qrs
from models import array
from onnx_models import DATA, FEEDS, digits, parsed, pictures, real, with_constants
from qrs import nn
from qrs.testing import check_layer

onnx = pytest.importorskip("onnx", reason="ONNX files are read with the onnx package: pip install onnx")
from onnx import TensorProto, helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

ml_dtypes = pytest.importorskip("ml_dtypes")
EXAMPLES = Path(__file__).parents[1] / "examples"
PACKAGE = Path(qrs.__file__).parents[1]


def evaluated(model, feeds):
    """What the evaluator of the onnx package gives."""
    return ReferenceEvaluator(model).run(None, feeds)


def check(model, feeds, kinds=None, rtol=1e-5):
    """Compare a model with the evaluator; `kinds` are the ids of its layers, operators by their name."""
    loaded = qrs.onnx.load(model)
    results = loaded.run(feeds)
    for name, expected in zip(loaded.outputs, evaluated(model, feeds), strict=True):
        assert results[name].dtype == expected.dtype
        np.testing.assert_allclose(results[name], expected, rtol=rtol, atol=rtol, err_msg=name)
    if kinds is not None:
        assert [getattr(layer, "op", layer.id) for layer in loaded.layers.values()] == kinds
    return loaded


# ---- the stored cases


def cases():
    for folder in ("onnx_node", "onnx_ops"):
        listing = DATA / folder / "cases.json"
        if not listing.exists():
            reason = f"no {folder} cases under {DATA}: set QRS_TEST_DATA to the folder that holds them"
            yield pytest.param(None, None, id=folder, marks=pytest.mark.skip(reason=reason))
            continue
        for case in json.loads(listing.read_text()):
            yield pytest.param(folder, case, id=case["name"])


@pytest.fixture(scope="module")
def stores():
    return {folder: np.load(DATA / folder / "cases.npz") for folder in ("onnx_node", "onnx_ops")}


def stored(store, slot, key="key"):
    """The array of a slot; exotic types are stored as their bits, small integers as their values."""
    dtype = helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(slot["dtype"]))
    try:
        values = store[slot[key]]
    except ValueError:  # an element type that .npy headers cannot name; the elements stand at the end
        member = store.zip.read(f"{slot[key]}.npy")
        size = int(np.prod(slot["shape"])) * dtype.itemsize
        values = np.frombuffer(member[len(member) - size :], np.uint8).reshape(slot["shape"])
    if values.dtype == dtype:
        return values
    return values.astype(dtype) if "INT" in slot["dtype"] else values.view(dtype)


@pytest.mark.parametrize(("folder", "case"), list(cases()))
def test_stored_cases(stores, folder, case):
    store, inputs, outputs = stores[folder], case["inputs"], case["outputs"]
    names = [f"x{i}" if slot else "" for i, slot in enumerate(inputs)]
    node = helper.make_node(case["op"], names, [f"y{i}" for i in range(len(outputs))], **case["attrs"])

    def info(name, slot):
        return helper.make_tensor_value_info(name, TensorProto.DataType.Value(slot["dtype"]), slot["shape"])

    graph = helper.make_graph(
        [node],
        case["name"],
        [info(name, slot) for name, slot in zip(names, inputs, strict=True) if slot],
        [info(f"y{i}", slot) for i, slot in enumerate(outputs)],
    )
    opset = case["opset"] if isinstance(case["opset"], int) else case["opset"][0][1]
    # Operators of version 10 are those of version 11.
    opsets = [helper.make_opsetid("", max(opset, 11))]
    model = qrs.onnx.load(helper.make_model(graph, opset_imports=opsets))
    feeds = {name: stored(store, slot) for name, slot in zip(names, inputs, strict=True) if slot}
    results = model.run(feeds)
    for i, slot in enumerate(outputs):
        accepted = [stored(store, slot, key) for key in ("key", "alt_key") if key in slot]
        value, wanted = np.asarray(results[f"y{i}"]), accepted[0]
        assert value.dtype == wanted.dtype and value.shape == wanted.shape
        exact = case["op"] != "DequantizeLinear" or wanted.dtype != np.float32
        bits = [np.ascontiguousarray(a).view(np.uint8).reshape(*a.shape, -1) for a in (value, *accepted)]
        equal = np.any([(bits[0] == other).all(axis=-1) for other in bits[1:]], axis=0)
        if not exact:
            equal |= np.abs(value - wanted) <= np.spacing(np.abs(wanted))
        assert np.all(equal)


# ---- real models


@pytest.mark.parametrize("path", FEEDS)
def test_real_models_give_what_onnx_runtime_gives(path):
    runtime = pytest.importorskip("onnxruntime", reason="the peer to compare with: pip install onnxruntime")
    file, feeds = real(path), FEEDS[path]()
    model = qrs.onnx.load(file)
    assert not [layer for layer in model.layers.values() if isinstance(layer, qrs.onnx.OnnxOperator)]
    choices = runtime.SessionOptions()
    choices.log_severity_level = 3
    session = runtime.InferenceSession(file, choices, providers=["CPUExecutionProvider"])
    results = model.run(feeds)
    for name, expected in zip(model.outputs, session.run(list(model.outputs), feeds), strict=True):
        assert results[name].shape == expected.shape and results[name].dtype == expected.dtype
        assert np.abs(results[name] - expected).max() <= 1e-4 * np.abs(expected).max()


def test_the_language_model_gives_the_stored_logits():
    check = np.load(real("lm/lm_llama_check.npz"))
    logits = qrs.onnx.load(real("lm/lm_llama.onnx")).run({"ids": check["ids"]})["logits"]
    kept = logits[:, :: logits.shape[1] // check["logits"].shape[1]]
    others = [logits[:, i::16] for i in range(16)]
    best = min(np.abs(other - check["logits"]).max() for other in [kept, *others])
    assert best <= 1e-4 * np.abs(check["logits"]).max()


# Top-1 of the float model, and the signal to noise in dB of its outputs that ONNX Runtime's own static
# quantization reached at best.
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("path", "data", "accuracy", "peer"),
    [
        ("mnist/cnn_mnist.onnx", digits, 0.985, 36.7),
        ("cifar/resnet8_cifar10.onnx", pictures, 0.751, 28.9),
    ],
)
def test_static_int8_keeps_the_answers(path, data, accuracy, peer, tmp_path):
    (seen, _), (images, labels) = data()
    model, recipe = qrs.onnx.load(real(path)), qrs.Recipe.preset("w8a8-static")
    stats = qrs.calibrate(model, ({"x": seen[i : i + 32]} for i in range(0, 320, 32)), recipe)
    small, report = qrs.quantize_model(model, recipe, stats)
    assert {row.kind for row in report.skipped} == {"function"}
    assert report.bytes_after < 0.3 * report.bytes_before
    answers = small.run({"x": images})["logits"]
    # Five images of a thousand, and the rounding of the difference.
    assert (answers.argmax(axis=1) == labels).mean() >= accuracy - 0.005 - 1e-9
    exact = model.run({"x": images[:100]})["logits"]
    assert qrs.compare(exact, answers[:100]).sqnr_db > peer
    small.save(tmp_path / "small.qrs")
    again = qrs.load(tmp_path / "small.qrs").run({"x": images[:4]})["logits"]
    np.testing.assert_array_equal(again, answers[:4])


@pytest.mark.parametrize(("preset", "least"), [("w8a8-dynamic", 30), ("w4a16-g32", 15), ("w8a16", 30)])
def test_the_language_model_quantizes_by_presets(preset, least):
    ids = np.load(real("lm/lm_llama_check.npz"))["ids"]
    model = qrs.onnx.load(real("lm/lm_llama.onnx"))
    small, report = qrs.quantize_model(model, qrs.Recipe.preset(preset))
    assert {row.kind for row in report.quantized} == {"linear", "embedding"}
    wanted = model.run({"ids": ids})["logits"]
    assert qrs.compare(wanted, small.run({"ids": ids})["logits"]).sqnr_db > least


# ---- what becomes of operators


def test_products_take_bias_and_activation():
    w, b = array(4, 6), array(6)
    model = parsed("g (float[N,4] x) => (float[N,6] y) { h = MatMul(x, w) s = Add(b, h) y = Relu(s) }")
    loaded = check(with_constants(model, w=w, b=b), {"x": array(3, 4)}, ["linear"])
    (layer,) = loaded.layers.values()
    assert layer.activation == "relu"
    np.testing.assert_array_equal(layer.bias, b)


@pytest.mark.parametrize("turned", [0, 1])
def test_gemm(turned):
    how = "alpha: float = 0.5, beta: float = 2.0, transB: int = %d"
    text = f"g (float[N,4] x) => (float[N,6] y) {{ y = Gemm <{how}> (x, w, b) }}"
    model = with_constants(parsed(text % turned), w=array(*((6, 4) if turned else (4, 6))), b=array(1, 6))
    check(model, {"x": array(3, 4)}, ["linear"])


def test_a_bias_that_would_give_another_shape_stays():
    model = parsed("g (float[N,4] x) => (float[1,N,6] y) { h = MatMul(x, w) y = Add(h, b) }")
    check(with_constants(model, w=array(4, 6), b=array(1, 1, 6)), {"x": array(3, 4)}, ["linear", "Add"])


def test_what_others_read_is_not_fused():
    model = parsed("g (float[N,4] x) => (float[N,6] h, float[N,6] y) { h = MatMul(x, w) y = Relu(h) }")
    check(with_constants(model, w=array(4, 6)), {"x": array(3, 4)}, ["linear", "Relu"])


@pytest.mark.parametrize(
    "pads", ["", "pads = [1, 2, 0, 1],", 'auto_pad = "SAME_UPPER",', 'auto_pad = "SAME_LOWER",']
)
def test_convolution_with_normalisation(pads):
    text = f"""g (float[2,4,9,8] x) => (float[N,6,H,W] y)
        {{ c = Conv <{pads} strides = [2, 1], group = 2> (x, w, b)
           n = BatchNormalization <epsilon: float = 0.001> (c, scale, shift, mean, variance) y = Relu(n) }}"""
    parts = {name: array(6, seed=i) for i, name in enumerate(("b", "scale", "shift", "mean"))}
    model = with_constants(parsed(text), w=array(6, 2, 3, 2), variance=array(6, seed=9) ** 2 + 1, **parts)
    kinds = ["PadSame", "conv2d"] if "auto" in pads else ["conv2d"]
    loaded = check(model, {"x": array(2, 4, 9, 8)}, kinds, rtol=1e-4)
    assert list(loaded.layers.values())[-1].activation == "relu"


def test_convolution_of_lines():
    model = parsed(
        "g (float[2,4,20] x) => (float[2,6,L] y) { y = Conv <pads = [2, 1], dilations = [2]> (x, w) }"
    )
    loaded = check(
        with_constants(model, w=array(6, 4, 3)), {"x": array(2, 4, 20)}, ["Unsqueeze", "conv2d", "Squeeze"]
    )
    small, report = qrs.quantize_model(loaded, qrs.Recipe.preset("w8a8-dynamic"))
    assert [row.kind for row in report.quantized] == ["conv2d"]
    x = array(2, 4, 20)
    assert qrs.compare(loaded.run({"x": x})["y"], small.run({"x": x})["y"]).sqnr_db > 30


ERF = "d = Div(x, root) e = Erf(d) p = Add(e, one)"
GELUS = {
    "torch": f"{ERF} m = Mul(x, p) y = Mul(m, half)",
    "half first": f"{ERF} h = Mul(x, half) y = Mul(h, p)",
    "half inside": f"{ERF} q = Mul(p, half) y = Mul(x, q)",
}


@pytest.mark.parametrize("body", GELUS.values(), ids=GELUS)
def test_gelu_is_recognised(body):
    model = parsed(f"g (float[N,4] t) => (float[N,6] y) {{ x = MatMul(t, w) {body} }}")
    numbers = {"root": 2**0.5, "one": 1, "half": 0.5}
    model = with_constants(model, w=array(4, 6), **{k: np.float32(v) for k, v in numbers.items()})
    loaded = check(model, {"t": array(5, 4)}, ["linear"])
    assert next(iter(loaded.layers.values())).activation == "gelu"


def test_what_is_almost_gelu_is_not():
    model = parsed(f"g (float[N,4] x) => (float[N,4] y) {{ {GELUS['torch']} }}")
    numbers = {"root": 1.5, "one": 1, "half": 0.5}
    model = with_constants(model, **{k: np.float32(v) for k, v in numbers.items()})
    check(model, {"x": array(5, 4)}, ["Div", "Erf", "Add", "Mul", "Mul"])


def test_silu_is_recognised():
    model = parsed("g (float[N,4] x) => (float[N,6] y) { h = MatMul(x, w) s = Sigmoid(h) y = Mul(h, s) }")
    check(with_constants(model, w=array(4, 6)), {"x": array(3, 4)}, ["linear"])


NORM = """g (float[N,3,4] x) => (float[N,3,4] y)
    { m = ReduceMean <axes = [-1]> (x) c = Sub(x, m) p = Pow(c, two) v = ReduceMean <axes = [-1]> (p)
      e = Add(v, eps) s = Sqrt(e) n = Div(c, s) g = Mul(n, w) y = Add(g, b) }"""


@pytest.mark.parametrize("square", ["p = Pow(c, two)", "p = Mul(c, c)"])
def test_layer_normalisation_is_recognised(square):
    model = parsed(NORM.replace("p = Pow(c, two)", square))
    given = {"two": np.float32(2), "eps": np.float32(1e-5), "w": array(4), "b": array(4, seed=1)}
    check(with_constants(model, **given), {"x": array(2, 3, 4)}, ["layer_norm"])


def test_constants_are_computed_once():
    text = """g (float[2,6] x) => (float[2,6] y, int64[2] z) {
          s = Shape(c) t = Concat <axis: int = 0> (s, one) r = Reshape(c, t) f = Flatten <axis: int = 0> (r)
          y = Mul(x, f) z = Identity(t) }"""
    model = with_constants(parsed(text), c=array(6), one=np.array([1], np.int64))
    check(model, {"x": array(2, 6)}, ["Mul", "Identity"])


def test_several_outputs():
    text = """g (float[4,6] x) => (float[4,2] a, float[4,4] c)
        { a, b = Split <axis: int = 1> (x, parts) c = Neg(b) }"""
    model = with_constants(parsed(text), parts=np.array([2, 4], np.int64))
    check(model, {"x": array(4, 6)}, ["Split", "Part", "Part", "Neg"])
    text = "g (float[4,6] x) => (float[4,2] v, int64[4,2] i) { v, i = TopK(x, k) }"
    model = with_constants(parsed(text), k=np.array([2], np.int64))
    check(model, {"x": array(4, 6)}, ["TopK", "Part", "Part"])


def test_inner_graphs_read_values_from_outside():
    text = """g (bool c, float[3] x) => (float[3] y)
        { y = If (c) <then_branch = t () => (float[3] u) { u = Add(x, k) },
                      else_branch = e () => (float[3] v) { v = Sub(x, k) }> }"""
    model = with_constants(parsed(text), k=np.float32([1, 2, 3]))
    for flag in (True, False):
        check(model, {"c": np.array(flag), "x": array(3)}, ["If"])


def test_an_older_softmax_is_that_of_all_axes():
    model = parsed("g (float[2,3,4] x) => (float[2,3,4] y) { y = Softmax <axis: int = 1> (x) }", opset=11)
    x = array(2, 3, 4)
    powers = np.exp(x.reshape(2, 12))
    shares = (powers / powers.sum(axis=1, keepdims=True)).reshape(x.shape)
    np.testing.assert_allclose(qrs.onnx.load(model).run({"x": x})["y"], shares, rtol=1e-5)


OLDER = """g (float[2,3,4] x)
    => (float[2,4] s, float[2,1,4] m, float[1,2,3,4] u, float[2,3,1] a, float[2,3,3] b)
    { s = ReduceSum <axes = [1], keepdims = 0> (x) m = ReduceMean <axes = [-2]> (x)
      v = Unsqueeze <axes = [0]> (x) w = Squeeze <axes = [0]> (v) u = Unsqueeze <axes = [0]> (w)
      a, b = Split <axis = 2, split = [1, 3]> (x) }"""


def test_what_became_inputs_may_be_attributes():
    kinds = ["ReduceSum", "ReduceMean", "Unsqueeze", "Squeeze", "Unsqueeze", "Split", "Part", "Part"]
    loaded = check(parsed(OLDER, opset=11), {"x": array(2, 3, 4)}, kinds)
    assert loaded.layers["s"].constants[1].tolist() == [1]


def test_half_precision_goes_in_and_out():
    text = "g (float16[N,4] x) => (float16[N,6] y) { h = MatMul(x, w) s = Add(h, b) y = Relu(s) }"
    model = with_constants(parsed(text), w=array(4, 6).astype(np.float16), b=array(6).astype(np.float16))
    loaded = check(model, {"x": array(3, 4).astype(np.float16)}, ["linear", "Cast"], rtol=1e-2)
    assert loaded.layers["h"].weight.dtype == np.float32


def test_double_precision_stays():
    text = "g (double[N,4] x) => (double[N,6] y) { h = MatMul(x, w) s = Sigmoid(h) y = Mul(h, s) }"
    check(
        with_constants(parsed(text), w=array(4, 6).astype(np.float64)),
        {"x": array(3, 4).astype(np.float64)},
        rtol=1e-14,
    )


def test_functions_of_the_model_are_written_out():
    text = """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        g (float[N,4] x) => (float[N,4] y) { y = own.twice(x) }
        <domain: "own", opset_import: ["" : 17]> twice (a) => (b) { b = Add(a, a) }"""
    check(onnx.parser.parse_model(text), {"x": array(3, 4)}, ["Add"])


def test_names_of_layers():
    text = "g (float[N,4] x) => (float[N,4] y) { a = Neg(x) b = Abs(a) y = Neg(b) }"
    model = parsed(text)
    for node, name in zip(model.graph.node, ("/block.0/act", "", "block.0/act"), strict=True):
        node.name = name
    assert list(qrs.onnx.load(model).layers) == ["block.0/act", "b", "block.0/act_2"]


def test_a_layer_beside_those_that_its_name_seems_to_hold():
    model = parsed("g (float[N,4] x) => (float[N,4] y) { h = MatMul(x, w) y = MatMul(h, w) }")
    model = with_constants(model, w=array(4, 4))
    for node, name in zip(model.graph.node, ("block", "block/inner"), strict=True):
        node.name = name
    small, report = qrs.quantize_model(qrs.onnx.load(model), qrs.Recipe.preset("w8a16"))
    assert len(report.quantized) == 2 and list(small.layers) == ["block", "block/inner"]


# ---- the evaluator's layer, reports and files


def hard():
    text = "g (float[N,4] x) => (float[N,6] y) { h = MatMul(x, w) y = Hardmax(h) }"
    return with_constants(parsed(text), w=array(4, 6))


def test_the_report_lists_what_the_evaluator_runs():
    loaded = check(hard(), {"x": array(3, 4)}, ["linear", "Hardmax"])
    _, report = qrs.quantize_model(loaded, qrs.Recipe.preset("w8a16"))
    (row,) = report.skipped
    assert (
        row.reason == "qrs has no Hardmax: runs in the reference evaluator of the onnx package, which is slow"
    )


def test_the_evaluators_layer_keeps_the_promises_of_layers():
    check_layer(qrs.onnx.load(hard()).layers["y"], array(3, 4))
    text = "g (float[N,4] x) => (float[N,4] y) { y = Clip(x, , most) h = Hardmax(y) }"
    layers = qrs.onnx.load(with_constants(parsed(text), most=np.float32(1))).layers
    check_layer(layers["y"], array(3, 4))
    with pytest.raises(qrs.QrsValueError, match="node of Hardmax is damaged"):
        qrs.onnx.OnnxOperator("Hardmax", "no base64!", {"": 13})(array(3, 4))
    with pytest.raises(qrs.QrsTypeError, match="node is 3, expected a str"):
        qrs.onnx.OnnxOperator("Hardmax", 3, {"": 13})


def test_files_hold_loaded_models(tmp_path):
    model = qrs.onnx.load(hard())
    model.save(tmp_path / "model.qrs")
    x = array(3, 4)
    np.testing.assert_array_equal(
        qrs.load(tmp_path / "model.qrs").run({"x": x})["y"], model.run({"x": x})["y"]
    )


def test_files_without_evaluated_operators_need_no_onnx(tmp_path):
    text = "g (float[2,6] x) => (float[2,2,3] y) { s = Sigmoid(x) y = Reshape(s, shape) }"
    model = qrs.onnx.load(with_constants(parsed(text), shape=np.array([2, 2, 3], np.int64)))
    model.save(tmp_path / "model.qrs")
    program = f"""
import sys
sys.modules["onnx"] = None
import numpy as np, qrs
print(qrs.load({str(tmp_path / "model.qrs")!r}).run({{"x": np.zeros((2, 6), np.float32)}})["y"].shape)
try:
    qrs.onnx.load("model.onnx")
except qrs.QrsError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
    )
    assert done.stdout.splitlines()[0] == "(2, 2, 3)"
    assert "pip install 'qrs[onnx]'" in done.stdout.splitlines()[1]


def test_tables_become_embeddings():
    model = parsed("g (int64[N] ids) => (float[N,4] y) { y = Gather(table, ids) }")
    loaded = check(with_constants(model, table=array(9, 4)), {"ids": np.array([8, 0, 3])}, ["embedding"])
    small, _ = qrs.quantize_model(loaded, qrs.Recipe.preset("w8a16"))
    assert isinstance(small.layers["y"], nn.Embedding) and isinstance(small.layers["y"].weight, qrs.QTensor)


def test_the_example_runs(capsys):
    spec = importlib.util.spec_from_file_location("onnx_model", EXAMPLES / "onnx_model.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    report = example.main([])
    assert len(report.quantized) == 3 and report.bytes_after < 0.4 * report.bytes_before
    assert "dB signal to noise" in capsys.readouterr().out
