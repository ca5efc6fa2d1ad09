"""What a layer is: a function with named parts.

A layer is a frozen dataclass. Each field is one part of it: an array (``ndarray`` or ``QTensor``), an inner
layer, or a plain attribute (a number, a string, ``None``). From the fields follow, for every layer alike, how
it is saved, rebuilt, listed and changed; an author writes the fields and ``forward``. There are no quantized
twins: a quantized layer is the same layer with a ``QTensor`` in a weight slot.

The thread of names through nested calls is kept here too (:func:`call`): an error says which layer of the
model it came from, and watchers (:func:`watching`) see the inputs and the output of inner layers.
"""

from __future__ import annotations

import dataclasses
import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..arrays import as_float32
from ..errors import QrsError, QrsTypeError, QrsValueError, quote
from ..qtensor import QTensor
from ..registry import Registered, unknown

__all__ = ["Layer", "Weight", "call", "check_inputs", "watching"]

F32: TypeAlias = NDArray[np.float32]
Weight: TypeAlias = F32 | QTensor
Watch: TypeAlias = Callable[[str, tuple[NDArray[Any], ...]], None]
After: TypeAlias = Callable[[str, Any], None]
L = TypeVar("L", bound="Layer")

_path: ContextVar[str] = ContextVar("qrs_layer_path", default="")
_watch: ContextVar[tuple[Watch | None, After | None]] = ContextVar("qrs_layer_watch", default=(None, None))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Layer(Registered, kind="layer"):
    """Base of all layers: subclass it as a frozen dataclass with an ``id`` and write ``forward``.

    Attributes
    ----------
    slots : tuple of str
        Class attribute: the fields whose array a recipe may quantize. The default is none.
    remark : str
        Why a recipe leaves a layer without slots as it is; what a report says of it.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, eq=False, repr=False)
    ... class Scale(Layer, id="doctest-scale"):
    ...     factor: float = 1.0
    ...     def forward(self, x):
    ...         return x * np.float32(self.factor)
    >>> Scale(2.0)(np.float32([1, 2])), Scale(2.0).attributes()
    (array([2., 4.], dtype=float32), {'factor': 2.0})
    """

    slots: ClassVar[tuple[str, ...]] = ()

    @property
    def remark(self) -> str:
        """Why a recipe leaves this layer as it is, where it has no slots."""
        return "has no weight to quantize"

    def suited(self, input: Any) -> tuple[Any, str | None]:
        """Say how this layer quantizes its input where a recipe asks for a way that it does not have.

        Parameters
        ----------
        input : Dynamic or Static
            What the recipe asks for.

        Returns
        -------
        input : Dynamic or Static
            The same, or the nearest that the layer has.
        remark : str or None
            Why it is another one.

        Examples
        --------
        >>> import numpy as np, qrs
        >>> filters = qrs.nn.Conv2d(np.ones((1, 1, 3, 3), np.float32))
        >>> filters.suited(qrs.Dynamic(qrs.Scheme("uint8", qrs.per_token)))[1]
        'images have no tokens: input is quantized per tensor'
        """
        return input, None

    @abstractmethod
    def forward(self, *inputs: Any) -> NDArray[Any]:
        """Compute the output; a subclass says from what.

        Parameters
        ----------
        *inputs : ndarray
            Optional ones may be left out.

        Returns
        -------
        ndarray
        """

    def __call__(self, *inputs: Any) -> NDArray[Any]:
        """Compute the output, as ``forward`` does.

        Parameters
        ----------
        *inputs : ndarray
            By position; optional ones may be left out.

        Returns
        -------
        ndarray

        Raises
        ------
        QrsTypeError
            When there are more or fewer inputs than ``forward`` takes.

        Examples
        --------
        >>> import numpy as np, qrs
        >>> qrs.nn.Add()(np.float32([1, 2]), np.float32([3, 4]))
        array([4., 6.], dtype=float32)
        """
        try:
            return self.forward(*inputs)
        except TypeError as error:
            # Only now: to ask before every call would take longer than a small layer does.
            if not isinstance(error, QrsError):
                check_inputs(self, inputs)
            raise

    def arrays(self) -> dict[str, Weight]:
        """Return the arrays by field name; absent ones are left out.

        Returns
        -------
        dict of str to ndarray or QTensor

        Examples
        --------
        >>> import numpy as np, qrs
        >>> list(qrs.nn.Linear(np.eye(3, dtype=np.float32)).arrays())
        ['weight']
        """
        return {name: part for name, part in self._parts() if isinstance(part, np.ndarray | QTensor)}

    def layers(self) -> dict[str, Layer]:
        """Return the inner layers by field name; most layers have none.

        Returns
        -------
        dict of str to Layer

        Examples
        --------
        >>> import numpy as np, qrs
        >>> same = qrs.nn.Linear(np.eye(4, dtype=np.float32))
        >>> list(qrs.nn.MultiHeadAttention(same, same, same, same, heads=2).layers())
        ['query', 'key', 'value', 'output']
        """
        return {name: part for name, part in self._parts() if isinstance(part, Layer)}

    def attributes(self) -> dict[str, Any]:
        """Return the remaining fields; a layer whose fields JSON cannot hold converts them here.

        Returns
        -------
        dict of str to JSON value

        Examples
        --------
        >>> import qrs
        >>> qrs.nn.Normalize().attributes()
        {'eps': 1e-12}
        """
        return {
            name: part for name, part in self._parts() if not isinstance(part, np.ndarray | QTensor | Layer)
        }

    @classmethod
    def from_parts(cls: type[L], arrays: Mapping[str, Any], attributes: Mapping[str, Any]) -> L:
        """Rebuild a layer from what ``arrays`` (with ``layers``) and ``attributes`` gave.

        Parameters
        ----------
        arrays : mapping of str to ndarray, QTensor or Layer
        attributes : mapping of str to JSON value

        Returns
        -------
        Layer
            Of the class that this is called on.

        Raises
        ------
        QrsValueError
            When names are missing or unknown; the message lists both.

        Examples
        --------
        >>> import qrs
        >>> qrs.nn.Normalize.from_parts({}, {"eps": 0.5})
        Normalize(eps=0.5)
        """
        given = {**attributes, **arrays}
        fields = {field.name: field for field in dataclasses.fields(cls)}
        extra = sorted(set(given) - set(fields))
        required = [n for n, f in fields.items() if f.default is dataclasses.MISSING]
        missing = [n for n in required if n not in given]
        if extra or missing:
            raise QrsValueError(
                f"{cls.id}: missing parts {missing}, unknown parts {quote(extra)}, known {list(fields)}"
            )
        return cls(**given)

    def replace(self: L, **parts: Any) -> L:
        """Return a copy with some fields changed; every check of the constructor runs again.

        Parameters
        ----------
        **parts : object
            New values by field name.

        Returns
        -------
        Layer
            Of the same class; it shares every array that was not replaced.

        Raises
        ------
        QrsTypeError, QrsValueError
            When a field is unknown, or the constructor refuses a value.

        Examples
        --------
        >>> import numpy as np, qrs
        >>> layer = qrs.nn.Linear(np.eye(3, dtype=np.float32))
        >>> layer.replace(activation="relu")
        Linear(weight=float32[3, 3], activation='relu')
        """
        known = [field.name for field in dataclasses.fields(self)]
        for name in parts:
            if name not in known:
                raise unknown(f"part of {type(self).__name__}", name, known)
        return dataclasses.replace(self, **parts)

    def __repr__(self) -> str:
        shown = []
        for name, part in self._parts():
            if isinstance(part, np.ndarray):
                shown.append(f"{name}={part.dtype}{list(part.shape)}")
            elif isinstance(part, QTensor):
                shown.append(f"{name}={part.scheme.dtype}{list(part.shape)}")
            elif part is not None:
                shown.append(f"{name}={part!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def _parts(self) -> Iterator[tuple[str, Any]]:
        for field in dataclasses.fields(self):
            yield field.name, getattr(self, field.name)


def call(name: str, layer: Layer, *inputs: Any) -> NDArray[Any]:
    """Call a layer under its name; inside another named call the names join with ``/``.

    Composite layers call their inner layers through this, and ``Model.run`` its nodes, so that
    ``"block/query"`` is what a watcher sees and what an error says.

    Raises
    ------
    QrsError
        What the layer raised, of the same class, with the path of the layer in front.
    """
    outer = _path.get()
    path = f"{outer}/{name}" if outer else name
    token = _path.set(path)
    try:
        watch, after = _watch.get()
        if watch is not None:
            watch(path, inputs)
        output = layer(*inputs)
        if after is not None:
            after(path, output)
        return output
    except QrsError as error:
        raise named(path, error) from error
    finally:
        _path.reset(token)


def check_inputs(layer: Layer, inputs: Sequence[Any], where: str = "") -> None:
    """Refuse more or fewer inputs than a layer takes; ``where`` stands before the message."""
    signature = inspect.signature(layer.forward)
    try:
        signature.bind(*inputs)
    except TypeError:
        plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
        takes = signature.replace(parameters=plain, return_annotation=signature.empty)
        kind = type(layer).__name__
        raise QrsTypeError(f"{where}{kind} got {len(inputs)} inputs, expected {takes}") from None


def named(path: str, error: QrsError) -> QrsError:
    """Return the error with the layer's path in front, unless an inner layer has set its own."""
    if getattr(error, "layer", None) is not None:
        return error
    told = type(error)(f"layer {quote(path)}: {error}")
    told.layer = path  # type: ignore[attr-defined]
    return told


@contextmanager
def watching(watch: Watch | None, after: After | None = None) -> Iterator[None]:
    """Call ``watch(path, inputs)`` before and ``after(path, output)`` after every layer call in the block.

    In this thread only.
    """
    token = _watch.set((watch, after))
    try:
        yield
    finally:
        _watch.reset(token)


def weight(value: Any, name: str, ndim: int) -> Weight:
    """Accept a weight slot's value: a QTensor as it is, anything else as a frozen float32 array."""
    if not isinstance(value, QTensor):
        return frozen(value, name, ndim)
    if len(value.shape) != ndim:
        raise QrsValueError(f"{name} has shape {value.shape}, expected {ndim} dimensions")
    return value


def frozen(value: Any, name: str, ndim: int) -> F32:
    """Accept a float array of a layer, as contiguous float32 that cannot be written to through the layer.

    Memory is shared with the caller where no conversion is needed: weights are large, and two layers built
    from one array keep sharing it.
    """
    array = as_float32(value, name)
    if array.ndim != ndim:
        raise QrsValueError(f"{name} has shape {array.shape}, expected {ndim} dimensions")
    view = array.view()
    view.flags.writeable = False
    return view


def identity(array: Weight) -> tuple[Any, ...]:
    """Return a key that two arrays share when they are the same memory, seen alike."""
    if isinstance(array, QTensor):
        return (id(array),)
    return (array.ctypes.data, array.shape, array.strides)


def vector(value: Any, name: str, length: int) -> F32 | None:
    """Accept an optional one-dimensional float array of a given length."""
    if value is None:
        return None
    array = frozen(value, name, 1)
    if len(array) != length:
        raise QrsValueError(f"{name} has length {len(array)}, expected {length}")
    return array


def width(x: F32, expected: int, what: str) -> None:
    """Check the last axis of an input."""
    if x.ndim == 0 or x.shape[-1] != expected:
        raise QrsValueError(f"x has shape {x.shape}, expected (..., {expected}) for {what}")
