"""What the lab's clients count, and what they do not."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from lab.clients import (
    LoadClient,
    Request,
    Stream,
    StreamClient,
    Target,
    one_shot,
    read_requests,
    read_streams,
    record,
    summarize,
)

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"name": "n2"}'
CLOSING = ANSWER.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BOUND = 10.0
"""Seconds after which a test gives up."""

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A scripted server on loopback: `talk` has the connection and may do what it likes."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self.connections = 0

    @asynccontextmanager
    async def running(self, patience: float = 5.0) -> AsyncIterator[Target]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        async with server:
            yield Target("127.0.0.1", server.sockets[0].getsockname()[1], None, timeout=patience)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._talk(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def request(reader: asyncio.StreamReader) -> None:
    await reader.readuntil(b"\r\n\r\n")


def reset(writer: asyncio.StreamWriter) -> None:
    """End with RST: SO_LINGER of zero (socket(7))."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def until(true: Callable[[], bool]) -> None:
    """Await what shows only in a record: look every 2 ms."""
    async with asyncio.timeout(BOUND):
        while not true():  # noqa: ASYNC110 -- a file has no event to await
            await asyncio.sleep(0.002)


async def load(
    server: Server, folder: Path, count: int, *, patience: float = 5.0, kept: bool = True
) -> list[Request]:
    """Ask until at least `count` requests are recorded, over one kept or over new connections."""
    path, stop = folder / "load.jsonl", asyncio.Event()
    async with server.running(patience) as target:
        client = LoadClient(target, 400 if kept else 0, 0 if kept else 200, connections=1)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(record(client, path, BOUND, stop))
            await until(lambda: path.exists() and len(read_requests(path)) >= count)
            stop.set()
    return read_requests(path)


