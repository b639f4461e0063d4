"""What a client sees of the stand-in in each of its modes."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from cryptography import x509
from lab.clients import LoadClient, Target, ask_once, read_requests, record, summarize
from lab.pki import Pki, Variant, make
from lab.standin import Mode, StandInControl, serve

LOOPBACK = ip_address("127.0.0.1")
TURNED_AWAY = ("eof", "reset")
"""After TLS 1.3's handshake: which of them depends on whether the request was there already."""


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    vip = ip_address("10.0.1.10")
    return make(tmp_path_factory.mktemp("pki"), {"n1": [LOOPBACK, ip_address("::1")]}, [vip])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Node:
    """A stand-in in a process of its own."""

    def __init__(self, pki: Pki, folder: Path, *, plain: bool = False) -> None:
        self.port = _free_port()
        self.control = StandInControl(folder / "control.sock")
        pair = pki.server("n1")
        files = (None, None) if plain else (pair.certificate, pair.key)
        addresses = [LOOPBACK, ip_address("::1")]
        self._arguments = (addresses, self.port, *files, folder / "control.sock")
        self.target = Target("127.0.0.1", self.port, None if plain else pki.ca)
        self.process = self.start()

    def start(self) -> BaseProcess:
        fork = multiprocessing.get_context("fork")
        keywords = {"name": "n1", "drain_seconds": 0.2}
        self.process = fork.Process(target=serve, args=self._arguments, kwargs=keywords)
        self.process.start()
        self.control.wait()
        return self.process

    def stop(self) -> None:
        self.process.kill()
        self.process.join()

    def connect(self) -> ssl.SSLSocket:
        context = self.target.context
        assert context is not None
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=2)
        return context.wrap_socket(raw, server_hostname="kubernetes")


