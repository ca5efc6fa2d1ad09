"""From a file to a checked graph. Nothing in it is used before it was checked, and nothing is executed."""

from __future__ import annotations

import graphlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from .. import container
from ..errors import FormatError, quote
from .base import Graph, Operation, package
from .tensors import array_of, dtype_name

__all__ = ["read"]

_OLDEST = 11
_LARGEST = (1 << 31) - 1
_STANDARD = ("", "ai.onnx", "ai.onnx.ml")
# The operator that ONNX Runtime has for weights of few bits: files that hold them use it.
_FOREIGN = {("com.microsoft", "MatMulNBits")}


def read(source: Any) -> Graph:
    """Read a model.

    Parameters
    ----------
    source : str, bytes, os.PathLike or onnx.ModelProto
        A path, or a model in memory.

    Returns
    -------
    Graph

    Raises
    ------
    FormatError
        When it is no valid ONNX model; the message names the node or the field.
    OSError
        When the file cannot be opened.
    """
    onnx = package()
    folder = None
    if isinstance(source, onnx.ModelProto):
        model, where = source, "model"
    else:
        where = container.file_name(source)
        folder = os.path.dirname(os.path.abspath(where))
        model = _parsed(where)
    try:
        return replace(_graph(model, folder), source=where)
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from error


def _parsed(name: str) -> Any:
    size, kind = os.stat(name).st_size, os.stat(name).st_mode
    if not stat.S_ISREG(kind):
        raise FormatError(f"{name}: not a plain file, expected an ONNX model")
    if size > _LARGEST:
        raise FormatError(
            f"{name}: {size} bytes, a model holds at most {_LARGEST}; save its tensors as external data"
        )
    with open(name, "rb") as file:
        data = file.read()
    model = package().ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:
        raise FormatError(f"{name}: truncated, or not an ONNX model: {error}") from error
    return model


def _graph(model: Any, folder: str | None) -> Graph:
    if not model.HasField("graph") or not model.graph.output:
        raise FormatError("field graph is missing or has no outputs: not an ONNX model")
    opsets = _opsets(model)
    graph = _inlined(model).graph
    if graph.sparse_initializer:
        name = graph.sparse_initializer[0].values.name
        raise FormatError(f"initializer {quote(name)} is sparse; save the model with dense ones")
    _check_text([tensor.name for tensor in graph.initializer], "an initializer")
    _check_text([value.name for value in [*graph.input, *graph.output]], "an input or output")
    constants: dict[str, NDArray[Any]] = {}
    for tensor in graph.initializer:
        if not tensor.name or tensor.name in constants:
            raise FormatError(f"initializer {quote(tensor.name)} has no name, or one that occurs twice")
        constants[tensor.name] = array_of(tensor, folder, f"initializer {quote(tensor.name)}")
    operations = [_operation(node, folder, opsets) for node in graph.node]
    inputs = [value.name for value in graph.input if value.name not in constants]
    outputs = {value.name: _declared(value, f"output {quote(value.name)}") for value in graph.output}
    _check_values(operations, [*inputs, *constants], list(outputs))
    kinds = {_declared(value, f"input {quote(value.name)}") for value in graph.input}
    kinds |= {str(array.dtype) for array in constants.values()}
    casts = [o.attributes.get("to") for o in operations]
    is_double = "float64" in kinds or package().TensorProto.DOUBLE in casts
    return Graph(_in_order(operations), constants, inputs, outputs, opsets, is_double)


def _opsets(model: Any) -> dict[str, int]:
    opsets = {}
    for entry in model.opset_import:
        opsets["" if entry.domain == "ai.onnx" else entry.domain] = entry.version
    newest = package("onnx.defs").onnx_opset_version()
    if not _OLDEST <= opsets.get("", 0) <= newest:
        came = f"is {opsets['']}" if "" in opsets else "is missing"
        raise FormatError(
            f"field opset_import: version of the standard operators {came}, expected {_OLDEST} to {newest}; "
            f"onnx.version_converter raises older ones, a newer onnx package knows newer ones"
        )
    return opsets


def _inlined(model: Any) -> Any:
    """Write the bodies of a model's own functions where they are called."""
    if not model.functions:
        return model
    calls = {}
    for function in model.functions:
        key = (function.domain, function.name)
        calls[key] = [(node.domain, node.op_type) for node in function.node]
    try:
        graphlib.TopologicalSorter(calls).prepare()
    except graphlib.CycleError as error:
        raise FormatError(f"field functions: {quote(error.args[1][0][1])} calls itself") from None
    return package("onnx.inliner").inline_local_functions(model)


