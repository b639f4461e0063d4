"""Three API servers are restarted one after the other while clients talk through the VIP."""

from __future__ import annotations

import time
from pathlib import Path

from bench.cases import Effort
from bench.rows import Bound, Row, Sheet
from bench.subjects import (
    DEFAULT,
    GENTLE,
    KEEPALIVED,
    KEEPALIVED_QUICK,
    SECOND,
    Keepalived,
    Revip,
    Running,
    Subject,
    alternately,
)
from bench.world import World, say
from lab import clients

SHOWN = 12
"""Failed requests that are told one by one."""
DOWN_SECONDS = 1.5
"""Between the end of an API server and the start of its successor."""
REQUEST_SECONDS = 2.0
"""After which a client gives a request up."""


def rolling(world: World, effort: Effort) -> list[Row]:
    """Restart all three, with and without the 3 s of red readiness before the port closes."""
    rows = []
    subjects: list[Subject] = [
        Revip(everywhere=True),
        Keepalived(KEEPALIVED, SECOND, real_servers=True),
    ]
    if effort.thorough:
        subjects.append(Keepalived(KEEPALIVED_QUICK, GENTLE, real_servers=True))
    ways: list[tuple[float, tuple[Bound, ...]]] = [(3.0, (Bound(DEFAULT, p99=0),))]
    if effort.thorough:
        ways.append((0.0, ()))
    for drain, bounds in ways:
        title = f"rolling restart, readiness red {drain:g} s before closing"
        failed = Sheet(f"{title}: failed requests", "requests", bounds=bounds, note=_NOTE)
        gap = Sheet(f"{title}: longest time without a good answer")

        def play(
            running: Running, drain: float = drain, failed: Sheet = failed, gap: Sheet = gap
        ) -> None:
            name = running.subject.name
            world.cluster.until_reachable()
            load = world.cluster.load(kept_rate=200, new_rate=20, timeout=REQUEST_SECONDS)
            _restart_all(world, drain)
            seen = load.finish()
            failed.add(name, seen.failures)
            gap.add(name, seen.gap_max_ms)
            say(f"rolling {drain:g} s: {name}: {seen.failures} of {seen.requests} {seen.by_error}")
            for line in _failures(load.path):
                say(f"  {line}")

        alternately(world, subjects, effort.rolling_rounds, 1, play)
        rows += [failed.row(), gap.row()]
    return rows


_NOTE = "200 requests/s over 4 kept connections and 20 new connections/s; down for 1.5 s each"


def _failures(path: Path) -> list[str]:
    """Return the failed requests in words, the first few, by seconds since the first request."""
    requests = clients.read_requests(path)
    begun = min((request.start for request in requests), default=0)
    return [
        f"{r.kind} {'again' if r.reused else 'first'} {r.error}:"
        f" {(r.start - begun) / 1e9:.3f} s to {(r.end - begun) / 1e9:.3f} s"
        for r in requests
        if r.error is not None
    ][:SHOWN]


def _restart_all(world: World, drain: float) -> None:
    for node in world.cluster.nodes:
        world.cluster.control(node).set("graceful-stop", drain_seconds=drain)
        world.cluster.servers[node].wait(15)
        time.sleep(DOWN_SECONDS)
        world.cluster.start(node)
        with world.watch(0.02) as watch:
            watch.until(world.everybody, 10.0)
        time.sleep(0.5)
