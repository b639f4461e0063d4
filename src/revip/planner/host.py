"""What must be true of this host in which role, and how to get there in a safe order.

Every node with direct forwarding is ready to receive for the VIP: the address is on a dummy
interface that never answers ARP or NDP, and frames that a director sends find a local route
through rules of ours that look at the wire only.  The director has, on top of that and nothing
else, the address on the real interface and a local route that names its own address as source.
Thus becoming and ceasing to be the director is two facts, and when the address is lost (by the
kernel's clock, by a vandal) the node goes on as a follower with nothing to be done.

Reasons for each fact are beside it; they were found by trying on kernel 6.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from revip.errors import InvariantError
from revip.model.host import (
    KERNEL_LOCAL_TABLE,
    ROUTE_TABLE,
    DummyLink,
    Fence,
    HostFact,
    HostState,
    LinkAddress,
    LocalRoute,
    Snat,
    SourceHintRoute,
    Sysctl,
    Untracked,
    WireRule,
)
from revip.model.instants import Span
from revip.model.ipvs import Forwarding, IPAddress, Protocol, at
from revip.model.spec import DUMMY, LinkName, Spec, VirtualServerSpec
from revip.model.sync import SyncDaemon
from revip.model.vrrp import PATIENCE

ICMP = 1
ICMPV6 = 58
_CONNTRACK = Sysctl("net.ipv4.vs.conntrack", "1", optional=True)
"""Missing where the kernel was built without CONFIG_IP_VS_NFCT; `revip check` says so."""


def host_state(
    spec: Spec, server: VirtualServerSpec, directing: bool, node_address: IPAddress
) -> HostState:
    """Return what one virtual server needs of this host in its present role.

    `node_address` is this node's own address of the VIP's family.  What the other roles and the
    other forwarding method would need is absent, so that a change of either undoes the former.
    """
    if not spec.manage_host:
        return HostState()
    if node_address.version != server.address.version:
        raise InvariantError(f"{node_address} is not of the family of {server.address}")
    ready, leading = _direct(server, node_address, on_link=spec.node_address is None)
    translating = _masquerade(server)
    fence = fence_of(server)
    match server.forwarding, directing:
        case Forwarding.DIRECT, True:
            present = ready | leading
        case Forwarding.DIRECT, False:
            present = ready
        case Forwarding.MASQUERADE, True:
            present = translating
        case Forwarding.MASQUERADE, False:
            present = frozenset()
        case method, _:
            raise InvariantError(f"no host preparation for forwarding {method.name.lower()}")
    if fence.vrid:
        present |= {fence}
    absent = undone(HostState(ready | leading | translating | {fence})).absent - present
    return HostState(present, absent | _rivals(server, present))


def combined(states: Iterable[HostState]) -> HostState:
    """Return the state that satisfies all of `states`: what one of them needs stays."""
    chosen = tuple(states)
    present: frozenset[HostFact] = frozenset().union(*(state.present for state in chosen))
    absent: frozenset[HostFact] = frozenset().union(*(state.absent for state in chosen))
    # To put back a sysctl that another value is wanted of would be to write it twice each time.
    needed = {fact.name for fact in present if isinstance(fact, Sysctl)}
    surplus = (f for f in absent if not (isinstance(f, Sysctl) and f.name in needed))
    return HostState(present, frozenset(surplus) - present)


def fence_of(server: VirtualServerSpec) -> Fence:
    """Return the fence where adverts bound who answers more closely than the lifetime does."""
    vrrp = server.vrrp
    if vrrp is None or not vrrp.fenced:
        return Fence(server.interface, server.address)
    silence = Span(PATIENCE * vrrp.advert_interval)
    return Fence(server.interface, server.address, vrrp.vrid, silence)


def undone(state: HostState) -> HostState:
    """Return the state in which nothing of `state` is left, for cleanup and for removed VIPs.

    The kernel's own routes are not named: they go with their addresses.
    """
    ours = state.present | state.absent
    return HostState(absent=frozenset(fact for fact in ours if not _is_the_kernels_own(fact)))


def host_diff(
    wanted: HostState, holds: frozenset[HostFact]
) -> tuple[tuple[HostFact, ...], tuple[HostFact, ...]]:
    """Return what to make untrue and then what to make true, each in the order to follow.

    Traffic is invited last and turned away first.  A local route is taken away only when all
    that stands in for it holds already, and the kernel adds one of its own with each address:
    so observe and compare again until both are empty.  In a quiet world that is two passes.
    """
    missing = wanted.present - holds
    surplus = wanted.absent & holds
    awaited = any(isinstance(fact, WireRule | LocalRoute | SourceHintRoute) for fact in missing)
    if awaited:
        surplus = frozenset(fact for fact in surplus if not isinstance(fact, LocalRoute))
    return (
        tuple(sorted(surplus, key=_leaving, reverse=True)),
        tuple(sorted(missing, key=_order)),
    )


def describe_fact(fact: HostFact) -> str:
    """Write `fact` in the words of ip(8), sysctl(8) and iptables(8), for plans and logs."""
    match fact:
        case DummyLink(name):
            return f"link {name} type dummy up"
        case LinkAddress(link, address):
            return f"address {address}/{address.max_prefixlen} dev {link}"
        case LocalRoute(link, address, table, source):
            hint = f" src {source}" if source else ""
            name = "local" if table == KERNEL_LOCAL_TABLE else str(table)
            return f"route local {address} dev {link}{hint} table {name}"
        case SourceHintRoute(link, address, source):
            return f"route {address} dev {link} src {source}"
        case WireRule(link, address, protocol, port):
            what = f"ipproto {_protocol_name(protocol)}" + (f" dport {port}" if port else "")
            return f"rule iif {link} to {address} {what} lookup {ROUTE_TABLE}"
        case Sysctl(name, value, only_if):
            return f"sysctl {name} = {value}" + (f" where it is {only_if}" if only_if else "")
        case SyncDaemon():
            return str(fact)
        case Snat(address, port):
            return f"masquerade what IPVS forwards for {at(address, port)}"
        case Untracked(link, address, port, source):
            sender = f" from {source}" if source else ""
            return f"no tracking of what {link} receives{sender} for {at(address, port)}"
        case Fence(link, address):
            return f"fence: {link} answers for {address} only while adverts leave"
        case _:
            assert_never(fact)


def _direct(
    server: VirtualServerSpec, source: IPAddress, *, on_link: bool
) -> tuple[frozenset[HostFact], frozenset[HostFact]]:
    """Return what every node needs, and what the director needs beyond it.

    `on_link` says that `source` is known to be an address of the interface itself.
    """
    link, vip = server.interface, server.address
    ready: set[HostFact] = {
        # Else a pod's segment to the VIP, forwarded by a follower, is tied to the request socket
        # of the follower's own server and dropped: ip_forward(), net/ipv4/ip_forward.c.
        Sysctl("net.ipv4.tcp_early_demux", "0", optional=True),
        DummyLink(DUMMY),
        # The socket that answers from the VIP may only do so if the VIP is an address of ours.
        LinkAddress(DUMMY, vip),
        LocalRoute(DUMMY, vip, ROUTE_TABLE),
        WireRule(link, vip, Protocol.TCP, server.port),
        # Without ICMP the answers of path MTU discovery never reach the socket.
        WireRule(link, vip, ICMP if vip.version == 4 else ICMPV6, None),
        # What a pod here sends under this node's address, and the director sends back, would be
        # taken for another connection than the one that is being translated.
        Untracked(link, vip, server.port, source),
    }
    if vip.version == 4:
        conf = f"net.ipv4.conf.{_sysctl_name(link)}"
        ready |= {
            # A follower's own connection comes back from the director with its own source.
            Sysctl(f"{conf}.accept_local", "1"),
            Sysctl(f"{conf}.rp_filter", "2"),
            # Neither answer ARP for what is on the dummy, nor ask with it as the sender.
            Sysctl(f"{conf}.arp_ignore", "1"),
            Sysctl(f"{conf}.arp_announce", "2"),
        }
    else:
        # Without it a follower's process picks the VIP, which it has, as its own source.
        ready.add(SourceHintRoute(link, vip, source))
        if on_link:
            # MASQUERADE asks no route: without it a pod's packets to the VIP get the VIP, which
            # is on the dummy, as their source (ipv6_dev_get_saddr(), net/ipv6/addrconf.c).
            name = f"net.ipv6.conf.{_sysctl_name(link)}.use_oif_addrs_only"
            ready.add(Sysctl(name, "1", optional=True))
    leading: set[HostFact] = {
        LinkAddress(link, vip),
        # Without the hint a local process would send to a remote backend with the VIP as source.
        LocalRoute(link, vip, KERNEL_LOCAL_TABLE, source),
        # A segment in mid-connection that another director sent so far is welcome.
        Sysctl("net.ipv4.vs.sloppy_tcp", "1", optional=True),
        # Replies to this host and its pods belong to a connection that a firewall knows ...
        _CONNTRACK,
        # ... and of everybody else's it sees one half only, which it would call invalid.
        Untracked(link, vip, server.port),
        *_table_sysctls(),
    }
    return frozenset(ready), frozenset(leading)


def _masquerade(server: VirtualServerSpec) -> frozenset[HostFact]:
    """Return what the director needs when it translates; its backends need nothing."""
    facts: set[HostFact] = {
        LinkAddress(server.interface, server.address),
        # The kernel's own; missing when this address was a direct director's before.
        LocalRoute(server.interface, server.address, KERNEL_LOCAL_TABLE),
        # Answers of a backend on the client's own segment must come back through the director.
        Snat(server.address, server.port),
        _CONNTRACK,
        *_table_sysctls(),
    }
    if server.address.version == 4:
        facts.add(Sysctl("net.ipv4.ip_forward", "1"))
    else:
        name = _sysctl_name(server.interface)
        # A router ignores router advertisements (1) unless told otherwise (2); a node that
        # learned its default route from them would lose it.  0 is the operator's own choice.
        facts.add(Sysctl(f"net.ipv6.conf.{name}.accept_ra", "2", only_if="1"))
        facts.add(Sysctl("net.ipv6.conf.all.forwarding", "1"))
    return frozenset(facts)


def _table_sysctls() -> frozenset[Sysctl]:
    """Return what IPVS must be told, both families (Documentation/networking/ipvs-sysctl.rst)."""
    return frozenset(
        {
            # A connection to a destination that was taken out is reset, not left to hang.
            Sysctl("net.ipv4.vs.expire_nodest_conn", "1"),
            Sysctl("net.ipv4.vs.expire_quiescent_template", "1"),
            # A reused client port is scheduled anew.
            Sysctl("net.ipv4.vs.conn_reuse_mode", "1", optional=True),
        }
    )


def _rivals(server: VirtualServerSpec, present: frozenset[HostFact]) -> frozenset[HostFact]:
    """Return the kernel's own local routes that would win over ours."""
    if server.forwarding is not Forwarding.DIRECT:
        return frozenset()
    links = (fact.link for fact in present if isinstance(fact, LinkAddress))
    return frozenset(LocalRoute(link, server.address, KERNEL_LOCAL_TABLE) for link in links)


