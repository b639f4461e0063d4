"""The control socket when somebody deletes it, or its directory, under a running agent."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from revip.api import control
from revip.api.control import ControlServer


async def answer(path: Path) -> object:
    """Ask until there is an answer."""
    while True:
        try:
            reader, writer = await asyncio.open_unix_connection(path)
        except OSError:
            await asyncio.sleep(0.005)
            continue
        writer.write(b'{"command": "hello"}\n')
        line = await reader.readline()
        writer.close()
        return json.loads(line)["result"]


@pytest.mark.parametrize("deed", ["socket", "directory"])
async def test_a_deleted_socket_comes_back(
    deed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "LOOK_SECONDS", 0.01)
    path = tmp_path / "run" / "revip.sock"
    server = asyncio.create_task(ControlServer(path, {"hello": lambda _: "here"}).run())
    async with asyncio.timeout(5):
        assert await answer(path) == "here"
        if deed == "socket":
            path.unlink()
        else:
            shutil.rmtree(path.parent)
        assert await answer(path) == "here"
        assert path.stat().st_mode & 0o777 == 0o600
    server.cancel()
    await asyncio.wait({server})
    assert not path.exists()


async def test_another_agents_socket_is_not_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "LOOK_SECONDS", 0.01)
    path = tmp_path / "revip.sock"
    first = asyncio.create_task(ControlServer(path, {"hello": lambda _: "first"}).run())
    async with asyncio.timeout(5):
        assert await answer(path) == "first"
        first.cancel()
        path.unlink()
        second = asyncio.create_task(ControlServer(path, {"hello": lambda _: "second"}).run())
        assert await answer(path) == "second"
        await asyncio.wait({first})
        assert await answer(path) == "second"
    second.cancel()
    await asyncio.wait({second})
