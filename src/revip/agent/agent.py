"""The agent: feeds events to the node, performs what it answers, and owns every task.

All decisions are the node's (`revip.planner.node`); here is only the order of calls.  Kernel
table calls are short system calls made in the loop's own thread: a verdict is in the kernel
before the next event is looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from revip.agent.announcing import Announcing
from revip.agent.conflicts import Conflicts
from revip.agent.discovering import Discovery
from revip.agent.elections import Elections, Station
from revip.agent.hosting import Hosting, Role
from revip.agent.journal import Journal
from revip.agent.outside import Ports
from revip.agent.probing import Probing
from revip.agent.roles import Roles
from revip.agent.supervisor import foreseen, supervised
from revip.errors import KernelError, TransientError, unexpected
from revip.model.discovery import BackendsRefused
from revip.model.health import Backend, BackendName
from revip.model.host import LinkAddress
from revip.model.instants import NEVER, SECOND, Instant, later
from revip.model.ipvs import ServiceKey
from revip.model.notes import Kind, Level, Note
from revip.model.record import Record
from revip.model.spec import OnExit, Spec, VirtualServerSpec
from revip.planner.actions import Action, Apply, Reconcile
from revip.planner.health import ConnectionLost, ProbeFinished
from revip.planner.node import Node
from revip.planner.service import Ask, Entry
from revip.planner.telling import Seldom

FIRST_VERDICTS_SECONDS = 3.0
"""The address waits this long for a table with somebody in it, then comes all the same."""

TABLE_FIRST_SECONDS = 0.5
"""So long the surfaces leave the processor to the first table."""
PARTING_SECONDS = 1.0
"""The table of a former director stays so long after its address: some neighbors learn late."""

PARTING_TRIES = (0.1, 0.4, 0.0)
"""Pauses, in seconds, after each attempt to withdraw that the kernel refuses."""


class Agent:
    """One running agent."""

    def __init__(self, spec: Spec, ports: Ports, journal: Journal) -> None:
        self.spec = spec
        self.ports = ports
        self.journal = journal
        self.started = ports.clock.now()
        self.node, self._first = Node.begin(spec, self.started, ports.ownership.read())
        self.announcing = (
            Announcing(
                ports.announcer,
                self.look_at_host,
                ports.clock,
                journal.write,
                lambda place: self.elections.may_announce(place),
            )
            if ports.announcer is not None
            else None
        )
        self.hosting: Hosting | None = None
        if ports.host is not None:
            strangers = lambda: ports.table.strangers(self.node.keys)  # noqa: E731
            self._roles = Roles(ports.host, self.node.keys, strangers)
            self.hosting = Hosting(ports.host, self._role, ports.clock, journal.write, self._hold)
        self.probing = Probing(ports.probes, self._lost, self._fault)
        self._seldom = Seldom()
        self.unrecorded: str | None = None
        """Why the ownership record could not be written, None when it could."""
        self._discovery = Discovery(ports.source, self._discovered, self._refused, self._start)
        self.conflicts = Conflicts(ports, self._start, self.look_at_host, self._again, self._write)
        self.elections = Elections(self._station())
        self._stop = asyncio.Event()
        self._tabled = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._stopping = False
        self._pending: set[ServiceKey] = set()
        """Virtual servers to compare as soon as the present events are taken in."""
        self._recorded: Record | None = None
        self._group: asyncio.TaskGroup
        self._parts: dict[str, Callable[[], Awaitable[None]]] = {}

    def add_part(self, name: str, part: Callable[[], Awaitable[None]]) -> None:
        """Give the agent a further task (a surface, a watcher) to keep running, before `run`."""
        self._parts[name] = part

    def stop(self) -> None:
        """Ask for a clean stop (SIGTERM)."""
        self._stop.set()

    async def run(self) -> None:
        """Work until `stop` is called."""
        asyncio.get_running_loop().set_exception_handler(self._unforeseen)
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._begin()
                await self._stop.wait()
                await self._leave()
                self._stopping = True
                raise _Stopped  # the way to end a TaskGroup whose tasks run for ever
        except* _Stopped:
            if self._timer is not None:
                self._timer.cancel()
            await self.probing.keep(frozenset())

    def reconfigure(self, spec: Spec) -> None:
        """Take in a new, valid configuration."""
        self.spec = spec
        self.note(Kind.CONFIG, "configuration taken over")
        for warning in spec.warnings:
            self.note(Kind.CONFIG, warning, Level.WARNING)
        linger = self.hosting is not None
        self.perform(self.node.configure(spec, self._now(), linger=linger))
        self._discovery.follow(self.spec)
        self.conflicts.follow(self.spec, self.node.services)
        self.elections.follow(self.spec)
        self._tidy_probes()
        self.look_at_host()
        if self.node.parting:
            self._group.create_task(self._part())

    def perform(self, actions: Iterable[Action]) -> None:
        """Do what the node asks, and set the alarm for its next wake-up."""
        if self._stopping:
            return
        for action in actions:
            match action:
                case Ask():
                    self._start_probe(action)
                case Reconcile(keys):
                    self._reconcile_soon(keys)
                case Apply():
                    self._apply(action)
                case Note():
                    self._write(action)
        self._arm()

    def note(self, kind: Kind, text: str, level: Level = Level.INFO) -> None:
        """Write a note of the agent's own."""
        self._write(Note(self._now(), kind, text, level))

    def look_at_host(self) -> None:
        """Have the host compared soon."""
        if self.hosting is not None:
            self.hosting.paused = self.node.paused
            self.hosting.look()

    # -------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        for warning in self.spec.warnings:
            self.note(Kind.CONFIG, warning, Level.WARNING)
        self.perform(self._first)
        self._discovery.follow(self.spec)
        self.conflicts.follow(self.spec, self.node.services)
        self._group.create_task(self._begin_the_rest())
        self.elections.follow(self.spec)
        if self.hosting is not None:
            self._start("host", self._run_host)
        if self.announcing is not None:
            self._start("announcements", self.announcing.run)

    async def _begin_the_rest(self) -> None:
        """Begin what loads most modules after the first table: until then the backends wait."""
        if any(service.directing for service in self.node.services.values()):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TABLE_FIRST_SECONDS):
                    await self._tabled.wait()
        for name, part in self._parts.items():
            self._start(name, part)

    def _now(self) -> Instant:
        return self.ports.clock.now()

    def _start(self, name: str, part: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        coroutine = supervised(name, part, self._write, self.ports.clock)
        return self._group.create_task(coroutine, name=name)

    def _write(self, note: Note) -> None:
        self.journal.write(note)
        if note.kind is Kind.FIGHT and note.level is Level.ERROR:
            try:
                names = ", ".join(self.ports.culprits()) or "nobody known: is there a second agent?"
            except Exception as error:  # noqa: BLE001 (a name more or less must not stop a repair)
                names = f"cannot tell: {error}"
            text = f"likely culprits on this host: {names}"
            self.journal.write(Note(self._now(), Kind.FIGHT, text, Level.ERROR))

    def _fault(self, text: str) -> None:
        """Note a fault of ours; the same one not more than once a minute."""
        if self._seldom.may(text, self._now()):
            self.note(Kind.FAULT, text, Level.ERROR)

    def _unforeseen(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Hear what went wrong in a callback that nobody waits for."""
        error = context.get("exception")
        self._fault(f"{context['message']}: {unexpected(error)}")

    def _arm(self, earliest: Instant | None = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        at = max(self.node.next_wakeup(), earliest or self.started)
        if at == NEVER:
            return
        delay = max(0, at - self._now()) / 1000
        self._timer = asyncio.get_running_loop().call_later(delay, self._wake)

    def _wake(self) -> None:
        try:
            self.perform(self.node.wake(self._now()))
        except Exception as error:  # noqa: BLE001 (whatever it was, the clock must go on)
            self._fault(f"waking up: {unexpected(error)}")
            self._arm(later(self._now(), SECOND))

    def _reconcile_soon(self, keys: frozenset[ServiceKey]) -> None:
        """Fold what several events of one moment ask for into one comparison."""
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._reconcile)
        self._pending |= keys

    def _reconcile(self) -> None:
        keys, self._pending = frozenset(self._pending), set()
        self._record()
        try:
            with foreseen("read the IPVS table"):
                seen = self.ports.table.observe(keys)
        except KernelError as error:
            self.perform(self.node.fail(error, self._now()))
            return
        self.perform(self.node.observe(seen, keys, self._now()))
        if any(d.weight for server in self.node.observed.values() for d in server.destinations):
            self._tabled.set()

    def _apply(self, action: Apply) -> None:
        try:
            with foreseen(f"write {action.key}"):
                self.ports.table.apply(action.changes)
        except KernelError as error:
            self.perform(self.node.fail(error, self._now(), action))
        else:
            self.perform(self.node.confirm(action, self._now()))

    def _record(self) -> None:
        """Write down what is ours before it is in the kernel, so that no crash orphans it."""
        record = self.node.record
        if record == self._recorded:
            return
        try:
            self.ports.ownership.write(record)
        except TransientError as error:
            if self.unrecorded is None:
                self.note(Kind.FAULT, f"{error}; going on without the record", Level.WARNING)
            self.unrecorded = str(error)
        else:
            self._recorded, self.unrecorded = record, None

    def _start_probe(self, ask: Ask) -> None:
        service = self.node.services[ask.service]
        entry = service.entries[ask.backend]
        self._group.create_task(self._ask(ask, service.spec, entry))

    async def _ask(self, ask: Ask, server: VirtualServerSpec, entry: Entry) -> None:
        """Probe once; the answer is nobody's if the backend was replaced or moved meanwhile."""
        result = await self.probing.ask(server, entry.backend, fresh=ask.fresh)
        service = self.node.services.get(ask.service)
        if service is not None and service.entries.get(ask.backend) is entry:
            event = ProbeFinished(result)
            self.perform(self.node.judge(ask.service, ask.backend, event, self._now()))

    def _lost(self, service: str, backend: BackendName, reason: str) -> None:
        self.perform(self.node.judge(service, backend, ConnectionLost(reason), self._now()))

    def _discovered(self, name: str, backends: Sequence[Backend]) -> None:
        self.perform(self.node.discover(name, backends, self._now()))
        self._tidy_probes()

    def _refused(self, name: str, refusal: BackendsRefused) -> None:
        text = f"{refusal}; the backends known so far go on"
        self._write(Note(self._now(), Kind.DISCOVERY_FAILED, text, Level.WARNING, name))

    def _tidy_probes(self) -> None:
        places = frozenset(
            (name, backend)
            for name, service in self.node.services.items()
            for backend in service.entries
        )
        self._group.create_task(self.probing.keep(places))

    async def _run_host(self) -> None:
        """Prepare the host once the table has somebody in it: traffic is invited last."""
        if self.hosting is None:
            return
        if any(service.directing for service in self.node.services.values()):
            try:
                async with asyncio.timeout(FIRST_VERDICTS_SECONDS):
                    await self._tabled.wait()
            except TimeoutError:
                text = "no backend has answered yet; the address is taken all the same"
                self.note(Kind.AGENT, text, Level.WARNING)
        self.look_at_host()
        await self.hosting.run()

    def _hold(self, held: frozenset[LinkAddress]) -> None:
        self.conflicts.hold(held)
        self.elections.hold(held, self.hosting.lacking if self.hosting else frozenset())
        if self.announcing is not None:
            self.announcing.hold(held)

    async def _role(self) -> Role:
        """Return what must be true of this host now."""
        services = () if self.node.withdrawing else tuple(self.node.services.values())
        # A lease that is over is a follower's part at once, whatever the election says later.
        leads = await self.conflicts.leads(services, self.elections.keeps)
        return await self._roles.role(self.spec, leads, self.node.tabled)

    def _station(self) -> Station | None:
        host, keeper = self.ports.host, self.ports.keeper
        if host is None or keeper is None:
            return None

        return Station(
            self.ports.clock,
            host,
            keeper,
            lambda server: self._roles.source(self.spec, server),
            lambda name: self.node.services.get(name),
            lambda: self.node.paused,
            self.conflicts.objection,
            self._lead,
            self._again,
            self._start,
            self._write,
        )

    def _again(self, place: LinkAddress) -> None:
        if self.announcing is not None:
            self.announcing.again(place)

    def _lead(self, name: str, leading: bool, reason: str) -> None:
        self.perform(self.node.elect(name, leading, reason, self._now()))
        self._group.create_task(self._take_place() if leading else self._part())

    async def _take_place(self) -> None:
        if self.hosting is not None:
            await self.hosting.reconcile()

    async def _part(self) -> None:
        """Turn traffic away first, then give up the table that it found its way by."""
        await self._take_place()
        if self.elections.all():
            await asyncio.sleep(PARTING_SECONDS)
        self.perform(self.node.part(self._now()))
        await self._take_place()

    async def _resign(self) -> None:
        """Give every elected address to a successor; none of them stays at an exit."""
        if await self.elections.resign("shutdown"):
            if self.hosting is not None:
                self.hosting.paused = False
            self.node.paused = False
            await self._part()
            self._reconcile()

    async def _leave(self) -> None:
        await self._resign()
        if self.spec.on_exit is OnExit.LEAVE:
            if self.hosting is not None:
                self.hosting.paused = True  # else it would be put back
            await self.elections.unfence()
            self.note(Kind.AGENT, "stopping; table and addresses stay (agent.on_exit: leave)")
            return
        if self.node.paused:
            self.note(Kind.AGENT, "stopping; paused, so table and addresses stay", Level.WARNING)
            return
        self.note(Kind.AGENT, "stopping; withdrawing table and addresses")
        actions = self.node.withdraw()
        if self.hosting is not None:
            await self.hosting.reconcile()
        self.perform(actions)
        for pause in PARTING_TRIES:
            self._reconcile()
            if self.node.failure is None:
                break
            await asyncio.sleep(pause)


class _Stopped(Exception):  # noqa: N818 (not an error: the ordinary end)
    """Ends the task group after a clean stop."""
