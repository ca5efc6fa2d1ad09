"""A model in one file: arrays in a safetensors container, graph and recipe as JSON in its metadata.

``__metadata__`` holds ``format`` (``"qrs-model"``), ``version``, ``graph`` and ``recipe``. The graph lists
nodes; each layer names its registered id, its attributes, its arrays and its inner layers. A float array is
stored under ``path/field``. A quantized one is stored as ``path/field.codes`` (packed bytes), ``.scale``
(in the scheme's ``scale_dtype``; bfloat16 as the upper 16 bits, e8m0 and e4m3 as a byte, with
``.scale_factor`` beside e4m3) and, unless its scheme is symmetric, ``.zero_point`` (as wide as a code, in
whole bytes), and ``.levels`` where its format learned them; its scheme and shape stand in the graph. An
array that several layers share is stored once.

Nothing in a file is executed, and nothing is used before it was checked. A load maps the file: codes and
float32 arrays are views of it, so several processes share one copy in memory. Do not truncate a file that is
in use: reading a lost page ends a process with SIGBUS. Replace it instead, as ``Model.save`` does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from . import container
from .arrays import flag
from .errors import FormatError, QrsError, QrsValueError, quote
from .model import Model, Node
from .nn.base import Layer, Weight, identity, named
from .qtensor import QTensor
from .recipe import Recipe
from .scales import SCALE_DTYPES
from .scheme import Scheme

__all__ = ["load", "save"]

_FORMAT = "qrs-model"
_VERSION = "1"
_MAX_DEPTH = 32


def save(model: Model, path: container.Path) -> None:
    """Write a model to one file, completely or not at all; ``model.save(path)`` is the same.

    Raises
    ------
    QrsValueError
        When a layer's class has no id, or JSON cannot hold its attributes.
    OSError
        When the file cannot be written; a former file stays as it was.
    """
    writer = _Writer()
    nodes = [
        {
            "name": node.name,
            "inputs": list(node.inputs),
            "output": node.output,
            "layer": writer.layer(node.name, node.layer),
        }
        for node in model.nodes
    ]
    graph = {
        "inputs": list(model.inputs),
        "outputs": list(model.outputs),
        "nodes": nodes,
        "quantized": writer.quantized,
    }
    metadata = {
        "format": _FORMAT,
        "version": _VERSION,
        "graph": json.dumps(graph, separators=(",", ":"), allow_nan=False),
        "recipe": json.dumps(None if model.recipe is None else model.recipe.to_dict(), separators=(",", ":")),
    }
    container.write(path, writer.arrays, metadata)


def load(path: container.Path, *, verify: bool = True) -> Model:
    """Read a model that ``Model.save`` wrote; arrays are read-only views of the mapped file.

    Parameters
    ----------
    path : str, bytes or os.PathLike
    verify : bool, default True
        Compare every array with its checksum, which reads the file once. With False only structure, header
        checksum, scales and zero points are checked, and pages are read when they are used.

    Returns
    -------
    Model

    Raises
    ------
    FormatError
        When the file is damaged, from a newer version or something else, or lacks a checksum; the message
        names the file and the field.
    OSError
        When the file cannot be opened.

    Examples
    --------
    >>> import os, tempfile, numpy as np, qrs
    >>> model = qrs.Model.chain({"head": qrs.nn.Linear(np.eye(2, dtype=np.float32))})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(os.path.join(folder, "model.qrs"))
    ...     print(qrs.load(os.path.join(folder, "model.qrs")))
    Model(x) -> y
      y = head: Linear(weight=float32[2, 2]) of (x)
    """
    name = container.file_name(path)
    arrays, metadata = container.read(name, flag(verify, "verify"))
    container.expect(name, metadata, _FORMAT, _VERSION, {"graph", "recipe"})
    graph = container.parse_json(metadata["graph"], f"{name}: graph")
    recipe = container.parse_json(metadata["recipe"], f"{name}: recipe")
    try:
        fields = _object(graph, "graph", {"inputs", "outputs", "nodes", "quantized"})
        reader = _Reader(arrays, _object(fields["quantized"], "graph.quantized"))
        nodes = [reader.node(i, node) for i, node in enumerate(_list(fields["nodes"], "graph.nodes"))]
        reader.check_all_used()
        inputs, outputs = _names(fields["inputs"], "graph.inputs"), _names(fields["outputs"], "graph.outputs")
        return Model(nodes, inputs, outputs, None if recipe is None else Recipe.from_dict(recipe))
    except QrsError as error:
        raise FormatError(f"{name}: {error}") from error


class _Writer:
    """Collects the arrays of layers, each once."""

    def __init__(self) -> None:
        self.arrays: dict[str, NDArray[Any]] = {}
        self.quantized: dict[str, Any] = {}
        self._entries: dict[tuple[Any, ...], str] = {}

    def layer(self, path: str, layer: Layer) -> dict[str, Any]:
        attributes = layer.attributes()
        try:
            written = layer.written_id()
            json.dumps(attributes, allow_nan=False)
        except QrsError as error:
            raise named(path, error) from error
        except (TypeError, ValueError) as error:
            what = f"layer {quote(path)} has attributes {quote(attributes)}"
            raise QrsValueError(f"{what}, which JSON cannot hold: {error}") from error
        return {
            "id": written,
            "attributes": attributes,
            "arrays": {
                field: self._entry(f"{path}/{field}", array) for field, array in layer.arrays().items()
            },
            "layers": {
                field: self.layer(f"{path}/{field}", inner) for field, inner in layer.layers().items()
            },
        }

    def _entry(self, name: str, array: Weight) -> str:
        known = self._entries.setdefault(identity(array), name)
        if known != name:
            return known
        if not isinstance(array, QTensor):
            self.arrays[name] = array
            return name
        self.quantized[name] = {"scheme": array.scheme.to_dict(), "shape": list(array.shape)}
        self.arrays[f"{name}.codes"] = array.codes
        self.arrays[f"{name}.scale"], factor = SCALE_DTYPES[array.scheme.scale_dtype].stored(array.scale)
        if factor is not None:
            self.arrays[f"{name}.scale_factor"] = factor
        if array.qparams.levels is not None:
            self.arrays[f"{name}.levels"] = array.qparams.levels
        if not array.scheme.symmetric:
            self.arrays[f"{name}.zero_point"] = array.zero_point.astype(array.scheme.format.code_dtype)
        return name


class _Reader:
    """Rebuilds layers from a graph, and each array once."""

    def __init__(self, arrays: dict[str, NDArray[Any]], quantized: Mapping[str, Any]) -> None:
        self._arrays = arrays
        self._quantized = quantized
        self._built: dict[str, Weight] = {}
        self._used: set[str] = set()

    def node(self, index: int, data: Any) -> Node:
        what = f"graph.nodes[{index}]"
        fields = _object(data, what, {"name", "inputs", "output", "layer"})
        for key in ("name", "output"):
            if not isinstance(fields[key], str) or not fields[key]:
                raise FormatError(f"{what}.{key} is {quote(fields[key])}, expected a name")
        layer = self._layer(fields["name"], fields["layer"], 0)
        return Node(fields["name"], layer, _names(fields["inputs"], f"{what}.inputs"), fields["output"])

    def check_all_used(self) -> None:
        spare = sorted(set(self._arrays) - self._used) + sorted(set(self._quantized) - set(self._built))
        if spare:
            raise FormatError(f"arrays {quote(spare)} belong to no layer")

    def _layer(self, path: str, data: Any, depth: int) -> Layer:
        if depth > _MAX_DEPTH:
            raise FormatError(f"layer {quote(path)} is nested more than {_MAX_DEPTH} deep")
        fields = _object(data, f"layer {quote(path)}", {"id", "attributes", "arrays", "layers"})
        parts: dict[str, Any] = {}
        for field, entry in _object(fields["arrays"], f"arrays of layer {quote(path)}").items():
            if not isinstance(entry, str):
                raise FormatError(
                    f"array {quote(field)} of layer {quote(path)} is {quote(entry)}, expected a name"
                )
            parts[field] = self._array(entry)
        for field, inner in _object(fields["layers"], f"layers of layer {quote(path)}").items():
            parts[field] = self._layer(f"{path}/{field}", inner, depth + 1)
        attributes = _object(fields["attributes"], f"attributes of layer {quote(path)}")
        try:
            return Layer.by_id(fields["id"]).from_parts(parts, attributes)
        except (QrsError, TypeError) as error:
            raise FormatError(f"layer {quote(path)}: {error}") from error

    def _array(self, entry: str) -> Weight:
        if entry not in self._built:
            self._built[entry] = self._qtensor(entry) if entry in self._quantized else self._take(entry)
        return self._built[entry]

    def _qtensor(self, entry: str) -> QTensor:
        fields = _object(self._quantized[entry], f"graph.quantized[{quote(entry)}]", {"scheme", "shape"})
        try:
            scheme = Scheme.from_dict(fields["scheme"])
            kind = SCALE_DTYPES[scheme.scale_dtype]
            factor = self._take(f"{entry}.scale_factor") if kind.shared else None
            scale = kind.loaded(self._take(f"{entry}.scale"), factor)
            zero_point: Any = scheme.middle
            if not scheme.symmetric:
                zero_point = self._take(f"{entry}.zero_point")
                if zero_point.dtype != scheme.format.code_dtype:
                    raise FormatError(
                        f"zero_point has dtype {zero_point.dtype}, expected {scheme.format.code_dtype}"
                    )
            levels = self._take(f"{entry}.levels") if scheme.format.kind == "learned" else None
            codes, shape = self._take(f"{entry}.codes"), tuple(_list(fields["shape"], "shape"))
            return QTensor.from_parts(codes, scale, zero_point, scheme, shape, levels)
        except (QrsError, TypeError) as error:
            raise FormatError(f"array {quote(entry)}: {error}") from error

    def _take(self, name: str) -> NDArray[Any]:
        if name not in self._arrays:
            raise FormatError(f"array {quote(name)} is missing")
        self._used.add(name)
        return self._arrays[name]


def _object(data: Any, what: str, fields: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise FormatError(f"{what} is a {type(data).__name__}, expected an object")
    if fields is not None and set(data) != fields:
        raise FormatError(f"{what} has fields {quote(sorted(data))}, expected {sorted(fields)}")
    return data


def _list(data: Any, what: str) -> list[Any]:
    if not isinstance(data, list):
        raise FormatError(f"{what} is a {type(data).__name__}, expected a list")
    return data


def _names(data: Any, what: str) -> list[str]:
    names = _list(data, what)
    if not all(isinstance(name, str) for name in names):
        raise FormatError(f"{what} is {quote(names)}, expected a list of names")
    return names
