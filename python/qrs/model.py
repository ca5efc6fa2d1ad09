"""A model is a graph of named layers.

Nodes read named values and write one; the graph's own inputs are values too. Order of execution follows from
the names, so nodes may be given in any order. A model is immutable: :meth:`Model.with_layers` gives a new one
that shares every layer that was not replaced. Names of inner layers join with ``/``:
``"block0/attention/query"``.
"""

from __future__ import annotations

import graphlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from numpy.typing import ArrayLike, NDArray

from .errors import QrsTypeError, QrsValueError, expect, expect_all, quote
from .nn.base import Layer, call, check_inputs, identity, watching
from .recipe import Recipe

__all__ = ["Model", "Node"]


@dataclass(frozen=True, slots=True)
class Node:
    """One layer in a graph.

    Parameters
    ----------
    name : str
        Name of the layer, unique in the model.
    layer : Layer
    inputs : sequence of str
        Names of the values it reads, in the order of the layer's arguments.
    output : str, optional
        Name of the value it writes; the node's own name by default.

    Raises
    ------
    QrsTypeError
        When a field is of another kind, or the layer takes more or fewer inputs.
    QrsValueError
        When the name is empty.

    Examples
    --------
    >>> import qrs
    >>> qrs.Node("sum", qrs.nn.Add(), ["x", "residual"]).output
    'sum'
    """

    name: str
    layer: Layer
    inputs: Sequence[str]
    output: str = ""

    def __post_init__(self) -> None:
        node = f"node {quote(self.name)}"
        expect(self.name, str, f"name of {node}")
        expect(self.output, str, f"output of {node}")
        expect(self.layer, Layer, f"layer of {node}")
        object.__setattr__(self, "inputs", expect_all(self.inputs, str, f"inputs of {node}"))
        object.__setattr__(self, "output", self.output or self.name)
        if not self.name:
            raise QrsValueError("a node has an empty name")
        check_inputs(self.layer, self.inputs, f"{node}: ")


