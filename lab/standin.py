"""A stand-in for kube-apiserver whose failures are switched on and off at run time.

One process per node: HTTP/1.1 over TLS (or plain), one asyncio loop, and a unix socket that takes
JSON lines.  `serve` runs it, `StandInControl` talks to it, `Mode` lists the failures.

Seen once in user-mode Linux, its one processor shared with the client, on a quiet host: 2900
requests/s over one kept connection, 1800 over four; 200 new connections/s, the most that was tried.
On a busy host it was a third of that.

Answers imitate k8s.io/apiserver/pkg/server/healthz; the graceful stop imitates
`--shutdown-delay-duration` followed by net/http's Server.Shutdown.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Self

from lab.standin_http import Answers, HttpConnection
from lab.standin_modes import REPLACED, STUCK, Behavior, Mode

__all__ = ["Behavior", "Mode", "Place", "StandIn", "StandInControl", "Stats", "serve"]

IPAddress = IPv4Address | IPv6Address

BACKLOG = 1024
"""Connections the kernel queues; Go uses net.core.somaxconn."""
PARKED_MAX = 1000
"""Connections held without a word in the failing modes; beyond it the oldest is closed."""
HANDSHAKE_SECONDS = 10.0
"""A client that has not finished the handshake by then is let go."""
FINISH_SECONDS = 2.0
"""How long a graceful stop waits for requests in flight after the listener has closed."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the stand-in listens and what it shows; no certificate is plain HTTP."""

    name: str
    addresses: Sequence[IPAddress]
    port: int
    control_socket: Path
    certificate: Path | None = None
    key: Path | None = None


def serve(
    addresses: Iterable[IPAddress],
    port: int,
    certificate: Path | None,
    key: Path | None,
    control_socket: Path,
    *,
    name: str,
    drain_seconds: float = 3.0,
) -> None:
    """Serve until a graceful stop (SIGTERM or by control) has ended; blocks.

    Raises OSError when an address cannot be bound.
    """
    place = Place(name, tuple(addresses), port, control_socket, certificate, key)
    asyncio.run(StandIn(place, drain_seconds).run())


