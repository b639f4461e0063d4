"""The held connection: reused, watched, replaced, and given up where it is no use."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest
import trustme

from revip.adapters.probes.connection import Endpoint, attach, connect
from revip.adapters.probes.held import FUTILE_LOSSES, REST, HeldConnection
from revip.model.health import Finding
from revip.model.instants import Instant
from revip.model.spec import ProbeKind, ProbeSpec
from tests.adapters.conftest import HASTY, PATIENT, Backends, Server, answer, until

Ways = pytest.mark.parametrize("kind", [ProbeKind.HTTP, ProbeKind.HTTPS])


class Losses:
    """What `lost` was told."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.heard = asyncio.Event()

    def __call__(self, reason: str) -> None:
        self.reasons.append(reason)
        self.heard.set()

    async def wait(self) -> str:
        async with asyncio.timeout(5):
            await self.heard.wait()
        return self.reasons[0]


async def settle() -> None:
    """Let everything that is on its way over loopback arrive."""
    for _ in range(20):
        await asyncio.sleep(0.001)


@pytest.fixture
def lost() -> Losses:
    return Losses()


@pytest.fixture
def spec_of(https: ProbeSpec) -> dict[ProbeKind, ProbeSpec]:
    return {kind: replace(https, kind=kind) for kind in ProbeKind}


async def start(
    backends: Backends, kind: ProbeKind, serving: ssl.SSLContext, *answers: bytes
) -> Server:
    context = serving if kind is ProbeKind.HTTPS else None
    return await backends.serve_http(*answers, context=context)


@Ways
async def test_the_next_probe_goes_over_the_held_connection(
    backends: Backends,
    kind: ProbeKind,
    spec_of: dict[ProbeKind, ProbeSpec],
    serving: ssl.SSLContext,
) -> None:
    server = await start(backends, kind, serving)
    probe = backends.probe(server.port, spec_of[kind])
    results = [await probe.ask(fresh=False) for _ in range(5)]
    assert [result.held for result in results] == [False, True, True, True, True]
    assert {result.reason for result in results} == {"HTTP 200"}
    assert server.connections == 1


@Ways
async def test_bad_news_over_the_held_connection_keeps_it(
    backends: Backends,
    kind: ProbeKind,
    spec_of: dict[ProbeKind, ProbeSpec],
    serving: ssl.SSLContext,
) -> None:
    server = await start(backends, kind, serving, answer(), answer("500 X"), answer())
    probe = backends.probe(server.port, spec_of[kind])
    findings = [(await probe.ask(fresh=False)).finding for _ in range(3)]
    assert findings == [Finding.READY, Finding.NOT_READY, Finding.READY]
    assert server.connections == 1


@pytest.mark.parametrize("way", ["close", "reset", "talk"])
@pytest.mark.parametrize("kind", list(ProbeKind))
async def test_the_end_of_a_held_connection_is_heard(
    backends: Backends,
    kind: ProbeKind,
    way: str,
    spec_of: dict[ProbeKind, ProbeSpec],
    serving: ssl.SSLContext,
    lost: Losses,
) -> None:
    server = await start(backends, kind, serving)
    await backends.probe(server.port, spec_of[kind], lost=lost).ask(fresh=False)
    await until(lambda: bool(server.writers))
    writer = server.writers[0]
    if way == "close":
        writer.close()
        expected = "the backend closed the held connection"
    elif way == "reset":
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        expected = "the backend reset the held connection"
    else:
        writer.write(b"408")
        expected = "the backend sent 3 bytes unasked"
    assert await lost.wait() == expected
    await settle()
    assert len(lost.reasons) == 1


@Ways
async def test_a_connection_that_was_replaced_or_closed_is_not_lost(
    backends: Backends,
    kind: ProbeKind,
    spec_of: dict[ProbeKind, ProbeSpec],
    serving: ssl.SSLContext,
    lost: Losses,
) -> None:
    server = await start(backends, kind, serving)
    probe = backends.probe(server.port, spec_of[kind], lost=lost)
    await probe.ask(fresh=False)
    assert not (await probe.ask(fresh=True)).held
    assert (await probe.ask(fresh=False)).held
    assert server.connections == 2
    await probe.close()
    await server.stop()
    await settle()
    assert lost.reasons == []


async def test_after_close_nothing_is_held(backends: Backends, http: ProbeSpec) -> None:
    server = await backends.serve_http()
    probe = backends.probe(server.port, http)
    await probe.close()
    assert (await probe.ask(fresh=False)).finding is Finding.READY
    assert not (await probe.ask(fresh=False)).held


async def test_a_failed_fresh_probe_leaves_the_held_connection(
    backends: Backends, http: ProbeSpec
) -> None:
    server = await backends.serve_http()
    probe = backends.probe(server.port, http)
    await probe.ask(fresh=False)
    assert server.listener is not None
    server.listener.close()
    assert (await probe.ask(fresh=True)).finding is Finding.REFUSED
    result = await probe.ask(fresh=False)
    assert (result.finding, result.held) == (Finding.READY, True)


async def test_a_server_that_closes_after_each_answer_is_no_failure(
    backends: Backends, http: ProbeSpec, lost: Losses
) -> None:
    server = await backends.serve_http(answer(headers="Connection: close\r\n"), close=True)
    probe = backends.probe(server.port, http, lost=lost)
    results = [await probe.ask(fresh=False) for _ in range(3)]
    await settle()
    assert [(r.finding, r.held) for r in results] == [(Finding.READY, False)] * 3
    assert lost.reasons == []


