"""The demo's own reckoning: what its events come to, and how they are told."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from lab.chronicle import Chronicle
from lab.demo import Teller
from lab.feed import Tail
from lab.scenario import discover
from rich.console import Console, RenderableType

from lab import demo, demo_view, timeline

EVENTS: list[dict[str, Any]] = [
    {"event": "say", "at_ms": 0, "text": "it begins"},
    {
        "event": "cluster",
        "vip": "10.0.1.10:6443",
        "release": "6.1",
        "backends": {"n1": "10.0.1.16", "n2": "10.0.1.19", "n3": "10.0.1.20"},
    },
    {"event": "table", "t_ms": 3.0, "weights": {"n1": 1, "n2": 1, "n3": 1}},
    {"event": "step", "key": "a", "title": "killed", "state": "running", "result": ""},
    {"event": "mark", "key": "a", "t_ms": 1000.0, "text": ".19 killed"},
    {"event": "table", "t_ms": 1020.0, "weights": {"n1": 1, "n3": 0}},
    {"event": "measured", "key": "a", "text": "out after 18.9 ms"},
    {"event": "figure", "name": "removed_after_ms", "ms": 18.9},
    {"event": "step", "key": "a", "title": "killed", "state": "done", "result": "18.9 ms"},
    {"event": "figure", "name": "readded_after_ms", "ms": 455.0},
    {"event": "figure", "name": "drift_repaired_after_ms", "ms": 310.2},
    {"event": "connections", "t_ms": 1100.0, "active": {"n1": 7}},
    {
        "event": "agent",
        "mode": "panic",
        "backends": {"n2": {"verdict": "unhealthy", "reason": "connection refused"}},
    },
    {"event": "clients", "buckets": {"-1": {"n1": 1}, "0": {"n1": 15, "n2": 5}}},
    {"event": "clients", "buckets": {"0": {"n1": 2}, "10": {"n1": 6, "!": 2}, "11": {"n1": 1}}},
    {"event": "figure", "name": "panic_kept_backends", "ms": 3},
    {"event": "figure", "name": "rolling_restart_failed_requests", "ms": 0},
    {"event": "figure", "name": "rolling_restart_requests", "ms": 2600},
    {"event": "figure", "name": "leader_moved_after_ms", "ms": 1200.0},
    {"event": "figure", "name": "leader_killed_streams", "ms": 50},
    {"event": "figure", "name": "leader_killed_streams_lost", "ms": 0},
    {"event": "span", "from": 100.0, "to": 900.0, "text": "rolling restart"},
    {"event": "check", "ok": True, "text": "all is well"},
    {"scenario": "demo", "kernel": "uml", "ok": True, "figures": {}},
]


def told(events: Iterable[dict[str, Any]] = EVENTS) -> Chronicle:
    story = Chronicle()
    for event in events:
        story.take(event)
    return story


def without(name: str) -> list[dict[str, Any]]:
    return [event for event in EVENTS if event.get("name") != name]


def with_figure(name: str, value: float) -> list[dict[str, Any]]:
    return [{**e, "ms": value} if e.get("name") == name else e for e in EVENTS]


def shown(what: RenderableType, width: int = 80) -> str:
    console = Console(width=width, highlight=False, color_system=None)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


# --- what it comes to ---------------------------------------------------------------------------


def test_the_outcome_has_exactly_the_keys_of_the_interface() -> None:
    assert told().outcome("host") == {
        "kernel": "uml",
        "removed_after_ms": 18.9,
        "readded_after_ms": 455.0,
        "drift_repaired_after_ms": 310.2,
        "rolling_restart_failed_requests": 0,
        "panic_kept_backends": 3,
        "ok": True,
    }


@pytest.mark.parametrize(
    "name",
    [
        "removed_after_ms",
        "readded_after_ms",
        "drift_repaired_after_ms",
        "rolling_restart_failed_requests",
        "panic_kept_backends",
    ],
)
def test_what_did_not_happen_is_null_and_not_ok(name: str) -> None:
    outcome = told(without(name)).outcome("uml")
    assert outcome[name] is None
    assert outcome["ok"] is False


def test_one_failed_request_in_the_rolling_restart_is_not_ok() -> None:
    assert not told(with_figure("rolling_restart_failed_requests", 1)).ok


def test_a_stream_lost_with_the_leader_is_not_ok() -> None:
    assert not told(with_figure("leader_killed_streams_lost", 1)).ok
    assert not told(without("leader_moved_after_ms")).ok


def test_a_backend_lost_in_panic_is_not_ok() -> None:
    assert not told(with_figure("panic_kept_backends", 2)).ok


def test_a_story_without_its_end_is_not_ok() -> None:
    story = told(EVENTS[:-1])
    assert not story.ok
    assert story.outcome("host")["kernel"] == "host"
    assert "did not come to its end" in shown(demo_view.summary(story))


def test_a_failed_check_or_scenario_is_not_ok_and_is_told_once() -> None:
    failing = {"event": "check", "ok": False, "text": "pigs fly"}
    end = {"scenario": "demo", "kernel": "uml", "ok": False, "failures": ["not so: pigs fly"]}
    story = told([*EVENTS[:-1], failing, end])
    assert not story.ok
    assert shown(demo_view.summary(story)).count("pigs fly") == 1


def test_events_unknown_to_this_version_pass() -> None:
    story = told([*EVENTS, {"event": "comet", "tail": "long"}, {}])
    assert story.ok


# --- the client ---------------------------------------------------------------------------------


def test_requests_are_counted_whole_and_by_who_answered() -> None:
    story = told()
    assert (story.requests, story.failed) == (32, 2)
    assert story.recent(1100)["n1"] == 23  # the bucket that is still growing is left out


def test_the_rate_is_of_answered_requests_in_whole_spans() -> None:
    assert told().rates(9, 500) == [(44.0, 0), (0.0, 0)]


def test_the_clients_record_is_read_once_and_only_in_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    lines = [
        json.dumps({"request": {"end": end, "backend": backend, "error": error}})
        for end, backend, error in (
            (1_000_000_000, "n1", None),
            (1_050_000_000, None, "refused"),
            (1_150_000_000, "n2", None),
        )
    ]
    tail = Tail(path, epoch=1_000_000_000)
    path.write_text(f"{lines[0]}\n{lines[1]}\n{lines[2][:9]}")
    assert tail.read() == {0: {"n1": 1, "!": 1}}
    path.write_text("\n".join([*lines, ""]))
    assert tail.read() == {1: {"n2": 1}}
    assert tail.read() == {}


# --- how it looks -------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_screen_fits_and_says_what_matters(width: int) -> None:
    text = shown(demo_view.screen(told(), 12.0, width), width)
    lines = text.splitlines()
    assert len(lines) <= 20
    assert max(map(len, lines)) <= width
    for word in ("PANIC", "10.0.1.19", "unhealthy", "connection refused", "out", "✓ killed"):
        assert word in text


def test_the_summary_sets_the_figures_beside_kube_vip_in_80_columns() -> None:
    text = shown(demo_view.summary(told()))
    assert max(map(len, text.splitlines())) <= 80
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "apiserver killed: out of the table 18.9 ms up to 5 s" in rows
    assert "serves again: back in the table 455 ms never" in rows
    assert "ipvsadm -C: repaired 310 ms never" in rows
    assert "rolling restart: failed requests 0 of 2600 not drained" in rows
    assert "all down: backends kept in 3 of 3 none" in rows
    assert "not measured in this run" in text


def test_without_a_terminal_a_step_is_one_line() -> None:
    lines = [line for event in EVENTS for line in demo_view.plain({"at_ms": 1200, **event})]
    assert lines == [
        "   0.0 s       it begins",
        "   1.2 s       kernel's table: n1 weight 1, n2 weight 1, n3 weight 1",
        "   1.2 s       kernel's table: n1 weight 1, n3 weight 0",
        "   1.2 s  ok   killed -> 18.9 ms",
        "   1.2 s       agent: panic, no backend is healthy and all stay in",
    ]


def test_a_sparkline_marks_failures_and_survives_silence() -> None:
    assert demo_view.sparkline([(0.0, 0), (50.0, 0), (100.0, 2)]).plain == "▁▅█"
    assert demo_view.sparkline([(0.0, 0)]).plain == "▁"
    assert demo_view.sparkline([]).plain == ""


def test_the_picture_shows_lanes_marks_and_requests() -> None:
    picture = told().picture()
    assert [lane.name for lane in picture.lanes] == ["10.0.1.16", "10.0.1.19", "10.0.1.20"]
    assert [s.state for s in picture.lanes[1].segments] == ["in", "out"]
    assert [s.state for s in picture.lanes[2].segments] == ["in", "zero"]
    assert picture.lanes[0].segments[0].start_ms == 0
    assert [(m.text, m.result) for m in picture.marks] == [(".19 killed", "out after 18.9 ms")]
    assert [(b.at_ms, b.good, b.failed) for b in picture.buckets] == [
        (0, 22, 0),
        (1000, 6, 2),
        (1100, 1, 0),
    ]
    assert "user-mode Linux 6.1" in timeline.render(picture)


# --- the command --------------------------------------------------------------------------------


def test_events_and_complaints_are_told_apart_however_they_arrive() -> None:
    teller = Teller()
    heard: list[object] = []
    teller.watch = heard.append
    text = b"".join(json.dumps(event).encode() + b"\n" for event in EVENTS)
    for start in range(0, len(text), 7):
        teller.hear(1, text[start : start + 7])
    teller.hear(1, b"not an event\n[1]\n")
    teller.hear(2, b"Traceback\nhalf a li")
    assert teller.story.ok
    assert len(heard) == len(EVENTS)
    assert teller.errors == ["not an event", "[1]", "Traceback"]


def test_a_picture_that_cannot_be_written_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tmp_path, tmp_path / "missing" / "a.svg"):
        assert demo.main(["--picture", str(path)]) == 2
        assert "cannot be written" in capsys.readouterr().err


def test_the_demo_is_a_scenario_like_any_other() -> None:
    assert discover()["demo"].summary
