"""Backends on loopback for the probes: real TCP and TLS servers that misbehave to order."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import pytest
import trustme

from revip.adapters.probes import probe_factory
from revip.model.health import Backend, BackendName, HealthTiming
from revip.model.instants import Instant, Span
from revip.model.ipvs import Port
from revip.model.spec import ProbeKind, ProbeSpec
from revip.ports import BackendProbe, ProbeFactory

Behavior = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

PATIENT = HealthTiming(timeout=Span(5000), connect_timeout=Span(2000))
"""For probes that are expected to be answered, however loaded the machine is."""
HASTY = HealthTiming(timeout=Span(80), connect_timeout=Span(50))
"""For probes that are expected to give up."""


class BootClock:
    """CLOCK_BOOTTIME in milliseconds."""

    def now(self) -> Instant:
        return Instant(time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000)


@dataclass
class Server:
    """A listening backend, and what reached it."""

    port: Port
    listener: asyncio.Server | None = None
    heads: list[bytes] = field(default_factory=list)
    """Request heads, in order of arrival."""
    connections: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def stop(self) -> None:
        """Stop listening and end every connection, as the kernel does for a dead process."""
        if self.listener is not None:
            self.listener.close()
        for writer in self.writers:
            with contextlib.suppress(AttributeError):  # Python before 3.11.4, when closed twice
                writer.transport.abort()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await asyncio.sleep(0)


def answer(status: str = "200 OK", body: bytes = b"ok", headers: str = "") -> bytes:
    """Return an HTTP/1.1 answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


class Backends:
    """Starts servers and makes probes of them; ends them all when the test is over."""

    def __init__(self) -> None:
        self.make: ProbeFactory = probe_factory(BootClock())
        self._servers: list[Server] = []
        self._probes: list[BackendProbe] = []

    async def serve(self, behavior: Behavior, context: ssl.SSLContext | None = None) -> Server:
        """Start a server that treats every connection with `behavior`."""
        server = Server(Port(0))

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            server.tasks.append(task)
            server.writers.append(writer)
            server.connections += 1
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await behavior(reader, writer)
            writer.close()

        server.listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
        server.port = Port(server.listener.sockets[0].getsockname()[1])
        self._servers.append(server)
        return server

    async def serve_http(
        self, *answers: bytes, context: ssl.SSLContext | None = None, close: bool = False
    ) -> Server:
        """Start a server that gives `answers` in turn, the last one for ever (keep-alive)."""
        server: Server
        waiting = list(answers or (answer(),))

        async def behavior(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                server.heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(waiting.pop(0) if len(waiting) > 1 else waiting[0])
                if close:
                    writer.close()
                    return

        server = await self.serve(behavior, context)
        return server

    def probe(
        self,
        port: int,
        spec: ProbeSpec,
        timing: HealthTiming = PATIENT,
        lost: Callable[[str], None] = lambda _: None,
        address: str = "127.0.0.1",
    ) -> BackendProbe:
        """Return a probe of the server on `port`."""
        backend = Backend(BackendName("n1"), ip_address(address), Port(port))
        probe = self.make(backend, spec, timing, lost)
        self._probes.append(probe)
        return probe

    async def close(self) -> None:
        for probe in self._probes:
            await probe.close()
        for server in self._servers:
            await server.stop()


@pytest.fixture
async def backends() -> AsyncIterator[Backends]:
    backends = Backends()
    yield backends
    await backends.close()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.crt"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def http() -> ProbeSpec:
    return ProbeSpec(kind=ProbeKind.HTTP)


@pytest.fixture
def https(ca_file: Path) -> ProbeSpec:
    return ProbeSpec(kind=ProbeKind.HTTPS, ca=ca_file)


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """Return the context of a server that shows `certificate`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.fixture(scope="session")
def serving(authority: trustme.CA) -> ssl.SSLContext:
    """The context of a server with a good certificate for 127.0.0.1."""
    return server_context(authority.issue_cert("127.0.0.1"))


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept, read, and never answer."""
    while await reader.read(1000):
        pass


async def until(true: Callable[[], bool]) -> None:
    """Wait until `true()`, for what gives no event: the other side of a loopback connection."""
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def unused_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
