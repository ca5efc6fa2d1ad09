"""``qrs calibrate`` and ``qrs quantize``."""

from __future__ import annotations

import argparse
import math
import os
from typing import Any

from .. import onnx
from ..calibration import Statistics, calibrate, load_stats
from ..diagnosis import Diagnosis, Differences, diagnose, differences, page
from ..errors import QrsValueError, quote
from ..model import Model
from ..quantization import quantize_model
from ..recipe import Recipe
from ..report import Report
from .base import (
    Batch,
    Result,
    batches,
    decibels,
    ending,
    is_static,
    load,
    progress,
    random_batch,
    recipe_of,
    writable,
    write_text,
)

__all__ = ["run_calibrate", "run_quantize"]


def run_calibrate(args: argparse.Namespace) -> Result:
    """Collect the ranges of static inputs, and write them to a file.

    Parameters
    ----------
    args : argparse.Namespace

    Returns
    -------
    Result
    """
    merged = {f"the file {quote(path)} of --merge": path for path in args.merge}
    writable(args.output, "-o", {"the model": args.model, "the data": args.calib, **merged})
    model, recipe = load(args.model), recipe_of(args.recipe)
    if not is_static(recipe):
        raise QrsValueError(f"recipe {args.recipe} has no static inputs: there is nothing to calibrate")
    given = batches(args.calib, model, args.batch)
    stats = calibrate(model, given, recipe, progress())
    for path in args.merge:
        stats = stats.merge(load_stats(path))
    stats.save(args.output)
    scheme = {
        name: rule.input.scheme
        for name, rule in recipe.assign(model.layers).items()
        if rule.input is not None
    }
    ranges = {
        name: [float(end) for end in observer.range(scheme[name])]
        for name, observer in stats.observers.items()
        if name in scheme
    }
    data = {"model": args.model, "output": args.output, "batches": len(given), "ranges": ranges}
    return Result(f"{len(ranges)} layers observed in {len(given)} batches: {args.output}", data)


def run_quantize(args: argparse.Namespace) -> Result:
    """Quantize a model, measure what it cost where there is data, and write it.

    Parameters
    ----------
    args : argparse.Namespace

    Returns
    -------
    Result
        With code 1 where the output's SQNR is below ``--fail-below``; then no model is written.
    """
    kind = _check(args)
    model = load(args.model)
    has_ranges = args.calib is not None or args.stats is not None
    name = args.recipe or ("w8a8-static" if has_ranges else "w8a8-dynamic")
    recipe = recipe_of(name)
    given = [] if args.calib is None else batches(args.calib, model, args.batch)
    small, report = quantize_model(model, recipe, _statistics(args, model, recipe, given), progress())
    seen: Diagnosis | Differences | None = None
    if given:
        measured = given[: args.measure]
        seen = (diagnose if args.report else differences)(model, small, measured, progress())
    noise = seen.differences if isinstance(seen, Diagnosis) else seen
    missed = noise is not None and args.fail_below is not None and noise.total.sqnr_db < args.fail_below
    if not missed:
        _save(args, small, given, kind)
    if args.report is not None:
        title = f"{os.path.basename(args.model)}, {os.path.basename(name)}"
        write_text(args.report, page(report, seen if isinstance(seen, Diagnosis) else None, title))
    data = {
        "model": args.model,
        "output": None if missed else args.output,
        "recipe": name,
        "report": args.report,
        "batches": len(given),
        "measured_batches": min(len(given), args.measure),
        "sqnr": None if noise is None else noise.total.to_dict(),
        "diagnosis": seen.to_dict() if isinstance(seen, Diagnosis) else None,
        **report.to_dict(),
    }
    return Result(_told(args, name, report, data, missed), data, int(missed))


def _check(args: argparse.Namespace) -> str:
    """Refuse, before any work, what cannot end well; give the ending of the output."""
    ending(args.model, "MODEL")
    kind = ending(args.output, "-o")
    kept = {"the model": args.model, "the data": args.calib, "the file of statistics": args.stats}
    writable(args.output, "-o", kept)
    writable(args.report, "--report", {**kept, "the output": args.output})
    if args.report is not None and not args.report.lower().endswith((".html", ".htm")):
        raise QrsValueError(f"--report is {quote(args.report)}, expected a name that ends in .html")
    if args.fail_below is not None and args.calib is None:
        raise QrsValueError("--fail-below compares outputs, which takes data: give --calib data.npz")
    if args.fail_below is not None and not math.isfinite(args.fail_below):
        raise QrsValueError(f"--fail-below is {args.fail_below}, expected a number of decibels")
    return kind


def _statistics(
    args: argparse.Namespace, model: Model, recipe: Recipe, given: list[Batch]
) -> Statistics | None:
    if args.stats is not None:
        return load_stats(args.stats)
    if not is_static(recipe):
        return None
    if not given:
        names = ", ".join(model.inputs)
        raise QrsValueError(
            f"recipe {args.recipe} has static inputs, whose ranges come from data: give --calib data.npz (an "
            f"array for each input, samples first: {names}) or --stats from qrs calibrate, or take a recipe "
            f"that needs none, such as w8a8-dynamic"
        )
    return calibrate(model, given, recipe, progress())


def _save(args: argparse.Namespace, small: Model, given: list[Batch], kind: str) -> None:
    if kind == ".qrs":
        small.save(args.output)
        return
    example: Any = given[0] if given else None
    if example is None and ending(args.model, "MODEL") == ".onnx":
        example = random_batch(args.model, 1)
    onnx.save(small, args.output, example)


def _told(args: argparse.Namespace, name: str, report: Report, data: dict[str, Any], missed: bool) -> str:
    lines = [str(report), ""]
    if data["sqnr"] is not None:
        on = f"on {data['measured_batches']} of {data['batches']} batches"
        value = decibels(data["sqnr"])
        what = value if data["sqnr"]["sqnr_db"] is None else f"{value} dB signal to quantization noise"
        lines.append(f"output: {what} {on}")
    if args.report is not None:
        lines.append(f"report: {args.report}")
    if missed:
        lines.append(f"below {args.fail_below:g} dB: no model was written")
    else:
        lines.append(f"{args.output}: {len(report.quantized)} layers quantized by {name}")
    return "\n".join(lines)
