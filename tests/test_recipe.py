"""Recipes: the first match decides, nothing is matched in vain, and JSON gives back what went in."""

import json

import pytest
import qrs
from models import encoder
from qrs import Recipe, Rule
from qrs.observers import MinMax, MovingAverage

G32 = qrs.Scheme("int4", qrs.per_group(32), scale_dtype="float16")
TOKEN = qrs.Dynamic(qrs.Scheme("int8", qrs.per_token))


def test_the_first_match_decides():
    recipe = Recipe([Rule("head", None), Rule("block?/*", "int4"), Rule("*", "int8")])
    found = recipe.assign(["words", "block0/up", "block10/up", "head", "Head"])
    assert {name: rule.weight and rule.weight.dtype for name, rule in found.items()} == {
        "words": "int8",
        "block0/up": "int4",
        "block10/up": "int8",
        "head": None,
        "Head": "int8",
    }


def test_layers_without_a_rule_are_left_out():
    assert list(Recipe([Rule("a*", "int8")]).assign(["b", "ab"])) == ["ab"]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([Rule("heed", "int8"), Rule("*", "int8")], "rule 'heed' matches no layer"),
        ([Rule("*", "int8"), Rule("head", None)], "rule 'head' never decides"),
    ],
)
def test_a_rule_that_decides_nothing_is_an_error(rules, message):
    with pytest.raises(qrs.QrsValueError, match=message):
        Recipe(rules).assign(["words", "head"])


@pytest.mark.parametrize("name", Recipe.presets())
def test_presets_decide_for_every_layer_and_survive_json(name):
    recipe = Recipe.preset(name)
    assert set(recipe.assign(encoder().layers)) == set(encoder().layers)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Recipe.preset(name) == recipe


def test_presets_are_what_their_names_say():
    bits = {name: Recipe.preset(name).rules[0] for name in Recipe.presets()}
    for name, rule in bits.items():
        assert rule.weight.format.bits == int(name[1])
        assert (rule.input is None) == ("a16" in name)
        if "-g" in name:
            assert rule.weight.granularity == qrs.per_group(int(name.split("-g")[1]))
            assert rule.weight.scale_dtype == "float16"
            assert not rule.weight.symmetric
    assert isinstance(bits["w8a8-static"].input, qrs.Static)


def test_unknown_preset_lists_the_known():
    with pytest.raises(qrs.QrsValueError, match=r"did you mean 'w8a8-dynamic'.*w4a8-g32"):
        Recipe.preset("w8a8-dinamic")


RULES = [
    Rule("head", None),
    Rule("a", G32, TOKEN),
    Rule("b*", "int8", qrs.Static("uint8", observer=MovingAverage(momentum=0.5))),
    Rule("c", "int8", qrs.Static("uint8")),
    Rule("d", "int8", qrs.Static("int8", qparams=qrs.QParams(0.1, 0))),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.pattern)
def test_rules_survive_json(rule):
    again = Rule.from_dict(json.loads(json.dumps(rule.to_dict())))
    assert again == rule
    assert again.to_dict() == rule.to_dict()


def test_a_plain_name_is_a_scheme():
    assert Rule("*", "int8").weight == qrs.Scheme("int8")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Rule("", "int8"),
        lambda: Rule(3, "int8"),
        lambda: Rule("*", 8),
        lambda: Rule("*", "int8", "int8"),
        lambda: Recipe(["*"]),
        lambda: Rule("*", "int8", qrs.Static("int8", observer=TOKEN)),
    ],
)
def test_wrong_types_are_refused(make):
    with pytest.raises(TypeError):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rule("*", None, TOKEN), "quantizes the input but not the weight"),
        (lambda: Rule("*", "int9"), "unknown dtype 'int9'"),
        (lambda: Recipe([]), "at least one rule"),
        (lambda: Recipe([Rule("*", "int8")], steps=["gptq"]), "no algorithms"),
    ],
)
def test_wrong_values_are_refused(make, message):
    with pytest.raises(qrs.QrsValueError, match=message):
        make()


def broken(change):
    data = Recipe([Rule("*", G32, qrs.Static("uint8", observer=MinMax()))]).to_dict()
    change(data, data["rules"][0])
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "fields list"),
        ("{", "not JSON"),
        ("\ud800", "not JSON"),
        ('{"a":1,"a":2}', "duplicate name 'a'"),
        ('{"version":NaN}', "NaN is not a number"),
        ('{"version":1e400}', "not a finite number"),
        ("[" * 200_000, "nested too deeply"),
        (broken(lambda d, r: d.update(version=2)), "version 2, supported 1"),
        (broken(lambda d, r: d.update(extra=0)), "extra"),
        (broken(lambda d, r: d.pop("steps")), "expected"),
        (broken(lambda d, r: d.update(steps=[1])), "steps"),
        (broken(lambda d, r: d.update(rules=[])), "at least one rule"),
        (broken(lambda d, r: d.update(rules={})), "must be a list"),
        (broken(lambda d, r: d.update(rules=[3])), "rule: fields int"),
        (broken(lambda d, r: r.update(pattern=3)), "pattern is 3"),
        (broken(lambda d, r: r.update(weight="int8")), "scheme is 'int8'"),
        (broken(lambda d, r: r["weight"].update(dtype="int9")), "int9"),
        (broken(lambda d, r: r["weight"].update(colour="red")), "colour"),
        (broken(lambda d, r: r["input"].update(kind="statik")), "statik"),
        (broken(lambda d, r: r["input"].update(kind="dynamic")), "takes no observer"),
        (broken(lambda d, r: r["input"].update(scale=0.0, zero_point=0)), "scale is 0.0"),
        (broken(lambda d, r: r["input"].update(scale=1.0)), "unexpected fields"),
        (broken(lambda d, r: r["input"]["observer"].update(id="minmin")), "minmin"),
        (broken(lambda d, r: r["input"]["observer"].update(id=[])), r"unknown observer \[\]"),
        (broken(lambda d, r: r["input"]["observer"].update(settings={"axes": 1})), "axes"),
        (broken(lambda d, r: r["input"]["observer"].update(settings=3)), "settings of observer 'minmax'"),
    ],
)
def test_damaged_json_is_a_format_error_that_names_the_field(text, message):
    with pytest.raises(qrs.FormatError, match=message):
        Recipe.from_json(text)
