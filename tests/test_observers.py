"""Observers: the conformance check for every registered one, and what each says of known data."""

import json

import numpy as np
import pytest
import qrs
from hypothesis import given
from hypothesis import strategies as st
from qrs import NotCalibratedError, Scheme, per_channel, per_token
from qrs.observers import (
    MSE,
    Entropy,
    Gram,
    Histogram,
    Magnitude,
    MinMax,
    MovingAverage,
    Observer,
    Percentile,
    Statistic,
)
from qrs.observers.bins import Bins, count
from qrs.testing import check_observer, check_statistic

REGISTERED = [Observer.by_id(name) for name in Observer.ids()]
by_kind = pytest.mark.parametrize("kind", REGISTERED, ids=Observer.ids())


@by_kind
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("seed", [0, 1])
def test_conformance(kind, axis, seed):
    check_observer(kind(axis=axis), seed=seed)


@pytest.mark.parametrize(
    "observer",
    [
        *(MovingAverage(momentum=momentum) for momentum in (0, 0.5, 0.999)),
        *(Percentile(percentile=percentile) for percentile in (51, 99, 100)),
        Histogram(choice="entropy"),
    ],
    ids=repr,
)
def test_conformance_of_settings(observer):
    check_observer(observer)


# ---- what they say


def test_minmax_is_the_smallest_and_the_largest():
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((4, 5, 6)).astype(np.float32) for _ in range(5)]
    seen = MinMax(axis=1)
    for batch in batches:
        seen.update(batch)
    every = np.stack(batches)
    lo, hi = seen.range("int8")
    assert (lo, hi) == (every.min(), every.max())
    assert lo.shape == hi.shape == ()
    lo, hi = seen.range(Scheme("int8", per_channel(1)))
    assert np.array_equal(lo, every.min(axis=(0, 1, 3)))
    assert np.array_equal(hi, every.max(axis=(0, 1, 3)))
    assert (seen.batches, seen.count) == (5, every.size)


def test_moving_average_fades():
    seen = MovingAverage(axis=0, momentum=0.75)
    for batch in ([[-1.0, 2.0], [0.0, 8.0]], [[-5.0, 2.0], [4.0, 4.0]]):
        seen.update(batch)
    lo, hi = seen.range("int8")
    assert (lo, hi) == (-2.0, 7.0)
    lo, hi = seen.range(Scheme("int8", per_channel(0)))
    assert lo.tolist() == [-2.0, 1.0]
    assert hi.tolist() == [2.0, 7.0]


def test_moving_averages_merge_by_their_numbers_of_batches():
    one, three = MovingAverage(), MovingAverage()
    one.update([0.0, 4.0])
    for _ in range(3):
        three.update([0.0, 8.0])
    one.merge(three)
    assert one.range("int8")[1] == 7.0
    assert one.batches == 4
    assert three.range("int8")[1] == 8.0


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=60),
    st.integers(1, 7),
    st.randoms(use_true_random=False),
)
def test_minmax_of_any_split_in_any_order_is_the_same(values, parts, random):
    whole = MinMax()
    whole.update(values)
    chunks = np.array_split(np.float32(values), parts)
    random.shuffle(chunks)
    observers = [MinMax() for _ in range(random.randint(1, 4))]
    for chunk in chunks:
        random.choice(observers).update(chunk)
    random.shuffle(observers)
    merged = MinMax()
    for observer in observers:
        merged.merge(observer)
    assert merged.range("int8") == whole.range("int8")
    assert merged.qparams("int8") == whole.qparams("int8")
    assert merged.count == whole.count


@by_kind
def test_ranges_give_the_scheme_s_parameters(kind):
    seen = kind(axis=1)
    seen.update([[-1.0, 0.0], [2.0, 4.0]])
    for scheme in (Scheme("uint8"), Scheme("int4", per_channel(1), scale_dtype="float16")):
        assert seen.qparams(scheme) == scheme.qparams(*seen.range(scheme))
    if kind is Entropy:
        lo, hi = seen.range("uint8")
        assert -1.0 <= lo < -0.99 and 3.98 < hi <= 4.0
    else:
        assert seen.qparams("uint8") == Scheme("uint8").qparams(-1.0, 4.0)


