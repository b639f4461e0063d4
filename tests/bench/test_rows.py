"""Cells, bounds and winners of the benchmark."""

from __future__ import annotations

import json
import math

import pytest
from bench.rows import Bound, Cell, Row, Sheet, from_json


def row(bounds: tuple[Bound, ...] = (), contest: bool = True, **cells: Cell) -> Row:
    return Row("killed → out", "ms", cells, bounds, contest=contest)


def test_a_cell_tells_median_and_worst() -> None:
    assert str(Cell((12.0, 11.26, 140.4))) == "12 / 140"


def test_a_cell_measured_once_tells_that() -> None:
    assert str(Cell((0.871,))) == "0.87"


def test_a_round_that_was_late_counts_as_worse_than_any() -> None:
    cell = Cell((10.0, 20.0), late=1, limit=5)
    assert (cell.n, cell.at(50), cell.at(99)) == (3, 20.0, math.inf)
    assert str(cell) == "20 / not within 5 s"


def test_what_never_came_says_so() -> None:
    assert str(Cell(late=2, limit=5)) == "not within 5 s"


def test_nothing_measured_is_a_dash() -> None:
    assert str(Cell()) == "-"


@pytest.mark.parametrize(
    ("ours", "theirs", "winner"),
    [
        (10.0, 20.0, "revip"),
        (20.0, 10.0, "keepalived"),
        (20.0, 20.9, "even"),
        (20.0, 21.2, "revip"),
        (0.0, 0.0, "even"),
    ],
)
def test_the_least_median_wins_beyond_five_percent(ours: float, theirs: float, winner: str) -> None:
    assert row(revip=Cell((ours,)), keepalived=Cell((theirs,))).winner == winner


def test_one_that_comes_beats_one_that_never_does() -> None:
    assert row(revip=Cell((480.0,)), keepalived=Cell(late=2, limit=5)).winner == "revip"


def test_nobody_wins_when_nobody_comes() -> None:
    assert row(revip=Cell(late=1), keepalived=Cell(late=1)).winner == ""


def test_nobody_wins_alone_or_without_a_contest() -> None:
    assert row(revip=Cell((1.0,))).winner == ""
    assert row(contest=False, a=Cell((1.0,)), b=Cell((2.0,))).winner == ""


@pytest.mark.parametrize(
    ("samples", "late", "met"),
    [((15.0, 20.0, 99.0), 0, True), ((15.0, 21.0, 99.0), 0, False), ((1.0, 2.0, 101.0), 0, False),
     ((1.0, 2.0), 1, False)],
)  # fmt: skip
def test_a_bound_looks_at_median_and_worst(
    samples: tuple[float, ...], late: int, met: bool
) -> None:
    bound = Bound("revip", 20, 100)
    assert bound.met({"revip": Cell(samples, late)}) is met


def test_a_bound_can_be_a_multiple_of_another() -> None:
    bound = Bound("revip", times=(1.5, "ipvsadm -R"))
    assert bound.met({"revip": Cell((15.0,)), "ipvsadm -R": Cell((10.0,))})
    assert not bound.met({"revip": Cell((15.1,)), "ipvsadm -R": Cell((10.0,))})
    assert str(bound) == "revip: ≤ 1.5 × ipvsadm -R"


def test_a_bound_on_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert Bound("revip", 20).met({"keepalived": Cell((1.0,))}) is None


def test_a_row_survives_json() -> None:
    bounds = (Bound("revip", 20, 100), Bound("revip", times=(1.5, "keepalived")))
    before = row(bounds, revip=Cell((1.5, 2.0)), keepalived=Cell((3.0,), 1, 5.0))
    assert from_json(json.loads(json.dumps(before.to_json()))) == before


def test_json_has_no_infinity() -> None:
    late = row(revip=Cell((1.0,), 2, 5.0), keepalived=Cell(late=1, limit=5.0)).to_json()
    cells = json.loads(json.dumps(late, allow_nan=False))["cells"]
    assert cells["revip"]["p50"] is None
    assert cells["keepalived"] | {"samples": []} == {
        "p50": None, "p99": None, "n": 1, "late": 1, "limit": 5.0, "samples": [],
    }  # fmt: skip


def test_a_sheet_collects_rounds_by_subject() -> None:
    sheet = Sheet("killed → out", limit=5)
    sheet.add("revip", 12.0)
    sheet.add("keepalived", None)
    assert sheet.row().cells == {
        "revip": Cell((12.0,), 0, 5),
        "keepalived": Cell((), 1, 5),
    }
