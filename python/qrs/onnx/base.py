"""An ONNX graph as plain data: checked operations in order, and the arrays that never change."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ..errors import QrsError, quote

__all__ = ["Graph", "Operation", "package"]


@dataclass(frozen=True)
class Operation:
    """One node of an ONNX graph.

    Parameters
    ----------
    op, name : str
        Its operator, and its own name or, where it has none, that of its first output.
    inputs, outputs : sequence of str
        Names of values; an empty one stands for an optional one that is left out.
    attributes : mapping of str to object
        Numbers, strings, lists of them and arrays.
    proto : onnx.NodeProto
        The node as the file holds it.
    """

    op: str
    name: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: Mapping[str, Any]
    proto: Any

    @property
    def reads(self) -> list[str]:
        """Names of the values it needs, those that its inner graphs take from outside among them."""
        return [name for name in self.inputs if name] + outer_names(self.proto)

    def __str__(self) -> str:
        return f"node {quote(self.name)} ({self.op})"


@dataclass(frozen=True)
class Graph:
    """A checked graph.

    Parameters
    ----------
    operations : sequence of Operation
        Each after those it reads from.
    constants : dict of str to ndarray
        Arrays by the name of their value.
    inputs : sequence of str
    outputs : mapping of str to str
        Name of each output, and of the dtype that is declared for it.
    opsets : mapping of str to int
        Version of each operator set, by domain.
    is_double : bool
        Whether float64 occurs in the file.
    source : str
        What messages call the file.
    """

    operations: Sequence[Operation]
    constants: dict[str, NDArray[Any]]
    inputs: Sequence[str]
    outputs: Mapping[str, str]
    opsets: Mapping[str, int]
    is_double: bool
    source: str = "model"

    @property
    def opset(self) -> int:
        """Version of the standard operator set."""
        return self.opsets[""]


def package(name: str = "onnx") -> Any:
    """Import a module of the ``onnx`` package, which nothing but this folder needs.

    Parameters
    ----------
    name : str, default ``"onnx"``

    Returns
    -------
    module

    Raises
    ------
    QrsError
        When it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise QrsError(f"ONNX files need the onnx package ({error}): pip install 'qrs[onnx]'") from error


def outer_names(proto: Any) -> list[str]:
    """Name the values that the inner graphs of a node take from the graph around it."""
    found: dict[str, None] = {}
    for attribute in proto.attribute:
        inner = [attribute.g] if attribute.HasField("g") else []
        for graph in [*inner, *attribute.graphs]:
            own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
            own |= {name for node in graph.node for name in node.output}
            used = [name for node in graph.node for name in [*node.input, *outer_names(node)]]
            used += [value.name for value in graph.output]
            found.update(dict.fromkeys(name for name in used if name and name not in own))
    return list(found)
