"""An operator of ONNX as a layer: what moves, compares and combines arrays between the products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import integer, quiet
from ..errors import QrsError, QrsTypeError, QrsValueError, expect, quote
from ..functions import TABLE
from ..registry import unknown
from .base import Layer

__all__ = ["Function"]

_PREFIX = "input"
_INPUTS = 1 << 16


@dataclass(frozen=True, eq=False, repr=False)
class Function(Layer, id="function"):
    """Apply an operator of ONNX, computed by NumPy.

    Parameters
    ----------
    op : str
        Its name, such as ``"Transpose"``; `Function.operators` lists them.
    settings : mapping of str to JSON value
        Its attributes by name; a dtype stands as its name.
    constants : mapping of int to ndarray
        Inputs that never change, by their place among the operator's inputs. The layer's own inputs fill the
        places that are left, in order.
    absent : sequence of int
        Places of optional inputs that are left out.

    Raises
    ------
    QrsTypeError
        When a field is of another kind.
    QrsValueError
        When the operator is unknown, or a place is out of range or taken twice.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> qrs.nn.Function("Transpose", {"perm": [1, 0]})(np.float32([[1, 2, 3]])).shape
    (3, 1)
    >>> minus_one = qrs.nn.Function("Sub", constants={1: np.float32(1)})
    >>> minus_one(np.float32([1, 2])), minus_one
    (array([0., 1.], dtype=float32), Function(op='Sub', input1=float32[]))
    """

    op: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[int, NDArray[Any]] = field(default_factory=dict)
    absent: Sequence[int] = ()

    def __post_init__(self) -> None:
        expect(self.op, str, "op")
        if self.op not in TABLE:
            raise unknown("operator", self.op, self.operators())
        expect(self.settings, Mapping, "settings", " of names to values")
        expect(self.constants, Mapping, "constants", " of places to arrays")
        frozen = {_place(i): _frozen(array, i) for i, array in self.constants.items()}
        absent = tuple(_place(i) for i in self.absent)
        if len({*frozen, *absent}) != len(frozen) + len(absent):
            raise QrsValueError(
                f"places {sorted(frozen)} hold constants and {list(absent)} nothing: some both"
            )
        object.__setattr__(self, "settings", MappingProxyType(dict(self.settings)))
        object.__setattr__(self, "constants", MappingProxyType(dict(sorted(frozen.items()))))
        object.__setattr__(self, "absent", absent)

    def __reduce__(self) -> tuple[Any, ...]:
        return Function, (self.op, dict(self.settings), dict(self.constants), self.absent)

    @staticmethod
    def operators() -> list[str]:
        """List the names of the operators that there are.

        Returns
        -------
        list of str

        Examples
        --------
        >>> import qrs
        >>> qrs.nn.Function.operators()[:2]
        ['Abs', 'Acos']
        """
        return sorted(TABLE)

    def forward(self, *inputs: Any) -> Any:
        """Apply the operator.

        Parameters
        ----------
        *inputs : ndarray
            The operator's inputs that are no constants, in its order; of any dtype it knows.

        Returns
        -------
        ndarray, or a tuple of them for an operator with several outputs

        Raises
        ------
        QrsValueError
            When the operator refuses its inputs; the message tells their dtypes and shapes.
        """
        given = [
            x if isinstance(x, tuple) or x is None else np.asarray(x)
            for x in placed(inputs, self.constants, self.absent)
        ]
        try:
            with quiet():
                result = TABLE[self.op](*given, **self.settings)
        except QrsError as error:
            raise type(error)(f"{self.op}: {error}") from error
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            shown = ", ".join(_shown(x) for x in given)
            raise QrsValueError(
                f"{self.op} of ({shown}) with {quote(dict(self.settings))}: {error}"
            ) from error
        return result if isinstance(result, list | tuple) else np.asarray(result)

    def arrays(self) -> dict[str, Any]:
        """Return the constants as ``input`` with their place.

        Returns
        -------
        dict of str to ndarray

        Examples
        --------
        >>> import numpy as np, qrs
        >>> list(qrs.nn.Function("Add", constants={1: np.float32(2)}).arrays())
        ['input1']
        """
        return {f"{_PREFIX}{i}": array for i, array in self.constants.items()}

    def attributes(self) -> dict[str, Any]:
        """Return operator, settings and absent places.

        Returns
        -------
        dict of str to JSON value

        Examples
        --------
        >>> import qrs
        >>> qrs.nn.Function("Concat", {"axis": 1}).attributes()
        {'op': 'Concat', 'settings': {'axis': 1}, 'absent': []}
        """
        return {"op": self.op, "settings": dict(self.settings), "absent": list(self.absent)}

    @classmethod
    def from_parts(cls, arrays: Mapping[str, Any], attributes: Mapping[str, Any]) -> Function:
        """Rebuild a layer from what ``arrays`` and ``attributes`` gave.

        Parameters
        ----------
        arrays : mapping of str to ndarray
        attributes : mapping of str to JSON value

        Returns
        -------
        Function

        Raises
        ------
        QrsTypeError, QrsValueError
            When a part is missing, unknown or not valid.

        Examples
        --------
        >>> import qrs
        >>> qrs.nn.Function.from_parts({}, {"op": "Shape", "settings": {}, "absent": []})
        Function(op='Shape')
        """
        return super().from_parts({"constants": by_place(arrays)}, attributes)

    def __repr__(self) -> str:
        parts = [f"op={self.op!r}", *(f"{key}={quote(value)}" for key, value in self.settings.items())]
        parts += [f"{name}={a.dtype}{list(a.shape)}" for name, a in self.arrays().items()]
        return f"Function({', '.join(parts)})"


def by_place(arrays: Mapping[str, Any]) -> dict[int, Any]:
    """Read the places of constants out of the names that ``arrays`` gave them."""
    found = {}
    for name, array in arrays.items():
        number = name.removeprefix(_PREFIX)
        if number == name or not number.isascii() or not number.isdigit() or len(number) > 5:
            raise QrsValueError(f"array {quote(name)} is no input: expected {_PREFIX}0 and so on")
        found[int(number)] = array
    return found


def placed(inputs: Sequence[Any], constants: Mapping[int, NDArray[Any]], absent: Sequence[int]) -> list[Any]:
    """Line up inputs, constants and None for what is absent, each in its place."""
    free = iter(inputs)
    given: list[Any] = []
    for i in range(len(inputs) + len(constants) + len(absent)):
        if i in constants:
            given.append(constants[i])
        elif i in absent:
            given.append(None)
        else:
            given.append(next(free, None))
    return given


def _place(value: object) -> int:
    place = integer(value, "place of an input")
    if not 0 <= place < _INPUTS:
        raise QrsValueError(f"place of an input is {place}, expected 0 to {_INPUTS - 1}")
    return place


def _frozen(value: object, place: int) -> NDArray[Any]:
    """Take a constant of any dtype; the layer's view of it cannot be written to."""
    if isinstance(value, Layer) or not isinstance(value, np.ndarray | np.generic):
        raise QrsTypeError(f"constant {place} is {quote(value)}, expected an ndarray")
    view = np.asarray(value).view()
    view.flags.writeable = False
    return view


def _shown(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}" if isinstance(x, np.ndarray) else type(x).__name__
