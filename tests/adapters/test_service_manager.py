"""What systemd is sent, on a real socket."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from revip.adapters.service_manager import STATUS_MAX, ServiceManager


@pytest.fixture(params=["path", "abstract"])
def listening(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[str, socket.socket]]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@revip-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name.replace("@", "\0"))
        sock.settimeout(5)
        yield name, sock


def made(name: str, **more: str) -> ServiceManager:
    return ServiceManager({"NOTIFY_SOCKET": name, **more}, os.getpid())


def heard(sock: socket.socket) -> dict[str, str]:
    lines = sock.recv(65536).decode().split("\n")
    return dict(line.split("=", 1) for line in lines)


def test_each_state_is_one_datagram(listening: tuple[str, socket.socket]) -> None:
    name, sock = listening
    manager = made(name)
    assert manager.listens
    manager.ready("well: api 3 of 3 in")
    assert heard(sock) == {"READY": "1", "STATUS": "well: api 3 of 3 in"}
    manager.status("trouble:\nno backend")
    assert heard(sock) == {"STATUS": "trouble: no backend"}
    manager.alive()
    assert heard(sock) == {"WATCHDOG": "1"}
    manager.stopping()
    assert heard(sock)["STOPPING"] == "1"
    assert manager.failures == 0
    manager.close()


def test_a_reload_tells_the_monotonic_time(listening: tuple[str, socket.socket]) -> None:
    name, sock = listening
    manager = made(name)
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    manager.reloading()
    said = heard(sock)
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert said["RELOADING"] == "1"
    assert before <= int(said["MONOTONIC_USEC"]) <= after
    manager.close()


def test_a_long_status_is_cut_and_not_lost(listening: tuple[str, socket.socket]) -> None:
    name, sock = listening
    manager = made(name)
    manager.status("x" * 1_000_000)
    assert len(heard(sock)["STATUS"]) == STATUS_MAX
    manager.close()


@pytest.mark.parametrize("name", ["", "vsock:2:1234", "relative", "/nowhere/at/all"])
def test_nobody_to_tell_is_no_trouble(name: str) -> None:
    manager = made(name, WATCHDOG_USEC="1000000")
    manager.ready("well")
    manager.alive()
    manager.reloading()
    manager.stopping()
    assert manager.failures == (4 if name.startswith("/") else 0)
    assert manager.listens == name.startswith("/")
    manager.close()


def test_a_manager_that_does_not_read_is_not_waited_for(tmp_path: Path) -> None:
    name = str(tmp_path / "full")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name)
        manager = made(name)
        began = time.monotonic()
        for _ in range(2000):
            manager.status("x" * 500)
        assert time.monotonic() - began < 5
        assert manager.failures > 0
        manager.close()


@pytest.mark.parametrize(
    ("variables", "span"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "10000000"}, 10_000),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}, 10_000),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
    ],
)
def test_the_watchdog_is_that_of_this_process(variables: dict[str, str], span: int | None) -> None:
    assert made("/run/notify", **variables).watchdog == span
