"""Metrics of the agent itself: its notes, its endpoint, its process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from revip import __version__
from revip.api.exposition import Family, Sample, Type
from revip.api.http.server import HttpServer
from revip.api.metrics.facts import Facts, Samples, one
from revip.api.process import Process

COUNTER, GAUGE = Type.COUNTER, Type.GAUGE


def _http(value: Callable[[HttpServer], float]) -> Samples:
    return one(lambda facts: value(facts.http) if facts.http is not None else None)


def _process(value: Callable[[Process], float]) -> Samples:
    return one(lambda facts: value(facts.process) if facts.process is not None else None)


def _requests(facts: Facts) -> Iterator[Sample]:
    if facts.http is not None:
        for (path, code), count in facts.http.counts.requests.items():
            yield (path, str(code)), count


def _notifications(facts: Facts) -> Iterator[Sample]:
    for receiver, counts in facts.deliveries.items():
        yield (receiver, "delivered"), counts.delivered
        for why, count in counts.dropped.items():
            yield (receiver, why), count


def _build(facts: Facts) -> Iterator[Sample]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield (__version__, python, facts.status["node"]), 1


AGENT: tuple[Family[Facts], ...] = (
    Family(
        "revip_build_info",
        GAUGE,
        "Always 1; what runs here.",
        ("version", "python", "node"),
        _build,
    ),
    Family(
        "revip_notes_total",
        COUNTER,
        "Lines of the log by kind, see operations.md.",
        ("kind",),
        lambda facts: (((kind.value,), count) for kind, count in facts.notes.items()),
    ),
    Family(
        "revip_log_lines_dropped_total",
        COUNTER,
        "Lines of the log that nobody took from stderr.",
        (),
        one(lambda facts: facts.status.get("log_lines_dropped")),
    ),
    Family(
        "revip_history_failures_total",
        COUNTER,
        "Attempts to write the history's file that failed.",
        (),
        one(lambda facts: facts.history_failures),
    ),
    Family(
        "revip_history_dropped_total",
        COUNTER,
        "Events that are not in the history's file because the disk was too slow.",
        (),
        one(lambda facts: facts.history_dropped),
    ),
    Family(
        "revip_notifications_total",
        COUNTER,
        "Messages by what became of them: `delivered`; or lost, as the queue was `full`, the"
        " receiver `refused` it, or every attempt failed (`gave_up`).",
        ("receiver", "result"),
        _notifications,
    ),
    Family(
        "revip_notification_failures_total",
        COUNTER,
        "Attempts to deliver a message that failed.",
        ("receiver",),
        lambda facts: (((name,), counts.failed) for name, counts in facts.deliveries.items()),
    ),
    Family(
        "revip_notifications_waiting",
        GAUGE,
        "Messages that are still to be delivered.",
        ("receiver",),
        lambda facts: (((name,), counts.waiting) for name, counts in facts.deliveries.items()),
    ),
    Family(
        "revip_http_requests_total",
        COUNTER,
        "Requests to this endpoint.",
        ("path", "code"),
        _requests,
    ),
    Family(
        "revip_http_connections",
        GAUGE,
        "Connections to this endpoint.",
        (),
        _http(lambda http: http.connections),
    ),
    Family(
        "revip_http_streams",
        GAUGE,
        "Streams of events among them.",
        (),
        _http(lambda http: http.streams),
    ),
    Family(
        "revip_http_refused_total",
        COUNTER,
        "Requests with a wrong token, or with neither token nor certificate.",
        (),
        _http(lambda http: http.refused),
    ),
    Family(
        "revip_http_crowded_out_total",
        COUNTER,
        "Connections that gave way because there were too many.",
        (),
        _http(lambda http: http.counts.crowded_out),
    ),
    Family(
        "revip_http_slow_clients_total",
        COUNTER,
        "Clients that were dropped because they sent or took nothing for too long.",
        (),
        _http(lambda http: http.counts.slow),
    ),
    Family(
        "revip_loop_lag_seconds",
        GAUGE,
        "How late the event loop was at the last measurement, one each second.",
        (),
        one(lambda facts: facts.lag.last),
    ),
    Family(
        "revip_loop_lag_max_seconds",
        GAUGE,
        "The worst of the last minute.",
        (),
        one(lambda facts: facts.lag.worst),
    ),
    Family(
        "process_cpu_seconds_total",
        COUNTER,
        "Processor time of the agent, user and system.",
        (),
        _process(lambda process: process.cpu_seconds),
    ),
    Family(
        "process_resident_memory_bytes",
        GAUGE,
        "Resident memory of the agent.",
        (),
        _process(lambda process: process.resident),
    ),
    Family(
        "process_virtual_memory_bytes",
        GAUGE,
        "Virtual memory of the agent.",
        (),
        _process(lambda process: process.virtual),
    ),
    Family(
        "process_open_fds",
        GAUGE,
        "Open file descriptors.",
        (),
        _process(lambda process: process.open_files),
    ),
    Family(
        "process_max_fds",
        GAUGE,
        "How many there may be.",
        (),
        _process(lambda process: process.files_max),
    ),
    Family(
        "process_threads",
        GAUGE,
        "Threads.",
        (),
        _process(lambda process: process.threads),
    ),
    Family(
        "process_start_time_seconds",
        GAUGE,
        "When the agent was started, since the epoch.",
        (),
        _process(lambda process: process.started),
    ),
)
