"""Requests and answers as values, and what of a request is refused before anybody looks at it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

HEADERS_MAX = 64
"""Header fields of one request."""
TARGET_MAX = 1024
"""Octets of the request target; ours are far shorter."""
METHODS = ("GET", "HEAD")
PAST_MAX = 1000
"""Past events that a stream begins with at most."""

REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    414: "URI Too Long",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}
"""Of RFC 9110, section 15, and RFC 6585, section 5."""

TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """One request without a body."""

    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    """By lower-case name."""
    head: bool = False
    """Only the header of the answer is wanted (HEAD)."""


@dataclass(frozen=True, slots=True)
class Response:
    """One answer that is whole."""

    status: int
    content: bytes
    kind: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class EventStream:
    """An answer without end: the events after `after`, and each further one as it happens."""

    after: int
    most: int
    """How many past ones at most."""


class Refusal(Exception):  # noqa: N818 (an answer for the client, not a failure of ours)
    """The request is answered with `status` and one line."""

    def __init__(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        super().__init__(text)
        self.response = Response(status, f"{text}\n".encode(), TEXT, headers)


def request(method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> Request:
    """Return what was asked for; raises `Refusal`."""
    fields = list(headers)
    if len(fields) > HEADERS_MAX:
        raise Refusal(431, f"at most {HEADERS_MAX} header fields")
    if method.decode("ascii", "replace") not in METHODS:
        raise Refusal(405, "GET or HEAD: nothing can be changed here", ("Allow", "GET, HEAD"))
    if len(target) > TARGET_MAX:
        raise Refusal(414, f"at most {TARGET_MAX} octets of path and query")
    if not target.startswith(b"/"):
        raise Refusal(400, "the path must begin with /")
    path, _, query = target.decode("ascii", "replace").partition("?")
    known: dict[str, str] = {}
    for name, value in fields:
        known.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    return Request(path, _query(query), known, head=method == b"HEAD")


def _query(text: str) -> dict[str, str]:
    """Return names and values; ours need no percent-encoding, so that none is undone."""
    pairs = (item.partition("=") for item in text.split("&") if item)
    return {name: value for name, _, value in pairs}


def local(host: str) -> bool:
    """Whether `host`, a Host field, can only mean this machine by address.

    A page of somebody else's that has its name resolve to 127.0.0.1 (DNS rebinding) sends that
    name; it must not read what is here.
    """
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if name.lower() == "localhost":
        return True
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
