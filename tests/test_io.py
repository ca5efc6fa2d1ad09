"""Files: what was saved comes back, byte for byte and mapped, and no damage gets through unnamed."""

import json
import os
import stat
import subprocess
import sys
import zlib

import numpy as np
import pytest
import qrs
from models import array, batch, encoder, linear, mlp
from qrs import container, nn

RECIPES = {name: qrs.Recipe.preset(name) for name in qrs.Recipe.presets()}
RECIPES["bfloat16-symmetric"] = qrs.Recipe(
    [qrs.Rule("*", qrs.Scheme("int3", qrs.per_group(5), scale_dtype="bfloat16"))]
)


def quantized(name="w4a8-g32"):
    model, recipe = encoder(), RECIPES[name]
    stats = qrs.calibrate(model, [batch()], recipe) if "static" in name else None
    return qrs.quantize_model(model, recipe, stats)[0]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.qrs"


def parts(path):
    """Header and data of a file."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write(path, header, data, *, seal=True):
    """Write a file with another header; its checksum is made right unless `seal` is false."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    if seal and b'"header_crc32":"' in text:
        start = text.index(b'"header_crc32":"') + len(b'"header_crc32":"')
        text = text[:start] + b"00000000" + text[start + 8 :]
        text = text[:start] + f"{zlib.crc32(text):08x}".encode() + text[start + 8 :]
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize("name", RECIPES)
def test_a_saved_model_comes_back_bit_for_bit(path, name):
    model = quantized(name)
    model.save(path)
    again = qrs.load(path)
    np.testing.assert_array_equal(again.run(batch())["y"], model.run(batch())["y"])
    assert again.recipe == model.recipe and repr(again) == repr(model)
    for layer, other in zip(model.layers.values(), again.layers.values(), strict=True):
        assert layer.attributes() == other.attributes() and list(layer.arrays()) == list(other.arrays())
        for mine, theirs in zip(layer.arrays().values(), other.arrays().values(), strict=True):
            assert np.array_equal(mine, theirs) and type(mine) is type(theirs)
            assert not isinstance(mine, qrs.QTensor) or mine == theirs
    again.save(path.with_name("again.qrs"))
    assert path.read_bytes() == path.with_name("again.qrs").read_bytes()


def test_a_float_model_without_recipe(path):
    model = encoder()
    model.save(path)
    again = qrs.load(str(path))
    assert again.recipe is None
    np.testing.assert_array_equal(again.run(batch())["y"], model.run(batch())["y"])


def test_codes_and_floats_are_views_of_the_file(path):
    quantized("w8a8-dynamic").save(path)
    model = qrs.load(path)
    for array_ in (model.layers["block/up"].weight.codes, model.layers["block/norm"].weight):
        base = array_
        while isinstance(base, np.ndarray):
            assert not base.flags.writeable
            base = base.base
        assert "mmap" in repr(base) or isinstance(base, memoryview)
    assert model.layers["block/norm"].weight.ctypes.data % 4 == 0


def test_the_file_outlives_its_name(path):
    """A mapped model goes on when its file is replaced or unlinked."""
    quantized().save(path)
    model = qrs.load(path)
    expected = quantized().run(batch())["y"]
    mlp().save(path)
    np.testing.assert_array_equal(model.run(batch())["y"], expected)


def test_a_shared_array_is_stored_once(path):
    table = array(8, 8)
    model = qrs.Model.chain({"a": nn.Linear(table), "b": nn.Linear(table)})
    for one in (model, qrs.quantize_model(model, RECIPES["w8a16"])[0]):
        one.save(path)
        again = qrs.load(path).layers
        assert again["a"].weight is again["b"].weight or np.shares_memory(
            again["a"].weight, again["b"].weight
        )
        assert qrs.load(path).nbytes == one.nbytes


def test_the_safetensors_package_reads_it(path):
    safetensors = pytest.importorskip("safetensors.numpy")
    model = quantized()
    model.save(path)
    arrays = safetensors.load_file(path)
    weight = model.layers["block/up"].weight
    np.testing.assert_array_equal(arrays["block/up/weight.codes"], weight.codes)
    np.testing.assert_array_equal(arrays["block/up/weight.scale"].astype(np.float32), weight.scale)
    np.testing.assert_array_equal(arrays["block/up/weight.zero_point"], weight.zero_point)


