"""Calibration: the same numbers however the data is cut, and every fault named with its batch."""

import numpy as np
import pytest
import qrs
from models import array, batch, encoder, mlp
from qrs.observers import MinMax, MovingAverage

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


@pytest.mark.parametrize("observer", [MinMax(), MovingAverage(momentum=0.25)])
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
