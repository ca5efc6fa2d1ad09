"""The command line: results on the standard output, words for people on the other, exit codes that tell."""

import json
import os
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import qrs
from models import array, mlp
from qrs.cli import _parser, main

RUN = [sys.executable, "-m", "qrs"]
# The package that is under test, also from another folder.
HERE = {**os.environ, "PYTHONPATH": str(Path(qrs.__file__).parents[1])}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mlp().save("model.qrs")
    np.savez("data.npz", x=array(10, 4))
    return tmp_path


@pytest.fixture
def told(capsys):
    """Run a command and give its code, its output and its errors."""

    def run(*arguments):
        code = main(list(arguments))
        text = capsys.readouterr()
        return code, text.out, text.err

    return run


def parsed(told, *arguments, code=0):
    found, out, err = told(*arguments, "--json")
    assert (found, err) == (code, "")
    return json.loads(out)


# ---- quantize


def test_quantize_writes_a_model_and_a_report(folder, told):
    arguments = ["quantize", "model.qrs", "-o", "small.qrs", "--calib", "data.npz", "--report", "page.html"]
    code, out, err = told(*arguments)
    assert (code, err) == (0, "")
    assert "small.qrs: 2 layers quantized by w8a8-static" in out
    small = qrs.load("small.qrs")
    assert small.layers["first"].weight.scheme.dtype == "int8"
    assert isinstance(small.layers["first"].input, qrs.Static)
    assert "Where the error comes from" in (folder / "page.html").read_text()
    assert sorted(os.listdir()) == ["data.npz", "model.qrs", "page.html", "small.qrs"]


def test_the_object_of_quantize_keeps_its_keys(folder, told):
    data = parsed(told, "quantize", "model.qrs", "-o", "small.qrs", "--calib", "data.npz", "--batch", "4")
    assert set(data) == {
        "command", "model", "output", "recipe", "report", "batches", "measured_batches", "sqnr", "diagnosis",
        "rows", "bytes_before", "bytes_after",
    }  # fmt: skip
    assert data["recipe"] == "w8a8-static"
    assert data["measured_batches"] == 3
    given = [{"x": array(10, 4)[i : i + 4]} for i in (0, 4, 8)]
    exact, small = (np.concatenate([m.run(b)["y"] for b in given]) for m in (mlp(), qrs.load("small.qrs")))
    assert data["sqnr"]["sqnr_db"] == pytest.approx(qrs.compare(exact, small).sqnr_db, abs=1e-6)


def test_quantize_without_data_takes_a_dynamic_recipe(folder, told):
    assert parsed(told, "quantize", "model.qrs", "-o", "small.qrs")["recipe"] == "w8a8-dynamic"


def test_a_static_recipe_says_what_it_needs(folder, told):
    code, out, err = told("quantize", "model.qrs", "-o", "small.qrs", "--recipe", "w8a8-static")
    assert (code, out) == (2, "")
    assert err.startswith("error: recipe w8a8-static has static inputs")
    assert all(word in err for word in ("--calib", "--stats", "w8a8-dynamic", "samples first: x"))
    assert not os.path.exists("small.qrs")


def test_a_recipe_may_be_a_file(folder, told):
    recipe = qrs.Recipe([qrs.Rule("first", "int4"), qrs.Rule("*", None)])
    (folder / "mine.json").write_text(recipe.to_json())
    data = parsed(told, "quantize", "model.qrs", "-o", "small.qrs", "--recipe", "mine.json")
    assert [row["reason"] for row in data["rows"]] == [None, "kept by rule '*'"]
    assert qrs.load("small.qrs").recipe == recipe


def test_a_threshold_that_is_missed_ends_with_1_and_writes_no_model(folder, told):
    how = ["quantize", "model.qrs", "-o", "small.qrs", "--calib", "data.npz", "--fail-below"]
    data = parsed(told, *how, "200", code=1)
    assert data["output"] is None
    assert data["sqnr"]["sqnr_db"] < 200
    assert not os.path.exists("small.qrs")
    assert told(*how, "10")[0] == 0
    assert os.path.exists("small.qrs")


def test_statistics_travel_in_files_and_add_up(folder, told):
    x = array(10, 4)
    np.savez("one.npz", x=x[:5])
    np.savez("two.npz", x=x[5:])
    whole = parsed(told, "calibrate", "model.qrs", "--calib", "data.npz", "-o", "whole")
    assert told("calibrate", "model.qrs", "--calib", "one.npz", "-o", "one")[0] == 0
    both = parsed(told, "calibrate", "model.qrs", "--calib", "two.npz", "-o", "both", "--merge", "one")
    assert both["ranges"] == whole["ranges"]
    assert whole["ranges"]["first"] == [float(x.min()), float(x.max())]
    assert whole["batches"] == 10
    assert told("quantize", "model.qrs", "-o", "a.qrs", "--stats", "both")[0] == 0
    assert told("quantize", "model.qrs", "-o", "b.qrs", "--calib", "data.npz")[0] == 0
    assert (folder / "a.qrs").read_bytes() == (folder / "b.qrs").read_bytes()


