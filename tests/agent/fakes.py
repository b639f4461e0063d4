"""The outside of an agent, in memory and in virtual time.

`play` runs a coroutine on a loop whose clock jumps to the next timer as soon as nothing else is to
be done: minutes pass in milliseconds, and every run is the same.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, TypeVar

from revip.agent.agent import Agent
from revip.agent.commands import Commands
from revip.agent.journal import Journal
from revip.agent.keeper import Keeper
from revip.agent.outside import Ports
from revip.api.status import status
from revip.errors import KernelError, TransientError
from revip.model.conflict import Claimed, Sighting
from revip.model.discovery import BackendsNews
from revip.model.health import Backend, Finding, HealthTiming, ProbeResult
from revip.model.host import (
    KERNEL_LOCAL_TABLE,
    Fence,
    HostFact,
    HostState,
    Lease,
    LinkAddress,
    LocalRoute,
    MacAddress,
    Sysctl,
)
from revip.model.instants import Instant, Span
from revip.model.ipvs import Change, IPAddress, Observation, ServiceKey, VirtualServer
from revip.model.notes import Kind
from revip.model.record import Record
from revip.model.spec import LinkName, ProbeSpec, Spec, VirtualServerSpec
from revip.model.vrrp import Advertisement, Heard, VirtualRouter
from revip.planner.diff import describe, patched
from revip.planner.host import describe_fact
from revip.planner.node import NOTHING_RECORDED
from revip.ports import BackendProbe, BackendSource
from revip.wire.vrrp import Rejected

READY = ProbeResult(Finding.READY, "HTTP 200")
REFUSED = ProbeResult(Finding.REFUSED, "connection refused", stage="connect")

Outcome = TypeVar("Outcome")


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits: what would be waited for has come."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everybody waits for somebody else")
        if not ready and timeout:
            self.now += timeout
        return ready


class _JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def play(story: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Run `story` in virtual time."""
    with asyncio.Runner(loop_factory=_JumpingLoop) as runner:
        return runner.run(story)


class FakeClock:
    """The clock of the running loop, and the time that the machine slept beside it."""

    def __init__(self) -> None:
        self.slept = 0

    def now(self) -> Instant:
        return Instant(round(asyncio.get_running_loop().time() * 1000) + self.slept)


class FakeKernel:
    """A table that does what it is told, unless `down` or `refuses` says no."""

    def __init__(self) -> None:
        self.table: dict[ServiceKey, VirtualServer] = {}
        self.down: Exception | None = None
        self.refuses: Callable[[Change], Exception | None] = lambda _: None
        self.applied: list[Change] = []
        self.deeds: list[str] = []
        """What was done to kernel and host, in order; shared by both."""

    def observe(self, keys: frozenset[ServiceKey] | None = None) -> Observation:
        if self.down:
            raise self.down
        return Observation({k: s for k, s in self.table.items() if keys is None or k in keys})

    def apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if refusal := self.refuses(change):
                raise refusal
            self.table = patched(self.table, (change,))
            self.applied.append(change)
            self.deeds.append(describe(change))

    def strangers(self, keys: frozenset[ServiceKey]) -> bool:
        if self.down:
            raise self.down
        return bool(self.table.keys() - keys)

    def close(self) -> None:
        pass


class FakeFences:
    """What the keeper says of the fences; the adverts themselves are not seen here."""

    def __init__(self) -> None:
        self.until: dict[IPAddress, Instant] = {}

    def stands(self, fence: Fence) -> bool:
        return fence.address in self.until

    def exists(self, address: IPAddress) -> bool:
        return address in self.until

    def is_open(self, address: IPAddress) -> bool:
        return True

    def build(self, fence: Fence, until: Instant) -> None:
        self.until[fence.address] = until

    def destroy(self, address: IPAddress) -> None:
        self.until.pop(address, None)

    def open(self, place: LinkAddress, until: Instant) -> bool:
        self.until[place.address] = until
        return True

    def close(self) -> None:
        pass


