"""Calibration: the same numbers however the data is cut, and every fault named with its batch."""

import pickle
import tracemalloc

import numpy as np
import pytest
import qrs
from models import array, batch, encoder, mlp
from qrs.observers import MSE, Entropy, Gram, Histogram, Magnitude, MinMax, MovingAverage, Percentile

STATIC = qrs.Recipe.preset("w8a8-static")


def batches(count=4, rows=6):
    return [{"x": array(rows, 4, seed=i)} for i in range(count)]


def test_observers_see_what_the_layers_see():
    model, data = mlp(), batches()
    stats = qrs.calibrate(model, data, STATIC)
    hidden = [model.layers["first"](b["x"]) for b in data]
    for name, seen in (("first", [b["x"] for b in data]), ("second", hidden)):
        lo, hi = stats.observers[name].range("uint8")
        assert lo == min(x.min() for x in seen) and hi == max(x.max() for x in seen)


def test_inner_layers_are_observed_by_their_path():
    stats = qrs.calibrate(encoder(), [batch()], STATIC)
    parts = ("query", "key", "value", "output")
    assert set(stats.observers) == {*(f"block/attention/{p}" for p in parts), "block/up", "block/down"}


def test_cutting_and_order_do_not_matter():
    data = batches()
    whole = qrs.calibrate(mlp(), data, STATIC)
    parts = qrs.calibrate(mlp(), data[2:], STATIC).merge(qrs.calibrate(mlp(), data[:2], STATIC))
    assert whole == parts == qrs.calibrate(mlp(), iter(data[::-1]), STATIC)
    assert whole == qrs.calibrate(mlp(), (b for b in data), STATIC)


def test_the_rules_observer_is_used_and_stays_empty():
    average = MovingAverage(momentum=0.5)
    rules = [
        qrs.Rule("first", "int8", qrs.Static("uint8", observer=average)),
        qrs.Rule("*", "int8", qrs.Static("uint8")),
    ]
    stats = qrs.calibrate(mlp(), batches(), qrs.Recipe(rules))
    assert type(stats.observers["first"]) is MovingAverage and not average.batches
    assert type(stats.observers["second"]) is MinMax


def test_merging_leaves_both_sides_alone_and_keeps_what_one_side_saw():
    a, b = (qrs.calibrate(mlp(), batches(n), STATIC) for n in (1, 2))
    only = qrs.Statistics({"other": a.observers["first"]})
    merged = a.merge(b).merge(only)
    assert set(merged.observers) == {"first", "second", "other"}
    assert a == qrs.calibrate(mlp(), batches(1), STATIC)
    other = qrs.Statistics({"first": MovingAverage()})
    with pytest.raises(qrs.QrsTypeError, match="layer 'first'"):
        a.merge(other)


def test_progress_is_told_batch_by_batch():
    told = []
    qrs.calibrate(mlp(), batches(3), STATIC, progress=lambda done, total: told.append((done, total)))
    qrs.calibrate(mlp(), iter(batches(1)), STATIC, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3), (1, None)]
    with pytest.raises(qrs.QrsTypeError, match="progress is 'yes'"):
        qrs.calibrate(mlp(), batches(1), STATIC, progress="yes")


def test_progress_true_shows_something(capsys):
    qrs.calibrate(mlp(), batches(2), STATIC, progress=True)
    assert "calibrate" in capsys.readouterr().err


def test_no_data_is_an_error():
    for empty in ([], iter(())):
        with pytest.raises(qrs.QrsValueError, match="no calibration data"):
            qrs.calibrate(mlp(), empty, STATIC)


def test_nothing_to_observe_is_an_error():
    with pytest.raises(qrs.QrsValueError, match="nothing to calibrate"):
        qrs.calibrate(mlp(), batches(), qrs.Recipe.preset("w8a8-dynamic"))


def test_what_the_iterable_raises_passes_and_the_model_stays_usable():
    model = mlp()

    def failing():
        yield batches(1)[0]
        raise KeyError("disk")

    with pytest.raises(KeyError, match="disk"):
        qrs.calibrate(model, failing(), STATIC)
    assert qrs.calibrate(model, batches(), STATIC) == qrs.calibrate(mlp(), batches(), STATIC)


def test_a_value_that_is_not_finite_is_named_with_layer_and_batch():
    data = batches()
    data[2]["x"][3, 1] = np.nan
    with pytest.raises(qrs.QrsValueError, match=r"batch 2: layer 'first'"):
        qrs.calibrate(mlp(), data, STATIC)