class StandIn:
    """The server: listeners, connections, the mode in force."""

    def __init__(self, place: Place, drain_seconds: float = 3.0) -> None:
        self._place = place
        self._initial = Behavior(drain_seconds=drain_seconds)
        self._behavior = self._initial
        self._answers = Answers(place.name)
        self._listeners: list[socket.socket] = []
        self._connections: set[HttpConnection] = set()
        self._parked: list[socket.socket] = []
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._accepted = 0
        self._talks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._draining = False

    async def run(self) -> None:
        """Serve until a graceful stop has ended."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._terminate)
        self.switch(Mode.SERVING.value, {})
        self._place.control_socket.unlink(missing_ok=True)
        control = await asyncio.start_unix_server(self._control, self._place.control_socket)
        try:
            async with asyncio.TaskGroup() as self._tasks:
                await self._until_drained()
                self._close_connections()
        finally:
            control.close()
            self._place.control_socket.unlink(missing_ok=True)
            loop.remove_signal_handler(signal.SIGTERM)

    def switch(self, mode: str, options: dict[str, Any]) -> None:
        """Take `mode` with the fields of `Behavior` as options; raises ValueError if unknown."""
        if self._draining:
            raise ValueError("a graceful stop is under way")
        try:
            behavior = replace(self._initial, mode=Mode(mode), **options)
        except TypeError as error:
            raise ValueError(str(error)) from None
        if self._place.certificate is not None:
            self._context(behavior)  # a missing file is the caller's mistake, told at once
        self._behavior = behavior
        self._apply()

    def _terminate(self) -> None:
        if not self._draining:
            self.switch(Mode.GRACEFUL_STOP.value, {})

    def _apply(self) -> None:
        mode, answers = self._behavior.mode, self._answers
        answers.stuck = mode in STUCK
        answers.delay = self._behavior.delay_ms / 1000 if mode is Mode.SLOW else 0.0
        answers.denied = self._behavior.status if mode is Mode.DENY else None
        answers.failed_check = {Mode.UNREADY: "etcd", Mode.GRACEFUL_STOP: "shutdown"}.get(mode)
        self._draining = mode is Mode.GRACEFUL_STOP
        if mode in REPLACED:
            self._close_connections()
        while self._parked:
            self._parked.pop().close()
        if mode is Mode.REFUSE:
            self._close_listeners()
        elif not self._listeners:
            try:
                self._listen()
            except OSError:
                self._close_listeners()
                raise
        for connection in tuple(self._connections):
            connection.resume()
        self._changed.set()

    async def _until_drained(self) -> None:
        while not self._draining:
            await self._changed.wait()
            self._changed.clear()
        await asyncio.sleep(self._behavior.drain_seconds)
        for listener in self._listeners:
            self._accept(listener)  # whoever is in the kernel's queue is still let in
        self._close_listeners()
        self._answers.closing = True
        await asyncio.sleep(self._behavior.linger_ms / 1000)
        await asyncio.sleep(0)  # requests that have arrived are in flight, not idle:
        await asyncio.sleep(0)  # let the loop read them before the idle ones are closed
        for connection in tuple(self._connections):
            connection.finish()
        if self._talks:
            await asyncio.wait(self._talks, timeout=FINISH_SECONDS)

    def _close_connections(self) -> None:
        for connection in tuple(self._connections):
            connection.abort()
        for talk in self._talks:
            talk.cancel()

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        for address in self._place.addresses:
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if address.version == 6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.setblocking(False)
            self._listeners.append(listener)
            listener.bind((str(address), self._place.port))
            listener.listen(BACKLOG)
            loop.add_reader(listener, self._accept, listener)

    def _close_listeners(self) -> None:
        while self._listeners:
            listener = self._listeners.pop()
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:  # EAGAIN: none is left; ECONNABORTED, EMFILE: the next event asks again
                return
            self._accepted += 1
            accepted.setblocking(False)
            _set_options(accepted)
            self._begin(accepted)

    def _begin(self, accepted: socket.socket) -> None:
        match self._behavior.mode:
            case Mode.HANG_AFTER_ACCEPT:
                pass
            case Mode.HANG_IN_TLS:
                asyncio.get_running_loop().add_reader(accepted, self._half_a_handshake, accepted)
            case Mode.GARBAGE:
                # No TLS record begins like this, and an HTTP reader gets to the end of its "head".
                accepted.send(b"\xff\xfe" + os.urandom(250) + b"\r\n\r\n")
            case Mode.HALF_CLOSED:
                accepted.shutdown(socket.SHUT_WR)
            case _:
                talk = self._tasks.create_task(self._talk(accepted))
                self._talks.add(talk)
                talk.add_done_callback(self._talks.discard)
                return
        self._parked.append(accepted)
        if len(self._parked) > PARKED_MAX:
            self._parked.pop(0).close()

    async def _talk(self, accepted: socket.socket) -> None:
        tls = self._place.certificate is not None
        # A client that goes away or refuses the certificate is not this server's trouble.
        with contextlib.suppress(OSError, TimeoutError):
            _, connection = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: HttpConnection(self._answers, self._connections),
                accepted,
                ssl=self._context(self._behavior) if tls else None,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if tls else None,
                ssl_shutdown_timeout=1.0 if tls else None,
            )
            await connection.lost.wait()

    def _half_a_handshake(self, accepted: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(accepted)
        if self._place.certificate is None:
            return
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        machine = self._context(self._behavior).wrap_bio(incoming, outgoing, server_side=True)
        with contextlib.suppress(OSError):
            incoming.write(accepted.recv(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                machine.do_handshake()
            flight = outgoing.read()
            accepted.send(flight[: len(flight) // 2])

    def _context(self, behavior: Behavior) -> ssl.SSLContext:
        variant = {
            Mode.WRONG_CERTIFICATE: behavior.variant,
            Mode.EXPIRED_CERTIFICATE: "expired",
        }.get(behavior.mode, "")
        client = behavior.mode is Mode.CLIENT_CERTIFICATE
        name = "client" if client else variant
        if name not in self._contexts:
            self._contexts[name] = self._make_context(variant, client=client)
        return self._contexts[name]

    def _make_context(self, variant: str, *, client: bool) -> ssl.SSLContext:
        certificate, key = self._place.certificate, self._place.key
        if certificate is None or key is None:
            raise ValueError("this stand-in speaks plain HTTP")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        context.num_tickets = 1  # as crypto/tls; OpenSSL sends 2
        context.load_cert_chain(_variant(certificate, variant), _variant(key, variant))
        if client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(certificate.with_name("ca.pem"))
        return context

    async def _control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                writer.write(json.dumps(self._obey(line)).encode() + b"\n")
                await writer.drain()
        writer.close()

    def _obey(self, line: bytes) -> dict[str, Any]:
        try:
            order = json.loads(line)
            if "set" in order:
                self.switch(order.pop("set"), order)
        except (ValueError, TypeError, OSError) as error:
            return {"error": f"{type(error).__name__}: {error}"}
        return {
            "name": self._place.name,
            "pid": os.getpid(),
            "mode": self._behavior.mode.value,
            "open": len(self._connections),
            "accepted": self._accepted,
            "requests": self._answers.requests.total(),
            "by_path": dict(self._answers.requests),
        }


def _variant(path: Path, variant: str) -> Path:
    return path.with_name(f"{path.stem}.{variant}{path.suffix}") if variant else path


def _set_options(connection: socket.socket) -> None:
    """Go's net package: no delay; keep-alive probes after 15 s, every 15 s, nine of them."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 9)


@dataclass(frozen=True, slots=True)
class Stats:
    """What a stand-in says about itself."""

    name: str
    pid: int
    mode: str
    open: int
    """HTTP connections open now."""
    accepted: int
    """TCP connections accepted since the start."""
    requests: int
    by_path: Counter[str]


class StandInControl:
    """Switches one stand-in; a blocking client, a connection per call."""

    def __init__(self, path: Path, timeout: float = 5.0) -> None:
        self._path = path
        self._timeout = timeout

    def set(self, mode: Mode | str, **options: object) -> Stats:
        """Switch to `mode`; it is in force when this returns.  Options: fields of `Behavior`.

        Raises ValueError when the stand-in refuses, OSError when it is not there.
        """
        return self._ask({"set": mode.value if isinstance(mode, Mode) else mode, **options})

    def stats(self) -> Stats:
        """Return the mode and the counters.  Raises OSError when the stand-in is not there."""
        return self._ask({})

    def wait(self, seconds: float = 10.0) -> Self:
        """Wait until the stand-in listens; raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.stats()
            except (FileNotFoundError, ConnectionError):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no stand-in at {self._path}") from None
                time.sleep(0.005)
            else:
                return self

    def _ask(self, order: dict[str, object]) -> Stats:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(self._timeout)
            connection.connect(str(self._path))
            connection.sendall(json.dumps(order).encode() + b"\n")
            answer = json.loads(connection.makefile("rb").readline() or b'{"error": "gone"}')
        if "error" in answer:
            raise ValueError(answer["error"])
        return Stats(**{**answer, "by_path": Counter(answer["by_path"])})
