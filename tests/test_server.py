"""qrs inside a server: forks, threads that share tensors, and what importing it does.

Each scenario runs in a fresh interpreter under a deadline, so that a hang is a failure and not a stuck run.
"""

import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import qrs

SETUP = """
import multiprocessing, os, signal, threading, time, warnings
import numpy as np
import qrs

# Python 3.12 warns of forking with threads: the point here.
warnings.simplefilter("ignore", DeprecationWarning)
qrs.set_num_threads(2)
rng = np.random.default_rng(0)
a = rng.integers(-128, 128, (300, 700), np.int8)
b = rng.integers(-128, 128, (700, 300), np.int8)
x = rng.standard_normal((64, 700)).astype(np.float32)
q = qrs.quantize(rng.standard_normal((300, 700)).astype(np.float32), qrs.Scheme("int4", qrs.per_group(32)))
token = qrs.Dynamic(qrs.Scheme("int8", qrs.per_token))

def work():
    return qrs.matmul_integer(a, b), qrs.linear(x, q, input=token), qrs.quantize(x, "int8").codes

expected = work()

def right():
    return all(np.array_equal(p, e) for p, e in zip(work(), expected))

def threads():
    return len(os.listdir("/proc/self/task"))

def child(deadline=20):
    process = context.Process(target=lambda: os._exit(0 if right() else 3))
    process.start()
    process.join(deadline)
    if process.is_alive():
        process.kill()
        raise SystemExit("a child hung")
    if process.exitcode != 0:
        raise SystemExit(f"a child ended with {process.exitcode}")

context = multiprocessing.get_context("fork")
"""

forks = pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this system does not fork")
linux = pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")


