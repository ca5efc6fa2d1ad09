"""From operations of ONNX to nodes of a model: the table of lowerings, and what holds for all of them.

A family of operators that has layers of its own enters the table (:func:`lowering`); any other operator
becomes an :class:`~qrs.nn.Function` where there is one of its name, and else an
:class:`~qrs.onnx.fallback.OnnxOperator`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, QrsError
from ..functions import TABLE
from ..model import Node
from ..nn.base import Layer
from ..nn.function import Function
from ..qtensor import QTensor
from .base import Graph, Operation
from .codes import decoded, turned
from .fallback import OnnxOperator
from .tensors import dtype_name

__all__ = ["Builder", "lowering"]

Array: TypeAlias = NDArray[Any]
Lowering: TypeAlias = "Callable[[Operation, Builder], bool]"

LOWERINGS: dict[str, Lowering] = {}
# Elements up to which what is constant is computed while loading: 64 MiB of float32.
_FOLDED = 1 << 24
_RANDOM = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}
# Attributes whose number names an element type.
_DTYPES = {"to", "dtype", "output_dtype", "precision"}
# Attributes that became inputs, and the version from which on they are.
_AXES_SINCE = {"Squeeze": 13, "Unsqueeze": 13, "ReduceSum": 13}
_SINGLE_OUTPUT = {"Dropout", "MaxPool", "BatchNormalization", "LayerNormalization"}


def lowering(*ops: str) -> Callable[[Lowering], Lowering]:
    """Enter a function that lowers operators; it returns False to leave one to the general way.

    Parameters
    ----------
    *ops : str

    Returns
    -------
    callable
        A decorator that gives the function back as it is.
    """

    def enter(lower: Lowering) -> Lowering:
        for op in ops:
            LOWERINGS[op] = lower
        return lower

    return enter


class Builder:
    """Collects the nodes of a model, operation by operation, and computes what is constant on the way.

    Parameters
    ----------
    graph : Graph
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constants = dict(graph.constants)
        self.nodes: list[Node] = []
        self._names: set[str] = set()
        self._decoded: dict[str, QTensor] = {}
        self._turned: dict[str, Array | QTensor] = {}

    def add(self, operation: Operation) -> None:
        """Lower one operation, or compute it where all that it reads is constant.

        Parameters
        ----------
        operation : Operation

        Raises
        ------
        FormatError
            When it cannot be lowered or computed; the message names it.
        """
        if operation.op == "Constant":
            self.constants[operation.outputs[0]] = _constant(operation)
            return
        start = len(self.nodes)
        try:
            lower = LOWERINGS.get(operation.op)
            if lower is None or not lower(operation, self):
                self.general(operation)
            if all(name in self.constants for name in operation.reads) and self._is_small(operation):
                self._fold(start, operation)
        except (QrsError, MemoryError) as error:
            raise FormatError(f"{operation}: {error}") from error

    def node(self, layer: Layer, inputs: Sequence[str], output: str, name: str) -> None:
        """Add a node; its name is made unique.

        Parameters
        ----------
        layer : Layer
        inputs : sequence of str
        output, name : str
        """
        plain = name.strip("/") or output
        unique, number = plain, 1
        while unique in self._names:
            number += 1
            unique = f"{plain}_{number}"
        self._names.add(unique)
        self.nodes.append(Node(unique, layer, inputs, output))

    def function(
        self,
        operation: Operation,
        settings: Mapping[str, Any],
        inputs: Sequence[str | Array] | None = None,
        op: str | None = None,
    ) -> None:
        """Add an operation as a `Function`.

        Parameters
        ----------
        operation : Operation
        settings : mapping of str to JSON value
        inputs : sequence of str or ndarray, optional
            Those of the operation by default.
        op : str, optional
            The operation's own by default.
        """
        read, constants, absent = self._bound(operation.inputs if inputs is None else inputs)
        layer = Function(op or operation.op, settings, constants, absent)
        self._outputs(layer, read, operation)

    def general(self, operation: Operation) -> None:
        """Add an operation in the general way.

        Parameters
        ----------
        operation : Operation
        """
        settings = _settings(operation)
        many = [name for name in operation.outputs[1:] if name]
        single = operation.op in _SINGLE_OUTPUT and many
        if operation.op not in TABLE or settings is None or single or not _takes(operation.op, settings):
            self.fallback(operation)
            return
        inputs: list[str | Array] = list(operation.inputs)
        since = _AXES_SINCE.get(operation.op, 18 if operation.op.startswith("Reduce") else 0)
        if self.graph.opset < since and "axes" in settings:
            inputs.append(np.array(settings.pop("axes"), np.int64))
        if operation.op == "Split" and "split" in settings:
            inputs.append(np.array(settings.pop("split"), np.int64))
        elif operation.op == "Split" and len(operation.inputs) < 2:
            settings["num_outputs"] = len(operation.outputs)
        self.function(operation, settings, inputs)

    def fallback(self, operation: Operation) -> None:
        """Add an operation as it is, for the evaluator of the onnx package.

        Parameters
        ----------
        operation : Operation
        """
        layer = OnnxOperator.of(operation, self.graph.opsets)
        reads = [*operation.inputs, *operation.reads[len([n for n in operation.inputs if n]) :]]
        read, constants, absent = self._bound(reads)
        self._outputs(replace(layer, constants=constants, absent=absent), read, operation)

    def stored(self, name: str) -> Array | QTensor:
        """Give a constant as the file stores it: in codes, where it stores those.

        Parameters
        ----------
        name : str

        Returns
        -------
        ndarray or QTensor
        """
        return self._decoded.get(name, self.constants[name])

    def turned(self, name: str) -> Array | QTensor:
        """Give a constant matrix transposed; each is turned once, however many layers share it.

        Parameters
        ----------
        name : str

        Returns
        -------
        ndarray or QTensor
        """
        if name not in self._turned:
            array = self.stored(name)
            whole = turned(array) if isinstance(array, QTensor) else np.ascontiguousarray(array.T)
            self._turned[name] = whole
        return self._turned[name]

    def weight(self, name: str, ndim: int) -> Array | None:
        """Give a constant that can be a layer's weight: floats of at most 32 bits, of so many axes.

        Parameters
        ----------
        name : str
        ndim : int

        Returns
        -------
        ndarray or None
        """
        array = self.constants.get(name)
        if array is None or array.ndim != ndim or not array.size:
            return None
        return array if array.dtype.name in ("float32", "float16", "bfloat16") else None

    def _bound(self, inputs: Sequence[str | Array]) -> tuple[list[str], dict[int, Array], list[int]]:
        """Tell inputs that are read, those that are constant and those that are absent apart."""
        known = {i: self.constants.get(x) if isinstance(x, str) else x for i, x in enumerate(inputs)}
        constants = {i: array for i, array in known.items() if array is not None}
        read = [x for i, x in enumerate(inputs) if isinstance(x, str) and x and i not in constants]
        return read, constants, [i for i, x in enumerate(inputs) if isinstance(x, str) and not x]

    def _outputs(self, layer: Layer, read: Sequence[str], operation: Operation) -> None:
        """Add a node; where it gives a tuple, its parts get nodes of their own."""
        used = [name for name in operation.outputs if name]
        several = len(used) > 1 or operation.op in ("Split", "DynamicQuantizeLinear")
        if not several:
            self.node(layer, read, used[0], operation.name)
            return
        whole = f"{operation.name}.outputs"
        self.node(layer, read, whole, operation.name)
        # The evaluator returns the outputs that have a name, a function returns all.
        names = used if isinstance(layer, OnnxOperator) else operation.outputs
        for i, name in enumerate(names):
            if name:
                self.node(Function("Part", {"index": i}), [whole], name, f"{operation.name}.{i}")

    def _fold(self, start: int, operation: Operation) -> None:
        """Run the nodes just added, which read constants alone, and keep what they give."""
        values: dict[str, Any] = {}
        for node in self.nodes[start:]:
            given = [values.get(name, self.constants.get(name)) for name in node.inputs]
            values[node.output] = node.layer(*given)
        kept = {name: values[name] for name in operation.outputs if name}
        if all(isinstance(value, np.ndarray | np.generic) for value in kept.values()):
            self._names -= {node.name for node in self.nodes[start:]}
            del self.nodes[start:]
            self.constants.update({name: np.asarray(value) for name, value in kept.items()})
            if operation.op == "DequantizeLinear":
                parts = [self.constants.get(name) for name in [*operation.inputs, ""][:3]]
                codes = decoded(operation, *parts)  # type: ignore[arg-type]
                if codes is not None:
                    self._decoded[operation.outputs[0]] = codes

    def _is_small(self, operation: Operation) -> bool:
        """Say whether the result of an operation on constants is known to be of modest size."""
        if operation.op in _RANDOM or any(a.HasField("g") or a.graphs for a in operation.proto.attribute):
            return False
        given = [self.constants[name] for name in operation.inputs if name]
        return _result_size(operation, given) <= _FOLDED


