"""Observers: the conformance check for every registered one, and what each says of known data."""

import json

import numpy as np
import pytest
import qrs
from hypothesis import given
from hypothesis import strategies as st
from qrs import NotCalibratedError, Scheme, per_channel, per_token
from qrs.observers import Entropy, MinMax, MovingAverage, Observer
from qrs.testing import check_observer

REGISTERED = [Observer.by_id(name) for name in Observer.ids()]
by_kind = pytest.mark.parametrize("kind", REGISTERED, ids=Observer.ids())


@by_kind
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("seed", [0, 1])
def test_conformance(kind, axis, seed):
    check_observer(kind(axis=axis), seed=seed)


@pytest.mark.parametrize("momentum", [0, 0.5, 0.999])
def test_conformance_of_settings(momentum):
    check_observer(MovingAverage(momentum=momentum))


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
        assert -1.0 <= lo < -0.99 and 3.99 < hi <= 4.0
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
    for observer in (MinMax(), MinMax(axis=2), MovingAverage(axis=0, momentum=0.5)):
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