@by_kind
@pytest.mark.parametrize(
    "values", [[0.0, 0.0], [3.4028235e38], [-3.4028235e38, 3.4028235e38], [1e-45], [7.0]]
)
def test_extreme_data_has_a_finite_scale(kind, values):
    seen = kind()
    seen.update([1.0, -1.0] if len(values) == 1 else values)
    seen.update(values)
    for dtype in ("int8", "uint8", "int4"):
        assert 2.0**-126 <= seen.qparams(dtype).scale <= np.finfo(np.float32).max


# ---- what they refuse


@by_kind
def test_before_any_data(kind):
    with pytest.raises(NotCalibratedError, match=rf"{kind.__name__}\(\) has seen no data"):
        kind().range("int8")
    with pytest.raises(NotCalibratedError):
        kind().qparams("int8")
    empty = kind()
    empty.update(np.empty((0, 5), np.float32))
    assert (empty.batches, empty.count) == (0, 0)
    with pytest.raises(RuntimeError):
        empty.qparams("int8")


@by_kind
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_batch_that_is_not_finite_is_named_and_forgotten(kind, bad):
    seen = kind(axis=0)
    seen.update([[1.0, 2.0], [3.0, 4.0]])
    before = seen.to_state()
    with pytest.raises(qrs.QrsValueError, match=rf"batch 1 of {kind.__name__}\(axis=0\)"):
        seen.update([[1.0, bad], [3.0, 4.0]])
    after = seen.to_state()
    assert before[0] == after[0]
    assert all(np.array_equal(before[1][name], after[1][name]) for name in before[1])


@by_kind
def test_another_number_of_channels_is_refused(kind):
    seen = kind(axis=-1)
    seen.update(np.ones((3, 4)))
    seen.update(np.ones((2, 5, 4)))
    with pytest.raises(
        qrs.QrsValueError, match=r"batch 2 of .* has 5 channels on axis -1, expected 4 as before"
    ):
        seen.update(np.ones((3, 5)))
    with pytest.raises(qrs.QrsValueError, match=r"has shape \(\), which has no axis -1"):
        seen.update(1.0)
    other = kind(axis=-1)
    other.update(np.ones((3, 5)))
    with pytest.raises(qrs.QrsValueError, match="saw 4 channels and cannot merge one that saw 5"):
        seen.merge(other)
    assert seen.batches == 2


def test_other_dtypes_are_refused():
    with pytest.raises(qrs.QrsTypeError, match="x has dtype int64"):
        MinMax().update(np.ones(3, np.int64))


@pytest.mark.parametrize(
    ("observer", "granularity", "kept"),
    [
        (MinMax(), per_channel(0), "per_tensor, not for per_channel"),
        (MinMax(axis=0), per_channel(1), r"per_tensor and per_channel\(0\), not for per_channel\(1\)"),
        (MinMax(axis=0), per_token, "not for per_token"),
    ],
)
def test_ranges_that_are_not_kept_are_named(observer, granularity, kept):
    observer.update(np.ones((2, 3)))
    with pytest.raises(qrs.QrsValueError, match=kept):
        observer.range(Scheme("int8", granularity))


def test_only_alike_observers_merge():
    with pytest.raises(qrs.QrsTypeError, match=r"MinMax\(\) cannot merge a MovingAverage, expected a MinMax"):
        MinMax().merge(MovingAverage())
    with pytest.raises(qrs.QrsValueError, match="their settings differ"):
        MinMax().merge(MinMax(axis=0))
    with pytest.raises(qrs.QrsValueError, match="their settings differ"):
        MovingAverage().merge(MovingAverage(momentum=0.5))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: MovingAverage(momentum=1.0), ValueError),
        (lambda: MovingAverage(momentum=-0.1), ValueError),
        (lambda: MovingAverage(momentum=float("nan")), ValueError),
        (lambda: MovingAverage(momentum="0.9"), TypeError),
        (lambda: MovingAverage(momentum=True), TypeError),
        (lambda: MinMax(axis=1.0), TypeError),
    ],
)
def test_wrong_settings_are_refused(make, error):
    with pytest.raises(error, match=r"momentum is|axis is"):
        make()


# ---- saved and restored


