"""The whole node: events and the time go in, actions come out; no I/O.

The node never remembers what it *did* to decide what to do next.  Each reconciliation starts from
a dump of the kernel (`TableObserved`), compares it with what verdicts and wishes ask for, and asks
for the difference.  A recovered backend returns because the comparison says so; a failed write
stays a difference and is tried again; whoever disturbs the table only makes the next difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from revip.errors import KernelError
from revip.model.health import Backend, BackendName
from revip.model.instants import NEVER, Instant, Span, later
from revip.model.ipvs import (
    Change,
    Counters,
    Observation,
    ServiceKey,
    Table,
    VirtualServer,
    table,
)
from revip.model.notes import Kind, Level, Note
from revip.model.record import Drains, Record
from revip.model.spec import Spec, VirtualServerSpec
from revip.planner.actions import Action, Apply, Plan, Reconcile
from revip.planner.alarms import Alarms
from revip.planner.bounds import comparison_bound
from revip.planner.diff import by_server, diff, owned
from revip.planner.drift import DriftLog, sentence
from revip.planner.health import JudgeEvent, TimerFired
from revip.planner.service import Service, adoption_note, discovery_note
from revip.planner.trouble import Troubles

ALERT_INTERVAL = Span(50)
"""Between comparisons while somebody disturbs the table again and again."""


NOTHING_RECORDED = Record()


@dataclass(slots=True)
class Node:
    """One agent's decisions.  Make it with `Node.begin`."""

    spec: Spec
    services: dict[str, Service] = field(default_factory=dict)
    paused: bool = False
    withdrawing: bool = False
    retired: set[ServiceKey] = field(default_factory=set)
    """Keys we once owned and no longer want: deleted until a dump shows that they are gone."""
    recalled: Drains = field(default_factory=dict)
    """The operator's drains of before a restart."""
    parting: frozenset[ServiceKey] = frozenset()
    """Keys that we direct no longer, whose table stays until the host has given up the address."""
    observed: Table = field(default_factory=dict)
    counters: Counters = field(default_factory=dict)
    observed_at: Instant | None = None
    settled: dict[ServiceKey, VirtualServer | None] = field(default_factory=dict)
    """What the kernel held after our last word on each key: what differs now, others did."""
    drift: DriftLog = field(default_factory=DriftLog)
    troubles: Troubles = field(default_factory=Troubles)
    applied: int = 0
    _reconcile_at: Instant = Instant(0)
    _compare_from: Instant = Instant(0)
    """From when on a comparison may be made with a probe that is due."""
    _alarms: Alarms[tuple[str, BackendName]] = field(default_factory=Alarms)

    @classmethod
    def begin(
        cls, spec: Spec, now: Instant, record: Record = NOTHING_RECORDED
    ) -> tuple[Node, list[Action]]:
        """Start with nothing known but `record`, what was written down before a restart."""
        node = cls(spec=spec, retired=set(record.keys), recalled=record.drained)
        return node, node.configure(spec, now)

    # What happened ---------------------------------------------------------------------------

    def configure(self, spec: Spec, now: Instant, *, linger: bool = False) -> list[Action]:
        """Take in a new, valid configuration; what did not change is not touched.

        With `linger` the table of what we direct no longer stays until `part` is called.
        """
        directed = self._directed()
        before = {name: service.spec for name, service in self.services.items()}
        wanted = {service.name: service for service in spec.virtual_servers}
        self.spec = spec
        self.retired |= {old.key for old in before.values()}
        self.retired -= {new.key for new in wanted.values()}
        actions: list[Action] = []
        for name in before.keys() - wanted.keys():
            del self.services[name]
        for name, service in wanted.items():
            if before.get(name) != service:
                actions += self._configure_service(service, now)
        self.troubles.forget(self.keys)
        self.parting = (self.parting | (directed if linger else set())) - self._directed()
        return actions + self._reconcile_now(now)

    def part(self, now: Instant) -> list[Action]:
        """Take in that the host invites no traffic any more to what we direct no longer."""
        keys, self.parting = self.parting & self.keys, frozenset()
        return self._reconcile_now(now, keys) if keys else []

    def elect(self, name: str, leading: bool, reason: str, now: Instant) -> list[Action]:
        """Take in whether this node is the elected director of one virtual server.

        The table of one that is so no longer stays until `part` is called.
        """
        service = self.services.get(name)
        if service is None or service.spec.vrrp is None or service.elected == leading:
            return []
        key = frozenset({service.spec.key})
        service.elected = leading
        self.parting = self.parting - key if leading else self.parting | key
        text = f"this node {'directs' if leading else 'directs no longer'}: {reason}"
        note = Note(now, Kind.LEADERSHIP, text, Level.INFO, name)
        return [note, *self._reconcile_now(now, key)]

    def discover(self, name: str, backends: Iterable[Backend], now: Instant) -> list[Action]:
        """Take in the backends of one virtual server as discovery now knows them."""
        service = self.services.get(name)
        if service is None:
            return []
        known = {entry.backend for entry in service.entries.values()}
        backends = tuple(backends)
        if service.informed and known == set(backends):
            return []
        service.discover(backends, now)
        self._arm_all(service)
        notes = [discovery_note(name, known, set(backends), now)] if known else []
        return [*notes, *self._settle(service, now)]

    def judge(
        self, name: str, backend: BackendName, event: JudgeEvent, now: Instant
    ) -> list[Action]:
        """Take in what a probe, or a held connection, said about one backend."""
        service = self.services.get(name)
        if service is None:
            return []
        asks, notes, weighty = service.judge(backend, event, now)
        self._arm(service, backend)
        return [*asks, *notes, *(self._settle(service, now) if weighty else ())]

    def observe(
        self, observation: Observation, keys: frozenset[ServiceKey], now: Instant
    ) -> list[Action]:
        """Take in a dump of `keys`; answer with the differences to apply, if any.

        Each virtual server is one `Apply`: one that the kernel refuses must not starve the others.
        """
        scope = keys & self.keys
        seen = owned(observation.table, scope)
        repairs = self._repairs(seen, scope)
        actions = [*self._recovered(None, now), *self.drift.notes(repairs, now)]
        self.counters = {
            **{place: count for place, count in self.counters.items() if place[0] not in scope},
            **observation.counters,
        }
        if self.observed_at is None:
            actions += [adoption_note(server, now) for server in seen.values()]
        self.observed_at = now
        self.retired -= scope - seen.keys()
        self._hold(scope, seen)
        for service in self._within(scope):
            actions += service.settle(now)
        if scope == self.keys:
            self._compare_later(now)
        plans = dict(by_server(diff(self._desired(scope), seen)))
        for key in scope - plans.keys():
            actions += self._recovered(key, now)
        if self.paused:
            return actions
        told = dict(by_server(repairs)) if self.drift.fighting else {}
        return actions + [
            Apply(plan, known=told.get(key) == plan)
            for key, plan in plans.items()
            if not self.troubles.resting(key, now)
        ]

    def confirm(self, done: Apply, now: Instant) -> list[Action]:
        """Take in that all changes of `done` are in force."""
        scope = frozenset({done.key})
        self._hold(scope, self._desired(scope))
        self.retired -= scope
        self.applied += len(done.changes)
        said = [] if done.known else [Note(now, Kind.TABLE, sentence(done.changes))]
        return [*self._recovered(done.key, now), *said]

    def fail(self, error: KernelError, now: Instant, tried: Apply | None = None) -> list[Action]:
        """Take in that the kernel refused `tried`, or (None) could not be read.

        The wish stays, and is tried again later.
        """
        place = tried.key if tried else None
        news = self.troubles.failed(place, error, now)
        if place is None:
            self.settled.clear()
            self._reconcile_at = self._compare_from = self.troubles.until(place)
        else:  # part of the plan may be in force: the next dump tells
            self.settled.pop(place, None)
            self._reconcile_at = min(self._reconcile_at, self.troubles.until(place))
            self._compare_from = min(self._compare_from, self._reconcile_at)
        return [Note(now, Kind.KERNEL_FAILED, str(error), Level.ERROR)] if news else []

    def wake(self, now: Instant) -> list[Action]:
        """Take in that time has passed: due probes, and the periodic comparison."""
        due = [*self._alarms.due(now)]
        compare: list[Action] = []
        if now >= (self._compare_from if due else self._reconcile_at):
            self._compare_later(now)
            compare.append(Reconcile(self.keys))
        if due or compare:
            due += self._alarms.company(now)
        actions: list[Action] = []
        for name, backend in due:
            actions += self.judge(name, backend, TimerFired(), now)
        return actions + compare

    # What the operator wishes ----------------------------------------------------------------

    def drain(self, name: str, backend: BackendName, drained: bool, now: Instant) -> list[Action]:
        """Put a backend at weight 0 by hand, or let its health speak again."""
        service = self.services[name]
        if drained:
            service.drained.setdefault(backend, now)
        else:
            service.drained.pop(backend, None)
        text = f"{'drain' if drained else 'enable'} {backend}, asked by the operator"
        note = Note(now, Kind.OPERATOR, text, Level.INFO, name, backend)
        return [note, *self._settle(service, now)]

    def pause(self, paused: bool, now: Instant) -> list[Action]:
        """Only observe, or go back to work."""
        self.paused = paused
        text = "paused: observing only, nothing is changed" if paused else "resumed"
        level = Level.WARNING if paused else Level.INFO
        return [Note(now, Kind.OPERATOR, text, level), *self._reconcile_now(now)]

    def withdraw(self) -> list[Action]:
        """Take everything of ours out of the kernel from now on (a clean stop)."""
        self.withdrawing = True
        return [Reconcile(self.keys)]

    # What can be asked ------------------------------------------------------------------------

    @property
    def failure(self) -> KernelError | None:
        """What the kernel has refused longest and still refuses; None when nothing."""
        first = self.troubles.first
        return first.error if first else None

    @property
    def failing_since(self) -> Instant:
        """Since when it does; `NEVER` while nothing fails."""
        first = self.troubles.first
        return first.since if first else NEVER

    @property
    def failures(self) -> int:
        """Refusals ever."""
        return self.troubles.count

    @property
    def keys(self) -> frozenset[ServiceKey]:
        """The virtual servers that are ours to change, wanted and retired."""
        return frozenset(s.spec.key for s in self.services.values()) | self.retired

    @property
    def tabled(self) -> frozenset[ServiceKey]:
        """The virtual servers that have a table here, if only until traffic is turned away."""
        return self._directed() | self.parting

    @property
    def record(self) -> Record:
        """What the next start should know."""
        drained = {name: dict(s.drained) for name, s in self.services.items() if s.drained}
        return Record(self.keys, drained)

    def desired(self) -> dict[ServiceKey, VirtualServer]:
        """Return the table that should be in the kernel."""
        return self._desired(self.keys)

    def plan(self) -> Plan:
        """Return what would be done to the table as last observed."""
        return Plan(
            diff(self.desired(), self.observed),
            {
                name: dict(service.pool.reasons) if service.pool else {}
                for name, service in self.services.items()
            },
        )

    def next_wakeup(self) -> Instant:
        """Return when `wake` wants to be called next."""
        return min(self._reconcile_at, self._alarms.next())

    # -------------------------------------------------------------------------------------------

    def _compare_later(self, now: Instant) -> None:
        interval = self.spec.reconcile_interval
        latest = comparison_bound(interval)
        if self.drift.fighting:
            interval = latest = ALERT_INTERVAL
        self._compare_from, self._reconcile_at = later(now, interval), later(now, latest)

    def _directed(self) -> frozenset[ServiceKey]:
        return frozenset(s.spec.key for s in self.services.values() if s.directing)

    def _within(self, scope: Set[ServiceKey]) -> list[Service]:
        return [service for service in self.services.values() if service.spec.key in scope]

    def _desired(self, scope: Set[ServiceKey]) -> dict[ServiceKey, VirtualServer]:
        if self.withdrawing:
            return {}
        wanted = (
            # Before discovery has spoken nobody knows better than the kernel (adoption).
            service.desired() if service.informed else self.observed.get(service.spec.key)
            for service in self._within(scope)
            if service.directing
        )
        lingering = (self.observed.get(key) for key in scope & self.parting)
        return table(server for server in (*wanted, *lingering) if server is not None)

    def _hold(self, scope: Set[ServiceKey], held: Table) -> None:
        """Remember that the kernel holds `held` of `scope`."""
        for key in scope:
            self.settled[key] = held.get(key)
        others = {key: server for key, server in self.observed.items() if key not in scope}
        self.observed = {**others, **held}
        for service in self._within(scope):
            server = held.get(service.spec.key)
            service.kernel = server.destinations if server else frozenset()

    def _configure_service(self, spec: VirtualServerSpec, now: Instant) -> list[Action]:
        old = self.services.get(spec.name)
        service = Service(spec, self.spec.node)
        seen = self.observed.get(spec.key)
        service.kernel = seen.destinations if seen else frozenset()
        self.services[spec.name] = service
        if old is not None:
            service.inherit(old, now)
        else:
            service.drained = dict(self.recalled.get(spec.name, {}))
        if spec.backends_file is None or (spec.backends and not service.informed):
            service.discover(spec.backends, now)  # else the file's word goes on
        self._arm_all(service)
        return self._settle(service, now)

    def _settle(self, service: Service, now: Instant) -> list[Action]:
        before = service.pool
        notes = service.settle(now)
        now_in = service.pool.destinations if service.pool else None
        changed = before is None or before.destinations != now_in
        return notes + (self._reconcile_now(now, frozenset({service.spec.key})) if changed else [])

    def _reconcile_now(
        self, now: Instant, keys: frozenset[ServiceKey] | None = None
    ) -> list[Action]:
        if self.troubles.resting(None, now):
            return []  # the difference is not forgotten
        return [Reconcile(self.keys if keys is None else keys)]

    def _arm_all(self, service: Service) -> None:
        for backend in service.entries:
            self._arm(service, backend)

    def _arm(self, service: Service, backend: BackendName) -> None:
        entry = service.entries.get(backend)
        if entry is None:
            self._alarms.set((service.spec.name, backend), NEVER)
        else:
            at, ripe = entry.judge.next_wakeup(entry.state), entry.judge.ripe(entry.state)
            self._alarms.set((service.spec.name, backend), at, ripe)

    def _recovered(self, place: ServiceKey | None, now: Instant) -> list[Action]:
        lasted = self.troubles.ended(place, now)
        if lasted is None:
            return []
        what = f"the kernel takes {place}" if place else "the kernel answers"
        return [Note(now, Kind.KERNEL_BACK, f"{what} again after {lasted} ms")]

    def _repairs(self, seen: Table, scope: Set[ServiceKey]) -> tuple[Change, ...]:
        """Return what would undo what others did since our last word."""
        known = {key: server for key, server in self.settled.items() if key in scope}
        before = table(server for server in known.values() if server is not None)
        return diff(before, owned(seen, frozenset(known)))