class Model:
    """A graph of named layers.

    Parameters
    ----------
    nodes : sequence of Node
        In any order.
    inputs, outputs : sequence of str
        Names of the values that a run takes and gives.
    recipe : Recipe, optional
        What made this model, when it was quantized; kept for the file.

    Raises
    ------
    QrsTypeError
        When an argument is of another kind.
    QrsValueError
        When names repeat, a value is read that nobody writes, the graph has a cycle, or an output does not
        exist.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> double = qrs.nn.Linear(2 * np.eye(2, dtype=np.float32))
    >>> model = qrs.Model([qrs.Node("double", double, ["x"], "y")], ["x"], ["y"])
    >>> model.run({"x": np.float32([[1, 2]])})
    {'y': array([[2., 4.]], dtype=float32)}
    """

    __slots__ = ("_last", "_layers", "inputs", "nodes", "outputs", "recipe")

    def __init__(
        self,
        nodes: Sequence[Node],
        inputs: Sequence[str],
        outputs: Sequence[str],
        recipe: Recipe | None = None,
    ) -> None:
        nodes = expect_all(nodes, Node, "nodes")
        self.inputs: tuple[str, ...] = expect_all(inputs, str, "inputs")
        self.outputs: tuple[str, ...] = expect_all(outputs, str, "outputs")
        if recipe is not None:
            expect(recipe, Recipe, "recipe", "; Recipe.preset(name) makes one")
        self.recipe = recipe
        _check_names(nodes, self.inputs, self.outputs)
        self.nodes: tuple[Node, ...] = _in_order(nodes, self.inputs)
        self._layers: Mapping[str, Layer] = MappingProxyType(_by_name(self.nodes))
        # The node after which a value is not needed: its memory is given back there.
        self._last = {name: i for i, node in enumerate(self.nodes) for name in node.inputs}

    @classmethod
    def chain(cls, layers: Mapping[str, Layer], input: str = "x", output: str = "y") -> Model:
        """Build a model in which each layer reads what the one before wrote.

        Parameters
        ----------
        layers : mapping of str to Layer
            By name, in the order in which to apply them.
        input, output : str, default "x" and "y"
            Names of the value that the first layer reads and of the one that the last writes.

        Returns
        -------
        Model

        Raises
        ------
        QrsTypeError
            When an argument is of another kind, or a layer takes more than one input.
        QrsValueError
            When there is no layer, or a name repeats.

        Examples
        --------
        >>> import numpy as np, qrs
        >>> model = qrs.Model.chain({"norm": qrs.nn.Normalize(), "relu": qrs.nn.Activation("relu")})
        >>> model.run({"x": np.float32([[3, -4]])})["y"]
        array([[0.6, 0. ]], dtype=float32)
        """
        expect(layers, Mapping, "layers", " of names to layers")
        if not layers:
            raise QrsValueError("a chain needs at least one layer")
        names = list(layers)
        values = [input, *names[:-1], output]
        nodes = [Node(name, layers[name], [values[i]], values[i + 1]) for i, name in enumerate(names)]
        return cls(nodes, [input], [output])

    def __reduce__(self) -> tuple[Any, ...]:
        return Model, (self.nodes, self.inputs, self.outputs, self.recipe)

    @property
    def layers(self) -> Mapping[str, Layer]:
        """All layers by name, in order of execution; inner layers follow the layer that holds them."""
        return self._layers

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; an array that several layers share counts once."""
        arrays = {identity(a): a.nbytes for layer in self._layers.values() for a in layer.arrays().values()}
        return sum(arrays.values())

    def run(
        self,
        inputs: Mapping[str, ArrayLike],
        watch: Callable[[str, tuple[NDArray[Any], ...]], None] | None = None,
        after: Callable[[str, Any], None] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Compute the outputs.

        Parameters
        ----------
        inputs : mapping of str to array_like
            Exactly the names in ``model.inputs``.
        watch : callable, optional
            Called as ``watch(name, inputs)`` before each layer, inner layers included. It must not change the
            arrays.
        after : callable, optional
            Called as ``after(name, output)`` after each layer, inner layers included and earlier than the one
            that holds them. The same holds for it.

        Returns
        -------
        dict of str to ndarray
            The names in ``model.outputs``.

        Raises
        ------
        QrsValueError
            When inputs are missing or unknown (all are listed), or a layer refuses its inputs (it is named).

        Examples
        --------
        >>> import numpy as np, qrs
        >>> model = qrs.Model.chain({"act": qrs.nn.Activation("relu")})
        >>> model.run({"x": np.float32([1, -2])}, watch=lambda name, inputs: print(name, inputs[0].shape))
        act (2,)
        {'y': array([1., 0.], dtype=float32)}
        """
        expect(inputs, Mapping, "inputs", " of names to arrays")
        for name, called in (("watch", watch), ("after", after)):
            if called is not None and not callable(called):
                raise QrsTypeError(f"{name} is {quote(called)}, expected a callable or None")
        missing = [name for name in self.inputs if name not in inputs]
        unknown = [name for name in inputs if name not in self.inputs]
        if missing or unknown:
            came = f"missing {quote(missing)}, unknown {quote(unknown)}"
            raise QrsValueError(f"inputs: {came}, expected {quote(list(self.inputs))}")
        values: dict[str, Any] = dict(inputs)
        with nullcontext() if watch is None and after is None else watching(watch, after):
            for i, node in enumerate(self.nodes):
                values[node.output] = call(node.name, node.layer, *(values[name] for name in node.inputs))
                for name in node.inputs:
                    if self._last[name] == i and name not in self.outputs:
                        values.pop(name, None)
        return {name: values[name] for name in self.outputs}

    def with_layers(self, layers: Mapping[str, Layer]) -> Model:
        """Return a model in which the named layers are replaced; inner layers may be named too.

        Parameters
        ----------
        layers : mapping of str to Layer
            Names of ``model.layers``, and what is to stand there.

        Returns
        -------
        Model
            Shares every other layer.

        Raises
        ------
        QrsTypeError
            When it is no mapping to layers, or a layer takes other inputs than the one it replaces.
        QrsValueError
            When a name is not in ``model.layers``, or an outer and an inner layer of it are replaced
            together.

        Examples
        --------
        >>> import qrs
        >>> model = qrs.Model.chain({"act": qrs.nn.Activation("relu")})
        >>> model.with_layers({"act": qrs.nn.Activation("tanh")}).layers["act"]
        Activation(name='tanh')
        """
        expect(layers, Mapping, "layers", " of names to layers")
        unknown = [name for name in layers if name not in self._layers]
        if unknown:
            raise QrsValueError(
                f"no layers named {quote(unknown)}; the model has {quote(list(self._layers))}"
            )
        for name, layer in layers.items():
            expect(layer, Layer, f"layer {quote(name)}")
            outer = [other for other in layers if name.startswith(f"{other}/")]
            # A node may be called "a/b" beside a node "a" that holds nothing.
            if outer and all(name != node.name for node in self.nodes):
                raise QrsValueError(
                    f"layer {quote(name)} lies inside {quote(outer[0])}, which is replaced as well"
                )
        nodes = [replace(node, layer=_rebuilt(node.name, node.layer, layers)) for node in self.nodes]
        return Model(nodes, self.inputs, self.outputs, self.recipe)

    def with_recipe(self, recipe: Recipe | None) -> Model:
        """Return the same model with another recipe attached.

        Parameters
        ----------
        recipe : Recipe or None
            What the file will say made the model; it changes no layer.

        Returns
        -------
        Model

        Examples
        --------
        >>> import qrs
        >>> model = qrs.Model.chain({"act": qrs.nn.Activation("relu")})
        >>> model.with_recipe(qrs.Recipe.preset("w8a16")).recipe.rules[0].weight
        Scheme('int8', per_channel(0))
        """
        return Model(self.nodes, self.inputs, self.outputs, recipe)

    def save(self, path: str | bytes | os.PathLike[Any]) -> None:
        """Write the model to one file; see :func:`qrs.load`.

        The file appears complete or not at all: a former file at ``path`` stays until the new one is on the
        disk.

        Parameters
        ----------
        path : str, bytes or os.PathLike

        Raises
        ------
        QrsValueError
            When a layer's class has no id, or JSON cannot hold its attributes.
        OSError
            When the file cannot be written.

        Examples
        --------
        >>> import os, tempfile, qrs
        >>> model = qrs.Model.chain({"act": qrs.nn.Activation("relu")})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(os.path.join(folder, "model.qrs"))
        ...     os.listdir(folder)
        ['model.qrs']
        """
        from .io import save

        save(self, path)

    def __repr__(self) -> str:
        lines = [f"  {n.output} = {n.name}: {n.layer!r} of ({', '.join(n.inputs)})" for n in self.nodes]
        return "\n".join([f"Model({', '.join(self.inputs)}) -> {', '.join(self.outputs)}", *lines])


