"""The native border: what it takes, what it refuses, and that it says so itself."""

import ast
import threading
from pathlib import Path

import numpy as np
import pytest
import qrs
from machine import THREADS, machine
from qrs import _core

CELL = (np.ones(1, np.float32), np.zeros(1, np.int32))


def quantize(x, out, *, block=None, scale=CELL[0], zero_point=CELL[1], format="int8", seed=0):
    shape = x.shape if isinstance(x, np.ndarray) else (4,)
    cells = (scale, zero_point, None)
    _core.quantize(x, None, block or shape, cells, format, False, "half_even", seed, True, True, out)


def codes(count=4):
    return np.empty(count, np.uint8)


def test_the_stub_lists_what_the_module_exports():
    stub = ast.parse(Path(qrs.__file__).with_name("_core.pyi").read_text("utf-8"))
    declared = {node.name for node in stub.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    exported = {name for name in vars(_core) if not name.startswith("__")}
    assert exported == declared


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([1.0] * 4, "x is a list, expected a NumPy array of float32"),
        (None, "x is a NoneType, expected a NumPy array of float32"),
        (np.float32(1), "x is a float32, expected a NumPy array of float32"),
        (np.ones(4), "x has dtype float64, expected float32"),
        (np.ones(4, np.int32), "x has dtype int32, expected float32"),
        (np.ones(4, ">f4"), "x has dtype >f4, expected float32 in native byte order"),
        (np.ones(4, object), "x has dtype object, expected float32"),
        (np.zeros(4, [("a", "f4")]), "expected float32"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_a_wrong_type_is_named(x, message):
    with pytest.raises(qrs.QrsTypeError) as raised:
        quantize(x, codes())
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "x",
    [np.ones(8, np.float32)[::2], np.ones(4, np.float32)[::-1], np.ones((3, 2), np.float32).T],
    ids=["strided", "reversed", "transposed"],
)
def test_only_contiguous_memory_is_taken(x):
    with pytest.raises(qrs.QrsValueError, match="x is not C-contiguous"):
        quantize(x, codes(x.size))


def test_misaligned_memory_is_refused():
    x = np.zeros(17, np.uint8)[1:].view(np.float32)
    with pytest.raises(qrs.QrsValueError, match="x is not aligned for its dtype"):
        quantize(x, codes())


def test_inputs_may_be_read_only_and_shared_and_outputs_may_not():
    x = np.arange(4, dtype=np.float32)
    x.flags.writeable = False
    out = codes()
    quantize(x, out)
    assert out.tolist() == [0, 1, 2, 3]
    assert _core.error_sums(x, x)[3] == 0
    out.flags.writeable = False
    with pytest.raises(qrs.QrsValueError, match="out is read-only"):
        quantize(x, out)


def test_an_output_shares_no_byte_with_an_input():
    memory = np.zeros(64, np.uint8)
    x, scale = memory[:16].view(np.float32), memory[32:36].view(np.float32)
    scale[:] = 1
    quantize(x, memory[16:20], scale=scale)  # side by side
    for start, name in [(12, "x"), (15, "x"), (32, "scale"), (29, "scale")]:
        with pytest.raises(qrs.QrsValueError, match=f"out overlaps {name} in memory"):
            quantize(x, memory[start : start + 4], scale=scale)


def test_a_result_owns_its_memory():
    lo, hi = _core.min_max(np.ones((2, 3), np.float32), (1, 3), True)
    assert lo.flags.owndata and lo.flags.writeable and hi.shape == (2,)


@pytest.mark.parametrize("count", [2**62, 2**40])
def test_a_count_that_does_not_fit_is_an_error(count):
    with pytest.raises((MemoryError, ValueError)):
        _core.unpack(codes(1), "int4", count)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_has_64_bits(seed):
    with pytest.raises(OverflowError):
        quantize(np.ones(4, np.float32), codes(), seed=seed)


def test_threads_share_an_input():
    x = np.linspace(-100, 100, 1 << 18, dtype=np.float32)
    outs = [codes(x.size) for _ in range(4)]
    threads = [threading.Thread(target=quantize, args=(x, out)) for out in outs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((out == np.rint(x).astype(np.int8).view(np.uint8)).all() for out in outs)


# ---- the machine


@pytest.mark.parametrize("threads", [1.5, None, True, np.True_, "2", [2], np.float64(2)])
def test_a_number_of_threads_that_is_no_integer_is_named(threads):
    with pytest.raises(qrs.QrsTypeError, match=r"^threads is .*, expected an integer$"):
        qrs.set_num_threads(threads)


@pytest.mark.parametrize("threads", [0, -1, -(2**70), np.int8(-3)])
def test_a_number_of_threads_is_at_least_one(threads):
    with pytest.raises(qrs.QrsValueError, match=rf"^threads is {int(threads)}, expected at least 1$"):
        qrs.set_num_threads(threads)


def test_a_number_of_threads_is_clamped():
    with machine(threads=THREADS[0]):
        for threads in (np.uint8(2), np.array(2)):
            qrs.set_num_threads(threads)
            assert qrs.get_num_threads() == 2
        for threads in (257, 2**63, 2**70):
            qrs.set_num_threads(threads)
            assert qrs.get_num_threads() == 256


@pytest.mark.parametrize("name", [None, 3, b"portable", ["portable"]])
def test_an_instruction_set_is_named_by_a_string(name):
    with pytest.raises(qrs.QrsTypeError, match=r"^name is .*, expected a str; qrs.available_isas\(\) lists"):
        qrs.set_isa(name)


def test_an_instruction_set_that_is_none_is_refused_with_the_list():
    before = qrs.isa()
    with pytest.raises(qrs.QrsValueError, match=r'"avx1024".*portable'):
        qrs.set_isa("avx1024")
    assert qrs.isa() == before


@pytest.mark.parametrize("format", ["int8", "uint8"])
def test_requantized_products_take_the_dtype_of_their_format(format):
    weight = qrs.quantize(np.eye(4, dtype=np.float32), qrs.Scheme("int8", qrs.per_channel(0)))
    x, out = np.arange(8, dtype=np.float32).reshape(2, 4), np.empty((2, 4), format)
    weight.panels.linear_requantized(x, None, "none", None, format, 1.0, 0, False, out)
    assert (out == x).all()
