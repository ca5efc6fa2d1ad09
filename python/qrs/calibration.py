"""Run data through a model once and keep what its layers saw.

Calibration knows models, recipes and statistics; scales are computed later, by the schemes, from the ranges
that the observers of :class:`Statistics` answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import container
from .arrays import integer
from .errors import (
    FormatError,
    NotCalibratedError,
    QrsError,
    QrsTypeError,
    QrsValueError,
    expect,
    expect_all,
    quote,
)
from .model import Model
from .nn.base import named
from .observers import MinMax, Observer, Statistic
from .ops import Static
from .progress import Progress, track
from .recipe import Recipe
from .scheme import QParams, Scheme

__all__ = ["Statistics", "calibrate", "load_stats"]

_FORMAT = "qrs-statistics"
_VERSION = "1"

S = TypeVar("S", bound=Statistic)
Collected = Mapping[str, Mapping[str, Statistic]]


class Statistics:
    """What was seen at the inputs of layers, by layer name.

    Parameters
    ----------
    observers : mapping of str to Observer, default {}
        Those that say the ranges of static inputs.
    collected : mapping of str to sequence of Statistic, default {}
        Others, such as `Gram`; one of a kind for each layer. The attribute holds them by their ids.
    batches : int, default 0
        How many batches a model ran in whole. A calibration that was interrupted goes on from there.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> seen = qrs.observers.MinMax()
    >>> seen.update(np.float32([-1, 3]))
    >>> qrs.Statistics({"head": seen}).qparams("head", qrs.Scheme("uint8")).zero_point
    array(64, dtype=int32)
    """

    __slots__ = ("batches", "collected", "observers")

    def __init__(
        self,
        observers: Mapping[str, Observer] = MappingProxyType({}),
        collected: Mapping[str, Sequence[Statistic]] = MappingProxyType({}),
        batches: int = 0,
    ) -> None:
        expect(observers, Mapping, "observers", " of names to observers")
        for name, observer in observers.items():
            if not isinstance(observer, Observer):
                raise QrsTypeError(f"observer of {quote(name)} is {quote(observer)}, expected an Observer")
        self.observers: Mapping[str, Observer] = MappingProxyType(dict(observers))
        expect(collected, Mapping, "collected", " of names to sequences of statistics")
        self.collected: Collected = MappingProxyType(
            {name: _by_id(f"collected of {quote(name)}", group) for name, group in collected.items()}
        )
        self.batches = integer(batches, "batches")
        if self.batches < 0:
            raise QrsValueError(f"batches is {self.batches}, expected 0 or more")

    def __reduce__(self) -> tuple[Any, ...]:
        return Statistics, (dict(self.observers), self._groups(), self.batches)

    def _groups(self) -> dict[str, list[Statistic]]:
        return {name: list(group.values()) for name, group in self.collected.items()}

    def _at(self, name: str) -> list[Statistic]:
        """List all that is kept of a layer."""
        kept = [self.observers[name]] if name in self.observers else []
        return [*kept, *self.collected.get(name, {}).values()]

    def of(self, name: str, kind: type[S]) -> S:
        """Return a collected statistic of a layer's input.

        Parameters
        ----------
        name : str
            Of the layer.
        kind : type
            A class of statistics, such as `Gram`.

        Returns
        -------
        Statistic
            Of the class ``kind``.

        Raises
        ------
        NotCalibratedError
            When none of this layer was collected.

        Examples
        --------
        >>> import numpy as np, qrs
        >>> from qrs.observers import Gram
        >>> model = qrs.Model.chain({"head": qrs.nn.Linear(np.eye(2, dtype=np.float32))})
        >>> recipe, data = qrs.Recipe.preset("w4a16-g32"), [{"x": np.float32([[1, 2]])}]
        >>> qrs.calibrate(model, data, recipe, collect=[Gram()]).of("head", Gram).matrix
        array([[1., 2.],
               [2., 4.]])
        """
        found = self.collected.get(name, {}).get(kind.id)
        if not isinstance(found, kind):
            raise NotCalibratedError(
                f"no {kind.__name__} of layer {quote(name)} was collected; "
                f"give qrs.calibrate collect=[{kind.__name__}()]"
            )
        return found

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
        observers = {
            name: _merged(name, [stats.observers[name] for stats in (self, other) if name in stats.observers])
            for name in {**self.observers, **other.observers}
        }
        collected = {}
        for name in {**self.collected, **other.collected}:
            groups = [stats.collected.get(name, {}) for stats in (self, other)]
            collected[name] = [
                _merged(name, [group[id] for group in groups if id in group])
                for id in {**groups[0], **groups[1]}
            ]
        return Statistics(observers, collected, self.batches + other.batches)

    def save(self, path: container.Path) -> None:
        """Write the statistics to one file, a safetensors container; see :func:`qrs.load_stats`.

        Parameters
        ----------
        path : str, bytes or os.PathLike

        Raises
        ------
        QrsValueError
            When the class of a statistic has no id, or two arrays would have one name.
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
        observers = {name: _described(name, seen, arrays) for name, seen in self.observers.items()}
        collected = {
            name: [_described(f"{name}.{id}", seen, arrays) for id, seen in group.items()]
            for name, group in self.collected.items()
        }
        metadata = {
            "format": _FORMAT,
            "version": _VERSION,
            "batches": json.dumps(self.batches),
            "observers": json.dumps(observers),
            "collected": json.dumps(collected),
        }
        container.write(path, arrays, metadata)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Statistics):
            return NotImplemented
        mine, others = ((dict(s.observers), s._groups(), s.batches) for s in (self, other))
        return mine == others

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        collected = f", collected={self._groups()!r}" if self.collected else ""
        batches = f", batches={self.batches}" if self.batches else ""
        return f"Statistics({dict(self.observers)!r}{collected}{batches})"


