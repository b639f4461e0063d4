"""What the agent needs of the outside: one narrow Protocol each, with what it raises.

Ports take whole values, not steps, wherever the outside allows it; withdrawal of everything is
the empty value, so that shutdown is not a special case.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol

from revip.model.conflict import Sighting
from revip.model.discovery import BackendsNews
from revip.model.health import Backend, HealthTiming, ProbeResult
from revip.model.host import Fence, HostFact, HostState, Lease, LinkAddress, MacAddress
from revip.model.instants import Instant, Span
from revip.model.ipvs import Change, IPAddress, Observation, ServiceKey
from revip.model.notify import Message
from revip.model.record import Record
from revip.model.spec import LinkName, ProbeSpec
from revip.model.sync import SyncDaemon, SyncRole
from revip.model.vrrp import Heard, VirtualRouter
from revip.wire.vrrp import Rejected


class Clock(Protocol):
    """The one source of time."""

    def now(self) -> Instant:
        """Return milliseconds of CLOCK_BOOTTIME."""
        ...


class KernelTable(Protocol):
    """The kernel's IPVS table in this network namespace."""

    def observe(self, keys: frozenset[ServiceKey] | None = None) -> Observation:
        """Dump the virtual servers named by `keys` (all when None), with counters.

        Raises `KernelError`; errno ENOENT (no such genetlink family) means that ip_vs is not
        loaded, EPERM that CAP_NET_ADMIN is missing.
        """
        ...

    def apply(self, changes: Sequence[Change]) -> None:
        """Apply `changes` in order; stop at the first that fails and raise its `KernelError`.

        Those before it are in force: the next observation tells which.
        """
        ...

    def strangers(self, keys: frozenset[ServiceKey]) -> bool:
        """Tell whether there is a virtual server that is none of `keys`.  Raises `KernelError`."""
        ...

    def close(self) -> None:
        """Give the socket back."""
        ...


class SyncDaemons(Protocol):
    """The connection synchronization daemons of this network namespace, and its table."""

    def observe(self, keys: frozenset[ServiceKey] | None = None) -> Observation:
        """See `KernelTable`."""
        ...

    def daemons(self) -> frozenset[SyncDaemon]:
        """Return those that run.  Raises `KernelError`."""
        ...

    def start_daemon(self, daemon: SyncDaemon) -> None:
        """Start `daemon`.  Raises `KernelError`: EEXIST while one of its role runs."""
        ...

    def stop_daemon(self, role: SyncRole) -> None:
        """Stop the daemon of `role`, if there is one.  Raises `KernelError`."""
        ...


class Host(Protocol):
    """Links, addresses, routes, rules, sysctls, packet filter, sync daemons of this namespace."""

    async def observe(self, wanted: HostState) -> frozenset[HostFact]:
        """Return those facts of `wanted` (present and absent) that hold now.

        Raises `KernelError`.
        """
        ...

    async def apply(self, remove: Sequence[HostFact], add: Sequence[HostFact]) -> None:
        """Make `remove` untrue, then `add` true, each in order.  Raises `KernelError`.

        For a sysctl, `remove` restores the value it had before revip first changed it.
        """
        ...

    def lease(self, place: LinkAddress, lease: Lease) -> None:
        """From now on write `place` with a lifetime, and not after the lease's end.

        `apply` raises `KernelError` then; what was written too late is taken away.
        """
        ...

    def unlease(self, place: LinkAddress) -> None:
        """From now on write `place` for ever, as every other address."""
        ...

    def fence(self, address: IPAddress) -> str:
        """Return `nftables` where there is a fence of `address`, else `none: ` and why."""

    async def link_local(self, link: LinkName) -> IPAddress:
        """Return the link-local IPv6 address of `link`; `KernelError` without one."""
        ...

    def changes(self) -> AsyncIterator[None]:
        """Yield once after each burst of link, address, route or rule changes (rtnetlink(7))."""
        ...

    async def node_address(
        self, link: LinkName, version: int, vips: frozenset[IPAddress]
    ) -> IPAddress:
        """Return this node's own address on `link`, IP version 4 or 6, that is none of `vips`.

        Raises `KernelError` with ENODEV or EADDRNOTAVAIL while there is none.
        """
        ...

    async def close(self) -> None:
        """Give the sockets back."""
        ...


class Announcer(Protocol):
    """Tells the neighbors on a link that an address is to be found here now."""

    def announce(self, place: LinkAddress) -> None:
        """Send the announcement once, to everybody: gratuitous ARP, or a neighbor advertisement.

        Raises `KernelError`: EPERM without CAP_NET_RAW, ENODEV without the link, ENETDOWN while
        it is down or has no carrier.
        """
        ...

    def close(self) -> None:
        """Give the sockets back."""
        ...


class Speaker(Protocol):
    """One VRRP group's ear and mouth on one link, as the link is now."""

    def open(self) -> None:
        """Begin to listen.  Raises `KernelError`."""
        ...

    def trouble(self) -> str | None:
        """Return why nothing can be sent at present (no carrier), None when all is well.

        Raises `KernelError` when the interface is gone or another has its name: open anew.
        """
        ...

    def send(self, priority: int) -> None:
        """Send one advert.  Raises `KernelError` when it has left for nobody."""
        ...

    def receive(self) -> list[Heard | Rejected]:
        """Return all that has come in so far.  Raises `KernelError`."""
        ...

    def fileno(self) -> int:
        """Return what polls as readable when there is something to receive."""
        ...

    def close(self) -> None:
        """Give the socket back."""
        ...


class SpeakerFactory(Protocol):
    """Makes the speaker of a group."""

    def __call__(
        self, link: LinkName, router: VirtualRouter, peers: Sequence[IPAddress]
    ) -> Speaker:
        """Return one that is not yet open; without `peers` it speaks by multicast."""
        ...


