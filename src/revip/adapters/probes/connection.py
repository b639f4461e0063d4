"""One TCP connection to a backend, plain or in TLS, that can be held while idle.

Options follow tcp(7) and socket(7).
"""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import contextlib
import errno
import os
import socket
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from revip.adapters.probes.outcome import FailedProbe
from revip.model.health import Finding, HealthTiming
from revip.model.instants import Span
from revip.model.ipvs import IPAddress, Port

# asyncio allocates this much for every TLS connection (256 KiB by default), far more than the
# largest TLS record (16 KiB, RFC 8446, section 5.1).  A director keeps one connection per backend
# open for ever, so it would be most of the agent's memory.  It is a class attribute: set once.
asyncio.sslproto.SSLProtocol.max_size = 16 * 1024

KEEPALIVE_SECONDS = 1
"""TCP_KEEPIDLE and TCP_KEEPINTVL, the smallest the kernel takes; notices a host that vanished."""
KEEPALIVE_PROBES = 2

_TCP_INFO_HEAD = 28
_UNACKED_AT = 24
_UNACKED = struct.Struct("=I")
"""tcpi_unacked of struct tcp_info (<linux/tcp.h>): segments sent and not acknowledged."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to connect."""

    address: IPAddress
    port: Port

    @property
    def host(self) -> str:
        """The address without an IPv6 zone."""
        return str(self.address).partition("%")[0]

    def socket_address(self) -> tuple[str, int] | tuple[str, int, int, int]:
        """Return what connect(2) wants; raises FailedProbe when the zone names no interface."""
        if self.address.version == 4:
            return self.host, self.port
        return self.host, self.port, 0, _scope(self.address.scope_id)


def _scope(zone: str | None) -> int:
    if zone is None or zone.isdigit():
        return int(zone or 0)
    try:
        return socket.if_nametoindex(zone)
    except OSError as error:  # without errno before Python 3.13
        reason = f"this host has no interface {zone}, the zone of the backend's address"
        raise FailedProbe(Finding.OURS, reason) from error


async def connect(endpoint: Endpoint, timing: HealthTiming) -> socket.socket:
    """Return a connected TCP socket; raises OSError, or FailedProbe when it takes too long."""
    family = socket.AF_INET if endpoint.address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _set_options(sock, timing.connect_timeout)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timing.connect_timeout / 1000) as deadline:
                await loop.sock_connect(sock, endpoint.socket_address())
        except TimeoutError as error:
            if not deadline.expired():
                raise
            reason = f"no answer to the TCP handshake in {timing.connect_timeout} ms"
            raise FailedProbe(Finding.FAILED, reason) from error
        if sock.getsockname() == sock.getpeername():
            # A simultaneous open with ourselves (RFC 9293, section 3.5): nobody listens on a
            # local port from the ephemeral range, and it was just given to us.
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    except BaseException:
        sock.close()
        raise
    return sock


def _set_options(sock: socket.socket, unacknowledged: Span) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    # A slow server's kernel still acknowledges our request; a host that is gone does not.  The
    # kernel counts from the first retransmission (tcp_retransmit_timer() in net/ipv4/tcp_timer.c),
    # so that it is 200 ms and more late; `Connection.write` looks for itself, and this is the net.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unacknowledged)


