"""A world in virtual time: modelled backends, their judges and one pool, no I/O.

Every event is checked for what must never be: two probes at once, a wake-up that is already due,
a storm of probes, a verdict changed by a fault of ours, a return before the end of a hold, an
emptied pool.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address
from itertools import count

from revip.model.health import Backend, BackendName, Finding, HealthTiming, ProbeResult, Verdict
from revip.model.instants import NEVER, Instant, Span
from revip.model.ipvs import Destination, Port
from revip.model.spec import LinkName, NodeName, VirtualServerSpec
from revip.planner.health import (
    GOOD,
    Asking,
    AskNow,
    ConnectionLost,
    Judge,
    JudgeEvent,
    ProbeFinished,
    State,
    TimerFired,
)
from revip.planner.pool import Member, PoolMode, pool

START = Instant(1_000_000)


class Mood(Enum):
    """How a modelled backend behaves."""

    UP = "up"
    UNREADY = "not ready"
    REFUSING = "refusing"
    HANGING = "hanging"
    UNREACHABLE = "a fault of ours"


DEAD = {Mood.REFUSING, Mood.HANGING}


@dataclass(frozen=True)
class History:
    """How one backend behaves from `START` on; the last mood lasts for ever."""

    moods: tuple[tuple[int, Mood], ...]
    """For how many milliseconds, which mood."""
    last: Mood
    latencies: tuple[int, ...]
    """In thousandths of the timeout, used in turn."""
    hangups: tuple[int, ...]
    """Milliseconds after `START` at which an idle connection is closed."""
    rude: bool
    """Hangs up after every answer."""
    drained: bool = False
    """The operator drains it all the time."""

    def changes(self) -> Iterator[tuple[Instant, Mood]]:
        at = START
        for length, mood in self.moods:
            yield at, mood
            at = Instant(at + length)
        yield at, self.last

    @property
    def settled(self) -> Instant:
        """When the last mood begins."""
        return Instant(START + sum(length for length, _ in self.moods))


@dataclass
class Patient:
    """One backend with its judge, and the probe under way."""

    backend: Backend
    history: History
    judge: Judge
    state: State
    mood: Mood = Mood.UP
    probe: int | None = None
    """Serial number of the probe under way."""
    held: bool = False
    asked: deque[Instant] = field(default_factory=deque)


Happening = Mood | tuple[int, ProbeResult] | ConnectionLost | TimerFired


class World:
    """Judges and policy in virtual time; checks at every event what must never be."""

    def __init__(self, timing: HealthTiming, threshold: int, histories: list[History]) -> None:
        self.timing = timing
        self.now = START
        self.queue: list[tuple[Instant, int, int, Happening]] = []
        self.serial = count()
        self.patients = [self._patient(n, history) for n, history in enumerate(histories, 1)]
        self.spec = VirtualServerSpec(
            name="kube",
            address=IPv4Address("10.0.1.100"),
            port=Port(6443),
            interface=LinkName("eth0"),
            owner=NodeName("n1"),
            backends=(),
            panic_threshold=threshold,
            drain_deadline=Span(2000),
        )
        self.table: frozenset[Destination] = frozenset()

    def _patient(self, number: int, history: History) -> Patient:
        name = BackendName(f"n{number}")
        backend = Backend(name, IPv4Address(f"10.0.1.{number}"), Port(6443), weight=number)
        judge = Judge(self.timing, f"n1/{name}", fresh_every=5)
        for at, mood in history.changes():
            self.schedule(at, number, mood)
        for after in history.hangups:
            self.schedule(Instant(START + after), number, ConnectionLost("closed by peer"))
        self.schedule(START, number, TimerFired())
        return Patient(backend, history, judge, judge.begin(START))

    def schedule(self, at: Instant, number: int, happening: Happening) -> None:
        heapq.heappush(self.queue, (at, next(self.serial), number, happening))

    def run(self, until: Instant) -> None:
        """Let everything happen up to and including `until`."""
        while self.queue[0][0] <= until:
            self.now, _, number, happening = heapq.heappop(self.queue)
            self._happen(self.patients[number - 1], number, happening)
        self.now = until
        self._settle()

    def _happen(self, patient: Patient, number: int, happening: Happening) -> None:
        match happening:
            case Mood():
                self._change(patient, number, happening)
            case (serial, result):
                if serial == patient.probe:
                    patient.probe = None
                    patient.held = patient.held or result.finding is Finding.READY
                    self._feed(patient, number, ProbeFinished(result))
                    if patient.history.rude:
                        self._lose(patient, number)
            case ConnectionLost():
                self._lose(patient, number)
            case TimerFired():
                self._feed(patient, number, happening)

    def _change(self, patient: Patient, number: int, mood: Mood) -> None:
        patient.mood = mood
        if mood is Mood.REFUSING:  # the process died: the kernel resets what it had
            if patient.probe is not None:
                broken = ProbeResult(Finding.FAILED, "reset by peer")
                self.schedule(self.now, number, (patient.probe, broken))
            self._lose(patient, number)
        elif mood is Mood.HANGING and patient.probe is not None:
            serial = patient.probe = next(self.serial)  # its answer is lost
            late = ProbeResult(Finding.FAILED, "no answer")
            self.schedule(Instant(self.now + self.timing.timeout), number, (serial, late))

    def _lose(self, patient: Patient, number: int) -> None:
        if patient.held:
            patient.held = False
            self._feed(patient, number, ConnectionLost("closed by peer"))

    def _feed(self, patient: Patient, number: int, event: JudgeEvent) -> None:
        before = patient.state.health
        patient.state, actions = patient.judge.step(patient.state, event, self.now)
        wakeup = patient.judge.next_wakeup(patient.state)
        assert wakeup > self.now
        assert (wakeup == NEVER) == isinstance(patient.state.errand, Asking)
        if wakeup != NEVER:
            self.schedule(wakeup, number, TimerFired())
        for action in actions:
            self._probe(patient, number, action)
        ours = isinstance(event, ProbeFinished) and event.result.finding is Finding.OURS
        if ours or not isinstance(event, ProbeFinished):
            assert patient.state.health.verdict is before.verdict
        if before.held_back_until is not None and self.now < before.held_back_until:
            assert patient.state.health.verdict is not Verdict.HEALTHY
        self._settle()

    def _probe(self, patient: Patient, number: int, ask: AskNow) -> None:
        assert patient.probe is None, "two probes at once"
        self._no_storm(patient)
        serial = patient.probe = next(self.serial)
        patient.held = patient.held and not ask.fresh
        latencies, timeout = patient.history.latencies, self.timing.timeout
        latency = latencies[serial % len(latencies)] * timeout // 1000
        after, finding = {
            Mood.UP: (latency, Finding.READY),
            Mood.UNREADY: (latency, Finding.NOT_READY),
            Mood.REFUSING: (latency // 100, Finding.REFUSED),
            Mood.HANGING: (timeout, Finding.FAILED),
            Mood.UNREACHABLE: (0, Finding.OURS),
        }[patient.mood]
        result = ProbeResult(finding, finding.value)
        self.schedule(Instant(self.now + after), number, (serial, result))

    def _no_storm(self, patient: Patient) -> None:
        """In a `fast_interval`: at most a tick, a loss, and a confirmation of each."""
        while patient.asked and patient.asked[0] <= self.now - self.timing.fast_interval:
            patient.asked.popleft()
        patient.asked.append(self.now)
        assert len(patient.asked) <= 4

    def _settle(self) -> None:
        members = [Member(p.backend, p.state.health, p.history.drained) for p in self.patients]
        decided = pool(self.spec, members, self.table, self.now)
        self.table = decided.destinations
        healthy = {m.backend.address for m in members if m.health.verdict is Verdict.HEALTHY}
        drained = {m.backend.address for m in members if m.drained}
        dead = {
            m.backend.address
            for m in members
            if m.health.verdict is Verdict.UNHEALTHY
            and m.health.held_back_until is None
            and not (m.health.last and m.health.last.finding in GOOD)
        }
        sure = any(
            m.health.verdict is Verdict.HEALTHY and m.health.last and m.health.last.finding in GOOD
            for m in members
        )
        taking = {dest.address for dest in self.table if dest.weight}
        assert healthy - drained <= taking  # S2, and L1 as far as the policy goes
        if all(member.health.verdict is not Verdict.UNKNOWN for member in members):
            assert taking
            assert decided.mode in (PoolMode.NORMAL, PoolMode.PANIC)
            if len(healthy) >= self.spec.panic_threshold:  # drained or not
                assert healthy & taking
                # While all that are called healthy have just failed, too, nobody is taken out.
                assert not sure or not dead & {dest.address for dest in self.table}

    def weight(self, patient: Patient) -> int | None:
        """Return the weight in the table, None when out of it."""
        for dest in self.table:
            if dest.address == patient.backend.address:
                return dest.weight
        return None