def test_repr_evaluates_back():
    plain = (MinMax(), MinMax(axis=2), MovingAverage(axis=0, momentum=0.5))
    chosen = (Percentile(percentile=99.0), Histogram(choice="entropy"), Gram(axis=1), Magnitude())
    for observer in plain + chosen:
        assert eval(repr(observer)) == observer


@by_kind
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "minmx"}, "unknown observer 'minmx'"),
        ({"id": None}, "observer has id None, expected a str"),
        ({"settings": {"axes": 1}}, "axes"),
        ({"settings": []}, "observer has settings"),
        ({"batches": -1}, "-1 batches of 2 elements"),
        ({"batches": 3}, "3 batches of 2 elements"),
        ({"count": 0}, "1 batches of 0 elements"),
        ({"count": True}, "observer has count True"),
        ({"batches": 1.0}, "observer has batches 1.0"),
    ],
)
def test_damaged_state_is_named(kind, change, message):
    seen = kind()
    seen.update([1.0, -1.0])
    data, arrays = seen.to_state()
    assert Observer.from_state(json.loads(json.dumps(data)), arrays) == seen
    with pytest.raises(qrs.FormatError, match=message):
        Observer.from_state({**data, **change}, arrays)


@by_kind
@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"lo": np.float32([0])},
        {"lo": np.float32([0]), "hi": np.float32([1]), "mean": np.float32([0])},
        {"lo": np.float32([2]), "hi": np.float32([1])},
        {"lo": np.float32([np.nan]), "hi": np.float32([1])},
        {"lo": np.float32([0]), "hi": np.float32([np.inf])},
        {"lo": np.float32([]), "hi": np.float32([])},
        {"lo": np.float32([0, 0]), "hi": np.float32([1, 1])},
        {"lo": np.float32([[0]]), "hi": np.float32([[1]])},
        {"lo": np.int64([0]), "hi": np.int64([1])},
    ],
    ids=repr,
)
def test_damaged_arrays_are_refused(kind, arrays):
    seen = kind()
    seen.update([1.0, -1.0])
    with pytest.raises(qrs.FormatError, match="observer"):
        Observer.from_state(seen.to_state()[0], arrays)


def test_state_that_is_no_mapping_is_refused():
    with pytest.raises(qrs.FormatError, match="expected a mapping"):
        Observer.from_state([], {})


# ---- counts, and the ranges chosen from them


COUNTED = [Percentile, Histogram, MSE, Entropy]
RNG = np.random.default_rng(5)
SAMPLES = {
    "normal": RNG.normal(size=100_000),
    "laplace": RNG.laplace(size=100_000),
    "rectified": np.maximum(RNG.normal(size=100_000), 0),
    "heavy": RNG.standard_t(3, size=100_000),
    "outliers": np.append(RNG.normal(size=100_000), RNG.normal(60, 1, 50)),
}
SAMPLES = {name: values.astype(np.float32) for name, values in SAMPLES.items()}
on_samples = pytest.mark.parametrize("data", SAMPLES.values(), ids=SAMPLES)


def sqnr(data, scheme, lo, hi):
    qparams = scheme.qparams(np.float32(lo), np.float32(hi))
    return qrs.compare(data, qrs.fake_quantize(data, scheme, qparams=qparams)).sqnr_db


def best_share(measure, step, center=1.0, reach=64):
    shares = np.minimum(center * 2.0 ** (-step * np.arange(-reach, reach + 1)), 1.0)
    return max((measure(share), share) for share in np.unique(shares))


def exact_sqnr(data, scheme):
    """The best range by quantizing the data itself with some hundred candidates."""
    lo, hi = min(data.min(), 0), max(data.max(), 0)
    found, share = best_share(lambda s: sqnr(data, scheme, s * lo, s * hi), 1 / 8)
    low = high = share
    for step in (1 / 8, 1 / 64):
        if scheme.symmetric or not lo:
            best, low = best_share(lambda s: sqnr(data, scheme, s * lo, s * hi), step, low, 8)
        else:
            best, high = best_share(lambda s, low=low: sqnr(data, scheme, low * lo, s * hi), step, high, 16)
            best, low = best_share(lambda s, high=high: sqnr(data, scheme, s * lo, high * hi), step, low, 16)
        found = max(found, best)
    return found


