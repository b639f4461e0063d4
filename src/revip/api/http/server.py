"""The endpoint's server: who is let in, how many at a time, and how often.

It accepts by itself, so that a connection counts from its first packet and not only when its TLS
handshake is over.  When the house is full, the one that has waited longest without asking
anything gives way: a thousand held connections do not keep Prometheus out.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from revip.api.http.conversation import Conversation, SlowError
from revip.api.http.guard import Guard
from revip.api.http.messages import EventStream, Refusal, Request, Response
from revip.api.http.routes import OPEN, PATHS, Told, answer
from revip.api.http.tls import Certificate
from revip.errors import TransientError
from revip.model.http import HttpSpec, Listen
from revip.model.ipvs import Port
from revip.model.notes import Event, Kind, Level, Note
from revip.planner.telling import Seldom
from revip.ports import Clock

CONNECTIONS = 64
"""At a time."""
STREAMS = 16
"""Of events, at a time."""
PER_SECOND = 50
"""Requests answered; further ones wait, so that no client can keep the loop busy."""
BURST_SECONDS = 1.0
HANDSHAKE_SECONDS = 5.0
BUFFER = 16 * 1024
"""Octets read ahead."""
SHORT_SECONDS = 0.5
"""Before the next attempt to accept when there are no descriptors left."""


@dataclass(slots=True)
class Counts:
    """What the endpoint has seen since the start."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By path (`other` for those that are not) and status."""
    crowded_out: int = 0
    """Connections that gave way to others, or found no room."""
    slow: int = 0
    """Clients dropped because they were too slow."""
    faults: int = 0
    """Errors of ours."""


