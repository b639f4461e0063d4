"""One GET over a connection (HTTP/1.1 by h11) and the probe that asks it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Protocol

import h11

from revip import __version__
from revip.adapters.probes.bounded import bounded
from revip.adapters.probes.connection import Connection, Endpoint, attach, connect
from revip.adapters.probes.files import Rereading, read_token
from revip.adapters.probes.held import HeldConnection
from revip.adapters.probes.outcome import Closed, FailedProbe, Progress, Stage, one_line
from revip.model.health import CertificateEnds, Finding, HealthTiming, ProbeResult
from revip.model.instants import Instant
from revip.model.ipvs import at
from revip.model.spec import ProbeSpec
from revip.ports import Clock

BODY_MAX = 64 * 1024
"""Octets of an answer that are read; `/readyz?verbose` has some 3 KiB."""
HEADER_MAX = 16 * 1024
"""Octets of an answer's header that h11 accepts."""
_BEGINNING = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP answer."""

    status: int
    body: bytes
    reusable: bool
    """The connection can take another request (RFC 9112, section 9.3)."""

    def said(self) -> str:
        """Return the line of the body that tells most: failed checks, a message, or the first."""
        text = self.body.decode("utf-8", "replace")
        if text.startswith("{"):
            try:
                message = json.loads(text).get("message")  # a Kubernetes Status object
            except (ValueError, RecursionError):  # the latter: nested too deep
                message = None
            if isinstance(message, str):
                return one_line(message)
        lines = [line for line in text.splitlines() if line.strip()]
        failed = [line for line in lines if line.startswith("[-]")]  # /readyz, one line a check
        return one_line(", ".join(failed) or (lines[0] if lines else ""))


async def exchange(connection: Connection, request: h11.Request, progress: Progress) -> Answer:
    """Send `request` and return the answer.

    Raises `Closed` when the stream ended in good order before a byte of it, OSError when it
    broke, h11.RemoteProtocolError when it is no HTTP/1.1 or cut short.
    """
    progress.stage = Stage.HTTP
    # A new parser each time: it costs less than to tell whether the old one can go on.
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEADER_MAX)
    opening = parser.send(request) or b""
    connection.write(opening + (parser.send(h11.EndOfMessage()) or b""))
    status = 0
    body = bytearray()
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            octets = await connection.read()
            if not octets and not progress.heard:
                raise Closed
            if len(progress.heard) < _BEGINNING:
                progress.heard += octets[:_BEGINNING]
            progress.ended = not octets
            parser.receive_data(octets)
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > BODY_MAX:
                return Answer(status, bytes(body[:BODY_MAX]), reusable=False)
        elif isinstance(event, h11.EndOfMessage):
            done = parser.our_state is h11.DONE and parser.their_state is h11.DONE
            return Answer(status, bytes(body), done and parser.trailing_data == (b"", False))


class Opener(Protocol):
    """Opens connections to one backend."""

    async def open(self, timing: HealthTiming, progress: Progress) -> Connection:
        """Return a new connection; raises OSError, FailedProbe or ValueError."""
        ...

    def certificates(self) -> CertificateEnds | None:
        """Return until when the certificates in use are valid; None without TLS."""
        ...

    def expiry_note(self) -> str:
        """Return a note when a certificate in use is about to expire, else an empty string."""
        ...


class PlainOpener:
    """Opens connections without TLS."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def open(self, timing: HealthTiming, progress: Progress) -> Connection:
        """Connect; raises OSError or FailedProbe."""
        progress.stage = Stage.CONNECT
        return await attach(await connect(self._endpoint, timing))

    def certificates(self) -> CertificateEnds | None:
        """Return None: there is no certificate."""
        return None

    def expiry_note(self) -> str:
        """Return an empty string: there is no certificate."""
        return ""


