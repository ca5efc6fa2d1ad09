"""The door in and the door out: every form that an array may have, and what is refused by name."""

import array
import itertools

import ml_dtypes
import numpy as np
import pytest
import qrs
from qrs.arrays import AXES, as_float32, deliver, target

SCHEME = qrs.Scheme("uint5", qrs.per_channel(0), symmetric=False)


def matrix(dtype=np.float32, shape=(6, 35)):
    return np.random.default_rng(3).standard_normal(shape).astype(dtype)


def misaligned(x, offset):
    raw = np.zeros(x.nbytes + 8, np.uint8)
    view = raw[offset : offset + x.nbytes].view(x.dtype).reshape(x.shape)
    view[...] = x
    assert not view.flags.aligned
    return view


class Subclass(np.ndarray):
    pass


class Promise:
    """Promises one dtype and gives another."""

    dtype = np.dtype(np.int64)
    shape = (1,)

    def __array__(self, dtype=None, copy=None):
        return matrix()


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


FORMS = {
    "C": matrix,
    "F": lambda: np.asfortranarray(matrix()),
    "reversed": lambda: matrix()[::-1, ::-1],
    "steps": lambda: matrix(shape=(6, 70))[:, ::2],
    "broadcast": lambda: np.broadcast_to(matrix(shape=(35,)), (6, 35)),
    "read-only": lambda: read_only(matrix()),
    "misaligned 1": lambda: misaligned(matrix(), 1),
    "misaligned 2": lambda: misaligned(matrix(), 2),
    "misaligned 3": lambda: misaligned(matrix(), 3),
    ">f4": lambda: matrix().astype(">f4"),
    ">f2": lambda: matrix().astype(">f2"),
    ">f8": lambda: matrix(np.float64).astype(">f8"),
    "float64": lambda: matrix(np.float64),
    "float16": lambda: matrix(np.float16),
    "bfloat16": lambda: matrix(ml_dtypes.bfloat16),
    "bfloat16 steps": lambda: matrix(ml_dtypes.bfloat16)[::2, ::3],
    "matrix": lambda: np.matrix(matrix()),
    "subclass": lambda: matrix().view(Subclass),
    "masked, nothing masked": lambda: np.ma.array(matrix()),
    "list": lambda: matrix().tolist(),
    "list of arrays": lambda: list(matrix()),
    "list of whole numbers": lambda: [[1, 2], [-3, 4]],
    "promise": Promise,
    "memoryview": lambda: memoryview(matrix()),
    "array.array": lambda: array.array("f", [1.0, -2.0, 3.0]),
    "scalar": lambda: np.float32(2.5),
    "float": lambda: -1.25,
    "int": lambda: 3,
    "0-d": lambda: np.array(2.5, np.float32),
    "many axes": lambda: np.ones((1,) * (min(33, AXES) - 2) + (2, 3), np.float32),
    "empty": lambda: np.ones((0, 4), np.float32),
    "empty rows": lambda: np.ones((4, 0), np.float32),
    "empty, 3 axes": lambda: np.ones((0, 0, 3), np.float32),
}


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_its_plain_copy(form):
    x = FORMS[form]()
    copy = np.array(x, dtype=np.float32, order="C", subok=False)
    data = as_float32(x, "x")
    assert type(data) is np.ndarray
    assert data.dtype == np.float32
    assert data.dtype.isnative
    assert data.flags.c_contiguous
    assert data.flags.aligned
    assert data.shape == copy.shape
    assert np.array_equal(data, copy)
    scheme = SCHEME if copy.ndim else qrs.Scheme("uint5")
    q = qrs.quantize(x, scheme)
    assert q == qrs.quantize(copy, scheme)
    assert q.shape == copy.shape
    assert np.array_equal(qrs.fake_quantize(x, scheme), q.dequantize())