async def test_holding_can_be_turned_off(backends: Backends, http: ProbeSpec) -> None:
    server = await backends.serve_http()
    probe = backends.probe(server.port, replace(http, held=False))
    results = [await probe.ask(fresh=False) for _ in range(2)]
    assert [result.held for result in results] == [False, False]
    assert b"connection: close" in server.heads[0].lower()


@Ways
async def test_a_close_that_crosses_the_request_is_asked_again(
    backends: Backends,
    kind: ProbeKind,
    spec_of: dict[ProbeKind, ProbeSpec],
    serving: ssl.SSLContext,
    lost: Losses,
) -> None:
    server: Server

    async def one_answer_then_the_door(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        server.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer())
        server.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    context = serving if kind is ProbeKind.HTTPS else None
    server = await backends.serve(one_answer_then_the_door, context)
    probe = backends.probe(server.port, spec_of[kind], lost=lost)
    await probe.ask(fresh=False)
    result = await probe.ask(fresh=False)
    assert (result.finding, result.held) == (Finding.READY, False)
    assert server.connections == 2
    assert lost.reasons == []


async def test_silence_over_the_held_connection_fails_and_drops_it(
    backends: Backends, http: ProbeSpec
) -> None:
    server: Server

    async def one_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer())
        await asyncio.Event().wait()

    server = await backends.serve(one_answer)
    probe = backends.probe(server.port, http, replace(PATIENT, timeout=HASTY.timeout))
    await probe.ask(fresh=False)
    result = await probe.ask(fresh=False)
    assert (result.finding, result.held, result.stage) == (Finding.FAILED, True, "http")
    assert result.reason == "no answer over the held connection for 80 ms"
    assert not (await probe.ask(fresh=False)).held


async def test_a_tcp_probe_connects_anew_and_holds_the_newest(
    backends: Backends, lost: Losses
) -> None:
    server = await backends.serve_http()
    probe = backends.probe(server.port, ProbeSpec(kind=ProbeKind.TCP), lost=lost)
    for _ in range(3):
        assert not (await probe.ask(fresh=False)).held
    await settle()
    assert server.connections == 3
    assert [writer.is_closing() for writer in server.writers] == [True, True, False]
    await server.stop()
    await lost.wait()


class StandingClock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 1_000_000

    def now(self) -> Instant:
        return Instant(self.time)


async def hold_and_lose(
    held: HeldConnection, server: Server, clock: StandingClock, age: int
) -> bool:
    """Hold a new connection, end it `age` ms later; return whether it was held at all."""
    before = server.connections
    sock = await connect(endpoint_of(server), PATIENT)
    held.succeeded(await attach(sock), keep=True, opened=clock.now())
    connection = held.take()
    if connection is None:
        return False
    held.succeeded(connection, keep=True, opened=None)
    clock.time += age
    await until(lambda: server.connections == before + 1)
    server.writers[-1].close()
    await settle()
    return True


def endpoint_of(server: Server) -> Endpoint:
    return Endpoint(ip_address("127.0.0.1"), server.port)


async def test_a_server_that_ends_every_connection_is_not_asked_in_a_hot_loop(
    backends: Backends, lost: Losses
) -> None:
    server, clock = await backends.serve_http(), StandingClock()
    held = HeldConnection(clock, lost)
    kept = [await hold_and_lose(held, server, clock, age=10) for _ in range(FUTILE_LOSSES + 2)]
    assert kept == [True] * FUTILE_LOSSES + [False, False]
    clock.time += REST
    assert await hold_and_lose(held, server, clock, age=10)
    held.close()


async def test_losses_that_meant_a_failure_or_came_late_are_not_futile(
    backends: Backends, lost: Losses
) -> None:
    server, clock = await backends.serve_http(), StandingClock()
    held = HeldConnection(clock, lost)
    for _ in range(FUTILE_LOSSES + 1):
        assert await hold_and_lose(held, server, clock, age=10)
        held.failed()
    for _ in range(FUTILE_LOSSES + 1):
        assert await hold_and_lose(held, server, clock, age=5_000)
    assert len(lost.reasons) == 2 * (FUTILE_LOSSES + 1)
    held.close()


async def test_a_silent_host_is_told_by_the_kernel(backends: Backends) -> None:
    server = await backends.serve_http()
    with await connect(endpoint_of(server), PATIENT) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2000
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


SERVER = """
import asyncio, ssl, sys
async def serve(reader, writer):
    while True:
        await reader.readuntil(b"\\r\\n\\r\\n")
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1])
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_killed_server_is_known_within_50_ms(
    backends: Backends,
    https: ProbeSpec,
    authority: trustme.CA,
    tmp_path_factory: pytest.TempPathFactory,
    lost: Losses,
    record_property: Callable[[str, object], None],
) -> None:
    pem = tmp_path_factory.mktemp("server") / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, str(pem), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    probe = backends.probe(port, https, lost=lost)
    assert (await probe.ask(fresh=False)).finding is Finding.READY
    killed = time.perf_counter()
    process.kill()
    await lost.wait()
    took = (time.perf_counter() - killed) * 1000
    await process.wait()  # the kernel may close the listener a moment after our connection
    assert (await probe.ask(fresh=False)).finding is Finding.REFUSED
    record_property("sigkill_to_lost_ms", took)
    assert took < 50
