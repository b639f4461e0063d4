"""Clients of the VIP that record everything they see.

`LoadClient` asks `/whoami` at a steady rate, over kept connections and over new ones;
`StreamClient` holds `/stream` connections open and tells each one's fate.  Both write JSON lines
as they go; all instants are CLOCK_MONOTONIC nanoseconds, comparable between processes of one
kernel.  `run` drives them in a process of their own, until a time is over or SIGTERM comes.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, TextIO

from lab.http_client import (
    Answer,
    Connection,
    RequestError,
    Sample,
    Target,
    ask_once,
    one_shot,
    translated,
)

__all__ = [
    "Answer",
    "LoadClient",
    "Request",
    "RequestError",
    "Sample",
    "Stream",
    "StreamClient",
    "Summary",
    "Target",
    "ask_once",
    "one_shot",
    "read_requests",
    "read_streams",
    "run",
    "summarize",
]

NAP_SECONDS = 0.1
"""The longest sleep between two looks at the stop event."""
STALL_NS = 1_000_000_000
"""A stream silent for five of its lines is stalled."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request and what became of it."""

    start: int
    """When it was due and sent, opening the connection included."""
    end: int
    kind: str
    """`kept`: over one of the kept connections; `new`: over a connection of its own."""
    connection: int
    """Which kept connection; -1 for `new`."""
    reused: bool
    """True when the connection had carried a request before."""
    backend: str | None
    error: str | None
    """None, or the kind of `RequestError`."""
    retried: bool = False
    """Sent again on a new connection because the first one's end had crossed it."""


@dataclass(slots=True)
class Stream:
    """One long-lived stream, so far."""

    number: int
    opened: int
    source: tuple[str, int] = ("", 0)
    backend: str | None = None
    fate: str = "opening"
    """`alive`, `stalled`, `finished` (ended properly by the server), or a `RequestError` kind."""
    ended: int | None = None
    lines: int = 0
    missing: int = 0
    """Lines that the counter skipped."""
    last: int | None = None
    """When the newest line came: a stalled stream is so since then."""
    gap_max: int = 0
    """Longest time between two lines, in nanoseconds; until now for one that is open."""

    def heard(self, line: str, now: int) -> None:
        """Take in one line, `COUNTER NAME`."""
        counter, _, self.backend = line.partition(" ")
        self.missing += int(counter) - self.lines - self.missing
        self._silent_until(now)
        self.lines += 1
        self.last = now
        self.fate = "alive"

    def over(self, fate: str, now: int) -> None:
        """Take in its end."""
        self.fate, self.ended = fate, now

    def look(self, now: int) -> Self:
        """Bring `fate` and `gap_max` up to date and return the stream itself."""
        if self.ended is None:
            self._silent_until(now)
            if now - (self.last or self.opened) > STALL_NS:
                self.fate = "stalled"
        return self

    def _silent_until(self, now: int) -> None:
        self.gap_max = max(self.gap_max, now - (self.last or self.opened))


@dataclass(frozen=True, slots=True)
class Recorder:
    """Writes records as JSON lines into a line-buffered file."""

    file: TextIO

    def add(self, record: Request | Stream) -> None:
        """Record one request or stream."""
        name = "request" if isinstance(record, Request) else "stream"
        self.file.write(json.dumps({name: asdict(record)}) + "\n")


class Client(Protocol):
    """What `run` drives."""

    async def run(self, recorder: Recorder, stop: asyncio.Event) -> None:
        """Record until `stop`, then finish what is in flight."""
        ...


