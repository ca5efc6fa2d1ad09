"""Small models that tests of the upper floors share."""

import numpy as np
import qrs
from qrs import nn


def array(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def linear(n, k, seed=0, **how):
    """A layer whose outputs are about as large as its inputs."""
    return nn.Linear(array(n, k, seed=seed) / np.sqrt(k), array(n, seed=seed), **how)


def encoder(width=8, heads=2, rows=20):
    """One transformer block on token ids: every kind of layer, inner layers, a residual and a mask."""
    attention = nn.MultiHeadAttention(*(linear(width, width, seed=i) for i in range(4)), heads=heads)
    nodes = [
        qrs.Node("words", nn.Embedding(array(rows, width)), ["ids"]),
        qrs.Node("places", nn.Positions(array(6, width)), ["words"]),
        qrs.Node("block/attention", attention, ["places", "mask"]),
        qrs.Node("block/sum", nn.Add(), ["block/attention", "places"]),
        qrs.Node("block/norm", nn.LayerNorm(np.ones(width, np.float32), array(width)), ["block/sum"]),
        qrs.Node("block/up", linear(12, width, activation="gelu"), ["block/norm"]),
        qrs.Node("block/down", linear(width, 12), ["block/up"]),
        qrs.Node("block/act", nn.Activation("tanh"), ["block/down"]),
        qrs.Node("pool", nn.MeanPool(), ["block/act", "mask"]),
        qrs.Node("unit", nn.Normalize(), ["pool"], "y"),
    ]
    return qrs.Model(nodes, ["ids", "mask"], ["y"])


def batch(rows=20, seed=0):
    """Token ids and a mask that hides the last token of the first text."""
    ids = np.random.default_rng(seed).integers(0, rows, (3, 5))
    mask = np.zeros((3, 5), np.float32)
    mask[0, -1] = -1e9
    return {"ids": ids, "mask": mask}


def mlp(activation="relu"):
    return qrs.Model.chain({"first": linear(6, 4, activation=activation), "second": linear(3, 6)})
