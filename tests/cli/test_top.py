"""Where the connections go, as `revip top` tells it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from revip.cli import topview
from revip.cli.top import WINDOW, Samples
from tests.cli.conftest import Revip
from tests.cli.moments import MOMENTS, at
from tests.cli.test_steer import agent

__all__ = ["agent"]


def counted(moment: str, *totals: int) -> dict[str, Any]:
    """Return a snapshot whose backends have seen so many connections."""
    shot = at(moment)
    for backend, total in zip(shot["virtual_servers"][0]["backends"], totals, strict=False):
        backend["connections_total"] = total
    return shot


def backends(sample: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sample["virtual_servers"][0]["backends"]
    return found


def drawn(shot: dict[str, Any], width: int, height: int = 60, *, color: bool = False) -> str:
    output = io.StringIO()
    console = Console(file=output, width=width, highlight=False, force_terminal=color)
    console.print(topview.render(shot, Samples().take(shot, 0.0), width, height))
    return output.getvalue()


def test_the_first_sample_has_shares_of_all_there_were() -> None:
    sample = Samples().take(counted("healthy", 50, 25, 25), 7.0)
    assert [each["share"] for each in backends(sample)] == [0.5, 0.25, 0.25]
    assert {each["new_connections_per_second"] for each in backends(sample)} == {None}


def test_later_ones_have_what_is_new() -> None:
    samples = Samples()
    samples.take(counted("healthy", 5000, 10, 10), 0.0)
    sample = samples.take(counted("healthy", 5001, 13, 10), 2.0)
    assert [each["share"] for each in backends(sample)] == [0.25, 0.75, 0.0]
    assert [each["new_connections_per_second"] for each in backends(sample)] == [0.5, 1.5, 0.0]
    assert sample["virtual_servers"][0]["new_connections_per_second"] == 2.0


def test_a_backend_that_came_back_counts_from_nothing() -> None:
    samples = Samples()
    for second, total in enumerate((1000, 0, 4)):
        sample = samples.take(counted("healthy", total, 0, 0), float(second))
    assert backends(sample)[0]["new_connections"] == 4


def test_what_is_long_ago_is_forgotten() -> None:
    samples = Samples()
    for second in range(100):
        sample = samples.take(counted("healthy", min(second, 50), 0, 0), float(second))
    assert sample["window_seconds"] == WINDOW
    assert backends(sample)[0]["new_connections"] == 0
    assert backends(sample)[0]["share"] is None


@pytest.mark.parametrize("width", [60, 80, 120, 160])
@pytest.mark.parametrize("moment", MOMENTS)
def test_every_moment_can_be_drawn(moment: str, width: int) -> None:
    text = drawn(at(moment), width)
    assert all(len(line) <= width for line in text.splitlines())
    for name in ("n1", "n2", "n3"):
        assert name in text


def test_what_is_wrong_stands_above_the_table() -> None:
    text = drawn(at("one out"), 120)
    assert text.index("n2 (10.0.1.19:6443) is unhealthy for 94 s") < text.index("new/s")
    assert "-> start the server on n2" in text


def test_a_low_terminal_keeps_the_table() -> None:
    text = drawn(at("one out"), 120, 12)
    assert "n3" in text
    assert len(text.splitlines()) <= 16


def test_color_says_nothing_that_words_do_not() -> None:
    assert "\x1b[" in drawn(at("one out"), 120, color=True)
    assert "\x1b[" not in drawn(at("one out"), 120)


def test_latencies_become_bars() -> None:
    assert topview.spark([0, 4, None, 8]) == "▁▄ █"
    assert topview.spark([]) == ""
    assert topview.spark([0, 0]) == "▁▁"


def test_one_sample_of_a_running_agent(revip: Revip, agent: Path) -> None:
    said = revip("top", "--once", "--socket", agent)
    assert said.code == 0
    assert "new/s" in said.out
    assert "\x1b[" not in said.out


def test_one_sample_as_json(revip: Revip, agent: Path) -> None:
    said = revip("top", "--once", "--json", "--socket", agent)
    sample = json.loads(said.out)
    assert sample["schema"] == "revip.top/v1"
    assert {each["name"] for each in backends(sample)} == {"n1", "n2", "n3"}
    assert len(said.out.splitlines()) == 1


def test_without_an_agent_it_says_so(revip: Revip, tmp_path: Path) -> None:
    said = revip("top", "--once", "--socket", tmp_path / "none")
    assert said.code == 1
    assert "no agent is running here" in said.err
