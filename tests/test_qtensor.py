"""`QTensor`: an array of codes that never changes and knows its own size."""

import copy
import pickle
import threading

import numpy as np
import pytest
import qrs
from qrs import QTensor, Scheme, per_channel, per_group, per_tensor, per_token
from reference import tensor

SCHEMES = [
    Scheme("int8", per_channel(0)),
    Scheme("int4", per_group(8), scale_dtype="float16"),
    Scheme("uint3", per_token),
    Scheme("uint8", per_tensor, scale_dtype="bfloat16"),
    Scheme("int1", per_group(3, axis=0)),
]
SHAPES = [(6, 37), (1, 1), (5, 0), (0, 5)]


def values(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(params=[(scheme, shape) for scheme in SCHEMES for shape in SHAPES], ids=str)
def q(request):
    scheme, shape = request.param
    return qrs.quantize(values(shape), scheme)


def test_codes_are_packed_without_gaps_and_decode_as_written(q):
    codes = q.unpack()
    assert codes.shape == q.shape
    assert codes.dtype == (np.int8 if q.scheme.format.signed else np.uint8)
    assert np.array_equal(q.codes, tensor.pack(codes, q.scheme.format.bits))
    if q.size:
        block = q.scheme.block(q.shape)
        expected = tensor.dequantize(codes.astype(np.int64), block, q.scale, q.zero_point)
        assert np.array_equal(q.dequantize(), expected)
    assert np.array_equal(np.asarray(q), q.dequantize())


@pytest.mark.parametrize(
    ("scheme", "shape", "nbytes"),
    [
        (Scheme("int8"), (10, 10), 100 + 4),
        (Scheme("uint8"), (10, 10), 100 + 4 + 1),
        (Scheme("int8", per_channel(0)), (10, 10), 100 + 40),
        (Scheme("int4", per_group(32)), (4, 96), 192 + 12 * 4),
        (Scheme("int4", per_group(32), scale_dtype="float16"), (4, 96), 192 + 12 * 2),
        (Scheme("int4", per_group(32), symmetric=False, scale_dtype="bfloat16"), (4, 96), 192 + 12 * 3),
        (Scheme("uint3", per_token), (2, 3), 3 + 2 * 5),
        (Scheme("int8"), (0, 3), 4),
    ],
    ids=str,
)
def test_bytes_as_stored(scheme, shape, nbytes):
    q = qrs.quantize(values(shape), scheme)
    assert q.nbytes == nbytes
    assert q.bits_per_element == (8 * nbytes / q.size if q.size else 0)
    assert (q.size, q.ndim) == (int(np.prod(shape)), len(shape))
    assert repr(scheme) in repr(q)
    assert f"{nbytes} bytes" in repr(q)


def test_scales_are_exact_in_their_stored_type():
    x = values((8, 64))
    half = qrs.quantize(x, Scheme("int4", per_group(8), scale_dtype="float16")).scale
    assert np.array_equal(half.astype(np.float16).astype(np.float32), half)
    brain = qrs.quantize(x, Scheme("int4", per_group(8), scale_dtype="bfloat16")).scale
    assert not (brain.view(np.uint32) & 0xFFFF).any()


# ---- immutability, copies


def test_copies_and_pickles_are_equal(q):
    assert copy.copy(q) is q
    assert copy.deepcopy(q) is q
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(q, protocol)) == q
    again = QTensor.from_parts(q.codes, q.scale, q.zero_point, q.scheme, q.shape)
    assert again == q
    assert np.shares_memory(again.codes, q.codes) or not q.size


def test_nothing_of_a_tensor_can_be_changed():
    q = qrs.quantize(values((4, 4)), "uint8")
    for array in (q.codes, q.scale, q.zero_point):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        with pytest.raises(ValueError, match="cannot set WRITEABLE"):
            array.flags.writeable = True
    for name in ("codes", "scale", "zero_point", "scheme", "shape", "qparams"):
        with pytest.raises(AttributeError):
            setattr(q, name, None)
    with pytest.raises(TypeError, match="unhashable"):
        hash(q)


def test_codes_that_their_owner_may_write_are_copied():
    codes, scale = np.arange(4, dtype=np.uint8), np.array(0.5, np.float32)
    q = QTensor.from_parts(codes, scale, 0, Scheme("uint8"), (4,))
    codes[:], scale[...] = 9, 9
    assert q.dequantize().tolist() == [0.0, 0.5, 1.0, 1.5]
    fixed = np.arange(4, dtype=np.uint8)
    fixed.flags.writeable = False
    assert np.shares_memory(QTensor.from_parts(fixed, 0.5, 0, Scheme("uint8"), (4,)).codes, fixed)


def test_equality_asks_for_every_part():
    x = values((4, 6))
    q = qrs.quantize(x, "int8")
    assert q == qrs.quantize(x.copy(), "int8")
    assert q != qrs.quantize(x.reshape(6, 4), "int8")
    assert q != qrs.quantize(-x, "int8")
    assert q != qrs.quantize(x, "int4")
    assert q != qrs.quantize(x * 2, "int8")
    assert q != np.asarray(q).tolist()