class FakeHost:
    """Facts that hold; with each address comes the kernel's own local route."""

    def __init__(self) -> None:
        self.holds: set[HostFact] = set()
        self.own: dict[tuple[LinkName, int], IPAddress] = {
            (LinkName("eth0"), 4): ip_address("10.0.1.16"),
        }
        self.down: Exception | None = None
        self.refuses: Callable[[HostFact], Exception | None] = lambda _: None
        self.applied = 0
        self.renewed = 0
        self.leases: dict[LinkAddress, Lease] = {}
        self.fences = FakeFences()
        self.no_fence = ""
        self.deeds: list[str] = []
        self.gate = asyncio.Event()
        """Cleared, it holds up `apply` before its next fact."""
        self.gate.set()
        self._heard = asyncio.Event()

    async def observe(self, wanted: HostState) -> frozenset[HostFact]:
        await asyncio.sleep(0)
        if self.down:
            raise self.down
        return frozenset(self.holds & (wanted.present | wanted.absent))

    async def apply(self, remove: Sequence[HostFact], add: Sequence[HostFact]) -> None:
        for fact in remove:
            await self._one(fact, self.take)
        for fact in add:
            await self._one(fact, self.give)

    async def _one(self, fact: HostFact, change: Callable[[HostFact], None]) -> None:
        await asyncio.sleep(0)
        await self.gate.wait()
        if refusal := self.refuses(fact):
            raise refusal
        change(fact)
        self.applied += 1
        self.deeds.append(f"{change.__name__} {describe_fact(fact)}")

    def give(self, fact: HostFact) -> None:
        if isinstance(fact, Sysctl):  # which has one value at a time
            self.holds -= {f for f in self.holds if isinstance(f, Sysctl) and f.name == fact.name}
        self.holds.add(fact)
        if isinstance(fact, LinkAddress):
            self.holds.add(LocalRoute(fact.link, fact.address, KERNEL_LOCAL_TABLE))
        self._heard.set()

    def take(self, fact: HostFact) -> None:
        self.holds.discard(fact)
        if isinstance(fact, LinkAddress):
            self.holds.discard(LocalRoute(fact.link, fact.address, KERNEL_LOCAL_TABLE))
        self._heard.set()

    def lease(self, place: LinkAddress, lease: Lease) -> None:
        self.leases[place] = lease

    def unlease(self, place: LinkAddress) -> None:
        self.leases.pop(place, None)

    def fence(self, address: IPAddress) -> str:
        if self.no_fence:
            return f"none: {self.no_fence}"
        held = any(isinstance(fact, Fence) and fact.address == address for fact in self.holds)
        return "nftables" if held else "none: it does not stand (yet)"

    async def link_local(self, link: LinkName) -> IPAddress:
        return ip_address("fe80::1")

    async def changes(self) -> AsyncIterator[None]:
        while True:
            await self._heard.wait()
            await asyncio.sleep(0.01)
            self._heard.clear()
            yield None

    async def node_address(
        self, link: LinkName, version: int, vips: frozenset[IPAddress]
    ) -> IPAddress:
        if self.down:
            raise self.down
        if (link, version) not in self.own:
            raise KernelError(99, f"read addresses of {link}", f"no IPv{version} address")
        return self.own[link, version]

    async def close(self) -> None:
        pass

    def addresses(self, link: str = "eth0") -> set[str]:
        return {str(f.address) for f in self.holds if isinstance(f, LinkAddress) and f.link == link}


@dataclass
class FakeProbe:
    """Asks what `Backends` says its backend answers."""

    backends: Backends
    backend: Backend
    lost: Callable[[str], None]
    closed: bool = False

    async def ask(self, *, fresh: bool) -> ProbeResult:
        await asyncio.sleep(0.001)
        return await self.backends.answer(self.backend)

    async def close(self) -> None:
        self.closed = True
        await asyncio.sleep(0)
        if self.backends.close_fails:
            raise OSError("cannot close")


@dataclass
class Backends:
    """All backends there are, by address: what they answer, and the probes that ask them."""

    answers: dict[IPAddress, Callable[[], Awaitable[ProbeResult]] | ProbeResult] = field(
        default_factory=dict
    )
    probes: list[FakeProbe] = field(default_factory=list)
    close_fails: bool = False

    async def answer(self, backend: Backend) -> ProbeResult:
        said = self.answers.get(backend.address, READY)
        return said if isinstance(said, ProbeResult) else await said()

    def __call__(
        self, backend: Backend, spec: ProbeSpec, timing: HealthTiming, lost: Callable[[str], None]
    ) -> BackendProbe:
        probe = FakeProbe(self, backend, lost)
        self.probes.append(probe)
        return probe


class FakeSource:
    """Discovery that says what it is told to."""

    def __init__(self) -> None:
        self._news: asyncio.Queue[BackendsNews | Exception] = asyncio.Queue()

    def say(self, news: BackendsNews | Exception) -> None:
        self._news.put_nowait(news)

    async def changes(self) -> AsyncIterator[BackendsNews]:
        while True:
            news = await self._news.get()
            if isinstance(news, Exception):
                raise news
            yield news


