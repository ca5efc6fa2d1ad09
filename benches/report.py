"""A run as text, as a table of the docs, and as a chart.

``python3 benches/report.py benches/records/<cpu>.jsonl`` puts the last run of a record into the docs again.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, CHART = DOCS / "benchmarks.md", DOCS / "benchmarks.svg"

Entry = dict[str, Any]
Row = dict[str, Any]


def unit(limit: str) -> str:
    """Give the unit of a rate by the limit that bounds it."""
    return "GMAC/s" if limit in ("dot", "fma") else "GB/s"


def best(row: Row) -> tuple[str, float] | None:
    """Name the fastest peer whose result is right, with its time divided by ours."""
    good = [(peer["ratio"], name) for name, peer in row["peers"].items() if peer["good"]]
    ratio, name = min(good, default=(0.0, ""))
    return (name, ratio) if name else None


def verdict(row: Row) -> str:
    """Say whether a peer with the right result is faster."""
    found = best(row)
    return "" if found is None else "ok" if found[1] >= 1 else "LOSES"


def ratio(row: Row, peer: str) -> str:
    """Write how many times the time of qrs a peer takes; ``~`` marks a result that is not right."""
    if peer in row["failed"]:
        return "!"
    found = row["peers"].get(peer)
    return f"{found['ratio']:.2f}{'' if found['good'] else '~'}" if found else "–"


def short(number: float) -> str:
    """Write three digits, or all before the point."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def fraction(row: Row) -> str:
    """Write the part of the limit that was reached; instruction sets without a loop for it have none."""
    return "–" if row["of_limit"] is None else f"{row['of_limit']:.2f}"


def heading(entry: Entry) -> str:
    """Name what was measured, and against what."""
    peers = ", ".join(f"{name} {version}" for name, version in entry["peers"].items())
    return f"qrs {entry['version']}, {entry['cpu']}, {entry['isa']}, {entry['threads']} threads; {peers}"


def text(entry: Entry) -> str:
    """Lay a run out for a terminal."""
    lines = [heading(entry), f"{'limit':28}{'1 thread (CPU time)':>28}{'all threads':>22}"]
    for name, rates in entry["limits"].items():
        if rates:
            lines.append(f"{name:28}{rates['one_cpu']:21.1f} {unit(name):6}{rates['all']:15.1f} {unit(name)}")
    head = f"{'workload':28}{'threads':>7}{'ms':>11}{'rate':>8}{'of limit':>16}"
    lines += ["", head + "".join(f"{name:>13}" for name in entry["peers"]) + f"{'':8}{'quiet':>6}  limit"]
    for row in entry["rows"]:
        peers = "".join(f"{ratio(row, name):>13}" for name in entry["peers"])
        lines.append(
            f"{row['name']:28}{row['threads']:7}{row['ms']:11.4f}{row['rate']:8.1f} {unit(row['limit']):7}"
            f"{fraction(row):>8}{peers}  {verdict(row):6}{row['quiet']:6.2f}  {row['limit']}"
        )
    for row in entry["rows"]:
        lines += [f"{row['name']}: {name}: {reason}" for name, reason in row["failed"].items()]
    lines += [f"{name}: skipped: {reason}" for name, reason in entry["skipped"].items()]
    lines += [f"{name} is missing: {reason}" for name, reason in entry["missing"].items()]
    return "\n".join(lines)


def workloads(entry: Entry) -> dict[str, list[Row]]:
    """Give the rows of each workload, fewer threads first."""
    found: dict[str, list[Row]] = {}
    for row in entry["rows"]:
        found.setdefault(row["name"], []).append(row)
    return {name: sorted(rows, key=lambda row: row["threads"]) for name, rows in found.items()}


def markdown(entry: Entry) -> str:
    """Lay a run out for the docs: a line to a workload, one thread and all of them in a cell."""
    peers = list(entry["peers"])
    lost = sum(verdict(row) == "LOSES" for row in entry["rows"])
    lines = [
        f"Measured {entry['date'][:10]} at commit {entry['commit']}: {heading(entry)}.",
        f"A peer is faster in {lost} of {len(entry['rows'])} measurements.",
        "",
        "| limit | 1 thread | all threads |",
        "|---|--:|--:|",
    ]
    for name, rates in entry["limits"].items():
        if rates:
            lines.append(f"| {name} | {rates['one_cpu']:.1f} | {rates['all']:.1f} {unit(name)} |")
    lines += [
        "",
        f"| workload | ms | of limit | {' | '.join(peers)} | |",
        "|---|" + "--:|" * (2 + len(peers)) + "---|",
    ]
    for name, rows in workloads(entry).items():

        def pair(cells: list[str]) -> str:
            return " · ".join(cells) if len(set(cells)) > 1 or cells[0] not in ("–", "ok") else cells[0]

        cells = [
            pair([short(row["ms"]) for row in rows]),
            pair([fraction(row) for row in rows]),
            *(pair([ratio(row, peer) for row in rows]) for peer in peers),
            pair([verdict(row).replace("LOSES", "**loses**") for row in rows]),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(entry: Entry, path: Path) -> None:
    """Draw the best peer's time divided by ours, a dot for each number of threads."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "qrs", "font.size": 8})
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter

    # Rows that no peer has are no dots.
    names = [name for name, rows in workloads(entry).items() if any(best(row) for row in rows)][::-1]
    figure, axes = pyplot.subplots(figsize=(7, 1 + 0.16 * len(names)), layout="constrained")
    for threads, marker in ((1, "o"), (entry["threads"], "D")):
        found = [(best(row), row["name"]) for row in entry["rows"] if row["threads"] == threads]
        points = [(one[1], names.index(name)) for one, name in found if one]
        colours = ["#1a7f37" if x >= 1 else "#cf222e" for x, _ in points]
        label = f"{threads} thread{'s' if threads > 1 else ''}"
        faces = colours if threads == 1 else "none"
        axes.scatter(*zip(*points, strict=True), 14, marker=marker, ec=colours, fc=faces, label=label)
    axes.axvline(1, color="black", lw=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-1, len(names))
    axes.grid(axis="x", lw=0.3)
    axes.set_xlabel("time of the best peer / time of qrs: right of 1, qrs is faster")
    axes.set_title(f"{entry['cpu']}, {entry['isa']}")
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def publish(entry: Entry) -> None:
    """Put a run into the docs: the table between its markers, and the chart."""
    page = PAGE.read_text("utf-8")
    start, end = "<!-- bench: start -->", "<!-- bench: end -->"
    written, count = re.subn(
        f"{start}.*{end}", lambda _: f"{start}\n{markdown(entry)}\n{end}", page, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"{PAGE} has no place for the table between {start} and {end}")
    PAGE.write_text(written, "utf-8")
    draw(entry, CHART)


if __name__ == "__main__":
    publish(json.loads(Path(sys.argv[1]).read_text("utf-8").splitlines()[-1]))
