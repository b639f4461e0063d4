"""An HTTP endpoint on a port of its own, and raw clients that speak to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import pytest

from revip.agent.history import History
from revip.api.http.routes import Told
from revip.api.http.server import HttpServer
from revip.api.words import told
from revip.model.http import HttpSpec, Listen
from revip.model.instants import Instant
from revip.model.ipvs import Port
from revip.model.notes import Kind, Level, Note
from tests.cli import moments

LOOPBACK = Listen(ip_address("127.0.0.1"), Port(0))


def whole(snapshot: dict[str, Any]) -> dict[str, Any]:
    """Return a snapshot with what the surfaces add to it."""
    return {**snapshot, "http": None, "history": None, "peers": [], **told(snapshot)}


def note(text: str, level: Level = Level.INFO, kind: Kind = Kind.VERDICT) -> Note:
    return Note(Instant(1), kind, text, level, "api", "n2")


class LoopClock:
    def now(self) -> Instant:
        return Instant(round(asyncio.get_running_loop().time() * 1000))


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def parsed(octets: bytes) -> Answer:
    head, _, body = octets.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    return Answer(int(first.split()[1]), {n.lower(): v for n, _, v in pairs}, body)


@dataclass
class Endpoint:
    """A running endpoint; `snapshot` is what it tells."""

    server: HttpServer
    history: History
    notes: list[Note]
    snapshot: dict[str, Any]
    context: ssl.SSLContext | None = None
    open: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def port(self) -> int:
        assert self.server.listening is not None
        return self.server.listening.port

    async def connect(
        self, context: ssl.SSLContext | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = context or self.context
        name = "localhost" if context else None
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context, server_hostname=name
        )
        self.open.append(writer)
        return reader, writer

    async def send(self, octets: bytes, context: ssl.SSLContext | None = None) -> bytes:
        """Send these octets, and return all that comes until the other side ends."""
        reader, writer = await self.connect(context)
        said = b""
        with contextlib.suppress(ConnectionError):
            writer.write(octets)
            await writer.drain()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(10):
                while chunk := await reader.read(65536):
                    said += chunk
        return said

    async def get(
        self,
        target: str,
        *headers: str,
        method: str = "GET",
        host: str = "localhost",
        context: ssl.SSLContext | None = None,
    ) -> Answer:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
        return parsed(await self.send(("\r\n".join(lines) + "\r\n\r\n").encode(), context))


Serving = Callable[..., contextlib.AbstractAsyncContextManager[Endpoint]]


@contextlib.asynccontextmanager
async def serving(
    spec: HttpSpec | None = None, metrics: Callable[[], bytes] = lambda: b"up 1\n"
) -> AsyncIterator[Endpoint]:
    """Run an endpoint as the agent does."""
    history, notes = History(), list[Note]()
    snapshot = whole(moments.at("one out"))
    told_there = Told(lambda: snapshot, metrics, history.after)
    server = HttpServer(spec or HttpSpec(LOOPBACK), told_there, LoopClock(), notes.append)
    history.followers.append(server.tell)
    for text in ("n2 is healthy", "n2 is unhealthy"):
        history.add(datetime.now(UTC), note(text))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(server.run())
        while server.listening is None and not running.done():  # noqa: ASYNC110
            await asyncio.sleep(0)
        endpoint = Endpoint(server, history, notes, snapshot)
        yield endpoint
        for writer in endpoint.open:
            writer.transport.abort()
        running.cancel()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with serving() as endpoint:
        yield endpoint
