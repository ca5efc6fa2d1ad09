"""What a run measured: the machine's limits, the rows, the table and the record."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import qrs

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "benches" / "records"


class Machine:
    """The program ``limits``, kept running, that says what the machine can do at most and at the moment."""

    def __init__(self) -> None:
        command = "cargo bench --quiet --package qrs-core --bench limits -- --serve"
        settings = {"QRS_ISA": qrs.isa(), "QRS_NUM_THREADS": str(qrs.get_num_threads())}
        pipe = subprocess.PIPE
        self._program = subprocess.Popen(
            command.split(), cwd=ROOT, env={**os.environ, **settings}, stdin=pipe, stdout=pipe, text=True
        )
        self.limits: dict[str, dict[str, float] | None] = {}
        self.measure()

    def _ask(self, question: str) -> Any:
        assert self._program.stdin is not None and self._program.stdout is not None
        self._program.stdin.write(question + "\n")
        self._program.stdin.flush()
        answer = self._program.stdout.readline()
        if not answer:
            raise RuntimeError("`limits` ended early: run `cargo bench --bench limits` to see why")
        return json.loads(answer)

    def measure(self) -> None:
        """Measure every limit; of two measurements the higher counts, as disturbances only lower them."""
        for name, rates in self._ask("limits")["limits"].items():
            known = self.limits.get(name) or {}
            best = rates and {kind: max(rate, known.get(kind, 0.0)) for kind, rate in rates.items()}
            self.limits[name] = best

    def probe(self) -> float:
        """Give the fraction of the machine that one thread gets just now: 1 is a quiet moment."""
        limit = self.limits["dot"]
        return self._ask("probe")["dot"] / limit["one_cpu"] if limit else float("nan")

    def stop(self) -> None:
        """End the program."""
        self._program.communicate()


@dataclass
class Times:
    """Seconds of each round: all threads, one thread (wall clock, CPU time), NumPy; and the lower probe."""

    quiet: float
    all: list[float] = field(default_factory=list)
    one: list[tuple[float, float]] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)


class Results:
    """The rows of one run."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.rows: list[dict[str, Any]] = []
        self.skipped: dict[str, str] = {}

    def add(self, row: dict[str, Any], times: Times) -> None:
        """Take in the rounds of a row: medians, and the median of the ratios of neighbouring rounds."""
        self.rows.append(
            {
                "name": row["name"],
                "limit": row["limit"],
                "work": row["work"],
                "rounds": len(times.all),
                "ms": 1e3 * median(times.all),
                "one_ms": 1e3 * median(wall for wall, _ in times.one),
                "one_cpu_ms": 1e3 * median(cpu for _, cpu in times.one),
                "peer_ms": 1e3 * median(times.peer),
                "ratio": median(peer / own for peer, own in zip(times.peer, times.all, strict=True)),
                "quiet": times.quiet,
            }
        )

    def finish(self) -> None:
        """Measure the limits once more, and rate the rows by them."""
        self.machine.measure()
        self.machine.stop()
        for row in self.rows:
            limit = self.machine.limits[row["limit"]] or {}
            row["rate"], row["one_rate"] = (row["work"] / row[ms] / 1e6 for ms in ("ms", "one_cpu_ms"))
            row["of_limit"] = row["rate"] / limit.get("all", np.nan)
            row["one_of_limit"] = row["one_rate"] / limit.get("one_cpu", np.nan)

    def table(self) -> str:
        """Lay the rows out as text."""
        lines = [
            f"qrs {qrs.__version__}, {cpu()}, {qrs.isa()}, {qrs.get_num_threads()} threads, "
            f"NumPy {np.__version__}",
            f"{'limit':28}{'1 thread (CPU time)':>28}{'all threads':>22}",
        ]
        for name, rates in self.machine.limits.items():
            if rates:
                unit = "GMAC/s" if name in ("dot", "fma") else "GB/s"
                lines.append(f"{name:28}{rates['one_cpu']:21.1f} {unit:6}{rates['all']:15.1f} {unit}")
        head = f"{'workload':24}{'ms':>10}{'rate':>8}        {'of limit':>8}{'x NumPy':>9}"
        lines += ["", f"{head}{'1 thread ms':>13}{'CPU ms':>10}{'of limit':>10}{'quiet':>7}  limit"]
        for row in self.rows:
            unit = "GMAC/s" if row["limit"] in ("dot", "fma") else "GB/s"
            lines.append(
                f"{row['name']:24}{row['ms']:10.3f}{row['rate']:8.1f} {unit:7}{row['of_limit']:8.2f}"
                f"{row['ratio']:9.2f}{row['one_ms']:13.3f}{row['one_cpu_ms']:10.3f}"
                f"{row['one_of_limit']:10.2f}{row['quiet']:7.2f}  {row['limit']}"
            )
        lines += [f"{name:24}   skipped: {reason}" for name, reason in self.skipped.items()]
        return "\n".join(lines)

    def record(self) -> Path:
        """Append the run to the history of this CPU."""
        rounded = [{k: round4(v) for k, v in row.items()} for row in self.rows]
        limits = {
            name: rates and {k: round4(v) for k, v in rates.items()}
            for name, rates in self.machine.limits.items()
        }
        entry = {
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "version": qrs.__version__,
            "commit": commit(),
            "cpu": cpu(),
            "isa": qrs.isa(),
            "threads": qrs.get_num_threads(),
            "numpy": np.__version__,
            "limits": limits,
            "rows": rounded,
            "skipped": self.skipped,
        }
        RECORDS.mkdir(exist_ok=True)
        path = RECORDS / f"{re.sub('[^a-z0-9]+', '-', cpu().lower()).strip('-')}.jsonl"
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        return path


def round4(value: Any) -> Any:
    """Keep four significant digits of a float."""
    return float(f"{value:.4g}") if isinstance(value, float) and np.isfinite(value) else value


def cpu() -> str:
    """Name the CPU as the system does, with what tells apart those it names alike."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", text, re.MULTILINE))
    if "model name" not in facts:
        return platform.machine()
    family = f" (family {facts['cpu family']}, model {facts['model']})" if "cpu family" in facts else ""
    return f"{facts['model name']}{family}"


def commit() -> str | None:
    """Name the commit that was measured, where git knows it."""
    try:
        command = ["git", "describe", "--always", "--dirty"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
