"""One virtual server: its backends, their judges, the operator's wishes, and the pool they make.

A sans-I/O machine in the manner of h11: events and the time go in, probe requests and notes come
out, and what should be in the kernel can be asked at any moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from revip.model.health import (
    ROUTE,
    Backend,
    BackendName,
    Finding,
    Health,
    ProbeResult,
    Verdict,
)
from revip.model.instants import NEVER, Instant
from revip.model.ipvs import Destination, VirtualServer
from revip.model.notes import Kind, Level, Note
from revip.model.spec import NodeName, VirtualServerSpec
from revip.planner.health import GOOD, Judge, JudgeEvent, ProbeFinished, State
from revip.planner.pool import Member, Pool, PoolMode, common_cause, pool, virtual_server
from revip.planner.telling import Seldom

MUTE = 5
"""Faults of ours in a row after which it is said that a backend cannot be asked."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Probe this backend now."""

    service: str
    backend: BackendName
    fresh: bool


@dataclass(slots=True)
class Entry:
    """One backend with its judge."""

    backend: Backend
    judge: Judge
    state: State


@dataclass(slots=True)
class Service:
    """The machine of one virtual server."""

    spec: VirtualServerSpec
    node: NodeName
    entries: dict[BackendName, Entry] = field(default_factory=dict)
    drained: dict[BackendName, Instant] = field(default_factory=dict)
    """Backends that the operator drains, and since when."""
    kernel: frozenset[Destination] = frozenset()
    """Destinations as last observed: what an unknown backend keeps (adoption)."""
    pool: Pool | None = None
    mode_since: Instant = NEVER
    cause: str | None = None
    elected: bool = False
    """Whether this node has won the election, where there is one."""
    informed: bool = False
    """Whether discovery has ever said which backends there are."""
    _seldom: Seldom = field(default_factory=Seldom)

    @property
    def directing(self) -> bool:
        """Whether this node is the director of this virtual server."""
        return self.elected if self.spec.vrrp is not None else self.spec.owner == self.node

    def inherit(self, old: Service, now: Instant) -> None:
        """Go on from `old`, which had another spec; verdicts hold if they are judged alike."""
        self.drained, self.informed = old.drained, old.informed
        self._seldom = old._seldom
        self.elected = old.elected and ballot(old.spec) == ballot(self.spec)
        if (old.spec.probe, old.spec.health) == (self.spec.probe, self.spec.health):
            self.entries = old.entries
            self.pool, self.mode_since, self.cause = old.pool, old.mode_since, old.cause
        elif old.informed:
            self.discover([entry.backend for entry in old.entries.values()], now)

    def discover(self, backends: Iterable[Backend], now: Instant) -> None:
        """Take in the backends there are; those that stay keep their verdicts."""
        self.informed = True
        wanted = {backend.name: backend for backend in backends}
        for name in self.entries.keys() - wanted.keys():
            del self.entries[name]
        self.drained = {name: at for name, at in self.drained.items() if name in wanted}
        for name, backend in wanted.items():
            known = self.entries.get(name)
            if known is not None and _same_endpoint(known.backend, backend):
                known.backend = backend
                continue
            judge = Judge(
                timing=self.spec.health,
                salt=f"{self.node}/{self.spec.name}/{name}",
                fresh_every=self.spec.probe.fresh_every,
            )
            self.entries[name] = Entry(backend, judge, judge.begin(now))

    def judge(
        self, name: BackendName, event: JudgeEvent, now: Instant
    ) -> tuple[list[Ask], list[Note], bool]:
        """Feed one event to the judge.

        Returns probes to start, a note if the verdict changed, and whether the pool may change.
        """
        entry = self.entries.get(name)
        if entry is None:
            return [], [], False  # taken out by discovery while the probe was under way
        before = entry.state.health
        if isinstance(event, ProbeFinished) and self._unreachable(entry, event.result):
            reason = f"{event.result.reason}, while others are reached"
            event = ProbeFinished(replace(event.result, finding=Finding.FAILED, reason=reason))
        entry.state, actions = entry.judge.step(entry.state, event, now)
        asks = [Ask(self.spec.name, name, action.fresh) for action in actions]
        after = entry.state.health
        if after.verdict is before.verdict:
            return asks, self._mute_note(entry, now), _weighty(before) != _weighty(after)
        note = self._verdict_note(entry.backend, before.verdict, after.verdict, now)
        return asks, [note], True

    def settle(self, now: Instant) -> list[Note]:
        """Work out the pool anew from verdicts, wishes and the observed table."""
        if not self.informed:
            return []
        before = self.pool
        self.pool = pool(self.spec, self.members(), self.kernel, now)
        self.cause = common_cause(self.members())
        notes: list[Note] = []
        if before is None or before.mode is not self.pool.mode:
            self.mode_since = now
            if before is not None or self.pool.mode in (PoolMode.PANIC, PoolMode.EMPTY):
                loud = self.pool.mode in (PoolMode.PANIC, PoolMode.EMPTY)
                level = Level.ERROR if loud else Level.INFO
                text = f"{self.pool.mode.value}: {self.pool.reason}"
                notes.append(Note(now, Kind.MODE, text, level, self.spec.name))
        if self.cause is not None and self._cause_is_news(now):
            notes.append(Note(now, Kind.COMMON_CAUSE, self.cause, Level.WARNING, self.spec.name))
        return notes

    def members(self) -> Sequence[Member]:
        """Return every backend with its health and whether the operator drains it."""
        return [
            Member(entry.backend, entry.state.health, name in self.drained, self.drained.get(name))
            for name, entry in self.entries.items()
        ]

    def desired(self) -> VirtualServer | None:
        """Return what should be in the kernel here; None where this node does not direct."""
        if not self.directing or self.pool is None:
            return None
        return virtual_server(self.spec, self.pool)

    def _unreachable(self, entry: Entry, result: ProbeResult) -> bool:
        """Whether a fault of ours is about this one backend, again and again.

        Where this host has no way to it while others answer, no client's packet gets there either.
        """
        if result.finding is not Finding.OURS or result.stage != ROUTE:
            return False
        again = entry.state.ours >= MUTE or entry.state.streaks.dead > 0
        others = (other.state.health for other in self.entries.values() if other is not entry)
        return again and any(
            other.verdict is Verdict.HEALTHY
            and other.last is not None
            and other.last.finding in GOOD
            for other in others
        )

    def _cause_is_news(self, now: Instant) -> bool:
        """Tell causes apart by what they are: their words may change with every answer."""
        last = next(iter(self.entries.values())).state.health.last
        return last is not None and self._seldom.may((last.finding, last.stage), now)

    def _mute_note(self, entry: Entry, now: Instant) -> list[Note]:
        """Say once that a fault of ours keeps a verdict as it is; it may be wrong for long."""
        backend, health = entry.backend, entry.state.health
        if entry.state.ours != MUTE or not self._seldom.may(backend.name, now):
            return []
        reason = health.last.reason if health.last else health.reason
        text = f"{backend} cannot be asked and stays {health.verdict.value}: {reason}"
        return [Note(now, Kind.FAULT, text, Level.WARNING, self.spec.name, backend.name)]

    def _verdict_note(
        self, backend: Backend, before: Verdict, after: Verdict, now: Instant
    ) -> Note:
        health = self.entries[backend.name].state.health
        return Note(
            now,
            Kind.VERDICT,
            f"{backend} is {after.value}, was {before.value}: {health.reason}",
            Level.INFO if after is Verdict.HEALTHY else Level.WARNING,
            self.spec.name,
            backend.name,
        )