def test_the_container_reads_what_safetensors_writes(path):
    safetensors = pytest.importorskip("safetensors.numpy")
    given = {
        "a": array(3, 4),
        "b": np.arange(5, dtype=np.uint8),
        "c": np.zeros((0, 3), np.int64),
        "d": array(),
    }
    safetensors.save_file(given, path, {"format": "np"})
    arrays, metadata = container.read(path)
    assert metadata == {"format": "np"} and set(arrays) == set(given)
    for name, expected in given.items():
        np.testing.assert_array_equal(arrays[name], expected)
        assert arrays[name].shape == expected.shape and arrays[name].dtype == expected.dtype
    with pytest.raises(qrs.FormatError, match="not of qrs"):
        qrs.load(path)


@pytest.mark.parametrize(
    "dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ">f4"]
)
def test_every_dtype_and_shape_comes_back(path, dtype):
    given = {str(s): np.ones(s).astype(dtype) for s in ((), (1,), (0,), (3, 0, 2), (2, 3))}
    given["strided"] = np.arange(12).reshape(3, 4).astype(dtype)[::2, ::-1]
    container.write(path, given, {"note": "ü \x00"})
    arrays, metadata = container.read(path)
    assert set(metadata) == {"note", "crc32", "header_crc32"} and metadata["note"] == "ü \x00"
    for name, expected in given.items():
        np.testing.assert_array_equal(arrays[name], expected)
        assert arrays[name].dtype == expected.dtype.newbyteorder("=")
        assert not arrays[name].flags.writeable and arrays[name].flags.aligned


def test_names_are_data_and_never_paths(path):
    names = ["../../x", "a\x00b", "/etc/passwd", "x" * 1_000_000, '"header_crc32":"00000000"', "\ud800"]
    container.write(path, {name: array(2) for name in names}, {})
    assert set(container.read(path)[0]) == set(names)
    assert os.listdir(path.parent) == [path.name]


def test_many_arrays(path):
    one = array(1)
    container.write(path, {str(i): one for i in range(20_000)}, {})
    assert len(container.read(path)[0]) == 20_000


@pytest.mark.parametrize("bad", [np.array(["a"]), np.array([None]), np.array([1j]), np.zeros(2, "M8[s]")])
def test_other_dtypes_are_refused(path, bad):
    with pytest.raises(qrs.QrsTypeError, match="array 'a' has dtype"):
        container.write(path, {"a": bad}, {})
    assert os.listdir(path.parent) == []


def test_every_prefix_is_refused(path):
    mlp().save(path)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(qrs.FormatError):
            qrs.load(path)


def test_a_flipped_bit_is_noticed_wherever_it_is(path):
    qrs.quantize_model(qrs.Model.chain({"a": linear(3, 5)}), RECIPES["w4a8-g32"])[0].save(path)
    data = path.read_bytes()
    unnoticed = []
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            qrs.load(path)
        except qrs.FormatError:
            continue
        unnoticed.append(place)
    assert unnoticed == []


def test_verify_false_skips_the_arrays_only(path):
    mlp().save(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 64
    path.write_bytes(data)
    with pytest.raises(qrs.FormatError, match="array 'second/bias' does not match its checksum"):
        qrs.load(path)
    assert qrs.load(path, verify=False).run({"x": array(2, 4)})["y"].shape == (2, 3)


FOREIGN = {
    "a pickle": b"\x80\x04\x95" + bytes(99),
    "a zip archive": b"PK\x03\x04" + bytes(99),
    "a NumPy .npy file": b"\x93NUMPY\x01\x00" + bytes(99),
    "a GGUF model": b"GGUF\x03\x00\x00\x00" + bytes(99),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(99),
    "an ONNX model": b"\x08\x08\x12\x07pytorch" + bytes(99),
    "header length": b"\xff" * 7 + b"\x3f" + bytes(99),
    "at most 0 possible": (1).to_bytes(8, "little"),
    "too short: 0 bytes": b"",
    "too short: 7 bytes": bytes(7),
    "expected a JSON object": (8).to_bytes(8, "little") + b"       {",
    "is not JSON": (8).to_bytes(8, "little") + b"{       ",
    "is not UTF-8": (3).to_bytes(8, "little") + b"{\xff}",
    "nested too deeply": (200_005).to_bytes(8, "little") + b'{"a":' + b"[" * 200_000,
    "duplicate name 'a'": (15).to_bytes(8, "little") + b'{"a":{},"a":{}}',
}


@pytest.mark.parametrize("message", FOREIGN)
def test_foreign_files_are_told_by_their_look(path, message):
    path.write_bytes(FOREIGN[message])
    with pytest.raises(qrs.FormatError) as caught:
        qrs.load(path)
    assert message in str(caught.value) and str(path) in str(caught.value)


def entry(**change):
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **change}


