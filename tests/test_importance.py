"""An importance for each element: what it decides, and where it has nothing to decide."""

import numpy as np
import pytest
import qrs
from machine import everywhere

SCHEMES = [
    qrs.Scheme("int4", qrs.per_group(32), fit="mse"),
    qrs.Scheme("uint3", qrs.per_channel(0), fit="mse", scale_dtype="float16"),
    qrs.Scheme("nf4", qrs.per_channel(1), fit="mse"),
    qrs.Scheme("float4_e2m1fn", qrs.per_group(32), fit="mse", scale_dtype="e8m0"),
    qrs.Scheme("binary", qrs.per_channel(0)),
    qrs.Scheme("codebook:2", qrs.per_channel(0)),
    qrs.Scheme("codebook:5", qrs.per_channel(0)),
    qrs.Scheme("trellis:2", qrs.per_channel(0), L=8),
    qrs.Scheme("q2_k"),
    qrs.Scheme("q4_k"),
    qrs.Scheme("iq4_xs"),
]


def data(shape=(6, 512), seed=0):
    """Normal numbers, and an importance that is far from even."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape, np.float32), np.exp(2 * rng.standard_normal(shape)).astype(np.float32)


def lost(x, q, weights):
    return float(np.sum(weights.astype(np.float64) * (x - q.dequantize().astype(np.float64)) ** 2))


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
def test_less_is_lost_where_it_counts(scheme):
    x, weights = data()
    plain, weighted = qrs.quantize(x, scheme), qrs.quantize(x, scheme, importance=weights)
    assert lost(x, weighted, weights) < 0.98 * lost(x, plain, weights)
    assert lost(x, plain, np.ones_like(x)) < lost(x, weighted, np.ones_like(x))
    for label, other in everywhere(lambda: qrs.quantize(x, scheme, importance=weights)):
        assert other == weighted, label


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
def test_an_even_importance_changes_little_and_its_size_nothing(scheme):
    x, weights = data(seed=1)
    plain, even = qrs.quantize(x, scheme), qrs.quantize(x, scheme, importance=1)
    ones = np.ones_like(x)
    if scheme.format.kind in ("block", "trellis"):
        # Blocks have a rule for even errors that knows what weights tend to be; paths are sought in other units.
        assert lost(x, even, ones) < 1.02 * lost(x, plain, ones)
    else:
        assert even == plain
    scaled = qrs.quantize(x, scheme, importance=weights * np.float32(2.0**20))
    assert scaled == qrs.quantize(x, scheme, importance=weights)


def test_the_weighted_optimum_of_one_bit_is_known():
    x, weights = data((5, 64))
    q = qrs.quantize(x, qrs.Scheme("binary", qrs.per_channel(0)), importance=weights)
    # The scale of least squared error of signs is the weighted mean magnitude (XNOR-Net, Rastegari et al. 2016).
    assert np.allclose(q.scale, np.sum(weights * np.abs(x), 1) / np.sum(weights, 1), rtol=1e-5)


def test_what_does_not_count_is_clipped():
    x, _ = data((1, 64))
    wide = np.concatenate([x, np.float32([[1000.0]])], 1)
    counts = np.concatenate([np.ones_like(x), np.zeros((1, 1), np.float32)], 1)
    scheme = qrs.Scheme("int4", qrs.per_channel(0), fit="mse")
    q = qrs.quantize(wide, scheme, importance=counts)
    assert np.array_equal(q.scale, qrs.quantize(x, scheme).scale)
    nothing = qrs.quantize(wide, scheme, importance=0)
    assert nothing.scale > 100


def test_an_importance_is_broadcast():
    x, weights = data((4, 64))
    scheme = SCHEMES[0]
    assert qrs.quantize(x, scheme, importance=weights[0]) == qrs.quantize(
        x, scheme, importance=np.tile(weights[0], (4, 1))
    )


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"scheme": "int8", "importance": 1}, "fit is minmax, so it decides nothing"),
        ({"scheme": "nvfp4", "importance": 1}, "decides nothing"),
        (
            {"scheme": SCHEMES[0], "importance": 1, "qparams": SCHEMES[0].qparams(*np.ones((2, 6, 16)))},
            "qparams are given",
        ),
        ({"scheme": SCHEMES[0], "importance": np.ones(5)}, r"shape \(5,\), expected one that broadcasts"),
        ({"scheme": SCHEMES[0], "importance": -1}, "finite numbers from 0 on"),
        ({"scheme": SCHEMES[0], "importance": np.nan}, "finite numbers from 0 on"),
        ({"scheme": "q4_k", "importance": np.inf}, "finite numbers from 0 on"),
        ({"scheme": "trellis:2", "importance": -1}, "finite numbers from 0 on"),
        ({"scheme": SCHEMES[0], "importance": "much"}, "importance"),
    ],
)
def test_what_cannot_be_weighed_is_refused(how, words):
    with pytest.raises((ValueError, TypeError), match=words):
        qrs.quantize(data()[0], **how)