def test_every_order_of_four_axes_is_its_copy():
    x = matrix(shape=(2, 3, 4, 5))
    for axes in itertools.permutations(range(4)):
        view = x.transpose(axes)
        assert qrs.quantize(view, SCHEME) == qrs.quantize(view.copy(), SCHEME)


def test_sixteen_bits_widen_exactly():
    patterns = np.arange(2**16, dtype=np.uint16)
    halves = as_float32(patterns.view(np.float16), "x")
    assert np.array_equal(halves, patterns.view(np.float16).astype(np.float64), equal_nan=True)
    brains = as_float32(patterns.view(ml_dtypes.bfloat16), "x")
    exact = (patterns.astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(brains, exact, equal_nan=True)


def test_what_needs_no_conversion_is_not_copied():
    x = matrix()
    assert np.shares_memory(as_float32(x, "x"), x)
    assert np.shares_memory(as_float32(memoryview(x), "x"), x)


def test_a_memory_mapped_file_is_an_array(tmp_path):
    path = tmp_path / "x.bin"
    matrix().tofile(path)
    mapped = np.memmap(path, np.float32, "r", shape=(6, 35))
    assert qrs.quantize(mapped, SCHEME) == qrs.quantize(matrix(), SCHEME)


REFUSED = {
    "longdouble": np.ones(3, np.longdouble),
    "complex64": np.ones(3, np.complex64),
    "complex128": np.ones(3, np.complex128),
    "object": np.array([1.0, None]),
    "str": np.array(["1.0"]),
    "bytes": b"1234",
    "structured": np.zeros(3, [("a", np.float32)]),
    "datetime64": np.zeros(3, "M8[s]"),
    "bool": np.ones(3, bool),
    "list of bool": [True, False],
    "True": True,
    "int64": np.ones(3, np.int64),
    "uint8": np.ones(3, np.uint8),
    "float8": np.ones(3, ml_dtypes.float8_e4m3fn),
    "None": None,
    "dict": {},
}


@pytest.mark.parametrize("form", REFUSED)
@pytest.mark.parametrize("use", [qrs.quantize, qrs.fake_quantize], ids=["quantize", "fake_quantize"])
def test_other_dtypes_are_refused_by_name(use, form):
    with pytest.raises(
        qrs.QrsTypeError, match=r"^x has dtype .*, expected float32, float64, float16 or bfloat16"
    ):
        use(REFUSED[form], "int8")


def test_masked_elements_are_refused():
    x = np.ma.array([1.0, 2.0, 3.0], mask=[0, 1, 1])
    with pytest.raises(qrs.QrsTypeError, match="x is a masked array with 2 masked elements"):
        qrs.quantize(x, "int8")


def test_a_ragged_list_is_refused():
    with pytest.raises(qrs.QrsValueError, match="x is not a rectangular array"):
        qrs.quantize([[1.0, 2.0], [3.0]], "int8")


def test_a_float64_beyond_float32_is_refused_where_it_stands():
    x = np.array([1.0, np.inf, 1e300, -1e39])
    with pytest.raises(
        qrs.QrsValueError, match=r"x has 2 finite values too large .* 1e\+300 at flat index 2"
    ):
        qrs.quantize(x, "int8", check_finite=False)


def test_an_exception_of_the_object_passes_through():
    class Broken:
        def __array__(self, dtype=None, copy=None):
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        qrs.quantize(Broken(), "int8")


def test_a_broadcast_array_too_large_for_memory_is_a_memory_error():
    x = np.broadcast_to(np.float32(0), (2**28, 2**28))
    with pytest.raises(MemoryError):
        qrs.quantize(x, "int8")


# ---- out=


def outs(shape):
    yield "C", np.zeros(shape, np.float32)
    yield "F", np.zeros(shape, np.float32, order="F")
    yield "reversed", np.zeros(shape, np.float32)[::-1]
    yield "steps", np.zeros((shape[0], shape[1] * 2), np.float32)[:, 1::2]
    yield "misaligned", misaligned(np.zeros(shape, np.float32), 1)
    yield "subclass", np.zeros(shape, np.float32).view(Subclass)


CALLS = {
    "fake_quantize": lambda x, out: qrs.fake_quantize(x, SCHEME, out=out),
    "dequantize": lambda x, out: qrs.quantize(x, SCHEME).dequantize(out=out),
    "take": lambda x, out: qrs.quantize(x, SCHEME).take(np.arange(len(x)), out=out),
}


@pytest.mark.parametrize("call", CALLS)
def test_out_is_written_through_whatever_its_strides(call):
    x = matrix()
    expected = CALLS[call](x, None)
    for form, out in outs(x.shape):
        out.fill(np.nan)
        assert CALLS[call](x, out) is out, form
        assert np.array_equal(out, expected), form


def test_a_strided_out_leaves_what_lies_between():
    x, base = matrix(), np.full((6, 70), 7, np.float32)
    qrs.fake_quantize(x, SCHEME, out=base[:, ::2])
    assert (base[:, 1::2] == 7).all()


def same_memory(x, offset):
    """An array of x's shape whose bytes begin some bytes before x's."""
    raw = np.zeros(x.nbytes + 64, np.uint8)
    data = raw[64 - offset : 64 - offset + x.nbytes].view(np.float32).reshape(x.shape)
    return raw[: x.nbytes].view(np.float32).reshape(x.shape), data


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (np.zeros((6, 35)), TypeError, "out has dtype <f8, expected float32 in native byte order"),
        (np.zeros((6, 35), ">f4"), TypeError, "out has dtype >f4"),
        (np.zeros((6, 35), np.int32), TypeError, "expected float32"),
        (np.zeros((35, 6), np.float32), ValueError, r"out has shape \(35, 6\), expected \(6, 35\)"),
        (np.zeros(210, np.float32), ValueError, r"out has shape \(210,\)"),
        (read_only(np.zeros((6, 35), np.float32)), ValueError, "out is read-only"),
        ([[0.0] * 35] * 6, TypeError, "out is a list, expected a numpy.ndarray"),
        (np.ma.zeros((6, 35), np.float32), TypeError, "out is a MaskedArray"),
    ],
)
@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_out_is_refused_and_left_alone(call, out, error, message):
    before = np.array(out)
    with pytest.raises(error, match=message) as caught:
        CALLS[call](matrix(), out)
    assert isinstance(caught.value, qrs.QrsError)
    assert np.array_equal(out, before)