def _check_names(nodes: Sequence[Node], inputs: Sequence[str], outputs: Sequence[str]) -> None:
    names, written = set(), set()
    for name in inputs:
        if name in written:
            raise QrsValueError(f"input {quote(name)} is named twice")
        written.add(name)
    for node in nodes:
        if node.name in names:
            raise QrsValueError(f"two nodes are named {quote(node.name)}")
        if node.output in written:
            raise QrsValueError(
                f"node {quote(node.name)} writes {quote(node.output)}, which is written already"
            )
        names.add(node.name)
        written.add(node.output)
    for node in nodes:
        dangling = [name for name in node.inputs if name not in written]
        if dangling:
            raise QrsValueError(
                f"node {quote(node.name)} reads {quote(dangling)}, which no node writes and is no input"
            )
    absent = [name for name in outputs if name not in written]
    if absent or not outputs:
        raise QrsValueError(
            f"outputs {quote(absent)} are written by no node" if absent else "a model needs an output"
        )


def _in_order(nodes: Sequence[Node], inputs: Sequence[str]) -> tuple[Node, ...]:
    """Sort nodes so that each stands after those it reads from; an order that does is kept."""
    known = set(inputs)
    for node in nodes:
        if not known.issuperset(node.inputs):
            break
        known.add(node.output)
    else:
        return tuple(nodes)
    writer = {node.output: node for node in nodes}
    reads = {node.output: [name for name in node.inputs if name in writer] for node in nodes}
    try:
        return tuple(writer[name] for name in graphlib.TopologicalSorter(reads).static_order())
    except graphlib.CycleError as error:
        cycle = " -> ".join(writer[name].name for name in error.args[1])
        raise QrsValueError(f"the graph has a cycle: {cycle}") from None


def _by_name(nodes: Sequence[Node]) -> dict[str, Layer]:
    found: dict[str, Layer] = {}

    def enter(path: str, layer: Layer) -> None:
        if path in found:
            raise QrsValueError(f"two layers are named {quote(path)}; rename the node")
        found[path] = layer
        for name, inner in layer.layers().items():
            enter(f"{path}/{name}", inner)

    for node in nodes:
        enter(node.name, node.layer)
    return found


def _rebuilt(path: str, layer: Layer, new: Mapping[str, Layer]) -> Layer:
    if path in new:
        return new[path]
    if not any(name.startswith(f"{path}/") for name in new):
        return layer
    inner = {name: _rebuilt(f"{path}/{name}", part, new) for name, part in layer.layers().items()}
    return layer.replace(**inner)