async def test_a_kept_connection_carries_all_requests(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request(reader)
            writer.write(ANSWER)

    server = Server(talk)
    requests = await load(server, tmp_path, 5)
    assert server.connections == 1
    assert [r.reused for r in requests[:3]] == [False, True, True]
    assert {(r.kind, r.backend, r.error) for r in requests} == {("kept", "n2", None)}


@pytest.mark.parametrize("end", ["eof", "reset"])
async def test_a_connection_closed_between_requests_is_no_failure(tmp_path: Path, end: str) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(ANSWER)
        if end == "reset":
            await asyncio.sleep(0)  # the answer is on its way before the reset
            reset(writer)

    server = Server(talk)
    requests = await load(server, tmp_path, 5)
    assert {r.error for r in requests} == {None}
    assert server.connections == len(requests)


async def test_connection_close_is_honored(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(CLOSING)
        await reader.read()  # it is the client that closes

    server = Server(talk)
    requests = await load(server, tmp_path, 4)
    assert {(r.error, r.reused) for r in requests} == {(None, False)}
    assert server.connections == len(requests)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("error", ["eof", "reset", "timeout", "http-503", "protocol"])
async def test_a_request_that_was_sent_and_not_answered_is_a_failure(
    tmp_path: Path, error: str, kept: bool
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        match error:
            case "reset":
                reset(writer)
            case "timeout":
                await reader.read()
            case "http-503":
                writer.write(UNAVAILABLE)
            case "protocol":
                writer.write(b"\xff\xfe\r\n\r\n")

    requests = await load(Server(talk), tmp_path, 2, patience=0.1, kept=kept)
    assert {r.error for r in requests} == {error}
    assert {r.kind for r in requests} == {"kept" if kept else "new"}


async def test_connections_closed_after_several_answers_cost_nothing(tmp_path: Path) -> None:
    answered = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        for _ in range(5):
            await request(reader)
            writer.write(ANSWER)
            answered += 1

    requests = await load(Server(talk), tmp_path, 20)
    assert {r.error for r in requests} == {None}
    assert answered == len(requests)


async def test_a_failed_request_is_not_sent_again(tmp_path: Path) -> None:
    heard = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        await request(reader)
        heard += 1
        reset(writer)

    requests = await load(Server(talk), tmp_path, 3)
    assert heard == len(requests)


async def test_a_closed_port_is_refused() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        sample = await one_shot(Target("127.0.0.1", probe.getsockname()[1], None))
    assert (sample.error, sample.connected, sample.backend) == ("refused", None, None)


async def test_one_shot_times_its_steps() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(ANSWER)

    async with Server(talk).running() as target:
        sample = await one_shot(target)
    assert sample.connected is not None
    assert sample.secured is not None
    assert sample.start < sample.connected <= sample.secured < sample.end
    assert (sample.status, sample.backend) == (200, "n2")


async def streams_of(
    talk: Talk, folder: Path, enough: Callable[[list[Stream]], bool]
) -> list[Stream]:
    """Hold two streams until their states are `enough`."""
    path, stop = folder / "streams.jsonl", asyncio.Event()
    async with Server(talk).running() as target:
        client = StreamClient(target, 2)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(record(client, path, BOUND, stop))
            await until(lambda: len(client.streams) == 2 and enough(client.streams))
            stop.set()
    return read_streams(path)


def line(counter: int) -> bytes:
    text = f"{counter} n3\n".encode()
    return b"%x\r\n%b\r\n" % (len(text), text)


async def test_an_open_stream_is_alive_and_says_how_long_it_was_silent(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(STREAM + line(0) + line(1))
        await asyncio.sleep(0.05)
        writer.write(line(4))
        await reader.read()

    streams = await streams_of(talk, tmp_path, lambda s: all(x.lines == 3 for x in s))
    assert [(s.fate, s.backend, s.lines, s.missing) for s in streams] == [("alive", "n3", 3, 2)] * 2
    assert all(s.gap_max >= 50_000_000 for s in streams)
    assert len({s.source for s in streams}) == 2


@pytest.mark.parametrize("fate", ["finished", "eof", "reset", "http-503"])
async def test_an_ended_stream_says_how(tmp_path: Path, fate: str) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(UNAVAILABLE if fate == "http-503" else STREAM + line(0))
        if fate == "finished":
            writer.write(b"0\r\n\r\n")
        if fate == "reset":
            await asyncio.sleep(0.01)
            reset(writer)

    ended = await streams_of(talk, tmp_path, lambda s: all(x.ended is not None for x in s))
    assert {s.fate for s in ended} == {fate}


def test_a_silent_stream_is_stalled_since_its_last_line() -> None:
    stream = Stream(0, opened=0)
    stream.heard("0 n1", 200_000_000)
    assert stream.look(1_000_000_000).fate == "alive"
    assert stream.look(1_300_000_000).fate == "stalled"
    assert (stream.last, stream.gap_max) == (200_000_000, 1_100_000_000)
    stream.heard("1 n1", 1_400_000_000)
    assert stream.look(1_500_000_000).fate == "alive"
    assert stream.gap_max == 1_200_000_000


def test_the_summary_counts_backends_errors_and_the_longest_gap() -> None:
    def one(start: int, end: int, backend: str | None, error: str | None = None) -> Request:
        return Request(start * 1_000_000, end * 1_000_000, "kept", 0, True, backend, error)

    summary = summarize(
        [
            one(0, 2, "n1"),
            one(10, 13, "n2"),
            one(20, 90, None, "timeout"),
            one(100, 101, "n1"),
            one(110, 111, None, "reset"),
        ]
    )
    assert (summary.requests, summary.failures) == (5, 2)
    assert summary.by_backend == {"n1": 2, "n2": 1}
    assert summary.by_error == {"timeout": 1, "reset": 1}
    assert summary.gap_max_ms == 88.0
    assert (summary.p50_ms, summary.p99_ms) == (2.0, 3.0)


def test_an_empty_record_has_an_empty_summary() -> None:
    summary = summarize([])
    assert (summary.requests, summary.gap_max_ms, summary.p99_ms) == (0, 0, 0)


def test_a_half_written_line_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "load.jsonl"
    path.write_text('{"stream": {"number": 0, "opened": 1}}\n{"request": {"sta')
    assert read_requests(path) == []
    assert [s.number for s in read_streams(path)] == [0]