class Connection(asyncio.Protocol):
    """A byte stream that is either in use (`write`, `read`) or held (`hold`, `release`)."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._inbox = bytearray()
        self._ended = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._lost: Callable[[str], None] | None = None
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def made(self) -> bool:
        """True from the end of the handshakes on."""
        return self._transport is not None

    @property
    def peer_certificate(self) -> ssl._PeerCertRetDictType:
        """The verified certificate as `ssl.SSLSocket.getpeercert` gives it; empty if unverified."""
        certificate = self._transport and self._transport.get_extra_info("peercert")
        return certificate or {}

    def write(self, octets: bytes) -> None:
        """Send `octets`; an error is raised by the next `read`.

        One is ETIMEDOUT, when nothing came back and the kernel over there has not acknowledged
        all of it within TCP_USER_TIMEOUT.
        """
        if self._transport is not None and not self._ended:
            self._transport.write(octets)
            sock: socket.socket | None = self._transport.get_extra_info("socket")
            if sock is None:
                return  # it ended a moment ago, and `connection_lost` is on its way
            patience = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) / 1000
            self._quiet()
            if patience:
                loop = asyncio.get_running_loop()
                self._alarm = loop.call_later(patience, self._look_for_acknowledgement, sock)

    def _look_for_acknowledgement(self, sock: socket.socket) -> None:
        self._alarm = None
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_HEAD)
        except OSError:
            return  # it has ended meanwhile, and that is told in its own way
        if len(info) == _TCP_INFO_HEAD and _UNACKED.unpack_from(info, _UNACKED_AT)[0]:
            self._end(TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))
            self.abort()

    def _quiet(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    async def read(self) -> bytes:
        """Return what came in, b"" at the end of the stream; raises OSError when it broke."""
        if not self._inbox and not self._ended:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._inbox:
            octets = bytes(self._inbox)
            self._inbox.clear()
            return octets
        if self._error is not None:
            raise self._error
        return b""

    def hold(self, lost: Callable[[str], None]) -> bool:
        """Keep the connection idle and call `lost(reason)` when it ends or speaks by itself.

        Returns False, and `lost` is not called, when it has ended or spoken already.
        """
        if self._ended or self._inbox or self._transport is None or self._transport.is_closing():
            return False
        self._lost = lost
        return True

    def release(self) -> None:
        """Take the connection back into use."""
        self._lost = None

    def abort(self) -> None:
        """Close at once, without waiting for the other side and without calling `lost`.

        Not `transport.close()`: in TLS that waits up to 30 s for the answer of a peer that may
        hang, with the descriptor open.
        """
        self._lost = None
        self._quiet()
        if self._transport is not None:
            # Python 3.11 before 3.11.4 forgets the TLS protocol of a transport closed twice.
            with contextlib.suppress(AttributeError):
                self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.BaseProtocol."""
        self._transport = cast("asyncio.Transport", transport)  # a stream has no other kind

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._quiet()
        if self._lost is not None:
            self._report(f"the backend sent {len(data)} bytes unasked")
            self.abort()
        else:
            self._inbox += data
            self._wake()

    def eof_received(self) -> None:
        """See asyncio.Protocol; a FIN, or close_notify in TLS."""
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.BaseProtocol."""
        self._end(exc)

    def _end(self, error: Exception | None) -> None:
        self._quiet()
        if not self._ended:
            self._ended = True
            self._error = error
            self._report(_ending(error))
            self._wake()

    def _report(self, reason: str) -> None:
        lost, self._lost = self._lost, None
        if lost is not None:
            lost(reason)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def attach(
    sock: socket.socket, context: ssl.SSLContext | None = None, server_name: str | None = None
) -> Connection:
    """Make a connection of `sock`, through a TLS handshake when there is a `context`.

    Owns `sock` from here on.  Raises OSError (ssl.SSLError is one), ValueError for a
    `server_name` that cannot be one.
    """
    connection = Connection()
    try:
        await asyncio.get_running_loop().create_connection(
            lambda: connection, sock=sock, ssl=context, server_hostname=server_name
        )
    except BaseException:
        if not connection.made:
            # Either there is no transport yet, or a handshake that ended has taken it out of the
            # selector: the descriptor can go at once, and a second close is harmless.
            sock.close()
        # Else cancellation came when the handshake was just done, and asyncio's own clean-up
        # would wait for the close_notify of the backend.
        connection.abort()
        raise
    return connection


def _ending(error: Exception | None) -> str:
    match error:
        case None:
            return "the backend closed the held connection"
        case ConnectionResetError() | BrokenPipeError():
            return "the backend reset the held connection"
        case TimeoutError():
            return "the backend's host no longer answers on the held connection"
        case _:
            return f"the held connection broke: {error}"
