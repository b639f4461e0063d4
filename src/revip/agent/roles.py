"""What this host must be: the parts of all virtual servers, and nothing of what they once were."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import replace

from revip.agent.hosting import Role
from revip.errors import KernelError
from revip.model.host import HostState
from revip.model.ipvs import IPAddress, ServiceKey
from revip.model.spec import Spec, VirtualServerSpec
from revip.planner.host import combined, host_state, undone
from revip.planner.sync import sync_state, synced
from revip.ports import Host


class Roles:
    """Works out the role of this host, and remembers every fact that any role has named."""

    def __init__(
        self, host: Host, recorded: Iterable[ServiceKey], strangers: Callable[[], bool]
    ) -> None:
        """Take `recorded`, the virtual servers of earlier runs, whose addresses may be left.

        `strangers` tells whether there are other people's virtual servers, or raises `KernelError`.
        """
        self._host = host
        self._strangers = strangers
        self._others = False
        self._recorded = frozenset(recorded)
        self._named = HostState()
        self._parts: dict[tuple[VirtualServerSpec, bool], HostState] = {}
        """By virtual server and whether it directs: good also while its own address is away."""

    async def role(
        self,
        spec: Spec,
        services: Sequence[tuple[VirtualServerSpec, bool]],
        tabled: Set[ServiceKey],
    ) -> Role:
        """Return what the present `services`, and whether they lead here, ask of this host.

        `tabled` are those that have a table here, if only until the address has gone.

        One that cannot be worked out (its interface is missing) keeps its former part, if it had
        one for the same role, and spoils no other's.
        """
        parts: dict[tuple[VirtualServerSpec, bool], HostState] = {}
        problem: KernelError | None = None
        for server, directing in services:
            try:
                source = await self.source(spec, server)
                parts[server, directing] = host_state(spec, server, directing, source)
            except KernelError as error:
                problem = problem or error
                if known := self._parts.get((server, directing)):
                    parts[server, directing] = known
        self._parts = parts
        await self._name_recorded(spec)
        everything = (
            self._sync(spec, services, tabled),
            *parts.values(),
            undone(self._named),
        )
        self._named = combined((self._named, combined(everything)))
        return Role(everything, problem)

    async def source(self, spec: Spec, server: VirtualServerSpec) -> IPAddress:
        """Return this node's own address of the VIP's family; `KernelError` without one."""
        chosen, version = spec.node_address, server.address.version
        if chosen is not None and chosen.version == version:
            return chosen
        vips = frozenset(known.address for known in spec.virtual_servers)
        vips |= {key.address for key in self._recorded}
        return await self._host.node_address(server.interface, version, vips)

    def _sync(
        self,
        spec: Spec,
        services: Sequence[tuple[VirtualServerSpec, bool]],
        tabled: Set[ServiceKey],
    ) -> HostState:
        present = replace(spec, virtual_servers=tuple(server for server, _ in services))
        directed = {server.key for server, leading in services if leading}
        if synced(present):
            with contextlib.suppress(KernelError):  # said by whoever writes the table
                self._others = self._strangers()
        return sync_state(present, directed, tabled, strangers=self._others)

    async def _name_recorded(self, spec: Spec) -> None:
        """Name what an earlier run may have left, on the interfaces that are configured now."""
        present = frozenset(server.key for server in spec.virtual_servers)
        for key in self._recorded - present:
            for server in spec.virtual_servers:
                old = replace(server, address=key.address, port=key.port)
                try:
                    state = host_state(spec, old, True, await self.source(spec, old))
                except KernelError:
                    continue  # without an address of that family there was no such part
                self._named = combined((self._named, state))
        self._recorded = frozenset()