@dataclass(frozen=True, slots=True)
class LoadClient:
    """Steady load, as careful as Go's net/http, which kubectl, kubelet and controllers use.

    A kept connection that the server closes between two requests is opened again.  A GET on a
    connection that has carried one before, and that ends before any answer came, is sent once
    more on a new connection (RFC 9112, section 9.3.1; net/http's `shouldRetryRequest`) and counted
    as `retried`: the server's close and the request have crossed.  All else is a failure.  One
    that is not answered in time delays the next ones of its connection, which are then skipped
    rather than sent in a burst.
    """

    target: Target
    keepalive_rate: float = 200.0
    """Requests per second over all kept connections together; 0 is none."""
    new_connection_rate: float = 20.0
    """Requests per second that each open a connection; 0 is none."""
    connections: int = 4
    """Kept connections."""
    path: str = "/whoami"

    async def run(self, recorder: Recorder, stop: asyncio.Event) -> None:
        """Record until `stop`, then wait for the answers in flight."""
        async with asyncio.TaskGroup() as tasks:
            if self.keepalive_rate:
                for number in range(self.connections):
                    tasks.create_task(self._keep(number, recorder, stop))
            if self.new_connection_rate:
                tasks.create_task(self._renew(tasks, recorder, stop))

    async def _keep(self, number: int, recorder: Recorder, stop: asyncio.Event) -> None:
        connection: Connection | None = None
        period = self.connections / self.keepalive_rate
        async for _ in _ticks(period, number / self.keepalive_rate, stop):
            if connection is not None and not connection.is_usable:
                await connection.close()
                connection = None
            connection = await self._exchange(connection, number, recorder)
        if connection is not None:
            await connection.close()

    async def _renew(
        self, tasks: asyncio.TaskGroup, recorder: Recorder, stop: asyncio.Event
    ) -> None:
        async for _ in _ticks(1 / self.new_connection_rate, 0.0, stop):
            tasks.create_task(self._once(recorder))

    async def _once(self, recorder: Recorder) -> None:
        connection = await self._exchange(None, -1, recorder)
        if connection is not None:
            await connection.close()

    async def _exchange(
        self, connection: Connection | None, number: int, recorder: Recorder
    ) -> Connection | None:
        """Ask once, record it, and return the connection unless it is spent."""
        start = time.monotonic_ns()
        reused = connection is not None
        connection, backend, error = await self._ask(connection)
        crossed = error in ("eof", "reset") and connection is not None and connection.unanswered
        retried = reused and crossed
        if retried and connection is not None:
            await connection.close()
            connection, backend, error = await self._ask(None)
        kind = "new" if number < 0 else "kept"
        end = time.monotonic_ns()
        recorder.add(Request(start, end, kind, number, reused, backend, error, retried))
        if connection is not None and not connection.is_usable:
            await connection.close()
            return None
        return connection

    async def _ask(
        self, connection: Connection | None
    ) -> tuple[Connection | None, str | None, str | None]:
        """Return the connection used, who answered, and the kind of error, if any."""
        try:
            with translated("asking"):
                async with asyncio.timeout(self.target.timeout):
                    connection = connection or await Connection.open(self.target)
                    answer = await connection.ask(self.path)
        except RequestError as failed:
            return connection, None, failed.kind
        return connection, answer.backend, answer.error


@dataclass(frozen=True, slots=True)
class StreamClient:
    """Holds `count` streams open; one that ends is not opened again."""

    target: Target
    count: int
    streams: list[Stream] = field(default_factory=list)
    """Each one's state; also recorded whenever its fate changes, and at the end."""

    async def run(self, recorder: Recorder, stop: asyncio.Event) -> None:
        """Hold the streams until `stop`."""
        async with asyncio.TaskGroup() as tasks:
            held = [tasks.create_task(self._hold(n, recorder)) for n in range(self.count)]
            await stop.wait()
            for stream in self.streams:
                recorder.add(stream.look(time.monotonic_ns()))
            for task in held:
                task.cancel()

    async def _hold(self, number: int, recorder: Recorder) -> None:
        stream = Stream(number, time.monotonic_ns())
        self.streams.append(stream)
        connection: Connection | None = None
        try:
            async with asyncio.timeout(self.target.timeout):
                connection = await Connection.open(self.target)
            stream.source = connection.source
            async for line in connection.lines("/stream"):
                stream.heard(line, time.monotonic_ns())
                if stream.lines == 1:
                    recorder.add(stream)
            stream.over("finished", time.monotonic_ns())
        except RequestError as failed:
            stream.over(failed.kind, time.monotonic_ns())
        except TimeoutError:
            stream.over("timeout", time.monotonic_ns())
        finally:
            if connection is not None:
                await connection.close()
        recorder.add(stream)