def _by_id(what: str, group: object) -> Mapping[str, Statistic]:
    statistics = expect_all(group, Statistic, what)  # type: ignore[type-abstract]
    found = {each.id: each for each in statistics}
    if len(found) < len(statistics):
        raise QrsValueError(f"{what} is {quote(group)}, expected one of a kind")
    return MappingProxyType(found)


def _described(name: str, seen: Statistic, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Describe a statistic for a file, and add its arrays to those of the file."""
    data, state = seen.to_state()
    for key, array in state.items():
        if f"{name}.{key}" in arrays:
            raise QrsValueError(f"two arrays would be named {quote(f'{name}.{key}')}; rename a layer")
        arrays[f"{name}.{key}"] = array
    return {**data, "id": seen.written_id(), "arrays": list(state)}


def _merged(name: str, sources: Sequence[S]) -> S:
    whole = sources[0].fresh()
    try:
        for source in sources:
            whole.merge(source)
    except QrsError as error:
        raise named(name, error) from error
    return whole


def calibrate(
    model: Model,
    batches: Iterable[Mapping[str, ArrayLike]],
    recipe: Recipe,
    progress: Progress = None,
    *,
    stats: Statistics | None = None,
    collect: Sequence[Statistic] = (),
) -> Statistics:
    """Run every batch once and observe the inputs of layers, in memory that does not grow with the data.

    Parameters
    ----------
    model : Model
        In float32; it is not changed.
    batches : iterable of mapping of str to array_like
        Inputs for ``model.run``. Read once, so a generator will do; shapes may vary.
    recipe : Recipe
        Says which layers to observe, those whose rule has a ``Static`` input, and with which observer
        (``MinMax`` where a rule names none).
    progress : None, bool or callable, optional
        Called as ``progress(done, total)`` after each batch; True shows a bar.
    stats : Statistics, optional
        To go on from, and to fill: those of a former run, or ``Statistics()``. They hold every batch that ran
        in whole also when this call ends in an error or is interrupted, ``stats.batches`` of them; pass the
        batches that are left. For that, the states before a batch are kept while it runs.
    collect : sequence of Statistic, optional
        What else to collect at the inputs of the products whose weights a rule quantizes, such as `Gram`.
        They stay as they are: each layer has one of its own.

    Returns
    -------
    Statistics
        ``stats`` itself where it was given.

    Raises
    ------
    QrsValueError
        When there are no batches, the recipe observes nothing and nothing is collected, ``stats`` are of
        other layers or settings, or a layer's input is not finite (layer and batch are named). What the
        iterable itself raises passes through.

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
    kinds = expect_all(collect, Statistic, "collect")  # type: ignore[type-abstract]
    wanted = _wanted(model, recipe, kinds)
    if stats is None:
        stats = wanted
    else:
        expect(stats, Statistics, "stats", "; Statistics() holds nothing yet")
        _go_on(stats, wanted)
    for batch in track(batches, progress, "calibrate"):
        with _in_batch(stats.batches):
            _observe(model, batch, stats)
    if not stats.batches:
        raise QrsValueError("no calibration data: batches is empty")
    return stats


def _wanted(model: Model, recipe: Recipe, collect: Sequence[Statistic]) -> Statistics:
    """Make the statistics of all layers that are to be observed, without data."""
    observers: dict[str, Observer] = {}
    collected = {}
    for name, rule in recipe.assign(model.layers).items():
        if rule.weight is None or "input" not in model.layers[name].attributes():
            continue
        if isinstance(rule.input, Static):
            observer = rule.input.observer
            observers[name] = observer.fresh() if isinstance(observer, Observer) else MinMax()
        if collect:
            collected[name] = [each.fresh() for each in collect]
    if not observers and not collected:
        raise QrsValueError(
            "no layer of the model has a Static input in this recipe and collect names nothing: "
            "there is nothing to calibrate"
        )
    return Statistics(observers, collected)


def _go_on(stats: Statistics, wanted: Statistics) -> None:
    """Refuse statistics of another calibration; fill those that hold nothing."""
    if not stats.observers and not stats.collected and not stats.batches:
        stats.observers, stats.collected = wanted.observers, wanted.collected
        return
    for name in {**stats.observers, **stats.collected, **wanted.observers, **wanted.collected}:
        seen, expected = ([each.fresh() for each in some._at(name)] for some in (stats, wanted))
        if seen != expected:
            raise QrsValueError(
                f"stats hold {quote(seen)} of layer {quote(name)}, expected {quote(expected)}; "
                f"go on with the recipe and the collect of the former run"
            )


def _observe(model: Model, batch: Mapping[str, ArrayLike], stats: Statistics) -> None:
    """Take in a batch, in whole or not at all."""
    before: dict[str, list[dict[str, Any]]] = {}

    def watch(name: str, inputs: tuple[NDArray[Any], ...]) -> None:
        statistics = stats._at(name)
        # States are replaced and never written to, so references are enough to keep one.
        before.setdefault(name, [dict(vars(each)) for each in statistics])
        for each in statistics:
            each.update(np.asarray(inputs[0]))

    try:
        model.run(batch, watch=watch)
        stats.batches += 1
    except BaseException:
        for name, states in before.items():
            for each, state in zip(stats._at(name), states, strict=True):
                vars(each).clear()
                vars(each).update(state)
        raise


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
    fields = {"batches": int, "observers": dict, "collected": dict}
    container.expect(path, metadata, _FORMAT, _VERSION, set(fields))
    found = {}
    for field, kind in fields.items():
        found[field] = container.parse_json(metadata[field], f"{path}: {field}")
        if type(found[field]) is not kind:
            raise FormatError(f"{path}: {field} is {quote(found[field])}, expected a JSON {kind.__name__}")
    observers = {}
    for name, data in found["observers"].items():
        state = _taken(f"{path}: observer {quote(name)}", name, data, arrays)
        observers[name] = _restored(f"{path}: layer {quote(name)}", Observer.from_state, data, state)
    collected: dict[str, list[Statistic]] = {}
    for name, group in found["collected"].items():
        if not isinstance(group, list) or not all(isinstance(data, dict) for data in group):
            raise FormatError(f"{path}: collected of {quote(name)} is {quote(group)}, expected objects")
        collected[name] = []
        for data in group:
            state = _taken(f"{path}: statistic {quote(name)}", f"{name}.{data.get('id')}", data, arrays)
            made = _restored(f"{path}: layer {quote(name)}", Statistic.from_state, data, state)
            collected[name].append(made)
    if arrays:
        raise FormatError(f"{path}: arrays {quote(sorted(arrays))} belong to no statistic")
    try:
        return Statistics(observers, collected, found["batches"])
    except QrsError as error:
        raise FormatError(f"{path}: {error}") from error


def _taken(what: str, prefix: str, data: object, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Take the arrays that a statistic names from those of the file."""
    keys = data.pop("arrays", None) if isinstance(data, dict) else None
    if not isinstance(keys, list) or any(f"{prefix}.{key}" not in arrays for key in keys):
        raise FormatError(f"{what} names arrays {quote(keys)}, which the file does not hold")
    return {key: arrays.pop(f"{prefix}.{key}") for key in keys}


def _restored(what: str, build: Callable[..., S], data: object, state: dict[str, NDArray[Any]]) -> S:
    try:
        return build(data, state)
    except QrsError as error:
        raise FormatError(f"{what}: {error}") from error
