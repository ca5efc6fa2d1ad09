"""ONNX files that are damaged, hostile or foreign: each ends in an error that names the node or the field."""

import contextlib
import os
import time

import numpy as np
import pytest
import qrs

onnx = pytest.importorskip("onnx", reason="ONNX files are read with the onnx package: pip install onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def model(nodes=None, initializers=(), inputs=("x",), outputs=("y",), opset=17):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="head")] if nodes is None else nodes

    def values(names):
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]

    graph = helper.make_graph(nodes, "g", values(inputs), values(outputs), list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def weight(name="w", shape=(4, 4)):
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


def external(location, **entries):
    """A weight of 64 bytes in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def node(op, reads, writes, **attributes):
    return helper.make_node(op, reads, writes, name=f"the {op}", **attributes)


def claiming(shape):
    tensor = weight()
    del tensor.dims[:]
    tensor.dims.extend(shape)
    return tensor


RELU = node("Relu", ["x"], ["y"])
BAD = {
    "dangling": (lambda: model([node("Add", ["x", "gone"], ["y"])]), "node 'the Add' .Add. reads 'gone'"),
    "output": (lambda: model([RELU], outputs=("z",)), "output 'z' is written by no node"),
    "twice": (lambda: model([RELU, node("Abs", ["x"], ["y"])]), "'the Abs' .Abs. writes 'y'"),
    "cycle": (
        lambda: model([node("Add", ["x", "b"], ["a"]), node("Abs", ["a"], ["b"]), node("Neg", ["b"], ["y"])]),
        "lies on a cycle: the A",
    ),
    "opset": (lambda: model([RELU], opset=7), "field opset_import: .* is 7, expected 11 to"),
    "newer": (lambda: model([RELU], opset=999), "field opset_import: .* is 999"),
    "unknown": (lambda: model([node("Frobnicate", ["x"], ["y"])]), "node 'the Frobnicate'"),
    "domain": (
        lambda: model([node("Attention", ["x"], ["y"], domain="com.microsoft")]),
        "node 'the Attention' .Attention.: domain 'com.microsoft' is not standard",
    ),
    "attribute": (lambda: model([node("Relu", ["x"], ["y"], slope=3)]), "'the Relu' .Relu.: .*slope"),
    "inputs": (lambda: model([node("Relu", ["x", "x"], ["y"])]), "'the Relu' .Relu.: .*input"),
    "more elements than bytes": (
        lambda: model(initializers=[claiming([1000, 1000, 1000])]),
        "initializer 'w' of shape .1000, 1000, 1000. needs 4000000000 bytes of FLOAT, holds 64",
    ),
    "overflowing shape": (
        lambda: model(initializers=[claiming([1 << 62, 1 << 62])]),
        "initializer 'w' of shape",
    ),
    "negative length": (
        lambda: model(initializers=[claiming([-1, 16])]),
        r"initializer 'w' has shape \[-1, 16\]",
    ),
    "no such type": (
        lambda: model(initializers=[TensorProto(name="w", data_type=99, dims=[1])]),
        "initializer 'w' has element type 99",
    ),
    "same name": (lambda: model(initializers=[weight(), weight()]), "initializer 'w' .* occurs twice"),
    "in memory": (lambda: model(initializers=[external("w.bin")]), "'w' is stored in another file"),
    "constant": (
        lambda: model([node("Constant", [], ["c"], value_strings=["a"]), RELU, node("Neg", ["c"], ["d"])]),
        "node 'the Neg' .Neg.",
    ),
    "shapes of constants": (
        lambda: model([node("MatMul", ["v", "w"], ["y"])], [weight(), weight("v", (3, 3))]),
        "node 'the MatMul' .MatMul.",
    ),
    "no graph": (onnx.ModelProto, "field graph is missing"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_models_name_the_node_or_the_field(name):
    make, message = BAD[name]
    bad, start = make(), time.perf_counter()
    with pytest.raises(qrs.FormatError, match=message):
        qrs.onnx.load(bad)
    assert time.perf_counter() - start < 5  # one second, on a machine with nothing else to do


LARGE = {
    "ConstantOfShape": [[1 << 20, 1 << 10]],
    "Expand": [[1.0], [1 << 20, 1 << 10]],
    "Tile": [[1.0], [1 << 30]],
    "Pad": [[1.0], [0, 1 << 30]],
    "Range": [0, 1 << 30, 1],
    "OneHot": [[1, 2], 1 << 29, [0.0, 1.0]],
    "Add": [np.zeros((1 << 15, 1)), np.zeros((1, 1 << 15))],
    "Gather": [np.zeros((2, 1 << 15)), np.zeros(1 << 15, np.int64)],
    "MatMul": [np.zeros((1 << 15, 1)), np.zeros((1, 1 << 15))],
}


@pytest.mark.parametrize("op", LARGE)
def test_a_huge_constant_is_not_computed_while_loading(op):
    names = [f"c{i}" for i in range(len(LARGE[op]))]
    constants = [numpy_helper.from_array(np.asarray(a), n) for n, a in zip(names, LARGE[op], strict=True)]
    loaded = qrs.onnx.load(model([node(op, names, ["c"]), node("Add", ["x", "c"], ["y"])], constants))
    assert [layer.op for layer in loaded.layers.values()] == [op, "Add"]


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files(tmp_path, part):
    data = model(initializers=[weight(shape=(64, 64))]).SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(qrs.FormatError, match=r"model\.onnx: "):
        qrs.onnx.load(path)


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04zip", b"\x80\x04pickle", b"{}", bytes(100), os.urandom(0) + b"\xff" * 64]
)
def test_foreign_files(tmp_path, data):
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(qrs.FormatError, match=r"model\.onnx"):
        qrs.onnx.load(path)


def test_paths():
    with pytest.raises(FileNotFoundError):
        qrs.onnx.load("no such file.onnx")
    with pytest.raises(qrs.FormatError, match="not a plain file"):
        qrs.onnx.load("/dev/null")
    with pytest.raises(qrs.QrsTypeError, match="path is 3"):
        qrs.onnx.load(3)


def stored(folder, tensor):
    path = folder / "model.onnx"
    path.write_bytes(model(initializers=[tensor]).SerializeToString())
    return path


def test_external_data_is_mapped(tmp_path):
    values = np.arange(20, dtype="<f4")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(values.tobytes())
    path = stored(tmp_path, external("sub/w.bin", offset=16, length=64, checksum="ignored"))
    x = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(qrs.onnx.load(path).run({"x": x})["y"], values[4:].reshape(4, 4))


@pytest.mark.parametrize(
    ("location", "entries", "message"),
    [
        ("../w.bin", {}, r"'w': external data lies at '../w.bin', expected a file in the folder"),
        ("a/../../w.bin", {}, "expected a file in the folder"),
        ("/etc/passwd", {}, "expected a file in the folder"),
        ("..\\w.bin", {}, "expected a file in the folder"),
        ("C:w.bin", {}, "expected a file in the folder"),
        ("", {}, "expected a file in the folder"),
        ("link.bin", {}, "reached by a link"),
        ("hard.bin", {}, "no plain file with one name"),
        ("fifo", {}, "no plain file"),
        (".", {}, "no plain file"),
        ("gone.bin", {}, "cannot be opened: No such file"),
        ("w.bin", {"offset": "-1"}, "offset '-1', expected a number from 0"),
        ("w.bin", {"length": "1e3"}, "length '1e3'"),
        ("w.bin", {"offset": "64", "length": "64"}, "ends at byte 128 of 'w.bin', which has 64"),
        ("w.bin", {"length": "32"}, "needs 64 bytes of FLOAT, names 32"),
    ],
)
def test_external_data_that_is_refused(tmp_path, location, entries, message):
    (tmp_path / "w.bin").write_bytes(bytes(64))
    (tmp_path / "link.bin").symlink_to("w.bin")
    (tmp_path / "twin").write_bytes(bytes(64))
    os.link(tmp_path / "twin", tmp_path / "hard.bin")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(qrs.FormatError, match=message):
        qrs.onnx.load(stored(tmp_path, external(location, **entries)))


def test_names_that_are_no_text(tmp_path):
    data = model([RELU]).SerializeToString().replace(b"the Relu", b"the \xff\xfe\x80!")
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(qrs.FormatError, match=r"model\.onnx: .*UTF-8"):
        qrs.onnx.load(path)


MISFITS = {
    "BatchNormalization": ([(6, 4, 1, 1)], [(5,), (5,), (5,), (5,)]),
    "Gemm": ([], [(4, 6), (5,)]),
    "DequantizeLinear": ([], [(), (3,)]),
}


def misfit(op):
    """A product and, after it, an operator whose constants have shapes that do not go with it."""
    filters, shapes = MISFITS[op]
    dtype = np.int8 if op == "DequantizeLinear" else np.float32
    parts = [weight(f"c{i}", shape) for i, shape in enumerate(shapes)]
    if op == "DequantizeLinear":
        parts[1] = numpy_helper.from_array(np.zeros(shapes[1], dtype), "c1")
        parts.append(numpy_helper.from_array(np.ones((4, 6), dtype), "codes"))
        return model([node(op, ["codes", "c0", "c1"], ["w"]), node("MatMul", ["x", "w"], ["y"])], parts)
    first = [node("Conv", ["x", "w"], ["h"])] if filters else []
    parts += [weight("w", filters[0])] if filters else []
    value = "h" if filters else "x"
    return model([*first, node(op, [value, *(f"c{i}" for i in range(len(shapes)))], ["y"])], parts)


@pytest.mark.parametrize("op", MISFITS)
def test_constants_that_do_not_fit_are_refused_at_the_latest_when_run(op):
    x = np.ones((2, 4, 3, 3) if op == "BatchNormalization" else (2, 4), np.float32)
    with pytest.raises(qrs.QrsError, match=op) as caught:
        qrs.onnx.load(misfit(op)).run({"x": x})
    assert "broadcast" in str(caught.value) or "shape" in str(caught.value)


@pytest.mark.parametrize("seed", range(4))
def test_changed_bytes_end_in_a_model_or_an_error(tmp_path, seed):
    rng, path = np.random.default_rng(seed), tmp_path / "model.onnx"
    nodes = [
        node("Conv", ["x", "f"], ["h"], pads=[1, 1, 1, 1]),
        node("Relu", ["h"], ["r"]),
        node("Reshape", ["r", "shape"], ["m"]),
        node("MatMul", ["m", "w"], ["y"]),
    ]
    shape = numpy_helper.from_array(np.array([-1, 4], np.int64), "shape")
    sound = model(nodes, [weight("f", (2, 3, 3, 3)), weight(), shape]).SerializeToString()
    for _ in range(100):
        data = bytearray(sound)
        for place in rng.integers(len(data), size=rng.integers(1, 4)):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        with contextlib.suppress(qrs.FormatError):
            assert isinstance(qrs.onnx.load(path), qrs.Model)
