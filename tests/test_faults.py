"""After an error nothing has changed: inputs, `out` and objects are as before, and the next call is right.

Each module's own tests say which message comes; here every refused call is tried on every function, and under
the conditions of a server: threads that share objects, and processes that fork.
"""

import os
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
