"""What a probe finds, and the words it has for it."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import struct
from dataclasses import replace

import pytest

from revip.model.health import Finding, HealthTiming
from revip.model.instants import Span
from revip.model.spec import ProbeKind, ProbeSpec
from tests.adapters.conftest import HASTY, PATIENT, Backends, answer, hang, unused_port


async def test_an_expected_status_is_ready(backends: Backends, http: ProbeSpec) -> None:
    server = await backends.serve_http()
    result = await backends.probe(server.port, http).ask(fresh=False)
    assert (result.finding, result.reason) == (Finding.READY, "HTTP 200")
    assert (result.stage, result.held) == ("", False)
    assert 0 <= result.latency < PATIENT.timeout


async def test_the_request_names_path_host_and_who_asks(backends: Backends) -> None:
    server = await backends.serve_http()
    spec = ProbeSpec(kind=ProbeKind.HTTP, path="/readyz?exclude=etcd", server_name="api.example")
    await backends.probe(server.port, spec).ask(fresh=False)
    head = server.heads[0].decode().lower()
    assert head.startswith("get /readyz?exclude=etcd http/1.1\r\n")
    assert f"host: api.example:{server.port}\r\n" in head
    assert "user-agent: revip/" in head


async def test_every_expected_status_counts(backends: Backends, http: ProbeSpec) -> None:
    server = await backends.serve_http(answer("401 Unauthorized"))
    probe = backends.probe(server.port, replace(http, expected=frozenset({200, 401})))
    assert (await probe.ask(fresh=False)).finding is Finding.READY


async def test_a_probe_port_of_its_own_is_used(backends: Backends, http: ProbeSpec) -> None:
    server = await backends.serve_http()
    probe = backends.probe(unused_port(), replace(http, port=server.port))
    assert (await probe.ask(fresh=False)).finding is Finding.READY


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
async def test_a_server_that_does_not_know_us_is_alive(
    backends: Backends, http: ProbeSpec, status: str
) -> None:
    server = await backends.serve_http(answer(status))
    result = await backends.probe(server.port, http).ask(fresh=False)
    assert result.finding is Finding.DENIED
    assert result.reason == (
        f"HTTP {status[:3]}: alive, but does not let us read /readyz: "
        "give the probe a token_file or client_certificate, or use path /livez"
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[+]ping ok\n[-]etcd failed: reason withheld\n", "[-]etcd failed: reason withheld"),
        (
            b"[-]etcd failed\n[+]log ok\n[-]poststart failed\n",
            "[-]etcd failed, [-]poststart failed",
        ),
        (b'{"kind":"Status","message":"shutting down"}', "shutting down"),
        (b'{"kind":"Sta', '{"kind":"Sta'),
        (b'{"a":' * 9_000, '{"a":' * 39 + '{"a"' + "…"),
        (b"\n  \x1b[31mred\x07 alert\r\nmore", "[31mred alert"),
        (b"x" * 500, "x" * 199 + "…"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
async def test_another_answer_is_not_ready_and_its_words_are_passed_on(
    backends: Backends, http: ProbeSpec, body: bytes, said: str
) -> None:
    server = await backends.serve_http(answer("500 Internal Server Error", body))
    result = await backends.probe(server.port, http).ask(fresh=False)
    assert (result.finding, result.reason) == (Finding.NOT_READY, f"HTTP 500: {said}")


async def test_an_answer_without_body_is_told_by_its_status(
    backends: Backends, http: ProbeSpec
) -> None:
    server = await backends.serve_http(answer("503 Service Unavailable", b""))
    assert (await backends.probe(server.port, http).ask(fresh=False)).reason == "HTTP 503"


async def test_interim_answers_are_skipped(backends: Backends, http: ProbeSpec) -> None:
    server = await backends.serve_http(b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer())
    assert (await backends.probe(server.port, http).ask(fresh=False)).reason == "HTTP 200"


async def test_a_body_that_ends_with_the_connection_is_complete(
    backends: Backends, http: ProbeSpec
) -> None:
    server = await backends.serve_http(b"HTTP/1.0 500 X\r\n\r\nno etcd", close=True)
    result = await backends.probe(server.port, http).ask(fresh=False)
    assert result.reason == "HTTP 500: no etcd"


async def test_a_body_without_end_is_cut_at_the_limit(backends: Backends, http: ProbeSpec) -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 4096)
            await writer.drain()

    server = await backends.serve(flood)
    result = await backends.probe(server.port, http).ask(fresh=False)
    assert (result.finding, result.reason) == (Finding.READY, "HTTP 200")


@pytest.mark.parametrize("kind", list(ProbeKind))
async def test_a_port_where_nobody_listens_is_refused(backends: Backends, kind: ProbeKind) -> None:
    result = await backends.probe(unused_port(), ProbeSpec(kind=kind)).ask(fresh=False)
    assert (result.finding, result.reason) == (Finding.REFUSED, "connection refused")
    assert result.stage == "connect"


async def test_ipv6_backends_are_asked_too(backends: Backends, http: ProbeSpec) -> None:
    result = await backends.probe(unused_port(), http, address="::1").ask(fresh=False)
    assert result.finding in (Finding.REFUSED, Finding.OURS)  # ours where IPv6 is disabled


async def test_a_zone_without_interface_is_our_fault(backends: Backends, http: ProbeSpec) -> None:
    result = await backends.probe(6443, http, address="fe80::1%nowhere0").ask(fresh=False)
    assert result.finding is Finding.OURS
    assert result.reason.startswith("this host has no interface nowhere0")


async def test_silence_after_the_accept_is_told_apart(backends: Backends, http: ProbeSpec) -> None:
    server = await backends.serve(hang)
    result = await backends.probe(server.port, http, HASTY).ask(fresh=False)
    assert result.finding is Finding.FAILED
    assert (result.reason, result.stage) == ("accepted but sent nothing for 80 ms", "http")
    assert result.latency >= 79


async def test_an_answer_that_trickles_is_told_apart(backends: Backends, http: ProbeSpec) -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\no")
        await asyncio.Event().wait()

    server = await backends.serve(trickle)
    result = await backends.probe(server.port, http, HASTY).ask(fresh=False)
    assert (result.finding, result.reason) == (Finding.FAILED, "answer not finished in 80 ms")


async def test_a_handshake_without_answer_ends_at_the_connect_timeout(
    backends: Backends, http: ProbeSpec
) -> None:
    timing = HealthTiming(timeout=Span(5000), connect_timeout=Span(50))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]  # a full backlog drops further SYNs
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        port = listener.getsockname()[1]
        result = await backends.probe(port, http, timing).ask(fresh=False)
        for filler in fillers:
            filler.close()
    assert result.finding is Finding.FAILED
    assert result.reason == "no answer to the TCP handshake in 50 ms"
    assert result.stage == "connect"


async def test_what_is_not_http_is_said_so(backends: Backends, http: ProbeSpec) -> None:
    server = await backends.serve_http(b"SSH-2.0-OpenSSH_9.2\r\n\r\n\r\n")
    result = await backends.probe(server.port, http).ask(fresh=False)
    assert result.finding is Finding.FAILED
    assert result.reason.startswith("not HTTP: the answer begins with 'SSH-2.0-OpenSSH_9.2")


async def test_an_endless_header_is_refused(backends: Backends, http: ProbeSpec) -> None:
    server = await backends.serve_http(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000)
    result = await backends.probe(server.port, http).ask(fresh=False)
    assert result.finding is Finding.FAILED
    assert result.reason == "malformed or oversized HTTP header"


async def test_an_end_before_an_answer_is_a_failure(backends: Backends, http: ProbeSpec) -> None:
    server = await backends.serve_http(b"", close=True)
    result = await backends.probe(server.port, http).ask(fresh=False)
    assert (result.finding, result.stage) == (Finding.FAILED, "http")
    assert result.reason == "connection closed before an answer"


async def test_an_end_within_an_answer_is_a_failure(backends: Backends, http: ProbeSpec) -> None:
    server = await backends.serve_http(
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", close=True
    )
    result = await backends.probe(server.port, http).ask(fresh=False)
    assert result.finding is Finding.FAILED
    assert result.reason == "connection closed in the middle of the answer"


async def test_a_reset_before_an_answer_is_a_failure(backends: Backends, http: ProbeSpec) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    server = await backends.serve(reset)
    result = await backends.probe(server.port, http).ask(fresh=False)
    assert (result.finding, result.reason) == (
        Finding.FAILED,
        "connection reset before an answer",
    )


async def test_no_route_from_here_is_our_fault(backends: Backends, http: ProbeSpec) -> None:
    # Linux refuses TCP to a broadcast address with ENETUNREACH, before anything is sent.
    result = await backends.probe(6443, http, address="127.255.255.255").ask(fresh=False)
    assert result.finding is Finding.OURS
    assert result.reason.endswith("(ENETUNREACH)")


async def test_running_out_of_descriptors_is_our_fault(backends: Backends, http: ProbeSpec) -> None:
    server = await backends.serve_http()
    probe = backends.probe(server.port, http)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        result = await probe.ask(fresh=False)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert result.finding is Finding.OURS
    assert result.reason.endswith("(EMFILE)")
    assert (await probe.ask(fresh=False)).finding is Finding.READY


@pytest.mark.parametrize("path", ["/ready z", "/ré", "/a\r\nX: y"])
async def test_a_path_that_http_cannot_carry_is_our_fault(
    backends: Backends, http: ProbeSpec, path: str
) -> None:
    server = await backends.serve_http()
    result = await backends.probe(server.port, replace(http, path=path)).ask(fresh=False)
    assert result.finding is Finding.OURS
    assert server.heads == []


async def test_a_tcp_probe_only_connects(backends: Backends) -> None:
    server = await backends.serve(hang)
    result = await backends.probe(server.port, ProbeSpec(kind=ProbeKind.TCP)).ask(fresh=False)
    assert (result.finding, result.reason) == (Finding.READY, "connected")


@pytest.mark.parametrize("tls", [False, True])
async def test_a_cancelled_probe_closes_its_connection(backends: Backends, tls: bool) -> None:
    ended = asyncio.Event()

    async def hear_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        while await reader.read(1000):
            pass
        ended.set()

    arrived = asyncio.Event()
    server = await backends.serve(hear_the_end)
    kind = ProbeKind.HTTPS if tls else ProbeKind.HTTP
    asking = asyncio.ensure_future(backends.probe(server.port, ProbeSpec(kind)).ask(fresh=False))
    await arrived.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    async with asyncio.timeout(5):
        await ended.wait()