class Sentry(Protocol):
    """Asks and hears on one link who else has one address, as the link is now."""

    def open(self) -> None:
        """Begin to hear.

        Raises `KernelError`: EPERM without CAP_NET_RAW, ENODEV without the link.
        """
        ...

    def ask(self, source: IPAddress | None) -> None:
        """Ask once who has the address, as `source`, or as one who has none yet.

        Raises `KernelError`; ENETDOWN without a carrier, too.
        """
        ...

    def receive(self) -> list[Sighting]:
        """Return all that was heard so far, nothing of this host's own; fellows before claims.

        Raises `KernelError`.
        """
        ...

    def neighbors(self) -> Mapping[IPAddress, MacAddress]:
        """Return where on the link this host knows whom to be.  Raises `KernelError`."""
        ...

    async def readable(self) -> None:
        """Wait until somebody claims the address; fellows are heard when it is looked."""
        ...

    def close(self) -> None:
        """Give the sockets back."""
        ...


class SentryFactory(Protocol):
    """Makes the sentry of an address."""

    def __call__(self, place: LinkAddress, vrid: int | None) -> Sentry:
        """Return one that is not yet open; who speaks VRRP of group `vrid` is a fellow to it."""
        ...


class LeasedAddresses(Protocol):
    """Addresses with a lifetime, as the keeper has them: renewed and removed, never added."""

    def renew(self, place: LinkAddress, lease: Lease) -> None:
        """Give `place` its whole lifetime again, if it is there; not after the lease's end.

        Raises `KernelError`; what was written too late is taken away.
        """
        ...

    def remove(self, place: LinkAddress) -> None:
        """Take `place` away; that it is not there is success.  Raises `KernelError`."""
        ...


class Fences(Protocol):
    """Packet-filter fences: this host speaks about an address only while its adverts leave.

    All raise `KernelError`: `stands`, `build` and `open` ENOSYS where the kernel can have none.
    """

    def stands(self, fence: Fence) -> bool:
        """Return whether it is there and whole."""
        ...

    def exists(self, address: IPAddress) -> bool:
        """Return whether there is anything of one, whole or not."""
        ...

    def is_open(self, address: IPAddress) -> bool:
        """Return whether answers are let out at this moment; True without a fence."""
        ...

    def build(self, fence: Fence, until: Instant) -> None:
        """Make it, or make it anew, and let answers out until then."""
        ...

    def destroy(self, address: IPAddress) -> None:
        """Remove it; that there is none is success."""
        ...

    def open(self, place: LinkAddress, until: Instant) -> bool:
        """Let answers out until then, no longer but by an advert; return if there is a fence."""
        ...

    def close(self) -> None:
        """Give the socket back; the fences stay."""
        ...


class KeeperLink(Protocol):
    """The agent's end of its keeper, a process of its own."""

    def start(self) -> None:
        """Start a keeper.  Raises `KernelError`."""
        ...

    def send(self, packet: bytes) -> bool:
        """Give it a packet; False when it has no room for it, or has ended."""
        ...

    def receive(self) -> list[bytes]:
        """Return all that it has said so far; an empty packet, always the last, is its end."""
        ...

    async def readable(self) -> None:
        """Wait until there is something to receive."""
        ...

    def close(self, *, kill: bool = False) -> None:
        """Let go of it: it gives the addresses away and ends; `kill` ends it at once."""
        ...


class BackendSource(Protocol):
    """Discovery of the backends of one virtual server."""

    def changes(self) -> AsyncIterator[BackendsNews]:
        """Yield what is known now, and again after each change."""
        ...


class Ownership(Protocol):
    """Remembers across restarts which virtual servers in the kernel are ours, and the drains."""

    def read(self) -> Record:
        """Return what was last written; empty when there is nothing or it cannot be read."""
        ...

    def write(self, record: Record) -> None:
        """Replace the record atomically.  Raises `TransientError` (full or read-only disk)."""
        ...


class BackendProbe(Protocol):
    """Asks one backend, over a held connection where there is one."""

    async def ask(self, *, fresh: bool) -> ProbeResult:
        """Probe once within the deadline of its timing; never raises but for cancellation.

        `fresh` opens a new connection instead of using the held one; when that succeeds it
        becomes the held one.
        """
        ...

    async def close(self) -> None:
        """Close the held connection."""
        ...


class ProbeFactory(Protocol):
    """Makes the probe of a backend."""

    def __call__(
        self,
        backend: Backend,
        spec: ProbeSpec,
        timing: HealthTiming,
        lost: Callable[[str], None],
    ) -> BackendProbe:
        """Return a probe that calls `lost(reason)` when the held connection ends by itself.

        `lost` is not called for a connection that `close` or a newer one has replaced.
        """
        ...


class ServiceManager(Protocol):
    """Who has started this process and watches over it.  Nothing here waits or fails."""

    @property
    def watchdog(self) -> Span | None:
        """Within which span it wants to hear `alive`; None when it does not care."""
        ...

    def ready(self, status: str) -> None:
        """Tell that the agent is up, or up again after `reloading`."""
        ...

    def status(self, text: str) -> None:
        """Tell how the agent is, in one line."""
        ...

    def reloading(self) -> None:
        """Tell that the configuration is read again."""
        ...

    def stopping(self) -> None:
        """Tell that the agent ends."""
        ...

    def alive(self) -> None:
        """Tell that the agent does its work."""
        ...


class Messenger(Protocol):
    """One way to tell somebody outside of one event."""

    async def deliver(self, message: Message) -> None:
        """Hand `message` over; cancellation gives it up.

        Raises `TransientError` when it may be tried again, `NotWantedError` when that is of no use.
        """
        ...
