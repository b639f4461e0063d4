"""What is where: a path and a snapshot in, an answer out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from revip.api import health
from revip.api.http.messages import PAST_MAX, EventStream, Refusal, Request, Response
from revip.api.http.page import page
from revip.model.notes import Event

METRICS = "text/plain; version=0.0.4; charset=utf-8"
JSON = "application/json"
FRESH = (("Cache-Control", "no-store"),)

OPEN = ("/livez", "/readyz", "/healthz", "/")
"""Answered to everybody: the kubelet's probes show no token, and the page holds nothing itself."""
PATHS = (*OPEN, "/metrics", "/api/v1/status", "/api/v1/events")
PAST = 200
"""Past events that a stream begins with, unless it is asked for another number."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the endpoint tells, each as of now."""

    status: Callable[[], Mapping[str, Any]]
    metrics: Callable[[], bytes]
    events: Callable[[int, int], Sequence[Event]]
    """The events after a number, at most the newest so many of them."""


def answer(told: Told, request: Request, *, trusted: bool) -> Response | EventStream:
    """Answer `request`; `trusted` may see why, and not only that.  Raises `Refusal`."""
    match request.path:
        case "/livez" | "/healthz":
            return _checks(health.liveness(told.status()), request, trusted=trusted)
        case "/readyz":
            return _checks(health.readiness(told.status()), request, trusted=trusted)
        case "/metrics":
            return Response(200, told.metrics(), METRICS, FRESH)
        case "/api/v1/status":
            content = json.dumps(told.status(), ensure_ascii=False, separators=(",", ":"))
            return Response(200, content.encode(errors="backslashreplace"), JSON, FRESH)
        case "/api/v1/events":
            return _stream(request)
        case "/":
            return page()
        case _:
            raise Refusal(404, f"nothing is here; there are {', '.join(PATHS)}")


def _checks(checks: list[health.Check], request: Request, *, trusted: bool) -> Response:
    verbose = trusted and "verbose" in request.query
    status = 200 if health.well(checks) else 503
    return Response(status, health.text(checks, verbose=verbose).encode(), headers=FRESH)


def _stream(request: Request) -> EventStream:
    last = request.headers.get("last-event-id", request.query.get("after", ""))
    most = request.query.get("last", str(PAST))
    if not (most.isascii() and most.isdigit() and len(most) < 9):
        raise Refusal(400, "last: want a whole number")
    if not last:
        return EventStream(0, min(int(most), PAST_MAX))
    if not (last.isascii() and last.isdigit() and len(last) < 20):
        raise Refusal(400, "Last-Event-ID: want the id of an event")
    return EventStream(int(last), PAST_MAX)