class HttpProbe:
    """Asks one backend by HTTP or HTTPS; see `revip.ports.BackendProbe`."""

    def __init__(
        self,
        clock: Clock,
        endpoint: Endpoint,
        opener: Opener,
        spec: ProbeSpec,
        timing: HealthTiming,
        held: HeldConnection,
    ) -> None:
        self._clock = clock
        self._opener = opener
        self._spec = spec
        self._timing = timing
        self._held = held
        files = {} if spec.token_file is None else {"token_file": spec.token_file}
        self._request = Rereading(files, lambda: _request(spec, endpoint))

    async def ask(self, *, fresh: bool) -> ProbeResult:
        """See BackendProbe."""
        ask = self._ask_anew if fresh else self._ask
        return await bounded(ask, self._clock, self._timing, self._held)

    async def close(self) -> None:
        """See BackendProbe."""
        self._held.close()
        await asyncio.sleep(0)  # asyncio gives the descriptor back in the next turn of the loop

    async def _ask(self, progress: Progress) -> tuple[Finding, str]:
        held = self._held.take()
        if held is None:
            return await self._ask_anew(progress)
        progress.held = True
        try:
            return await self._converse(held, None, progress)
        except (Closed, ConnectionResetError, BrokenPipeError):
            if progress.heard:
                raise
        # The server closed it while we wrote.  GET may be sent again on a new connection
        # (RFC 9110, section 9.2.2), and that one tells a restart from a death.
        progress.held = False
        return await self._ask_anew(progress)

    async def _ask_anew(self, progress: Progress) -> tuple[Finding, str]:
        opened = self._clock.now()
        connection = await self._opener.open(self._timing, progress)
        return await self._converse(connection, opened, progress)

    async def _converse(
        self, connection: Connection, opened: Instant | None, progress: Progress
    ) -> tuple[Finding, str]:
        try:
            request = self._request.get()
        except FailedProbe:
            # Our token cannot be read; the connection is as good as ever, and still to be heard.
            self._held.succeeded(connection, keep=self._spec.held, opened=opened)
            raise
        except BaseException:
            connection.abort()
            raise
        try:
            answer = await exchange(connection, request, progress)
        except BaseException:
            connection.abort()
            raise
        self._held.succeeded(connection, keep=self._spec.held and answer.reusable, opened=opened)
        progress.certificates = self._opener.certificates()
        return self._judge(answer)

    def _judge(self, answer: Answer) -> tuple[Finding, str]:
        said = f"HTTP {answer.status}"
        note = self._opener.expiry_note()
        if answer.status in self._spec.expected:
            return Finding.READY, said + note
        if answer.status in (401, 403):
            return Finding.DENIED, f"{said}: alive, but {self._denied(answer.status)}{note}"
        line = answer.said()
        return Finding.NOT_READY, f"{said}: {line}" if line else said

    def _denied(self, status: int) -> str:
        spec = self._spec
        if spec.token_file is None and spec.client_certificate is None:
            other = "" if spec.path == "/livez" else ", or use path /livez"
            mend = f"give the probe a token_file or client_certificate{other}"
            return f"does not let us read {spec.path}: {mend}"
        ours = spec.token_file or spec.client_certificate
        if status == 401:
            return f"does not know our credential {ours}: renew it"
        return f"does not let our credential {ours} read {spec.path}: grant it get on this path"


def _request(spec: ProbeSpec, endpoint: Endpoint) -> h11.Request:
    name = spec.server_name
    host = f"{name}:{endpoint.port}" if name else at(endpoint.address, endpoint.port)
    headers = [
        (b"Host", host.encode()),
        (b"User-Agent", f"revip/{__version__}".encode()),
        (b"Accept", b"*/*"),
    ]
    if spec.token_file is not None:
        headers.append((b"Authorization", b"Bearer " + read_token(spec.token_file)))
    if not spec.held:
        headers.append((b"Connection", b"close"))
    return h11.Request(method=b"GET", target=spec.path.encode(), headers=headers)
