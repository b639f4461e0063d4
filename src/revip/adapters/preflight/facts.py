"""What is looked at on this host, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

from revip.adapters.preflight.standing import Standing
from revip.model.host import Sysctl
from revip.model.ipvs import Forwarding, IPAddress, Port
from revip.model.spec import LinkName, Spec, VirtualServerSpec
from revip.planner.host import host_state


class Module(Enum):
    """What is known about a kernel module."""

    LOADED = "loaded"
    BUILT_IN = "built in"
    LOADABLE = "loadable"
    ABSENT = "absent"
    UNKNOWN = "unknown"
    """Not loaded, and there is no module directory to look into (a container)."""


class SocketPath(Enum):
    """What is at the control socket's path."""

    FREE = "free"
    STALE = "stale"
    """A socket that nobody answers: left behind, replaced at start."""
    ANSWERED = "answered"
    OCCUPIED = "occupied"
    """Something that is no socket."""


@dataclass(frozen=True, slots=True)
class Link:
    """One network interface."""

    up: bool
    """IFF_UP: somebody wants it up."""
    carrier: bool
    """The other end is there."""


@dataclass(frozen=True, slots=True)
class Address:
    """One address on one interface."""

    link: LinkName
    address: IPAddress
    prefix: int | None = None
    """Bits of its network, None where that is not known."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One TCP socket in state LISTEN."""

    address: IPAddress
    port: Port

    @property
    def anywhere(self) -> bool:
        """Return whether it accepts on every address (0.0.0.0 or ::)."""
        return self.address in (IPv4Address(0), IPv6Address(0))

    def serves(self, version: int) -> bool:
        """Return whether clients of this IP version can reach it; `::` takes both (ipv6(7))."""
        return self.address.version == version or self.address == IPv6Address(0)


@dataclass(frozen=True, slots=True)
class FilterRule:
    """One rule of the packet filter that looks at ports or connection states."""

    version: int
    text: str
    """As iptables-save(8) prints it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts(Standing):
    """Everything that is looked at, read once."""

    modules: Mapping[str, Module]
    links: Mapping[str, Link]
    addresses: frozenset[Address]
    listeners: frozenset[Listener]
    processes: frozenset[str]
    """Names of running programs, as far as this process may see them."""
    socket: SocketPath
    sysctls: Mapping[str, str] = field(default_factory=dict)
    """Those of `wanted_sysctls` that exist, by name."""
    sysctls_writable: bool = True
    selinux_enforcing: bool = False
    iptables: bool = True
    """Whether there is a program of that name, in either form."""
    tracking: bool = False
    """Whether the kernel tracks connections (nf_conntrack is loaded)."""
    filters: tuple[FilterRule, ...] = ()
    """Of table filter, in every form that works here."""


def wanted_modules(server: VirtualServerSpec) -> tuple[str, ...]:
    """Return the kernel modules that `server` needs."""
    scheduler = f"ip_vs_{server.scheduler}"
    snat = ("xt_ipvs",) if server.forwarding is Forwarding.MASQUERADE else ()
    return ("ip_vs", scheduler, *snat)


def wanted_sysctls(spec: Spec, server: VirtualServerSpec) -> frozenset[Sysctl]:
    """Return the sysctls that `server` needs on this node, as the planner prepares them."""
    managing = replace(spec, manage_host=True)
    # Sysctls do not depend on the node's address; any of the right family will do.
    directing = server.vrrp is not None or spec.node == server.owner
    state = host_state(managing, server, directing, server.address)
    return frozenset(fact for fact in state.present if isinstance(fact, Sysctl))


def sysctl_path(name: str) -> str:
    """Return the path below /proc/sys; a slash in the name is a dot there (sysctl.d(5))."""
    return name.translate(str.maketrans("./", "/."))
