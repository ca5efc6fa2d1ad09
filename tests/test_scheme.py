"""Schemes, granularities and parameters: what they accept, say of themselves, and give back."""

import copy
import json
import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import qrs
from qrs import Scheme, _core, per_block, per_channel, per_group, per_tensor, per_token
from qrs.scales import SCALE_DTYPES

GRANULARITIES = [
    per_tensor,
    per_token,
    per_channel(0),
    per_channel(-1),
    per_group(32),
    per_group(7, axis=0),
    per_block((4, 16)),
]
SCHEMES = [
    Scheme("int8"),
    Scheme("uint8", per_token),
    Scheme("int4", per_group(128), scale_dtype="float16"),
    Scheme("int8", symmetric=False),
    Scheme("int8", narrow_range=False),
    Scheme("int8", symmetric=False, narrow_range=True),
    Scheme("uint3", per_block((2, 3)), symmetric=True, rounding="stochastic", scale_dtype="bfloat16"),
]


# ---- granularities


@pytest.mark.parametrize(
    ("granularity", "shape", "block", "params"),
    [
        (per_tensor, (4, 5), (4, 5), ()),
        (per_tensor, (), (), ()),
        (per_tensor, (0, 4), (0, 4), ()),
        (per_token, (2, 3, 5), (1, 1, 5), (2, 3)),
        (per_token, (5,), (5,), ()),
        (per_token, (4, 0), (1, 0), (4,)),
        (per_channel(0), (4, 5), (1, 5), (4,)),
        (per_channel(-1), (2, 3, 5), (2, 3, 1), (5,)),
        (per_channel(0), (4, 0), (1, 0), (4,)),
        (per_channel(0), (0, 4), (1, 4), (0,)),
        (per_group(4), (3, 10), (1, 4), (3, 3)),
        (per_group(4), (3, 3), (1, 3), (3, 1)),
        (per_group(1), (3, 3), (1, 1), (3, 3)),
        (per_group(2, axis=0), (5, 3), (2, 1), (3, 3)),
        (per_group(4), (3, 0), (1, 1), (3, 0)),
        (per_block((2, 3)), (7, 5, 7), (1, 2, 3), (7, 3, 3)),
        (per_block((20, 30)), (5, 7), (5, 7), (1, 1)),
    ],
    ids=str,
)
def test_blocks_and_the_shape_of_parameters(granularity, shape, block, params):
    scheme = Scheme("int8", granularity)
    assert scheme.block(shape) == block
    assert scheme.params_shape(shape) == params
    q = qrs.quantize(np.ones(shape, np.float32), scheme)
    assert q.scale.shape == q.zero_point.shape == params


def test_a_granularity_without_arguments_needs_no_parentheses():
    assert per_tensor() is per_tensor
    assert per_token() is per_token
    assert Scheme("int8", per_tensor()) == Scheme("int8")


@pytest.mark.parametrize("granularity", GRANULARITIES, ids=repr)
def test_granularities_are_values(granularity):
    assert eval(repr(granularity)) == granularity
    assert qrs.Granularity.from_dict(json.loads(json.dumps(granularity.to_dict()))) == granularity
    assert pickle.loads(pickle.dumps(granularity)) == granularity
    assert hash(copy.deepcopy(granularity)) == hash(granularity)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: per_channel(1.0), TypeError, "axis is 1.0, expected an integer"),
        (lambda: per_channel(True), TypeError, "axis is True"),
        (lambda: per_channel(None), TypeError, "axis is None"),
        (lambda: per_group(0), ValueError, "size of per_group is 0, expected 1 or more"),
        (lambda: per_group(-2), ValueError, "-2"),
        (lambda: per_group(1.5), TypeError, "size is 1.5"),
        (lambda: per_group("32"), TypeError, "size is '32'"),
        (lambda: per_block(4), TypeError, r"size of per_block is 4, expected \(rows, columns\)"),
        (lambda: per_block((4, 5, 6)), TypeError, "rows, columns"),
        (lambda: per_block((4, 0)), ValueError, r"size of per_block is \(4, 0\)"),
        (lambda: per_block((4, 1.5)), TypeError, "columns is 1.5"),
        (lambda: qrs.Granularity.from_dict({"id": "per_grop"}), ValueError, "did you mean 'per_group'"),
        (lambda: qrs.Granularity.from_dict({"id": "per_group", "length": 3}), ValueError, "wrong fields"),
        (lambda: qrs.Granularity.from_dict("per_tensor"), ValueError, "expected a mapping with an id"),
        (lambda: qrs.Granularity.from_dict({"size": 3}), ValueError, "expected a mapping with an id"),
    ],
)
def test_a_wrong_granularity_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("axis", [2, -3, 10**9])
@pytest.mark.parametrize("make", [per_channel, lambda axis: per_group(4, axis)], ids=["channel", "group"])
def test_an_axis_that_is_not_there_is_named(make, axis):
    with pytest.raises(
        ValueError, match=rf"axis {axis} of .* is out of range for a \(4, 5\) array of ndim 2"
    ):
        qrs.quantize(np.ones((4, 5), np.float32), Scheme("int8", make(axis)))


