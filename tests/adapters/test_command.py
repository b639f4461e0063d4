"""A command that is started for each message: real programs, well and ill."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from revip.adapters.command import CommandMessenger
from revip.errors import NotWantedError, TransientError
from revip.model.instants import Instant, Span
from revip.model.notes import Event, Kind, Level, Note
from revip.model.notify import CommandSpec, Message, VrrpState
from tests.messages import NOON, message, transition

ENVIRON = {
    "PATH": os.environ["PATH"],
    "REVIP_VIP": "10.0.1.10",
    "NOTIFY_SOCKET": "/run/systemd/notify",
    "WATCHDOG_USEC": "1",
}


def program(tmp_path: Path, text: str) -> str:
    path = tmp_path / "notify.sh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def messenger(*argv: str, timeout: int = 10_000) -> CommandMessenger:
    return CommandMessenger(CommandSpec(argv, Span(timeout)), ENVIRON)


async def told(tmp_path: Path, about: Message) -> tuple[list[str], dict[str, str]]:
    out = tmp_path / "out"
    script = program(tmp_path, f'for a in "$@"; do echo "$a"; done > {out}; env -0 > {out}.env')
    await messenger(script, "own").deliver(about)
    entries = (tmp_path / "out.env").read_text().rstrip("\0").split("\0")
    return out.read_text().splitlines(), dict(entry.split("=", 1) for entry in entries)


async def test_an_event_is_told_by_the_environment(tmp_path: Path) -> None:
    arguments, environ = await told(tmp_path, message())
    assert arguments == ["own"]
    assert environ["REVIP_KIND"] == "backend.verdict"
    assert environ["REVIP_LEVEL"] == "warning"
    assert environ["REVIP_TEXT"] == "n2 is unhealthy: connection refused"
    assert (environ["REVIP_VIRTUAL_SERVER"], environ["REVIP_BACKEND"]) == ("api", "n2")
    assert environ["REVIP_ENDS"] == "false"
    assert environ["PATH"] == ENVIRON["PATH"]
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "REVIP_VIP"} & environ.keys()


@pytest.mark.parametrize("state", VrrpState)
async def test_leadership_is_told_as_keepalived_does(tmp_path: Path, state: VrrpState) -> None:
    arguments, environ = await told(tmp_path, transition(state))
    assert arguments == ["own", "INSTANCE", "api", state.value, "150"]
    assert environ["REVIP_STATE"] == state.value


async def test_no_text_can_break_out(tmp_path: Path) -> None:
    text = "a\nB=c; $(touch x) `id` \udc80 and \0 nul"
    note = Note(Instant(0), Kind.VERDICT, text, Level.ERROR, "api", "n2")
    _, environ = await told(tmp_path, Message("n1", Event(1, NOON, note)))
    assert environ["REVIP_TEXT"] == "a\nB=c; $(touch x) `id` ? and  nul"


async def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    script = program(tmp_path, f"sleep 60 & echo $! > {tmp_path}/child; wait")
    began = time.monotonic()
    with pytest.raises(TransientError, match="was killed: it took longer than 500 ms"):
        await messenger(script, timeout=500).deliver(message())
    assert time.monotonic() - began < 5
    child = int((tmp_path / "child").read_text())
    for _ in range(200):
        if not _runs(child):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the child lives")


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_only_75_asks_for_another_start(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="exit code 75"):
        await messenger(program(tmp_path, "exit 75")).deliver(message())
    with pytest.raises(NotWantedError, match="exit code 3"):
        await messenger(program(tmp_path, "exit 3")).deliver(message())
    with pytest.raises(NotWantedError, match="signal 9"):
        await messenger(program(tmp_path, "kill -9 $$")).deliver(message())


async def test_what_cannot_be_started_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(TransientError, match="cannot be started"):
            await messenger(str(path)).deliver(message())


async def test_much_output_blocks_nobody(tmp_path: Path) -> None:
    script = program(tmp_path, "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2")
    await messenger(script).deliver(message())


async def test_a_command_that_is_given_up_is_killed(tmp_path: Path) -> None:
    script = program(tmp_path, f"echo $$ > {tmp_path}/pid; sleep 60")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await messenger(script).deliver(message())
    assert not _runs(int((tmp_path / "pid").read_text()))