@on_samples
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int4", "uint4", "int2"])
def test_the_least_squared_error_is_near_that_of_an_exact_search(data, dtype):
    seen = MSE()
    for part in np.array_split(data, 3):
        seen.update(part)
    scheme = Scheme(dtype)
    assert sqnr(data, scheme, *seen.range(scheme)) > exact_sqnr(data, scheme) - 0.04


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "nf4", "pow2:4", "int16", "float4_e2m1fn"])
def test_any_format_gets_a_range_that_beats_all_that_was_seen(dtype):
    data = SAMPLES["outliers"]
    seen = MSE()
    seen.update(data)
    scheme = Scheme(dtype)
    assert sqnr(data, scheme, *seen.range(scheme)) >= sqnr(data, scheme, data.min(), data.max()) - 1e-3
    assert sqnr(data, scheme, *seen.range(scheme)) > exact_sqnr(data, scheme) - 0.04


@on_samples
@pytest.mark.parametrize("percentile", [99.9, 99.0, 90.0])
def test_percentiles_leave_out_their_share(data, percentile):
    seen = Percentile(percentile=percentile)
    seen.update(data)
    outside = round(data.size * (100 - percentile) / 100)
    lo, hi = seen.range("int8")
    exact = np.sort(np.abs(data))[-outside - 1]
    assert max(-lo, hi) == pytest.approx(exact, rel=0.004)
    lo, hi = seen.range("uint8")
    ordered = np.sort(data)
    assert hi == pytest.approx(ordered[-outside // 2 - 1], rel=0.01)
    assert lo == pytest.approx(ordered[outside // 2], rel=0.01, abs=1e-30)


def test_a_percentile_that_leaves_out_nothing_is_all_that_was_seen():
    for percentile in (100, 99.999):
        seen = Percentile(percentile=percentile)
        seen.update(SAMPLES["normal"][:99_999])
        assert seen.range("uint8") == (SAMPLES["normal"][:99_999].min(), SAMPLES["normal"][:99_999].max())


def test_shares_are_decimal():
    """100 - 99.9 is less than 0.1 in binary, which would leave out no element of a thousand."""
    seen = Percentile(percentile=99.9)
    seen.update(np.append(np.linspace(0, 1, 999), 50.0))
    assert seen.range("int8")[1] < 1.02


def test_entropy_does_not_see_how_many_zeros_there_are():
    few, many = Entropy(), Entropy()
    few.update(SAMPLES["rectified"])
    many.update(np.append(SAMPLES["rectified"], np.zeros(10_000_000, np.float32)))
    assert few.range("uint8") == many.range("uint8")


@pytest.mark.parametrize("far", [1e3, 1e6])
def test_entropy_still_sees_the_rest_when_one_value_is_far(far):
    seen = Entropy()
    seen.update(np.append(SAMPLES["normal"], far))
    for dtype in ("int8", "uint8", "int4"):
        assert 2 < seen.range(dtype)[1] < 6


@on_samples
@pytest.mark.parametrize("kind", COUNTED)
def test_chosen_ranges_lie_within_what_was_seen(data, kind):
    seen = kind()
    seen.update(data)
    for dtype in ("int8", "uint8", "uint3", "int1", "float8_e5m2"):
        lo, hi = seen.range(dtype)
        assert min(data.min(), 0) <= lo <= hi <= data.max()


@pytest.mark.parametrize("kind", COUNTED)
def test_a_channel_has_the_range_that_it_would_have_alone(kind):
    data = np.stack([SAMPLES["normal"][:3000], SAMPLES["heavy"][:3000], np.zeros(3000, np.float32)])
    seen = kind(axis=1)
    seen.update(data.T)
    for dtype in ("int8", "uint4"):
        ends = np.stack(seen.range(Scheme(dtype, per_channel(1))), axis=1)
        for row, pair in zip(data, ends, strict=True):
            alone = kind()
            alone.update(row)
            assert np.array_equal(alone.range(dtype), pair)
        whole = kind()
        whole.update(data)
        assert whole.range(dtype) == seen.range(dtype)


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=60),
    st.integers(1, 7),
    st.randoms(use_true_random=False),
)
def test_counts_of_any_split_in_any_order_are_the_same(values, parts, random):
    whole, merged = Histogram(), Histogram()
    whole.update(values)
    chunks = np.array_split(np.float32(values), parts)
    random.shuffle(chunks)
    for chunk in chunks:
        part = Histogram()
        part.update(chunk)
        merged.merge(part)
    assert merged.counts.tobytes() == whole.counts.tobytes()
    assert merged.counts.sum() == len(values)
    assert merged.range("int8") == whole.range("int8")


def test_a_bin_holds_the_values_between_its_edges():
    for value in (0.0, -0.0, 1e-45, -1e-45, 1.0, -1.0, 1.03, -np.pi, 3.4028235e38, -3.4028235e38):
        rows = count(np.float32([value]), None)
        bins = Bins.of(rows[0], -np.inf, np.inf)
        assert bins.total == 1
        assert bins.low[0] <= np.float32(value) <= bins.high[0]
        if abs(value) > 1e-37:
            assert (bins.high[0] - bins.low[0]) / abs(value) <= 1 / 31


@pytest.mark.parametrize("kind", COUNTED)
def test_a_state_has_the_bytes_that_are_documented(kind):
    seen, channels = kind(), kind(axis=0)
    for _ in range(3):
        seen.update(SAMPLES["normal"])
        channels.update(SAMPLES["normal"].reshape(5, -1))
    assert sum(array.nbytes for array in seen.to_state()[1].values()) == 131_080
    assert sum(array.nbytes for array in channels.to_state()[1].values()) == 5 * 131_080 + 8


def test_another_rule_shares_the_counts():
    seen = MSE()
    seen.update(SAMPLES["normal"])
    before = seen.range("int8")
    for rule in (Entropy(), Percentile(percentile=99.0), Histogram(choice="percentile")):
        alone = rule.fresh()
        alone.update(SAMPLES["normal"])
        other = seen.to(rule)
        assert other == alone and other.range("int8") == alone.range("int8")
        other.update(SAMPLES["heavy"])
    assert seen.range("int8") == before and seen.batches == 1
    assert MSE().to(Entropy()) == Entropy()
    with pytest.raises(qrs.QrsTypeError, match="expected one that keeps counts"):
        seen.to(MinMax())
    with pytest.raises(qrs.QrsValueError, match="their axes differ"):
        seen.to(Entropy(axis=0))


@pytest.mark.parametrize("choice", ["mse", "entropy", "percentile"])
def test_a_histogram_chooses_by_the_rule_that_it_names(choice):
    seen, rule = Histogram(choice=choice), Observer.by_id(choice)()
    for one in (seen, rule):
        one.update(SAMPLES["heavy"])
    for dtype in ("int8", "uint4"):
        assert seen.range(dtype) == rule.range(dtype)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Percentile(percentile=50), ValueError, "percentile is 50, expected 50 <"),
        (lambda: Percentile(percentile=100.1), ValueError, "percentile is 100.1"),
        (lambda: Percentile(percentile=float("nan")), ValueError, "percentile is nan"),
        (lambda: Percentile(percentile="99"), TypeError, "percentile is '99', expected a number"),
        (lambda: Histogram(choice="msee"), ValueError, "unknown choice 'msee'; did you mean 'mse'"),
        (lambda: Histogram(choice="minmax"), ValueError, "known: entropy, mse, percentile"),
        (lambda: Histogram(choice="histogram"), ValueError, "unknown choice"),
        (lambda: Histogram(choice=None), TypeError, "choice is None, expected a string"),
        (lambda: Gram(axis=None), TypeError, "axis is None"),
        (lambda: Magnitude(axis=1.5), TypeError, "axis is 1.5"),
    ],
)
def test_wrong_choices_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def counts(**changed):
    row = np.zeros((1, 16384), np.int64)
    row[0, count(np.float32([1, -1]), None)[0] > 0] = 1
    return {"lo": np.float32([-1]), "hi": np.float32([1]), "counts": row, **changed}