def run(script, setup=SETUP, deadline=50):
    """Runs a script in a fresh interpreter and returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", setup + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=deadline,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


# ---- forks


@forks
def test_a_child_forked_after_first_use_computes_the_same():
    run("for _ in range(10): child()\nassert right()")


@forks
def test_a_child_of_a_child_computes_the_same():
    run(
        """
        def middle():
            child()
            os._exit(0 if right() else 3)

        process = context.Process(target=middle)
        process.start()
        process.join(30)
        assert process.exitcode == 0, process.exitcode
        """
    )


@forks
def test_a_child_forked_while_other_threads_compute_computes_the_same():
    run(
        """
        stop = threading.Event()

        def busy():
            while not stop.is_set():
                work()

        workers = [threading.Thread(target=busy) for _ in range(3)]
        for worker in workers:
            worker.start()
        for _ in range(15):
            child()
        stop.set()
        for worker in workers:
            worker.join()
        assert right()
        """
    )


@forks
def test_a_child_forked_while_weights_are_packed_packs_its_own():
    run(
        """
        stop = threading.Event()

        def pack():
            while not stop.is_set():
                qrs.linear(x, qrs.quantize(b.T.astype(np.float32), "int8"))

        packer = threading.Thread(target=pack)
        packer.start()

        def fresh():
            qrs.linear(x, qrs.quantize(b.T.astype(np.float32), "int8"))
            os._exit(0)

        for _ in range(20):
            process = context.Process(target=fresh)
            process.start()
            process.join(20)
            hung = process.is_alive()
            if hung:
                process.kill()
                break
        stop.set()
        packer.join()
        assert not hung and process.exitcode == 0
        """
    )


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_start_methods_work(method):
    script = f"""
    if __name__ == "__main__":
        import multiprocessing
        with multiprocessing.get_context({method!r}).Pool(2) as pool:
            parts = pool.starmap(qrs.quantize, [(np.full(5, i, np.float32), "int8") for i in range(4)])
        for i, part in enumerate(parts):
            assert np.allclose(np.asarray(part), i)
    """
    run(script, setup="import numpy as np\nimport qrs\n")


# ---- threads


def test_threads_share_a_tensor():
    """Many threads, one tensor whose panels nobody has packed yet, mixed calls: every result right."""
    rng = np.random.default_rng(1)
    w = rng.standard_normal((96, 320)).astype(np.float32)
    x = rng.standard_normal((8, 320)).astype(np.float32)
    scheme = qrs.Scheme("int4", qrs.per_group(32))
    token = qrs.Dynamic(qrs.Scheme("uint8", qrs.per_token))
    known = qrs.quantize(w, scheme)
    expected = qrs.linear(x, known, input=token), qrs.linear(x, known), known.dequantize()
    shared, wrong, start = qrs.quantize(w, scheme), [], threading.Barrier(16)

    def use():
        start.wait()
        for _ in range(20):
            got = qrs.linear(x, shared, input=token), qrs.linear(x, shared), shared.dequantize()
            wrong.extend(1 for g, e in zip(got, expected, strict=True) if not np.array_equal(g, e))

    threads = [threading.Thread(target=use) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_interpreter_lock_is_free_during_a_product():
    """Another thread gets to run Python while one long product does."""
    run(
        """
        qrs.set_num_threads(1)
        big_a = np.ones((1500, 6000), np.int8)
        big_b = np.ones((6000, 1500), np.int8)
        ticks, done = [], threading.Event()

        def tick():
            while not done.is_set():
                ticks.append(time.perf_counter())
                time.sleep(0.001)

        ticker = threading.Thread(target=tick)
        ticker.start()
        start = time.perf_counter()
        qrs.matmul_integer(big_a, big_b)
        end = time.perf_counter()
        done.set()
        ticker.join()
        inside = sum(start < t < end for t in ticks)
        assert inside >= 3, (inside, end - start)
        """
    )


@linux
def test_native_threads_stay_within_the_budget():
    run(
        """
        before = threads()
        for n in (1, 2, 3, 2, 1, 2):
            qrs.set_num_threads(n)
            assert right()
        # A former pool ends in its own time.
        for _ in range(100):
            if threads() <= before + 1:
                break
            time.sleep(0.05)
        assert threads() <= before + 1, (before, threads())
        """
    )


@pytest.mark.parametrize(("value", "expected"), [("3", 3), ("100000", 256)])
def test_the_environment_sets_the_budget(value, expected):
    script = f"import os; os.environ['QRS_NUM_THREADS'] = {value!r}\nimport qrs\nprint(qrs.get_num_threads())"
    assert run(script, setup="") == str(expected)


@pytest.mark.parametrize("value", ["0", "-1", "abc", " "])
def test_a_wrong_budget_in_the_environment_is_named(value):
    script = f"""
    import os
    os.environ["QRS_NUM_THREADS"] = {value!r}
    import qrs
    try:
        qrs.get_num_threads()
    except ValueError as error:
        print(error)
    """
    assert "QRS_NUM_THREADS" in run(script, setup="")


def test_a_variable_set_to_nothing_is_not_set():
    script = """
    import os
    os.environ.update(QRS_NUM_THREADS="", OMP_NUM_THREADS="3", QRS_ISA="")
    import qrs
    print(qrs.get_num_threads(), qrs.isa() in qrs.available_isas())
    """
    assert run(script, setup="") == "3 True"


def test_a_later_variable_is_not_looked_at():
    script = """
    import os
    os.environ.update(QRS_NUM_THREADS="2", OMP_NUM_THREADS="abc")
    import qrs
    print(qrs.get_num_threads())
    """
    assert run(script, setup="") == "2"


@pytest.mark.parametrize("isa", ["avx9", " ", "AVX2"])
def test_a_wrong_instruction_set_in_the_environment_is_named(isa):
    script = f"""
    import os
    os.environ["QRS_ISA"] = {isa!r}
    import qrs
    try:
        qrs.quantize([1.0], "int8")
    except ValueError as error:
        print(error)
    """
    message = run(script, setup="")
    assert "QRS_ISA" in message
    assert "portable" in message


def test_memory_does_not_grow_with_calls():
    """Warm calls, failed calls and changing shapes leave nothing behind."""
    if sys.platform != "linux":
        pytest.skip("memory is read from /proc")
    run(
        """
        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        small = x[:, :64].copy()
        weights = [qrs.quantize(np.ones((n, 64), np.float32), "int8") for n in (3, 16, 33)]

        def calls(count):
            for i in range(count):
                part = small[: 1 + i % 7]
                qrs.linear(part, weights[i % 3], input=token if i % 2 else None)
                qrs.quantize(part, "uint4")
                try:
                    qrs.linear(part[:, :5], weights[0])
                except ValueError:
                    pass

        calls(3000)
        before = resident()
        calls(8_000)
        grown = resident() - before
        assert grown <= 1 << 20, grown
        """
    )


# ---- import


@linux
def test_importing_starts_no_thread_and_loads_nothing_heavy():
    script = """
    import os, sys
    import numpy
    before, environment = len(os.listdir("/proc/self/task")), dict(os.environ)
    import qrs
    assert len(os.listdir("/proc/self/task")) == before
    assert dict(os.environ) == environment
    heavy = {"torch", "onnx", "onnxruntime", "matplotlib", "scipy", "pandas", "tqdm", "safetensors"}
    loaded = heavy & {name.split(".")[0] for name in sys.modules}
    assert not loaded, loaded
    """
    run(script, setup="")


def test_importing_leaves_signals_alone():
    script = """
    import signal
    before = [signal.getsignal(s) for s in signal.valid_signals()]
    import qrs
    assert [signal.getsignal(s) for s in signal.valid_signals()] == before
    """
    run(script, setup="")
