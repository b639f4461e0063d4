"""What a probe found, in words: errors and deadlines become a `Finding` and one line for people.

Errors are told apart by type, errno and OpenSSL's reason codes, never by message text.
"""

from __future__ import annotations

import errno
import os
import ssl
from dataclasses import dataclass
from enum import StrEnum

import h11

from revip.model.health import ROUTE, CertificateEnds, Finding, HealthTiming

REASON_MAX = 200
"""Characters of a reason that came from outside; logs and status lines stay readable."""

_OURS = {
    errno.ENETUNREACH: "no route from this host: check its interface and routes",
    errno.ENETDOWN: "this host's interface is down",
    errno.EADDRNOTAVAIL: "no free local port or address on this host (ip_local_port_range)",
    errno.EMFILE: "this process has no free file descriptor: raise its limit (ulimit -n)",
    errno.ENFILE: "this host has no free file descriptor (fs.file-max)",
    errno.ENOBUFS: "this host's kernel has no buffer space",
    errno.ENOMEM: "this host's kernel has no memory",
    errno.EACCES: "this host's firewall or policy forbids the connection",
    errno.EPERM: "this host's firewall forbids the connection",
    errno.EAFNOSUPPORT: "this host has no such address family (is IPv6 disabled?)",
    errno.ENODEV: "this host has no such interface",
}
"""errno of connect(2) and send(2) that speak of this host, so say nothing about the backend."""

_WAY = {errno.ENETUNREACH, errno.EACCES, errno.EPERM}
"""Those of them that are about the way to this backend."""

_CREDENTIAL_ALERTS = {
    "SSLV3_ALERT_BAD_CERTIFICATE": "does not accept our client certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "does not support our client certificate",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "says that our client certificate is revoked",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "says that our client certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "does not accept our client certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "does not know the authority of our client certificate",
    "TLSV1_ALERT_ACCESS_DENIED": "does not let our client certificate in",
    "TLSV1_ALERT_DECRYPT_ERROR": "could not verify our client certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "wants a client certificate: set client_certificate",
}
"""TLS alerts about what we presented (RFC 8446, section 6.2), by OpenSSL's reason names."""

_NOT_TLS = {
    "WRONG_VERSION_NUMBER",
    "UNKNOWN_PROTOCOL",
    "HTTP_REQUEST",
    "PACKET_LENGTH_TOO_LONG",
    "UNEXPECTED_MESSAGE",
    "BAD_RECORD_TYPE",
    "RECORD_LAYER_FAILURE",
}


class Stage(StrEnum):
    """Where a probe is, or ended."""

    CONNECT = "connect"
    ROUTE = ROUTE
    """The connection was not tried: this host has no way there, or forbids it."""
    TLS = "tls"
    HTTP = "http"


@dataclass(slots=True)
class Progress:
    """How far one probe has come: what a deadline needs to tell what it interrupted."""

    stage: Stage = Stage.CONNECT
    held: bool = False
    """The held connection is in use."""
    heard: bytes = b""
    """How the answer begins, as far as it came."""
    ended: bool = False
    """The backend has ended the stream."""
    known: str = ""
    """A reason already known, while details are still being fetched."""
    certificates: CertificateEnds | None = None
    """Known once an answer has come over TLS."""


class FailedProbe(Exception):  # noqa: N818 - it is an outcome, not an error of the program
    """Ends a probe with a finding and a reason of its own."""

    def __init__(self, finding: Finding, reason: str) -> None:
        super().__init__(reason)
        self.finding = finding
        self.reason = reason


class Closed(ConnectionError):  # noqa: N818 - the state of a connection
    """The backend ended the connection in good order (FIN, close_notify) before an answer."""


def one_line(text: str) -> str:
    """Return `text` on one line of at most `REASON_MAX` characters, without control characters."""
    clean = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return clean if len(clean) <= REASON_MAX else clean[: REASON_MAX - 1] + "…"


