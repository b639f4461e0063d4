"""How the stand-in can behave: the modes, in three characters, and their options.

What happens to connections that are already open follows from the character:

- how requests are answered (`unready`, `slow`, `deny`, `graceful-stop`): all connections;
- a stuck process (`STUCK`): open connections get no more answers until the mode changes, new ones
  stop where the mode says;
- another process on the port, or none (`REPLACED`): open connections are closed, as the kernel
  does for a process that has died.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Mode(Enum):
    """How the stand-in behaves."""

    SERVING = "serving"
    HANG_AFTER_ACCEPT = "hang-after-accept"
    HANG_IN_TLS = "hang-in-tls"
    """The first half of the server's handshake flight is sent, and nothing more."""
    UNREADY = "unready"
    """`/readyz` answers 500 because of etcd; everything else serves."""
    SLOW = "slow"
    """Each answer is `delay_ms` late."""
    GRACEFUL_STOP = "graceful-stop"
    """Unready at once, serves `drain_seconds` more, then closes and the process ends."""
    WRONG_CERTIFICATE = "wrong-certificate"
    """Shows the certificate `variant` of lab.pki, `wrong-ca` if not given."""
    EXPIRED_CERTIFICATE = "expired-certificate"
    CLIENT_CERTIFICATE = "client-certificate"
    """Lets in only clients with a certificate of the CA (`ca.pem` beside the certificate).

    Others find the connection closed after the handshake: asyncio sends no alert.  The answer of
    kube-apiserver, 401, is `DENY`.
    """
    GARBAGE = "garbage"
    """Random bytes, neither TLS nor HTTP."""
    HALF_CLOSED = "half-closed"
    """Accepts and closes its writing side."""
    DENY = "deny"
    """Every request is answered with `status` (401 or 403)."""
    REFUSE = "refuse"
    """No listener; the process lives."""


STUCK = frozenset({Mode.HANG_AFTER_ACCEPT, Mode.HANG_IN_TLS})
"""A process that is there and does nothing."""
REPLACED = frozenset(
    {
        Mode.WRONG_CERTIFICATE,
        Mode.EXPIRED_CERTIFICATE,
        Mode.CLIENT_CERTIFICATE,
        Mode.GARBAGE,
        Mode.HALF_CLOSED,
        Mode.REFUSE,
    }
)
"""Another process, or none, has the port."""


@dataclass(frozen=True, slots=True)
class Behavior:
    """A mode with its options."""

    mode: Mode = Mode.SERVING
    delay_ms: int = 1000
    status: int = 403
    variant: str = "wrong-ca"
    drain_seconds: float = 3.0
    """From unready to the closing of the listener (`--shutdown-delay-duration`)."""
    linger_ms: int = 0
    """How long kept connections may ask once more after that, to be told `Connection: close`.

    Then the idle ones are closed.  It stands for the GOAWAY of HTTP/2 (RFC 9113, section 6.8).
    0 is what net/http does with HTTP/1.1: a request that crosses the close is lost unless the
    client retries it (3 of 240 connections at 50 requests/s on loopback).  A figure taken with
    more than 0 says nothing about that race.
    """