@pytest.mark.parametrize("kind", COUNTED)
@pytest.mark.parametrize(
    "arrays",
    [
        counts(counts=counts()["counts"].astype(np.int32)),
        counts(counts=counts()["counts"][:, :-1]),
        counts(counts=np.repeat(counts()["counts"], 2, axis=0)),
        counts(counts=-counts()["counts"]),
        counts(counts=2 * counts()["counts"]),
        counts(hi=np.float32([2])),
        counts(lo=np.float32([-3])),
    ],
)
def test_damaged_counts_are_refused(kind, arrays):
    seen = kind()
    seen.update([1.0, -1.0])
    data, sound = seen.to_state()
    assert all(np.array_equal(sound[name], array) for name, array in counts().items())
    with pytest.raises(qrs.FormatError, match=r"has counts|has no counts"):
        Observer.from_state(data, arrays)


# ---- statistics that answer no range


@pytest.mark.parametrize("kind", [Gram, Magnitude])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_conformance_of_other_statistics(kind, axis):
    check_statistic(kind(axis=axis))


def test_gram_is_the_product_of_all_rows():
    rng = np.random.default_rng(3)
    batches = [
        rng.normal(size=shape).astype(np.float32) for shape in ((7, 6), (2, 5, 6), (1, 6), (300_000, 6))
    ]
    parts = [Gram(), Gram()]
    for i, batch in enumerate(batches):
        parts[i % 2].update(batch)
    parts[0].merge(parts[1])
    rows = np.concatenate([batch.reshape(-1, 6) for batch in batches]).astype(np.float64)
    assert np.allclose(parts[0].matrix, rows.T @ rows, rtol=1e-12)
    assert np.array_equal(parts[0].matrix, parts[0].matrix.T)
    images = Gram(axis=1)
    images.update(batches[1])
    wanted = np.moveaxis(batches[1], 1, -1).reshape(-1, 5).astype(np.float64)
    assert np.allclose(images.matrix, wanted.T @ wanted, rtol=1e-12)