@pytest.mark.parametrize("length", [0x280, 0x380, 0x480, 0x580])
def test_a_header_whose_length_looks_like_a_pickle_is_a_header(path, length):
    header = json.dumps({"a": entry()}).encode().ljust(length)
    path.write_bytes(length.to_bytes(8, "little") + header + bytes(8))
    assert list(container.read(path)[0]) == ["a"]


ENTRIES = {
    "unknown dtype 'F33'": [entry(dtype="F33")],
    "unknown dtype [1]": [entry(dtype=[1])],
    "fields ['data_offsets', 'dtype', 'extra', 'shape']": [entry(extra=1)],
    "fields list": [[]],
    "shape [-1]": [entry(shape=[-1])],
    "shape [2.0]": [entry(shape=[2.0])],
    "shape [True]": [entry(shape=[True])],
    "shape 2": [entry(shape=2)],
    "shape [1, 1": [entry(shape=[1] * 65)],
    "shape [4611686018427387904, 8] of F32 needs": [entry(shape=[2**62, 8])],
    "expected at most 32 whole numbers": [entry(shape=[2**70])],
    "two whole numbers": [entry(data_offsets=[0])],
    "data_offsets [-8, 0]": [entry(data_offsets=[-8, 0])],
    "span 7 bytes": [entry(data_offsets=[0, 7])],
    "span -8 bytes": [entry(data_offsets=[8, 0])],
    "leaves a hole after array 'a0'": [entry(), entry(data_offsets=[9, 17])],
    "overlaps array 'a0'": [entry(), entry(data_offsets=[4, 12])],
    "leaves a hole after the header": [entry(data_offsets=[8, 16])],
    "trailing bytes": [entry()],
    "truncated": [entry(shape=[20], data_offsets=[0, 80])],
}


@pytest.mark.parametrize("message", ENTRIES)
def test_arrays_that_do_not_fit_are_named(path, message):
    write(path, {f"a{i}": e for i, e in enumerate(ENTRIES[message])}, bytes(24))
    with pytest.raises(qrs.FormatError) as caught:
        container.read(path)
    assert message in str(caught.value)


def graph(change):
    """A change to the graph of a saved model."""

    def apply(header):
        data = json.loads(header["__metadata__"]["graph"])
        change(data, data["nodes"][0], data["nodes"][0]["layer"])
        header["__metadata__"]["graph"] = json.dumps(data)

    return apply


def meta(**change):
    return lambda header: header["__metadata__"].update(change)


DAMAGE = {
    "version is '2', supported '1'; upgrade": meta(version="2"),
    "format is 'qrs-thing'": meta(format="qrs-thing"),
    "not of qrs": meta(format="pt"),
    "metadata fields": meta(extra="x"),
    "__metadata__ is not a map of strings": meta(version=1),
    "recipe is not JSON": meta(recipe="{"),
    "recipe: version 9": meta(recipe='{"version": 9, "rules": [], "steps": []}'),
    "crc32 does not name the same arrays": meta(crc32="{}"),
    "graph is a list": meta(graph="[]"),
    "graph: NaN is not a number": meta(graph="[NaN]"),
    "graph has fields": graph(lambda g, n, y: g.update(extra=1)),
    "graph.nodes is a int": graph(lambda g, n, y: g.update(nodes=3)),
    "graph.nodes[0] has fields": graph(lambda g, n, y: n.pop("name")),
    "graph.nodes[0].name is 3": graph(lambda g, n, y: n.update(name=3)),
    "graph.nodes[0].inputs": graph(lambda g, n, y: n.update(inputs=[3])),
    "graph.outputs": graph(lambda g, n, y: g.update(outputs="y")),
    "reads ['q']": graph(lambda g, n, y: n.update(inputs=["q"])),
    "cycle": graph(lambda g, n, y: n.update(inputs=["y"])),
    "unknown layer 'linaer'; did you mean 'linear'": graph(lambda g, n, y: y.update(id="linaer")),
    "unknown layer ['linear']": graph(lambda g, n, y: y.update(id=["linear"])),
    "unknown parts ['wheels']": graph(lambda g, n, y: y["attributes"].update(wheels=4)),
    "missing parts ['weight']": graph(lambda g, n, y: y.update(arrays={})),
    "array 'zzz' is missing": graph(lambda g, n, y: y["arrays"].update(bias="zzz")),
    "is [1], expected a name": graph(lambda g, n, y: y["arrays"].update(bias=[1])),
    "belong to no layer": graph(lambda g, n, y: y["arrays"].pop("bias")),
    "unknown activation 'no'": graph(lambda g, n, y: y["attributes"].update(activation="no")),
    "input is 3": graph(lambda g, n, y: y["attributes"].update(input=3)),
    "layer 'first': input": graph(lambda g, n, y: y["attributes"].update(input={"kind": "x"})),
    "unknown dtype 'int99'": graph(
        lambda g, n, y: g["quantized"]["first/weight"]["scheme"].update(dtype="int99")
    ),
    "array 'first/weight': codes has shape": graph(
        lambda g, n, y: g["quantized"]["first/weight"].update(shape=[6, 5])
    ),
    "array 'first/weight': shape is": graph(
        lambda g, n, y: g["quantized"]["first/weight"].update(shape=[6, -4])
    ),
    "scale has dtype float16, expected float32": graph(
        lambda g, n, y: g["quantized"]["first/weight"]["scheme"].update(scale_dtype="float32")
    ),
    "zero_point has dtype uint8, expected int8": graph(
        lambda g, n, y: g["quantized"]["first/weight"]["scheme"].update(dtype="int4")
    ),
    "nested more than 32 deep": graph(lambda g, n, y: n.update(layer=deep(40))),
}