def ballot(spec: VirtualServerSpec) -> tuple[object, ...]:
    """Return what an election is about: with another value it is another election."""
    return spec.vrrp, spec.address, spec.interface


def _weighty(health: Health) -> tuple[bool, bool, bool]:
    """Return what the pool looks at beside the verdict."""
    last = health.last
    ours = last is not None and last.finding is Finding.OURS
    return health.held_back_until is not None, ours, last is not None and last.finding in GOOD


def _same_endpoint(one: Backend, other: Backend) -> bool:
    return (one.address, one.port) == (other.address, other.port)


def discovery_note(name: str, before: set[Backend], after: set[Backend], now: Instant) -> Note:
    """Say which backends came and which went."""
    came = ", ".join(sorted(map(str, after - before))) or "none"
    left = ", ".join(sorted(map(str, before - after))) or "none"
    return Note(
        now, Kind.DISCOVERY, f"backends new or changed: {came}; gone: {left}", Level.INFO, name
    )


def adoption_note(server: VirtualServer, now: Instant) -> Note:
    """Say that a virtual server of ours was found in the kernel and goes on as it is."""
    held = ", ".join(sorted(map(str, server.destinations))) or "no destinations"
    return Note(now, Kind.ADOPTED, f"{server.key} is in the kernel already, with {held}: adopted")
