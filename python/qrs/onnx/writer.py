"""From a model to an ONNX file: quantized tensors stand between QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import QrsError, QrsValueError, quote
from ..formats import Format
from ..functions.base import dtype_of
from ..model import Model, Node
from ..nn.base import Layer, identity, named
from ..nn.embedding import Embedding
from ..nn.function import Function
from ..ops import Dynamic, Static
from ..qtensor import QTensor
from ..scheme import Scheme
from .base import package
from .fallback import OnnxOperator

__all__ = ["Writer", "writes"]

Array: TypeAlias = NDArray[Any]
Write: TypeAlias = "Callable[[Any, Node, Writer], None]"

WRITES: dict[type[Layer], Write] = {}
# The version that has axes as inputs everywhere, and those that operators or element types need beyond it.
_BASE = 18
# The evaluator of the onnx package knows quantization from version 19 on.
_SINCE = {"QuantizeLinear": 19, "DequantizeLinear": 19}
_SINCE |= {"Gelu": 20, "GroupNormalization": 21, "RMSNormalization": 23}
_SINCE |= {"int4": 21, "uint4": 21, "int16": 21, "uint16": 21, "int2": 25, "uint2": 25}
_DTYPES = {"to", "dtype", "output_dtype", "precision"}
# Codes of widths that ONNX does not have are stored in the next one that it has.
_CONTAINERS = (2, 4, 8, 16)


def writes(kind: type[Layer]) -> Callable[[Write], Write]:
    """Enter a function that writes layers of a kind.

    Parameters
    ----------
    kind : type of Layer

    Returns
    -------
    callable
        A decorator that gives the function back as it is.
    """

    def enter(write: Write) -> Write:
        WRITES[kind] = write
        return write

    return enter


class Writer:
    """Collects the nodes and tensors of an ONNX graph.

    Parameters
    ----------
    model : Model
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        self.opset = _BASE
        self.same: dict[str, tuple[str, Function]] = {}
        self._known: dict[tuple[Any, ...], str] = {}
        # What arrays are known by is their memory: none may be freed, and its place taken, meanwhile.
        self._kept: list[Any] = []
        self._parts: dict[str, dict[int, str]] = {}
        self._opsets: list[tuple[str, Mapping[str, int]]] = []
        for node in model.nodes:
            if isinstance(node.layer, Function) and node.layer.op == "Part":
                index = node.layer.settings["index"]
                self._parts.setdefault(node.inputs[0], {})[index] = node.output

    def add(self, node: Node) -> None:
        """Write one node of the model.

        Parameters
        ----------
        node : Node

        Raises
        ------
        QrsError
            When ONNX has no way to say what it does; the message names the layer.
        """
        write = WRITES.get(type(node.layer))
        try:
            if write is None:
                known = ", ".join(sorted(kind.__name__ for kind in WRITES))
                kind = type(node.layer).__name__
                raise QrsValueError(f"{kind} is not written to ONNX in this version, but {known} are")
            write(node.layer, node, self)
        except QrsError as error:
            raise named(node.name, error) from error

    def emit(self, op: str, inputs: Sequence[str], output: str | Sequence[str], **attributes: Any) -> str:
        """Add an ONNX node.

        Parameters
        ----------
        op : str
        inputs : sequence of str
        output : str or sequence of str
        **attributes : object

        Returns
        -------
        str
            Its first output.
        """
        outputs = [output] if isinstance(output, str) else list(output)
        self.opset = max(self.opset, _SINCE.get(op, 0), 21 if attributes.get("block_size") else 0)
        name = f"{outputs[0]}/{op}"
        self.nodes.append(package("onnx.helper").make_node(op, list(inputs), outputs, name, **attributes))
        return outputs[0]

    def tensor(self, array: Array, name: str) -> str:
        """Add an array that never changes, once however often it is used.

        Parameters
        ----------
        array : ndarray
        name : str
            Of the value, where the array is new.

        Returns
        -------
        str
            Name of its value.
        """
        key = (*identity(array), str(array.dtype)) if array.size > 1 else (str(array.dtype), array.tobytes())
        key = (*key, array.shape)
        if key not in self._known:
            self._known[key] = name
            self._kept.append(array)
            self.tensors.append(package("onnx.numpy_helper").from_array(np.asarray(array, order="C"), name))
        return self._known[key]

    def weight(self, weight: Array | QTensor, name: str, is_turned: bool = False) -> str:
        """Add the weight of a layer; a quantized one by its codes.

        Parameters
        ----------
        weight : ndarray or QTensor
        name : str
        is_turned : bool, default False
            Transposed, as a matrix product of ONNX takes it.

        Returns
        -------
        str
            Name of the value that holds it, in float32.

        Raises
        ------
        QrsValueError
            When ONNX has no such codes, or no such scales.
        """
        if not isinstance(weight, QTensor):
            key = (*identity(weight), is_turned)
            if key not in self._known:
                self._known[key] = self.tensor(weight.T if is_turned else weight, name)
            return self._known[key]
        key = (*identity(weight), is_turned)
        if key not in self._known:
            self._kept.append(weight)
            self._known[key] = self._decoded(weight, name, is_turned)
        return self._known[key]

    def quantized(self, value: str, input: Dynamic | Static | None, name: str) -> str:
        """Quantize a value and decode it, as a layer does with its input.

        Parameters
        ----------
        value : str
        input : Dynamic, Static or None
        name : str
            That new values begin with.

        Returns
        -------
        str
            Name of the value, in float32 again.

        Raises
        ------
        QrsValueError
            When ONNX has no operator for it.
        """
        if input is None:
            return value
        codes = f"{name}.codes"
        if isinstance(input, Dynamic):
            if input != Dynamic(Scheme("uint8")):
                raise QrsValueError(
                    f"ONNX has dynamic inputs of uint8 with one scale for a tensor, not {input.scheme!r}; "
                    f"quantize with Static inputs to write a file"
                )
            parts = [codes, f"{name}.scale", f"{name}.zero_point"]
            self.emit("DynamicQuantizeLinear", [value], parts)
            return self.emit("DequantizeLinear", parts, f"{name}.decoded")
        scheme, known = input.scheme, input.known()
        container = self._container(scheme.dtype)
        scale = self.tensor(known.scale, f"{name}.scale")
        zero = self.tensor(known.zero_point.astype(container), f"{name}.zero_point")
        value = self._within(value, input, container, name)
        self.emit("QuantizeLinear", [value, scale, zero], codes)
        return self.emit("DequantizeLinear", [codes, scale, zero], f"{name}.decoded")

    def operator(self, layer: Function, node: Node) -> None:
        """Write a `Function` as the operator that it is named after.

        Parameters
        ----------
        layer : Function
        node : Node
        """
        inputs = self._inputs(layer, node)
        settings = dict(layer.settings)
        for name in _DTYPES & set(settings):
            settings[name] = _element(settings[name])
        if layer.op == "ConstantOfShape":
            value = np.array([settings.pop("value", 0.0)], dtype_of(layer.settings.get("dtype", "float32")))
            settings = {"value": package("onnx.numpy_helper").from_array(value)}
        if layer.op in ("QuantizeLinear", "DequantizeLinear"):
            self.opset = max(self.opset, 23 if "precision" in settings else 21)
        self.emit(layer.op, inputs, self._outputs(layer, node), **settings)

    def evaluated(self, layer: OnnxOperator, node: Node) -> None:
        """Write the node that an `OnnxOperator` holds.

        Parameters
        ----------
        layer : OnnxOperator
        node : Node
        """
        proto = layer.proto()
        names = self._inputs(layer, node)
        if len(names) != len(proto.input):
            raise QrsValueError(f"{layer.op} holds a graph that reads values from outside: not written")
        del proto.input[:]
        proto.input.extend(names)
        outputs = [name for name in proto.output if name]
        if len(outputs) > 1:
            parts = self._parts.get(node.output, {})
            new = iter([parts.get(i, f"{node.output}.{i}") for i in range(len(outputs))])
            outputs = [next(new) if name else "" for name in proto.output]
        else:
            outputs = [node.output if name else "" for name in proto.output]
        del proto.output[:]
        proto.output.extend(outputs)
        self.nodes.append(proto)
        self._opsets.append((proto.op_type, layer.opsets))

    def proto(self, example: Mapping[str, Array]) -> Any:
        """Give the finished model.

        Parameters
        ----------
        example : mapping of str to ndarray
            Inputs whose dtype and number of axes the file is to say.

        Returns
        -------
        onnx.ModelProto

        Raises
        ------
        QrsValueError
            When the parts do not make a valid ONNX model.
        """
        onnx, build = package(), package("onnx.helper")
        self._check_versions()
        read = {n.inputs[0] for n in self.model.nodes if isinstance(n.layer, Embedding)}
        inputs = []
        for name in self.model.inputs:
            given = example.get(name)
            dtype = "int64" if name in read else "float32"
            axes = None if given is None else [f"{name}_{i}" for i in range(given.ndim)]
            dtype = dtype if given is None else given.dtype.name
            inputs.append(build.make_tensor_value_info(name, _element(dtype), axes))
        outputs = [onnx.ValueInfoProto(name=name) for name in self.model.outputs]
        graph = build.make_graph(self.nodes, "qrs", inputs, outputs, self.tensors)
        imports = [build.make_opsetid("", self.opset)]
        model = build.make_model(graph, opset_imports=imports, producer_name="qrs")
        # The oldest that knows the operators: readers refuse newer ones than they know.
        model.ir_version = build.find_min_ir_version_for(imports)
        try:
            inferred = package("onnx.shape_inference").infer_shapes(model, check_type=True, strict_mode=True)
        except Exception as error:
            raise QrsValueError(f"the model makes no valid ONNX file: {error}") from error
        del model.graph.output[:]
        model.graph.output.extend(inferred.graph.output)
        return model

    def _inputs(self, layer: Function | OnnxOperator, node: Node) -> list[str]:
        free, found = iter(node.inputs), []
        count = len(node.inputs) + len(layer.constants) + len(layer.absent)
        for i in range(count):
            if i in layer.constants:
                found.append(self.tensor(layer.constants[i], f"{node.name}.input{i}"))
            else:
                found.append("" if i in layer.absent else next(free))
        return found

    def _outputs(self, layer: Function, node: Node) -> list[str]:
        if layer.op == "Split":
            count = layer.settings.get("num_outputs", 0) or layer.constants[1].size
        elif layer.op == "DynamicQuantizeLinear":
            count = 3
        else:
            return [node.output]
        parts = self._parts.get(node.output, {})
        return [parts.get(i, f"{node.output}.{i}") for i in range(count)]

    def _container(self, dtype: str) -> np.dtype[Any]:
        """Find the integer dtype of ONNX that holds codes of an integer format."""
        sign, bits = dtype.rstrip("0123456789"), int("0" + dtype.lstrip("uint"))
        name = f"{sign}{next(width for width in _CONTAINERS if width >= bits)}"
        self.opset = max(self.opset, _SINCE.get(name, 0))
        return dtype_of(name)

    def _decoded(self, weight: QTensor, name: str, is_turned: bool) -> str:
        scheme, shape = weight.scheme, weight.shape
        if scheme.format.kind != "integer":
            raise QrsValueError(f"ONNX has no codes of {scheme.dtype}; quantize the weight to integers")
        how = _granularity(scheme.granularity.block(shape), shape, is_turned, repr(scheme.granularity))
        container = self._container(scheme.dtype)
        codes = weight.unpack().T if is_turned else weight.unpack()
        scale: Array = weight.scale.T if is_turned else weight.scale
        zero: Array = weight.zero_point.T if is_turned else weight.zero_point
        parts = [self.tensor(codes.astype(container), f"{name}.codes"), self.tensor(scale, f"{name}.scale")]
        parts.append(self.tensor(zero.astype(container), f"{name}.zero_point"))
        return self.emit("DequantizeLinear", parts, name, **how)

    def _within(self, value: str, input: Static, container: np.dtype[Any], name: str) -> str:
        """Keep a value within the codes of a scheme, where those of the container reach further."""
        known = input.known()
        least, most = input.scheme.code_range
        limits = Format.named(container.name)
        if (least, most) == (limits.min, limits.max):
            return value
        ends = [np.float32(known.scale * np.float32(end - known.zero_point)) for end in (least, most)]
        bounds = [
            self.tensor(np.asarray(end), f"{name}.{side}")
            for end, side in zip(ends, ("lo", "hi"), strict=True)
        ]
        return self.emit("Clip", [value, *bounds], f"{name}.clipped")

    def _check_versions(self) -> None:
        """Refuse operators that mean something else in the version that the file needs."""
        schema = package("onnx.defs").get_schema
        for op, opsets in self._opsets:
            version = opsets.get("", 0)
            if schema(op, version).since_version != schema(op, self.opset).since_version:
                raise QrsValueError(
                    f"{op} is that of version {version}, and the file needs version {self.opset}, where it "
                    f"is another: convert the original with onnx.version_converter"
                )