class FakeSpeaker:
    """A VRRP socket: `hear` brings an advert of another node, `said` is what this one sent."""

    def __init__(self) -> None:
        self.said: list[int] = []
        self.down: str | None = None
        self.gone: KernelError | None = None
        self._router: VirtualRouter | None = None
        self._inbox: list[Heard | Rejected] = []
        self._come = asyncio.Event()

    def __call__(
        self, link: LinkName, router: VirtualRouter, peers: Sequence[IPAddress]
    ) -> FakeSpeaker:
        self._router = router
        return self

    def hear(self, source: str, priority: int) -> None:
        if self._router is not None:
            router = self._router
            advert = Advertisement(router.vrid, priority, Span(router.interval), router.addresses)
            self._inbox.append(Heard(ip_address(source), advert))
            self._come.set()

    def refuse(self, refused: Rejected) -> None:
        self._inbox.append(refused)
        self._come.set()

    def open(self) -> None:
        if self.gone:
            raise self.gone

    def trouble(self) -> str | None:
        if self.gone:
            raise self.gone
        return self.down

    def send(self, priority: int) -> None:
        self.said.append(priority)

    def receive(self) -> list[Heard | Rejected]:
        inbox, self._inbox = self._inbox, []
        self._come.clear()
        return inbox

    def fileno(self) -> int:
        raise AssertionError("nobody polls a fake")

    async def come(self) -> None:
        await self._come.wait()

    def close(self) -> None:
        pass


class FakeSentry:
    """A link: `answering` are the hardware addresses that answer, `claim` brings a claim."""

    def __init__(self) -> None:
        self.answering: set[MacAddress] = set()
        self.known: dict[IPAddress, MacAddress] = {}
        self.asked = 0
        self.gone: KernelError | None = None
        self._inbox: list[Sighting] = []
        self._come = asyncio.Event()

    def __call__(self, place: LinkAddress, vrid: int | None) -> FakeSentry:
        return self

    def claim(self, seen: Sighting) -> None:
        self._inbox.append(seen)
        self._come.set()

    def open(self) -> None:
        if self.gone:
            raise self.gone

    def ask(self, source: IPAddress | None) -> None:
        if self.gone:
            raise self.gone
        self.asked += 1
        for mac in sorted(self.answering):
            self.claim(Claimed(mac))

    def receive(self) -> list[Sighting]:
        inbox, self._inbox = self._inbox, []
        self._come.clear()
        return inbox

    def neighbors(self) -> dict[IPAddress, MacAddress]:
        return self.known

    async def readable(self) -> None:
        await self._come.wait()

    def close(self) -> None:
        pass


class FakeKeeper:
    """A keeper that runs in the agent's loop: every packet goes both ways as bytes.

    It is a `LeasedAddresses`, too: what it renews is counted by the host.
    """

    def __init__(self, clock: FakeClock, speaker: FakeSpeaker, host: FakeHost) -> None:
        self._clock = clock
        self._speaker = speaker
        self._host = host
        self._running: asyncio.Task[None] | None = None
        self._inbox: list[bytes] = []
        self._outbox: list[bytes] = []
        self._heard = asyncio.Event()
        self._said = asyncio.Event()
        self.starts = 0
        self.start_takes = 0.0
        """Seconds from the start to the first deed."""
        self.deaf = False
        """Whether the agent's words do not reach it: the agent is frozen."""
        self.frozen = False
        """Whether it does nothing."""

    def start(self) -> None:
        self.starts += 1
        self._inbox, self._outbox, self.frozen = [], [], False
        keeper = Keeper(self._clock, self._speaker, self, self._host.fences, self.say)
        self._running = asyncio.ensure_future(self._run(keeper))

    def die(self) -> None:
        """End it as kill -9 does."""
        if self._running is not None:
            self._running.cancel()
        self._outbox.append(b"")
        self._said.set()

    def send(self, packet: bytes) -> bool:
        if not self.deaf:
            self._inbox.append(packet)
            self._heard.set()
        return True

    def receive(self) -> list[bytes]:
        said, self._outbox = self._outbox, []
        self._said.clear()
        return said

    async def readable(self) -> None:
        await self._said.wait()

    def close(self, *, kill: bool = False) -> None:
        self._inbox.append(b"")
        self._heard.set()
        if kill and self._running is not None:
            self._running.cancel()

    def renew(self, place: LinkAddress, lease: Lease) -> None:
        if place in self._host.holds:
            self._host.renewed += 1
            self._host.leases[place] = lease

    def remove(self, place: LinkAddress) -> None:
        if place in self._host.holds:
            self._host.take(place)

    def say(self, packet: bytes) -> bool:
        self._outbox.append(packet)
        self._said.set()
        return True

    async def _run(self, keeper: Keeper) -> None:
        await asyncio.sleep(self.start_takes)
        while not keeper.done:
            if not self.frozen:
                self._heard.clear()
                inbox, self._inbox = self._inbox, []
                for packet in inbox:
                    keeper.hear(packet)
                due = keeper.turn(self._clock.now())
                waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._heard.wait())]
                waits += [asyncio.ensure_future(self._speaker.come()) for _ in keeper.speakers]
                left = max(0, due - self._clock.now()) / 1000
                await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                for wait in waits:
                    wait.cancel()
            else:
                await asyncio.sleep(0.05)