# ---- inspect, diff, bench, doctor


def test_inspect_shows_layers_and_the_plan_that_quantize_carries_out(folder, told):
    data = parsed(told, "inspect", "model.qrs", "--recipe", "w8a8-static")
    assert [layer["shape"] for layer in data["layers"]] == [[6, 4], [3, 6]]
    made = parsed(told, "quantize", "model.qrs", "-o", "small.qrs", "--calib", "data.npz")
    assert data["plan"]["layers"] == made["rows"]
    assert data["plan"]["bytes"] == made["bytes_after"]
    small = parsed(told, "inspect", "small.qrs")
    assert small["plan"] is None
    assert small["layers"][0]["weight"] == "Scheme('int8', per_channel(0))"
    assert small["layers"][0]["input"] == "static uint8 per_tensor"
    assert small["bytes"] == made["bytes_after"]
    code, out, _ = told("inspect", "model.qrs")
    assert code == 0
    assert "what w8a8-dynamic would do" in out


def test_diff_lists_layers_worst_first(folder, told):
    told("quantize", "model.qrs", "-o", "small.qrs", "--recipe", "w4a16-g32")
    data = parsed(told, "diff", "model.qrs", "small.qrs", "--calib", "data.npz", "--batch", "10")
    ratios = [layer["ratio"] for layer in data["layers"]]
    assert ratios == sorted(ratios, reverse=True)
    assert {layer["name"] for layer in data["layers"]} == {"first", "second"}
    exact, given = (m.run({"x": array(10, 4)})["y"] for m in (mlp(), qrs.load("small.qrs")))
    assert data["sqnr"]["sqnr_db"] == pytest.approx(qrs.compare(exact, given).sqnr_db, abs=1e-6)
    assert data["outputs"]["y"] == data["sqnr"]
    one = parsed(told, "diff", "model.qrs", "small.qrs", "--calib", "data.npz", "--worst", "1")
    assert len(one["layers"]) == 1


def test_diff_of_the_same_is_equal_and_of_too_much_fails(folder, told):
    code, out, _ = told("diff", "model.qrs", "model.qrs", "--calib", "data.npz", "--fail-below", "300")
    assert code == 0
    assert "equal" in out
    told("quantize", "model.qrs", "-o", "small.qrs")
    assert told("diff", "model.qrs", "small.qrs", "--calib", "data.npz", "--fail-below", "300")[0] == 1


def test_bench_times_both_sides_and_names_what_loses(folder, told, monkeypatch):
    arguments = ["bench", "model.qrs", "--calib", "data.npz", "--runs", "2"]
    data = parsed(told, *arguments, "--recipe", "w8a8-static")
    assert data["against"] == "the same quantized by w8a8-static"
    assert data["inputs"] == {"x": {"shape": [1, 4], "dtype": "float32"}}
    assert all(row["before"] > 0 < row["after"] and row["is_quantized"] for row in data["layers"])
    losing = [row["name"] for row in data["layers"] if row["after"] > 1.05 * row["before"]]
    assert data["keep_float"] == losing

    from qrs.cli import measure

    taken = [
        measure.Times(3.0, {"first": 1.0, "second": 2.0}),
        measure.Times(2.5, {"first": 2.0, "second": 0.5}),
    ]
    monkeypatch.setattr(measure, "times", lambda *_: taken)
    assert parsed(told, *arguments)["keep_float"] == ["first"]
    code, out, _ = told(*arguments)
    assert code == 0
    assert "weight=None keeps them in float32:\n  first" in out


