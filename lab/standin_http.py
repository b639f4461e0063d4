"""The stand-in's HTTP/1.1 (RFC 9112): the paths of kube-apiserver that balancers look at.

`Answers` is what all connections of a server share: the switches and the counters.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus

HEAD_MAX = 65536
"""Longest request head taken; Go's default is 1 MiB, clients of the lab need 200 bytes."""
TEXT = "text/plain; charset=utf-8"
STREAM_PERIOD = 0.2
"""Seconds between two lines of `/stream`."""
VERSION = {
    "major": "1",
    "minor": "31",
    "gitVersion": "v1.31.0",
    "gitCommit": "9edcffcde5595e8a5b1a35f88c421764e575afce",
    "gitTreeState": "clean",
    "buildDate": "2024-08-13T07:28:49Z",
    "goVersion": "go1.22.5",
    "compiler": "gc",
    "platform": "linux/amd64",
}
"""The shape of `/version`; the values are an example."""
CHECKS = ("ping", "log", "etcd", "informer-sync", "poststarthook/rbac/bootstrap-roles", "shutdown")
"""Some of the checks that `/readyz?verbose` of kube-apiserver lists."""


@dataclass(slots=True)
class Answers:
    """How requests are answered, and how many were."""

    name: str
    stuck: bool = False
    """Read nothing more, answer nothing more."""
    delay: float = 0.0
    """Seconds before each answer."""
    denied: int | None = None
    """401 or 403 instead of any other answer."""
    failed_check: str | None = None
    """The check that `/readyz` fails on."""
    closing: bool = False
    """After net/http's Shutdown: the connection ends with the answer."""
    requests: Counter[str] = field(default_factory=Counter)
    """Requests read, by path."""


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request."""

    method: str
    path: str
    query: frozenset[str]
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    body: bytes
    content_type: str = TEXT


class HttpConnection(asyncio.Protocol):
    """One client's connection: requests in order, one at a time."""

    def __init__(self, answers: Answers, siblings: set[HttpConnection]) -> None:
        self._answers = answers
        self._siblings = siblings
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._streaming: Request | None = None
        self._lines = 0
        self._has_asked = False
        self.lost = asyncio.Event()
        """Set once the connection is gone."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join the open connections of the server."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._siblings.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- the base's signature
        """Leave them again."""
        self._siblings.discard(self)
        self._stop_timer()
        self.lost.set()

    def data_received(self, data: bytes) -> None:
        """Take in bytes and answer what is complete."""
        self._received += data
        self.resume()

    def resume(self) -> None:
        """Go on with the requests that have arrived, unless the server is stuck."""
        while self._timer is None and not self._answers.stuck and self._is_open():
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                if len(self._received) > HEAD_MAX:
                    self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                return
            head = bytes(self._received[:end])
            del self._received[: end + 4]
            request = _parse(head)
            if request is None:
                self._refuse(HTTPStatus.BAD_REQUEST)
                return
            self._take(request)

    def finish(self) -> None:
        """End as Server.Shutdown does: idle at once, streams with their last chunk.

        A request in flight, or the first one of a new connection, is answered before that, with
        `Connection: close`.
        """
        if self._streaming is not None:
            self._stop_timer()
            self._write(b"0\r\n\r\n")
            self._close()
        elif self._timer is None and self._has_asked:
            self._close()

    def abort(self) -> None:
        """End as the kernel ends a killed process's connections: FIN, or RST if data is unread."""
        if self._transport is not None:
            self._transport.abort()

    def _take(self, request: Request) -> None:
        self._has_asked = True
        self._answers.requests[request.path] += 1
        if self._answers.delay:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._answers.delay, self._answer_late, request)
        else:
            self._answer(request)

    def _answer_late(self, request: Request) -> None:
        self._timer = None
        self._answer(request)
        self.resume()

    def _answer(self, request: Request) -> None:
        if request.path == "/stream" and request.method == "GET" and not self._answers.denied:
            self._begin_stream(request)
            return
        reply = _reply(request, self._answers, self._peer())
        close = self._answers.closing or not request.keep_alive
        body = b"" if request.method == "HEAD" else reply.body
        self._write(_head(reply.status, reply.content_type, len(reply.body), close) + body)
        if close:
            self._close()

    def _begin_stream(self, request: Request) -> None:
        self._streaming = request
        self._lines = 0
        self._write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Cache-Control: no-cache, private\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        self._next_line(asyncio.get_running_loop().time())

    def _next_line(self, due: float) -> None:
        if not self._is_open():
            return
        if not self._answers.stuck:
            line = f"{self._lines} {self._answers.name}\n".encode()
            self._lines += 1
            self._write(b"%x\r\n%b\r\n" % (len(line), line))
        loop = asyncio.get_running_loop()
        due = max(due + STREAM_PERIOD, loop.time())
        self._timer = loop.call_at(due, self._next_line, due)

    def _refuse(self, status: HTTPStatus) -> None:
        body = f"{status.value} {status.phrase}".encode()
        self._write(_head(status, TEXT, len(body), close=True) + body)
        self._close()

    def _peer(self) -> tuple[str, int]:
        peer = self._transport.get_extra_info("peername") if self._transport else None
        return (str(peer[0]), int(peer[1])) if peer else ("", 0)

    def _is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _parse(head: bytes) -> Request | None:
    """Return the request of `head`, or None if it is not HTTP/1.x or has a body."""
    first, *fields = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or words[2] not in ("HTTP/1.1", "HTTP/1.0"):
        return None
    headers = {}
    for line in fields:
        name, colon, value = line.partition(":")
        if not colon:
            return None
        headers[name.strip().lower()] = value.strip().lower()
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    wish = headers.get("connection", "keep-alive" if words[2] == "HTTP/1.1" else "close")
    path, _, query = words[1].partition("?")
    # A body is never read: the connection cannot go on behind it.
    keep_alive = "close" not in wish and not has_body
    return Request(words[0], path, frozenset(query.split("&")) - {""}, keep_alive)


