"""The control socket: whoever talks nonsense harms only himself, and a dead agent is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from revip.api import control
from revip.api.asking import RefusedError, ask
from revip.api.control import CLIENTS, LINE_LIMIT, ControlServer, SocketTakenError, claim
from revip.errors import RevipError

Serving = Callable[[], contextlib.AbstractAsyncContextManager[None]]


def refuse(_: Mapping[str, Any]) -> None:
    raise RevipError("it makes no sense here")


COMMANDS: dict[str, control.Command] = {"echo": lambda request: request.get("text"), "no": refuse}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "revip.sock"


@pytest.fixture
async def server(path: Path) -> AsyncIterator[ControlServer]:
    with claim(path):
        server = ControlServer(path, COMMANDS)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(server.run())
            await bound(path)
            yield server
            running.cancel()


async def bound(path: Path) -> None:
    """Return when the server, which runs in this very loop, has made its socket."""
    for _ in range(1000):
        if os.path.exists(path):  # noqa: ASYNC240, PTH110 - takes microseconds
            return
        await asyncio.sleep(0)
    raise TimeoutError(path)


async def asked(path: Path, command: str, **arguments: Any) -> Any:
    return await asyncio.to_thread(ask, path, command, 5.0, **arguments)


async def sent(path: Path, *lines: bytes) -> list[bytes]:
    """Send raw bytes, then the end; return the lines that come back."""
    reader, writer = await asyncio.open_unix_connection(path)
    with contextlib.suppress(ConnectionError):
        writer.write(b"".join(lines))
        writer.write_eof()
        await writer.drain()
    answer = b""
    with contextlib.suppress(ConnectionError):
        answer = await reader.read()
    writer.close()
    return answer.splitlines()


async def test_a_command_is_answered(path: Path, server: ControlServer) -> None:
    assert await asked(path, "echo", text="well") == "well"


async def test_a_refusal_comes_in_the_agents_own_words(path: Path, server: ControlServer) -> None:
    with pytest.raises(RefusedError, match=r"^it makes no sense here$"):
        await asked(path, "no")


async def test_an_unknown_command_names_those_that_are(path: Path, server: ControlServer) -> None:
    with pytest.raises(RefusedError, match="one of echo, no"):
        await asked(path, "stauts")


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"{\n",
        b"[]\n",
        b"null\n",
        b'"echo"\n',
        b'{"command": ["echo"]}\n',
        b'{"command": null}\n',
        b"{}\n",
        b"\xff\xfe\x00\n",
        b"[" * 60_000 + b"\n",
        b"GET / HTTP/1.1\r\n",
    ],
)
async def test_nonsense_is_answered_with_what_is_wanted(
    path: Path, server: ControlServer, line: bytes
) -> None:
    (answer,) = await sent(path, line)
    assert json.loads(answer)["ok"] is False
    assert "not a request" in json.loads(answer)["error"]
    assert await asked(path, "echo", text="still here") == "still here"


async def test_several_requests_on_one_connection_are_answered_in_order(
    path: Path, server: ControlServer
) -> None:
    lines = [json.dumps({"command": "echo", "text": n}).encode() + b"\n" for n in range(20)]
    answers = await sent(path, lines[0], b"nonsense\n", *lines[1:])
    assert [json.loads(answer).get("result") for answer in answers] == [0, None, *range(1, 20)]


async def test_a_request_without_end_ends_the_connection_alone(
    path: Path, server: ControlServer
) -> None:
    assert await sent(path, b"x" * (4 * LINE_LIMIT)) == []
    assert await asked(path, "echo", text="still here") == "still here"


async def test_a_client_that_leaves_in_the_middle_is_forgotten(
    path: Path, server: ControlServer
) -> None:
    for _ in range(2 * CLIENTS):
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"command": "ec')
        writer.close()
    assert await asked(path, "echo", text="still here") == "still here"


async def test_forty_clients_at_once_are_answered_or_told_why_not(
    path: Path, server: ControlServer
) -> None:
    asks = [asked(path, "echo", text=n) for n in range(40)]
    answers = await asyncio.gather(*asks, return_exceptions=True)
    served = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert set(served) <= set(range(40))
    assert len(served) >= CLIENTS
    refused = [str(answer) for answer in answers if isinstance(answer, BaseException)]
    assert all("closed the connection" in text for text in refused)


async def test_idle_clients_fill_the_house_only_until_they_are_let_go(
    path: Path, server: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "IDLE_SECONDS", 0.3)
    idle = [await asyncio.open_unix_connection(path) for _ in range(CLIENTS)]
    with pytest.raises(RefusedError, match="closed the connection"):
        await asked(path, "echo")
    for reader, writer in idle:
        assert await reader.read() == b""
        writer.close()
    assert await asked(path, "echo", text="room again") == "room again"


async def test_only_its_own_user_may_use_it(path: Path, server: ControlServer) -> None:
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600  # noqa: PTH116


async def test_the_umask_is_as_before(path: Path, server: ControlServer) -> None:
    before = os.umask(0o022)
    os.umask(before)
    assert before != 0o177


async def test_the_socket_goes_with_a_clean_end(path: Path) -> None:
    with claim(path):
        running = asyncio.create_task(ControlServer(path, COMMANDS).run())
        await bound(path)
        assert await asked(path, "echo", text="well") == "well"
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    assert not os.path.exists(path)  # noqa: ASYNC240, PTH110


# Who may have the path ------------------------------------------------------------------------


def test_a_second_agent_is_refused_with_the_pid_of_the_first(path: Path) -> None:
    with (
        claim(path),
        pytest.raises(SocketTakenError, match=rf"another revip agent .*\(pid {os.getpid()}\)"),
    ):
        claim(path)
    claim(path).close()


def test_something_else_at_the_path_is_not_removed(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("precious")
    with pytest.raises(SocketTakenError, match="exists and is not a socket: remove it"):
        claim(path)
    assert path.read_text() == "precious"
    path.unlink()
    claim(path).close()


def test_a_directory_that_cannot_be_made_is_an_answer(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SocketTakenError, match=r"File exists: set agent.socket to another path"):
        claim(tmp_path / "file" / "revip.sock")


AGENT = """\
import asyncio, sys
from pathlib import Path
from revip.api.control import ControlServer, claim

