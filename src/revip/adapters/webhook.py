"""An HTTP server that is told of events: one POST for each message, HTTP/1.1 by h11."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import h11

from revip import __version__
from revip.errors import NotWantedError, TransientError
from revip.model.notify import Message, WebhookSpec
from revip.wire.notices import body

READ = 16 * 1024
"""Octets of an answer that are taken at once, and of its header that h11 accepts."""
SAID_MAX = 200
"""Characters of an answer that are quoted."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Means:
    """What one attempt needs and only files and name servers know."""

    addresses: tuple[str, ...]
    token: bytes | None
    context: ssl.SSLContext | None


class WebhookMessenger:
    """Posts messages to one URL; see `revip.ports.Messenger`."""

    def __init__(self, spec: WebhookSpec) -> None:
        self._spec = spec
        # The path may be the secret, as it is with chat services: it is never told.
        self._shown = f"{'https' if spec.url.tls else 'http'}://{spec.url.authority}"
        self._aside = Aside()
        self._trust: tuple[object, ssl.SSLContext] | None = None

    async def deliver(self, message: Message) -> None:
        """See Messenger.

        Raises `NotWantedError` for an answer of 300 to 499 but 408, 425 and 429, and
        `TransientError` for whatever else is not 200 to 299 in time.
        """
        content = body(self._spec, message)
        try:
            async with asyncio.timeout(self._spec.timeout / 1000):
                status, said = await self._post(content)
        except TimeoutError as error:
            text = f"{self._shown} did not answer in {self._spec.timeout} ms"
            raise TransientError(text) from error
        except ssl.SSLCertVerificationError as error:
            text = f"{self._shown} shows a certificate that is not trusted: {error.verify_message}"
            raise TransientError(text) from error
        except h11.ProtocolError as error:
            raise TransientError(f"{self._shown} does not speak HTTP/1.1: {error}") from error
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
            raise TransientError(f"{self._shown} cannot be reached: {reason}") from error
        if not 200 <= status < 300:
            text = f"{self._shown} answered {status}{said and f': {said}'}"
            again = status >= 500 or status in (408, 425, 429)
            raise TransientError(text) if again else NotWantedError(text)

    async def _post(self, content: bytes) -> tuple[int, str]:
        means = await self._aside.of(self._means)
        reader, writer = await self._connect(means)
        try:
            return await self._converse(reader, writer, self._request(means, content), content)
        finally:
            writer.transport.abort()  # a close in TLS would wait for the other side

    def _means(self) -> _Means:
        """Look up and read what is needed; may take its time, so not in the loop's thread."""
        url = self._spec.url
        found = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
        addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
        return _Means(addresses, self._token(), self._context() if url.tls else None)

    def _token(self) -> bytes | None:
        path = self._spec.token_file
        if path is None:
            return None
        try:
            token = path.read_bytes().strip()
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise TransientError(f"token_file {path} cannot be read: {reason}") from error
        if not token or any(not 0x20 < octet < 0x7F for octet in token):
            raise TransientError(f"token_file {path} does not hold one bearer token")
        return token

    def _context(self) -> ssl.SSLContext:
        ca = self._spec.ca
        stamp: object = None
        try:
            if ca is not None:
                found = ca.stat()
                stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
            if self._trust is None or self._trust[0] != stamp:
                context = ssl.create_default_context(cafile=None if ca is None else str(ca))
                context.set_alpn_protocols(["http/1.1"])
                self._trust = (stamp, context)
        except (OSError, ssl.SSLError) as error:
            reason = error.strerror or str(error)
            raise TransientError(f"ca {ca} cannot be used: {reason}") from error
        return self._trust[1]

    async def _connect(self, means: _Means) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Take the first address that answers, each within its share of the time."""
        url, share = self._spec.url, self._spec.timeout / 1000 / len(means.addresses)
        name = url.host if url.tls else None
        last: OSError | None = None
        for address in means.addresses:
            try:
                async with asyncio.timeout(share):
                    return await asyncio.open_connection(
                        address, url.port, limit=READ, ssl=means.context, server_hostname=name
                    )
            except OSError as error:  # TimeoutError is one
                last = error
        raise last or OSError("its name has no address")

    def _request(self, means: _Means, content: bytes) -> h11.Request:
        headers = [
            (b"Host", self._spec.url.authority.encode()),
            (b"User-Agent", f"revip/{__version__}".encode()),
            (b"Content-Type", self._spec.content_type.encode()),
            (b"Content-Length", str(len(content)).encode()),
            (b"Connection", b"close"),
        ]
        if means.token is not None:
            headers.append((b"Authorization", b"Bearer " + means.token))
        return h11.Request(method=b"POST", target=self._spec.url.target.encode(), headers=headers)

    async def _converse(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        request: h11.Request,
        content: bytes,
    ) -> tuple[int, str]:
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=READ)
        for part in (request, h11.Data(data=content), h11.EndOfMessage()):
            writer.write(parser.send(part) or b"")
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(await reader.read(READ))
            elif isinstance(event, h11.Response):
                # What was taken is taken: a body that never ends must not have it sent twice.
                status = event.status_code
                said = "" if status < 300 else await self._said(parser, reader)
                return status, said

    async def _said(self, parser: h11.Connection, reader: asyncio.StreamReader) -> str:
        """Return the beginning of an answer's body as one line; whatever is wrong with it."""
        try:
            async with asyncio.timeout(min(1.0, self._spec.timeout / 2000)):
                while (event := parser.next_event()) is h11.NEED_DATA:
                    parser.receive_data(await reader.read(READ))
        except (OSError, h11.ProtocolError):
            return ""
        octets = bytes(event.data[:SAID_MAX]) if isinstance(event, h11.Data) else b""
        text = " ".join(octets.decode("utf-8", "replace").split())
        return "".join(letter for letter in text if letter.isprintable())


class Aside:
    """Does in a thread of its own what may hang: a name server, a file on a dead mount.

    Not asyncio's executor: the end of the loop waits for that one.
    """

    def __init__(self) -> None:
        self._busy = False

    async def of(self, work: Callable[[], T]) -> T:
        """Return what `work` returns; raises what it raises.

        Raises `TransientError` while an earlier one that was given up still hangs.
        """
        if self._busy:
            raise TransientError("the look-up of its name, or the reading of its files, hangs")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: Exception | None) -> None:
            self._busy = False
            if done.done():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]

        def run() -> None:
            result: T | None = None
            error: Exception | None = None
            try:
                result = work()
            except Exception as caught:  # noqa: BLE001 (it is raised where it is waited for)
                error = caught
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:
                return  # the loop has ended, and with it all who waited

        threading.Thread(target=run, name="webhook", daemon=True).start()
        self._busy = True
        return await done
