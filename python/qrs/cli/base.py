"""What the commands share: what a command gives back, files that it reads, texts that it writes."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import container, io, onnx
from ..errors import FormatError, QrsValueError, quote
from ..model import Model
from ..onnx.base import package
from ..ops import Static
from ..recipe import Recipe

__all__ = [
    "Batch",
    "Result",
    "batches",
    "columns",
    "is_static",
    "load",
    "progress",
    "random_batch",
    "recipe_of",
]

Batch = dict[str, NDArray[Any]]
MODELS = (".onnx", ".qrs")


@dataclass(frozen=True, slots=True)
class Result:
    """What a command found.

    Attributes
    ----------
    text : str
        For people.
    data : dict
        For programs: JSON values, whose keys stay as they are.
    code : int
        0, or 1 where the result is not the wanted one.
    """

    text: str
    data: dict[str, Any] = field(default_factory=dict)
    code: int = 0


def progress() -> bool:
    """Whether somebody watches: bars go to the standard error stream of a terminal alone."""
    return sys.stderr.isatty()


def load(path: str) -> Model:
    """Read a model by the ending of its name.

    Raises
    ------
    QrsValueError
        When the ending is neither.
    FormatError, OSError
        When the file is damaged or cannot be opened.
    """
    return onnx.load(path) if ending(path, "MODEL") == ".onnx" else io.load(path)


def ending(path: str, what: str) -> str:
    """Give the ending of a model's file, checked."""
    found = os.path.splitext(path)[1].lower()
    if found not in MODELS:
        raise QrsValueError(f"{what} is {quote(path)}, expected a name that ends in {' or '.join(MODELS)}")
    return found


def writable(path: str | None, option: str, kept: Mapping[str, str | None]) -> None:
    """Refuse a file that cannot be written, or one that is read or written besides, before any work is lost.

    Parameters
    ----------
    path : str or None
        What is to be written, if it is.
    option : str
        Which names it.
    kept : mapping of str to str or None
        Other files of the command, by what they are.

    Raises
    ------
    QrsValueError
    """
    if path is None:
        return
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise QrsValueError(f"{option} is {quote(path)}, whose folder does not exist; make it first")
    for what, other in kept.items():
        if other is not None and _is_same(path, other):
            raise QrsValueError(f"{option} {quote(path)} is {what} itself; name another file")


def _is_same(path: str, other: str) -> bool:
    if os.path.exists(path) and os.path.exists(other):
        return os.path.samefile(path, other)
    return os.path.realpath(path) == os.path.realpath(other)


def batches(path: str, model: Model, size: int) -> list[Batch]:
    """Read an ``.npz`` file of samples and cut it into batches.

    Parameters
    ----------
    path : str
        One array for each input of the model, samples along the first axis; float64 is rounded to float32.
    model : Model
    size : int
        Samples of a batch; the last one may have fewer.

    Returns
    -------
    list of dict of str to ndarray

    Raises
    ------
    FormatError
        When it is no such file.
    QrsValueError
        When arrays are missing or unknown, are empty, or have other numbers of samples.
    """
    arrays = _arrays(path)
    if set(arrays) != set(model.inputs):
        raise QrsValueError(
            f"{path} has arrays {quote(sorted(arrays))}, expected one for each input: "
            f"{quote(list(model.inputs))}"
        )
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    count = next(iter(counts.values()), 0)
    if not count or set(counts.values()) != {count}:
        raise QrsValueError(
            f"{path} has samples {counts}, expected one number of them, from 1, in all arrays"
        )
    # NumPy makes float64 of most things; models of float32 would compute in it, and their files refuse it.
    arrays = {name: a.astype(np.float32) if a.dtype == np.float64 else a for name, a in arrays.items()}
    return [{name: a[i : i + size] for name, a in arrays.items()} for i in range(0, count, size)]


def _arrays(path: str) -> Batch:
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            raise FormatError(
                f"{path} is a single array (.npy); write it with np.savez(path, input_name=array)"
            )
        with found:
            return dict(found)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path} is no .npz file of arrays: {error}") from error


def random_batch(path: str, size: int) -> Batch:
    """Make up inputs of the shapes that an ONNX file declares; free lengths are ``size`` first, else 1.

    Raises
    ------
    QrsValueError
        When the file declares none.
    """
    proto = package().load(path, load_external_data=False)
    held = {tensor.name for tensor in proto.graph.initializer}
    rng, made = np.random.default_rng(0), {}
    for value in proto.graph.input:
        declared = value.type.tensor_type
        if value.name in held:
            continue
        if not declared.HasField("shape"):
            raise QrsValueError(
                f"input {quote(value.name)} of {path} declares no shape; give --calib data.npz"
            )
        lengths = [axis.dim_value or (1 if i else size) for i, axis in enumerate(declared.shape.dim)]
        dtype = package("onnx.helper").tensor_dtype_to_np_dtype(declared.elem_type)
        is_float = dtype.kind == "f" or dtype.name == "bfloat16"
        made[value.name] = (rng.standard_normal(lengths) if is_float else np.zeros(lengths)).astype(dtype)
    return made


def recipe_of(text: str) -> Recipe:
    """Take a recipe by the name of a preset, or from a file that ends in ``.json``."""
    if not text.endswith(".json"):
        return Recipe.preset(text)
    with open(text, "rb") as file:
        return Recipe.from_json(file.read())


def is_static(recipe: Recipe) -> bool:
    """Whether a recipe asks for ranges that only data gives."""
    return any(isinstance(rule.input, Static) for rule in recipe.rules)


def columns(lines: Sequence[Sequence[str]], numbers: set[int]) -> str:
    """Set lines of cells in columns, those in ``numbers`` to the right.

    Examples
    --------
    >>> print(columns([("layer", "ms"), ("head", "12.5")], {1}))
    layer    ms
    head   12.5
    """
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in numbers else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def decibels(told: Mapping[str, float | None]) -> str:
    """Write what `Noise.to_dict` gave."""
    value = told["sqnr_db"]
    if value is None:
        return "equal" if told["ratio"] == 0 else "lost"
    return f"{value:.1f}"


def write_text(path: str, text: str) -> None:
    """Write a file, completely or not at all."""
    container.replace_file(container.file_name(path), lambda file: file.write(text.encode()))