def test_bench_of_a_quantized_file_decodes_its_weights(folder, told):
    told("quantize", "model.qrs", "-o", "small.qrs")
    data = parsed(told, "bench", "small.qrs", "--calib", "data.npz", "--runs", "1")
    assert data["against"] == "the same with decoded weights"
    both = ["bench", "model.qrs", "--against", "small.qrs", "--calib", "data.npz", "--runs", "1"]
    assert all(row["is_quantized"] for row in parsed(told, *both)["layers"])
    code, _, err = told("bench", "small.qrs", "--runs", "1")
    assert (code, "give --calib" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "environment", "why"),
    [
        (["--threads", "1"], {"QRS_NUM_THREADS": "2"}, "--threads 1"),
        ([], {"QRS_NUM_THREADS": "2", "OMP_NUM_THREADS": "3"}, "QRS_NUM_THREADS=2"),
        ([], {"OMP_NUM_THREADS": "3"}, "OMP_NUM_THREADS=3"),
        ([], {}, "the CPUs that affinity and container limits leave"),
    ],
)
def test_doctor_tells_threads_and_why(arguments, environment, why):
    plain = {k: v for k, v in HERE.items() if k not in ("QRS_NUM_THREADS", "OMP_NUM_THREADS", "QRS_ISA")}
    ran = subprocess.run(
        [*RUN, "doctor", "--json", *arguments], env={**plain, **environment}, capture_output=True, check=True
    )
    data = json.loads(ran.stdout)
    assert data["threads"]["why"] == why
    if why[-1].isdigit():
        assert data["threads"]["count"] == int(why[-1])
    assert data["isa"] == {
        "name": data["isa"]["available"][-1],
        "why": "the highest that this CPU runs",
        "available": qrs.available_isas(),
    }
    assert data["packages"].keys() >= {"onnx", "ml_dtypes"}


# ---- wrong usage and input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quantize", "model.txt", "-o", "a.qrs"], "ends in .onnx or .qrs"),
        (["quantize", "model.qrs", "-o", "a.bin"], "ends in .onnx or .qrs"),
        (["quantize", "gone.qrs", "-o", "a.qrs"], "gone.qrs: No such file"),
        (["quantize", "model.qrs", "-o", "model.qrs"], "is the model itself"),
        (["quantize", "model.qrs", "-o", "./model.qrs"], "is the model itself"),
        (["quantize", "model.qrs", "-o", "a.qrs", "--report", "model.qrs"], "is the model itself"),
        (["quantize", "model.qrs", "-o", "a.qrs", "--report", "a.qrs"], "is the output itself"),
        (["quantize", "model.qrs", "-o", "a.qrs", "--report", "page.txt"], "ends in .html"),
        (
            ["quantize", "model.qrs", "-o", "a.qrs", "--calib", "a.npz", "--report", "a.npz"],
            "is the data itself",
        ),
        (["calibrate", "model.qrs", "--calib", "a.npz", "-o", "a.npz"], "is the data itself"),
        (["calibrate", "model.qrs", "--calib", "a.npz", "-o", "model.qrs"], "is the model itself"),
        (["quantize", "model.qrs", "-o", "gone/a.qrs"], "folder does not exist"),
        (["quantize", "model.qrs", "-o", "a.qrs", "--report", "gone/a.html"], "folder does not exist"),
        (["quantize", "model.qrs", "-o", "a.qrs", "--recipe", "w9"], "preset"),
        (["quantize", "model.qrs", "-o", "a.qrs", "--recipe", "gone.json"], "gone.json: No such file"),
        (["quantize", "model.qrs", "-o", "a.qrs", "--fail-below", "3"], "give --calib"),
        (["quantize", "model.qrs", "-o", "a.qrs", "--calib", "gone.npz"], "gone.npz: No such file"),
        (["quantize", "model.qrs", "-o", "a.qrs", "--calib", "model.qrs"], "no .npz file"),
        (["quantize", "model.qrs", "-o", "a.qrs", "--calib", "other.npz"], r"'y'.*expected one.*'x'"),
        (["quantize", "model.qrs", "-o", "a.qrs", "--calib", "empty.npz"], "samples {'x': 0}"),
        (["quantize", "model.qrs", "-o", "a.qrs", "--calib", "objects.npz"], "no .npz file"),
        (["quantize", "model.qrs", "-o", "a.qrs", "--calib", "single.npy"], "single array"),
        (["quantize", "model.qrs", "-o", "a.qrs", "--calib", "nan.npz"], "layer 'first'"),
        (["quantize", "bad.qrs", "-o", "a.qrs"], "bad.qrs"),
        (
            ["calibrate", "model.qrs", "--calib", "data.npz", "-o", "s", "--recipe", "w8a16"],
            "no static inputs",
        ),
        (
            ["bench", "model.qrs", "--calib", "data.npz", "--recipe", "w8a16", "--against", "model.qrs"],
            "not both",
        ),
        (["doctor", "--threads", "0"], "at least 1"),
        (
            ["diff", "model.qrs", "model.qrs", "--calib", "data.npz", "--fail-below", "nan"],
            "--fail-below is nan",
        ),
    ],
)
def test_wrong_input_is_one_line_and_a_2(folder, told, arguments, message):
    np.savez("other.npz", y=array(2, 4))
    np.savez("empty.npz", x=array(0, 4))
    np.savez("objects.npz", x=np.array([{}], object))
    np.savez("nan.npz", x=np.full((2, 4), np.nan, np.float32))
    np.save("single.npy", array(2, 4))
    (folder / "bad.qrs").write_bytes(b"nothing")
    before = sorted(os.listdir())
    code, out, err = told(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert re.search(message, err), err
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["quantize"], ["bench", "a.qrs", "--runs", "0"]])
def test_wrong_usage_is_a_2(told, arguments):
    code, out, err = told(*arguments)
    assert (code, out) == (2, "")
    assert "usage: qrs" in err


