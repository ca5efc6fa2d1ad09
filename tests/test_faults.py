"""After an error nothing has changed: inputs, `out` and objects are as before, and the next call is right.

Each module's own tests say which message comes; here every refused call is tried on every function, and under
the conditions of a server: threads that share objects, and processes that fork.
"""

import copy
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import qrs
from qrs import Dynamic, Scheme, per_channel, per_token
from qrs.errors import quote
from qrs.nn import base


def values(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


W = qrs.quantize(values((24, 40)), Scheme("int8", per_channel(0)))
A8 = np.arange(-100, 100, dtype=np.int8).reshape(5, 40)
B8 = np.arange(160, dtype=np.uint8).reshape(40, 4)

# Each takes its array argument and out.
CALLS = {
    "quantize": lambda x, out: qrs.quantize(x, Scheme("int4", per_token)),
    "fake_quantize": lambda x, out: qrs.fake_quantize(x, Scheme("int4", per_token), out=out),
    "linear": lambda x, out: qrs.linear(x, W, out=out),
    "linear, dynamic": lambda x, out: qrs.linear(x, W, input=Dynamic("int8"), out=out),
    "compare": lambda x, out: qrs.compare(x, x),
    "observe": lambda x, out: qrs.observers.MinMax(axis=0).update(x),
    "matmul_integer": lambda x, out: qrs.matmul_integer(x, B8, out=out),
}
BAD = {
    "complex": np.ones((5, 40), np.complex64),
    "object": np.full((5, 40), None),
    "bool": np.ones((5, 40), bool),
    "int64": np.ones((5, 40), np.int64),
    "str": np.full((5, 40), "1"),
    "longdouble": np.ones((5, 40), np.longdouble),
    "masked": np.ma.masked_less(values((5, 40)), 0),
    "ragged": [[1.0], [1.0, 2.0]],
    "None": None,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("bad", BAD)
def test_a_refused_array_is_an_error_of_qrs_that_names_it(call, bad):
    with pytest.raises(qrs.QrsError, match=r"^(x|a) ") as caught:
        CALLS[call](BAD[bad], None)
    assert isinstance(caught.value, TypeError | ValueError)


@pytest.mark.parametrize("call", ["fake_quantize", "linear, dynamic"])
def test_a_call_that_fails_on_values_leaves_its_input_alone_and_the_next_one_is_right(call):
    good = values((5, 40))
    expected = CALLS[call](good, None)
    bad = good.copy()
    bad[3, 7] = np.nan
    kept, out = bad.copy(), np.full(expected.shape, 7, np.float32)
    with pytest.raises(qrs.QrsValueError):
        CALLS[call](bad, out)
    assert np.array_equal(bad, kept, equal_nan=True)
    assert np.array_equal(CALLS[call](good, out), expected)


@pytest.mark.parametrize("call", CALLS)
def test_inputs_are_never_written(call):
    x = A8.copy() if call == "matmul_integer" else values((5, 40))
    kept = x.copy()
    x.flags.writeable = False
    CALLS[call](x, None)
    assert np.array_equal(x, kept)


def test_objects_are_the_same_after_use():
    q = qrs.quantize(values((24, 40)), Scheme("uint4", per_channel(0)))
    before = repr(q), q.codes.tobytes(), q.scale.tobytes(), q.zero_point.tobytes()
    q.dequantize()
    q.take([1, 2])
    qrs.linear(values((2, 40)), q)
    assert before == (repr(q), q.codes.tobytes(), q.scale.tobytes(), q.zero_point.tobytes())


def test_threads_that_share_objects_get_the_same_numbers():
    x = values((16, 40), 1)
    q = qrs.quantize(values((24, 40)), Scheme("int4", per_channel(0)))
    fresh = qrs.QTensor.from_parts(q.codes, q.scale, q.zero_point, q.scheme, q.shape)
    expected = qrs.linear(x, q, input=Dynamic("int8")), q.dequantize(), q.take([3, 1])

    def use(_):
        got = qrs.linear(x, fresh, input=Dynamic("int8")), fresh.dequantize(), fresh.take([3, 1])
        return all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(use, range(400)))


def test_an_array_that_another_thread_writes_gives_codes_in_range():
    x, stop = values(200_000), threading.Event()

    def write():
        rng = np.random.default_rng(1)
        while not stop.is_set():
            x[rng.integers(0, x.size, 1000)] = rng.standard_normal(1000) * 1e6

    scheme = Scheme("uint8", narrow_range=True)
    qp = scheme.qparams(-1.0, 1.0)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            assert qrs.quantize(x, scheme, qparams=qp).unpack().min() >= 1
    finally:
        stop.set()
        writer.join()


def test_an_array_cannot_be_resized_while_a_call_holds_it():
    x = values(1000)
    q = qrs.quantize(x, "int8")
    with pytest.raises(ValueError, match="resize"):
        q.codes.resize(10)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_packs_and_multiplies():
    """Also when another thread of the parent holds the packing lock just then."""
    from qrs import qtensor

    x = values((3, 40), 1)
    expected = qrs.linear(x, W)
    with qtensor._packing:
        child = os.fork()
        if not child:
            signal.alarm(20)
            fresh = qrs.QTensor.from_parts(W.codes, W.scale, W.zero_point, W.scheme, W.shape)
            os._exit(0 if np.array_equal(qrs.linear(x, fresh), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_importing_loads_numpy_alone_and_starts_no_thread():
    program = """
        import sys, threading
        import numpy
        before = set(sys.modules)
        import qrs
        heavy = {"torch", "onnx", "matplotlib", "scipy", "pandas", "ml_dtypes", "tqdm", "safetensors"}
        print(sorted(heavy & (set(sys.modules) - before)), threading.active_count())
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert run.stdout == "[] 1\n"


def test_memory_does_not_grow_with_calls():
    """Errors, changing shapes and all; the first calls may fill caches."""
    import resource

    def use(count):
        for i in range(count):
            x = values((1 + i % 7, 40), i % 5)
            q = qrs.quantize(x, Scheme("int4", per_token))
            qrs.linear(x, W, input=Dynamic("int8"))
            with pytest.raises(ValueError, match="shape"):
                q.dequantize(out=np.empty(3, np.float32))

    use(500)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    use(3000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before <= 2048


# ---- arguments that a hurried or hostile caller gives


def test_what_is_no_truth_value_is_refused_by_name():
    for value in ("no", None, 0, 1.0):
        with pytest.raises(qrs.QrsTypeError, match=r"check_finite is .*, expected True or False"):
            qrs.quantize([1.0], "int8", check_finite=value)
    assert qrs.quantize([np.nan], "int8", check_finite=np.bool_(False)).unpack() == [0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: qrs.quantize(np.broadcast_to(np.float16(1), (2**31, 2**30)), "int8"),
        lambda: qrs.fake_quantize(np.broadcast_to(np.float32(1), (2**45,)), "int8"),
        lambda: qrs.linear(np.empty((2**40, 0), np.float32), qrs.quantize(np.empty((2**30, 0)), "int8")),
        lambda: qrs.linear(
            np.empty((2**40, 0), np.float32),
            qrs.quantize(np.empty((2**30, 0)), "int8"),
            output=qrs.Static("int8", qparams=qrs.QParams(1.0)),
        ),
        lambda: qrs.matmul_integer(np.empty((2**33, 0), np.int8), np.empty((0, 2**33), np.int8)),
    ],
)
def test_what_no_memory_holds_is_a_memory_error_at_once(call):
    with pytest.raises(MemoryError):
        call()


@pytest.mark.parametrize("strides", [(0, 4), (4, 4), (4, 8), (156, 4), (160, 3), (160, 0), (-156, 4)])
def test_an_out_whose_elements_share_memory_is_refused(strides):
    out = np.lib.stride_tricks.as_strided(np.zeros(1000, np.float32)[500:], (5, 40), strides)
    with pytest.raises(qrs.QrsValueError, match=r"^out has shape .* may share memory; give an array of its"):
        qrs.fake_quantize(values((5, 40)), "int8", out=out)
    assert not out.any()


def test_an_out_that_is_a_slice_or_transpose_shares_nothing_with_itself():
    x = values((5, 40))
    expected = qrs.fake_quantize(x, "int8")
    large = np.zeros((4, 12, 90), np.float32)
    transposed = large.transpose(2, 0, 1)[::2, 0, :5].T[:, :40]
    for out in (large[0, ::2, :80:2][:5], large[0, 9:4:-1, 85:5:-2], transposed):
        assert np.array_equal(qrs.fake_quantize(x, "int8", out=out), expected)
    one = np.lib.stride_tricks.as_strided(np.zeros(40, np.float32), (1, 40), (0, 4))
    assert np.array_equal(qrs.fake_quantize(x[:1], "int8", out=one), qrs.fake_quantize(x[:1], "int8"))
    none = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (5, 0), (0, 0))
    assert qrs.fake_quantize(np.zeros((5, 0), np.float32), "int8", out=none).shape == (5, 0)


@pytest.mark.parametrize("shape", [2, None, "2", (2.0,), (True,)])
def test_a_shape_that_is_no_tuple_of_integers_is_refused(shape):
    with pytest.raises(qrs.QrsTypeError, match="shape is"):
        qrs.QTensor.from_parts(np.zeros(2, np.uint8), 1.0, 0, Scheme("int8"), shape)


@pytest.mark.parametrize("shape", [(1,) * 65, (2**62, 0, 2**62), (2**62, 8), (-1, 0)])
def test_a_shape_that_no_array_has_is_refused(shape):
    with pytest.raises(qrs.QrsValueError, match=r"shape"):
        qrs.QTensor.from_parts(np.zeros(int(shape[0] == 1), np.uint8), 1.0, 0, Scheme("int8"), shape)


def test_a_code_that_a_narrow_range_leaves_out_counts_as_what_it_decodes_to():
    x = qrs.QTensor.from_parts(np.array([0x80, 3], np.uint8), 0.5, 0, Scheme("int8"), (1, 2))
    assert x.dequantize().tolist() == [[-64.0, 1.5]]
    one = qrs.quantize(np.eye(2, dtype=np.float32), "uint1", qparams=qrs.QParams(1.0))
    assert qrs.linear(x, one).tolist() == [[-64.0, 1.5]]


def test_a_static_input_takes_an_observer_and_not_its_class():
    with pytest.raises(qrs.QrsTypeError, match=r"expected an observer such as MinMax\(\)"):
        qrs.Static("int8", observer=qrs.observers.MinMax)


LAYER = qrs.nn.Linear(values((3, 4)))
NODE = qrs.Node("only", LAYER, ["x"])
MODEL = qrs.Model.chain({"only": LAYER})
STATIC = qrs.Recipe.preset("w8a8-static")


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: qrs.quantize_model(MODEL, "w8a8-dynamic"), "recipe"),
        (lambda: qrs.quantize_model(MODEL.layers["only"], STATIC), "model"),
        (lambda: qrs.quantize_model(MODEL, STATIC, {}), "stats"),
        (lambda: qrs.calibrate(None, [], STATIC), "model"),
        (lambda: qrs.calibrate(MODEL, [], "w8a8-static"), "recipe"),
        (lambda: qrs.calibrate(MODEL, None, STATIC), "batches"),
        (lambda: qrs.calibrate(MODEL, {"x": values((2, 4))}, STATIC), "inputs"),
        (lambda: qrs.calibrate(MODEL, [values((2, 4))], STATIC), "inputs"),
        (lambda: MODEL.run(values((2, 4))), "inputs"),
        (lambda: qrs.Statistics(None), "observers"),
        (lambda: qrs.Statistics({}).merge(None), "other"),
        (lambda: qrs.Recipe(qrs.Rule("*", "int8")), "rules"),
        (lambda: qrs.nn.LayerNorm(values(4), eps="1e-5"), "eps"),
        (lambda: qrs.nn.LayerNorm(values(4), eps=True), "eps"),
        (lambda: qrs.nn.Normalize(eps=None), "eps"),
        (lambda: qrs.observers.MovingAverage(momentum="0.9"), "momentum"),
        (lambda: qrs.Model(None, ["x"], ["y"]), "nodes"),
        (lambda: qrs.Model(NODE, ["x"], ["y"]), "nodes"),
        (lambda: qrs.Model([NODE], None, ["only"]), "inputs"),
        (lambda: qrs.Model([NODE], ["x"], 5), "outputs"),
        (lambda: qrs.Model([NODE], ["x"], ["only"], "w8a16"), "recipe"),
        (lambda: MODEL.with_recipe("w8a16"), "recipe"),
        (lambda: MODEL.with_recipe(STATIC.rules[0]), "recipe"),
        (lambda: MODEL.with_layers([LAYER]), "layers"),
        (lambda: MODEL.with_layers(None), "layers"),
        (lambda: MODEL.with_layers({"only": 3}), "layer 'only'"),
        (lambda: MODEL.run({"x": values((2, 4))}, watch=5), "watch"),
        (lambda: MODEL.run({"x": values((2, 4))}, after=5), "after"),
        (lambda: qrs.Model.chain([LAYER]), "layers"),
        (lambda: qrs.Model.chain("abc"), "layers"),
        (lambda: qrs.Model.chain({"only": 3}), "layer of node 'only'"),
        (lambda: qrs.Model.chain({"only": LAYER}, output=None), "output of node 'only'"),
        (lambda: qrs.Node("a", qrs.nn.Linear, ["x"]), "layer of node 'a'"),
        (lambda: qrs.Node("a", LAYER, None), "inputs of node 'a'"),
        (lambda: qrs.Node("a", LAYER, "x"), "inputs of node 'a'"),
        (lambda: qrs.Recipe(STATIC.rules, steps=None), "steps"),
        (lambda: qrs.Recipe(STATIC.rules, steps=5), "steps"),
        (lambda: qrs.Recipe.from_json(5), "text"),
        (lambda: qrs.Recipe.from_json({}), "text"),
        (lambda: qrs.Rule(np.array(["a", "b"]), "int8"), "pattern"),
        (lambda: STATIC.assign("only"), "names"),
        (lambda: STATIC.assign(None), "names"),
        (lambda: qrs.Statistics({}).qparams(["only"], "int8"), "name"),
        (lambda: Scheme("int8").params_shape(5), "shape"),
        (lambda: Scheme("int8").block((2.0,)), "shape"),
    ],
)
def test_an_argument_of_another_kind_is_named(call, name):
    with pytest.raises(qrs.QrsTypeError, match=rf"^(batch 0: )?{name} is "):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: qrs.Model(["a"], ["x"], ["y"]), "nodes hold 'a', expected Node"),
        (lambda: qrs.Model({"only": NODE}, ["x"], ["y"]), "nodes hold 'only', expected Node"),
        (lambda: qrs.Model([NODE], ["x"], [["only"]]), r"outputs hold \['only'\], expected str"),
        (lambda: qrs.Node("a", LAYER, [3]), "inputs of node 'a' hold 3, expected str"),
        (lambda: STATIC.assign([3]), "names hold 3, expected str"),
        (lambda: qrs.Recipe(["*"]), r"rules hold '\*', expected Rule"),
    ],
)
def test_an_item_of_another_kind_is_named(call, message):
    with pytest.raises(qrs.QrsTypeError, match=f"^{message}"):
        call()


def test_an_iterator_is_as_good_as_a_list():
    node = qrs.Node("a", LAYER, iter(["x"]))
    model = qrs.Model(iter([node]), iter(["x"]), iter(["a"]))
    assert model.run({"x": values((2, 4))})["a"].shape == (2, 3)


@pytest.mark.parametrize("name", ["w8a9", None, ["w8a16"], np.array(["w8a8-dynamic", "w8a16"])])
def test_an_unknown_preset_lists_the_known_ones(name):
    with pytest.raises(qrs.QrsValueError, match=r"unknown preset .*; known: w8a8-dynamic|did you mean"):
        qrs.Recipe.preset(name)


def test_normalize_reaches_length_one_at_every_magnitude():
    x = np.float32([[3e38, 3e38], [1e-30, 0], [-3e-23, 4e-23], [0, 0]])
    y = qrs.nn.Normalize(eps=1e-300)(x)
    np.testing.assert_allclose(np.linalg.norm(y, axis=1), [1, 1, 1, 0], rtol=1e-6)
    with pytest.raises(qrs.QrsValueError, match=r"x has shape \(\)"):
        qrs.nn.Normalize()(np.float32(2))


def test_a_mean_of_nothing_is_zero():
    mask = np.float32([[-np.inf, -np.inf], [0, -np.inf]])
    pooled = qrs.nn.MeanPool()(np.float32([[[1], [2]], [[3], [4]]]), mask)
    assert pooled.tolist() == [[0], [3]]


def test_a_constant_on_the_side_of_zero_without_codes_decodes_to_zero():
    for dtype in ("int1", "uint1"):
        q = qrs.quantize(np.full(9, 3.0, np.float32), Scheme(dtype, symmetric=True))
        assert float(q.scale) == 2.0**-126
        assert not q.dequantize().any()


def test_a_sum_of_two_numbers_is_an_array():
    assert type(qrs.nn.Add()(np.float32(1), np.float32(2))) is np.ndarray


def test_a_view_of_what_can_still_be_written_is_copied():
    owner = np.full(2, 0.5, np.float32)
    view = owner.view()
    view.flags.writeable = False
    params = qrs.QParams(view)
    owner[:] = 9
    assert np.array_equal(params.scale, [0.5, 0.5])


def test_copies_are_as_immutable_as_their_originals():
    params = qrs.QParams([1.0, 2.0])
    for copied in (copy.deepcopy(params), pickle.loads(pickle.dumps(params))):
        assert copied == params
        with pytest.raises(ValueError, match="read-only"):
            copied.scale[0] = -5


def test_models_and_statistics_can_be_sent_to_another_process():
    weight = np.eye(3, dtype=np.float32)
    x = np.float32([[1, 2, 3]])
    model = qrs.Model.chain({"a": qrs.nn.Linear(qrs.quantize(weight, "int8"))})
    sent = pickle.loads(pickle.dumps(model))
    assert np.array_equal(sent.run({"x": x})["y"], model.run({"x": x})["y"])
    stats = qrs.calibrate(
        qrs.Model.chain({"a": qrs.nn.Linear(weight)}), [{"x": x}], qrs.Recipe.preset("w8a8-static")
    )
    assert pickle.loads(pickle.dumps(stats)).observers.keys() == stats.observers.keys()


def test_names_of_nodes_are_strings():
    with pytest.raises(TypeError, match="name of node 1 is 1, expected a str"):
        qrs.Model.chain({1: qrs.nn.Normalize()})


def test_sizes_of_zero_and_numbers_beyond_float64_have_an_answer():
    layer = qrs.nn.Linear(np.zeros((3, 0), np.float32), np.float32([1, 2, 3]))
    assert layer(np.ones((2, 0), np.float32)).tolist() == [[1, 2, 3]] * 2
    with pytest.raises(ValueError, match="eps"):
        qrs.nn.LayerNorm(np.ones(2, np.float32), eps=10**400)


def test_attention_of_no_width_is_the_bias_of_its_output():
    none = qrs.nn.Linear(np.zeros((0, 4), np.float32))
    output = qrs.nn.Linear(np.zeros((3, 0), np.float32), np.float32([1, 2, 3]))
    layer = qrs.nn.MultiHeadAttention(none, none, none, output, heads=2)
    assert layer(values((2, 5, 4)), np.zeros((2, 5), np.float32)).tolist() == [[[1, 2, 3]] * 5] * 2
    assert layer(values((0, 5, 4))).shape == (0, 5, 3)


@pytest.mark.parametrize("eps", [1e300, 3.5e38, np.inf])
def test_an_eps_that_float32_does_not_hold_is_refused_where_the_layer_is_made(eps):
    with pytest.raises(qrs.QrsValueError, match=r"^eps is .*, expected 0 to 3\.4028234"):
        qrs.nn.LayerNorm(np.ones(2, np.float32), eps=eps)


def test_a_node_gives_its_layer_the_inputs_that_it_takes():
    with pytest.raises(TypeError, match=r"^node 'a': Normalize got 2 inputs, expected \(x\)$"):
        qrs.Node("a", qrs.nn.Normalize(), ["x", "x"])


def test_a_layer_says_how_many_inputs_it_takes():
    x = values((2, 4))
    with pytest.raises(qrs.QrsTypeError, match=r"^Add got 1 inputs, expected \(a, b\)$"):
        qrs.nn.Add()(x)
    with pytest.raises(qrs.QrsTypeError, match=r"^layer 'sum': Add got 3 inputs, expected \(a, b\)$"):
        base.call("sum", qrs.nn.Add(), x, x, x)
    with pytest.raises(qrs.QrsTypeError, match=r"^LayerNorm got 0 inputs, expected \(x, residual=None\)$"):
        qrs.nn.LayerNorm(values(4))()


def test_a_type_error_of_a_layer_itself_passes_through():
    class Broken(qrs.nn.Layer):
        def forward(self, x):
            return len(3)

    with pytest.raises(TypeError, match="has no len") as caught:
        Broken()(values(4))
    assert not isinstance(caught.value, qrs.QrsError)


# ---- what numpy.seterr has set


EXTREMES = np.float32([[1e-45, 3e38, -3e38, 1e-40], [1, -1e-38, 0, 4], [np.inf, -np.inf, np.nan, 1]])
FINITE = EXTREMES[:2]
HUGE = qrs.nn.Linear(np.full((4, 4), 3e38, np.float32), np.ones(4, np.float32))
TINY = qrs.nn.Linear(np.full((4, 4), 1e-30, np.float32))
SUBNORMAL = np.array([5e-324, 1e-300, 1e-46, -1e-42, 1.0])


def averaged():
    """The parameters of observers whose ranges fade into nothing."""
    one, other = (qrs.observers.MovingAverage(momentum=1e-300) for _ in range(2))
    for observer in (one, other):
        for x in (FINITE, FINITE * np.float32(0), np.float32([1e-45])):
            observer.update(x)
    one.merge(other)
    return one.qparams("uint8").scale


@pytest.mark.parametrize(
    "call",
    [
        lambda: qrs.quantize(SUBNORMAL, "int8").dequantize(),
        lambda: qrs.quantize([5e-324, 1.0], "int8").dequantize(),
        lambda: qrs.quantize(FINITE, Scheme("int4", fit="mse", scale_dtype="float16")).dequantize(),
        lambda: qrs.quantize(EXTREMES, Scheme("uint8", per_token), check_finite=False).dequantize(),
        lambda: Scheme("uint8").qparams(-1e-46, 5e-324).scale,
        lambda: Scheme("int8", scale_dtype="float16").check_qparams(qrs.QParams(2.0**-14), ()),
        lambda: qrs.linear(FINITE, qrs.quantize(np.eye(4), "int8"), bias=SUBNORMAL[:4]),
        lambda: HUGE(EXTREMES),
        lambda: TINY(EXTREMES),
        lambda: qrs.nn.MultiHeadAttention(HUGE, TINY, HUGE, HUGE, heads=2)(EXTREMES),
        lambda: qrs.nn.Add()(EXTREMES, EXTREMES[::-1]),
        lambda: qrs.nn.Positions(HUGE.weight)(EXTREMES),
        lambda: qrs.nn.LayerNorm(SUBNORMAL[:4])(EXTREMES),
        lambda: qrs.nn.Activation("gelu")(EXTREMES),
        lambda: qrs.nn.MeanPool()(EXTREMES),
        lambda: qrs.nn.MeanPool()(FINITE, [0.0, -1e9]),
        lambda: qrs.nn.MeanPool()(FINITE, [np.inf, 0.0]),
        lambda: qrs.nn.MeanPool()(FINITE, [-3e38, 3e38]),
        lambda: qrs.nn.Normalize()(EXTREMES),
        lambda: qrs.nn.Normalize(eps=1e300)(EXTREMES),
        averaged,
    ],
)
def test_results_do_not_depend_on_what_the_caller_asks_numpy_to_report(call):
    with np.errstate(all="ignore"):
        expected = call()
    for report in ("raise", "warn"):
        with np.errstate(all=report):
            np.testing.assert_array_equal(call(), expected)
            assert set(np.geterr().values()) == {report}


def test_a_scale_that_float16_does_not_hold_is_named_whatever_numpy_reports():
    for scale in (2.0**-126, 1e-5, 1e38):
        with np.errstate(all="raise"), pytest.raises(qrs.QrsValueError, match="float16 does not hold"):
            Scheme("int8", scale_dtype="float16").check_qparams(qrs.QParams(scale), ())


# ---- values that are long


LONG = list(range(10**6))


@pytest.mark.parametrize(
    "call",
    [
        lambda: Scheme(LONG),
        lambda: Scheme("x" * 10**6),
        lambda: Scheme("int8", LONG),
        lambda: Scheme("int8", symmetric=LONG),
        lambda: Scheme.from_dict(LONG),
        lambda: Scheme("int8").params_shape(LONG),
        lambda: qrs.per_group(LONG),
        lambda: qrs.per_block(LONG),
        lambda: qrs.Granularity.from_dict(LONG),
        lambda: qrs.Granularity.by_id(LONG),
        lambda: qrs.Dynamic(LONG),
        lambda: qrs.Static("int8", observer=LONG),
        lambda: qrs.Static("int8", qparams=LONG),
        lambda: qrs.quantize([1.0], "int8", seed=LONG),
        lambda: qrs.quantize([1.0], "int8", seed=10**5000),
        lambda: qrs.quantize([1.0], "int8", check_finite=LONG),
        lambda: qrs.QTensor.from_parts(np.zeros(1, np.uint8), 1.0, 0, Scheme("int8"), LONG),
        lambda: qrs.linear(values(40), W, input=LONG),
        lambda: qrs.linear(values(40), W, activation=LONG),
        lambda: qrs.nn.Activation("x" * 10**6),
        lambda: qrs.nn.Normalize(eps=LONG),
        lambda: qrs.nn.Normalize(eps=10**5000),
        lambda: qrs.nn.MultiHeadAttention(*[qrs.nn.Linear(values((4, 4)))] * 4, heads=LONG),
        lambda: qrs.Node(LONG, LAYER, ["x"]),
        lambda: qrs.Node("a", LAYER, [LONG]),
        lambda: MODEL.run(LONG),
        lambda: MODEL.run(dict.fromkeys(LONG)),
        lambda: MODEL.with_layers(dict.fromkeys(LONG, LAYER)),
        lambda: qrs.Rule(LONG),
        lambda: qrs.Recipe([LONG]),
        lambda: qrs.Recipe(STATIC.rules, steps=LONG),
        lambda: qrs.Recipe([qrs.Rule("none", "int8")]).assign(map(str, LONG)),
        lambda: qrs.Recipe.from_dict(dict.fromkeys(LONG)),
        lambda: qrs.observers.Observer.from_state(LONG, {}),
        lambda: qrs.calibrate(LONG, [], STATIC),
        lambda: qrs.quantize_model(MODEL, qrs.Recipe.preset("w8a16"), progress=LONG),
    ],
)
def test_a_long_value_is_quoted_in_short(call):
    with pytest.raises(qrs.QrsError) as caught:
        call()
    assert len(str(caught.value)) < 1200


def test_a_quoted_value_keeps_both_ends_and_never_fails():
    class Broken:
        def __repr__(self):
            raise RuntimeError

    assert quote("a" * 1000 + "z").startswith("'aaa") and quote("a" * 1000 + "z").endswith("az'")
    assert quote(LONG).endswith("18, 19, ...]")
    assert quote([10**5000]) == "[<int of 16610 bits>]"
    assert "Broken instance" in quote(Broken())
    nested = []
    nested.append(nested)
    assert quote(nested) == "[[[[...]]]]"