@pytest.mark.parametrize(
    "granularity", [per_channel(0), per_token, per_group(4), per_block((2, 2))], ids=repr
)
def test_a_scalar_has_no_axis(granularity):
    with pytest.raises(ValueError, match="ndim"):
        qrs.quantize(1.5, Scheme("int8", granularity))


# ---- schemes


def test_defaults():
    assert Scheme("int8").symmetric
    assert not Scheme("uint8").symmetric
    assert Scheme("int8").code_range == (-127, 127)
    assert Scheme("int8", symmetric=False).code_range == (-128, 127)
    assert Scheme("int4").code_range == (-8, 7)
    assert Scheme("uint8").code_range == (0, 255)
    assert Scheme("int8").granularity is per_tensor


def test_every_row_of_the_native_tables_makes_a_scheme():
    for row in _core.formats():
        assert Scheme(row["name"]).format.bits == row["bits"]
        assert (Scheme(row["name"]).format.min, Scheme(row["name"]).format.max) == (row["min"], row["max"])
    for rounding in _core.roundings():
        assert Scheme("int8", rounding=rounding).rounding == rounding
    for scale_dtype in _core.scale_dtypes():
        assert Scheme("int8", scale_dtype=scale_dtype).scale_dtype in SCALE_DTYPES


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
def test_schemes_are_values(scheme):
    assert eval(repr(scheme)) == scheme
    assert Scheme.from_dict(json.loads(json.dumps(scheme.to_dict()))) == scheme
    assert pickle.loads(pickle.dumps(scheme)) == scheme
    assert hash(copy.deepcopy(scheme)) == hash(scheme)
    assert scheme != Scheme("int2")
    with pytest.raises(FrozenInstanceError):
        scheme.dtype = "int4"


def test_a_name_stands_for_its_scheme():
    x = np.linspace(-1, 1, 20, dtype=np.float32)
    assert qrs.quantize(x, "int4") == qrs.quantize(x, Scheme("int4"))
    assert Scheme.of("uint8") == Scheme("uint8")
    with pytest.raises(TypeError, match="scheme is 8, expected a Scheme or one of"):
        qrs.quantize(x, 8)
    with pytest.raises(ValueError, match="unknown dtype 'int9'; did you mean 'int8'"):
        qrs.quantize(x, "int9")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dtype": "int0"}, ValueError, "unknown dtype 'int0'"),
        ({"dtype": "int17"}, ValueError, "known: int1, "),
        ({"dtype": "int-3"}, ValueError, "unknown dtype"),
        ({"dtype": 8}, TypeError, "dtype is 8, expected one of int1, "),
        ({"dtype": None}, TypeError, "dtype is None"),
        ({"dtype": np.int8}, TypeError, "dtype is <class"),
        ({"rounding": "half_evn"}, ValueError, "unknown rounding 'half_evn'; did you mean 'half_even'"),
        ({"fit": "mean"}, ValueError, "unknown fit 'mean'; known: minmax, mse"),
        ({"scale_dtype": "float64"}, ValueError, "unknown scale_dtype 'float64'"),
        (
            {"granularity": "per_tensor"},
            TypeError,
            "granularity is 'per_tensor', expected one of per_block, ",
        ),
        ({"granularity": per_channel}, TypeError, "granularity is "),
        ({"symmetric": 1}, TypeError, "symmetric is 1, expected True, False or None"),
        ({"narrow_range": "no"}, TypeError, "narrow_range is 'no'"),
        ({"dtype": "int1", "narrow_range": True}, ValueError, "leaves int1 with the single code 0"),
        ({"dtype": "uint1", "narrow_range": True}, ValueError, "leaves uint1 with the single code 1"),
    ],
)
def test_a_wrong_choice_is_named(arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        Scheme(**{"dtype": "int8", **arguments})
    assert isinstance(caught.value, qrs.QrsError)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"dtype": "int8", "bits": 8}, "unknown field of a scheme 'bits'"),
        ({"symmetric": True}, "expected a mapping with a dtype"),
        ([], "expected a mapping with a dtype"),
        ({"dtype": "int8", "granularity": {"id": "per_group", "size": 0}}, "size of per_group is 0"),
    ],
)
def test_wrong_data_for_a_scheme_is_named(data, message):
    with pytest.raises(qrs.QrsValueError, match=message):
        Scheme.from_dict(data)
    assert Scheme.from_dict({"dtype": "int8"}) == Scheme("int8")


