"""One `Results` for the whole run, printed and recorded at its end."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# The threads of NumPy's BLAS wait for more work in a loop, some 30 ms long by default, and would take a core
# from whatever is timed next. 2**10 cycles are enough here. Read when NumPy is loaded.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "10")

from results import Results
from workloads import ROWS

FOUND = pytest.StashKey[Results]()


@pytest.fixture(scope="session")
def results(pytestconfig: pytest.Config) -> Iterator[Results]:
    """Measure the limits before the first row and after the last."""
    found = Results()
    yield found
    found.finish()
    pytestconfig.stash[FOUND] = found


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table; record it when no row of it is missing without a reason."""
    found = config.stash.get(FOUND, None)
    if found is None:
        return
    for report in terminalreporter.stats.get("skipped", []):
        name = report.nodeid.partition("[")[2].removesuffix("]")
        found.skipped[name] = report.longrepr[2]
    terminalreporter.section("workloads")
    terminalreporter.write_line(found.table())
    if len(found.rows) + len(found.skipped) == len(ROWS):
        terminalreporter.write_line(f"\nrecorded in {found.record()}")
    else:
        terminalreporter.write_line("\nnot recorded: only a run of every row is")
