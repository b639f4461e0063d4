"""The local control socket: one JSON object a line, in both directions.

A request is `{"command": "status", ...arguments}`; the answer is `{"ok": true, "result": ...}` or
`{"ok": false, "error": "one line"}`.  The socket's mode is 0600: whoever may use it may steer.
The client's side is `revip.api.asking`, which needs no event loop.
"""

from __future__ import annotations

import asyncio
import fcntl
import inspect
import json
import os
import socket
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from revip.api.asking import RefusedError, ask
from revip.errors import RevipError

__all__ = ["ControlServer", "RefusedError", "SocketTakenError", "ask", "claim"]

Command = Callable[[Mapping[str, Any]], Any]

LINE_LIMIT = 64 * 1024
"""Bytes of a request; longer ones end the connection."""
IDLE_SECONDS = 60.0
"""A client that says nothing for this long is let go."""
LOOK_SECONDS = 1.0
"""Between looks whether the socket is still where clients look for it."""
CLIENTS = 32
"""Connections served at a time; further ones are closed at once."""


class SocketTakenError(RevipError):
    """The control socket's path is in use: by another agent, or by something that is no socket."""


def claim(path: Path) -> TextIO:
    """Lock `path`.lock for this process's life and clear a stale socket; return the lock file.

    Raises `SocketTakenError` when another agent holds it or `path` is something else.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(path.name + ".lock").open("a+")
    except OSError as error:
        raise SocketTakenError(f"{path}: {os.strerror(error.errno or 0)}: {_MOVE}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        pid = lock.read().strip() or "unknown"
        lock.close()
        raise SocketTakenError(
            f"{path}: another revip agent is running here (pid {pid}): stop it first, or {_MOVE}"
        ) from error
    if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        lock.close()
        raise SocketTakenError(f"{path}: exists and is not a socket: remove it, or {_MOVE}")
    path.unlink(missing_ok=True)
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


_MOVE = "set agent.socket to another path"


class ControlServer:
    """Serves the control socket."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        self._path = path
        self._commands = commands
        self._clients = 0

    async def run(self) -> None:
        """Serve until cancelled, also after somebody has deleted the socket or its directory."""
        while True:
            await self._serve_while_there()

    async def _serve_while_there(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        bound = _bound(self._path)
        mine = _number(self._path)
        try:
            with bound:
                server = await asyncio.start_unix_server(self._serve, sock=bound, limit=LINE_LIMIT)
                async with server:
                    while _number(self._path) == mine:  # noqa: ASYNC110 (nothing tells us)
                        await asyncio.sleep(LOOK_SECONDS)
        finally:
            if _number(self._path) == mine:
                self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            while self._clients <= CLIENTS:
                async with asyncio.timeout(IDLE_SECONDS):
                    line = await reader.readline()
                    if not line:
                        break
                    writer.write(json.dumps(await self.answer(line)).encode() + b"\n")
                    await writer.drain()
        except (OSError, TimeoutError, ValueError):
            pass  # the client left, slept or talked nonsense: its affair alone
        finally:
            self._clients -= 1
            writer.close()

    async def answer(self, line: bytes) -> dict[str, Any]:
        """Carry out one request line; a command may take its time (`IDLE_SECONDS` at most)."""
        try:
            request = json.loads(line)
            name = request["command"]
            command = self._commands[name]
        except (ValueError, TypeError, KeyError, RecursionError):
            known = ", ".join(sorted(self._commands))
            return {"ok": False, "error": f'not a request: want {{"command": one of {known}}}'}
        try:
            result = command(request)
            if inspect.isawaitable(result):
                result = await result
            return {"ok": True, "result": result}
        except RevipError as error:
            return {"ok": False, "error": str(error)}


def _number(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another that took its name; None without a file."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _bound(path: Path) -> socket.socket:
    """Return a socket bound to `path`, which nobody else could use at any moment."""
    bound = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        bound.bind(str(path))
    except OSError:
        bound.close()
        raise
    finally:
        os.umask(before)
    return bound
