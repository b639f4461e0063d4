"""A simulated agent: the real node, election, host reconciler and roles on a virtual clock.

It does what `revip.agent.agent` does, in the same order, without asyncio: what that hands to the
event loop is handed to the world here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, cast

from revip.agent.elections import Elections, Station
from revip.agent.hosting import FIGHT_PACE, PERIOD, Hosting, Role
from revip.agent.keeper_words import Resign
from revip.agent.kept import FAREWELL, KeptElection
from revip.agent.probing import _excused, overdue
from revip.agent.roles import Roles
from revip.errors import KernelError
from revip.model.health import BackendName, Finding, ProbeResult
from revip.model.host import LinkAddress
from revip.model.instants import NEVER, Instant, Span, later
from revip.model.ipvs import ServiceKey
from revip.model.notes import Note
from revip.planner.actions import Action, Apply, Reconcile
from revip.planner.health import ConnectionLost, JudgeEvent, ProbeFinished
from revip.planner.node import Node
from revip.planner.service import Ask, Service
from tests.simulation.keeper import Kept, Link
from tests.simulation.outside import HostPort, TablePort
from tests.simulation.servers import Probe
from tests.simulation.setup import FIRST_VERDICTS, NAME, PARTING

if TYPE_CHECKING:
    from tests.simulation.host import Host


class Agent:
    """One process of `revip run`."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.world = host.world
        self.clock = host.clock
        self.spec = host.world.setup.spec(host.number)
        self.server = self.spec.virtual_servers[0]
        self.table = TablePort(host)
        self.port = HostPort(host)
        self.node, self._first = Node.begin(self.spec, self.clock.now(), host.record)
        self.roles = Roles(self.port, self.node.keys, lambda: False)
        self.hosting = Hosting(self.port, self._role, self.clock, self.note, self._hold)
        self.link = Link(self)
        self.keeping = Kept(self, self.link)
        self.elections = Elections(self._station())
        self.elections._keeping = self.keeping
        self.leaving = False
        self.soon: deque[Callable[[], None]] = deque()
        self._pending: frozenset[ServiceKey] = frozenset()
        self._armed: Instant | None = None
        self._host_at = NEVER
        self._host_rests_until = Instant(0)
        self._host_runs = False
        self._host_seen: tuple[object, ...] | None = None
        """What the last comparison that changed nothing looked at."""
        self._tabled = False

    def begin(self) -> None:
        """Do what `Agent.run` does first."""
        self.perform(self._first)
        self.elections.follow(self.spec)
        if self.service.directing:
            self.wait_until(later(self.now(), FIRST_VERDICTS), self._run_host, lambda: self._tabled)
        else:
            self._run_host()

    @property
    def service(self) -> Service:
        return self.node.services[NAME]

    @property
    def election(self) -> KeptElection | None:
        return self.elections.get(NAME)

    @property
    def keeps(self) -> bool:
        """Whether it may have the address, by what it has heard of its keeper."""
        election = self.election
        return election is None or (
            election.leading and self.now() <= election.standing.keeps_until
        )

    def now(self) -> Instant:
        return self.clock.now()

    # Waiting --------------------------------------------------------------------------------

    def at(self, local: Instant, what: Callable[[], None]) -> None:
        """Have something done by this process when its clock shows `local`."""
        self.world.at(self.clock.world_time(local), self.host.call, self, what)

    def after(self, span: Span, what: Callable[[], None]) -> None:
        self.at(later(self.now(), span), what)

    def wait_until(
        self, limit: Instant, what: Callable[[], None], early: Callable[[], bool]
    ) -> None:
        """Have something done at `limit`, or as soon as `early` says so."""
        if early() or self.now() >= limit:
            what()
        else:
            step = min(limit, later(self.now(), Span(20)))
            self.at(step, lambda: self.wait_until(limit, what, early))

    def settle(self) -> None:
        """Do what was put off until the present event had been taken in."""
        while self.soon and self.host.awake and self.host.agent is self:
            self.soon.popleft()()
        if self.host.agent is self:
            self.world.checks.agent_moved(self.host)

    # The table ------------------------------------------------------------------------------

    def perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Ask():
                    self.ask(action)
                case Reconcile(keys):
                    if not self._pending:
                        self.soon.append(self._reconcile)
                    self._pending |= keys
                case Apply():
                    self._apply(action)
                case Note():
                    self.note(action)
        self._arm()

    def _reconcile(self) -> None:
        keys, self._pending = self._pending, frozenset()
        self.host.record = self.node.record
        try:
            seen = self.table.observe(keys)
        except KernelError as error:
            self.perform(self.node.fail(error, self.now()))
            return
        self.perform(self.node.observe(seen, keys, self.now()))
        self._tabled = self._tabled or bool(self.host.kernel.taking(self.server.key))

    def _apply(self, action: Apply) -> None:
        try:
            self.table.apply(action.changes)
        except KernelError as error:
            self.perform(self.node.fail(error, self.now(), action))
        else:
            self.perform(self.node.confirm(action, self.now()))

    def _arm(self) -> None:
        at = self.node.next_wakeup()
        if at != self._armed:
            self._armed = at
            if at != NEVER:
                self.at(at, lambda: self._ring(at))

    def _ring(self, at: Instant) -> None:
        if self._armed == at:
            self._armed = None
            self.perform(self.node.wake(self.now()))

    # Probes ---------------------------------------------------------------------------------

    def ask(self, ask: Ask) -> None:
        server = int(ask.backend[1:])
        if ask.fresh:
            self.world.held.discard((self.host.number, server))
        probe = Probe(self.host.number, server, ask.fresh, self.now(), self._answered)
        timeout = self.server.health.timeout
        self.after(timeout, lambda: probe.end(Finding.FAILED, "no answer"))
        self.world.probe(probe)

    def _answered(self, probe: Probe, result: ProbeResult) -> None:
        self.host.call(self, self._judge_probe, probe, result)

    def _judge_probe(self, probe: Probe, result: ProbeResult) -> None:
        latency = Span(self.now() - probe.began)
        found = ProbeResult(result.finding, result.reason, latency)
        excused = _excused(found, overdue(self.server.health))
        self.world.checks.answered(self.host, probe.server, excused)
        self._judge(probe.server, ProbeFinished(excused))

    def lost(self, server: int) -> None:
        """Hear that the connection held to a server has ended."""
        self._judge(server, ConnectionLost("closed by peer"))

    def _judge(self, server: int, event: JudgeEvent) -> None:
        backend = BackendName(f"n{server}")
        before = self.service.entries[backend].state.health.verdict
        self.perform(self.node.judge(NAME, backend, event, self.now()))
        after = self.service.entries[backend].state.health.verdict
        if before is not after:
            self.world.checks.judged(self.host, server, event)
            self.world.trace(self.host.number, "holds", backend, after.value)

    # The host -------------------------------------------------------------------------------

    def look_at_host(self) -> None:
        """Compare the host soon, unless the last attempt failed just now."""
        if self._host_runs:
            self._host_next(max(self.now(), self._host_rests_until))

    def _run_host(self) -> None:
        self._host_runs = True
        self.soon.append(self._host_now)

    def _host_next(self, at: Instant) -> None:
        if at < self._host_at:
            self._host_at = at
            self.at(at, lambda: self._host_ring(at))

    def _host_ring(self, at: Instant) -> None:
        if self._host_at == at:
            self._host_now()

    def _host_now(self) -> None:
        self.host.at_once(self._host_round())

    async def _host_round(self) -> None:
        self._host_at = NEVER
        kept = self.elections.keeps(NAME)
        seen = (self.host.kernel.version, self.service.directing, kept, self.node.tabled)
        if self.hosting._quarrel.fighting or self.hosting.failure or seen != self._host_seen:
            await self.hosting.reconcile()  # else it would find what it has left
            version = self.host.kernel.version
            self._host_seen = seen if version == seen[0] else None
        now = self.now()
        if self.hosting.failure is not None:
            self._host_rests_until = later(now, self.hosting._backoff.delay)
            self._host_next(self._host_rests_until)
            return
        pace = FIGHT_PACE if self.hosting._quarrel.fighting else Span(0)
        self._host_rests_until = later(now, pace)
        self._host_next(later(now, PERIOD))

    def _look_now(self) -> None:
        self.host.at_once(self.hosting.reconcile())

    async def _role(self) -> Role:
        leads = [(self.server, self.service.directing and self.elections.keeps(NAME))]
        return await self.roles.role(self.spec, leads, self.node.tabled)

    def _hold(self, held: frozenset[LinkAddress]) -> None:
        self.elections.hold(held, self.hosting.lacking)

    # The election ---------------------------------------------------------------------------

    def leave(self) -> None:
        """Do what SIGTERM asks for, with `agent.on_exit: leave`."""
        if self.leaving:
            return
        self.leaving = True
        self.world.trace("stop", self.host.number)
        election = self.election
        led = election is not None and election.leading
        if election is None or not self.keeping.say(Resign(NAME, "shutdown")):
            self._left(led)
            return
        limit = later(self.now(), Span(election.spec.advert_interval + FAREWELL))
        self.wait_until(limit, lambda: self._resigned(led), lambda: not election.leading)

    def _resigned(self, led: bool) -> None:
        if self.election is not None:
            self.election.give_up("shutdown")
        self._left(led)

    def _left(self, led: bool) -> None:
        if not led:
            self.host.exited(self)
            return
        self.soon.append(self._look_now)
        self.after(PARTING, self._last_words)

    def _last_words(self) -> None:
        self.perform(self.node.part(self.now()))
        self._reconcile()
        self.host.exited(self)

    def _station(self) -> Station:
        return Station(
            self.clock,
            self.port,
            self.link,
            lambda server: self.roles.source(self.spec, server),
            lambda name: self.node.services.get(name),
            lambda: False,
            lambda name: None,
            self._lead,
            lambda place: None,
            self._serve,
            self.note,
        )

    def _serve(self, name: str, part: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        self.soon.append(self.keeping.serve)
        return cast("asyncio.Task[None]", None)

    def _lead(self, name: str, leading: bool, reason: str) -> None:
        self.world.trace(self.host.number, "leads" if leading else "leads no longer")
        self.perform(self.node.elect(name, leading, reason, self.now()))
        self.soon.append(self._look_now)
        if not leading:
            self.after(PARTING, self._part)

    def _part(self) -> None:
        self.perform(self.node.part(self.now()))
        self.soon.append(self._look_now)

    def note(self, note: Note) -> None:
        if self.world.loud:
            self.world.say(self.host.number, note.kind.value, note.text)
