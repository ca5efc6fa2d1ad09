"""``qrs doctor``: what this machine does with qrs, and why."""

from __future__ import annotations

import argparse
import os
import platform
from importlib import metadata
from typing import Any

import numpy as np

from .._core import __version__
from ..machine import available_isas, get_num_threads, isa, kernels
from .base import Result, columns

__all__ = ["run_doctor"]

_OPTIONAL = {
    "onnx": "reads and writes ONNX files",
    "ml_dtypes": "reads ONNX files with bfloat16 and few-bit floats",
    "onnxruntime": "runs the ONNX files that qrs writes; qrs itself does without",
    "tqdm": "draws progress bars",
}


def run_doctor(args: argparse.Namespace) -> Result:
    """Tell version, instruction set, threads, kernels and packages, each with its reason.

    Parameters
    ----------
    args : argparse.Namespace

    Returns
    -------
    Result
    """
    forced = os.environ.get("QRS_ISA")
    runs = [kernel for kernel in kernels() if kernel["supported"]]
    data: dict[str, Any] = {
        "version": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "isa": {
            "name": isa(),
            "why": f"QRS_ISA={forced}" if forced else "the highest that this CPU runs",
            "available": available_isas(),
        },
        "threads": {"count": get_num_threads(), "why": threads_reason(args.threads), "cpus": os.cpu_count()},
        "kernels": [{"name": kernel["name"], "isa": kernel["isa"]} for kernel in runs],
        "packages": {name: _version(name) for name in _OPTIONAL},
    }
    told, threads = data["isa"], data["threads"]
    lines = [
        ("qrs", f"{data['version']}, Python {data['python']}, NumPy {data['numpy']}, {data['system']}"),
        ("instructions", f"{told['name']}: {told['why']}; available: {', '.join(told['available'])}"),
        ("threads", f"{threads['count']}: {threads['why']}; the machine has {threads['cpus']} CPUs"),
    ]
    for name, use in _OPTIONAL.items():
        lines.append((name, f"{data['packages'][name] or 'not installed'}: {use}"))
    lines += [("kernels" if not i else "", kernel["name"]) for i, kernel in enumerate(data["kernels"])]
    return Result(columns(lines, set()), data)


def threads_reason(argument: int | None) -> str:
    """Say what decided the number of threads, in the order in which the core asks."""
    if argument is not None:
        return f"--threads {argument}"
    for name in ("QRS_NUM_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(name):
            return f"{name}={os.environ[name]}"
    return "the CPUs that affinity and container limits leave"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