def _element(dtype: str) -> int:
    try:
        return int(package("onnx.helper").np_dtype_to_tensor_dtype(dtype_of(dtype)))
    except (KeyError, TypeError, ValueError):
        raise QrsValueError(f"dtype {quote(dtype)} has no element type in ONNX") from None


def _granularity(block: Sequence[int], shape: Sequence[int], is_turned: bool, asked: str) -> dict[str, int]:
    """Say by the attributes of DequantizeLinear which elements share a scale."""
    axes = range(len(shape))
    single = [axis for axis in axes if block[axis] == 1 and shape[axis] > 1]
    coarse = [axis for axis in axes if block[axis] > 1]
    place = {axis: len(shape) - 1 - axis if is_turned else axis for axis in axes}
    if all(block[axis] >= shape[axis] or axis in single for axis in axes):
        if not single:
            # One scale: for all, or for each of a single row.
            return {"axis": place[0]} if asked.startswith("per_channel") else {}
        if len(single) == 1 and not asked.startswith("per_group"):
            return {"axis": place[single[0]]}
    if len(coarse) <= 1 and asked.startswith("per_group"):
        axis = coarse[0] if coarse else axes[-1]
        return {"axis": place[axis], "block_size": int(block[axis])}
    raise QrsValueError(f"ONNX has no scales {asked} of a {tuple(shape)} array")