def _reply(request: Request, answers: Answers, peer: tuple[str, int]) -> Reply:
    if answers.denied:
        return _status(answers.denied)
    if request.method not in ("GET", "HEAD"):
        return _status(405)
    match request.path:
        case "/livez" | "/healthz":
            return _health(request, None)
        case "/readyz":
            return _health(request, answers.failed_check)
        case "/version":
            return Reply(200, json.dumps(VERSION, indent=2).encode(), "application/json")
        case "/whoami":
            body = {"name": answers.name, "client": peer[0], "port": peer[1]}
            return Reply(200, json.dumps(body).encode(), "application/json")
        case _:
            return Reply(404, b"404 page not found\n")


def _health(request: Request, failed: str | None) -> Reply:
    """healthz.go: `ok`, or each check on a line; the reason of a failure is withheld."""
    excluded = {word.removeprefix("exclude=") for word in request.query if "exclude=" in word}
    if failed in excluded:
        failed = None
    if failed is None and "verbose" not in request.query:
        return Reply(200, b"ok")
    name = request.path.removeprefix("/")
    lines = [
        f"[-]{check} failed: reason withheld"
        if check == failed
        else f"[+]{check} {'excluded: ' if check in excluded else ''}ok"
        for check in CHECKS
    ]
    lines.append(f"{name} check {'passed' if failed is None else 'failed'}\n")
    return Reply(200 if failed is None else 500, "\n".join(lines).encode())


def _status(code: int) -> Reply:
    """Return a `Status` object of the Kubernetes API."""
    phrase = HTTPStatus(code).phrase
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": phrase,
        "reason": phrase.replace(" ", ""),
        "code": code,
    }
    return Reply(code, json.dumps(status).encode(), "application/json")


def _head(status: int, content_type: str, length: int, close: bool) -> bytes:
    return (
        f"HTTP/1.1 {int(status)} {HTTPStatus(status).phrase}\r\n"
        f"Cache-Control: no-cache, private\r\nContent-Type: {content_type}\r\n"
        f"X-Content-Type-Options: nosniff\r\nContent-Length: {length}\r\n"
        f"{'Connection: close' + chr(13) + chr(10) if close else ''}\r\n"
    ).encode()
