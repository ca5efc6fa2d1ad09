"""ONNX files as models: read, run, quantize.

The ``onnx`` package is loaded when a file is, not before: ``pip install 'qrs[onnx]'``.
"""

from __future__ import annotations

from typing import Any

from ..errors import FormatError, QrsError
from ..model import Model
from ..nn.function import Function
from . import products
from .fallback import OnnxOperator
from .fuse import fused
from .lowering import Builder
from .reader import read

__all__ = ["OnnxOperator", "load", "products"]


def load(source: Any) -> Model:
    """Read an ONNX model.

    Matrix products, convolutions, tables, layer normalisation and softmax become layers of `qrs.nn`, with bias,
    batch normalisation and activation folded in; a recipe quantizes them by the names of their nodes. Other
    operators are computed by NumPy (`qrs.nn.Function`), and those that qrs does not know by the evaluator of
    the onnx package (`OnnxOperator`), which a report says. What depends on constants alone is computed here,
    once.

    Parameters
    ----------
    source : str, bytes, os.PathLike or onnx.ModelProto
        A path, or a model in memory. Operator sets 11 and up; external data is mapped into memory.

    Returns
    -------
    Model
        Its inputs and outputs have the names they have in the file. Products compute in float32, also those of
        narrower floats.

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
    >>> import numpy as np, pytest, qrs
    >>> onnx = pytest.importorskip("onnx")
    >>> text = 'g (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {1, 0, 0, 2}> { y = MatMul(x, w) }'
    >>> model = qrs.onnx.load(onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 17]>' + text))
    >>> model.run({"x": np.float32([[3, 4]])})["y"], model.layers
    (array([[3., 8.]], dtype=float32), mappingproxy({'y': Linear(weight=float32[2, 2])}))
    """
    graph = read(source)
    builder = Builder(graph)
    for operation in graph.operations:
        builder.add(operation)
    nodes = builder.nodes
    for output, dtype in graph.outputs.items():
        if output in builder.constants:
            constant = Function("Identity", constants={0: builder.constants[output]})
            builder.node(constant, [], output, f"{output}.constant")
    try:
        return Model(fused(nodes, list(graph.outputs)), graph.inputs, list(graph.outputs))
    except QrsError as error:
        raise FormatError(f"the graph of the model: {error}") from error