def test_debug_shows_where_an_error_came_from(folder, told):
    code, _, err = told("inspect", "gone.qrs", "--debug")
    assert code == 2
    assert "Traceback" in err
    assert err.endswith("error: gone.qrs: No such file or directory\n")


def test_help_and_version_end_with_0(told):
    code, out, _ = told("--help")
    assert code == 0
    assert all(name in out for name in ("quantize", "calibrate", "inspect", "diff", "bench", "doctor"))
    assert told("--version")[1] == f"qrs {qrs.__version__}\n"


# ---- interruption, pipes and terminals


def test_an_interruption_leaves_no_file(folder, told, monkeypatch):
    """It comes at the worst moment: the bytes are written, the file is not yet in its place."""

    def interrupted(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    before = sorted(os.listdir())
    for arguments in (
        ["quantize", "model.qrs", "-o", "a.qrs"],
        ["quantize", "model.qrs", "-o", "a.qrs", "--report", "page.html"],
        ["calibrate", "model.qrs", "--calib", "data.npz", "-o", "stats"],
    ):
        code, out, err = told(*arguments)
        assert (code, out, err) == (130, "", "\ninterrupted\n")
        assert sorted(os.listdir()) == before


def test_in_a_pipe_there_is_the_result_alone(folder):
    how = [*RUN, "quantize", "model.qrs", "-o", "a.qrs", "--calib", "data.npz", "--json"]
    ran = subprocess.run(how, env=HERE, capture_output=True, check=True)
    assert ran.stderr == b""
    assert json.loads(ran.stdout)["output"] == "a.qrs"


def test_a_terminal_sees_progress_and_control_c_ends_with_130(folder):
    pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals")
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    terminal, end = pty.openpty()
    # A new one has no columns, for which tqdm draws nothing.
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    how = [*RUN, "bench", "model.qrs", "--calib", "data.npz", "--runs", "100000000"]
    process = subprocess.Popen(how, env=HERE, stdout=subprocess.PIPE, stderr=end)
    os.close(end)
    seen = b""
    while b"time" not in seen:
        seen += os.read(terminal, 1024)
    process.send_signal(signal.SIGINT)
    # What is shown has to be read on, or the process would wait for room to write.
    while b"interrupted" not in seen[-4096:]:
        seen += os.read(terminal, 65536)
    assert process.wait() == 130
    assert process.stdout.read() == b""
    process.stdout.close()
    os.close(terminal)


def test_a_reader_that_leaves_is_no_error(folder):
    process = subprocess.Popen([*RUN, "doctor"], env=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    error = process.stderr.read()
    assert process.wait() == 141
    assert error == b""
    process.stderr.close()


# ---- ONNX


def test_onnx_files_go_in_and_come_out(tmp_path, monkeypatch, told):
    onnx = pytest.importorskip("onnx", reason="an extra: pip install onnx")
    monkeypatch.chdir(tmp_path)
    text = "g (float[N, 4] x) => (float[N, 3] y) { h = MatMul (x, w)  y = Relu (h) }"
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    proto.graph.initializer.append(onnx.numpy_helper.from_array(array(4, 3), "w"))
    onnx.save(proto, "model.onnx")
    np.savez("data.npz", x=array(8, 4))
    how = ["quantize", "model.onnx", "-o", "small.onnx", "--calib", "data.npz", "--measure", "8"]
    wanted = parsed(told, *how)["sqnr"]["sqnr_db"]
    data = parsed(told, "diff", "model.onnx", "small.onnx", "--calib", "data.npz", "--fail-below", "25")
    assert data["sqnr"]["sqnr_db"] == pytest.approx(wanted, abs=1.0)
    assert parsed(told, "bench", "model.onnx", "--batch", "5", "--runs", "1")["inputs"]["x"]["shape"] == [
        5,
        4,
    ]
    code, _, err = told("quantize", "model.onnx", "-o", "dynamic.onnx")
    assert (code, "quantize with Static inputs" in err) == (2, True)
    assert not os.path.exists("dynamic.onnx")


# ---- what the pages show


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md"])
def test_the_commands_of_a_page_are_commands(page):
    text = (Path(__file__).parents[1] / page).read_text()
    commands = re.findall(r"^\$ qrs (.*)$", text, re.MULTILINE)
    assert commands
    for command in commands:
        assert _parser().parse_args(command.split()).run