# ---- parts that do not fit


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ({"codes": np.zeros(9, np.int8)}, TypeError, "codes has dtype int8, expected uint8"),
        ({"codes": np.zeros(8, np.uint8)}, ValueError, r"codes has shape \(8,\), expected \(9,\) for int4"),
        ({"codes": np.zeros((3, 3), np.uint8)}, ValueError, r"codes has shape \(3, 3\)"),
        (
            {"codes": np.full(9, 16, np.uint8)},
            ValueError,
            "codes ends in 0x10, expected zeros above the lowest 4",
        ),
        ({"scale": 0.0}, ValueError, "scale is 0.0"),
        ({"scale": [1.0, 1.0]}, ValueError, r"scale has shape \(2,\), expected \(\)"),
        ({"zero_point": 1}, ValueError, "zero_point is 1, expected 0 as int4 is symmetric"),
        ({"zero_point": 0.0}, TypeError, "zero_point has dtype float64"),
        ({"scheme": "int4"}, TypeError, "scheme is 'int4', expected a Scheme"),
        ({"shape": (17.0,)}, TypeError, "shape is 17.0, expected an integer"),
        ({"shape": (-17,)}, ValueError, r"shape is \(-17,\), expected lengths of 0 or more"),
        ({"shape": (2**62, 8)}, ValueError, "which no float32 array can have"),
    ],
)
def test_parts_that_do_not_fit_are_named(parts, error, message):
    good = {
        "codes": np.zeros(9, np.uint8),
        "scale": 1.0,
        "zero_point": 0,
        "scheme": Scheme("int4"),
        "shape": (17,),
    }
    assert QTensor.from_parts(**good).size == 17
    with pytest.raises(error, match=message) as caught:
        QTensor.from_parts(**{**good, **parts})
    assert isinstance(caught.value, qrs.QrsError)


@pytest.mark.parametrize("bits", range(1, 9))
def test_packed_bytes(bits):
    count = qrs.Format.named(f"int{bits}").packed_bytes
    assert [count(size) for size in (0, 1, 8, 9)] == [0, 1, bits, bits + -(-bits // 8)]


# ---- as an array


def test_numpy_takes_a_tensor_for_its_values():
    x = values((3, 8))
    q = qrs.quantize(x, "int8")
    assert np.asarray(q, np.float64).dtype == np.float64
    assert np.array(q).flags.writeable
    assert np.allclose(q + np.zeros(8), q.dequantize())
    assert qrs.quantize(q, "int8", qparams=q.qparams) == q
    with pytest.raises(ValueError, match="no float array to share"):
        np.array(q, copy=False)


# ---- rows


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
def test_rows_are_those_of_the_decoded_matrix(scheme):
    q = qrs.quantize(values((11, 13)), scheme)
    full = q.dequantize()
    for rows in (
        [3],
        [0, 10, 0, 5],
        [[1, 2], [3, 4]],
        7,
        [],
        np.arange(11, dtype=np.uint8)[::-1],
        np.int16([2]),
    ):
        index = np.asarray(rows, dtype=np.int64)
        taken = q.take(rows)
        assert taken.shape == (*index.shape, 13)
        assert np.array_equal(taken, full[index])


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([0, -1], ValueError, "rows has -1 at flat index 1, expected 0 to 10"),
        ([11], ValueError, "rows has 11 at flat index 0"),
        (2**63, ValueError, "rows has 9223372036854775808"),
        ([1.0], TypeError, "rows has dtype float64, expected integers"),
        ([True], TypeError, "rows has dtype bool"),
    ],
)
def test_rows_that_are_not_there_are_named(rows, error, message):
    q = qrs.quantize(values((11, 13)), "int8")
    with pytest.raises(error, match=message):
        q.take(rows)


def test_rows_need_a_matrix():
    q = qrs.quantize(values((11, 13)), "int8")
    with pytest.raises(ValueError, match=r"take needs a tensor of ndim 2, got shape \(3,\)"):
        qrs.quantize(values(3), "int8").take([0])
    with pytest.raises(ValueError, match=r"out has shape \(2, 13\), expected \(1, 13\)"):
        q.take([0], out=np.zeros((2, 13), np.float32))
    out = np.zeros((1, 13), np.float32)
    with pytest.raises(ValueError, match="out overlaps rows"):
        q.take(out.view(np.int32)[0, :1], out=out)


# ---- panels


def test_panels_are_packed_once_and_shared_between_threads():
    q = qrs.quantize(values((64, 256)), Scheme("int8", per_channel(0)))
    seen, start = [], threading.Barrier(8)

    def use():
        start.wait()
        seen.append(q.panels)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(panels) for panels in seen}) == 1
    assert q.panels is seen[0]
    assert q.panels.nbytes >= q.size
    assert pickle.loads(pickle.dumps(q)) == q


def test_panels_need_a_matrix():
    with pytest.raises(ValueError, match=r"a weight needs ndim 2, got shape \(3, 4, 5\)"):
        qrs.quantize(values((3, 4, 5)), "int8").panels  # noqa: B018
