"""Run data through a model once and keep what its layers saw.

Calibration knows models, recipes and observers; scales are computed later, by the schemes, from the ranges
that :class:`Statistics` holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import container
from .errors import FormatError, NotCalibratedError, QrsError, QrsTypeError, QrsValueError, expect, quote
from .model import Model
from .nn.base import named
from .observers import MinMax, Observer
from .ops import Static
from .progress import Progress, track
from .recipe import Recipe
from .scheme import QParams, Scheme

__all__ = ["Statistics", "calibrate", "load_stats"]

_FORMAT = "qrs-statistics"
_VERSION = "1"


class Statistics:
    """What observers saw at the inputs of layers, by layer name.

    Parameters
    ----------
    observers : mapping of str to Observer

    Examples
    --------
    >>> import numpy as np, qrs
    >>> seen = qrs.observers.MinMax()
    >>> seen.update(np.float32([-1, 3]))
    >>> qrs.Statistics({"head": seen}).qparams("head", qrs.Scheme("uint8")).zero_point
    array(64, dtype=int32)
    """

    __slots__ = ("observers",)

    def __init__(self, observers: Mapping[str, Observer]) -> None:
        expect(observers, Mapping, "observers", " of names to observers")
        for name, observer in observers.items():
            if not isinstance(observer, Observer):
                raise QrsTypeError(f"observer of {quote(name)} is {quote(observer)}, expected an Observer")
        self.observers: Mapping[str, Observer] = MappingProxyType(dict(observers))

    def __reduce__(self) -> tuple[Any, ...]:
        return Statistics, (dict(self.observers),)

    def qparams(self, name: str, scheme: Scheme | str) -> QParams:
        """Return the parameters of a layer's input for a scheme.

        Parameters
        ----------
        name : str
            Of the layer.
        scheme : Scheme or str

        Returns
        -------
        QParams

        Raises
        ------
        QrsTypeError
            When ``name`` is not a string, or ``scheme`` no scheme.
        QrsValueError
            When the observer keeps no ranges of the scheme's granularity.
        NotCalibratedError
            When no data of this layer was seen.

        Examples
        --------
        >>> import numpy as np, qrs
        >>> seen = qrs.observers.MinMax()
        >>> seen.update(np.float32([-1, 2]))
        >>> qrs.Statistics({"head": seen}).qparams("head", "int2").scale
        array(2., dtype=float32)
        """
        expect(name, str, "name")
        if name not in self.observers:
            seen = quote(list(self.observers))
            raise NotCalibratedError(f"layer {quote(name)} was not calibrated; seen: {seen}")
        return self.observers[name].qparams(scheme)

    def merge(self, other: Statistics) -> Statistics:
        """Return the statistics of both runs, as if one run had seen all the data; neither operand changes.

        Layers that only one of them saw are kept as they are.

        Parameters
        ----------
        other : Statistics

        Returns
        -------
        Statistics

        Raises
        ------
        QrsTypeError
            When ``other`` is none.
        QrsError
            When two observers of one layer are of different kinds or settings; the layer is named.

        Examples
        --------
        >>> import numpy as np, qrs
        >>> one, two = qrs.observers.MinMax(), qrs.observers.MinMax()
        >>> one.update(np.float32([-1, 2]))
        >>> two.update(np.float32([0, 3]))
        >>> both = qrs.Statistics({"head": one}).merge(qrs.Statistics({"head": two}))
        >>> [float(end) for end in both.observers["head"].range("int8")]
        [-1.0, 3.0]
        """
        expect(other, Statistics, "other")
        merged = {}
        for name in {**self.observers, **other.observers}:
            sources = [stats.observers[name] for stats in (self, other) if name in stats.observers]
            merged[name] = _merged(name, sources)
        return Statistics(merged)

    def save(self, path: container.Path) -> None:
        """Write the statistics to one file, a safetensors container; see :func:`qrs.load_stats`.

        Parameters
        ----------
        path : str, bytes or os.PathLike

        Raises
        ------
        QrsValueError
            When an observer's class has no id.
        OSError
            When the file cannot be written; a former file stays as it was.

        Examples
        --------
        >>> import os, tempfile, qrs
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     qrs.Statistics({}).save(os.path.join(folder, "stats"))
        ...     os.listdir(folder)
        ['stats']
        """
        arrays: dict[str, NDArray[Any]] = {}
        described = {}
        for name, observer in self.observers.items():
            data, state = observer.to_state()
            described[name] = {**data, "id": observer.written_id(), "arrays": list(state)}
            arrays.update({f"{name}.{key}": array for key, array in state.items()})
        metadata = {"format": _FORMAT, "version": _VERSION, "observers": json.dumps(described)}
        container.write(path, arrays, metadata)

    def __eq__(self, other: object) -> bool:
        return (
            dict(self.observers) == dict(other.observers) if isinstance(other, Statistics) else NotImplemented
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Statistics({dict(self.observers)!r})"


def _merged(name: str, sources: Sequence[Observer]) -> Observer:
    whole = sources[0].fresh()
    try:
        for source in sources:
            whole.merge(source)
    except QrsError as error:
        raise named(name, error) from error
    return whole


def calibrate(
    model: Model, batches: Iterable[Mapping[str, ArrayLike]], recipe: Recipe, progress: Progress = None
) -> Statistics:
    """Run every batch once and observe the layers whose rule has a ``Static`` input.

    Parameters
    ----------
    model : Model
        In float32; it is not changed.
    batches : iterable of mapping of str to array_like
        Inputs for ``model.run``. Read once, so a generator will do.
    recipe : Recipe
        Says which layers to observe, and with which observer (``MinMax`` where a rule names none).
    progress : None, bool or callable, optional
        Called as ``progress(done, total)`` after each batch; True shows a bar.

    Returns
    -------
    Statistics

    Raises
    ------
    QrsValueError
        When there are no batches, the recipe observes nothing, or a layer's input is not finite (layer and
        batch are named). What the iterable itself raises passes through.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> model = qrs.Model.chain({"head": qrs.nn.Linear(np.eye(2, dtype=np.float32))})
    >>> stats = qrs.calibrate(model, [{"x": np.float32([[1, 2]])}], qrs.Recipe.preset("w8a8-static"))
    >>> [float(end) for end in stats.observers["head"].range("uint8")]
    [1.0, 2.0]
    """
    expect(model, Model, "model")
    expect(recipe, Recipe, "recipe", "; Recipe.preset(name) makes one")
    expect(batches, Iterable, "batches", " of mappings")
    observers = {}
    for name, rule in recipe.assign(model.layers).items():
        if isinstance(rule.input, Static) and "input" in model.layers[name].attributes():
            observer = rule.input.observer
            observers[name] = observer.fresh() if isinstance(observer, Observer) else MinMax()
    if not observers:
        raise QrsValueError(
            "no layer of the model has a Static input in this recipe: there is nothing to calibrate"
        )

    def watch(name: str, inputs: tuple[NDArray[Any], ...]) -> None:
        if name in observers:
            observers[name].update(np.asarray(inputs[0]))

    done = 0
    for done, batch in enumerate(track(batches, progress, "calibrate"), 1):
        with _in_batch(done - 1):
            model.run(batch, watch=watch)
    if not done:
        raise QrsValueError("no calibration data: batches is empty")
    return Statistics(observers)


@contextmanager
def _in_batch(number: int) -> Iterator[None]:
    try:
        yield
    except QrsError as error:
        raise type(error)(f"batch {number}: {error}") from error


def load_stats(path: container.Path) -> Statistics:
    """Read statistics that ``Statistics.save`` wrote.

    Parameters
    ----------
    path : str, bytes or os.PathLike

    Returns
    -------
    Statistics

    Raises
    ------
    FormatError
        When the file is damaged, lacks a checksum or is something else; the message names the field.
    OSError
        When the file cannot be opened.

    Examples
    --------
    >>> import os, tempfile, qrs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     qrs.Statistics({}).save(os.path.join(folder, "stats"))
    ...     qrs.load_stats(os.path.join(folder, "stats"))
    Statistics({})
    """
    path = container.file_name(path)
    arrays, metadata = container.read(path)
    container.expect(path, metadata, _FORMAT, _VERSION, {"observers"})
    described = container.parse_json(metadata["observers"], f"{path}: observers")
    if not isinstance(described, dict):
        raise FormatError(f"{path}: observers is not an object")
    observers = {}
    for name, data in described.items():
        keys = data.pop("arrays", None) if isinstance(data, dict) else None
        if not isinstance(keys, list) or any(f"{name}.{key}" not in arrays for key in keys):
            raise FormatError(
                f"{path}: observer {quote(name)} names arrays {quote(keys)}, which the file does not hold"
            )
        state = {key: arrays.pop(f"{name}.{key}") for key in keys}
        observers[name] = _observer(f"{path}: layer {quote(name)}", data, state)
    if arrays:
        raise FormatError(f"{path}: arrays {quote(sorted(arrays))} belong to no observer")
    return Statistics(observers)


def _observer(what: str, data: dict[str, Any], state: dict[str, NDArray[Any]]) -> Observer:
    try:
        return Observer.from_state(data, state)
    except QrsError as error:
        raise FormatError(f"{what}: {error}") from error