# ---- ranges


@pytest.mark.parametrize(
    ("scheme", "lo", "hi", "scale", "zero_point"),
    [
        (Scheme("int8"), -1.0, 0.5, 1 / 127, 0),
        (Scheme("int4"), -0.8, 1.4, 0.2, 0),
        (Scheme("int4"), -8.0, 1.0, 1.0, 0),
        (Scheme("uint8"), -1.0, 1.55, 0.01, 100),
        (Scheme("uint8"), 0.0, 255.0, 1.0, 0),
        (Scheme("uint8"), 100.0, 255.0, 1.0, 0),
        (Scheme("uint8"), -255.0, -100.0, 1.0, 255),
        (Scheme("uint8", symmetric=True), -1.28, 0.0, 0.01, 128),
        (Scheme("int8"), 0.0, 0.0, 1.0, 0),
        (Scheme("uint8"), 0.0, 0.0, 1.0, 0),
        (Scheme("uint4", symmetric=True), 0.0, 0.0, 1.0, 8),
        (Scheme("uint8", narrow_range=True), 0.0, 0.0, 1.0, 1),
        (Scheme("int8"), -1e-44, 1e-44, 1.1754944e-38, 0),
        (Scheme("int8"), -3.4028235e38, 3.4028235e38, 2.6793884e36, 0),
        (Scheme("uint8"), -3.4028235e38, 3.4028235e38, float(np.finfo(np.float32).max) / 128, 128),
        (Scheme("int8", scale_dtype="float16"), -1e-6, 0.0, 2.0**-14, 0),
        (Scheme("int8", scale_dtype="float16"), -1e30, 0.0, 65504.0, 0),
        (Scheme("int8", scale_dtype="bfloat16"), -127.4, 0.0, 1.0, 0),
    ],
    ids=str,
)
def test_the_scale_of_a_range(scheme, lo, hi, scale, zero_point):
    qp = scheme.qparams(lo, hi)
    assert qp.scale == np.float32(scale)
    assert qp.zero_point == zero_point
    assert qp.scale.shape == qp.zero_point.shape == ()


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,), (2, 0)], ids=str)
def test_ranges_keep_their_shape(shape):
    qp = Scheme("uint8").qparams(np.full(shape, -1.0), np.full(shape, 1.0))
    assert qp.scale.shape == qp.zero_point.shape == shape
    assert qp.scale.dtype == np.float32
    assert qp.zero_point.dtype == np.int32


@pytest.mark.parametrize(
    ("lo", "hi", "message"),
    [
        ([0.0, 1.0], [2.0], r"lo has shape \(2,\) and hi \(1,\)"),
        (np.nan, 1.0, r"range is \[NaN, 1.0\] at index 0, expected finite lo and hi with lo <= hi"),
        ([0.0, 0.0], [1.0, np.inf], r"range is \[0.0, inf\] at index 1"),
        ([0.0, 2.0], [1.0, 1.0], r"range is \[2.0, 1.0\] at index 1"),
        (-1e300, 1.0, "too large for float32"),
    ],
)
def test_a_wrong_range_is_named(lo, hi, message):
    with pytest.raises(qrs.QrsValueError, match=message):
        Scheme("int8").qparams(lo, hi)


# ---- parameters