def _order(fact: HostFact) -> tuple[int, str]:
    """Rank `fact` from the ground up: the higher, the closer to inviting traffic."""
    match fact:
        case Sysctl(name):
            # IPv6 forwarding drops the default route unless accept_ra has been set before.
            rank = 1 if name.endswith(".forwarding") else 0
        case DummyLink():
            rank = 2
        case LinkAddress(link) if link == DUMMY:
            rank = 3
        case LocalRoute(table=table) if table != KERNEL_LOCAL_TABLE:
            rank = 4
        case SourceHintRoute():
            rank = 5
        case WireRule():
            rank = 6
        case Snat():
            rank = 7
        case SyncDaemon():
            # Not after the address: what is connected before it tells is told late.
            rank = 8
        case LocalRoute(source=source) if source is not None:
            # Before the address: the kernel appends its own route, so that ours stays first.
            rank = 9
        case LinkAddress():
            rank = 10
        case LocalRoute():
            rank = 11
        case Untracked():
            # It matters only beside some firewalls, and takes a process: nobody waits for it.
            rank = 12
        case Fence():
            # The lifetime bounds as well: no address waits for a fence that is refused.
            rank = 13
        case _:
            assert_never(fact)
    return rank, describe_fact(fact)


def _leaving(fact: HostFact) -> tuple[int, str]:
    """Rank `fact` for being taken away: the higher, the earlier."""
    rank, words = _order(fact)
    return (-1, words) if isinstance(fact, Untracked | Fence) else (rank, words)


def _is_the_kernels_own(fact: HostFact) -> bool:
    return isinstance(fact, LocalRoute) and fact.is_the_kernels_own


def _sysctl_name(link: LinkName) -> str:
    return link.replace(".", "/")


def _protocol_name(protocol: int) -> str:
    return {ICMP: "icmp", ICMPV6: "icmpv6", Protocol.TCP: "tcp"}.get(protocol, str(protocol))