def test_magnitudes_are_mean_squares_and_maxima():
    rng = np.random.default_rng(4)
    one, other = Magnitude(), Magnitude()
    batches = [
        rng.normal(size=(n, 3)).astype(np.float32) * 2.0 ** np.arange(3, dtype=np.float32) for n in (4, 9)
    ]
    one.update(batches[0])
    other.update(batches[1])
    one.merge(other)
    rows = np.concatenate(batches).astype(np.float64)
    assert np.allclose(one.mean_square, np.mean(rows**2, axis=0), rtol=1e-14)
    assert np.array_equal(one.largest, np.abs(rows).max(axis=0))


@pytest.mark.parametrize(
    "ask", [lambda: Gram().matrix, lambda: Magnitude().largest, lambda: Magnitude().mean_square]
)
def test_statistics_without_data_say_so(ask):
    with pytest.raises(NotCalibratedError, match="has seen no data"):
        ask()


def test_an_observer_is_asked_for_where_ranges_are():
    assert set(Observer.ids()) < set(Statistic.ids())
    assert Statistic.by_id("gram") is Gram
    with pytest.raises(
        qrs.QrsValueError, match=r"unknown observer 'gram'; .* known: entropy, histogram, minmax"
    ):
        Observer.by_id("gram")
    with pytest.raises(qrs.QrsTypeError, match="expected an observer"):
        qrs.Static("int8", observer=Gram())
    seen = Gram()
    seen.update([[1.0, 2.0]])
    with pytest.raises(qrs.FormatError, match="unknown observer 'gram'"):
        Observer.from_state(*seen.to_state())


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (Gram, {"products": np.ones((2, 3))}),
        (Gram, {"products": np.float64([[1, 2], [3, 1]])}),
        (Gram, {"products": np.float64([[-1, 0], [0, 1]])}),
        (Gram, {"products": np.full((2, 2), np.nan)}),
        (Gram, {"products": np.ones((2, 2), np.float32)}),
        (Gram, {"products": np.ones((0, 0))}),
        (Magnitude, {"squares": np.float64([1, -1])}),
        (Magnitude, {"squares": np.float32([1, 1])}),
        (Magnitude, {"peaks": np.float32([1])}),
        (Magnitude, {"peaks": np.float32([1, np.inf])}),
        (Magnitude, {"peaks": np.float32([[1, 1]])}),
    ],
)
def test_damaged_statistics_are_refused(kind, change):
    seen = kind()
    seen.update([[1.0, 2.0]])
    data, arrays = seen.to_state()
    with pytest.raises(qrs.FormatError, match=f"statistic '{kind.id}' has"):
        Statistic.from_state(data, {**arrays, **change})
