"""One `Results` for the whole run, printed and recorded at its end."""

from __future__ import annotations

import os
from collections.abc import Iterator

import peers
import pytest

# Read when the libraries are loaded; what the caller has set stays.
os.environ.update({**peers.SETTINGS, **os.environ})

import report
from results import Results, record
from workloads import ROWS

FOUND = pytest.StashKey[Results]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run have peers beside NumPy, and be shown in the docs."""
    parser.addoption("--peers", action="store_true", help="measure every installed library of benches/peers")
    parser.addoption("--docs", action="store_true", help="put table and chart into docs/benchmarks.md")


@pytest.fixture(scope="session")
def results(pytestconfig: pytest.Config) -> Iterator[Results]:
    """Measure the limits before the first row and after the last."""
    found = Results(peers.names() if pytestconfig.getoption("peers") else ["numpy"])
    yield found
    found.finish()
    pytestconfig.stash[FOUND] = found


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table; record it when no row of it is missing without a reason."""
    found = config.stash.get(FOUND, None)
    if found is None:
        return
    for skipped in terminalreporter.stats.get("skipped", []):
        name = skipped.nodeid.partition("[")[2].rpartition("-")[0]
        found.skipped[name] = skipped.longrepr[2]
    entry = found.entry()
    terminalreporter.section("workloads")
    terminalreporter.write_line(report.text(entry))
    if {row["name"] for row in ROWS} - {row["name"] for row in entry["rows"]} - set(found.skipped):
        terminalreporter.write_line("\nnot recorded: only a run of every row is")
        return
    terminalreporter.write_line(f"\nrecorded in {record(entry)}")
    if config.getoption("docs"):
        report.publish(entry)
