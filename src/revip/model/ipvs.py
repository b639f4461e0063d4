"""The kernel's load-balancing table as values: virtual servers, destinations, and changes to them.

Names and units follow include/uapi/linux/ip_vs.h and ipvsadm(8).  Desired and observed tables
have the same type, so that equality is health.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import NewType

IPAddress = IPv4Address | IPv6Address
Port = NewType("Port", int)
"""A TCP, UDP or SCTP port, 0 to 65535; 0 only where the kernel means "any"."""

WEIGHT_MAX = 65535
"""The largest weight revip accepts; ipvsadm(8) documents 0 to 65535."""


class Protocol(IntEnum):
    """Transport protocols that IPVS balances (IPPROTO_* of <netinet/in.h>)."""

    TCP = 6
    UDP = 17
    SCTP = 132


class Forwarding(IntEnum):
    """How the director hands a packet to a destination (IP_VS_CONN_F_FWD_MASK)."""

    MASQUERADE = 0
    LOCAL = 1
    TUNNEL = 2
    DIRECT = 3


class TunnelType(IntEnum):
    """Encapsulation of `Forwarding.TUNNEL` (IP_VS_CONN_F_TUNNEL_TYPE_*)."""

    IPIP = 0
    GUE = 1
    GRE = 2


class SchedulerFlag(Enum):
    """Scheduler options by ipvsadm(8) name; each is valid for the scheduler it is named after."""

    MH_FALLBACK = "mh-fallback"
    MH_PORT = "mh-port"
    SH_FALLBACK = "sh-fallback"
    SH_PORT = "sh-port"

    @property
    def bit(self) -> int:
        """IP_VS_SVC_F_SCHED1 for fallback, IP_VS_SVC_F_SCHED2 for port."""
        return 0x0008 if self.value.endswith("fallback") else 0x0010


SCHEDULERS: tuple[str, ...] = ("rr", "wrr", "lc", "wlc", "mh", "sh")
"""Schedulers that revip configures; the codec carries any name."""


@dataclass(frozen=True, slots=True, order=True)
class ServiceKey:
    """What identifies a virtual server in the kernel: address, port and protocol, or a mark."""

    address: IPAddress
    port: Port
    protocol: Protocol = Protocol.TCP
    fwmark: int = 0
    """Firewall mark; when not 0, `address` only tells the family and `port` is 0."""

    def __str__(self) -> str:
        if self.fwmark:
            return f"FWM {self.fwmark}"
        return f"{self.protocol.name} {at(self.address, self.port)}"


@dataclass(frozen=True, slots=True)
class Destination:
    """One real server as the kernel's table has it."""

    address: IPAddress
    port: Port
    weight: int
    """Share of new connections; 0 lets established ones go on and takes no new ones."""
    forwarding: Forwarding = Forwarding.DIRECT
    upper_threshold: int = 0
    """Connections above which no new ones are sent here; 0 is no limit."""
    lower_threshold: int = 0
    tunnel_type: TunnelType = TunnelType.IPIP
    tunnel_port: Port = Port(0)
    tunnel_flags: int = 0

    @property
    def endpoint(self) -> tuple[IPAddress, Port]:
        """What identifies a destination within its virtual server."""
        return (self.address, self.port)

    def __str__(self) -> str:
        return at(self.address, self.port)


@dataclass(frozen=True, slots=True)
class VirtualServer:
    """One virtual server with its destinations, as desired or as observed."""

    key: ServiceKey
    scheduler: str = "mh"
    flags: frozenset[SchedulerFlag] = frozenset()
    persistence: int = 0
    """Seconds a client stays with its destination (ipvsadm -p); 0 is off."""
    persistence_netmask: int = 0
    """Prefix length of the persistence mask; 0 stands for the whole address (32 or 128)."""
    one_packet: bool = False
    """One-packet scheduling, UDP only (ipvsadm -o)."""
    destinations: frozenset[Destination] = frozenset()

    @property
    def parameters(self) -> tuple[object, ...]:
        """Everything but the destinations: what IPVS_CMD_SET_SERVICE can change."""
        return (
            self.key,
            self.scheduler,
            self.flags,
            self.persistence,
            self.persistence_netmask,
            self.one_packet,
        )


Table = Mapping[ServiceKey, VirtualServer]


def table(virtual_servers: Iterable[VirtualServer]) -> dict[ServiceKey, VirtualServer]:
    """Return `virtual_servers` by their keys."""
    return {server.key: server for server in virtual_servers}


@dataclass(frozen=True, slots=True)
class Traffic:
    """Kernel counters of a virtual server or destination (struct ip_vs_kstats)."""

    connections: int = 0
    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    connections_per_second: int = 0


@dataclass(frozen=True, slots=True)
class DestinationCounters:
    """What the kernel counts at one destination of one virtual server."""

    active: int = 0
    """Connections in state ESTABLISHED."""
    inactive: int = 0
    persistent: int = 0
    traffic: Traffic = Traffic()


Counters = Mapping[tuple[ServiceKey, IPAddress, Port], DestinationCounters]


@dataclass(frozen=True, slots=True)
class Observation:
    """One dump of the kernel: the table, and the counters that came with it."""

    table: Table
    counters: Counters = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AddServer:
    """Create a virtual server (its destinations follow as changes of their own)."""

    server: VirtualServer


@dataclass(frozen=True, slots=True)
class SetServer:
    """Change scheduler, flags or persistence of an existing virtual server in place."""

    server: VirtualServer


@dataclass(frozen=True, slots=True)
class DeleteServer:
    """Remove a virtual server and all its destinations."""

    key: ServiceKey


@dataclass(frozen=True, slots=True)
class AddDestination:
    """Put a destination into a virtual server."""

    key: ServiceKey
    destination: Destination


@dataclass(frozen=True, slots=True)
class SetDestination:
    """Change weight, forwarding or thresholds of a destination in place; connections go on."""

    key: ServiceKey
    destination: Destination


@dataclass(frozen=True, slots=True)
class DeleteDestination:
    """Take a destination out; with expire_nodest_conn=1 its connections are reset."""

    key: ServiceKey
    destination: Destination


Change = AddServer | SetServer | DeleteServer | AddDestination | SetDestination | DeleteDestination


def at(address: IPAddress, port: int) -> str:
    """Write `address:port`, with brackets around an IPv6 address (RFC 3986, section 3.2.2)."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