def late(progress: Progress, timing: HealthTiming) -> tuple[Finding, str]:
    """Say what the deadline of the whole probe interrupted."""
    if progress.known:
        return Finding.FAILED, progress.known
    match progress.stage:
        case Stage.CONNECT:
            reason = f"no answer to the TCP handshake in {timing.timeout} ms"
        case Stage.TLS:
            reason = f"TLS handshake not finished in {timing.timeout} ms"
        case Stage.HTTP if progress.heard:
            reason = f"answer not finished in {timing.timeout} ms"
        case Stage.HTTP if progress.held:
            reason = f"no answer over the held connection for {timing.timeout} ms"
        case Stage.HTTP:
            reason = f"accepted but sent nothing for {timing.timeout} ms"
    return Finding.FAILED, reason


def sort(error: Exception, progress: Progress, timing: HealthTiming) -> tuple[Finding, str]:
    """Say what `error` tells about the backend, or about us."""
    match error:
        case FailedProbe():
            return error.finding, error.reason
        case ssl.SSLError():
            return _sort_tls(error, progress)
        case OSError():
            return _sort_os(error, progress, timing)
        case h11.RemoteProtocolError():
            return Finding.FAILED, _not_http(progress)
        case _:
            return Finding.OURS, one_line(f"cannot ask: {error}: check path and server_name")


def _not_http(progress: Progress) -> str:
    begin = progress.heard[:40].decode("latin-1")
    if begin.startswith("HTTP/1."):
        cut = "connection closed in the middle of the answer"
        return cut if progress.ended else "malformed or oversized HTTP header"
    return one_line(f"not HTTP: the answer begins with {begin!r}")


def _sort_tls(error: ssl.SSLError, progress: Progress) -> tuple[Finding, str]:
    code: str = getattr(error, "reason", None) or ""  # only set by OpenSSL itself
    if code in _CREDENTIAL_ALERTS:
        return Finding.OURS, f"the backend {_CREDENTIAL_ALERTS[code]}"
    if progress.stage is Stage.TLS and code in _NOT_TLS:
        return Finding.FAILED, "not TLS: is this an https port?"
    return Finding.FAILED, one_line(f"TLS failed: {code.replace('_', ' ').lower() or error}")


_WHERE = {
    Stage.CONNECT: "during the TCP handshake",
    Stage.ROUTE: "before the TCP handshake",
    Stage.TLS: "during the TLS handshake",
    Stage.HTTP: "before an answer",
}


def _sort_os(error: OSError, progress: Progress, timing: HealthTiming) -> tuple[Finding, str]:
    where = "in the middle of the answer" if progress.heard else _WHERE[progress.stage]
    match error.errno:
        case errno.ECONNREFUSED if progress.stage is Stage.CONNECT:
            return Finding.REFUSED, "connection refused"
        case code if code in _OURS:
            if code in _WAY and progress.stage is Stage.CONNECT:
                progress.stage = Stage.ROUTE
            return Finding.OURS, f"{_OURS[code]} ({errno.errorcode[code]})"
        case errno.EHOSTUNREACH:
            return Finding.FAILED, "host unreachable: no answer to ARP or NDP (EHOSTUNREACH)"
        case errno.ETIMEDOUT if progress.stage is Stage.CONNECT:
            return Finding.FAILED, "no answer to the TCP handshake"
        case errno.ETIMEDOUT:
            # TCP_USER_TIMEOUT: not even the kernel over there acknowledged what we sent.
            return (
                Finding.FAILED,
                f"host gone: nothing acknowledged for {timing.connect_timeout} ms",
            )
        case errno.ECONNRESET | errno.EPIPE | errno.ENOTCONN:
            return Finding.FAILED, f"connection reset {where}"
        case None:
            # asyncio.sslproto reports a FIN during the handshake as a bare ConnectionResetError.
            return Finding.FAILED, f"connection closed {where}"
        case code:
            return Finding.FAILED, f"{os.strerror(code)} {where}"
