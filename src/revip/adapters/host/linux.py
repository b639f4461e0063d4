"""The port `Host` on Linux: which facts hold, and making them hold or not."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import assert_never

from revip.adapters.host.fencing import Fencing
from revip.adapters.host.leases import Leases
from revip.adapters.host.links import LinkFact, Links
from revip.adapters.host.notices import Notices
from revip.adapters.host.packet_filter import PacketFilter
from revip.adapters.host.record import Record
from revip.adapters.host.refusals import refusal
from revip.adapters.host.rtnetlink import Rtnetlink
from revip.adapters.host.syncing import Syncing
from revip.adapters.host.sysctls import Sysctls
from revip.model.host import (
    DummyLink,
    Fence,
    HostFact,
    HostState,
    Lease,
    LinkAddress,
    LocalRoute,
    Snat,
    SourceHintRoute,
    Sysctl,
    Untracked,
    WireRule,
)
from revip.model.ipvs import IPAddress
from revip.model.spec import LinkName
from revip.model.sync import SyncDaemon
from revip.ports import Fences, SyncDaemons

UNANNOUNCED = 0.5
"""Seconds between looks at the sync daemons, of which the kernel announces nothing, and fences."""
RECHECK = 10.0
"""Seconds after which links, addresses, routes and rules are read although nothing was heard."""

_TRACKING = "net/netfilter/nf_conntrack_count"
"""Below /proc/sys, where this kernel tracks connections."""


class LinuxHost:
    """Links, addresses, routes, rules, sysctls and packet filter of the calling thread's namespace.

    Reading rtnetlink costs milliseconds and it announces each change, so what was read is good
    until something is heard, or for `RECHECK` seconds.  Sysctls announce nothing and are cheap:
    they are read each time.
    """

    def __init__(
        self,
        record: Path,
        daemons: SyncDaemons | None = None,
        fences: Fences | None = None,
        sysctl_root: Path = Path("/proc/sys"),
    ) -> None:
        """Keep former values in `record`; without `daemons` or `fences` there are none."""
        self._record = Record(record)
        self._netlink = Rtnetlink()
        self._leases = Leases()
        self._links = Links(self._netlink, self._leases)
        self._notices = Notices()
        self._sysctls = Sysctls(self._record, sysctl_root)
        self._filter = PacketFilter(self._record, tracking=sysctl_root / _TRACKING)
        self._syncing = Syncing(daemons, self._record)
        self._fencing = Fencing(fences, self._record, self._leases)
        self._read: tuple[frozenset[LinkFact], frozenset[HostFact], int, float] | None = None

    @property
    def trouble(self) -> str | None:
        """Why the record of former values cannot be kept, in one sentence; else None."""
        return self._record.trouble

    async def observe(self, wanted: HostState) -> frozenset[HostFact]:
        """Return those facts of `wanted` that hold now.  Raises `KernelError`."""
        self._record.load()
        facts = wanted.present | wanted.absent
        holds = set(await self._holding_links(_link_facts(facts)))
        for fact in wanted.present:
            if isinstance(fact, Sysctl) and self._sysctls.in_force(fact):
                holds.add(fact)
        for fact in wanted.absent:
            if isinstance(fact, Sysctl) and self._sysctls.is_ours(fact):
                holds.add(fact)
        holds |= self._syncing.holding(wanted.present, wanted.absent)
        holds |= self._fencing.holding(wanted.present, wanted.absent)
        holds |= self._filter.ours(f for f in wanted.absent if isinstance(f, Snat | Untracked))
        if needed := frozenset(f for f in wanted.present if isinstance(f, Snat | Untracked)):
            holds |= await self._filter.in_force(needed)
        return frozenset(holds)

    async def apply(self, remove: Sequence[HostFact], add: Sequence[HostFact]) -> None:
        """Make `remove` untrue, then `add` true, each in order; stop at the first refusal.

        Raises `KernelError`.  What was done before it stays.
        """
        self._record.load()
        self._read = None
        for fact in remove:
            await self._withdraw(fact)
        for fact in add:
            await self._establish(fact)

    def lease(self, place: LinkAddress, lease: Lease) -> None:
        """From now on write `place` with a lifetime, and not after the lease's end."""
        self._leases.set(place, lease)

    def unlease(self, place: LinkAddress) -> None:
        """From now on write `place` for ever, as every other address."""
        self._leases.set(place, None)

    def fence(self, address: IPAddress) -> str:
        """Return `nftables` where the fence of `address` stands, else `none: ` and why."""
        return self._fencing.told(address)

    async def link_local(self, link: LinkName) -> IPAddress:
        """Return the link-local IPv6 address of `link`; `KernelError` without one."""
        for address in await self._links.link_local(link):
            return address
        sentence = f"{link} has no link-local address; is IPv6 disabled on it?"
        raise refusal(errno.EADDRNOTAVAIL, f"read addresses of {link}", sentence)

    async def changes(self) -> AsyncIterator[None]:
        """Yield once after each burst of link, address, route, rule, sync daemon or fence changes.

        Raises `KernelError` when the socket cannot be opened.
        """
        while True:
            try:
                async with asyncio.timeout(UNANNOUNCED):
                    await self._notices.next()
            except TimeoutError:
                if not (self._syncing.changed() or self._fencing.changed()):
                    continue
            except OSError as error:
                raise refusal(error.errno or errno.EIO, "listen for changes of the host") from error
            yield None

    async def node_address(
        self, link: LinkName, version: int, vips: frozenset[IPAddress] = frozenset()
    ) -> IPAddress:
        """Return the first global address of `link` in a family that is not one of `vips`.

        Raises `KernelError`: ENODEV without the interface, EADDRNOTAVAIL without an address.
        """
        for address in await self._links.own_addresses(link, version):
            if address not in vips:
                return address
        sentence = f"{link} has no global IPv{version} address; set `node_address`"
        raise refusal(errno.EADDRNOTAVAIL, f"read addresses of {link}", sentence)

    async def close(self) -> None:
        """Give the sockets back; the next call opens others."""
        await self._filter.close()
        self._fencing.close()
        self._notices.close()
        self._netlink.close()
        self._read = None

    async def _holding_links(self, facts: frozenset[LinkFact]) -> frozenset[HostFact]:
        try:
            heard = self._notices.count()
        except OSError as error:
            raise refusal(error.errno or errno.EIO, "listen for changes of the host") from error
        now = asyncio.get_running_loop().time()
        if self._read is not None:
            asked, answer, then, read_at = self._read
            if asked == facts and then == heard and now < read_at + RECHECK:
                return answer
        self._notices.watch(frozenset(word for fact in facts for word in _words(fact)))
        # Counted before reading: a change during it makes the next call read again.
        answer = await self._links.holding(facts)
        self._read = (facts, answer, heard, now)
        return answer

    async def _establish(self, fact: HostFact) -> None:
        match fact:
            case Sysctl():
                self._sysctls.give(fact)
            case Snat() | Untracked():
                await self._filter.give(fact)
            case SyncDaemon():
                self._syncing.give(fact)
            case Fence():
                self._fencing.give(fact)
            case DummyLink() | LinkAddress() | LocalRoute() | SourceHintRoute() | WireRule():
                await self._links.establish(fact)
            case _:
                assert_never(fact)

    async def _withdraw(self, fact: HostFact) -> None:
        match fact:
            case Sysctl():
                self._sysctls.restore(fact)
            case Snat() | Untracked():
                await self._filter.take(fact)
            case SyncDaemon():
                await self._syncing.take(fact)
            case Fence():
                self._fencing.take(fact)
            case DummyLink() | LinkAddress() | LocalRoute() | SourceHintRoute() | WireRule():
                await self._links.withdraw(fact)
            case _:
                assert_never(fact)


def _words(fact: LinkFact) -> Iterator[bytes]:
    """Yield what a notice about `fact` has in it, byte for byte."""
    if isinstance(fact, DummyLink):
        yield fact.name.encode() + b"\0"
        return
    yield fact.link.encode() + b"\0"
    yield fact.address.packed
    if isinstance(fact, LocalRoute | SourceHintRoute) and fact.source is not None:
        # A route goes without a word when its source address goes.
        yield fact.source.packed


def _link_facts(facts: frozenset[HostFact]) -> frozenset[LinkFact]:
    others = Sysctl | Snat | Untracked | Fence | SyncDaemon
    return frozenset(fact for fact in facts if not isinstance(fact, others))
