"""What the observer that never looks away makes of its record."""

from __future__ import annotations

from pathlib import Path

from lab.vigil import ASKED, MS, Seen, Stretch

from lab import vigil


def record(*lines: tuple[float, str]) -> list[Seen]:
    return [Seen(round(at * MS), who) for at, who in lines]


def asked(begin: int, end: int, *who: str, step: int = 10) -> list[Seen]:
    """Return a question each `step` ms, answered by `who` a millisecond later."""
    seen: list[Seen] = []
    for at in range(begin, end, step):
        seen += record((at, ASKED), *((at + 1, one) for one in who))
    return seen


def lengths(stretches: list[Stretch]) -> list[float]:
    return [stretch.ms for stretch in stretches]


def test_one_who_goes_on_answering_is_one_span() -> None:
    assert lengths(vigil.spans(asked(0, 500, "n1"))) == [490.0]
    both = vigil.spans([*asked(0, 100, "n1"), *asked(200, 300, "n1")])
    assert lengths(both) == [90.0, 90.0]


def test_a_change_of_holder_is_no_overlap() -> None:
    assert vigil.overlaps([*asked(0, 100, "n1"), *asked(100, 200, "n2")]) == []


def test_two_who_answer_at_once_are_timed() -> None:
    seen = [*asked(0, 100, "n1"), *asked(100, 400, "n1", "n2"), *asked(400, 600, "n2")]
    (both,) = vigil.overlaps(seen)
    assert both.ms == 290.0
    assert both.who == {"n1", "n2"}


def test_overlaps_near_in_time_are_one_and_far_ones_are_two() -> None:
    def twice(pause: int) -> list[float]:
        first, between = asked(0, 200, "n1", "n2"), asked(200, 200 + pause, "n1")
        second = asked(200 + pause, 400 + pause, "n1", "n2")
        return lengths(vigil.overlaps([*first, *between, *second]))

    assert twice(40) == [430.0]
    assert twice(300) == [190.0, 190.0]


def test_an_outage_begins_with_the_question_that_was_not_answered() -> None:
    seen = [*asked(0, 100, "n1"), *asked(100, 400), *asked(400, 500, "n2")]
    assert lengths(vigil.outages(seen)) == [301.0]


def test_a_watcher_that_slept_blames_nobody_but_itself() -> None:
    seen = [*asked(0, 100, "n1"), *asked(900, 1000, "n1")]
    assert vigil.outages(seen) == []
    assert lengths(vigil.stalls(seen, 0, 1000 * MS, 300 * MS)) == [810.0]


def test_an_outage_that_goes_on_lasts_to_the_end() -> None:
    assert lengths(vigil.outages([*asked(0, 100, "n1"), *asked(100, 300)])) == [190.0]


def test_doors_tell_the_first_that_opened_from_the_last_that_did_not() -> None:
    seen = record(
        (90, "open"), (110, "-"), (130, "-"), (150, "open"), (170, "-"), (190, "open")
    )  # fmt: skip
    doors = vigil.doors(seen, 100 * MS, 1000 * MS)
    assert (doors.first, doors.every, doors.failed, doors.tried) == (40.0, 60.0, 3, 5)
    assert vigil.doors(record((110, "-")), 100 * MS, 1000 * MS).first is None
    assert vigil.doors(record((110, "open")), 100 * MS, 1000 * MS).first == 0.0


def test_the_longest_gap_is_that_which_touches_the_fault() -> None:
    seen = record((0, "0"), (500, "1"), (501, ASKED), (510, "2"), (560, "3"))
    assert vigil.longest_gap(seen, 505 * MS, 600 * MS) == 50.0


def test_a_line_that_is_still_being_written_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "record"
    assert vigil.read(path) == []
    path.write_text("5 ?\n6 02:00:0a:00:01:10\n7 02:0")
    assert vigil.read(path) == [Seen(5, ASKED), Seen(6, "02:00:0a:00:01:10")]
