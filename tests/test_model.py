"""Models: the graph runs in the right order, refuses what is not a graph, and changes by copy alone."""

import gc
import weakref

import numpy as np
import pytest
import qrs
from models import array, batch, encoder, linear, mlp
from qrs import Node, nn


def add(name, inputs, output=""):
    return Node(name, nn.Add(), inputs, output)


def test_a_chain_applies_layers_in_turn():
    model, x = mlp(), array(5, 4)
    y = model.run({"x": x})
    assert list(y) == ["y"]
    first, second = model.layers["first"], model.layers["second"]
    np.testing.assert_array_equal(y["y"], second(first(x)))


@pytest.mark.parametrize("seed", range(4))
def test_order_of_nodes_does_not_matter(seed):
    model = encoder()
    nodes = list(model.nodes)
    np.random.default_rng(seed).shuffle(nodes)
    shuffled = qrs.Model(nodes, model.inputs, model.outputs)
    np.testing.assert_array_equal(shuffled.run(batch())["y"], model.run(batch())["y"])


def test_layers_are_named_through_composites():
    names = list(encoder().layers)
    at = names.index("block/attention")
    inner = [f"block/attention/{part}" for part in ("query", "key", "value", "output")]
    assert names[at : at + 5] == ["block/attention", *inner]


def test_batches_may_change_size():
    model, whole = encoder(), batch()
    y = model.run(whole)["y"]
    for i in range(3):
        one = {key: value[i : i + 1] for key, value in whole.items()}
        np.testing.assert_allclose(model.run(one)["y"][0], y[i], atol=1e-6)
    assert model.run({key: value[:0] for key, value in whole.items()})["y"].shape == (0, 8)


def test_a_value_may_be_read_often_and_be_an_output_too():
    model = qrs.Model([add("a", ["x", "x"]), add("b", ["a", "x"])], ["x"], ["a", "b", "x"])
    y = model.run({"x": np.float32([1, 2])})
    assert {name: value.tolist() for name, value in y.items()} == {"a": [2, 4], "b": [3, 6], "x": [1, 2]}


def test_a_value_is_dropped_after_its_last_reader():
    class Spy(nn.Layer):
        def forward(self, x):
            gc.collect()
            alive.append(held() is not None)
            return x

    alive = []

    class Make(nn.Layer):
        def forward(self, x):
            nonlocal held
            value = x + 1
            held = weakref.ref(value)
            return value

    held = None
    nodes = [
        Node("make", Make(), ["x"]),
        Node("read", nn.Activation("relu"), ["make"]),
        Node("spy", Spy(), ["read"]),
    ]
    qrs.Model(nodes, ["x"], ["spy"]).run({"x": np.float32([1])})
    assert alive == [False]


GRAPHS = {
    "the graph has a cycle: ": lambda: qrs.Model([add("a", ["x", "b"]), add("b", ["a", "x"])], ["x"], ["b"]),
    "cycle: a -> a": lambda: qrs.Model([add("a", ["a", "x"])], ["x"], ["a"]),
    "node 'a' reads ['z']": lambda: qrs.Model([add("a", ["x", "z"])], ["x"], ["a"]),
    "outputs ['q'] are written by no node": lambda: qrs.Model([add("a", ["x", "x"])], ["x"], ["q"]),
    "needs an output": lambda: qrs.Model([add("a", ["x", "x"])], ["x"], []),
    "two nodes are named 'a'": lambda: qrs.Model(
        [add("a", ["x", "x"]), add("a", ["x", "x"], "b")], ["x"], ["b"]
    ),
    "writes 'x', which is written already": lambda: qrs.Model([add("a", ["x", "x"], "x")], ["x"], ["x"]),
    "input 'x' is named twice": lambda: qrs.Model([add("a", ["x", "x"])], ["x", "x"], ["a"]),
    "an empty name": lambda: add("", ["x", "x"]),
    "two layers are named 'block/attention/query'": lambda: qrs.Model(
        [*encoder().nodes, add("block/attention/query", ["y", "y"])], ["ids", "mask"], ["y"]
    ),
    "at least one layer": lambda: qrs.Model.chain({}),
}


