"""The command line: ``qrs quantize``, ``calibrate``, ``inspect``, ``diff``, ``bench`` and ``doctor``.

Results go to the standard output, as text or, with ``--json``, as one object; progress and errors go to the
standard error stream. The exit code is 0, 1 for a result that is not the wanted one (a threshold missed),
2 for wrong usage or input, 130 after an interruption.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from .._core import __version__
from ..errors import QrsError
from ..machine import set_num_threads
from ..recipe import Recipe
from .base import Result
from .doctor import run_doctor
from .inspect import run_inspect
from .measure import run_bench, run_diff
from .quantize import run_calibrate, run_quantize

__all__ = ["main"]

_INTERRUPTED, _USAGE, _CLOSED = 130, 2, 141
_PRESETS = ", ".join(Recipe.presets())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the process by default.

    Returns
    -------
    int
        The exit code.

    Examples
    --------
    >>> main(["inspect", "model.txt"])
    2
    """
    try:
        args = _parser().parse_args(arguments)
    except SystemExit as stop:  # argparse has said why
        return stop.code if isinstance(stop.code, int) else _USAGE
    try:
        if args.threads is not None:
            set_num_threads(args.threads)
        result: Result = args.run(args)
        _tell(args, result)
        return result.code
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return _INTERRUPTED
    except BrokenPipeError:
        # Who read has left; what Python would still flush at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _CLOSED
    except (QrsError, OSError, OverflowError, MemoryError) as error:
        if args.debug:
            traceback.print_exc()
        sys.stderr.write(f"error: {_message(error)}\n")
        return _USAGE


def _tell(args: argparse.Namespace, result: Result) -> None:
    text = result.text
    if args.json:
        text = json.dumps({"command": args.command, **result.data}, indent=2, allow_nan=False)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qrs", description="Quantize models, and see what it costs.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"qrs {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], Result], told: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=told, description=told, allow_abbrev=False)
        made.add_argument("--json", action="store_true", help="one JSON object instead of text")
        made.add_argument("--debug", action="store_true", help="show where an error came from")
        made.add_argument("--threads", type=int, metavar="N", help="threads of the core")
        made.set_defaults(run=run)
        return made

    _add_quantize(command("quantize", run_quantize, "Quantize a model and report what it cost."))
    _add_calibrate(command("calibrate", run_calibrate, "Collect the ranges of static inputs in a file."))
    made = command(
        "inspect", run_inspect, "List the layers of a model, and what a recipe would do with them."
    )
    made.add_argument("model", metavar="FILE", help=".onnx or .qrs")
    made.add_argument("--recipe", metavar="NAME", help=f"whose plan to show: {_PRESETS}, or a .json file")
    made = command("diff", run_diff, "Compare two models on data, layer by layer, worst first.")
    made.add_argument("a", metavar="A", help="the one that is right, .onnx or .qrs")
    made.add_argument("b", metavar="B")
    _add_data(made, required=True)
    made.add_argument("--worst", type=_positive, metavar="N", help="show the N worst layers only")
    made.add_argument(
        "--fail-below", type=float, metavar="DB", help="exit with 1 if the output's SQNR is lower"
    )
    made = command("bench", run_bench, "Time a model in float32 and quantized, layer by layer, in turns.")
    made.add_argument("model", metavar="FILE", help=".onnx or .qrs")
    made.add_argument("--against", metavar="FILE", help="the other model, instead of one made from FILE")
    made.add_argument("--recipe", metavar="NAME", help="how to quantize FILE (default: w8a8-dynamic)")
    _add_data(made, required=False)
    made.add_argument("--runs", type=_positive, default=20, metavar="N", help="of each model (default: 20)")
    command("doctor", run_doctor, "Tell version, instruction set, threads, kernels and packages, and why.")
    return parser


def _add_quantize(made: argparse.ArgumentParser) -> None:
    made.add_argument("model", metavar="MODEL", help=".onnx or .qrs")
    made.add_argument(
        "-o", "--output", required=True, metavar="OUT", help=".qrs or .onnx; appears when complete"
    )
    made.add_argument(
        "--recipe",
        metavar="NAME",
        help=f"{_PRESETS}, or a .json file (default: w8a8-static with data or --stats, else w8a8-dynamic)",
    )
    _add_data(made, required=False)
    made.add_argument(
        "--stats", metavar="FILE", help="ranges from qrs calibrate, instead of those of --calib"
    )
    made.add_argument("--report", metavar="HTML", help="write a page with tables and plots")
    made.add_argument(
        "--measure", type=_positive, default=4, metavar="N", help="batches to measure noise with (default: 4)"
    )
    made.add_argument(
        "--fail-below", type=float, metavar="DB", help="write no model, exit with 1, if the SQNR is lower"
    )


def _add_calibrate(made: argparse.ArgumentParser) -> None:
    made.add_argument("model", metavar="MODEL", help=".onnx or .qrs")
    made.add_argument("-o", "--output", required=True, metavar="STATS", help="appears when complete")
    made.add_argument(
        "--recipe", default="w8a8-static", metavar="NAME", help="whose static inputs to observe (%(default)s)"
    )
    _add_data(made, required=True)
    made.add_argument(
        "--merge",
        nargs="+",
        default=[],
        metavar="STATS",
        help="add what was seen elsewhere, by the same recipe",
    )


def _add_data(made: argparse.ArgumentParser, required: bool) -> None:
    told = "an .npz file: one array for each input, samples first"
    made.add_argument("--calib", required=required, metavar="DATA", help=told)
    made.add_argument(
        "--batch", type=_positive, default=1, metavar="N", help="samples of a batch (default: 1)"
    )


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return number
