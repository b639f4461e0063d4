"""Who else has our addresses: one watch for each that this node has or may come to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from revip.agent.outside import Ports
from revip.agent.watching import Surroundings, Watch
from revip.errors import KernelError
from revip.model.host import HostState, LinkAddress
from revip.model.instants import SECOND, Span
from revip.model.ipvs import IPAddress
from revip.model.notes import Kind, Level, Note
from revip.model.spec import Spec, VirtualServerSpec
from revip.planner.conflict import Rules
from revip.planner.service import Service
from revip.ports import Host, SentryFactory

OPERATORS_WINDOW = Span(10_000)
"""Without an election two nodes have the address while one file after the other is rewritten."""
PATIENCE = 2
"""Intervals within which a living holder has sent an advert."""


class Conflicts:
    """Starts, ends and asks the watches of one node; none where nobody can be asked."""

    def __init__(
        self,
        ports: Ports,
        start: Callable[[str, Callable[[], Awaitable[None]]], asyncio.Task[None]],
        look: Callable[[], None],
        again: Callable[[LinkAddress], None],
        note: Callable[[Note], None],
    ) -> None:
        """Remember `look` (have the host compared) and `again` (announce once more)."""
        self._ports = ports
        self._services: Mapping[str, Service] = {}
        self._start = start
        self._look = look
        self._again = again
        self._note = note
        self._running: dict[str, tuple[LinkAddress, Rules, Watch, asyncio.Task[None]]] = {}

    def follow(self, spec: Spec, services: Mapping[str, Service]) -> None:
        """Begin to watch new or changed addresses, end with what is not ours any more.

        `services` are read whenever it matters which nodes are fellows.
        """
        self._services = services
        host, sentry = self._ports.host, self._ports.sentry
        if host is None or sentry is None:
            return
        ours = {each.name: each for each in spec.virtual_servers if _may_come_here(spec, each)}
        before = list(self._running.values())
        by_address = {(place, rules): known for known in before for place, rules in (known[:2],)}
        self._running = {}
        for name, server in ours.items():
            what = _place(server), _rules(server)
            if what not in by_address:
                watch = Watch(*what, self._surroundings(server, host, sentry))
                task = self._start(f"watch for a second {server.address} ({name})", watch.run)
                by_address[what] = *what, watch, task
            self._running[name] = by_address[what]  # several ports of one address share it
        for known in before:
            if known not in self._running.values():
                known[3].cancel()

    def hold(self, held: frozenset[LinkAddress]) -> None:
        """Learn which addresses are on a real interface, by our will."""
        for place, _, watch, _ in self._running.values():
            watch.hold(place in held)

    async def permits(self, name: str) -> bool:
        """Return whether a static director may have its address; an elected one always may.

        An election is told by `objection`, so that it gives the address to a peer.
        """
        running = self._running.get(name)
        return running is None or running[1].vrid is not None or await running[2].permits()

    async def leads(
        self, services: Iterable[Service], keeps: Callable[[str], bool]
    ) -> list[tuple[VirtualServerSpec, bool]]:
        """Return which of `services` direct here; `keeps` is what their elections say, by name."""
        return [
            (
                each.spec,
                each.directing and keeps(each.spec.name) and await self.permits(each.spec.name),
            )
            for each in services
        ]

    def objection(self, name: str) -> str | None:
        """Return why this node leaves an address to somebody else, None when it does not."""
        running = self._running.get(name)
        return running[2].objection() if running else None

    def status(self, name: str) -> dict[str, Any] | None:
        """Return what an operator wants to know, None for what is not watched."""
        running = self._running.get(name)
        return running[2].status() if running else None

    def _surroundings(
        self, server: VirtualServerSpec, host: Host, sentry: SentryFactory
    ) -> Surroundings:
        place, rules, clock = _place(server), _rules(server), self._ports.clock

        async def had() -> bool:
            if server.vrrp is not None:
                return False  # its lifetime is over soon, and the election listens first
            return place in await host.observe(HostState(frozenset({place})))

        async def source() -> IPAddress | None:
            if place.address.version == 4:
                return None
            try:
                return await host.link_local(place.link)
            except KernelError:
                return None

        def fellows() -> Mapping[IPAddress, str]:
            service = self._services.get(server.name)
            known = [entry.backend for entry in service.entries.values()] if service else []
            peers = server.vrrp.peers if server.vrrp else ()
            return {**dict.fromkeys(peers, "a peer"), **{b.address: b.name for b in known}}

        return Surroundings(
            clock,
            lambda: sentry(place, rules.vrid),
            had,
            source,
            fellows,
            self._look,
            lambda: self._again(place),
            lambda kind, text, level: self._say(kind, text, level, server.name),
        )

    def _say(self, kind: Kind, text: str, level: Level, name: str) -> None:
        self._note(Note(self._ports.clock.now(), kind, text, level, name))


def _may_come_here(spec: Spec, server: VirtualServerSpec) -> bool:
    return server.vrrp is not None or server.owner == spec.node


def _place(server: VirtualServerSpec) -> LinkAddress:
    return LinkAddress(server.interface, server.address)


def _rules(server: VirtualServerSpec) -> Rules:
    if server.vrrp is None:
        return Rules(server.address, server.on_duplicate, OPERATORS_WINDOW)
    return Rules(
        server.address,
        server.on_duplicate,
        Span(server.vrrp.address_lifetime + SECOND),
        Span(PATIENCE * server.vrrp.advert_interval),
        server.vrrp.vrid,
    )
