"""``qrs inspect``: the layers of a file, and what a recipe would make of them."""

from __future__ import annotations

import argparse
from typing import Any

from ..diagnosis.base import is_quantized
from ..model import Model
from ..qtensor import QTensor
from ..quantization import quantize_model
from ..recipe import Recipe, Rule
from ..report import input_text
from .base import Result, columns, load, progress, recipe_of

__all__ = ["run_inspect"]


def run_inspect(args: argparse.Namespace) -> Result:
    """List the layers of a model, and the plan of a recipe for those in float32.

    Parameters
    ----------
    args : argparse.Namespace

    Returns
    -------
    Result
    """
    model = load(args.model)
    layers = [_layer(name, model) for name in model.layers]
    data: dict[str, Any] = {
        "file": args.model,
        "inputs": list(model.inputs),
        "outputs": list(model.outputs),
        "recipe": None if model.recipe is None else model.recipe.to_dict(),
        "bytes": model.nbytes,
        "layers": layers,
        "plan": None,
    }
    graph = f"{', '.join(model.inputs)} -> {', '.join(model.outputs)}"
    lines = [("layer", "kind", "shape", "weight", "input", "bytes"), *map(_cells, layers)]
    text = [f"{graph}: {len(layers)} layers, {model.nbytes:,} bytes", "", columns(lines, {5})]
    floats = any(layer.slots and not is_quantized(layer) for layer in model.layers.values())
    if args.recipe is not None or floats:
        name = args.recipe or "w8a8-dynamic"
        data["plan"], shown = _plan(model, name)
        text += ["", f"what {name} would do (qrs quantize --recipe {name}):", "", shown]
    return Result("\n".join(text), data)


def _layer(name: str, model: Model) -> dict[str, Any]:
    layer = model.layers[name]
    arrays = layer.arrays()
    slot = next((arrays[slot] for slot in layer.slots if slot in arrays), None)
    given = getattr(layer, "input", None) if "input" in layer.attributes() else None
    return {
        "name": name,
        "kind": layer.id,
        "shape": None if slot is None else list(slot.shape),
        "weight": repr(slot.scheme) if isinstance(slot, QTensor) else None,
        "input": input_text(given),
        "bytes": sum(array.nbytes for array in arrays.values()),
    }


def _cells(layer: dict[str, Any]) -> tuple[str, ...]:
    shape = "" if layer["shape"] is None else " x ".join(map(str, layer["shape"]))
    weight = layer["weight"] or ("float32" if shape else "")
    return layer["name"], layer["kind"], shape, weight, layer["input"] or "", f"{layer['bytes']:,}"


def _plan(model: Model, name: str) -> tuple[dict[str, Any], str]:
    """Quantize the weights as the recipe says; its inputs need no data to be named."""
    recipe = recipe_of(name)
    weights = Recipe([Rule(rule.pattern, rule.weight) for rule in recipe.rules])
    _, report = quantize_model(model, weights, progress=progress())
    rules = recipe.assign(model.layers)
    rows, lines = [], [("layer", "weight", "input", "bytes after", "weight dB", "remark")]
    for row in report.rows:
        told, layer = row.to_dict(), model.layers[row.name]
        wanted = rules[row.name].input if row.weight is not None else None
        remark = row.reason
        if wanted is not None and "input" in layer.attributes():
            wanted, remark = layer.suited(wanted)
        elif wanted is not None:
            wanted, remark = None, f"input is left as it is: {layer.id} multiplies nothing"
        rows.append({**told, "input": input_text(wanted), "reason": remark})
        decibels = "" if told["sqnr_db"] is None else f"{told['sqnr_db']:.1f}"
        scheme = "" if row.weight is None else f"{row.weight.dtype} {row.weight.granularity!r}"
        given = input_text(wanted) or ""
        lines.append((row.name, scheme, given, f"{row.bytes_after:,}", decibels, remark or ""))
    lines.append(("total", "", "", f"{report.bytes_after:,}", "", f"of {report.bytes_before:,}"))
    data = {"recipe": name, "bytes": report.bytes_after, "layers": rows}
    return data, columns(lines, {3, 4})
