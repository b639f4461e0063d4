"""What an operator sees: what is wrong, since when, why, and what to do, at any width."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from revip.api import words
from revip.cli import view
from tests.cli.moments import MOMENTS, N2, at, healthy, snapshot

WIDTHS = (80, 120, 160)


def drawn(shot: dict[str, Any], width: int = 120, *, color: bool = False) -> str:
    output = io.StringIO()
    console = Console(
        file=output,
        width=width,
        highlight=False,
        force_terminal=color,
        color_system="standard" if color else None,
    )
    console.print(view.status(shot, width))
    return output.getvalue()


def flat(text: str) -> str:
    """Return `text` as it reads, however it was wrapped."""
    return " ".join(text.split())


WHAT_IT_SAYS = {
    "healthy": ("WELL n1", "up 2 min", "this node directs: 3 of 3 in, normal for 2 min"),
    "one out": (
        "ATTENTION n1",
        "n2 (10.0.1.19:6443) is unhealthy for 94 s: connection refused, confirmed",
        "-> start the server on n2; back by itself as soon as it answers",
        "2 of 3 in",
    ),
    "one hung": (
        "n2 (10.0.1.19:6443) is unhealthy for 6 s: TLS handshake not finished in 1000 ms",
        "-> ask it from here: curl -kv 'https://10.0.1.19:6443/readyz'",
    ),
    "not ready": (
        "n2 (10.0.1.19:6443) is draining for 6 s: HTTP 500",
        "-> it tells why: curl -k 'https://10.0.1.19:6443/readyz?verbose'",
    ),
    "drained": (
        "n2 (10.0.1.19:6443) is drained by the operator for 5 min: no new connections",
        "-> `revip enable n2` ends the drain",
    ),
    "panic": (
        "TROUBLE n1",
        "!! api: panic for 41 s: 0 of 3 healthy",
        "all 3 backends fail alike (connection refused)",
        "3 of 3 in, panic for 41 s",
    ),
    "fight": ("TROUBLE n1", "!! another program keeps changing", "`revip events` names it"),
    "no module": ("TROUBLE n1", "for 29 s: read the IPVS table:", "modprobe ip_vs", "1, want out"),
    "no interface": ("TROUBLE n1", "this host cannot be prepared: ", "there is no interface eth0"),
    "follower": ("WELL n1", "n2 directs, this node follows: 3 of 3 in"),
    "paused": (
        "paused by the operator: nothing is changed; 1 change to come (`revip plan`)",
        "-> `revip resume` goes back to work",
        "1, want out",
    ),
    "a fault of ours": ("no route from this host", "the fault is on our side"),
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("moment", MOMENTS)
def test_one_look_tells_what_since_when_why_and_what_to_do(moment: str, width: int) -> None:
    text = drawn(at(moment), width)
    for sentence in WHAT_IT_SAYS[moment]:
        assert sentence in flat(text)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("moment", MOMENTS)
def test_it_fits_the_terminal_and_cuts_no_name_verdict_or_weight(moment: str, width: int) -> None:
    lines = drawn(at(moment), width).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= 30
    (heading,) = (line for line in lines if line.startswith("backend"))
    columns = ["backend", "address", "verdict", "for", "weight"]
    assert heading.split()[:5] == columns
    begin = lines.index(heading)
    for line, name in zip(lines[begin + 1 :], ("n1", "n2", "n3"), strict=False):
        assert line.split()[0] == name
        assert "…" not in line[: heading.index("why")]


@pytest.mark.parametrize("moment", ["healthy", "follower"])
def test_only_a_node_without_any_trouble_is_well(moment: str) -> None:
    shot = at(moment)
    assert words.is_well(shot)
    assert words.troubles(shot) == []


@pytest.mark.parametrize("moment", sorted(set(MOMENTS) - {"healthy", "follower"}))
def test_whatever_is_wrong_is_told_with_a_mend(moment: str) -> None:
    shot = at(moment)
    assert not words.is_well(shot)
    assert all(trouble.what and trouble.mend for trouble in words.troubles(shot))


def test_the_gravest_comes_first() -> None:
    graveness = [trouble.grave for trouble in words.troubles(at("no module"))]
    assert graveness == [True, False]


def test_what_all_backends_share_is_told_once() -> None:
    told = " ".join(trouble.what for trouble in words.troubles(at("panic")))
    assert "n1 (" not in told


def test_many_ill_backends_do_not_fill_the_screen() -> None:
    shot = at("one out")
    server = shot["virtual_servers"][0]
    ill = server["backends"][1]
    server["backends"] = [{**ill, "name": f"n{number}"} for number in range(40)]
    troubles = words.troubles(shot)
    assert len(troubles) == words.AT_MOST + 1
    assert troubles[-1].what == "api: 34 more are not well"


def test_a_damped_backend_says_when_it_is_back_at_the_latest() -> None:
    shot = at("one out")
    shot["virtual_servers"][0]["backends"][1]["held_back_ms"] = 12_000
    (trouble,) = words.troubles(shot)
    assert "back in 12 s at the latest" in trouble.mend


def test_a_stranger_in_the_table_and_lost_log_lines_are_told() -> None:
    shot = snapshot(healthy(), log_lines_dropped=7, unrecorded="cannot write /run/x: disk full")
    shot["virtual_servers"][0]["strangers"] = ["10.0.1.99:6443"]
    told = flat(drawn(shot))
    assert "10.0.1.99:6443 is in the kernel, but no backend of ours" in told
    assert "lines of the log lost, as nobody reads stderr: 7" in told
    assert "cannot write /run/x: disk full" in told


def test_who_else_has_the_address_is_told_once_it_was_an_alert() -> None:
    shot = snapshot(healthy())
    rival = {
        "mac": "02:00:00:00:00:99",
        "name": "10.0.1.50",
        "fellow": False,
        "since_ms_ago": 12_000,
        "last_ms_ago": 300,
        "times": 12,
        "told": True,
    }
    fellow = {**rival, "mac": "02:00:00:00:00:02", "fellow": True, "told": False}
    shot["virtual_servers"][0]["duplicates"] = {"rivals": [rival, fellow], "standing_aside": None}
    told = flat(drawn(shot))
    assert "02:00:00:00:00:99 (10.0.1.50) answers for 10.0.1.10, too, for 12 s" in told
    assert "02:00:00:00:00:02" not in told
    assert not words.is_well(shot)


def test_an_empty_pool_says_where_backends_come_from() -> None:
    world = healthy()
    world.perform(world.node.discover("api", (), world.now))
    told = flat(drawn(snapshot(world)))
    assert "api: empty for 0 ms: no backend is known" in told
    assert "-> give it backends: virtual_servers[].backends" in told


def test_a_follower_shows_no_connections_of_a_kernel_that_has_none() -> None:
    assert "conns" not in drawn(at("follower"))


def test_a_backend_on_another_port_shows_its_port() -> None:
    shot = at("one out")
    shot["virtual_servers"][0]["backends"][0].update(port=8443, endpoint="10.0.1.16:8443")
    assert "10.0.1.16:8443" in drawn(shot)


def test_color_is_never_the_only_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    shot = at("panic")
    colored = drawn(shot, color=True)
    assert "\x1b[" in colored
    monkeypatch.setenv("NO_COLOR", "1")
    plain = drawn(shot, color=True)
    assert not any(f"\x1b[{code}m" in plain for code in ("31", "1;31", "33", "32"))
    assert "TROUBLE" in plain
    assert "unhealthy" in plain


def test_events_are_columns_on_a_terminal_and_searchable_lines_elsewhere() -> None:
    shot = at("one out")
    entry = next(e for e in shot["events"] if e["backend"] == N2 and e["level"] == "warning")
    entry["time"] = "2026-03-01T09:32:11.350+00:00"
    assert words.event(entry) == (
        "2026-03-01T09:32:11.350Z backend.verdict WARNING "
        "api: n2 (10.0.1.19:6443) is unhealthy, was healthy: connection refused, confirmed"
    )
    output = io.StringIO()
    Console(file=output, width=80).print(view.events(shot["events"], 80))
    assert "09:32:11  api: n2 (10.0.1.19:6443) is unhealthy" in output.getvalue()


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (None, "-"),
        (0, "0 ms"),
        (999, "999 ms"),
        (1000, "1 s"),
        (119_000, "119 s"),
        (120_000, "2 min"),
        (7_199_000, "119 min"),
        (7_200_000, "2 h"),
        (200_000_000, "2 d"),
    ],
)
def test_spans_are_written_as_people_say_them(milliseconds: int | None, text: str) -> None:
    assert words.span(milliseconds) == text


def test_a_snapshot_is_json() -> None:
    for moment in MOMENTS:
        assert json.loads(json.dumps(at(moment)))["schema"] == "revip.status/v1"
