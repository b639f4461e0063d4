"""What must be true of this host beside the table: links, addresses, routes, rules, sysctls.

`HostState` says what must be present and what must be absent; observed state is the subset of
those facts that hold, so that foreign state never even enters a comparison.  The forms come from
iproute2's words: ip-address(8), ip-route(8), ip-rule(8).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from revip.model.instants import Instant, Span
from revip.model.ipvs import IPAddress, Port
from revip.model.spec import LinkName
from revip.model.sync import SyncDaemon

MacAddress = NewType("MacAddress", bytes)
"""Six bytes, in the order in which they go over the wire."""

ROUTE_PROTOCOL = 0x76
"""RTPROT number that marks routes and rules of ours (`ip route show proto 118`)."""
KERNEL_LOCAL_TABLE = 255
"""RT_TABLE_LOCAL, which rule 0 looks up first (ip-rule(8))."""
ROUTE_TABLE = 0x7669
"""Our own routing table (`ip route show table 30313`)."""
RULE_PRIORITY = 76
"""`ip rule` preference: before main, after local (0)."""


@dataclass(frozen=True, slots=True)
class DummyLink:
    """An interface of kind dummy that exists and is up; its name marks it as ours."""

    name: LinkName


@dataclass(frozen=True, slots=True)
class LinkAddress:
    """`ip address add ADDRESS/(32|128) dev LINK`, IPv6 with nodad noprefixroute preferred_lft 0."""

    link: LinkName
    address: IPAddress


@dataclass(frozen=True, slots=True)
class Lease:
    """For how long an address of an elected director may be written, and how long it then lasts.

    It is no part of the fact: an address with a lifetime holds as well as one without.
    """

    ends: Instant
    """Nothing is written after this instant (CLOCK_BOOTTIME): others may have the address."""
    lifetime: Span
    """`valid_lft` of each write, whole seconds; the kernel is up to a second late with it."""


@dataclass(frozen=True, slots=True)
class LocalRoute:
    """`ip route replace local ADDRESS dev LINK [src SOURCE] table TABLE`.

    Without a source and in `KERNEL_LOCAL_TABLE` it is the kernel's own, which comes and goes with
    the address; every other one is ours and carries `ROUTE_PROTOCOL`.
    """

    link: LinkName
    address: IPAddress
    table: int
    source: IPAddress | None = None
    """Source hint for what this host itself sends there; None is no other than ADDRESS."""

    @property
    def is_the_kernels_own(self) -> bool:
        """Whether the kernel made this route, and makes it again with the address."""
        return self.table == KERNEL_LOCAL_TABLE and self.source is None


@dataclass(frozen=True, slots=True)
class SourceHintRoute:
    """IPv6 follower: `ip -6 route replace ADDRESS/128 dev LINK src SOURCE`."""

    link: LinkName
    address: IPAddress
    source: IPAddress


@dataclass(frozen=True, slots=True)
class WireRule:
    """`ip rule add iif LINK to ADDRESS ipproto PROTO [dport PORT] lookup ROUTE_TABLE`.

    `protocol` is 6 (TCP), 1 (ICMP) or 58 (ICMPv6); `port` is None but for TCP.
    """

    link: LinkName
    address: IPAddress
    protocol: int
    port: Port | None


@dataclass(frozen=True, slots=True)
class Sysctl:
    """`net.ipv4.conf.eth0.rp_filter = 2`: name with dots, value as the file shows it.

    A dot within an interface's name is written as a slash, as in sysctl.d(5).  In
    `HostState.present` it holds when the value is in force; in `HostState.absent` it holds while
    revip's change of it has not been undone.
    """

    name: str
    value: str
    only_if: str | None = None
    """Change only where this is the value found; with any other value the fact holds as it is."""
    optional: bool = False
    """Kernels without this file need not have it: the fact holds there."""


@dataclass(frozen=True, slots=True)
class Snat:
    """Masquerade what IPVS forwards for VIP:PORT (xt_ipvs), in a chain of our own."""

    address: IPAddress
    port: Port


@dataclass(frozen=True, slots=True)
class Untracked:
    """Connection tracking passes over what comes in by LINK for VIP:PORT, and over its ICMP.

    Two rules in table raw, in a chain of our own.  It holds, too, where nothing tracks
    connections, and where there is no iptables to say it with.
    """

    link: LinkName
    address: IPAddress
    port: Port
    source: IPAddress | None = None
    """Only what comes from there; None is anybody."""


@dataclass(frozen=True, slots=True)
class Fence:
    """LINK says nothing about ADDRESS (ARP, neighbor advertisements) unless adverts leave by it.

    A table of nf_tables of our own.  It holds, too, where the kernel has nothing to make it of:
    the address's lifetime bounds there.
    """

    link: LinkName
    address: IPAddress
    vrid: int = 0
    """Of the adverts; 0 names any fence of ADDRESS, to be removed."""
    open_for: Span = Span(0)
    """After each advert, milliseconds: three intervals."""


HostFact = (
    DummyLink
    | LinkAddress
    | LocalRoute
    | SourceHintRoute
    | WireRule
    | Sysctl
    | Snat
    | Untracked
    | Fence
    | SyncDaemon
)


@dataclass(frozen=True, slots=True)
class HostState:
    """What must and what must not be true of this host."""

    present: frozenset[HostFact] = frozenset()
    absent: frozenset[HostFact] = frozenset()
    """Facts of ours from another role, or the kernel's own local route of the VIP."""


def mac_text(mac: MacAddress) -> str:
    """Write `mac` as ip-link(8) does."""
    return mac.hex(":")
