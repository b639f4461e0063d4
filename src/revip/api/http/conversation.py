"""One connection: requests in, answers out, each within its time (HTTP/1.1 by h11)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress

import h11

from revip.api.http.messages import (
    PAST_MAX,
    REASONS,
    EventStream,
    Refusal,
    Request,
    Response,
    request,
)
from revip.model.notes import Event

HEADER_MAX = 8 * 1024
"""Octets of a request's line and header fields."""
IDLE_SECONDS = 60.0
"""A connection on which no request begins for so long ends."""
REQUEST_SECONDS = 5.0
"""From a request's first octet to its last."""
WRITE_SECONDS = 10.0
"""A client that does not take what it asked for within this time is dropped."""
ALIVE_SECONDS = 15.0
"""Between signs of life on a stream of events, so that the death of either side is noticed."""
LINGER_SECONDS = 1.0
LINGER_READS = 64
"""How long and how much a client may still send that has had its answer already."""
READ = 4096
"""Octets taken in at a time."""

ALWAYS = (("X-Content-Type-Options", "nosniff"), ("Server", "revip"))

Answer = Callable[[Request], Awaitable[Response | EventStream]]
Events = Callable[[int, int], list[Event]]


class SlowError(Exception):
    """The client has not taken, or not sent, what it had to in time."""


class Conversation:
    """One client's connection.

    `wait` is awaited between looks for new events; it returns when there may be some.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_MAX)
        self._head = False
        self.waiting = True
        """Whether nothing is being answered: such a one may give way to another."""
        # What is written is taken by the kernel before `drain` returns, or the client is slow.
        writer.transport.set_write_buffer_limits(high=0)

    async def answer(self, answer: Answer) -> EventStream | None:
        """Take one request and answer it; return the stream that it asked for, if it did.

        Raises `ConnectionError` when the client has left or the conversation is over, `SlowError`.
        """
        self.waiting = True
        try:
            asked = await self._request()
            self.waiting = False
            answered = await answer(asked)
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            refusal = Refusal(status if status in REASONS else 400, "not a request of HTTP/1.1")
            await self._end(refusal.response)
            raise ConnectionResetError from error
        except Refusal as refusal:
            answered = refusal.response
            if self._parser.their_state is not h11.DONE:
                await self._end(answered)
                raise ConnectionResetError from refusal
        if isinstance(answered, EventStream):
            if not asked.head:
                return answered
            answered = Response(200, b"", "text/event-stream")
        await self._respond(answered)
        if self._parser.our_state is not h11.DONE:
            raise ConnectionResetError
        self._parser.start_next_cycle()
        return None

    async def stream(
        self, wanted: EventStream, events: Events, wait: Callable[[], Awaitable[None]]
    ) -> None:
        """Send the events that are there and each further one, until the client leaves."""
        fields = [("Content-Type", "text/event-stream"), ("Cache-Control", "no-store"), *ALWAYS]
        await self._send(h11.Response(status_code=200, headers=fields, reason=b"OK"))
        await self._send(h11.Data(b"retry: 2000\n\n"))
        news = events(wanted.after, wanted.most or 1)
        after = news[-1].number if news else wanted.after
        if not wanted.most:
            news = []
        while True:
            if news:
                after = news[-1].number
                await self._send(h11.Data(b"".join(map(_sse, news))))
            try:
                async with asyncio.timeout(ALIVE_SECONDS):
                    await wait()
            except TimeoutError:
                await self._send(h11.Data(b": alive\n\n"))
            news = events(after, PAST_MAX)

    async def _request(self) -> Request:
        begun = self._parser.trailing_data[0] != b""
        if not begun:
            await self._receive(IDLE_SECONDS)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await self._whole_request()
        except TimeoutError as error:
            raise SlowError from error

    async def _whole_request(self) -> Request:
        asked: Request | None = None
        while True:
            event = self._parser.next_event()
            match event:
                case h11.NEED_DATA:
                    await self._receive(REQUEST_SECONDS)
                case h11.Request():
                    self._head = event.method == b"HEAD"
                    asked = request(event.method, event.target, event.headers)
                case h11.EndOfMessage() if asked is not None:
                    return asked
                case h11.Data():
                    raise Refusal(413, "a request has no body here")
                case _:
                    raise ConnectionResetError

    async def _receive(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                octets = await self._reader.read(READ)
        except TimeoutError as error:
            raise SlowError from error
        if not octets:
            raise ConnectionResetError
        self._parser.receive_data(octets)

    async def _respond(self, response: Response) -> None:
        fields = [
            ("Content-Type", response.kind),
            ("Content-Length", str(len(response.content))),
            *response.headers,
            *ALWAYS,
        ]
        reason = REASONS[response.status].encode()
        head = h11.Response(status_code=response.status, headers=fields, reason=reason)
        body = b"" if self._head else response.content
        data = (self._parser.send(head) or b"") + (
            (self._parser.send(h11.Data(body)) or b"") if body else b""
        )
        await self._write(data + (self._parser.send(h11.EndOfMessage()) or b""))

    async def _end(self, response: Response) -> None:
        """Answer what is no request; then the connection is of no more use."""
        if self._parser.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            ending = (*response.headers, ("Connection", "close"))
            whole = Response(response.status, response.content, response.kind, ending)
            with suppress(h11.LocalProtocolError):
                await self._respond(whole)
            await self._linger()

    async def _linger(self) -> None:
        """Take what the client still sends: else the kernel's reset may overtake our answer."""
        if self._writer.can_write_eof():
            self._writer.write_eof()
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                for _ in range(LINGER_READS):
                    if not await self._reader.read(READ):
                        return

    async def _send(self, event: h11.Response | h11.Data) -> None:
        await self._write(self._parser.send(event) or b"")

    async def _write(self, octets: bytes) -> None:
        self._writer.write(octets)
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await self._writer.drain()
        except TimeoutError as error:
            raise SlowError from error


def _sse(event: Event) -> bytes:
    """Write one event as HTML, section 9.2.5 (server-sent events) wants it."""
    return f"id: {event.number}\nevent: note\ndata: {json.dumps(event.as_json())}\n\n".encode()