@pytest.mark.parametrize("offset", [64, 32, 4, 60])
def test_an_out_that_overlaps_an_input_is_refused(offset):
    out, x = same_memory(matrix(), offset)
    with pytest.raises(qrs.QrsValueError, match="out overlaps x in memory"):
        qrs.fake_quantize(x, SCHEME, out=out)


@pytest.mark.parametrize(
    "view", [lambda x: x, lambda x: x[::-1], memoryview], ids=["same", "reversed", "buffer"]
)
def test_an_input_is_never_its_own_out(view):
    x = matrix()
    with pytest.raises(qrs.QrsValueError, match="out overlaps x"):
        qrs.fake_quantize(view(x), SCHEME, out=x)
    square = matrix(shape=(9, 9))
    with pytest.raises(qrs.QrsValueError, match="out overlaps x"):
        qrs.fake_quantize(square, SCHEME, out=square.T)


def test_neighbours_in_one_buffer_do_not_overlap():
    base = np.zeros((6, 70), np.float32)
    base[:, ::2] = matrix()
    qrs.fake_quantize(base[:, ::2], SCHEME, out=base[:, 1::2])
    assert np.array_equal(base[:, 1::2], qrs.fake_quantize(matrix(), SCHEME))


def test_deliver_hands_over_what_target_gave():
    assert deliver(target(None, (2,), np.float32), None).shape == (2,)
    out = np.zeros(4, np.float32)
    assert np.shares_memory(target(out, (4,), np.float32), out)
    assert not np.shares_memory(target(out[::2], (2,), np.float32), out)
