"""What quantizing a model did, layer by layer: what changed, by how much, and why something did not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .ops import Dynamic, Static
from .scheme import Scheme

__all__ = ["Report", "Row"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One layer of a report.

    Attributes
    ----------
    name, kind : str
        Name in the model and registered id of the layer.
    weight : Scheme or None
        Scheme of its weight; None when the layer was left as it is.
    input : Dynamic, Static or None
    bytes_before, bytes_after : int
        Of all arrays of the layer, inner layers not included. Shared arrays count in each row that uses them.
    sqnr_db : float or None
        Signal to quantization noise of the weight, ``10 log10(sum w² / sum (w - ŵ)²)``; infinite when it lost
        nothing.
    reason : str or None
        Why the layer, or its input, was left as it is.

    Examples
    --------
    >>> row = Row(name="act", kind="activation", bytes_before=0, bytes_after=0, reason="no rule matches")
    >>> row.to_dict()["reason"]
    'no rule matches'
    """

    name: str
    kind: str
    weight: Scheme | None = None
    input: Dynamic | Static | None = None
    bytes_before: int
    bytes_after: int
    sqnr_db: float | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values.

        Returns
        -------
        dict
            The attributes by name: schemes as their ``repr``, and an infinite ``sqnr_db``, which JSON cannot
            hold, as None.
        """
        finite = self.sqnr_db is not None and math.isfinite(self.sqnr_db)
        return {
            "name": self.name,
            "kind": self.kind,
            "weight": None if self.weight is None else repr(self.weight),
            "input": input_text(self.input),
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "sqnr_db": self.sqnr_db if finite else None,
            "reason": self.reason,
        }


class Report:
    """Every layer of a model after ``quantize_model``.

    ``print(report)`` shows a table, ``to_dict`` gives the same for JSON.

    Attributes
    ----------
    rows : tuple of Row
        In order of execution.
    bytes_before, bytes_after : int
        Of the whole model; shared arrays count once.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> layers = {"head": qrs.nn.Linear(np.float32([[1, 2], [3, 4]])), "act": qrs.nn.Activation("relu")}
    >>> _, report = qrs.quantize_model(qrs.Model.chain(layers), qrs.Recipe([qrs.Rule("head", "int8")]))
    >>> [row.name for row in report.quantized], [(row.name, row.reason) for row in report.skipped]
    (['head'], [('act', 'has no weight to quantize')])
    """

    __slots__ = ("bytes_after", "bytes_before", "rows")

    def __init__(self, rows: Sequence[Row], bytes_before: int, bytes_after: int) -> None:
        self.rows = tuple(rows)
        self.bytes_before = bytes_before
        self.bytes_after = bytes_after

    @property
    def quantized(self) -> tuple[Row, ...]:
        """Rows whose weight was quantized."""
        return tuple(row for row in self.rows if row.weight is not None)

    @property
    def skipped(self) -> tuple[Row, ...]:
        """Rows that were left as they are, each with its reason."""
        return tuple(row for row in self.rows if row.weight is None)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values.

        Returns
        -------
        dict
            ``rows``, each as `Row.to_dict` gives it, ``bytes_before`` and ``bytes_after``.

        Examples
        --------
        >>> import json
        >>> json.dumps(Report([], 16, 12).to_dict())
        '{"rows": [], "bytes_before": 16, "bytes_after": 12}'
        """
        return {
            "rows": [row.to_dict() for row in self.rows],
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
        }

    def __str__(self) -> str:
        head = ("layer", "kind", "weight", "input", "bytes before", "after", "SQNR dB", "reason")
        lines = [head, *(_cells(row) for row in self.rows)]
        lines.append(("total", "", "", "", f"{self.bytes_before:,}", f"{self.bytes_after:,}", "", ""))
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        numbers = {4, 5, 6}
        return "\n".join(
            "  ".join(
                cell.rjust(width) if i in numbers else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )

    def __repr__(self) -> str:
        return (
            f"Report({len(self.quantized)} of {len(self.rows)} layers quantized, "
            f"{self.bytes_before:,} -> {self.bytes_after:,} bytes)"
        )


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        row.kind,
        "float32" if row.weight is None else f"{row.weight.dtype} {row.weight.granularity!r}",
        input_text(row.input) or "",
        f"{row.bytes_before:,}",
        f"{row.bytes_after:,}",
        "" if row.sqnr_db is None else f"{row.sqnr_db:.1f}",
        row.reason or "",
    )


def input_text(input: Dynamic | Static | None) -> str | None:
    """Write how an input is quantized in a few words; None for one that is not."""
    if input is None:
        return None
    return f"{type(input).__name__.lower()} {input.scheme.dtype} {input.scheme.granularity!r}"
