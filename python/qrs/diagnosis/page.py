"""A diagnosis of a whole model, and one HTML file that shows it: tables and plots, nothing to fetch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from numpy.typing import ArrayLike

from ..model import Model
from ..progress import Progress
from ..report import Report, Row
from .base import Noise
from .charts import Cell, bar, histogram, legend, table
from .differences import Differences, differences
from .sources import PARTS, Sources, sources
from .style import STYLE
from .times import Times, busy, load_of_machine, times

__all__ = ["Diagnosis", "diagnose", "page"]

_RUNS = 5
# Layers that take a smaller part of both totals are told together.
_SMALL = 0.01
Pair = tuple[float, float]
_COLOURS = dict(zip(PARTS, ("wr", "wc", "ar", "ac"), strict=True))


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What `diagnose` measured.

    Attributes
    ----------
    differences : Differences
    sources : dict of str to Sources
    before, after : Times
        Of the float and of the quantized model, on the first batch.
    batches : int
        With how many it was measured.
    load : float or None
        How many threads of all programs wanted each CPU meanwhile.
    """

    differences: Differences
    sources: dict[str, Sources]
    before: Times
    after: Times
    batches: int
    load: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON values.

        Returns
        -------
        dict
        """
        seen = self.differences
        return {
            "batches": self.batches,
            "outputs": {name: noise.to_dict() for name, noise in seen.outputs.items()},
            "layers": {name: noise.to_dict() for name, noise in seen.layers.items()},
            "sources": {name: source.to_dict() for name, source in self.sources.items()},
            "milliseconds": {"before": self.before.total, "after": self.after.total},
            "load": self.load,
        }


def diagnose(
    exact: Model, given: Model, batches: Sequence[Mapping[str, ArrayLike]], progress: Progress = None
) -> Diagnosis:
    """Measure what quantization cost: noise at outputs and layers, its sources, milliseconds.

    Parameters
    ----------
    exact, given : Model
        In float32, and the same with some layers quantized.
    batches : sequence of mapping of str to array_like
    progress : None, bool or callable, optional
        Called as ``progress(done, total)``; True shows bars.

    Returns
    -------
    Diagnosis

    Raises
    ------
    QrsValueError
        When there are no batches, or the models have other inputs or outputs.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> model = qrs.Model.chain({"head": qrs.nn.Linear(np.float32([[1, 0.3], [0.2, 1]]))})
    >>> small, report = qrs.quantize_model(model, qrs.Recipe.preset("w8a8-dynamic"))
    >>> seen = diagnose(model, small, [{"x": np.float32([[1, 2]])}])
    >>> list(seen.sources), page(report, seen).startswith("<!doctype html>")
    (['head'], True)
    """
    noise = differences(exact, given, batches, progress)
    by_source = sources(exact, given, batches, progress)
    before, after = times([exact, given], batches[0], _RUNS, progress)
    return Diagnosis(noise, by_source, before, after, len(batches), load_of_machine())


def page(report: Report, diagnosis: Diagnosis | None = None, title: str = "Quantized model") -> str:
    """Write a report as one HTML page that needs nothing beside it.

    Parameters
    ----------
    report : Report
        From `qrs.quantize_model`.
    diagnosis : Diagnosis, optional
        From `diagnose`; without it the page has what is known without data.
    title : str

    Returns
    -------
    str
        Tables with headers, plots as inline SVG with texts for those who do not see them; light or dark as
        the reader's system is; no script.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> model = qrs.Model.chain({"head": qrs.nn.Linear(np.eye(2, dtype=np.float32))})
    >>> _, report = qrs.quantize_model(model, qrs.Recipe.preset("w8a16"))
    >>> "http" in page(report)
    False
    """
    parts = [_summary(report, diagnosis), _layers(report, diagnosis)]
    if diagnosis is not None:
        parts.append(_errors(diagnosis))
    parts += [_bytes(report), *([] if diagnosis is None else [_milliseconds(report, diagnosis)])]
    parts.append(_left(report))
    if diagnosis is not None:
        parts.append(_ranges(diagnosis))
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
    )
    body = "\n".join(part for part in parts if part)
    return f"{head}\n<body><main>\n<h1>{escape(title)}</h1>\n{body}\n</main></body></html>\n"


def _summary(report: Report, seen: Diagnosis | None) -> str:
    ratio = report.bytes_before / max(report.bytes_after, 1)
    facts = [
        ("Size", f"{_size(report.bytes_before)} → {_size(report.bytes_after)}", f"{ratio:.2f} times smaller")
    ]
    facts.append(
        ("Layers quantized", f"{len(report.quantized)} of {len(report.rows)}", "the rest below, with reasons")
    )
    how = "Not measured: there was no data."
    if seen is not None:
        facts.append(("Output SQNR", f"{_db(seen.differences.total)} dB", "signal to quantization noise"))
        before, after = seen.before.total, seen.after.total
        change = f"{before / after:.2f} times as fast" if after else ""
        facts.append(("Time of a batch", f"{before:.2f} → {after:.2f} ms", change))
        number = "one batch" if seen.batches == 1 else f"{seen.batches} batches"
        how = (
            f"Measured on {number} of the calibration data; times are medians of {_RUNS} interleaved runs of "
            f"the first."
        )
        if told := busy(seen.load):
            how += f" {told[0].upper()}{told[1:]}."
    cells = "".join(
        f'<div><dt>{name}</dt><dd>{escape(value)}</dd><dd class="more">{escape(more)}</dd></div>'
        for name, value, more in facts
    )
    return f'<p class="soft">{how}</p>\n<dl class="facts">{cells}</dl>'


def _layers(report: Report, seen: Diagnosis | None) -> str:
    head: list[Cell | str] = [
        "layer",
        "weight",
        "input",
        *_numbers("bytes before", "bytes after", "weight dB"),
    ]
    if seen is not None:
        head += _numbers("own dB", "dB so far", "ms before", "ms after")
    rows = []
    for row in report.quantized:
        cells: list[Cell | str] = [row.name, *_schemes(row)]
        cells += _numbers(f"{row.bytes_before:,}", f"{row.bytes_after:,}", _decibels(row.sqnr_db))
        if seen is not None:
            own, reached = seen.sources.get(row.name), seen.differences.layers.get(row.name)
            cells += _numbers(_db(None if own is None else own.own), _db(reached), *_taken(row.name, seen))
        rows.append(cells)
    if not rows:
        return "<h2>Quantized layers</h2>\n<p>None.</p>"
    told = "Signal to quantization noise in dB: of the weight itself"
    if seen is not None:
        told += (
            "; <em>own</em>, at the output when the layer alone is quantized; <em>so far</em>, at the output"
        )
        told += " with the noise of all layers before"
    return f"<h2>Quantized layers</h2>\n<p>{told}.</p>\n{table('In order of execution', head, rows)}"


def _errors(seen: Diagnosis) -> str:
    ranked = sorted(seen.sources.items(), key=lambda item: -item[1].own.ratio)
    most = max((_amplitude(source.own) for _, source in ranked), default=0.0)
    if not most:
        return ""
    rows: list[list[Cell | str]] = []
    for name, source in ranked:
        whole = sum(noise.error for noise in source.parts.values()) or 1.0
        shares = {part: noise.error / whole for part, noise in source.parts.items()}
        length = _amplitude(source.own) / most
        told = ", ".join(f"{part} {share:.0%}" for part, share in shares.items())
        drawn = bar([(_COLOURS[part], length * share) for part, share in shares.items()], told)
        rows.append([name, drawn, *_numbers(f"{100 * _amplitude(source.own):.2g} %", _db(source.own))])
    told = (
        "What each layer loses by itself. A bar is as long as the amplitude of the noise, relative to that "
        "of the output; colours share out its energy. Rounding is the distance to the next level, clipping "
        "what lies beyond the last one."
    )
    head: list[Cell | str] = ["layer", Cell("noise by source", "wide"), *_numbers("noise", "own dB")]
    drawn_table = table("Worst first", head, rows)
    return f"<h2>Where the error comes from</h2>\n<p>{told}</p>\n{legend(_COLOURS)}\n{drawn_table}"


def _bytes(report: Report) -> str:
    pairs = {row.name: (float(row.bytes_before), float(row.bytes_after)) for row in report.rows}
    totals = float(report.bytes_before), float(report.bytes_after)
    return _pairs("Bytes", "bytes", {name: p for name, p in pairs.items() if any(p)}, totals)


def _milliseconds(report: Report, seen: Diagnosis) -> str:
    before, after = seen.before, seen.after
    pairs = {
        row.name: (before.layers[row.name], after.layers[row.name])
        for row in report.rows
        if row.name in before.layers and row.name in after.layers
    }
    return _pairs("Milliseconds", "ms", pairs, (before.total, after.total))


def _pairs(title: str, unit: str, pairs: Mapping[str, Pair], totals: Pair) -> str:
    """Draw two values for each layer; those that are small in both totals are told together."""
    drawn = {
        name: pair
        for name, pair in pairs.items()
        if any(value > _SMALL * total for value, total in zip(pair, totals, strict=True))
    }
    most = max((value for pair in drawn.values() for value in pair), default=0.0)
    if not most:
        return ""
    show = "{:,.0f}".format if unit == "bytes" else "{:.3f}".format
    rows: list[list[Cell | str]] = []
    for name, pair in drawn.items():
        bars = [
            bar([(when, value / most)], f"{when} {show(value)} {unit}").text
            for when, value in zip(("before", "after"), pair, strict=True)
        ]
        rows.append([name, Cell("".join(bars), "wide", True), *_numbers(*map(show, pair))])
    head: list[Cell | str] = ["layer", Cell("chart", "wide"), *_numbers("before", "after")]
    shown = table(f"{title} of each layer, before and after", head, rows)
    others = [pair for name, pair in pairs.items() if name not in drawn]
    rest = ""
    if others:
        sums = " and ".join(show(sum(values)) for values in zip(*others, strict=True))
        each = f"at most {100 * _SMALL:.0f} % each"
        rest = f"\n<p>Not drawn, {each}: {len(others)} layers, together {sums} {unit}.</p>"
    return f"<h2>{title}</h2>\n{legend({'before': 'before', 'after': 'after'})}\n{shown}{rest}"


def _left(report: Report) -> str:
    groups: dict[tuple[str, str], list[str]] = {}
    for row in report.rows:
        if row.reason:
            groups.setdefault((row.reason, row.kind), []).append(row.name)
    if not groups:
        return ""
    rows: list[list[Cell | str]] = [
        [reason, kind, Cell(str(len(names)), "number"), Cell(", ".join(names), "reason")]
        for (reason, kind), names in groups.items()
    ]
    head: list[Cell | str] = ["why", "kind", Cell("number", "number"), "layers"]
    shown = table("Layers that were left as they are, or quantized otherwise than asked", head, rows)
    return f"<h2>Left alone</h2>\n{shown}"


def _ranges(seen: Diagnosis) -> str:
    cards = []
    for name, source in seen.sources.items():
        drawn = histogram("weight", source.weight)
        if source.input is not None:
            drawn += histogram("input", source.input)
        cards.append(f'<section class="card"><h3>{escape(name)}</h3>{drawn}</section>')
    if not cards:
        return ""
    told = (
        "Heights are roots of counts, so that tails are seen. Dashed lines are the ends of the codes of a "
        "static input: what lies beyond them is clipped."
    )
    return f'<h2>Ranges</h2>\n<p>{told}</p>\n<div class="cards">{"".join(cards)}</div>'


def _schemes(row: Row) -> list[Cell]:
    told = row.to_dict()
    weight = "" if row.weight is None else f"{row.weight.dtype} {row.weight.granularity!r}"
    return [Cell(weight, "scheme"), Cell(told["input"] or "", "scheme")]


def _taken(name: str, seen: Diagnosis) -> tuple[str, str]:
    before, after = (taken.layers.get(name) for taken in (seen.before, seen.after))
    return tuple("" if value is None else f"{value:.3f}" for value in (before, after))  # type: ignore[return-value]


def _numbers(*texts: str) -> list[Cell]:
    return [Cell(text, "number") for text in texts]


def _amplitude(noise: Noise) -> float:
    return math.sqrt(noise.ratio) if math.isfinite(noise.ratio) else 1.0


def _db(noise: Noise | None) -> str:
    return "" if noise is None else _decibels(noise.sqnr_db)


def _decibels(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if math.isfinite(value) else ("∞" if value > 0 else "−∞")


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"