def _operation(node: Any, folder: str | None, opsets: Mapping[str, int]) -> Operation:
    _check_text([node.name, node.op_type, node.domain, *node.input, *node.output], "a node")
    _check_text([attribute.name for attribute in node.attribute], "an attribute")
    first = next((name for name in node.output if name), "")
    name = node.name or first
    what = f"node {quote(name)} ({node.op_type})"
    if node.domain not in _STANDARD and (node.domain, node.op_type) not in _FOREIGN:
        raise FormatError(
            f"{what}: domain {quote(node.domain)} is not standard ONNX; "
            f"export the model without operators of one runtime"
        )
    if not first:
        raise FormatError(f"{what} has no outputs")
    attributes = {}
    for attribute in node.attribute:
        attributes[attribute.name] = _value(attribute, folder, f"attribute {quote(attribute.name)} of {what}")
    if node.op_type != "Constant" and node.domain in _STANDARD:
        _check_node(node, opsets, what)
    return Operation(node.op_type, name, list(node.input), list(node.output), attributes, node)


def _check_node(node: Any, opsets: Mapping[str, int], what: str) -> None:
    """Let the package compare a node with the schema of its operator: attributes and numbers of inputs."""
    if any(a.HasField("g") or a.graphs for a in node.attribute):
        return
    checker = package("onnx.checker")
    context = checker.C.CheckerContext()
    context.ir_version = package().IR_VERSION
    context.opset_imports = dict(opsets)
    try:
        checker.check_node(node, context)
    except (checker.ValidationError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split("==> Context:")[0].split())
        raise FormatError(f"{what}: {quote(text)}") from None


def _check_text(names: Sequence[Any], what: str) -> None:
    """Refuse names that are no UTF-8: protobuf hands those out as bytes."""
    for name in names:
        if not isinstance(name, str):
            raise FormatError(f"{what} has a name that is no UTF-8 text: {quote(name)}")


def _value(attribute: Any, folder: str | None, what: str) -> Any:
    """Turn an attribute into a number, string, array or list; inner graphs stay in the node itself."""
    kind = attribute.type
    kinds = package().AttributeProto
    if attribute.ref_attr_name:
        raise FormatError(f"{what} refers to an attribute of a function, and stands in none")
    if kind == kinds.TENSOR:
        return array_of(attribute.t, folder, what)
    if kind == kinds.STRING:
        return attribute.s.decode("utf-8", "replace")
    if kind == kinds.STRINGS:
        return [text.decode("utf-8", "replace") for text in attribute.strings]
    plain = {kinds.INT: "i", kinds.FLOAT: "f", kinds.INTS: "ints", kinds.FLOATS: "floats"}
    if kind in plain:
        value = getattr(attribute, plain[kind])
        return list(value) if kind in (kinds.INTS, kinds.FLOATS) else value
    return None


def _declared(value: Any, what: str) -> str:
    """Name the dtype of a graph's input or output; a value that is no tensor has none."""
    if not value.name:
        raise FormatError(f"{what} of the graph has no name")
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.elem_type:
        return ""
    return dtype_name(value.type.tensor_type.elem_type, what)


def _check_values(operations: Sequence[Operation], known: Sequence[str], outputs: Sequence[str]) -> None:
    written = set(known)
    if len(written) != len(known):
        twice = next(name for name in known if list(known).count(name) > 1)
        raise FormatError(f"input {quote(twice)} is named twice")
    for operation in operations:
        for name in operation.outputs:
            if name in written:
                raise FormatError(f"{operation} writes {quote(name)}, which is written already")
            if name:
                written.add(name)
    for operation in operations:
        for name in operation.reads:
            if name not in written:
                raise FormatError(f"{operation} reads {quote(name)}, which no node writes and is no input")
    for name in outputs:
        if name not in written:
            raise FormatError(f"output {quote(name)} is written by no node")


def _in_order(operations: Sequence[Operation]) -> list[Operation]:
    """Sort operations so that each stands after those it reads from."""
    writer = {name: i for i, o in enumerate(operations) for name in o.outputs if name}
    reads = {i: [writer[name] for name in o.reads if name in writer] for i, o in enumerate(operations)}
    if all(j < i for i, sources in reads.items() for j in sources):
        return list(operations)
    try:
        return [operations[i] for i in graphlib.TopologicalSorter(reads).static_order()]
    except graphlib.CycleError as error:
        cycle = " -> ".join(operations[i].name for i in error.args[1][:10])
        raise FormatError(f"{operations[error.args[1][0]]} lies on a cycle: {cycle}") from None