class HttpServer:
    """Serves `told` on the address that the configuration says."""

    def __init__(
        self, spec: HttpSpec, told: Told, clock: Clock, note: Callable[[Note], None]
    ) -> None:
        self._spec = spec
        self._told = told
        self._clock = clock
        self._note = note
        self._certificate = Certificate(spec)
        self._guard = Guard(spec, note, clock.now)
        self._seldom = Seldom()
        self._guests: dict[asyncio.Task[None], Conversation | None] = {}
        self._listeners: set[asyncio.Event] = set()
        self._paid_until = 0.0
        self.counts = Counts()
        self.listening: Listen | None = None
        self.failures = 0
        """Attempts to listen that failed."""
        self.failure: str | None = None

    @property
    def refused(self) -> int:
        """Requests that showed neither token nor certificate, or a wrong one."""
        return self._guard.refused

    @property
    def connections(self) -> int:
        """Connections at present."""
        return len(self._guests)

    @property
    def streams(self) -> int:
        """Streams of events at present."""
        return len(self._listeners)

    def status(self) -> dict[str, Any]:
        """Return what an operator wants to know of the endpoint."""
        scheme = "http" if self._spec.certificate is None else "https"
        return {
            "url": f"{scheme}://{self.listening}/" if self.listening else None,
            "error": self.failure,
            "failures": self.failures,
            "connections": self.connections,
            "refused": self.refused,
        }

    def tell(self, _: Event) -> None:
        """Wake the streams: there is a new event."""
        for listener in self._listeners:
            listener.set()

    async def run(self) -> None:
        """Serve until cancelled.  Raises `TransientError` when it cannot listen."""
        try:
            listening = self._listen()
            self._certificate.context()
        except TransientError as error:
            self.failures += 1
            self.failure = str(error)
            raise
        self.failure = None
        with listening:
            host, port = listening.getsockname()[:2]
            self.listening = Listen(ip_address(host), Port(port))
            try:
                async with asyncio.TaskGroup() as group:
                    await self._accept(listening, group)
            finally:
                self.listening = None

    def _listen(self) -> socket.socket:
        place = self._spec.listen
        if place is None:
            raise TransientError("the HTTP endpoint is off")
        family = socket.AF_INET if place.address.version == 4 else socket.AF_INET6
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.setblocking(False)
            listening.bind((str(place.address), place.port))
            listening.listen(128)
        except OSError as error:
            listening.close()
            reason = os.strerror(error.errno or 0)
            mend = "set http.listen to another port, or to off"
            raise TransientError(f"cannot listen on {place}: {reason}: {mend}") from error
        return listening

    async def _accept(self, listening: socket.socket, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, peer = await loop.sock_accept(listening)
            except OSError:  # no descriptors, no memory, or it left again
                await asyncio.sleep(SHORT_SECONDS)
                continue
            if not self._make_room():
                client.close()
                continue
            task = group.create_task(self._serve(client, str(peer[0])))
            self._guests[task] = None
            task.add_done_callback(self._guests.pop)

    def _make_room(self) -> bool:
        if len(self._guests) < CONNECTIONS:
            return True
        self.counts.crowded_out += 1
        for task, conversation in self._guests.items():
            if (conversation is None or conversation.waiting) and not task.cancelling():
                task.cancel()
                return True
        return False

    async def _serve(self, client: socket.socket, peer: str) -> None:
        """See one client through; whatever happens is its affair alone."""
        try:
            with client:
                reader, writer = await self._connected(client)
                try:
                    await self._converse(reader, writer, peer)
                finally:
                    writer.transport.abort()
        except SlowError:
            self.counts.slow += 1
        except (OSError, TimeoutError, ssl.SSLError):
            pass  # it left, or does not speak TLS
        except Exception as error:  # noqa: BLE001 (a bug here must stay here)
            self._fault(error)

    def _fault(self, error: Exception) -> None:
        self.counts.faults += 1
        text = f"HTTP endpoint: unexpected {type(error).__name__}: {error}"
        if self._seldom.may(text, self._clock.now()):
            self._note(Note(self._clock.now(), Kind.FAULT, text, Level.ERROR))

    async def _connected(
        self, client: socket.socket
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = self._certificate.context()
        reader = asyncio.StreamReader(BUFFER)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol,
            client,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS if context else None,
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str
    ) -> None:
        conversation = Conversation(reader, writer)
        task = asyncio.current_task()
        if task is not None:
            self._guests[task] = conversation
        certified = bool(writer.get_extra_info("peercert"))
        with suppress(ConnectionError):
            while True:
                wanted = await conversation.answer(
                    lambda asked: self._answer(asked, peer, certified=certified)
                )
                if wanted is not None:
                    with self._listening() as wait:
                        await conversation.stream(wanted, self._events, wait)

    async def _answer(
        self, asked: Request, peer: str, *, certified: bool
    ) -> Response | EventStream:
        await self._pace()
        try:
            needed = asked.path not in OPEN
            trusted = self._guard.trusts(asked, peer, certified=certified, needed=needed)
            answered = self._told_about(asked, trusted=trusted)
            if isinstance(answered, EventStream) and self.streams >= STREAMS:
                raise Refusal(503, f"{STREAMS} streams are open already", ("Retry-After", "5"))
        except Refusal as refusal:
            self._count(asked, refusal.response.status)
            raise
        self._count(asked, 200 if isinstance(answered, EventStream) else answered.status)
        return answered

    def _told_about(self, asked: Request, *, trusted: bool) -> Response | EventStream:
        try:
            return answer(self._told, asked, trusted=trusted)
        except Refusal:
            raise
        except Exception as error:
            self._fault(error)
            raise Refusal(500, "revip could not tell, see its log") from error

    def _count(self, asked: Request, status: int) -> None:
        self.counts.requests[asked.path if asked.path in PATHS else "other", status] += 1

    def _events(self, after: int, most: int) -> list[Event]:
        return list(self._told.events(after, most))

    @contextmanager
    def _listening(self) -> Iterator[Callable[[], Any]]:
        news = asyncio.Event()

        async def wait() -> None:
            await news.wait()
            news.clear()

        self._listeners.add(news)
        try:
            yield wait
        finally:
            self._listeners.discard(news)

    async def _pace(self) -> None:
        """Wait when more is asked than `PER_SECOND` over `BURST_SECONDS`."""
        now = asyncio.get_running_loop().time()
        self._paid_until = max(self._paid_until, now) + 1 / PER_SECOND
        if (ahead := self._paid_until - now - BURST_SECONDS) > 0:
            await asyncio.sleep(ahead)