@pytest.fixture(scope="module")
def shared(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(pki, tmp_path_factory.mktemp("n1"))
    yield node
    node.stop()


@pytest.fixture
def node(shared: Node) -> Iterator[Node]:
    """The shared stand-in, serving."""
    yield shared
    shared.control.set(Mode.SERVING)


@pytest.fixture
def mortal(pki: Pki, tmp_path: Path) -> Iterator[Node]:
    """A stand-in that the test may end."""
    node = Node(pki, tmp_path)
    yield node
    node.stop()


def _request(path: str = "/whoami", *, method: str = "GET", more: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: kubernetes\r\n{more}\r\n".encode()


def _receive(connection: socket.socket) -> tuple[bytes, bytes]:
    """One answer with a Content-Length: head and body."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(4096)
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line[:15] == b"Content-Length:")
    while len(body) < length:
        body += connection.recv(4096)
    return head, body


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/readyz?verbose", "/version", "/whoami"])
def test_a_serving_one_answers(node: Node, path: str) -> None:
    sample = ask_once(node.target, path)
    assert (sample.status, sample.error) == (200, None)


def test_it_tells_its_name_and_who_asks(node: Node) -> None:
    with node.connect() as connection:
        connection.sendall(_request())
        _, body = _receive(connection)
        host, port = connection.getsockname()
    assert body == f'{{"name": "n1", "client": "{host}", "port": {port}}}'.encode()


def test_it_speaks_http_1_1_by_alpn(node: Node) -> None:
    with node.connect() as connection:
        assert connection.selected_alpn_protocol() == "http/1.1"


def test_it_answers_on_ipv6(node: Node) -> None:
    assert ask_once(replace(node.target, address="::1")).backend == "n1"


def test_it_can_speak_plain_http(pki: Pki, tmp_path: Path) -> None:
    plain = Node(pki, tmp_path, plain=True)
    try:
        assert ask_once(plain.target).backend == "n1"
        plain.control.set(Mode.GARBAGE)
        assert ask_once(plain.target).error == "protocol"
    finally:
        plain.stop()


def test_requests_on_one_connection_are_answered_in_order(node: Node) -> None:
    with node.connect() as connection:
        connection.sendall(_request("/livez"))
        assert _receive(connection)[1] == b"ok"
        connection.sendall(_request("/readyz", more="Connection: close\r\n"))
        head, _ = _receive(connection)
        assert b"Connection: close" in head
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (_request("/nowhere"), b"404"),
        (_request("/livez", method="DELETE"), b"405"),
        (b"hello\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nx: " + b"x" * 70000, b"431"),
    ],
)
def test_bad_requests_are_refused_as_kubernetes_does(
    node: Node, sent: bytes, status: bytes
) -> None:
    with node.connect() as connection:
        connection.sendall(sent)
        assert _receive(connection)[0].split(b" ")[1] == status


def test_a_stream_counts_with_its_name(node: Node) -> None:
    with node.connect() as connection:
        connection.sendall(_request("/stream"))
        received = b""
        while b"1 n1" not in received:
            received += connection.recv(4096)
        assert b"Transfer-Encoding: chunked" in received
        assert b"5\r\n0 n1\n\r\n" in received


@pytest.mark.parametrize(
    ("mode", "options", "error"),
    [
        ("hang-after-accept", {}, "timeout"),
        ("hang-in-tls", {}, "timeout"),
        ("unready", {}, "http-500"),
        ("slow", {"delay_ms": 900}, "timeout"),
        ("wrong-certificate", {}, "tls"),
        ("wrong-certificate", {"variant": "wrong-name"}, "tls"),
        ("wrong-certificate", {"variant": "expiring"}, None),
        ("expired-certificate", {}, "tls"),
        ("garbage", {}, "tls"),
        ("half-closed", {}, "reset"),
        ("deny", {"status": 401}, "http-401"),
        ("deny", {}, "http-403"),
        ("refuse", {}, "refused"),
    ],
)
def test_each_mode_shows_its_failure_and_heals(
    node: Node, mode: str, options: dict[str, object], error: str | None
) -> None:
    assert node.control.set(mode, **options).mode == mode
    target = replace(node.target, timeout=0.2) if error == "timeout" else node.target
    assert ask_once(target, "/readyz").error == error
    node.control.set("serving")
    assert ask_once(node.target, "/readyz").error is None


def test_an_unready_one_names_etcd_and_serves_everything_else(node: Node) -> None:
    node.control.set(Mode.UNREADY)
    body = ask_once(node.target, "/readyz").body
    assert b"[-]etcd failed: reason withheld\n" in body
    assert body.endswith(b"readyz check failed\n")
    assert ask_once(node.target, "/livez").error is None
    assert ask_once(node.target, "/readyz?exclude=etcd").error is None
    assert ask_once(node.target, "/whoami").backend == "n1"


def test_hanging_in_tls_means_half_a_server_hello(node: Node) -> None:
    node.control.set(Mode.HANG_IN_TLS)
    context = node.target.context
    assert context is not None
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    machine = context.wrap_bio(incoming, outgoing, server_hostname="kubernetes")
    with pytest.raises(ssl.SSLWantReadError):
        machine.do_handshake()
    with socket.create_connection(("127.0.0.1", node.port), timeout=2) as connection:
        connection.sendall(outgoing.read())
        assert connection.recv(1) == b"\x16"  # a handshake record, RFC 8446 section 5.1


def test_only_a_client_with_a_valid_certificate_is_let_in(node: Node, pki: Pki) -> None:
    node.control.set(Mode.CLIENT_CERTIFICATE)
    assert ask_once(node.target).error in TURNED_AWAY
    errors = []
    for variant in (Variant.VALID, Variant.EXPIRED):
        pair = pki.client(variant)
        known = replace(node.target, certificate=pair.certificate, key=pair.key)
        errors.append(ask_once(known).error)
    assert errors[0] is None
    assert errors[1] in TURNED_AWAY


def test_a_stuck_one_answers_its_open_connections_once_it_is_well(node: Node) -> None:
    with node.connect() as connection:
        connection.settimeout(0.1)
        node.control.set(Mode.HANG_AFTER_ACCEPT)
        connection.sendall(_request("/livez"))
        with pytest.raises(TimeoutError):
            connection.recv(1)
        node.control.set(Mode.SERVING)
        assert _receive(connection)[1] == b"ok"


@pytest.mark.parametrize("mode", ["garbage", "wrong-certificate", "refuse"])
def test_open_connections_end_when_something_else_has_the_port(node: Node, mode: str) -> None:
    with node.connect() as connection:
        connection.sendall(_request("/livez"))
        _receive(connection)
        node.control.set(mode)
        with contextlib.suppress(ssl.SSLEOFError):  # no close_notify, as when a process dies
            assert connection.recv(1) == b""


def test_a_graceful_stop_is_unready_first_serves_on_and_finishes(mortal: Node) -> None:
    with mortal.connect() as idle, mortal.connect() as stream:
        stream.sendall(_request("/stream"))
        idle.sendall(_request("/livez"))
        _receive(idle)
        mortal.control.set(Mode.GRACEFUL_STOP, drain_seconds=0.2, linger_ms=0)
        assert b"[-]shutdown failed" in ask_once(mortal.target, "/readyz").body
        assert ask_once(mortal.target).backend == "n1"
        assert idle.recv(1) == b""
        assert _until_end(stream).endswith(b"0\r\n\r\n")
    mortal.process.join(5)
    assert mortal.process.exitcode == 0
    assert ask_once(mortal.target).error == "refused"


def _until_end(connection: socket.socket) -> bytes:
    received = b""
    while more := connection.recv(4096):
        received += more
    return received


def test_a_request_in_flight_outlives_the_listener(mortal: Node) -> None:
    """net/http: Shutdown waits for it and answers `Connection: close`."""
    mortal.control.set(Mode.SLOW, delay_ms=400)
    with mortal.connect() as connection:
        connection.sendall(_request("/livez"))
        _counted(mortal, "/livez")
        assert mortal.process.pid is not None
        os.kill(mortal.process.pid, signal.SIGTERM)
        head, body = _receive(connection)
        assert body == b"ok"
        assert b"Connection: close" in head


def test_a_kept_connection_may_ask_once_more_and_is_told_to_close(mortal: Node) -> None:
    with mortal.connect() as kept:
        kept.sendall(_request("/livez"))
        _receive(kept)
        mortal.control.set(Mode.GRACEFUL_STOP, drain_seconds=0, linger_ms=2000)
        while ask_once(mortal.target).error != "refused":
            pass
        kept.sendall(_request("/livez"))
        head, body = _receive(kept)
        assert (b"Connection: close" in head, body) == (True, b"ok")
        assert kept.recv(1) == b""


async def test_a_graceful_stop_under_load_breaks_no_request(mortal: Node, tmp_path: Path) -> None:
    """Kept and new connections: each request is answered, or refused once nobody listens."""
    path, stop = tmp_path / "load.jsonl", asyncio.Event()
    load = LoadClient(mortal.target, keepalive_rate=400, new_connection_rate=50)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(record(load, path, 10, stop))
        while mortal.control.stats().requests < 20:  # noqa: ASYNC110 -- another process counts
            await asyncio.sleep(0.01)
        mortal.control.set(Mode.GRACEFUL_STOP, drain_seconds=0.1)
        await asyncio.to_thread(mortal.process.join, 5)
        stop.set()
    summary = summarize(read_requests(path))
    assert set(summary.by_error) <= {"refused"}
    assert summary.by_backend["n1"] >= 20


def _counted(node: Node, path: str) -> None:
    deadline = time.monotonic() + 2
    while not node.control.stats().by_path[path]:
        assert time.monotonic() < deadline


def test_a_killed_one_refuses_and_another_takes_its_place_at_once(mortal: Node) -> None:
    with mortal.connect():
        mortal.stop()
        assert ask_once(mortal.target).error == "refused"
        mortal.start()
        assert ask_once(mortal.target).backend == "n1"


def test_it_counts(mortal: Node) -> None:
    for path in ("/livez", "/livez", "/version"):
        ask_once(mortal.target, path)
    stats = mortal.control.stats()
    assert (stats.name, stats.accepted, stats.requests) == ("n1", 3, 3)
    assert stats.by_path == {"/livez": 2, "/version": 1}


@pytest.mark.parametrize(
    ("mode", "options"),
    [("happy", {}), ("slow", {"delay": 3}), ("wrong-certificate", {"variant": "nowhere"})],
)
def test_a_wrong_order_is_told_and_changes_nothing(
    node: Node, mode: str, options: dict[str, object]
) -> None:
    with pytest.raises(ValueError):
        node.control.set(mode, **options)
    assert node.control.stats().mode == "serving"


def test_every_variant_of_a_certificate_is_what_it_says(pki: Pki) -> None:
    now = datetime.now(UTC)
    ca = x509.load_pem_x509_certificate(pki.ca.read_bytes())
    found = {}
    for variant in Variant:
        leaf = x509.load_pem_x509_certificate(pki.server("n1", variant).certificate.read_bytes())
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        addresses = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
        left = leaf.not_valid_after_utc - now
        trusted = leaf.issuer == ca.subject
        found[variant] = (trusted, {"127.0.0.1", "::1", "10.0.1.10"} <= addresses, left)
    day = timedelta(days=1)
    assert [(t, n) for t, n, _ in found.values()] == [
        (True, True),
        (True, True),
        (True, True),
        (False, True),
        (True, False),
    ]
    assert found[Variant.EXPIRED][2] < -day
    assert timedelta(0) < found[Variant.EXPIRING][2] < day < found[Variant.VALID][2]