def _result_size(operation: Operation, given: Sequence[Array]) -> float:
    """Bound the number of elements that an operation gives, before it is run."""
    op, sizes = operation.op, [max(x.size, 1) for x in given]
    if op not in TABLE or "pads" in operation.attributes:
        return math.inf
    if op == "Range":
        start, limit, delta = (float(x.reshape(())) for x in given)
        return abs((limit - start) / delta) if delta else math.inf
    if op == "Pad":
        most: int = max((abs(int(n)) for n in given[1].ravel()), default=0)
        return float(math.prod(n + 2 * most for n in given[0].shape))
    if op in ("ConstantOfShape", "Expand", "Tile"):
        return math.prod(max(abs(int(n)), 1) for n in given[-1].ravel()) * (
            1 if len(given) == 1 else sizes[0]
        )
    if op == "OneHot":
        return sizes[0] * abs(float(given[1].reshape(-1)[0]))
    if op in ("MatMul", "Gemm", "Einsum", "Gather", "GatherND"):
        return float(math.prod(sizes))
    try:
        return math.prod(np.broadcast_shapes(*(x.shape for x in given)))
    except ValueError:
        return sum(sizes)


def _settings(operation: Operation) -> dict[str, Any] | None:
    """Give attributes as JSON values, None where one is of a kind that functions do not take."""
    settings: dict[str, Any] = {}
    for name, value in operation.attributes.items():
        if operation.op == "ConstantOfShape":
            settings |= {"value": value.reshape(-1)[0].item(), "dtype": value.dtype.name}
        elif name in _DTYPES:
            settings[name] = dtype_name(value, f"attribute {name!r}")
        elif value is None or isinstance(value, np.ndarray):
            return None
        else:
            settings[name] = value
    plain = settings.get("to", settings.get("dtype", "bool"))
    if operation.op in ("Cast", "EyeLike", "ConstantOfShape") and not _is_plain(plain):
        return None
    if any(isinstance(v, float) and not math.isfinite(v) for v in settings.values()):
        return None
    return settings


def _is_plain(name: str) -> bool:
    """Say whether a dtype is one of NumPy's own numbers: conversions between those have one meaning."""
    try:
        return np.dtype(name).isbuiltin == 1 and np.dtype(name).kind in "biuf"
    except TypeError:
        return False


def _takes(op: str, settings: Mapping[str, Any]) -> bool:
    compute = TABLE[op]
    if isinstance(compute, np.ufunc):
        return not settings
    parameters = inspect.signature(compute).parameters
    return any(p.kind is p.VAR_KEYWORD for p in parameters.values()) or set(settings) <= set(parameters)


def _constant(operation: Operation) -> Array:
    for name, value in operation.attributes.items():
        if name == "value" and isinstance(value, np.ndarray):
            return value
        if name in ("value_int", "value_ints"):
            return np.array(value, np.int64)
        if name in ("value_float", "value_floats"):
            return np.array(value, np.float32)
        if name in ("value_string", "value_strings"):
            return np.array(value, object)
    raise FormatError(f"{operation} has no value that is a dense array")
