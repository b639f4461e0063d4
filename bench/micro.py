"""The pure core, timed on this machine: judge, pool policy, table diff; microseconds."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address

from bench.rows import Row, Sheet
from revip.model.health import Backend, BackendName, Finding, Health, ProbeResult, Verdict
from revip.model.health import HealthTiming as Timing
from revip.model.instants import Instant
from revip.model.ipvs import Destination, Port, ServiceKey, VirtualServer, table
from revip.model.spec import LinkName, NodeName, VirtualServerSpec
from revip.planner.diff import diff
from revip.planner.health import Judge, ProbeFinished, TimerFired
from revip.planner.pool import Member, pool

SIZES = (3, 30, 300)
REPEATS = 7
SECONDS = 0.05
"""Of each repeat."""
NOW = Instant(1_000_000)
VIP = IPv4Address("10.0.1.10")
PORT = Port(6443)


def micro() -> list[Row]:
    """Return one row for each part of a decision; cells are by number of backends."""
    judging = Sheet("judge: one probe, asked and weighed", "µs", contest=False)
    pooling = Sheet("pool policy", "µs", contest=False)
    equal = Sheet("diff of equal tables", "µs", contest=False)
    one = Sheet("diff with one backend missing", "µs", contest=False)
    _time(judging, "1 backend", _judge())
    for size in SIZES:
        name = f"{size} backends"
        spec, members, server = _pool(size)
        decided = server.destinations
        _time(pooling, name, partial(pool, spec, members, decided, NOW))
        # Equal, but not the same object: what a dump of the kernel gives.
        twin = _pool(size)[2]
        short = replace(twin, destinations=frozenset(sorted(twin.destinations, key=str)[1:]))
        _time(equal, name, partial(diff, table([server]), table([twin])))
        _time(one, name, partial(diff, table([server]), table([short])))
    return [sheet.row() for sheet in (judging, pooling, equal, one)]


def _time(sheet: Sheet, name: str, act: Callable[[], object]) -> None:
    timer = timeit.Timer(act)
    once = max(1e-7, timer.timeit(10) / 10)
    number = max(1, round(SECONDS / once))
    for _ in range(REPEATS):
        sheet.add(name, timer.timeit(number) / number * 1e6)


def _judge() -> Callable[[], object]:
    judge = Judge(Timing(), "n1/api/n2")
    ready = ProbeFinished(ProbeResult(Finding.READY, "HTTP 200"))
    state = judge.begin(NOW)
    state, _ = judge.step(state, TimerFired(), NOW)

    def step() -> None:
        waiting, _ = judge.step(state, ready, NOW)
        judge.step(waiting, TimerFired(), judge.next_wakeup(waiting))

    return step


def _pool(size: int) -> tuple[VirtualServerSpec, list[Member], VirtualServer]:
    backends = tuple(
        Backend(BackendName(f"n{i}"), IPv4Address(int(VIP) + 1 + i), PORT) for i in range(size)
    )
    health = Health(Verdict.HEALTHY, NOW, "HTTP 200", ProbeResult(Finding.READY, "HTTP 200"))
    spec = VirtualServerSpec("api", VIP, PORT, LinkName("eth0"), NodeName("n1"), backends)
    members = [Member(backend, health) for backend in backends]
    destinations = frozenset(Destination(backend.address, PORT, 1) for backend in backends)
    return spec, members, VirtualServer(ServiceKey(VIP, PORT), destinations=destinations)