def test_parameters_are_read_only_and_their_own():
    given = np.float32([0.5, 0.25])
    qp = qrs.QParams(given, 0)
    given[0] = 7
    assert qp.scale.tolist() == [0.5, 0.25]
    assert qp.zero_point.tolist() == [0, 0]
    for array in (qp.scale, qp.zero_point):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(FrozenInstanceError):
        qp.scale = given
    assert pickle.loads(pickle.dumps(qp)) == qp
    assert qp == qrs.QParams([0.5, 0.25], [0, 0])
    assert qp != qrs.QParams([0.5, 0.25], [0, 1])
    assert hash(qp) == hash(qrs.QParams([0.5, 0.25]))


def test_a_float64_scale_is_rounded_once():
    assert qrs.QParams(0.1).scale == np.float32(0.1)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (0.0, "scale is 0.0, expected finite values > 0"),
        (-0.0, "> 0"),
        (-1.0, "scale is -1.0"),
        (np.nan, "scale is nan"),
        (np.inf, "scale is inf"),
        (1e-39, "the smallest 1.1754944e-38"),
        ([1.0, 2.0, 0.0], "scale is 0.0 at flat index 2"),
    ],
)
def test_a_scale_that_is_none_is_refused(scale, message):
    with pytest.raises(qrs.QrsValueError, match=message):
        qrs.QParams(scale)


@pytest.mark.parametrize("zero_point", [3.5, 3.0, np.nan, True, "0", None, [1, 2.0]], ids=repr)
def test_a_zero_point_that_is_no_integer_is_refused(zero_point):
    with pytest.raises(qrs.QrsTypeError, match="zero_point has dtype"):
        qrs.QParams(1.0, zero_point)


def test_a_zero_point_beyond_int32_or_of_another_shape_is_refused():
    with pytest.raises(qrs.QrsValueError, match="zero_point is 4294967296"):
        qrs.QParams(1.0, 2**32)
    with pytest.raises(qrs.QrsValueError, match=r"zero_point has shape \(3,\), expected \(2,\)"):
        qrs.QParams([1.0, 2.0], [0, 0, 0])


@pytest.mark.parametrize(
    ("scheme", "qparams", "message"),
    [
        (Scheme("uint8"), qrs.QParams(1.0, 300), r"zero_point is 300, expected \[0, 255\] of uint8"),
        (Scheme("uint8"), qrs.QParams(1.0, -1), r"zero_point is -1, expected \[0, 255\]"),
        (Scheme("uint8", narrow_range=True), qrs.QParams(1.0, 0), r"expected \[1, 255\]"),
        (Scheme("int8"), qrs.QParams(1.0, 3), "zero_point is 3, expected 0 as int8 is symmetric"),
        (Scheme("uint8", symmetric=True), qrs.QParams(1.0, 0), "expected 128 as uint8 is symmetric"),
        (Scheme("int8"), qrs.QParams([1.0]), r"scale has shape \(1,\), expected \(\) for per_tensor"),
        (
            Scheme("int8", per_channel(0)),
            qrs.QParams([1.0] * 3),
            r"scale has shape \(3,\), expected \(4,\) for per_channel\(0\) of a \(4, 5\) array",
        ),
        (Scheme("int8", per_channel(0)), qrs.QParams([]), r"scale has shape \(0,\), expected \(4,\)"),
        (Scheme("int8", per_group(2)), qrs.QParams([1.0] * 4), r"expected \(4, 3\) for per_group\(2\)"),
        (Scheme("int8", scale_dtype="float16"), qrs.QParams(0.1), "float16 does not hold as a normal number"),
        (Scheme("int8", scale_dtype="float16"), qrs.QParams(2.0**-15), "normal number"),
        (Scheme("int8", scale_dtype="float16"), qrs.QParams(1e30), "scale_dtype='float32'"),
        (Scheme("int8", scale_dtype="bfloat16"), qrs.QParams(0.1), "bfloat16 does not hold"),
        (Scheme("int8"), (1.0, 0), r"qparams is \(1.0, 0\), expected QParams"),
    ],
)
def test_parameters_that_do_not_fit_are_named(scheme, qparams, message):
    x = np.ones((4, 5), np.float32)
    for use in (qrs.quantize, qrs.fake_quantize):
        with pytest.raises(qrs.QrsError, match=message):
            use(x, scheme, qparams=qparams)
