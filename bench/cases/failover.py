"""The director stops, is killed, or its host vanishes: who answers next, and what is lost."""

from __future__ import annotations

import itertools
import signal
import time
from dataclasses import dataclass, field

from lab.net import VIP
from lab.scenarios.announcing import finished, opened
from lab.scenarios.failover import Vigil

from bench.cases import Effort
from bench.group import HEIR, LEADER, Group, groups, until
from bench.rows import Bound, Row, Sheet
from bench.subjects import DEFAULT, FAST
from bench.world import World, say
from lab import clients, vigil

BLOCK = 5
"""Rounds of one start of a group."""
QUICK_ROUNDS = 2
STREAMS = 8
LIMIT = 6.0
"""Seconds that the consequences of a fault are watched for: more than the kernel's lifetime."""
PLANNED_LIMIT = 2.5
BLINK_NS = 100 * vigil.MS
"""A shorter silence is the guest's only processor, busy elsewhere."""


def failover(world: World, effort: Effort) -> list[Row]:
    """Let each group suffer the three faults, in blocks that take turns."""
    sheets = _Sheets()
    rounds = effort.rounds if effort.thorough else QUICK_ROUNDS
    done = 0
    while done < rounds:
        count = min(BLOCK, rounds - done)
        for group in groups(world):
            world.revive()
            group.enter()
            try:
                chapter = _Chapter(world, group, sheets)
                chapter.ready()
                for _ in range(count):
                    chapter.planned()
                    chapter.killed()
                    chapter.host_gone()
                    say(f"{group.name}: {sheets.newest(group.name)}")
            finally:
                group.leave()
        done += count
    return sheets.rows()


def _sheet(what: str, *bounds: Bound, unit: str = "ms", note: str = "") -> Sheet:
    return Sheet(what, unit, bounds=bounds, limit=LIMIT, note=note)


@dataclass(frozen=True, slots=True)
class _Sheets:
    """One for each figure."""

    pinged: Sheet = field(
        default_factory=lambda: _sheet(
            "planned hand-over: longest gap in a ping each millisecond",
            Bound(DEFAULT, p99=50),
            Bound(FAST, p99=50),
        )
    )
    failed: Sheet = field(
        default_factory=lambda: _sheet(
            "planned hand-over: failed requests",
            Bound(DEFAULT, p99=0),
            Bound(FAST, p99=0),
            unit="requests",
            note="20 requests/s over 4 kept connections and 10 new connections/s",
        )
    )
    planned: Sheet = field(
        default_factory=lambda: _sheet(
            f"planned hand-over: lost of {STREAMS} streams",
            Bound(DEFAULT, p99=0),
            Bound(FAST, p99=0),
            unit="streams",
        )
    )
    killed: Sheet = field(
        default_factory=lambda: _sheet(
            "killed with -9 → new connections open again", Bound(FAST, p99=450)
        )
    )
    both: Sheet = field(
        default_factory=lambda: _sheet(
            "killed with -9: for how long two nodes answer", Bound(DEFAULT, p99=4500)
        )
    )
    lost: Sheet = field(
        default_factory=lambda: _sheet(
            f"killed with -9: lost of {STREAMS} streams",
            Bound(DEFAULT, p99=0),
            Bound(FAST, p99=0),
            unit="streams",
        )
    )
    gone: Sheet = field(
        default_factory=lambda: _sheet("host gone → somebody answers again", Bound(FAST, p99=450))
    )
    opened: Sheet = field(
        default_factory=lambda: _sheet("host gone → the first new connection opens")
    )
    others: Sheet = field(
        default_factory=lambda: _sheet(
            f"host gone: lost of {STREAMS} streams, beside those that it served",
            Bound(DEFAULT, p99=0),
            Bound(FAST, p99=0),
            unit="streams",
        )
    )

    def all(self) -> tuple[Sheet, ...]:
        """Return them in the order of the story."""
        return (
            *(self.pinged, self.failed, self.planned),
            *(self.killed, self.both, self.lost),
            *(self.gone, self.opened, self.others),
        )

    def rows(self) -> list[Row]:
        """Return what was collected."""
        return [sheet.row() for sheet in self.all()]

    def newest(self, name: str) -> str:
        """Return the newest round in one line."""
        values = [sheet.samples[name][-1] for sheet in self.all()]
        return " ".join("late" if value is None else f"{value:.0f}" for value in values)


