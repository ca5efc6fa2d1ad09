"""The table of functions against the node tests of the ONNX project, and what it refuses."""

import warnings
from collections import defaultdict

import numpy as np
import pytest
import qrs
from qrs.functions import TABLE

onnx = pytest.importorskip("onnx", reason="the onnx package brings the cases: pip install onnx")

# Not operators of ONNX, or without cases in its suite.
OWN = {"Part", "PadSame"}
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def suite():
    """The suite's own cases of one node, by operator; the suite makes them when it is asked."""
    from onnx.backend.test.case.node import collect_testcases

    found = defaultdict(list)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.random.seed(0)  # noqa: NPY002 - what the suite draws from
        for case in collect_testcases(None):
            nodes, (given, wanted) = case.model.graph.node, case.data_sets[0]
            tensors = all(
                isinstance(value, np.ndarray | np.generic | onnx.TensorProto) for value in [*given, *wanted]
            )
            if len(nodes) == 1 and not nodes[0].domain and tensors:
                # Operators that are older than what is read have stayed as they were.
                entry = case.model.opset_import[0]
                entry.version = max(entry.version, 11)
                found[nodes[0].op_type].append(case)
    return found


def arrays(values):
    return [onnx.numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else v for v in values]


def check(case, constant):
    """Run a case with its later inputs as graph inputs, or as constants."""
    model, (given, wanted) = case.model, map(arrays, case.data_sets[0])
    feeds = dict(zip([value.name for value in model.graph.input], given, strict=True))
    if constant:
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        for name, value in list(feeds.items())[1:]:
            if isinstance(value, np.ndarray):
                model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    loaded = qrs.onnx.load(model)
    results = loaded.run({name: feeds[name] for name in loaded.inputs})
    for name, expected in zip(loaded.outputs, wanted, strict=True):
        value = results[name]
        assert value.dtype == expected.dtype and value.shape == expected.shape, case.name
        if expected.dtype.kind in "fV":
            value, expected = (np.asarray(a).astype(np.float64) for a in (value, expected))
            np.testing.assert_allclose(value, expected, case.rtol, max(case.atol, 1e-7), err_msg=case.name)
        else:
            np.testing.assert_array_equal(value, expected, err_msg=case.name)


@pytest.mark.parametrize("constant", [False, True], ids=["inputs", "constants"])
@pytest.mark.parametrize("op", sorted(set(TABLE) - OWN))
def test_the_cases_of_onnx(suite, op, constant):
    assert suite[op], f"the suite has no case of {op}"
    for case in suite[op]:
        check(case, constant)


def test_operators_without_a_function_of_their_own(suite):
    """A sample of those that the evaluator of the onnx package runs."""
    for op in ("TopK", "Hardmax", "Resize", "LSTM", "ConvTranspose", "If", "Loop", "Unique"):
        for case in suite[op][:3]:
            check(case, False)


def test_what_the_table_refuses_is_named():
    with pytest.raises(qrs.QrsValueError, match="unknown operator 'Trnspose'; did you mean 'Transpose'"):
        qrs.nn.Function("Trnspose")
    with pytest.raises(qrs.QrsValueError, match=r"Concat of \(float32\[2\], float32\[1, 2\]\) with"):
        qrs.nn.Function("Concat", {"axis": 0})(np.zeros(2, np.float32), np.zeros((1, 2), np.float32))
    with pytest.raises(
        qrs.QrsValueError, match=r"Squeeze: axes are \[7\], expected different ones of -2 to 1"
    ):
        qrs.nn.Function("Squeeze", constants={1: np.array([7])})(np.zeros((1, 2), np.float32))
    with pytest.raises(qrs.QrsValueError, match="which ONNX does not know"):
        qrs.nn.Function("MaxPool", {"kernel_shape": [2], "auto_pad": "SOME"})(np.zeros((1, 1, 4)))


def test_places_are_checked():
    one = np.float32(1)
    with pytest.raises(qrs.QrsValueError, match=r"places \[1\] hold constants"):
        qrs.nn.Function("Clip", constants={1: one}, absent=[1])
    with pytest.raises(qrs.QrsValueError, match="place of an input is -1"):
        qrs.nn.Function("Add", constants={-1: one})
    with pytest.raises(qrs.QrsTypeError, match="constant 1 is 'x', expected an ndarray"):
        qrs.nn.Function("Add", constants={1: "x"})
    with pytest.raises(qrs.QrsValueError, match="array 'weight' is no input"):
        qrs.nn.Function.from_parts({"weight": one}, {"op": "Add"})


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_padding_same_is_as_large_as_the_result_asks(auto_pad, stride):
    pad = qrs.nn.Function("PadSame", {"kernel_shape": [3, 2], "strides": [stride] * 2, "auto_pad": auto_pad})
    weight = np.ones((1, 1, 3, 2), np.float32)
    image = np.ones((1, 1, 7, 8), np.float32)
    y = qrs.nn.Conv2d(weight, stride=stride)(pad(image))
    assert y.shape[2:] == (-(-7 // stride), -(-8 // stride))
