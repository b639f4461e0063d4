"""A webhook against real servers on loopback: good, ill and silent ones."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from revip.adapters.webhook import Aside, WebhookMessenger
from revip.errors import NotWantedError, TransientError
from revip.model.instants import Span
from revip.model.notify import Format, Url, WebhookSpec
from tests.messages import message

Streams = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Receiver:
    """An HTTP server that keeps what it gets and says what it is told to."""

    def __init__(self, answer: bytes = OK) -> None:
        self.answer = answer
        self.requests: list[tuple[list[str], bytes]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        length = next(int(h.split(":")[1]) for h in head if h.lower().startswith("content-length"))
        self.requests.append((head, await reader.readexactly(length)))
        writer.write(self.answer)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def serving(streams: Streams, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await streams(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def spec(port: int, **more: object) -> WebhookSpec:
    url = Url(tls=bool(more.pop("tls", False)), host="localhost", port=port, target="/secret?a=b")
    more.setdefault("timeout", Span(3000))
    return WebhookSpec(url, **more)  # type: ignore[arg-type]


async def refusal(
    streams: Streams, kind: type[Exception] = TransientError, within: int = 3000
) -> str:
    async with serving(streams) as port:
        messenger = WebhookMessenger(spec(port, timeout=Span(within)))
        with pytest.raises(kind) as caught:
            await messenger.deliver(message())
    assert "secret" not in str(caught.value)
    return str(caught.value)


async def test_alertmanager_gets_its_alerts() -> None:
    receiver = Receiver()
    async with serving(receiver) as port:
        await WebhookMessenger(spec(port)).deliver(message())
    ((head, body),) = receiver.requests
    assert head[0] == "POST /secret?a=b HTTP/1.1"
    assert f"host: localhost:{port}" in [line.lower() for line in head]
    (alert,) = json.loads(body)
    assert alert["labels"]["backend"] == "n2"


async def test_a_token_goes_along_as_it_is_at_that_time(tmp_path: Path) -> None:
    receiver, token = Receiver(), tmp_path / "token"
    async with serving(receiver) as port:
        messenger = WebhookMessenger(spec(port, token_file=token))
        with pytest.raises(TransientError, match="cannot be read: No such file"):
            await messenger.deliver(message())
        for written in ("first\n", "second\n"):
            token.write_text(written)
            await messenger.deliver(message())
        token.write_text("two words")
        with pytest.raises(TransientError, match="does not hold one bearer token"):
            await messenger.deliver(message())
    said = [line for head, _ in receiver.requests for line in head if "earer" in line]
    assert [line.split()[-1] for line in said] == ["first", "second"]


async def test_tls_is_checked(tmp_path: Path) -> None:
    authority, receiver = trustme.CA(), Receiver()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    ca = tmp_path / "ca"
    authority.cert_pem.write_to_path(ca)
    async with serving(receiver, context) as port:
        await WebhookMessenger(spec(port, tls=True, ca=ca)).deliver(message())
        trustme.CA().cert_pem.write_to_path(ca)
        with pytest.raises(TransientError, match="certificate that is not trusted"):
            await WebhookMessenger(spec(port, tls=True, ca=ca)).deliver(message())
        ca.write_text("no certificate")
        with pytest.raises(TransientError, match="cannot be used"):
            await WebhookMessenger(spec(port, tls=True, ca=ca)).deliver(message())
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
async def test_a_server_in_trouble_is_asked_again(status: int) -> None:
    answer = f"HTTP/1.1 {status} Ill\r\nContent-Length: 9\r\n\r\nno\x1b[31m ro".encode()
    said = await refusal(Receiver(answer))
    assert f"answered {status}: no" in said
    assert said.isprintable()


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 413])
async def test_a_refusal_is_final(status: int) -> None:
    answer = f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nLocation: /x\r\n\r\n".encode()
    assert f"answered {status}" in await refusal(Receiver(answer), NotWantedError)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x00\xff" * 5000,
        b"HTTP/1.1 2",
        b"HTTP/1.1 999999 Eh\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    ],
)
async def test_garbage_is_no_answer(answer: bytes) -> None:
    assert "localhost" in await refusal(Receiver(answer))


async def test_a_server_that_hangs_is_given_up() -> None:
    async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()
        await asyncio.sleep(60)

    began = time.monotonic()
    assert "did not answer in 300 ms" in await refusal(hang, within=300)
    assert time.monotonic() - began < 3


async def test_one_that_drips_for_ever_is_given_up() -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    assert "did not answer in 300 ms" in await refusal(drip, within=300)


async def test_a_body_without_end_does_not_undo_what_was_taken() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
            await writer.drain()

    async with serving(endless) as port:
        await WebhookMessenger(spec(port)).deliver(message())


async def test_a_port_where_nobody_listens_is_told() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(TransientError, match="cannot be reached"):
        await WebhookMessenger(spec(port)).deliver(message())


async def test_what_hangs_aside_holds_up_nobody() -> None:
    aside, gate = Aside(), threading.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await aside.of(gate.wait)
    with pytest.raises(TransientError, match="hangs"):
        await aside.of(lambda: 1)
    gate.set()
    async with asyncio.timeout(5):
        while True:
            await asyncio.sleep(0.01)
            try:
                assert await aside.of(lambda: 7) == 7
            except TransientError:
                continue
            break


async def test_a_template_is_sent_as_its_type() -> None:
    receiver = Receiver()
    async with serving(receiver) as port:
        generic = spec(
            port, format=Format.GENERIC, template="{node}: {text}", content_type="text/plain"
        )
        await WebhookMessenger(generic).deliver(message())
    ((head, body),) = receiver.requests
    assert body == b"n1: n2 is unhealthy: connection refused"
    assert "content-type: text/plain" in [line.lower() for line in head]