class FakeOwnership:
    """A record in memory; `full` is a disk without room."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.full = False

    @property
    def keys(self) -> frozenset[ServiceKey]:
        return self.record.keys

    def read(self) -> Record:
        return self.record

    def write(self, record: Record) -> None:
        if self.full:
            raise TransientError("cannot write state.json: no space left on device")
        self.record = record


class Stage:
    """A real agent among fakes: `async with Stage(spec) as stage`."""

    def __init__(self, spec: Spec, recorded: Record = NOTHING_RECORDED) -> None:
        self.spec = spec
        self.clock = FakeClock()
        self.kernel = FakeKernel()
        self.host = FakeHost()
        self.host.deeds = self.kernel.deeds
        self.backends = Backends()
        self.speaker = FakeSpeaker()
        self.sentry: FakeSentry | None = None
        """None asks nobody, as on a host that is not managed."""
        self.keeper = FakeKeeper(self.clock, self.speaker, self.host)
        self.sources: dict[str, FakeSource] = {}
        self.ownership = FakeOwnership(recorded)
        self.journal = Journal(spec.node, json_lines=False)
        self.reload_says: str | None = None
        self.prepare: Callable[[Agent], None] = lambda _: None
        """Called with the agent before it runs, to add parts."""
        self.culprits: Callable[[], Iterable[str]] = lambda: ("ipvsadm (pid 7)",)
        self.agent: Agent
        self.task: asyncio.Task[None]

    async def __aenter__(self) -> Stage:
        ports = Ports(
            self.clock,
            self.kernel,
            self.host if self.spec.manage_host else None,
            self.backends,
            self._source,
            self.ownership,
            lambda: self.culprits(),
            self.keeper,
            sentry=self.sentry,
        )
        self.agent = Agent(self.spec, ports, self.journal)
        self.prepare(self.agent)
        self.task = asyncio.create_task(self.agent.run())
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is None:
            await self.stop()
        else:
            self.task.cancel()

    def _source(self, server: VirtualServerSpec) -> BackendSource | None:
        if server.backends_file is None:
            return None
        return self.sources.setdefault(server.name, FakeSource())

    async def stop(self) -> None:
        """End the agent as SIGTERM does; raises what it raises."""
        self.agent.stop()
        await self.task

    async def until(self, true: Callable[[], object], seconds: float = 60.0) -> float:
        """Wait until `true()`; return how many seconds that took.  Raises TimeoutError."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not true():
            if self.task.done():
                self.task.result()
                raise AssertionError("the agent has ended")
            if loop.time() > began + seconds:
                raise TimeoutError([e.note.text for e in self.journal.history.events][-8:])
            await asyncio.sleep(0.001)
        return loop.time() - began

    async def pass_by(self, seconds: float) -> None:
        """Let so much time pass, with an agent that lives."""
        await asyncio.sleep(seconds)
        if self.task.done():
            self.task.result()
            raise AssertionError("the agent has ended")

    def weights(self, name: str = "api") -> dict[str, int]:
        """Return the kernel's weights of one virtual server by address."""
        server = next(s for s in self.agent.spec.virtual_servers if s.name == name)
        seen = self.kernel.table.get(server.key)
        return {str(d.address): d.weight for d in (seen.destinations if seen else ())}

    def order(self, *words: str) -> list[str]:
        """Return which of `words` each deed so far has in it, in the order of the deeds."""
        return [word for deed in self.kernel.deeds for word in words if word in deed]

    def told(self, kind: Kind) -> list[str]:
        """Return the texts of all notes of a kind."""
        events = self.journal.history.events
        return [event.note.text for event in events if event.note.kind is kind]

    def command(self, name: str, **arguments: object) -> Any:
        """Do what the control socket would."""
        commands = Commands(
            self.agent,
            lambda agent: status(agent.node, agent.ports.clock.now()),
            lambda: self.reload_says,
        )
        return commands.table()[name](arguments)
