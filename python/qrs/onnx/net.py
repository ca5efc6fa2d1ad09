"""Nodes of a model while chains of them are replaced: who writes a value, who reads it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from ..model import Node
from ..nn.base import Layer
from ..nn.function import Function

__all__ = ["Net", "constant_of", "is_second", "number_of", "op_of"]


class Net:
    """Nodes by the value they write, and who reads it."""

    def __init__(self, nodes: Sequence[Node], outputs: Sequence[str]) -> None:
        self.nodes = {node.output: node for node in nodes}
        self.readers: dict[str, list[Node]] = {}
        self.outputs = set(outputs)
        for node in nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)

    def read(self) -> list[Node]:
        """Give the nodes whose values somebody reads, in order: what replaced a chain stands at its end."""
        needed, found = set(self.outputs), []
        for node in reversed(self.nodes.values()):
            if node.output in needed:
                needed.update(node.inputs)
                found.append(node)
        return found[::-1]

    def redirect(self, node: Node, value: str, former: Node) -> None:
        """Let a node, which took the place of a former one, read another value alone."""
        self.nodes[node.output] = replace(node, inputs=[value])
        for name in former.inputs:
            self.readers[name] = [r for r in self.readers[name] if r is not former]
        self.readers.setdefault(value, []).append(self.nodes[node.output])

    def reader(self, value: str) -> Node | None:
        """Find the one node that reads a value, if there is but one."""
        found = self.readers.get(value, [])
        return found[0] if len(found) == 1 and value not in self.outputs else None

    def function(self, value: str, *ops: str) -> Node | None:
        """Find the node that writes a value, if it is a function of these operators."""
        node = self.nodes.get(value)
        return node if node is not None and op_of(node) in ops else None

    def next(self, value: str, *ops: str) -> Node | None:
        """Find the one node that reads a value, if it is a function of these operators."""
        node = self.reader(value)
        return node if node is not None and op_of(node) in ops else None

    def put(self, layer: Layer, inputs: Sequence[str], name: str, gone: Sequence[Node]) -> Node:
        """Write what the last of these nodes wrote with a layer; nodes that nobody reads then go."""
        target = gone[-1]
        for node in gone:
            for value in node.inputs:
                self.readers[value] = [r for r in self.readers[value] if r is not node]
        node = Node(name, layer, inputs, target.output)
        self.nodes[target.output] = node
        for value in inputs:
            self.readers.setdefault(value, []).append(node)
        for old in gone[:-1]:
            self.nodes.pop(old.output, None)
        return node


def op_of(node: Node) -> str:
    """Name the operator of a `Function`; any other layer has none."""
    return node.layer.op if isinstance(node.layer, Function) else ""


def constant_of(node: Node | None) -> NDArray[Any] | None:
    """Give the constant of a function of two inputs, one of which changes."""
    layer = None if node is None else node.layer
    if not isinstance(layer, Function) or len(layer.constants) != 1 or node is None or len(node.inputs) != 1:
        return None
    (value,) = layer.constants.values()
    return value


def number_of(node: Node | None) -> float:
    """Give the constant of a function as a number; NaN where it is none."""
    value = constant_of(node)
    return float(value.reshape(())) if value is not None and value.size == 1 and value.ndim < 2 else math.nan


def is_second(node: Node) -> bool:
    """Say whether the constant stands behind what changes."""
    return isinstance(node.layer, Function) and 1 in node.layer.constants