async def main(path):
    serving = asyncio.create_task(ControlServer(path, {"echo": lambda r: r["text"]}).run())
    while not path.exists():
        await asyncio.sleep(0.001)
    print("ready", flush=True)
    await serving

path = Path(sys.argv[1])
lock = claim(path)
asyncio.run(main(path))
"""


def test_a_killed_agent_leaves_a_stale_socket_that_the_next_start_replaces(path: Path) -> None:
    command = [sys.executable, "-c", AGENT, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as agent:
        try:
            assert agent.stdout is not None
            assert agent.stdout.readline() == b"ready\n"
            assert ask(path, "echo", text="alive") == "alive"
            with pytest.raises(SocketTakenError, match=rf"pid {agent.pid}"):
                claim(path)
        finally:
            agent.send_signal(signal.SIGKILL)
    assert stat.S_ISSOCK(path.stat().st_mode)
    with pytest.raises(RefusedError, match=r"no agent is running here: start `revip run`"):
        ask(path, "echo", text="anybody?")
    claim(path).close()
    assert not path.exists()


# What the client says when nobody answers -----------------------------------------------------


def test_no_agent_is_said_with_what_to_do(path: Path) -> None:
    with pytest.raises(RefusedError, match=r"revip.sock: no agent is running here: start"):
        ask(path, "status")


def test_a_frozen_agent_is_told_from_none(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as frozen:
        frozen.bind(str(path))
        frozen.listen()
        with pytest.raises(RefusedError, match="does not answer; it may be frozen"):
            ask(path, "status", seconds=0.05)


def test_an_answer_that_is_none_of_ours_is_refused(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(path))
        stranger.listen()
        client = subprocess.Popen(
            [sys.executable, "-c", _ASK, str(path)], stdout=subprocess.PIPE, text=True
        )
        visitor, _ = stranger.accept()
        with visitor, client:
            visitor.sendall(b"220 smtp ready\n")
            said, _ = client.communicate(timeout=20)
    assert "cannot talk to the agent" in said


_ASK = """\
import sys
from pathlib import Path
from revip.api.asking import RefusedError, ask
try:
    ask(Path(sys.argv[1]), "status")
except RefusedError as error:
    print(error)
"""
