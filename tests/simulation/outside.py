"""What the agent's own code is given in place of Linux: table, host and speaker."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Generator, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING

from revip.errors import KernelError
from revip.model.host import Fence, HostFact, HostState, Lease, LinkAddress
from revip.model.instants import Instant
from revip.model.ipvs import Change, IPAddress, Observation, ServiceKey
from revip.model.spec import LinkName
from revip.model.vrrp import Heard, VirtualRouter
from revip.planner.diff import describe, key_of
from revip.wire.vrrp import Rejected

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.keeper import Process


class Stalled:
    """Awaited, it suspends the agent's own code in mid-operation: the process was stopped."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class TablePort:
    """The port `KernelTable` on one simulated kernel."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def observe(self, keys: frozenset[ServiceKey] | None = None) -> Observation:
        return self._host.kernel.observe(keys or frozenset())

    def apply(self, changes: Sequence[Change]) -> None:
        kernel, key = self._host.kernel, key_of(changes[0])
        for change in changes:
            before = kernel.taking(key)
            kernel.write(change)
            self._host.world.trace(self._host.number, describe(change))
            self._host.world.checks.wrote_table(self._host, change, before, kernel.taking(key))

    def close(self) -> None:
        pass


class HostPort:
    """The port `Host`, with the leases as `revip.adapters.host.leases` keeps them."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._clock = host.clock
        self._leases: dict[LinkAddress, Lease] = {}

    async def observe(self, wanted: HostState) -> frozenset[HostFact]:
        return frozenset(self._host.kernel.facts & (wanted.present | wanted.absent))

    async def apply(self, remove: Sequence[HostFact], add: Sequence[HostFact]) -> None:
        for fact in remove:
            self._host.kernel.refuse("address", f"remove {fact}")
            self._host.withdraw(fact)
        for fact in add:
            if fact == self._host.vip:
                await self._write(self._host.vip)
            else:
                self._host.establish(fact, None)

    def lease(self, place: LinkAddress, lease: Lease) -> None:
        self._leases[place] = lease

    def unlease(self, place: LinkAddress) -> None:
        self._leases.pop(place, None)

    def fence(self, address: IPAddress) -> str:
        return "none: no nftables in a simulated kernel"

    async def _write(self, place: LinkAddress) -> None:
        lease = self._leases.get(place)
        self._demand(place, lease)
        if (lasts := self._host.stall) is not None:
            self._host.stall = None
            self._host.freeze_for(lasts)
            await Stalled()
        self._host.kernel.refuse("address", f"write {place}")
        self._host.establish(place, lease.lifetime if lease else None)
        if lease is not None and self._clock.now() > self._leases[place].ends:
            self._host.withdraw(place)
        self._host.world.checks.wrote_address(self._host)
        self._demand(place, lease)

    def _demand(self, place: LinkAddress, lease: Lease | None) -> None:
        if lease is not None and self._clock.now() > self._leases[place].ends:
            raise KernelError(errno.ETIME, f"write {place}", "the lease is over")

    async def link_local(self, link: LinkName) -> IPAddress:
        return ip_address(f"fe80::{16 + self._host.number:x}")

    async def changes(self) -> AsyncIterator[None]:
        yield None  # notices come by `Host.notice`

    async def node_address(
        self, link: LinkName, version: int, vips: frozenset[IPAddress]
    ) -> IPAddress:
        return self._host.world.setup.addresses[self._host.number]

    async def close(self) -> None:
        pass


class NoFences:
    """The port `Fences` of a kernel without nf_tables; only `open` is called by a keeper."""

    def open(self, place: LinkAddress, until: Instant) -> bool:
        raise KernelError(errno.ENOSYS, f"open the fence of {place}", "no nftables here")

    def stands(self, fence: Fence) -> bool:
        return False

    def exists(self, address: IPAddress) -> bool:
        return False

    def is_open(self, address: IPAddress) -> bool:
        return True

    def build(self, fence: Fence, until: Instant) -> None:
        pass

    def destroy(self, address: IPAddress) -> None:
        pass

    def close(self) -> None:
        pass


class KeepersAddresses:
    """The port `LeasedAddresses`."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def renew(self, place: LinkAddress, lease: Lease) -> None:
        if not self._host.has_vip:
            return
        if self._host.clock.now() > lease.ends:
            raise KernelError(errno.ETIME, f"renew {place}", "the lease is over")
        self._host.kernel.refuse("address", f"renew {place}")
        self._host.establish(place, lease.lifetime)
        self._host.world.checks.wrote_address(self._host)

    def remove(self, place: LinkAddress) -> None:
        self._host.kernel.refuse("address", f"remove {place}")
        self._host.withdraw(place)


class Ear:
    """The port `Speaker`: a socket of a keeper's on the simulated segment."""

    def __init__(self, process: Process, router: VirtualRouter) -> None:
        self._process = process
        self._host = process.host
        self._router = router

    def open(self) -> None:
        self._process.adverts.clear()

    def trouble(self) -> str | None:
        return None if self._host.carrier else "no carrier"

    def send(self, priority: int) -> None:
        if self._host.mute:
            raise KernelError(errno.EPERM, "send an advert", "a packet filter forbids it")
        self._host.said_at = self._host.clock.now()
        if self._host.carrier:
            heard = Heard(self._router.source, self._router.advert(priority))
            self._host.world.network.multicast(self._host.number, heard)

    def receive(self) -> list[Heard | Rejected]:
        came, self._process.adverts = self._process.adverts, []
        return list(came)

    def fileno(self) -> int:
        return -1  # nobody polls: what comes is told

    def close(self) -> None:
        self._process.adverts.clear()
