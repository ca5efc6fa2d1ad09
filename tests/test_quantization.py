"""Quantizing a model: what a recipe says happens, the report tells all, and the original stays."""

import json

import numpy as np
import pytest
import qrs
from models import array, batch, encoder, linear, mlp
from qrs import nn

PRESETS = qrs.Recipe.presets()
DYNAMIC = qrs.Recipe.preset("w8a8-dynamic")


def quantized(model, name, data=None):
    recipe = qrs.Recipe.preset(name)
    stats = qrs.calibrate(model, [data or batch()], recipe) if "static" in name else None
    return qrs.quantize_model(model, recipe, stats)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_keeps_the_answer_near(name):
    model = encoder(width=64, heads=4)
    expected = model.run(batch())["y"]
    small, report = quantized(model, name)
    cosine = (small.run(batch())["y"] * expected).sum(axis=1)
    assert cosine.min() > (0.98 if "w8" in name else 0.9)
    assert report.bytes_after == small.nbytes < report.bytes_before == model.nbytes


@pytest.mark.parametrize("name", PRESETS)
def test_weights_are_those_of_quantize(name):
    model = mlp()
    small, report = quantized(model, name, {"x": array(5, 4)})
    for row in report.quantized:
        w = model.layers[row.name].weight
        assert small.layers[row.name].weight == qrs.quantize(w, row.weight)
        assert row.sqnr_db == qrs.compare(w, qrs.fake_quantize(w, row.weight)).sqnr_db


