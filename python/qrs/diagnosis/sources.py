"""What a quantized layer loses, and to what: rounding or clipping, of its weight or of its input.

Every layer is fed the inputs of the float model, so the noise is its own. The error of an array splits into
two that add up: with lo and hi the lowest and the highest level of its cell,

    x̂ − x = (clip(x, lo, hi) − x) + (x̂ − clip(x, lo, hi)),

clipping and rounding. Each of them alone goes through the float layer, and the energy that arrives at its
output is that source's share. Shares add up to the noise of the layer as far as the errors are uncorrelated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import QrsValueError, expect
from ..model import Model
from ..nn.base import Layer
from ..ops import Dynamic, Static, fake_quantize, quantize
from ..progress import Progress, track
from ..qtensor import QTensor
from .base import Noise, comparable, is_quantized

__all__ = ["PARTS", "Histogram", "Sources", "sources"]

F32 = NDArray[np.float32]
PARTS = ("weight rounding", "weight clipping", "activation rounding", "activation clipping")
_BINS = 48
# Beyond every level of every format, and finite when divided by the smallest scale of a sane tensor.
_FAR = np.float32(1e30)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How the values of an array lie.

    Attributes
    ----------
    counts : ndarray of int64
    lo, hi : float
        Lowest and highest value; bins are equally wide.
    ends : tuple of float, or None
        The lowest and the highest value that codes have, where that is one range for the whole array.
    """

    counts: NDArray[np.int64]
    lo: float
    hi: float
    ends: tuple[float, float] | None = None

    @classmethod
    def empty(cls, lo: float, hi: float, ends: tuple[float, float] | None = None) -> Histogram:
        """Make one that has counted nothing."""
        return cls(np.zeros(_BINS, np.int64), lo, hi if hi > lo else lo + 1.0, ends)

    def add(self, values: NDArray[Any]) -> None:
        """Count the values of an array."""
        self.counts[:] += np.histogram(values, _BINS, (self.lo, self.hi))[0]


@dataclass(frozen=True, slots=True)
class Sources:
    """What `sources` measured of one layer.

    Attributes
    ----------
    own : Noise
        At the layer's output, for the inputs of the float model.
    parts : dict of str to Noise
        What each of `PARTS` does alone.
    weight, input : Histogram
        Of the float weight, and of the layer's inputs (None where they are no floats).
    """

    own: Noise
    parts: dict[str, Noise]
    weight: Histogram
    input: Histogram | None

    def to_dict(self) -> dict[str, Any]:
        """Return noises and ranges as JSON values.

        Returns
        -------
        dict
        """
        seen = self.input
        return {
            **self.own.to_dict(),
            "parts": {name: noise.to_dict() for name, noise in self.parts.items()},
            "weight_range": [self.weight.lo, self.weight.hi],
            "input_range": None if seen is None else [seen.lo, seen.hi],
            "input_ends": None if seen is None or seen.ends is None else list(seen.ends),
        }


def sources(
    exact: Model,
    given: Model,
    batches: Sequence[Mapping[str, ArrayLike]],
    progress: Progress = None,
) -> dict[str, Sources]:
    """Measure what each quantized layer loses by itself, and to what.

    Parameters
    ----------
    exact, given : Model
        In float32, and the same with some layers quantized.
    batches : sequence of mapping of str to array_like
        Run twice, once for the ranges of the histograms.
    progress : None, bool or callable, optional
        Called as ``progress(done, total)`` after each batch; True shows a bar.

    Returns
    -------
    dict of str to Sources
        For the layers that are floats in ``exact`` and codes in ``given``, in order of execution.

    Raises
    ------
    QrsValueError
        When there are no batches.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> model = qrs.Model.chain({"head": qrs.nn.Linear(np.float32([[1, 0.3], [0.2, 1]]))})
    >>> small, _ = qrs.quantize_model(model, qrs.Recipe([qrs.Rule("*", "int4")]))
    >>> head = sources(model, small, [{"x": np.float32([[1, 2]])}])["head"]
    >>> round(head.own.sqnr_db), [part for part, noise in head.parts.items() if noise.error]
    (33, ['weight rounding'])
    """
    expect(exact, Model, "exact")
    expect(given, Model, "given")
    if not batches:
        raise QrsValueError("no batches to measure with")
    pairs = {
        name: _Pair(layer, given.layers[name])
        for name, layer in exact.layers.items()
        if name in given.layers and is_quantized(given.layers[name]) and not is_quantized(layer)
    }
    for batch in batches:
        exact.run(batch, watch=lambda name, inputs: pairs[name].reach(inputs[0]) if name in pairs else None)
    pending: dict[str, tuple[Any, ...]] = {}

    def before(name: str, inputs: tuple[Any, ...]) -> None:
        if name in pairs:
            pending[name] = inputs

    def after(name: str, output: Any) -> None:
        if name in pairs:
            pairs[name].measure(pending.pop(name), np.asarray(output))

    for batch in track(batches, progress, "measure"):
        exact.run(batch, watch=before, after=after)
    return {name: pair.result() for name, pair in pairs.items() if pair.ran}


