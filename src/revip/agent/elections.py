"""The elections of this node: one for each virtual server that has one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from revip.agent.fitness import fitness
from revip.agent.kept import Keeping, KeptElection, Ties
from revip.errors import KernelError
from revip.model.host import LinkAddress
from revip.model.ipvs import IPAddress
from revip.model.notes import Kind, Level, Note
from revip.model.spec import Spec, VirtualServerSpec, VrrpSpec
from revip.model.vrrp import STOPPING
from revip.planner.grip import Grip
from revip.planner.host import fence_of
from revip.planner.service import Service, ballot
from revip.ports import Clock, Host, KeeperLink

NO_FENCE = "none: three adverts take as long as the address's lifetime, which bounds"


@dataclass(frozen=True, slots=True)
class Station:
    """What elections need of the agent that they are held on."""

    clock: Clock
    host: Host
    keeper: KeeperLink
    source: Callable[[VirtualServerSpec], Awaitable[IPAddress]]
    """This node's own address of the VIP's family."""
    service: Callable[[str], Service | None]
    """The machine of a virtual server, by name."""
    paused: Callable[[], bool]
    objection: Callable[[str], str | None]
    """Why this node must not direct a virtual server, None when it may."""
    lead: Callable[[str, bool, str], None]
    """Told when this node begins and ceases to direct a virtual server, and why."""
    again: Callable[[LinkAddress], None]
    """Have the address announced once more."""
    start: Callable[[str, Callable[[], Awaitable[None]]], asyncio.Task[None]]
    """Keep a task running, by name."""
    note: Callable[[Note], None]


class Elections:
    """Starts, ends and asks the elections of one node; none where nothing can be elected."""

    def __init__(self, station: Station | None) -> None:
        self._station = station
        self._running: dict[str, tuple[VirtualServerSpec, KeptElection]] = {}
        self._own: dict[str, IPAddress] = {}
        """This node's own address, by virtual server."""
        self._grips: dict[LinkAddress, Grip] = {}
        self._keeping: Keeping | None = None
        if station is not None:
            self._keeping = Keeping(station.clock, station.keeper, station.note)
        self._task: asyncio.Task[None] | None = None
        self._told = ""
        """What was told last of the fence."""

    def get(self, name: str) -> KeptElection | None:
        """Return the election of a virtual server, None where there is none."""
        running = self._running.get(name)
        return running[1] if running else None

    def all(self) -> list[KeptElection]:
        """Return those that are held at present."""
        return [election for _, election in self._running.values()]

    def follow(self, spec: Spec) -> None:
        """Start the election of new or changed virtual servers, end that of vanished ones."""
        if self._station is None or self._keeping is None:
            return
        wanted = {server.name: server for server in spec.virtual_servers if server.vrrp is not None}
        for name, (server, election) in list(self._running.items()):
            if name not in wanted or ballot(wanted[name]) != ballot(server):
                del self._running[name]
                self._grips.pop(election.place, None)
                self._keeping.remove(name)
                self._station.host.unlease(election.place)
        for name, server in wanted.items():
            vrrp = server.vrrp if name not in self._running else None
            if vrrp is not None:
                election = self._election(self._station, self._keeping, server, vrrp)
                self._running[name] = server, election
                self._keeping.add(election)
        if self._running and self._task is None:
            self._task = self._station.start("keeper", self._keeping.run)
        elif not self._running and self._task is not None:
            self._task.cancel()
            self._task = None

    def keeps(self, name: str) -> bool:
        """Return whether a virtual server's address may be here: always, where none elects it."""
        election = self.get(name)
        return election is None or election.keeps()

    def hold(self, held: frozenset[LinkAddress], lacking: frozenset[LinkAddress]) -> None:
        """Learn which addresses are on their interfaces, and which are not but should be."""
        if self._station is not None:
            now = self._station.clock.now()
            for place, grip in self._grips.items():
                seen = grip.seen(now, held=place in held, lacking=place in lacking)
                self._grips[place] = seen

    def may_announce(self, place: LinkAddress) -> bool:
        """Return whether an address may be announced at this moment."""
        return all(each.keeps() for each in self.all() if each.place == place)

    async def resign(self, reason: str) -> bool:
        """Give every address to a successor; return whether this node had any."""
        led = any(each.leading for each in self.all())
        await asyncio.gather(*(each.resign(reason) for each in self.all()))
        return led

    def _slips(self, station: Station, place: LinkAddress) -> str | None:
        """Return why this node gives up an address that it does not get, None when it does not."""
        if station.paused():
            return None  # then nothing is put on an interface
        now = station.clock.now()
        grip = self._grips[place] = self._grips[place].at(now)
        return grip.objection(now)

    async def unfence(self) -> None:
        """Take the fences away: nobody is left to open them."""
        for server, _ in self._running.values():
            if self._station is not None:
                try:
                    await self._station.host.apply([fence_of(server)], [])
                except KernelError as error:
                    now = self._station.clock.now()
                    self._station.note(Note(now, Kind.HOST_FAILED, str(error), Level.ERROR))

    def _election(
        self, station: Station, keeping: Keeping, server: VirtualServerSpec, vrrp: VrrpSpec
    ) -> KeptElection:
        multicast6 = server.address.version == 6 and not vrrp.peers
        place = LinkAddress(server.interface, server.address)
        self._grips[place] = Grip(vrrp.address_lifetime)
        name, place = server.name, LinkAddress(server.interface, server.address)

        async def source() -> IPAddress:
            own = await station.source(server)
            self._own[server.name] = own
            return await station.host.link_local(server.interface) if multicast6 else own

        def worth() -> tuple[int, str]:
            service = station.service(server.name)
            own, leading = self._own.get(server.name), bool(service and service.elected)
            if objection := station.objection(server.name) or self._slips(station, place):
                return STOPPING, objection
            return fitness(vrrp, service, own, waits=station.paused() and not leading)

        def fence() -> str:
            return station.host.fence(server.address) if vrrp.fenced else NO_FENCE

        def lead(leading: bool, reason: str) -> None:
            station.lead(server.name, leading, reason)
            if leading and vrrp.fenced and (said := fence()) != self._told:
                self._told = said
                text = f"fence: {said}"
                station.note(Note(station.clock.now(), Kind.LEADERSHIP, text, Level.INFO, name))

        ties = Ties(
            worth,
            source,
            lead,
            lambda: station.again(place),
            lambda lease: station.host.lease(place, lease),
            fence,
        )
        return KeptElection(server.name, place, vrrp, ties, keeping)
