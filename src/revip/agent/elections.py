"""The elections of this node: one for each virtual server that has one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from revip.agent.electing import Election, Outside
from revip.agent.fitness import fitness
from revip.model.host import LinkAddress
from revip.model.ipvs import IPAddress
from revip.model.notes import Note
from revip.model.spec import Spec, VirtualServerSpec, VrrpSpec
from revip.model.vrrp import STOPPING
from revip.planner.service import Service, ballot
from revip.ports import Clock, Host, SpeakerFactory


@dataclass(frozen=True, slots=True)
class Station:
    """What elections need of the agent that they are held on."""

    clock: Clock
    host: Host
    speaker: SpeakerFactory
    source: Callable[[VirtualServerSpec], Awaitable[IPAddress]]
    """This node's own address of the VIP's family."""
    service: Callable[[str], Service | None]
    """The machine of a virtual server, by name."""
    paused: Callable[[], bool]
    objection: Callable[[str], str | None]
    """Why this node must not direct a virtual server, None when it may."""
    lead: Callable[[str, bool, str], None]
    """Told when this node begins and ceases to direct a virtual server, and why."""
    renew: Callable[[LinkAddress], None]
    """Have the kernel's lifetime renewed soon, if the address is there."""
    again: Callable[[LinkAddress], None]
    """Have the address announced once more."""
    start: Callable[[str, Callable[[], Awaitable[None]]], asyncio.Task[None]]
    """Keep a task running, by name."""
    note: Callable[[Note], None]


class Elections:
    """Starts, ends and asks the elections of one node; none where nothing can be elected."""

    def __init__(self, station: Station | None) -> None:
        self._station = station
        self._running: dict[str, tuple[VirtualServerSpec, Election, asyncio.Task[None]]] = {}
        self._own: dict[str, IPAddress] = {}
        """This node's own address, by virtual server."""

    def get(self, name: str) -> Election | None:
        """Return the election of a virtual server, None where there is none."""
        running = self._running.get(name)
        return running[1] if running else None

    def all(self) -> list[Election]:
        """Return those that are held at present."""
        return [election for _, election, _ in self._running.values()]

    def follow(self, spec: Spec) -> None:
        """Start the election of new or changed virtual servers, end that of vanished ones."""
        wanted = {server.name: server for server in spec.virtual_servers if server.vrrp is not None}
        for name, (server, election, task) in list(self._running.items()):
            if name not in wanted or ballot(wanted[name]) != ballot(server):
                del self._running[name]
                election.withdraw("the configuration has changed")
                task.cancel()
                if self._station is not None:
                    self._station.host.unlease(election.place)
        for name, server in wanted.items():
            vrrp = server.vrrp if name not in self._running else None
            if vrrp is not None and self._station is not None:
                election = self._election(self._station, server, vrrp)
                task = self._station.start(f"election {name}", election.run)
                self._running[name] = (server, election, task)

    def keeps(self, name: str) -> bool:
        """Return whether a virtual server's address may be here: always, where none elects it."""
        election = self.get(name)
        return election is None or election.keeps()

    def may_announce(self, place: LinkAddress) -> bool:
        """Return whether an address may be announced at this moment."""
        return all(each.keeps() for each in self.all() if each.place == place)

    async def resign(self, reason: str) -> bool:
        """Give every address to a successor; return whether this node had any."""
        led = any(each.leading for each in self.all())
        await asyncio.gather(*(each.resign(reason) for each in self.all()))
        return led

    def _election(self, station: Station, server: VirtualServerSpec, vrrp: VrrpSpec) -> Election:
        multicast6 = server.address.version == 6 and not vrrp.peers

        async def source() -> IPAddress:
            own = await station.source(server)
            self._own[server.name] = own
            return await station.host.link_local(server.interface) if multicast6 else own

        def worth() -> tuple[int, str]:
            service = station.service(server.name)
            own, leading = self._own.get(server.name), bool(service and service.elected)
            if objection := station.objection(server.name):
                return STOPPING, objection
            return fitness(vrrp, service, own, waits=station.paused() and not leading)

        outside = Outside(
            station.clock,
            station.speaker,
            source,
            worth,
            station.host.lease,
            station.renew,
            lambda leading, reason: station.lead(server.name, leading, reason),
            station.again,
            station.note,
        )
        return Election(server, vrrp, outside)
