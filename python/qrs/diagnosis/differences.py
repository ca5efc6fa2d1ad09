"""Where two models part: the noise at the outputs and after each layer that both have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import QrsValueError, expect, quote
from ..model import Model
from ..progress import Progress, track
from .base import Noise, comparable

__all__ = ["Differences", "counterparts", "differences"]


@dataclass(frozen=True, slots=True)
class Differences:
    """What `differences` measured.

    Attributes
    ----------
    outputs, layers : dict of str to Noise
        By name of the output, and of the layer, in order of execution.
    """

    outputs: dict[str, Noise]
    layers: dict[str, Noise]

    @property
    def total(self) -> Noise:
        """The noise of all outputs together."""
        return sum(self.outputs.values(), Noise())

    @property
    def worst(self) -> list[tuple[str, Noise]]:
        """The layers, most noise first."""
        return sorted(self.layers.items(), key=lambda item: -item[1].ratio)


def differences(
    exact: Model, given: Model, batches: Iterable[Mapping[str, ArrayLike]], progress: Progress = None
) -> Differences:
    """Run two models on the same batches and compare what they compute, layer by layer.

    The noise after a layer is its own and what it inherits from the layers before. One batch of outputs is in
    memory at a time.

    Parameters
    ----------
    exact, given : Model
        With the same inputs and outputs, by name.
    batches : iterable of mapping of str to array_like
    progress : None, bool or callable, optional
        Called as ``progress(done, total)`` after each batch; True shows a bar.

    Returns
    -------
    Differences
        Of layers that both models have, by name or by the value that they write, and whose outputs have one
        shape and hold floats.

    Raises
    ------
    QrsValueError
        When the models have other inputs or outputs, the shapes of outputs differ, or there are no batches.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> layer = qrs.nn.Linear(np.float32([[1, 0.3], [0.2, 1]]))
    >>> model = qrs.Model.chain({"head": layer})
    >>> small, _ = qrs.quantize_model(model, qrs.Recipe([qrs.Rule("*", "int4")]))
    >>> seen = differences(model, small, [{"x": np.float32([[1, 2]])}])
    >>> round(seen.total.sqnr_db), seen.total == seen.layers["head"]
    (33, True)
    """
    expect(exact, Model, "exact")
    expect(given, Model, "given")
    for what in ("inputs", "outputs"):
        one, other = (sorted(getattr(model, what)) for model in (exact, given))
        if one != other:
            raise QrsValueError(f"the models have {what} {quote(one)} and {quote(other)}, expected the same")
    outputs: dict[str, Noise] = {}
    same = counterparts(exact, given)
    layers = {name: Noise() for name in exact.layers if name in same.values()}
    for batch in track(batches, progress, "compare"):
        ran = _run(exact, given, batch, layers, same)
        for name, noise in ran.items():
            outputs[name] = outputs.get(name, Noise()) + noise
    if not outputs:
        raise QrsValueError("nothing to compare: no batches, or no output of floats")
    return Differences(outputs, layers)


def counterparts(exact: Model, given: Model) -> dict[str, str]:
    """Give, for layers of the second model, the layer of the first that computes the same.

    Names decide. Writing a model as ONNX renames nodes but not the values between them, so nodes without a
    namesake are matched by what they write.
    """
    same = {name: name for name in given.layers if name in exact.layers}
    writers = {node.output: node.name for node in exact.nodes if node.name not in same}
    for node in given.nodes:
        if node.name not in same and node.output in writers:
            same[node.name] = writers[node.output]
    return same


def _run(
    exact: Model,
    given: Model,
    batch: Mapping[str, ArrayLike],
    layers: dict[str, Noise],
    same: Mapping[str, str],
) -> dict[str, Noise]:
    kept: dict[str, NDArray[Any]] = {}

    def keep(name: str, output: Any) -> None:
        if name in layers:
            kept.update(comparable({name: output}))

    def compare(name: str, output: Any) -> None:
        name = same.get(name, name)
        if name in layers:
            mine, other = kept.pop(name, None), comparable({name: output}).get(name)
            if mine is None or other is None or mine.shape != other.shape:
                layers.pop(name)
            else:
                layers[name] += Noise.between(mine, other)

    one = comparable(exact.run(batch, after=keep))
    two = given.run(batch, after=compare)
    return {name: Noise.between(y, np.asarray(two[name])) for name, y in one.items()}
