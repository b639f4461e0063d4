"""The HTTP endpoint: what it tells, and that whoever talks nonsense harms only himself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
from ipaddress import ip_address

import pytest

from revip.api.http import conversation, server
from revip.api.http.messages import HEADERS_MAX
from revip.api.http.server import CONNECTIONS, STREAMS
from revip.errors import TransientError
from revip.model.http import HttpSpec, Listen
from revip.model.ipvs import Port
from revip.model.notes import Kind
from tests.api.conftest import Endpoint, note, parsed, serving

# What is told ----------------------------------------------------------------------------------


async def test_the_status_is_the_snapshot(endpoint: Endpoint) -> None:
    answer = await endpoint.get("/api/v1/status")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json == json.loads(json.dumps(endpoint.snapshot))


async def test_metrics_are_in_the_text_format(endpoint: Endpoint) -> None:
    answer = await endpoint.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.body == b"up 1\n"


@pytest.mark.parametrize("path", ["/livez", "/healthz", "/readyz"])
async def test_an_agent_that_does_its_part_is_live_and_ready(endpoint: Endpoint, path: str) -> None:
    answer = await endpoint.get(path)
    assert (answer.status, answer.body) == (200, b"ok\n")


async def test_a_difference_is_not_ready_but_live_and_verbose_tells_which(
    endpoint: Endpoint,
) -> None:
    endpoint.snapshot |= {"in_sync": False, "pending": ["add 10.0.1.19:6443"]}
    answer = await endpoint.get("/readyz")
    assert answer.status == 503
    assert b"[-]table failed\n" in answer.body
    answer = await endpoint.get("/readyz?verbose")
    assert b"[-]table failed: differs from what it should be: add 10.0.1.19:6443" in answer.body
    assert (await endpoint.get("/livez")).status == 200


async def test_a_kernel_that_refuses_is_no_reason_to_kill_the_agent(endpoint: Endpoint) -> None:
    endpoint.snapshot["kernel"]["error"] = "write TCP: not permitted"
    endpoint.snapshot["observed_ms_ago"] = 600_000
    assert (await endpoint.get("/livez")).status == 200
    assert (await endpoint.get("/readyz")).status == 503


async def test_a_reconciler_that_is_stuck_is_not_live(endpoint: Endpoint) -> None:
    endpoint.snapshot["observed_ms_ago"] = 60_000
    answer = await endpoint.get("/healthz?verbose")
    assert answer.status == 503
    assert b"has not been looked at for 15 s" in answer.body


async def test_head_answers_as_get_without_the_content(endpoint: Endpoint) -> None:
    get, head = await endpoint.get("/metrics"), await endpoint.get("/metrics", method="HEAD")
    assert head.status == get.status
    assert head.headers == get.headers
    assert head.body == b""
    assert (await endpoint.get("/nothing", method="HEAD")).body == b""
    assert (await endpoint.get("/api/v1/events", method="HEAD")).status == 200


async def test_a_connection_serves_several_requests(endpoint: Endpoint) -> None:
    one = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    said = await endpoint.send(one + one + last)
    assert said.count(b"HTTP/1.1 200") == 3


async def test_http_1_0_is_answered(endpoint: Endpoint) -> None:
    answer = parsed(await endpoint.send(b"GET /livez HTTP/1.0\r\n\r\n"))
    assert (answer.status, answer.body) == (200, b"ok\n")


# Nonsense --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "/../etc/passwd",
        "/api/v1/../../etc/passwd",
        "/%2e%2e/etc/passwd",
        "/%2fetc%2fpasswd",
        "//etc/passwd",
        "/metrics/",
        "/metrics/..",
        "/metrics;a=b",
        "/metrics%00",
        "/METRICS",
        "/api",
        "/index.html",
        "/.git/config",
        "/page/../status.py",
        "/..\\..\\windows",
    ],
)
async def test_no_path_leads_anywhere_else(endpoint: Endpoint, target: str) -> None:
    answer = await endpoint.get(target)
    assert answer.status == 404
    assert answer.body.startswith(b"nothing is here; there are /livez")


@pytest.mark.parametrize(
    "octets",
    [
        b"GET http://localhost/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /metrics\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nbad header\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64 + b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\r\n\r\n\r\n",
    ],
)
async def test_malformed_requests_are_answered_with_400(endpoint: Endpoint, octets: bytes) -> None:
    answer = parsed(await endpoint.send(octets))
    assert answer.status == 400
    assert (await endpoint.get("/livez")).status == 200


async def test_another_version_of_http_is_refused(endpoint: Endpoint) -> None:
    said = await endpoint.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert parsed(said).status in (400, 405, 505)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
async def test_nothing_can_be_changed(endpoint: Endpoint, method: str) -> None:
    answer = await endpoint.get("/api/v1/status", method=method)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"


async def test_a_body_is_refused_and_the_answer_arrives(endpoint: Endpoint) -> None:
    head = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n"
    assert parsed(await endpoint.send(head + b"x" * 50_000)).status == 413
    post = head.replace(b"GET", b"POST")
    assert parsed(await endpoint.send(post + b"x" * 50_000)).status == 405


@pytest.mark.parametrize("size", [13_000, 100_000, 4_000_000])
async def test_a_huge_header_is_refused(endpoint: Endpoint, size: int) -> None:
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * size + b"\r\n\r\n"
    said = await endpoint.send(head)
    assert not said or parsed(said).status == 431
    assert (await endpoint.get("/livez")).status == 200


async def test_a_long_target_is_refused(endpoint: Endpoint) -> None:
    assert (await endpoint.get("/" + "a" * 2000)).status == 414


async def test_many_headers_are_refused(endpoint: Endpoint) -> None:
    headers = [f"X-{n}: 1" for n in range(HEADERS_MAX + 1)]
    assert (await endpoint.get("/livez", *headers)).status == 431


async def test_a_name_that_resolves_to_this_host_reads_nothing(endpoint: Endpoint) -> None:
    for host in ("evil.example", "evil.example:2112", "localhost.evil.example"):
        answer = await endpoint.get("/api/v1/status", host=host)
        assert answer.status == 421
    for host in ("127.0.0.1:2112", "[::1]:2112", "[::1]", "localhost:9", "LOCALHOST"):
        assert (await endpoint.get("/api/v1/status", host=host)).status == 200


# Slow and many clients --------------------------------------------------------------------------


async def test_a_request_that_dribbles_is_dropped_and_counted(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "REQUEST_SECONDS", 0.2)
    reader, writer = await endpoint.connect()
    with contextlib.suppress(ConnectionError):
        for octet in b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n":
            writer.write(bytes([octet]))
            await asyncio.sleep(0.02)
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    assert endpoint.server.counts.slow == 1


async def test_a_client_that_says_nothing_is_let_go(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "IDLE_SECONDS", 0.1)
    reader, _ = await endpoint.connect()
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""


async def test_a_client_that_does_not_read_is_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conversation, "WRITE_SECONDS", 0.2)
    async with serving(metrics=lambda: b"x" * 30_000_000) as endpoint:
        _, writer = await endpoint.connect()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(5):
            while not endpoint.server.counts.slow:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await endpoint.get("/livez")).status == 200


@pytest.mark.slow
async def test_a_thousand_held_connections_do_not_keep_others_out(endpoint: Endpoint) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1000
    if hard != resource.RLIM_INFINITY and hard < 2 * wanted + 200:
        wanted = (hard - 200) // 2
    limit = hard if hard == resource.RLIM_INFINITY else max(soft, 2 * wanted + 200)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096) if limit < 0 else limit, hard))
    try:
        for _ in range(wanted):
            await endpoint.connect()
        assert endpoint.server.connections <= CONNECTIONS
        assert (await endpoint.get("/metrics")).status == 200
        assert endpoint.server.counts.crowded_out >= wanted - CONNECTIONS
        for writer in endpoint.open:
            writer.transport.abort()
        await asyncio.sleep(0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_flood_of_requests_is_paced(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "BURST_SECONDS", 0.0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    one = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    said = await endpoint.send(one * 19 + last)
    assert said.count(b"HTTP/1.1 200") == 20
    assert loop.time() - began > 0.3


# Events ----------------------------------------------------------------------------------------


async def opened(endpoint: Endpoint, target: str, *headers: str) -> asyncio.StreamReader:
    reader, writer = await endpoint.connect()
    lines = [f"GET {target} HTTP/1.1", "Host: localhost", *headers, "", ""]
    writer.write("\r\n".join(lines).encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"200 OK" in head
    assert b"text/event-stream" in head
    return reader


async def heard(reader: asyncio.StreamReader, count: int) -> list[tuple[int, str]]:
    """Return the next events: their number and their text."""
    found: list[tuple[int, str]] = []
    async with asyncio.timeout(5):
        while len(found) < count:
            line = (await reader.readline()).decode()
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                found.append((event["id"], event["text"]))
    return found


async def test_a_stream_begins_with_the_past_and_goes_on_as_it_happens(
    endpoint: Endpoint,
) -> None:
    reader = await opened(endpoint, "/api/v1/events")
    past = await heard(reader, 2)
    assert [text for _, text in past] == ["n2 is healthy", "n2 is unhealthy"]
    endpoint.history.add(endpoint.history.events[-1].time, note("n2 is back"))
    assert await heard(reader, 1) == [(past[-1][0] + 1, "n2 is back")]


async def test_a_stream_that_was_cut_goes_on_where_it_was(endpoint: Endpoint) -> None:
    (first, _), (second, _) = await heard(await opened(endpoint, "/api/v1/events"), 2)
    again = await opened(endpoint, "/api/v1/events", f"Last-Event-ID: {first}")
    assert await heard(again, 1) == [(second, "n2 is unhealthy")]
    none = await opened(endpoint, f"/api/v1/events?after={second}")
    endpoint.history.add(endpoint.history.events[-1].time, note("news"))
    assert await heard(none, 1) == [(second + 1, "news")]


async def test_the_number_of_past_events_can_be_chosen(endpoint: Endpoint) -> None:
    reader = await opened(endpoint, "/api/v1/events?last=1")
    assert [text for _, text in await heard(reader, 1)] == ["n2 is unhealthy"]
    reader = await opened(endpoint, "/api/v1/events?last=0")
    endpoint.history.add(endpoint.history.events[-1].time, note("news"))
    assert [text for _, text in await heard(reader, 1)] == ["news"]


async def test_a_burst_of_events_arrives_whole(endpoint: Endpoint) -> None:
    reader = await opened(endpoint, "/api/v1/events?last=0")
    for number in range(200):
        endpoint.history.add(endpoint.history.events[-1].time, note(str(number)))
    assert [text for _, text in await heard(reader, 200)] == [str(n) for n in range(200)]


@pytest.mark.parametrize("target", ["?last=x", "?last=-1", "?after=1e3", "?last=9999999999"])
async def test_nonsense_about_the_past_is_refused(endpoint: Endpoint, target: str) -> None:
    assert (await endpoint.get(f"/api/v1/events{target}")).status == 400


async def test_a_text_of_several_lines_does_not_break_the_stream(endpoint: Endpoint) -> None:
    reader = await opened(endpoint, "/api/v1/events?last=0")
    text = "one\n\ndata: two\r\nid: 3"
    endpoint.history.add(endpoint.history.events[-1].time, note(text))
    assert [text for _, text in await heard(reader, 1)] == [text]


async def test_streams_are_bounded_and_a_dead_one_makes_room(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "ALIVE_SECONDS", 0.05)
    for _ in range(STREAMS):
        await opened(endpoint, "/api/v1/events")
    refused = await endpoint.get("/api/v1/events")
    assert (refused.status, refused.headers["retry-after"]) == (503, "5")
    endpoint.open[0].transport.abort()
    async with asyncio.timeout(5):
        while endpoint.server.streams == STREAMS:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await opened(endpoint, "/api/v1/events")


# Its own faults --------------------------------------------------------------------------------


async def test_a_fault_of_ours_is_answered_counted_noted_once_and_outlived() -> None:
    def broken() -> bytes:
        raise ZeroDivisionError("oops")

    async with serving(metrics=broken) as endpoint:
        for _ in range(3):
            assert (await endpoint.get("/metrics")).status == 500
        assert (await endpoint.get("/livez")).status == 200
        assert endpoint.server.counts.faults == 3
        assert [each.kind for each in endpoint.notes] == [Kind.FAULT]


async def test_a_port_that_is_taken_says_whose_mend_it_is() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        spec = HttpSpec(Listen(ip_address("127.0.0.1"), Port(port)))
        with pytest.raises(ExceptionGroup) as caught:
            async with serving(spec):
                pass
        (error,) = caught.value.exceptions
        assert isinstance(error, TransientError)
        assert str(error) == (
            f"cannot listen on 127.0.0.1:{port}: Address already in use:"
            " set http.listen to another port, or to off"
        )


async def test_requests_are_counted_by_known_paths_only(endpoint: Endpoint) -> None:
    for target in ("/livez", "/a", "/b", "/api/v1/status?x=1"):
        await endpoint.get(target)
    counted = dict(endpoint.server.counts.requests)
    assert counted == {("/livez", 200): 1, ("other", 404): 2, ("/api/v1/status", 200): 1}
