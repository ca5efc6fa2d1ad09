"""The layer for operators that qrs does not know: one node, run by the evaluator of the onnx package."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import QrsError, QrsTypeError, QrsValueError, expect, quote
from ..nn.base import Layer
from ..nn.function import by_place, placed
from .base import Operation, outer_names, package

__all__ = ["OnnxOperator"]


@dataclass(frozen=True, eq=False, repr=False)
class OnnxOperator(Layer, id="onnx_operator"):
    """Run one ONNX node in ``onnx.reference``: correct, and slow.

    Parameters
    ----------
    op : str
        Name of the operator.
    node : str
        The ``NodeProto``, serialized and in base64.
    opsets : mapping of str to int
        Versions of the operator sets, by domain.
    constants : mapping of int to ndarray
        Inputs that never change, by their place: those of the node first, then what its inner graphs take
        from outside.
    absent : sequence of int
        Places of optional inputs that are left out.

    Raises
    ------
    QrsTypeError, QrsValueError
        When a field is of another kind.

    Examples
    --------
    >>> import base64, numpy as np, onnx
    >>> node = onnx.helper.make_node("Hardmax", ["x"], ["y"]).SerializeToString()
    >>> layer = OnnxOperator("Hardmax", base64.b64encode(node).decode(), {"": 13})
    >>> layer(np.float32([[1, 3, 2]]))
    array([[0., 1., 0.]], dtype=float32)
    """

    op: str
    node: str
    opsets: Mapping[str, int]
    constants: Mapping[int, NDArray[Any]] = field(default_factory=dict)
    absent: Sequence[int] = ()

    def __post_init__(self) -> None:
        expect(self.op, str, "op")
        expect(self.node, str, "node")
        expect(self.opsets, Mapping, "opsets", " of domains to versions")
        expect(self.constants, Mapping, "constants", " of places to arrays")
        for place, array in self.constants.items():
            if type(place) is not int or not isinstance(array, np.ndarray):
                raise QrsTypeError(f"constant {quote(place)} is {quote(array)}, expected an ndarray")
        if any(type(place) is not int for place in self.absent):
            raise QrsTypeError(f"absent is {quote(self.absent)}, expected places")
        constants = {place: _read_only(array) for place, array in sorted(self.constants.items())}
        object.__setattr__(self, "constants", MappingProxyType(constants))
        object.__setattr__(self, "opsets", MappingProxyType(dict(self.opsets)))
        object.__setattr__(self, "absent", tuple(self.absent))

    def __reduce__(self) -> tuple[Any, ...]:
        parts = self.op, self.node, dict(self.opsets), dict(self.constants), self.absent
        return OnnxOperator, parts

    @classmethod
    def of(cls, operation: Operation, opsets: Mapping[str, int]) -> OnnxOperator:
        """Make the layer for an operation of which no input is constant yet.

        Parameters
        ----------
        operation : Operation
        opsets : mapping of str to int

        Returns
        -------
        OnnxOperator
        """
        node = base64.b64encode(operation.proto.SerializeToString()).decode()
        return cls(operation.op, node, opsets)

    @property
    def remark(self) -> str:
        """Why a recipe leaves this layer as it is."""
        return f"qrs has no {self.op}: runs in the reference evaluator of the onnx package, which is slow"

    def forward(self, *inputs: Any) -> Any:
        """Run the node.

        Parameters
        ----------
        *inputs : ndarray
            Those that are no constants, in the order of the node, then of its inner graphs.

        Returns
        -------
        ndarray, or a tuple of them for a node with several outputs

        Raises
        ------
        QrsError
            When the onnx package is missing.
        QrsValueError
            When the evaluator refuses the inputs, or does not know the operator.
        """
        names, evaluator = self._evaluator
        given = placed(inputs, self.constants, self.absent)
        feeds = {name: x for name, x in zip(names, given, strict=False) if name and x is not None}
        try:
            # The evaluator asks for writable arrays in places.
            writable = {name: x if isinstance(x, list) else np.array(x) for name, x in feeds.items()}
            outputs = evaluator.run(None, writable)
        except QrsError:
            raise
        except Exception as error:
            raise QrsValueError(f"{self.op}: the evaluator of the onnx package failed: {error}") from error
        return tuple(outputs) if len(outputs) > 1 else outputs[0]

    def proto(self) -> Any:
        """Give the node.

        Returns
        -------
        onnx.NodeProto
            A new one.

        Raises
        ------
        QrsError
            When the onnx package is missing.
        QrsValueError
            When the node is damaged.
        """
        node = package().NodeProto()
        try:
            node.ParseFromString(base64.b64decode(self.node, validate=True))
        except (binascii.Error, package("google.protobuf.message").DecodeError) as error:
            raise QrsValueError(f"node of {self.op} is damaged: {error}") from error
        return node

    @cached_property
    def _evaluator(self) -> tuple[list[str], Any]:
        """The names that a run takes, in order, and the evaluator of a model that is this node alone."""
        build, node = package("onnx.helper"), self.proto()
        names = [*node.input, *outer_names(node)]
        kind = package().TypeProto()
        inputs = [build.make_value_info(name, kind) for name in dict.fromkeys(names) if name]
        outputs = [build.make_value_info(name, kind) for name in node.output if name]
        graph = build.make_graph([node], "node", inputs, outputs)
        imports = [build.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        model = build.make_model(graph, opset_imports=imports)
        try:
            return names, package("onnx.reference").ReferenceEvaluator(model)
        except Exception as error:
            raise QrsValueError(f"the evaluator of the onnx package has no {self.op}: {error}") from error

    def arrays(self) -> dict[str, Any]:
        """Return the constants as ``input`` with their place.

        Returns
        -------
        dict of str to ndarray
        """
        return {f"input{place}": array for place, array in self.constants.items()}

    def attributes(self) -> dict[str, Any]:
        """Return operator, node, versions and absent places.

        Returns
        -------
        dict of str to JSON value
        """
        rest = {"opsets": dict(self.opsets), "absent": list(self.absent)}
        return {"op": self.op, "node": self.node, **rest}

    @classmethod
    def from_parts(cls, arrays: Mapping[str, Any], attributes: Mapping[str, Any]) -> OnnxOperator:
        """Rebuild a layer from what ``arrays`` and ``attributes`` gave.

        Parameters
        ----------
        arrays : mapping of str to ndarray
        attributes : mapping of str to JSON value

        Returns
        -------
        OnnxOperator

        Raises
        ------
        QrsTypeError, QrsValueError
            When a part is missing, unknown or not valid.
        """
        return super().from_parts({"constants": by_place(arrays)}, attributes)

    def __repr__(self) -> str:
        return f"OnnxOperator(op={self.op!r})"


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view