def deep(depth):
    layer = {"id": "add", "attributes": {}, "arrays": {}, "layers": {}}
    for _ in range(depth):
        layer = {"id": "add", "attributes": {}, "arrays": {}, "layers": {"a": layer}}
    return layer


@pytest.mark.parametrize("message", DAMAGE)
def test_a_graph_that_cannot_be_is_a_format_error(path, message):
    qrs.quantize_model(mlp(), RECIPES["w4a8-g32"])[0].save(path)
    header, data = parts(path)
    DAMAGE[message](header)
    write(path, header, data)
    with pytest.raises(qrs.FormatError) as caught:
        qrs.load(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ") and str(caught.value).count(str(path)) == 1


@pytest.mark.parametrize(
    ("suffix", "value", "message"),
    [
        (".scale", np.float16(0), "scale is 0"),
        (".scale", np.float16(-1), "scale is -1"),
        (".scale", np.float16("nan"), "scale is nan"),
        (".scale", np.float16("inf"), "scale is inf"),
        (".scale", np.float16(1e-7), "float16 does not hold"),
        (".zero_point", np.uint8(16), "zero_point is 16"),
        (".codes", np.uint8(0xF0), "zeros above the lowest 4 bits"),
    ],
)
def test_stored_values_are_checked(path, suffix, value, message):
    qrs.quantize_model(qrs.Model.chain({"a": nn.Linear(array(3, 5))}), RECIPES["w4a8-g32"])[0].save(path)
    arrays, _ = container.read(path)
    header, _ = parts(path)
    changed = {name: a.copy() for name, a in arrays.items()}
    changed[f"a/weight{suffix}"].reshape(-1)[-1] = value
    metadata = {k: v for k, v in header["__metadata__"].items() if "crc32" not in k}
    container.write(path, changed, metadata)
    with pytest.raises(qrs.FormatError, match=message) as caught:
        qrs.load(path)
    assert "a/weight" in str(caught.value)


def test_a_wrong_header_checksum_is_refused(path):
    mlp().save(path)
    header, data = parts(path)
    write(path, header, data, seal=False)
    with pytest.raises(qrs.FormatError, match="header does not match its checksum"):
        qrs.load(path)
    header["__metadata__"]["header_crc32"] = "x"
    write(path, json.dumps(header).encode(), data, seal=False)
    with pytest.raises(qrs.FormatError, match="expected eight hexadecimal digits"):
        qrs.load(path)


@pytest.mark.parametrize("lacking", [["crc32"], ["header_crc32"], ["crc32", "header_crc32"]])
@pytest.mark.parametrize("verify", [True, False])
def test_a_file_without_its_checksums_is_refused_by_name(path, lacking, verify):
    recipe = RECIPES["w8a8-static"]
    saved = [(mlp(), lambda: qrs.load(path, verify=verify))]
    saved.append((qrs.calibrate(mlp(), [{"x": array(5, 4)}], recipe), lambda: qrs.load_stats(path)))
    for thing, load in saved:
        thing.save(path)
        header, data = parts(path)
        for name in lacking:
            del header["__metadata__"][name]
        write(path, header, data)
        with pytest.raises(qrs.FormatError, match=rf"model.qrs: {lacking[0]} is missing, which qrs writes"):
            load()


def test_bytes_are_a_path_too(path):
    name = os.fsencode(path)
    mlp().save(name)
    assert repr(qrs.load(name)) == repr(mlp())
    stats = qrs.Statistics({})
    stats.save(name)
    assert qrs.load_stats(name) == stats
    with pytest.raises(qrs.FormatError, match=f"^{path}: format is 'qrs-statistics'"):
        qrs.load(name)


@pytest.mark.parametrize("wrong", [5, None, ["model.qrs"]])
@pytest.mark.parametrize(
    "call", [mlp().save, qrs.load, qrs.Statistics({}).save, qrs.load_stats], ids=lambda call: call.__name__
)
def test_what_is_no_path_is_named(call, wrong):
    with pytest.raises(qrs.QrsTypeError, match=r"^path is .*, expected a str, bytes or os.PathLike$"):
        call(wrong)
    with pytest.raises(
        qrs.QrsValueError, match=r"^path is 'a\\x00b', expected a name without null characters$"
    ):
        call("a\0b")


def test_verify_is_true_or_false(path):
    with pytest.raises(qrs.QrsTypeError, match="verify is 'no', expected True or False"):
        qrs.load(path, verify="no")


def test_a_failed_save_names_the_file_asked_for(path):
    for wanted in (path.parent / "missing" / "model.qrs", path.parent / ("n" * 300), path.parent):
        with pytest.raises(OSError, match=f"^\\[Errno [0-9]+\\] [A-Za-z ]+: '{wanted}'$") as caught:
            mlp().save(wanted)
        assert caught.value.filename == str(wanted)


def test_a_name_may_be_as_long_as_the_file_system_allows(path):
    longest = path.with_name("ü" * 125 + ".qrs")
    mlp().save(longest)
    assert repr(qrs.load(longest)) == repr(mlp())


def test_a_layer_that_no_file_can_hold_is_refused_when_saved(path):
    class Unnamed(nn.Layer):
        def forward(self, x):
            return x

    with pytest.raises(qrs.QrsValueError, match=r"^layer 'a': Unnamed has no id .* the layer with id=$"):
        qrs.Model.chain({"a": Unnamed()}).save(path)
    for value in (float("nan"), {1, 2}):

        class Odd(nn.Normalize):
            def attributes(self, value=value):
                return {"eps": value}

        Odd.id = "normalize"
        with pytest.raises(qrs.QrsValueError, match=r"^layer 'a' has attributes .* which JSON cannot hold"):
            qrs.Model.chain({"a": Odd()}).save(path)
    assert os.listdir(path.parent) == []


def test_an_observer_that_no_file_can_name_is_refused_when_saved(path):
    class Unnamed(qrs.observers.MinMax):
        pass

    recipe = qrs.Recipe([qrs.Rule("*", "int8", qrs.Static("uint8", observer=Unnamed()))])
    stats = qrs.calibrate(mlp(), [{"x": array(5, 4)}], recipe)
    model, _ = qrs.quantize_model(mlp(), recipe, stats)
    for thing in (stats, model):
        with pytest.raises(qrs.QrsValueError, match=r"Unnamed has no id .*; define the observer with id="):
            thing.save(path)
    model.with_recipe(None).save(path)


def test_paths_that_are_no_files(path):
    with pytest.raises(FileNotFoundError):
        qrs.load(path)
    with pytest.raises(IsADirectoryError):
        qrs.load(path.parent)
    with pytest.raises(IsADirectoryError):
        mlp().save(path.parent)
    with pytest.raises(FileNotFoundError):
        mlp().save(path.parent / "missing" / "model.qrs")
    os.mkfifo(path)
    with pytest.raises(qrs.FormatError, match="not a regular file"):
        qrs.load(path)
    with pytest.raises(qrs.FormatError, match="not a regular file"):
        qrs.load("/dev/zero")


def test_a_relative_path_is_the_working_directory(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    mlp().save("model.qrs")
    assert os.listdir() == ["model.qrs"]


def test_a_link_is_replaced_and_its_target_kept(path):
    target = path.with_name("target")
    target.write_text("mine")
    path.symlink_to(target)
    mlp().save(path)
    assert not path.is_symlink() and target.read_text() == "mine"


def test_permissions_are_those_of_a_new_file_or_the_old_one(path):
    mask = os.umask(0o027)
    try:
        mlp().save(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o600)
        mlp().save(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(mask)


LIMITED = """
import resource, signal, sys, qrs
sys.path.insert(0, {tests!r})
from models import encoder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    encoder().save({path!r})
except OSError as error:
    print(type(error).__name__, error.errno)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_failed_save_leaves_the_old_file_and_nothing_else(path):
    mlp().save(path)
    before = path.read_bytes()
    code = LIMITED.format(tests=os.path.dirname(__file__), path=str(path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("OSError"), done.stderr
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_an_interrupted_save_leaves_the_old_file(path, monkeypatch):
    mlp().save(path)
    before = path.read_bytes()

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        encoder().save(path)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]
