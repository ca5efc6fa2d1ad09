"""ONNX files as models: read, run, quantize.

The ``onnx`` package is loaded when a file is, not before: ``pip install 'qrs[onnx]'``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import container
from ..errors import FormatError, QrsError, QrsValueError, expect, quote
from ..model import Model, Node
from ..nn.function import Function
from . import layers, products  # noqa: F401 - they enter the tables of what is written and read
from .base import Graph
from .fallback import OnnxOperator
from .fuse import fused
from .lowering import Builder
from .reader import read
from .writer import Writer

__all__ = ["OnnxOperator", "load", "save"]

_LARGEST = (1 << 31) - 1


def load(source: Any) -> Model:
    """Read an ONNX model.

    Matrix products, convolutions, tables, layer normalisation and softmax become layers of `qrs.nn`, with
    bias, batch normalisation and activation folded in; a recipe quantizes them by the names of their nodes.
    Other operators are computed by NumPy (`qrs.nn.Function`), and those that qrs does not know by the
    evaluator of the onnx package (`OnnxOperator`), which a report says. What depends on constants alone is
    computed here, once.

    Parameters
    ----------
    source : str, bytes, os.PathLike or onnx.ModelProto
        A path, or a model in memory. Operator sets 11 and up; external data is mapped into memory.

    Returns
    -------
    Model
        Its inputs and outputs have the names they have in the file. Products compute in float32, also those
        of narrower floats.

    Raises
    ------
    QrsError
        When the onnx package is not installed.
    FormatError
        When the file is damaged or holds what is no standard ONNX; the message names the node or the field.
    OSError
        When the file cannot be opened.

    Examples
    --------
    >>> import numpy as np, onnx, qrs
    >>> text = 'g (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {1, 0, 0, 2}> { y = MatMul(x, w) }'
    >>> model = qrs.onnx.load(onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 17]>' + text))
    >>> model.run({"x": np.float32([[3, 4]])})["y"], model.layers
    (array([[3., 8.]], dtype=float32), mappingproxy({'y': Linear(weight=float32[2, 2])}))
    """
    graph = read(source)
    try:
        return _built(graph)
    except QrsError as error:
        raise FormatError(f"{graph.source}: {error}") from error


def _built(graph: Graph) -> Model:
    builder, outputs = Builder(graph), list(graph.outputs)
    for operation in graph.operations:
        builder.add(operation)
    for output in outputs:
        if output in builder.constants:
            constant = Function("Identity", constants={0: builder.constants[output]})
            builder.node(constant, [], output, f"{output}.constant")
    nodes = _narrowed(builder.nodes, graph.outputs)
    return Model(fused(nodes, outputs, graph.is_double), graph.inputs, outputs)


def save(model: Model, path: container.Path, example: Mapping[str, ArrayLike] | None = None) -> None:
    """Write a model as an ONNX file that any runtime reads, by standard operators alone.

    A quantized weight is stored as its codes before a ``DequantizeLinear``, a quantized input goes through
    ``QuantizeLinear`` (or ``DynamicQuantizeLinear``) and ``DequantizeLinear``; a runtime may fuse them into
    products of integers, and `load` does. The file has version 18 of the operators, or the lowest above it
    that its codes need.

    Parameters
    ----------
    model : Model
        Of layers that ONNX can express: those that `load` gives, quantized to integers, per tensor, channel
        or group, with static inputs or dynamic ones per tensor.
    path : str, bytes or os.PathLike
        Appears complete or not at all.
    example : mapping of str to array_like, optional
        Inputs as `Model.run` takes them; the file declares their dtypes and numbers of axes. Without it, an
        input that an `Embedding` reads is int64 and any other float32, of any shape.

    Raises
    ------
    QrsError
        When the onnx package is not installed.
    QrsValueError
        When a layer cannot be written (it is named), or the file would have more than 2 GiB.
    OSError
        When the file cannot be written; a former file stays as it was.

    Examples
    --------
    >>> import os, tempfile, numpy as np, qrs
    >>> model = qrs.Model.chain({"head": qrs.nn.Linear(np.eye(2, dtype=np.float32))})
    >>> small, _ = qrs.quantize_model(model, qrs.Recipe.preset("w8a16"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     qrs.onnx.save(small, os.path.join(folder, "small.onnx"))
    ...     qrs.onnx.load(os.path.join(folder, "small.onnx")).run({"x": np.float32([[3, 4]])})
    {'y': array([[3., 4.]], dtype=float32)}
    """
    expect(model, Model, "model")
    given = {name: np.asarray(value) for name, value in (example or {}).items()}
    unknown = [name for name in given if name not in model.inputs]
    if unknown:
        raise QrsValueError(f"example names {quote(unknown)}, the model takes {quote(list(model.inputs))}")
    writer = Writer(model)
    for node in model.nodes:
        writer.add(node)
    if sum(tensor.ByteSize() for tensor in writer.tensors) > _LARGEST:
        raise QrsValueError(f"the weights take more than the {_LARGEST} bytes that an ONNX file holds")
    data = writer.proto(given).SerializeToString()
    container.replace_file(container.file_name(path), lambda file: file.write(data))


def _narrowed(nodes: Sequence[Node], outputs: Mapping[str, str]) -> list[Node]:
    """Give out the narrow floats that the file declares: layers of qrs compute in float32."""
    narrow = {name: dtype for name, dtype in outputs.items() if dtype in ("float16", "bfloat16")}
    wide = {n.output: f"{n.output}.float32" for n in nodes if n.output in narrow}
    renamed = [
        replace(n, inputs=[wide.get(i, i) for i in n.inputs], output=wide.get(n.output, n.output))
        for n in nodes
    ]
    casts = [
        Node(f"{name}.{narrow[name]}", Function("Cast", {"to": narrow[name]}), [value], name)
        for name, value in wide.items()
    ]
    return [*renamed, *casts]
