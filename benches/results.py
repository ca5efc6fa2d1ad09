"""What a run measured: the machine's limits, the rows, and the record of them."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import peers
import qrs
from sides import Side

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


class Results:
    """The rows of one run."""

    def __init__(self, names: list[str]) -> None:
        self.peers, self.missing = peers.load(names)
        self.machine = Machine()
        self.threads = qrs.get_num_threads()
        self.rows: list[dict[str, Any]] = []
        self.skipped: dict[str, str] = {}

    def finish(self) -> None:
        """Measure the limits once more, and rate the rows by them."""
        self.machine.measure()
        self.machine.stop()
        for row in self.rows:
            limit = self.machine.limits[row["limit"]] or {}
            row["rate"] = row["work"] / row["ms"] / 1e6
            row["of_limit"] = row["rate"] / limit.get("one_cpu" if row["threads"] == 1 else "all", np.nan)

    def entry(self) -> dict[str, Any]:
        """Give the run as one line of the record."""
        entry = {
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "version": qrs.__version__,
            "commit": commit(),
            "cpu": cpu(),
            "isa": qrs.isa(),
            "threads": self.threads,
            "peers": {name: peer.VERSION for name, peer in self.peers.items()},
            "missing": self.missing,
            "limits": self.machine.limits,
            "rows": self.rows,
            "skipped": self.skipped,
        }
        return {key: rounded(value) for key, value in entry.items()}


def summary(row: dict[str, Any], threads: int, own: Side, others: list[Side]) -> dict[str, Any]:
    """Reduce the rounds of a row to medians, and to medians of the ratios of neighbouring samples.

    One thread is rated by its CPU time, which a busy machine disturbs less; several by the wall clock.
    """
    clock = 1 if threads == 1 else 0

    def beside(side: Side) -> dict[str, Any]:
        pairs = zip(side.samples, own.samples, strict=True)
        ratio = median(theirs[clock] / ours[clock] for theirs, ours in pairs)
        ms = 1e3 * median(times[clock] for times in side.samples)
        return {"ms": ms, "ratio": ratio, "error": side.error, "good": side.good}

    wall, cpu = (1e3 * median(seconds) for seconds in zip(*own.samples, strict=True))
    return {
        **{key: row[key] for key in ("name", "limit", "work")},
        "threads": threads,
        "rounds": len(own.samples),
        "ms": (wall, cpu)[clock],
        "wall_ms": wall,
        "cpu_ms": cpu,
        "peers": {side.name: beside(side) for side in others},
    }


def record(entry: dict[str, Any]) -> Path:
    """Append a run to the history of its CPU."""
    RECORDS.mkdir(exist_ok=True)
    path = RECORDS / f"{re.sub('[^a-z0-9]+', '-', entry['cpu'].lower()).strip('-')}.jsonl"
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
    return path


def rounded(value: Any) -> Any:
    """Keep four significant digits of every float, and what is not finite as null."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if np.isfinite(value) else None
    return value


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