def test_a_bad_batch_is_named():
    with pytest.raises(qrs.QrsValueError, match=r"batch 1: inputs: missing \['x'\]"):
        qrs.calibrate(mlp(), [batches(1)[0], {"z": array(2, 4)}], STATIC)


def test_layers_that_were_not_seen_are_not_calibrated():
    stats = qrs.calibrate(mlp(), batches(), STATIC)
    with pytest.raises(qrs.NotCalibratedError, match="layer 'third' was not calibrated"):
        stats.qparams("third", qrs.Scheme("uint8"))


@pytest.mark.parametrize(
    "observer", [MinMax(), MovingAverage(momentum=0.25), MSE(), Percentile(percentile=99.0)]
)
def test_a_file_gives_back_what_was_saved(tmp_path, observer):
    rule = qrs.Rule("*", "int8", qrs.Static("uint8", observer=observer))
    stats = qrs.calibrate(mlp(), batches(), qrs.Recipe([rule]))
    stats.save(tmp_path / "stats.qrs")
    again = qrs.load_stats(tmp_path / "stats.qrs")
    assert again == stats
    assert again.merge(stats).observers["first"].batches == 8
    empty = qrs.Statistics({"x": observer.fresh()})
    empty.save(tmp_path / "empty.qrs")
    assert qrs.load_stats(tmp_path / "empty.qrs") == empty


def test_other_files_are_refused(tmp_path):
    mlp().save(tmp_path / "model.qrs")
    with pytest.raises(qrs.FormatError, match="format is 'qrs-model', expected 'qrs-statistics'"):
        qrs.load_stats(tmp_path / "model.qrs")
    qrs.calibrate(mlp(), batches(), STATIC).save(tmp_path / "stats.qrs")
    with pytest.raises(qrs.FormatError, match="format is 'qrs-statistics', expected 'qrs-model'"):
        qrs.load(tmp_path / "stats.qrs")
    data = (tmp_path / "stats.qrs").read_bytes()
    for length in range(0, len(data), 7):
        (tmp_path / "cut.qrs").write_bytes(data[:length])
        with pytest.raises(qrs.FormatError):
            qrs.load_stats(tmp_path / "cut.qrs")


# ---- interrupted and resumed


def recipe_of(observer):
    return qrs.Recipe([qrs.Rule("*", "int8", qrs.Static("uint8", observer=observer))])


@pytest.mark.parametrize("observer", [MinMax(), MovingAverage(), MSE(), Entropy(), Percentile(), Histogram()])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(tmp_path, observer, error):
    data, recipe = batches(5), recipe_of(observer)

    def breaking():
        yield from data[:2]
        raise error

    stats = qrs.Statistics()
    with pytest.raises(error):
        qrs.calibrate(mlp(), breaking(), recipe, stats=stats, collect=[Gram()])
    assert stats.batches == 2
    stats.save(tmp_path / "stats")
    stats = qrs.load_stats(tmp_path / "stats")
    again = qrs.calibrate(mlp(), data[stats.batches :], recipe, stats=stats, collect=[Gram()])
    assert again is stats
    assert stats == qrs.calibrate(mlp(), data, recipe, collect=[Gram()])
    assert qrs.calibrate(mlp(), [], recipe, stats=stats, collect=[Gram()]).batches == 5