class _Chapter:
    """What happens to one group in one round."""

    def __init__(self, world: World, group: Group, sheets: _Sheets) -> None:
        self._world, self._group, self._sheets = world, group, sheets

    def ready(self) -> None:
        """Wait until the leader leads and new connections reach every API server."""
        self._world.cluster.until_reachable()
        with Looking(self._world) as looking:
            until(lambda: looking.vigil.recently() == {LEADER}, f"{LEADER} alone answers")
        cluster = self._world.cluster
        both = (LEADER, HEIR) if self._group.name.startswith("keepalived") else (LEADER,)
        until(
            lambda: all(cluster.weights(node) == cluster.everybody() for node in both),
            "the tables of who directs, or may, are full",
        )

    def planned(self) -> None:
        """Ask the leader's balancer to end."""
        world, group, sheets = self._world, self._group, self._sheets
        with Looking(world, streams=True, ping=True) as looking:
            load = world.cluster.load(kept_rate=20, new_rate=10, timeout=2.0)
            time.sleep(0.5)
            at = time.monotonic_ns()
            group.stop(LEADER, signal.SIGTERM)
            time.sleep(PLANNED_LIMIT)
            seen = load.finish()
        until_ns = at + int(PLANNED_LIMIT * 1e9)
        gap = vigil.longest_gap(vigil.read(looking.pings), at, until_ns)
        sheets.pinged.add(group.name, gap)
        sheets.failed.add(group.name, seen.failures)
        sheets.planned.add(group.name, len(looking.lost))
        self._again()

    def killed(self) -> None:
        """Kill every process of the leader's balancer."""
        group, sheets = self._group, self._sheets
        with Looking(self._world, streams=True) as looking:
            at = time.monotonic_ns()
            group.stop(LEADER, signal.SIGKILL)
            time.sleep(LIMIT)
            end = time.monotonic_ns()
        sheets.killed.add(group.name, vigil.doors(looking.knocks, at, end).first)
        doubles = vigil.within(vigil.overlaps(looking.seen), at, end)
        for_ever = any(both.end > end - 200 * vigil.MS for both in doubles)
        sheets.both.add(group.name, None if for_ever else vigil.longest(doubles))
        sheets.lost.add(group.name, len(looking.lost))
        self._again()

    def host_gone(self) -> None:
        """Let the leader's host vanish, with all that runs on it."""
        world, group, sheets = self._world, self._group, self._sheets
        with Looking(world, streams=True) as looking:
            at = time.monotonic_ns()
            world.lab.network.cut(LEADER)
            group.stop(LEADER, signal.SIGKILL)
            world.cluster.kill(LEADER)
            time.sleep(LIMIT)
            end = time.monotonic_ns()
        outages = vigil.within(vigil.outages(looking.seen, BLINK_NS), at, end)
        answered = not any(outage.end > end - 200 * vigil.MS for outage in outages)
        sheets.gone.add(group.name, vigil.longest(outages) if answered else None)
        sheets.opened.add(group.name, vigil.doors(looking.knocks, at, end).first)
        others = [stream for stream in looking.lost if stream.backend != LEADER]
        sheets.others.add(group.name, len(others))
        group.ended(LEADER)
        world.lab.network.mend(LEADER)
        world.cluster.start(LEADER)
        group.start(LEADER)
        self.ready()

    def _again(self) -> None:
        self._group.ended(LEADER)
        self._group.start(LEADER)
        self.ready()


class Looking:
    """Observers at work for a block, and streams; what they saw afterwards."""

    _numbers = itertools.count()

    def __init__(self, world: World, *, streams: bool = False, ping: bool = False) -> None:
        self._world, self._with_streams, self._with_ping = world, streams, ping
        self.pings = world.folder / f"pings-{next(self._numbers)}"
        self.vigil: Vigil
        self.seen: list[vigil.Seen] = []
        self.knocks: list[vigil.Seen] = []
        self.lost: list[clients.Stream] = []

    def __enter__(self) -> Looking:
        """Start them, and wait until they see."""
        cluster = self._world.cluster
        self.vigil = Vigil(cluster)
        if self._with_streams:
            self._held = cluster.streams(STREAMS)
            until(lambda: opened(self._held.path) == STREAMS, "the streams are open")
        if self._with_ping:
            self._pinging = self._world.lab.spawn("c1", vigil.ping, self.pings, VIP)
            until(lambda: len(vigil.read(self.pings)) > 20, "pings are answered")
        return self

    def __exit__(self, *_: object) -> None:
        """End them, and collect what they saw."""
        if self._with_ping:
            self._pinging.kill(15)
            self._pinging.wait(5)
        self.seen = self.vigil.end()
        self.knocks = vigil.read(self.vigil.doors)
        if self._with_streams:
            streams = finished(self._held.process, self._held.path)
            self.lost = [stream for stream in streams if stream.fate != "alive"]
            if self.lost:
                say("lost: " + ", ".join(f"{one.backend} {one.fate}" for one in self.lost))
