"""``qrs diff`` and ``qrs bench``: what a quantized model loses, and what it gains."""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np

from ..calibration import calibrate
from ..diagnosis import Times, differences, times
from ..diagnosis.base import is_quantized
from ..diagnosis.differences import counterparts
from ..diagnosis.times import busy, load_of_machine
from ..errors import QrsValueError, quote
from ..model import Model
from ..qtensor import QTensor
from ..quantization import quantize_model
from .base import (
    Batch,
    Result,
    batches,
    columns,
    decibels,
    ending,
    is_static,
    load,
    progress,
    random_batch,
    recipe_of,
)

__all__ = ["run_bench", "run_diff"]

# Less than this is within the spread of medians on a machine that does something else as well.
_SLOWER = 1.05


def run_diff(args: argparse.Namespace) -> Result:
    """Compare two models on the same data: their outputs, and the layers that both have.

    Parameters
    ----------
    args : argparse.Namespace

    Returns
    -------
    Result
        With code 1 where the output's SQNR is below ``--fail-below``.
    """
    if args.fail_below is not None and not math.isfinite(args.fail_below):
        raise QrsValueError(f"--fail-below is {args.fail_below}, expected a number of decibels")
    one, two = load(args.a), load(args.b)
    given = batches(args.calib, one, args.batch)
    seen = differences(one, two, given, progress())
    worst = seen.worst if args.worst is None else seen.worst[: args.worst]
    missed = args.fail_below is not None and seen.total.sqnr_db < args.fail_below
    data = {
        "a": args.a,
        "b": args.b,
        "batches": len(given),
        "sqnr": seen.total.to_dict(),
        "outputs": {name: noise.to_dict() for name, noise in seen.outputs.items()},
        "layers": [{"name": name, **noise.to_dict()} for name, noise in worst],
    }
    lines = [("output", "SQNR dB"), *((name, decibels(told)) for name, told in data["outputs"].items())]
    text = [columns(lines, {1}), ""]
    if worst:
        told = [("layer, worst first", "SQNR dB"), *((name, decibels(n.to_dict())) for name, n in worst)]
        text.append(columns(told, {1}))
    else:
        text.append("the models have no layer names in common")
    if missed:
        text += ["", f"below {args.fail_below:g} dB"]
    return Result("\n".join(text), data, int(missed))


def run_bench(args: argparse.Namespace) -> Result:
    """Time a model and its counterpart in turns, layer by layer.

    Parameters
    ----------
    args : argparse.Namespace

    Returns
    -------
    Result
    """
    model = load(args.model)
    batch = _batch(args, model)
    before, after, against = _pair(args, model, batch)
    floats, codes = times([before, after], batch, args.runs, progress())
    kinds = {name: layer for name, layer in after.layers.items() if name in codes.layers}
    same = counterparts(before, after)
    rows = [
        {
            "name": name,
            "before": floats.layers.get(same.get(name, name)),
            "after": codes.layers[name],
            "is_quantized": is_quantized(layer),
        }
        for name, layer in kinds.items()
    ]
    losing = [row["name"] for row in rows if row["is_quantized"] and _loses(row)]
    data = {
        "file": args.model,
        "against": against,
        "runs": args.runs,
        "inputs": {name: {"shape": list(a.shape), "dtype": a.dtype.name} for name, a in batch.items()},
        "milliseconds": {"before": floats.total, "after": codes.total},
        "layers": rows,
        "keep_float": losing,
        "load": load_of_machine(),
    }
    return Result(_told(data, floats, codes), data)


def _loses(row: dict[str, Any]) -> bool:
    return row["before"] is not None and row["after"] > _SLOWER * row["before"]


def _batch(args: argparse.Namespace, model: Model) -> Batch:
    if args.calib is not None:
        return batches(args.calib, model, args.batch)[0]
    if ending(args.model, "FILE") != ".onnx":
        raise QrsValueError(f"{args.model} declares no shapes of its inputs: give --calib data.npz")
    return random_batch(args.model, args.batch)


def _pair(args: argparse.Namespace, model: Model, batch: Batch) -> tuple[Model, Model, str]:
    """Give the float model, the quantized one, and what the file is compared with."""
    has_codes = any(is_quantized(layer) for layer in model.layers.values())
    if args.against is not None:
        if args.recipe is not None:
            raise QrsValueError("give --against or --recipe, not both")
        other = load(args.against)
        # The side with codes is "after", whichever was named first.
        other_has = any(is_quantized(layer) for layer in other.layers.values())
        pair = (model, other) if other_has and not has_codes else (other, model)
        if sorted(model.inputs) != sorted(other.inputs):
            raise QrsValueError(
                f"{args.against} takes {quote(list(other.inputs))}, not {quote(list(model.inputs))}"
            )
        return *pair, args.against
    if has_codes:
        if args.recipe is not None:
            raise QrsValueError(f"{args.model} is quantized already; leave --recipe out")
        return _decoded(model), model, "the same with decoded weights"
    name = args.recipe or "w8a8-dynamic"
    recipe = recipe_of(name)
    stats = calibrate(model, [batch], recipe) if is_static(recipe) else None
    return model, quantize_model(model, recipe, stats)[0], f"the same quantized by {name}"


def _decoded(model: Model) -> Model:
    """Give a quantized model the float32 weights that its codes stand for."""
    changed = {}
    for name, layer in model.layers.items():
        if is_quantized(layer):
            parts: dict[str, Any] = {
                slot: np.asarray(array)
                for slot, array in layer.arrays().items()
                if isinstance(array, QTensor)
            }
            parts |= {"input": None} if "input" in layer.attributes() else {}
            changed[name] = layer.replace(**parts)
    return model.with_layers(changed)


def _told(data: dict[str, Any], before: Times, after: Times) -> str:
    lines = [("layer", "ms before", "ms after", "times as fast", "")]
    for row in data["layers"]:
        first = "" if row["before"] is None else f"{row['before']:.3f}"
        gain = "" if not row["before"] else f"{row['before'] / row['after']:.2f}"
        lines.append(
            (row["name"], first, f"{row['after']:.3f}", gain, "quantized" if row["is_quantized"] else "")
        )
    lines.append(
        ("whole run", f"{before.total:.3f}", f"{after.total:.3f}", f"{before.total / after.total:.2f}", "")
    )
    shapes = ", ".join(f"{name} {told['dtype']}{told['shape']}" for name, told in data["inputs"].items())
    text = [
        f"{data['file']} and {data['against']}; {shapes}; medians of {data['runs']} runs in turns",
        "",
        columns(lines, {1, 2, 3}),
        "",
    ]
    if data["keep_float"]:
        text.append("slower quantized; a rule with weight=None keeps them in float32:")
        text += [f"  {name}" for name in data["keep_float"]]
    else:
        text.append("no quantized layer is slower than in float32")
    if told := busy(data["load"]):
        text.append(told)
    return "\n".join(text)