@pytest.mark.parametrize("observer", [MinMax(), MovingAverage(), MSE()])
def test_a_batch_counts_in_whole_or_not_at_all(monkeypatch, observer):
    """The interruption comes when the first layer has seen the batch and the second has not."""
    data, recipe, stats = batches(3), recipe_of(observer), qrs.Statistics()
    update = type(observer).update

    def interrupted(self, x):
        update(self, x)
        if self is stats.observers["second"] and self.batches == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(type(observer), "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        qrs.calibrate(mlp(), data, recipe, stats=stats)
    monkeypatch.undo()
    assert stats == qrs.calibrate(mlp(), data[:1], recipe)
    qrs.calibrate(mlp(), data[1:], recipe, stats=stats)
    assert stats == qrs.calibrate(mlp(), data, recipe)


def test_a_bad_batch_is_left_out_and_named_by_its_place_in_all_data():
    data = batches(4)
    data[3]["x"][0, 0] = np.nan
    stats = qrs.calibrate(mlp(), data[:2], STATIC)
    with pytest.raises(qrs.QrsValueError, match=r"batch 3: layer 'first'"):
        qrs.calibrate(mlp(), data[2:], STATIC, stats=stats)
    assert stats == qrs.calibrate(mlp(), data[:3], STATIC)


@pytest.mark.parametrize(
    "former",
    [
        lambda: qrs.calibrate(mlp(), batches(1), recipe_of(MSE())),
        lambda: qrs.calibrate(mlp(), batches(1), STATIC, collect=[Gram()]),
        lambda: qrs.Statistics({"first": MinMax()}),
        lambda: qrs.Statistics({**{n: MinMax() for n in ("first", "second", "third")}}),
        lambda: qrs.Statistics(batches=2),
    ],
)
def test_statistics_of_another_calibration_are_refused(former):
    stats = former()
    with pytest.raises(qrs.QrsValueError, match=r"stats hold .* of layer '.*', expected .*; go on with"):
        qrs.calibrate(mlp(), batches(1), STATIC, stats=stats)
    assert stats == former()


# ---- collected beside ranges


def test_what_is_collected_is_of_the_inputs_of_layers(tmp_path):
    model, data = mlp(), batches(3)
    kinds = [Gram(), Magnitude()]
    stats = qrs.calibrate(model, data, qrs.Recipe.preset("w4a16-g32"), collect=kinds)
    assert not stats.observers and not kinds[0].batches
    hidden = np.concatenate([model.layers["first"](b["x"]) for b in data]).astype(np.float64)
    assert np.allclose(stats.of("second", Gram).matrix, hidden.T @ hidden)
    assert np.allclose(stats.of("second", Magnitude).mean_square, np.mean(hidden**2, axis=0))
    stats.save(tmp_path / "stats")
    again = qrs.load_stats(tmp_path / "stats")
    assert again == stats and again.collected.keys() == stats.collected.keys()
    both = again.merge(stats)
    assert both.batches == 6
    assert np.array_equal(both.of("first", Gram).matrix, 2 * stats.of("first", Gram).matrix)
    assert pickle.loads(pickle.dumps(stats)) == stats


def test_what_was_not_collected_is_named():
    stats = qrs.calibrate(mlp(), batches(1), STATIC, collect=[Gram()])
    with pytest.raises(qrs.NotCalibratedError, match=r"no Magnitude of layer 'first' .*collect=\[Magnitude"):
        stats.of("first", Magnitude)
    with pytest.raises(qrs.NotCalibratedError, match="no Gram of layer 'third'"):
        stats.of("third", Gram)


def test_one_of_a_kind_is_collected():
    with pytest.raises(qrs.QrsValueError, match="expected one of a kind"):
        qrs.calibrate(mlp(), batches(1), STATIC, collect=[Gram(), Gram(axis=1)])
    with pytest.raises(qrs.QrsTypeError, match="collect hold 'gram'"):
        qrs.calibrate(mlp(), batches(1), STATIC, collect=["gram"])


def test_two_arrays_of_one_name_are_refused_when_saved(tmp_path):
    class Clash(MinMax, id="clash"):
        arrays = ("lo", "hi", "gram.products")

    try:
        seen, gram = Clash(), Gram()
        seen.update([[1.0]])
        gram.update([[1.0]])
        setattr(seen, "gram.products", np.ones(1))
        with pytest.raises(qrs.QrsValueError, match=r"two arrays would be named 'a.gram.products'"):
            qrs.Statistics({"a": seen}, {"a": [gram]}).save(tmp_path / "stats")
    finally:
        del MinMax._table["clash"]


# ---- memory


@pytest.mark.parametrize("observer", [MinMax(), MovingAverage(), MSE(), Entropy(), Percentile(), Histogram()])
def test_memory_does_not_grow_with_the_data(observer):
    def peak(samples, seed=1):
        rng = np.random.default_rng(seed)
        lengths = [300, *rng.integers(100, 300, samples - 1)]
        data = ({"x": rng.standard_normal((n, 4)).astype(np.float32)} for n in lengths)
        tracemalloc.start()
        qrs.calibrate(mlp(), data, recipe_of(observer), collect=[Gram(), Magnitude()])
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(512, seed=2)  # what is computed once and kept
    few, many = peak(32), peak(512)
    assert many < 1.05 * few