class _Pair:
    """One layer in floats and in codes."""

    def __init__(self, exact: Layer, given: Layer) -> None:
        self.exact, self.given, self.ran = exact, given, False
        self.input = given.attributes().get("input") and given.input  # type: ignore[attr-defined]
        self.parts = dict.fromkeys(PARTS, Noise())
        self.own = Noise()
        self.lo, self.hi = np.inf, -np.inf
        self.seen: Histogram | None = None
        clipped: dict[str, Any] = {}
        rounded: dict[str, Any] = {}
        for slot in exact.slots:
            w, q = np.asarray(exact.arrays()[slot]), given.arrays()[slot]
            if isinstance(q, QTensor):
                clipped[slot] = within(w, q)
                rounded[slot] = _rounded(w, clipped[slot], q.dequantize())
        self.variants = {"weight rounding": exact.replace(**rounded)}
        if any(not np.array_equal(clipped[slot], exact.arrays()[slot]) for slot in clipped):
            self.variants["weight clipping"] = exact.replace(**clipped)

    def reach(self, x: Any) -> None:
        """Widen the range of the input's histogram."""
        x = np.asarray(x)
        if x.dtype.kind == "f" and x.size:
            self.lo, self.hi = min(self.lo, float(x.min())), max(self.hi, float(x.max()))

    def measure(self, inputs: tuple[Any, ...], y: NDArray[Any]) -> None:
        self.ran = True
        for name, layer in self.variants.items():
            self.parts[name] += Noise.between(y, layer(*inputs))
        x = comparable({"x": inputs[0]}).get("x")
        if x is not None:
            if self.seen is None:
                self.seen = Histogram.empty(self.lo, self.hi, _input_ends(self.input))
            self.seen.add(x)
        if self.input is not None and x is not None:
            clipped, rounded = _input_parts(np.asarray(x, np.float32), self.input)
            for name, changed in (("activation rounding", rounded), ("activation clipping", clipped)):
                same = changed is x or np.array_equal(changed, x)
                self.parts[name] += Noise() if same else Noise.between(y, self.exact(changed, *inputs[1:]))
        self.own += Noise.between(y, self.given(*inputs))

    def result(self) -> Sources:
        w = np.concatenate([np.asarray(self.exact.arrays()[slot]).ravel() for slot in self.exact.slots])
        weight = Histogram.empty(float(w.min(initial=0)), float(w.max(initial=0)))
        weight.add(w)
        signal = self.own.signal
        parts = {name: Noise(signal, noise.error) for name, noise in self.parts.items()}
        return Sources(self.own, parts, weight, self.seen)


def within(w: F32, q: QTensor) -> F32:
    """Clip a weight to the levels of its cells.

    Where levels are chosen together with scales or with one another (blocks, learned tables, trellises)
    nothing is clipped: all of the error counts as rounding.
    """
    if q.scheme.format.kind not in ("integer", "float", "table"):
        return w
    lo, hi = (
        quantize(np.full(q.shape, far, np.float32), q.scheme, qparams=q.qparams).dequantize()
        for far in (-_FAR, _FAR)
    )
    clipped: F32 = np.clip(w, np.minimum(lo, hi), np.maximum(lo, hi))
    # The largest level is the largest value but for the last bits: that is no clipping.
    return w if np.allclose(clipped, w, rtol=1e-6, atol=0) else clipped


def _input_ends(input: Any) -> tuple[float, float] | None:
    if not isinstance(input, Static):
        return None
    far = np.array([-_FAR, _FAR])
    lo, hi = fake_quantize(far, input.scheme, qparams=input.known()).tolist()
    return lo, hi


def _input_parts(x: F32, input: Dynamic | Static) -> tuple[F32, F32]:
    """Give an input with the error of clipping alone and with that of rounding alone."""
    ends = _input_ends(input)
    if ends is None:  # ranges are those of the values, nothing is beyond
        return x, fake_quantize(x, input.scheme)
    clipped: F32 = np.clip(x, *ends)
    known = input.known() if isinstance(input, Static) else None
    return clipped, _rounded(x, clipped, fake_quantize(x, input.scheme, qparams=known))


def _rounded(x: F32, clipped: F32, given: F32) -> F32:
    """Give an array with the error of rounding alone."""
    return given if np.array_equal(x, clipped) else x + (given - clipped)
