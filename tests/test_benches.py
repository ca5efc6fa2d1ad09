"""The benchmarks' own code, in small and beside NumPy alone: no time is asserted."""

import peers
import pytest
import report
from results import rounded, summary
from sides import Side, fastest, ways
from test_peers import IDS, SMALL
from workloads import OPERATIONS, ROWS, prepare


def test_the_table_is_sound():
    assert len({row["name"] for row in ROWS}) == len(ROWS)
    assert {row["op"] for row in ROWS} == set(OPERATIONS)


@pytest.mark.parametrize("row", SMALL, ids=IDS)
def test_qrs_and_numpy_agree(row):
    (numpy,) = peers.load(["numpy"])[0].values()
    work = prepare(row)
    work.check()
    if hasattr(numpy, row["op"]):
        sides = list(ways("numpy", numpy, row, work, 2))
        assert sides and all(side.good for side in sides)


def test_a_missing_library_is_named():
    assert peers.load(["no_such_library"]) == (
        {},
        {"no_such_library": "No module named 'peers.no_such_library'"},
    )


def side(name, seconds, good=True):
    return Side(name, lambda: None, good=good, samples=[(seconds, seconds / 2)] * 3)


def entry(*others):
    """A run of one row in which qrs takes 2 ms by the wall clock and 1 ms of CPU time."""
    row = {"name": "some-row", "limit": "dot", "work": 10**6}
    rows = [
        {**summary(row, threads, side("qrs", 2e-3), list(others)), "failed": {"broken": "why"}, "quiet": 1.0}
        for threads in (1, 2)
    ]
    for one in rows:
        one |= {"rate": 1.0, "of_limit": 0.5}
    facts = {
        "date": "2000-01-01",
        "version": "0",
        "commit": "0",
        "cpu": "a CPU",
        "isa": "an isa",
        "threads": 2,
    }
    versions = dict.fromkeys([*(other.name for other in others), "broken"], "1")
    limits = {"dot": {"one_cpu": 2.0, "all": 4.0}}
    return rounded(
        {**facts, "peers": versions, "limits": limits, "rows": rows, "skipped": {}, "missing": {"gone": "no"}}
    )


def test_the_best_peer_with_a_right_result_decides():
    run = entry(side("slow", 3e-3), side("wrong", 1e-3, good=False))
    assert [row["ms"] for row in run["rows"]] == [1, 2]
    assert [report.best(row) for row in run["rows"]] == [("slow", 1.5)] * 2
    assert "0.50~" in report.text(run) and "LOSES" not in report.text(run)
    assert "| some-row | 1 · 2 | 0.50 · 0.50 | 1.50 · 1.50 | 0.50~ · 0.50~ | ! · ! | ok |" in report.markdown(
        run
    )
    assert "LOSES" in report.text(entry(side("fast", 1e-3)))


def test_the_fastest_right_way_is_chosen():
    sides = [side("slow", 0), side("fast", 0), side("wrong", 0, good=False)]
    for one, seconds in zip(sides, (3, 2, 1), strict=True):
        one.cost = seconds
    assert fastest(iter(sides)).name == "fast"
    assert fastest(iter(())) is None


def test_the_docs_have_a_place_for_the_table():
    page = report.PAGE.read_text()
    assert page.count("<!-- bench: start -->") == page.count("<!-- bench: end -->") == 1