@pytest.mark.parametrize("message", GRAPHS)
def test_what_is_no_graph_is_refused(message):
    with pytest.raises(qrs.QrsValueError) as caught:
        GRAPHS[message]()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Node("a", 3, ["x"]),
        lambda: Node("a", nn.Add(), "x"),
        lambda: qrs.Model([add("a", ["x", "x"])], "x", ["a"]),
        lambda: qrs.Model([add("a", ["x", "x"])], ["x"], "a"),
    ],
)
def test_a_string_is_no_list_and_a_number_no_layer(make):
    with pytest.raises(qrs.QrsTypeError):
        make()


def test_inputs_missing_and_unknown_are_both_told():
    with pytest.raises(qrs.QrsValueError, match=r"missing \['mask'\], unknown \['masks'\]"):
        encoder().run({"ids": batch()["ids"], "masks": batch()["mask"]})


def test_an_error_names_the_layer_once():
    model = encoder()
    with pytest.raises(qrs.QrsValueError) as caught:
        model.run({**batch(), "ids": np.array([[99]])})
    assert str(caught.value).startswith("layer 'words': ids[0]")
    wrong = model.with_layers({"block/attention/output": linear(7, 8)})
    with pytest.raises(qrs.QrsValueError) as caught:
        wrong.run(batch())
    assert str(caught.value).count("layer ") == 1
    inner = model.with_layers({"places": nn.Normalize(), "block/attention": deep()})
    with pytest.raises(qrs.QrsValueError, match="layer 'block/attention/query': x has shape"):
        inner.run(batch())


def deep():
    return nn.MultiHeadAttention(*[linear(9, 9)] * 4, heads=3)


def test_watch_sees_every_layer_in_order():
    model, seen = encoder(), []
    model.run(batch(), watch=lambda name, inputs: seen.append(name))
    assert seen == list(model.layers)


def test_after_sees_every_output_the_inner_ones_first():
    model, seen = encoder(), {}
    y = model.run(batch(), after=lambda name, output: seen.update({name: output}))["y"]
    assert sorted(seen) == sorted(model.layers)
    assert seen["unit"] is y
    names = list(seen)
    assert names.index("block/attention/output") < names.index("block/attention")
    np.testing.assert_array_equal(seen["block/act"], model.layers["block/act"](seen["block/down"]))


def test_a_watcher_may_keep_arrays_and_may_raise():
    kept = {}
    mlp().run({"x": array(5, 4)}, watch=lambda name, inputs: kept.update({name: inputs[0]}))
    np.testing.assert_array_equal(kept["second"], mlp().layers["first"](array(5, 4)))

    def angry(name, inputs):
        raise KeyError(name)

    with pytest.raises(KeyError, match="first"):
        mlp().run({"x": array(5, 4)}, watch=angry)
    mlp().run({"x": array(5, 4)})


def test_with_layers_leaves_the_original_alone():
    model = encoder()
    before = model.run(batch())["y"]
    new = model.with_layers(
        {"block/attention/value": linear(8, 8, seed=7), "block/act": nn.Activation("none")}
    )
    assert not np.array_equal(new.run(batch())["y"], before)
    np.testing.assert_array_equal(model.run(batch())["y"], before)
    assert new.layers["block/attention/query"] is model.layers["block/attention/query"]
    assert new.layers["words"] is model.layers["words"]


def test_with_layers_refuses_unknown_and_nested_names():
    with pytest.raises(qrs.QrsValueError, match="no layers named"):
        encoder().with_layers({"block/atention": nn.Add()})
    both = {"block/attention": deep(), "block/attention/query": linear(8, 8)}
    with pytest.raises(qrs.QrsValueError, match="lies inside"):
        encoder().with_layers(both)


def test_shared_arrays_count_once():
    table = array(8, 8)
    model = qrs.Model.chain({"a": nn.Linear(table), "b": nn.Linear(table)})
    assert model.nbytes == table.nbytes


def test_repr_shows_the_graph():
    text = repr(mlp())
    assert text.splitlines()[0] == "Model(x) -> y"
    assert "first = first: Linear(weight=float32[6, 4], bias=float32[6], activation='relu') of (x)" in text
