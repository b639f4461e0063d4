"""What metrics are rendered from, and the shapes that their samples come in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from revip.api.exposition import Sample
from revip.api.http.server import HttpServer
from revip.api.process import LoopLag, Process
from revip.api.tally import Tally
from revip.model.health import BackendName
from revip.model.notes import Kind
from revip.planner.measures import Deliveries, Histogram, ProbeCounts

Found = dict[str, Any]
"""A virtual server or a backend of the status."""
Samples = Callable[["Facts"], Iterable[Sample]]


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known at one moment."""

    status: Mapping[str, Any]
    """`revip.status/v1`."""
    now: float
    """Seconds since the epoch."""
    process: Process | None = None
    probes: Mapping[tuple[str, BackendName], ProbeCounts] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    lag: LoopLag = field(default_factory=LoopLag)
    kernel: Mapping[str, Histogram] = field(default_factory=dict)
    """How long calls took, by call."""
    refusals: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """By call and errno."""
    notes: Mapping[Kind, int] = field(default_factory=dict)
    history_failures: int = 0
    history_dropped: int = 0
    http: HttpServer | None = None
    deliveries: Mapping[str, Deliveries] = field(default_factory=dict)
    """Of notifications, by receiver: `webhook`, `command`."""


def one(value: Callable[[Facts], float | None]) -> Samples:
    """Return the samples of a metric without labels; None is no sample."""

    def samples(facts: Facts) -> Iterator[Sample]:
        found = value(facts)
        if found is not None:
            yield (), found

    return samples


def servers(value: Callable[[Found], float | None]) -> Samples:
    """Return the samples of a metric of virtual servers; None is no sample."""

    def samples(facts: Facts) -> Iterator[Sample]:
        for server in facts.status["virtual_servers"]:
            found = value(server)
            if found is not None:
                yield (server["name"],), found

    return samples


def each(value: Callable[[Found], float | None]) -> Samples:
    """Return the samples of a metric of backends; None is no sample."""

    def samples(facts: Facts) -> Iterator[Sample]:
        for server, backend in backends(facts):
            found = value(backend)
            if found is not None:
                yield (server["name"], backend["name"]), found

    return samples


def backends(facts: Facts) -> Iterator[tuple[Found, Found]]:
    """Return each virtual server with each of its backends."""
    for server in facts.status["virtual_servers"]:
        for backend in server["backends"]:
            yield server, backend