@pytest.mark.parametrize(
    "granularity",
    [
        qrs.per_tensor,
        qrs.per_token,
        qrs.per_channel(1),
        qrs.per_group(3),
        qrs.per_group(2, axis=0),
        qrs.per_block((4, 5)),
        qrs.per_block((1, 1)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("input", [None, qrs.Dynamic(qrs.Scheme("uint8", qrs.per_token))], ids=repr)
def test_a_weight_may_have_any_granularity(granularity, input):
    scheme = qrs.Scheme("int8", granularity)
    small, _ = qrs.quantize_model(mlp(), qrs.Recipe([qrs.Rule("*", scheme, input)]))
    assert {layer.weight.scheme for layer in small.layers.values()} == {scheme}
    x = array(5, 4)
    np.testing.assert_allclose(small.run({"x": x})["y"], mlp().run({"x": x})["y"], atol=0.1)


def test_a_granularity_that_a_weight_cannot_have_is_refused_with_its_layer():
    rule = qrs.Rule("second", qrs.Scheme("int8", qrs.per_channel(2)))
    with pytest.raises(qrs.QrsValueError, match=r"layer 'second': .*axis.* 2"):
        qrs.quantize_model(mlp(), qrs.Recipe([rule]))


def test_the_original_stays_as_it_was():
    model = encoder()
    before = model.run(batch())["y"]
    layers = dict(model.layers)
    small, _ = qrs.quantize_model(model, DYNAMIC)
    assert dict(model.layers) == layers and model.recipe is None
    assert small.recipe == DYNAMIC
    np.testing.assert_array_equal(model.run(batch())["y"], before)
    assert small.layers["block/norm"] is model.layers["block/norm"]


def test_the_report_tells_every_layer():
    model = encoder()
    _, report = qrs.quantize_model(model, DYNAMIC)
    assert [row.name for row in report.rows] == list(model.layers)
    reasons = {row.name: row.reason for row in report.skipped}
    assert reasons["block/norm"] == "has no weight to quantize"
    assert reasons["block/attention"] == "holds the layers below"
    words = next(row for row in report.rows if row.name == "words")
    assert words.weight is not None and "multiplies nothing" in words.reason
    assert all(row.reason for row in report.skipped)


def test_the_report_is_text_and_json():
    _, report = qrs.quantize_model(encoder(), DYNAMIC)
    lines = str(report).splitlines()
    assert len(lines) == len(report.rows) + 2
    assert lines[0].split()[:4] == ["layer", "kind", "weight", "input"]
    assert "dynamic uint8 per_token" in str(report)
    data = json.loads(json.dumps(report.to_dict()))
    assert len(data["rows"]) == len(report.rows) and data["bytes_after"] == report.bytes_after
    assert repr(report).startswith("Report(8 of 14 layers quantized")


def test_a_weight_that_loses_nothing_is_null_in_json():
    model = qrs.Model.chain({"eye": nn.Linear(np.eye(4, dtype=np.float32))})
    _, report = qrs.quantize_model(model, qrs.Recipe([qrs.Rule("*", "uint1")]))
    assert report.rows[0].sqnr_db == np.inf
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert json.loads(text)["rows"][0]["sqnr_db"] is None


def test_rules_decide_layer_by_layer():
    rules = [
        qrs.Rule("words", "int8"),
        qrs.Rule("block/attention/*", qrs.Scheme("int4", qrs.per_group(4))),
        qrs.Rule("block/up", None),
    ]
    small, report = qrs.quantize_model(encoder(), qrs.Recipe(rules))
    dtypes = {row.name: row.weight and row.weight.dtype for row in report.rows}
    assert dtypes["words"] == "int8" and dtypes["block/attention/key"] == "int4"
    reasons = {row.name: row.reason for row in report.rows}
    assert reasons["block/up"] == "kept by rule 'block/up'"
    assert reasons["block/down"] == "no rule matches"
    assert isinstance(small.layers["block/down"].weight, np.ndarray)


def test_a_second_pass_takes_what_the_first_left():
    first, _ = qrs.quantize_model(mlp(), qrs.Recipe([qrs.Rule("first", "int8")]))
    second, report = qrs.quantize_model(first, qrs.Recipe([qrs.Rule("*", "int4")]))
    assert second.layers["first"].weight is first.layers["first"].weight
    assert [row.reason for row in report.rows] == ["is quantized already", None]


def test_a_shared_array_is_quantized_once():
    table = array(8, 8)
    model = qrs.Model.chain({"a": nn.Linear(table), "b": nn.Linear(table), "c": linear(8, 8)})
    small, report = qrs.quantize_model(model, DYNAMIC)
    assert small.layers["a"].weight is small.layers["b"].weight is not small.layers["c"].weight
    assert report.bytes_after == small.nbytes
    mixed, _ = qrs.quantize_model(model, qrs.Recipe([qrs.Rule("a", "int8"), qrs.Rule("*", "int4")]))
    assert mixed.layers["a"].weight.scheme.dtype == "int8" and mixed.layers["b"].weight.scheme.dtype == "int4"


def test_static_ranges_come_from_the_statistics():
    data = [{"x": array(5, 4, seed=i)} for i in range(3)]
    recipe = qrs.Recipe.preset("w8a8-static")
    stats = qrs.calibrate(mlp(), data, recipe)
    small, _ = qrs.quantize_model(mlp(), recipe, stats)
    for name, layer in small.layers.items():
        assert layer.input.qparams == stats.qparams(name, qrs.Scheme("uint8"))
        assert layer.input.observer is None


def test_missing_calibration_lists_all_layers():
    recipe = qrs.Recipe.preset("w8a8-static")
    with pytest.raises(qrs.NotCalibratedError, match=r"\['first', 'second'\]"):
        qrs.quantize_model(mlp(), recipe)
    seen = qrs.calibrate(mlp(), [{"x": array(5, 4)}], recipe)
    partly = qrs.Statistics({"first": seen.observers["first"], "second": seen.observers["second"].fresh()})
    with pytest.raises(qrs.NotCalibratedError, match=r"\['second'\]"):
        qrs.quantize_model(mlp(), recipe, partly)


def test_a_model_without_weights_is_refused():
    with pytest.raises(qrs.QrsValueError, match="no layer that can be quantized"):
        qrs.quantize_model(qrs.Model.chain({"act": nn.Activation("relu")}), DYNAMIC)


def test_a_rule_that_matches_nothing_is_refused():
    with pytest.raises(qrs.QrsValueError, match="'hed' matches no layer"):
        qrs.quantize_model(mlp(), qrs.Recipe([qrs.Rule("hed", "int8"), qrs.Rule("*", "int8")]))


def test_an_error_names_the_layer_and_leaves_the_model():
    bad = array(3, 6)
    bad[1, 2] = np.inf
    model = qrs.Model.chain({"first": linear(6, 4), "second": nn.Linear(bad)})
    layers = dict(model.layers)
    with pytest.raises(qrs.QrsValueError, match="layer 'second'"):
        qrs.quantize_model(model, DYNAMIC)
    assert dict(model.layers) == layers


def test_progress_is_told_layer_by_layer():
    told = []
    qrs.quantize_model(mlp(), DYNAMIC, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
