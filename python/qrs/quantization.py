"""Apply a recipe to a model: every weight that a rule names becomes a ``QTensor``, and a report says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .calibration import Statistics
from .errors import NotCalibratedError, QrsError, QrsValueError, expect, quote
from .metrics import compare
from .model import Model
from .nn.base import Layer, identity, named
from .ops import Dynamic, Static, quantize
from .progress import Progress, track
from .qtensor import QTensor
from .recipe import Recipe, Rule
from .report import Report, Row

__all__ = ["quantize_model"]


def quantize_model(
    model: Model, recipe: Recipe, stats: Statistics | None = None, progress: Progress = None
) -> tuple[Model, Report]:
    """Quantize the weights and inputs of a model as a recipe says.

    Parameters
    ----------
    model : Model
        Stays as it is, also when an error is raised.
    recipe : Recipe
    stats : Statistics, optional
        From :func:`qrs.calibrate`; needed when a rule has a ``Static`` input.
    progress : None, bool or callable, optional
        Called as ``progress(done, total)`` after each layer; True shows a bar.

    Returns
    -------
    model : Model
        Shares every array that was not quantized. An array that several layers share is quantized once.
    report : Report
        Every layer, and for each that was left as it is the reason.

    Raises
    ------
    QrsValueError
        When the model has no layer that could be quantized, a rule decides for no layer, or a weight cannot
        be quantized as asked (the layer is named).
    NotCalibratedError
        When layers with a static input were not calibrated; all of them are listed.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> model = qrs.Model.chain({"head": qrs.nn.Linear(np.eye(2, dtype=np.float32))})
    >>> small, report = qrs.quantize_model(model, qrs.Recipe.preset("w8a8-dynamic"))
    >>> small.layers["head"].weight.scheme, report
    (Scheme('int8', per_channel(0)), Report(1 of 1 layers quantized, 16 -> 12 bytes))
    """
    expect(model, Model, "model")
    expect(recipe, Recipe, "recipe", "; Recipe.preset(name) makes one")
    if stats is not None:
        expect(stats, Statistics, "stats", "; qrs.calibrate makes one")
    if not any(layer.slots for layer in model.layers.values()):
        kinds = sorted({layer.id for layer in model.layers.values()})
        raise QrsValueError(f"the model has no layer that can be quantized; it has {quote(kinds)}")
    rules = recipe.assign(model.layers)
    reasons = {name: _reason(layer, rules.get(name)) for name, layer in model.layers.items()}
    chosen = {name: rules[name] for name, reason in reasons.items() if reason is None}
    _check_calibrated(model, chosen, stats)

    done: dict[tuple[Any, ...], tuple[QTensor, float]] = {}
    changed: dict[str, Layer] = {}
    rows = []
    for name, layer in track(model.layers.items(), progress, "quantize"):
        before = _nbytes(layer)
        if name not in chosen:
            row = Row(name=name, kind=layer.id, bytes_before=before, bytes_after=before, reason=reasons[name])
        else:
            try:
                changed[name], row = _quantized(name, layer, chosen[name], stats, done)
            except QrsError as error:
                raise named(name, error) from error
        rows.append(row)
    result = model.with_layers(changed).with_recipe(recipe)
    return result, Report(rows, model.nbytes, result.nbytes)


def _reason(layer: Layer, rule: Rule | None) -> str | None:
    """Say why a layer is left as it is; None when it is to be quantized."""
    if layer.layers():
        return "holds the layers below"
    if not layer.slots:
        return layer.remark
    if rule is None:
        return "no rule matches"
    if rule.weight is None:
        return f"kept by rule {rule.pattern!r}"
    if any(isinstance(layer.arrays().get(slot), QTensor) for slot in layer.slots):
        return "is quantized already"
    return None


def _check_calibrated(model: Model, chosen: Mapping[str, Rule], stats: Statistics | None) -> None:
    seen = {} if stats is None else stats.observers
    missing = [
        name
        for name, rule in chosen.items()
        if isinstance(rule.input, Static) and _multiplies(model.layers[name]) and name not in seen
    ]
    empty = [name for name in chosen if name in seen and not seen[name].batches]
    if missing or empty:
        raise NotCalibratedError(
            f"layers {missing + empty} have a static input and were not calibrated; "
            f"run qrs.calibrate with this recipe and pass its result as stats"
        )


def _quantized(
    name: str,
    layer: Layer,
    rule: Rule,
    stats: Statistics | None,
    done: dict[tuple[Any, ...], tuple[QTensor, float]],
) -> tuple[Layer, Row]:
    scheme = rule.weight
    if scheme is None:
        raise QrsValueError(f"rule {rule.pattern!r} has no weight scheme")
    parts: dict[str, Any] = {}
    noise = []
    for slot in layer.slots:
        array = layer.arrays()[slot]
        key = (*identity(array), scheme)
        if key not in done:
            q = quantize(np.asarray(array), scheme)
            done[key] = q, compare(np.asarray(array), q.dequantize()).sqnr_db
        parts[slot] = done[key][0]
        noise.append(done[key][1])
    reason = None
    if rule.input is not None:
        if _multiplies(layer):
            wanted, reason = layer.suited(rule.input)
            parts["input"] = _with_ranges(name, wanted, stats)
        else:
            reason = f"input is left as it is: {layer.id} multiplies nothing"
    new = layer.replace(**parts)
    row = Row(
        name=name,
        kind=layer.id,
        weight=scheme,
        input=parts.get("input"),
        bytes_before=_nbytes(layer),
        bytes_after=_nbytes(new),
        sqnr_db=min(noise),
        reason=reason,
    )
    return new, row


def _with_ranges(name: str, input: Dynamic | Static, stats: Statistics | None) -> Dynamic | Static:
    """Give a static input the parameters of the ranges that calibration saw."""
    if isinstance(input, Dynamic) or stats is None:
        return input
    return Static(input.scheme, qparams=stats.qparams(name, input.scheme))


def _multiplies(layer: Layer) -> bool:
    return "input" in layer.attributes()


def _nbytes(layer: Layer) -> int:
    return sum(array.nbytes for array in layer.arrays().values())
