"""A careful HTTP/1.1 client that times every step and names every failure.

It does what a good client does and no more: it verifies certificates, keeps connections alive,
notices one that the server has closed before it sends on it, and never sends a request twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Self


class RequestError(Exception):
    """A request without a good answer; `kind` is its class.

    `refused`, `reset`, `eof`, `timeout`, `unreachable`, `tls`, `protocol` (not HTTP), `http-NNN`.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


@dataclass(frozen=True)
class Target:
    """Whom to ask, and how long to wait for a whole exchange."""

    address: str
    port: int
    ca: Path | None
    """CA file; None is plain HTTP."""
    server_name: str = "kubernetes"
    """The name that the certificate must have (TLS server name indication)."""
    timeout: float = 5.0
    """Seconds for connecting and for each answer, together."""
    certificate: Path | None = None
    """Client certificate chain, if any."""
    key: Path | None = None
    keepalive: int = 15
    """Seconds of silence before TCP asks whether the other side lives; Go's net package has 15."""

    @cached_property
    def context(self) -> ssl.SSLContext | None:
        """The TLS settings, made once; None is plain HTTP."""
        if self.ca is None:
            return None
        context = ssl.create_default_context(cafile=str(self.ca))
        context.set_alpn_protocols(["http/1.1"])
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer."""

    status: int
    body: bytes

    @property
    def error(self) -> str | None:
        """`http-NNN` unless the status is of the 200s."""
        return None if 200 <= self.status < 300 else f"http-{self.status}"

    @property
    def backend(self) -> str | None:
        """Who answered, if the body is that of `/whoami`."""
        with contextlib.suppress(ValueError, AttributeError):
            name = json.loads(self.body).get("name")
            return str(name) if name is not None else None
        return None


@dataclass(frozen=True, slots=True)
class Sample:
    """One exchange over a connection of its own; instants are CLOCK_MONOTONIC nanoseconds."""

    start: int
    end: int
    connected: int | None
    """When the TCP handshake was complete."""
    secured: int | None
    """When the TLS handshake was complete; with plain HTTP the same as `connected`."""
    backend: str | None
    status: int | None
    error: str | None
    body: bytes = b""


class Connection:
    """An open connection; one exchange at a time."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stamps: tuple[int, int]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self.connected, self.secured = stamps
        self.exchanges = 0
        self.unanswered = False
        """True while a request is out and not a whole head of its answer has come."""
        self._done = False
        self.source: tuple[str, int] = writer.get_extra_info("sockname")[:2]
        """Our own address and port, as the director's hash sees it."""

    @classmethod
    async def open(cls, target: Target) -> Self:
        """Connect; raises `RequestError`.  The caller bounds the time."""
        family = socket.AF_INET if ip_address(target.address).version == 4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as Go's net package
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, target.keepalive)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, target.keepalive)
        loop = asyncio.get_running_loop()
        with translated("connecting"):
            try:
                await loop.sock_connect(sock, (target.address, target.port))
            except BaseException:
                sock.close()
                raise
            connected = time.monotonic_ns()
            # From here on the loop owns the socket and closes it, whatever happens.
            reader, writer = await asyncio.open_connection(
                sock=sock,
                ssl=target.context,
                server_hostname=target.server_name if target.context else None,
                ssl_shutdown_timeout=1.0 if target.context else None,
            )
        return cls(reader, writer, (connected, time.monotonic_ns()))

    @property
    def is_usable(self) -> bool:
        """False once either side has closed it, or an answer said `Connection: close`."""
        return not (
            self._done
            or self._reader.at_eof()
            or self._reader.exception() is not None
            or self._writer.transport.is_closing()
        )

    async def ask(self, path: str) -> Answer:
        """GET `path` and return the answer whatever its status; raises `RequestError`."""
        self._done = True  # until the answer is complete
        self.exchanges += 1
        with translated(f"GET {path}"):
            status, headers = await self._exchange_heads(path)
            body = await self._reader.readexactly(_length(headers))
        self._done = "close" in headers.get("connection", "").lower()
        return Answer(status, body)

    async def lines(self, path: str) -> AsyncIterator[str]:
        """GET `path` and yield its lines, one per chunk, to the end; raises `RequestError`."""
        self._done = True
        with translated(f"GET {path}"):
            status, _ = await self._exchange_heads(path)
            if status != 200:
                raise RequestError(f"http-{status}", path)
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                chunk = await self._reader.readexactly(size + 2)
                yield chunk[:-2].decode().rstrip("\n")

    async def close(self) -> None:
        """Close, politely (TLS close_notify) if the other side is still well."""
        if self.is_usable:
            self._writer.close()
        else:
            self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _exchange_heads(self, path: str) -> tuple[int, dict[str, str]]:
        host, port = self._writer.get_extra_info("peername")[:2]
        name = f"[{host}]" if ":" in host else host
        self._writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {name}:{port}\r\n"
            "User-Agent: revip-lab\r\nAccept: */*\r\n\r\n".encode()
        )
        self.unanswered = True
        first, *fields = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.unanswered = False
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise RequestError("protocol", f"status line {first[:40]!r}")
        pairs = (line.partition(":") for line in fields if line)
        return int(rest[:3]), {name.lower(): value.strip() for name, _, value in pairs}


def _length(headers: dict[str, str]) -> int:
    length = headers.get("content-length", "")
    if not length.isdigit():
        raise RequestError("protocol", "no Content-Length")
    return int(length)


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn what asyncio and ssl raise into `RequestError`."""
    try:
        yield
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
        raise RequestError(_kind(error), f"{doing}: {error}") from error


def _kind(error: Exception) -> str:
    match error:
        case ssl.SSLError():
            return "tls"
        case ConnectionRefusedError():
            return "refused"
        case ConnectionResetError() | BrokenPipeError() | ConnectionAbortedError():
            return "reset"
        case TimeoutError():
            return "timeout"
        case OSError(errno=errno.EHOSTUNREACH | errno.ENETUNREACH):
            return "unreachable"
        case asyncio.IncompleteReadError():
            return "eof"
        case _:
            return "protocol"


async def one_shot(target: Target, path: str = "/whoami") -> Sample:
    """Ask once over a new connection; never raises `RequestError`: the sample says it."""
    start = time.monotonic_ns()
    connection: Connection | None = None
    answer: Answer | None = None
    error: str | None = None
    try:
        with translated("one shot"):
            async with asyncio.timeout(target.timeout):
                connection = await Connection.open(target)
                answer = await connection.ask(path)
        error = answer.error
    except RequestError as failed:
        error = failed.kind
    end = time.monotonic_ns()
    if connection is not None:
        await connection.close()
    return Sample(
        start=start,
        end=end,
        connected=connection.connected if connection else None,
        secured=connection.secured if connection else None,
        backend=answer.backend if answer else None,
        status=answer.status if answer else None,
        error=error,
        body=answer.body if answer else b"",
    )


def ask_once(target: Target, path: str = "/whoami") -> Sample:
    """Like `one_shot`, for callers without a loop."""
    return asyncio.run(one_shot(target, path))
