"""When the service manager hears what, in virtual time; and the whole on a real socket."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from revip.adapters.history_file import HistoryFile
from revip.agent.agent import Agent
from revip.agent.outside import Ports
from revip.agent.reporting import Report, Reporting
from revip.model.http import HttpSpec
from revip.model.instants import Span
from revip.wiring import Reloading, serve
from tests.agent.fakes import Stage, play
from tests.planner.test_node import spec


class FakeManager:
    """Remembers what it was told, and when."""

    def __init__(self, watchdog: int | None) -> None:
        self.watchdog = None if watchdog is None else Span(watchdog)
        self.heard: list[tuple[float, str]] = []

    def _hear(self, what: str) -> None:
        self.heard.append((asyncio.get_running_loop().time(), what))

    def ready(self, status: str) -> None:
        self._hear(f"ready {status}")

    def status(self, text: str) -> None:
        self._hear(f"status {text}")

    def reloading(self) -> None:
        self._hear("reloading")

    def stopping(self) -> None:
        self._hear("stopping")

    def alive(self) -> None:
        self._hear("alive")

    def told(self) -> list[str]:
        return [what for _, what in self.heard if what != "alive"]

    def gaps(self) -> list[float]:
        times = [at for at, what in self.heard if what == "alive"]
        return [b - a for a, b in pairwise(times)]


def reported(manager: FakeManager, report: Callable[[float], Report], seconds: float) -> Reporting:
    """Have `report(seconds since the start)` reported for `seconds`."""
    kept: list[Reporting] = []

    async def story() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        reporting = Reporting(manager, lambda: report(loop.time() - began))
        kept.append(reporting)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await reporting.run()

    play(story())
    return kept[0]


def test_ready_is_told_once_and_not_before_it_is_true() -> None:
    manager = FakeManager(None)
    reported(manager, lambda at: Report(at >= 2, True, "well"), 60)
    assert manager.told() == ["status well", "ready well"]
    assert manager.heard[1][0] - manager.heard[0][0] == pytest.approx(2, abs=0.2)


def test_the_watchdog_is_fed_at_half_its_span_from_the_start() -> None:
    manager = FakeManager(4000)
    reported(manager, lambda at: Report(at >= 10, True, "well"), 60)
    assert max(manager.gaps()) <= 2.001
    assert len(manager.gaps()) >= 25


def test_a_short_watchdog_is_fed_while_starting_too() -> None:
    manager = FakeManager(100)
    reported(manager, lambda at: Report(False, True, "starting"), 5)
    assert max(manager.gaps()) <= 0.051


def test_what_is_stuck_feeds_no_watchdog() -> None:
    manager = FakeManager(4000)
    reported(manager, lambda at: Report(True, at < 10, "well"), 60)
    assert max(at for at, what in manager.heard if what == "alive") - manager.heard[0][0] < 10


def test_without_a_watchdog_none_is_fed() -> None:
    manager = FakeManager(None)
    reported(manager, lambda at: Report(True, True, "well"), 60)
    assert [what for _, what in manager.heard] == ["ready well"]


def test_the_status_is_told_when_it_changes() -> None:
    manager = FakeManager(None)
    reported(manager, lambda at: Report(True, True, "well" if at < 20 else "trouble"), 60)
    assert manager.told() == ["ready well", "status trouble"]


def test_a_reload_before_the_start_is_not_told() -> None:
    manager = FakeManager(None)
    reporting = reported(manager, lambda at: Report(False, True, "starting"), 1)
    reporting.reloading()
    reporting.reloaded()
    assert manager.told() == ["status starting"]


async def test_an_agent_tells_a_real_socket_from_start_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        folder = tmp_path / "s"
        folder.mkdir(mode=0o700)
        stage = Stage(replace(spec(), http=HttpSpec(None), socket=folder / "sock"))
        agent = Agent(stage.spec, _ports(stage), stage.journal)
        (tmp_path / "revip.yaml").write_text("nonsense: 1\n")
        reloading = Reloading(tmp_path / "revip.yaml", {}, "n1")
        with HistoryFile(tmp_path / "history.jsonl") as kept:
            task = asyncio.create_task(serve(agent, reloading, kept))
            said: list[str] = []
            await _heard(sock, said, "READY=1")
            assert "STATUS=" in said[-1]
            await _heard(sock, said, "WATCHDOG=1")
            await _heard(sock, said, "WATCHDOG=1")
            os.kill(os.getpid(), signal.SIGHUP)
            await _heard(sock, said, "RELOADING=1")
            assert "MONOTONIC_USEC=" in said[-1]
            await _heard(sock, said, "READY=1")
            os.kill(os.getpid(), signal.SIGTERM)
            await _heard(sock, said, "STOPPING=1")
            await asyncio.wait_for(task, 10)


def _ports(stage: Stage) -> Ports:
    return Ports(
        stage.clock,
        stage.kernel,
        None,
        stage.backends,
        lambda _: None,
        stage.ownership,
        lambda: (),
        stage.keeper,
    )


async def _heard(sock: socket.socket, said: list[str], line: str) -> None:
    """Wait until `line` is heard; what is heard until then is added to `said`."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(20):
        while True:
            said.append((await loop.sock_recv(sock, 65536)).decode())
            if line in said[-1].split("\n"):
                return
