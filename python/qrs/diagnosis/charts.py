"""Parts of a page: tables, bars and histograms as HTML and inline SVG, without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from .sources import Histogram

__all__ = ["Cell", "bar", "histogram", "legend", "table"]

_WIDTH, _HEIGHT = 320, 96


class Cell(NamedTuple):
    """What stands in a table: text that is escaped, or markup, and how it is set."""

    text: str = ""
    kind: str = ""
    is_markup: bool = False


def table(caption: str, head: Sequence[Cell | str], rows: Sequence[Sequence[Cell | str]]) -> str:
    """Write a table that scrolls by itself where it is wider than the screen.

    Parameters
    ----------
    caption : str
    head : sequence of Cell or str
    rows : sequence of sequence of Cell or str
        The first cell of each is its header.

    Returns
    -------
    str

    Examples
    --------
    >>> "<td>&lt;x&gt;</td>" in table("Layers", ["name", "kind"], [["a", "<x>"]])
    True
    """

    def cell(value: Cell | str, tag: str) -> str:
        value = Cell(value) if isinstance(value, str) else value
        text = value.text if value.is_markup else escape(value.text)
        kind = f' class="{value.kind}"' if value.kind else ""
        scope = {"thd": ' scope="col"', "thr": ' scope="row"', "td": ""}[tag]
        return f"<{tag[:2]}{scope}{kind}>{text}</{tag[:2]}>"

    lines = [f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table>']
    lines.append(f"<caption>{escape(caption)}</caption>")
    lines.append(f"<thead><tr>{''.join(cell(value, 'thd') for value in head)}</tr></thead><tbody>")
    for first, *rest in rows:
        lines.append(f"<tr>{cell(first, 'thr')}{''.join(cell(value, 'td') for value in rest)}</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


def bar(parts: Sequence[tuple[str, float]], label: str) -> Cell:
    """Draw a bar of parts, each with its colour's class and its share of the full width.

    Parameters
    ----------
    parts : sequence of (str, float)
    label : str
        What a reader who does not see it is told.

    Returns
    -------
    Cell
    """
    drawn, at = [], 0.0
    for colour, share in parts:
        width = 100 * max(0.0, min(share, 1.0 - at / 100))
        if width > 0:
            drawn.append(f'<rect class="{colour}" x="{at:.2f}" width="{width:.2f}" height="10"/>')
        at += width
    shape = f'viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{escape(label)}"'
    return Cell(
        f'<svg class="bar" {shape}><title>{escape(label)}</title>{"".join(drawn)}</svg>', "wide", True
    )


def legend(colours: Mapping[str, str]) -> str:
    """Say what colours mean.

    Parameters
    ----------
    colours : mapping of str to str
        The class of a colour by what it stands for.

    Returns
    -------
    str
    """
    box = '<svg viewBox="0 0 10 10" aria-hidden="true"><rect class="{}" width="10" height="10"/></svg>'
    items = (f"<li>{box.format(colour)}{escape(name)}</li>" for name, colour in colours.items())
    return f'<ul class="legend">{"".join(items)}</ul>'


def histogram(what: str, seen: Histogram) -> str:
    """Draw a histogram, its height as the root of the counts, and the ends of the range of codes.

    Parameters
    ----------
    what : str
    seen : Histogram

    Returns
    -------
    str
        A figure; its caption tells range and ends.
    """
    lo, hi = seen.lo, seen.hi
    first, last = (lo, hi) if seen.ends is None else (min(lo, seen.ends[0]), max(hi, seen.ends[1]))
    scale = _WIDTH / (last - first)
    most = float(seen.counts.max(initial=0)) or 1.0
    # The root shows tails that a linear height hides.
    heights = np.sqrt(seen.counts / most) * (_HEIGHT - 6)
    step = (hi - lo) / len(heights)
    bars = "".join(
        f"M{(lo + i * step - first) * scale:.1f} {_HEIGHT}v{-h:.1f}h{step * scale:.1f}v{h:.1f}z"
        for i, h in enumerate(heights.tolist())
        if h > 0
    )
    lines, told = "", f"{what}: values from {lo:.4g} to {hi:.4g}"
    if seen.ends is not None:
        told += f", codes from {seen.ends[0]:.4g} to {seen.ends[1]:.4g}"
        edges = [min(max((end - first) * scale, 1), _WIDTH - 1) for end in seen.ends]
        lines = "".join(f'<path class="end" d="M{x:.1f} 0v{_HEIGHT}"/>' for x in edges)
    shape = (
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{escape(told)}"'
    )
    svg = f'<svg class="histogram" {shape}><path class="count" d="{bars}"/>{lines}</svg>'
    return f"<figure>{svg}<figcaption>{escape(told)}</figcaption></figure>"
