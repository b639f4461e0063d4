"""The report tells losses as plainly as wins."""

from __future__ import annotations

from datetime import date

from bench.rows import Bound, Cell, Row

from bench import report

KILLED = Row(
    "killed → out",
    "ms",
    {"revip": Cell((18.0, 30.0)), "keepalived 1 s": Cell((900.0, 1600.0))},
    (Bound("revip", 20, 100),),
)
MEMORY = Row(
    "memory",
    "MiB",
    {"revip": Cell((50.0,)), "keepalived 1 s": Cell((9.0,))},
    (Bound("revip", 45),),
    note="of all processes",
)
LARGE = Row("first sync", "ms", {"revip": Cell((40.0,)), "ipvsadm -R": Cell((80.0,))})


def test_subjects_have_columns() -> None:
    head, _, killed, memory = report.tables([KILLED, MEMORY]).splitlines()
    assert head == "| what | unit | revip | keepalived 1 s | aim | met | who wins |"
    assert killed == (
        "| killed → out | ms | 18 / 30 | 900 / 1600 | revip: p50 ≤ 20, p99 ≤ 100 | yes | revip |"
    )
    assert memory.endswith("| **no** | keepalived 1 s |")


def test_what_has_other_columns_has_a_table_of_its_own() -> None:
    first, second = report.tables([KILLED, LARGE]).split("\n\n")
    assert "ipvsadm" not in first
    assert "| first sync | ms | revip: 40; ipvsadm -R: 80 |  |  | revip |" in second


def test_the_summary_names_losses_and_missed_aims() -> None:
    assert report.summary([KILLED, MEMORY, LARGE]).splitlines() == [
        "revip wins 2 of 3 contests.",
        "keepalived wins: memory.",
        "Aims missed: memory (revip: p50 ≤ 45).",
    ]


def test_without_a_contest_there_is_nothing_to_sum_up() -> None:
    assert report.summary([]) == ""


def test_the_page_says_when_on_what_and_how_to_repeat_it() -> None:
    run = report.Run(
        [KILLED, MEMORY], "a small machine", {"keepalived": "v2.2.7"}, date(2026, 1, 2), 20
    )
    page = report.document(run)
    for words in ("2026-01-02", "a small machine", "- keepalived: v2.2.7", "script/bench --write",
                  "of 20 rounds", "- memory: of all processes."):  # fmt: skip
        assert words in page