async def _ticks(period: float, offset: float, stop: asyncio.Event) -> AsyncIterator[None]:
    """Yield every `period` seconds until `stop`; ticks that came too late are left out."""
    loop = asyncio.get_running_loop()
    due = loop.time() + offset
    while not stop.is_set():
        wait = due - loop.time()
        if wait > 0:
            await asyncio.sleep(min(wait, NAP_SECONDS))
            continue
        yield
        due += period * max(1, -(-(loop.time() - due) // period))


def run(client: Client, path: Path, seconds: float) -> None:
    """Run `client` for `seconds` or until SIGTERM, recording into `path`; blocks."""
    asyncio.run(record(client, path, seconds))


async def record(
    client: Client, path: Path, seconds: float, stop: asyncio.Event | None = None
) -> None:
    """Run `client` for `seconds`, until SIGTERM or until `stop` is set, recording into `path`."""
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    alarm = loop.call_later(seconds, stop.set)
    try:
        with path.open("w", buffering=1) as file:
            await client.run(Recorder(file), stop)
    finally:
        alarm.cancel()
        loop.remove_signal_handler(signal.SIGTERM)


def read_requests(path: Path) -> list[Request]:
    """Return the requests recorded so far, in the order of their ends."""
    return [Request(**record["request"]) for record in _records(path) if "request" in record]


def read_streams(path: Path) -> list[Stream]:
    """Return the newest record of each stream, by number."""
    newest = {}
    for record in _records(path):
        if "stream" in record:
            stream = Stream(**record["stream"])
            stream.source = (stream.source[0], stream.source[1])
            newest[stream.number] = stream
    return [newest[number] for number in sorted(newest)]


def _records(path: Path) -> list[dict[str, dict[str, Any]]]:
    whole = path.read_text().rpartition("\n")[0]  # the last line may be half written
    return [json.loads(line) for line in whole.splitlines()]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a load client has seen; spans in milliseconds."""

    requests: int
    failures: int
    retried: int
    by_backend: dict[str, int]
    """Good answers by who gave them."""
    by_error: dict[str, int]
    gap_max_ms: float
    """Longest time without a good answer, from the first request's start to the last one's end."""
    p50_ms: float
    p99_ms: float
    """Of the good answers, opening the connection included."""


def summarize(requests: Iterable[Request]) -> Summary:
    """Return the figures of `requests`."""
    everything = sorted(requests, key=lambda request: request.end)
    good = [request for request in everything if request.error is None]
    spans = sorted(request.end - request.start for request in good)
    instants = [request.end for request in good]
    if everything:
        instants = [min(r.start for r in everything), *instants, everything[-1].end]
    gaps = [later - earlier for earlier, later in itertools.pairwise(instants)]
    return Summary(
        requests=len(everything),
        failures=len(everything) - len(good),
        retried=sum(request.retried for request in everything),
        by_backend=dict(Counter(request.backend or "?" for request in good)),
        by_error=dict(Counter(r.error for r in everything if r.error is not None)),
        gap_max_ms=max(gaps, default=0) / 1e6,
        p50_ms=_quantile(spans, 0.50) / 1e6,
        p99_ms=_quantile(spans, 0.99) / 1e6,
    )


def _quantile(spans: list[int], share: float) -> float:
    """Return the nearest-rank quantile of the sorted `spans`; 0 when there are none."""
    return float(spans[min(len(spans) - 1, int(share * len(spans)))]) if spans else 0.0
