"""What must be true of the kernel's sync daemons: they tell the next director of each connection.

Maglev alone sends a packet of an old connection to the same backend only while the set of
backends is what it was when the connection began.  After a drain or an outage it is not, and the
next director must know the connection itself (docs/adr/0006-connection-sync.md).

The master runs where this node directs, the backup where it follows.  With `backup_only` = 1 a
running backup switches IPVS off for this whole network namespace: right for a follower, which then
cannot send on what a director sent it, and fatal for a director and for other people's services.
"""

from __future__ import annotations

from collections.abc import Set

from revip.model.host import HostFact, HostState, Sysctl
from revip.model.ipvs import Forwarding, ServiceKey
from revip.model.spec import Spec, VirtualServerSpec
from revip.model.sync import SYNC_GROUP, SYNC_GROUP6, SyncDaemon, SyncRole

REFRESH = {4: 5, 6: 2}
"""Seconds after which a connection with traffic is told again, by the VIP's family."""


def synced(spec: Spec) -> tuple[VirtualServerSpec, ...]:
    """Return the virtual servers whose connections the next director is to know.

    Not those that masquerade: the source ports that it gave stay with the director that gave them.
    """
    if not (spec.sync and spec.manage_host):
        return ()
    return tuple(
        server
        for server in spec.virtual_servers
        if server.vrrp is not None and server.forwarding is Forwarding.DIRECT
    )


def daemon(spec: Spec, role: SyncRole) -> SyncDaemon:
    """Return this node's daemon of `role`: the same syncid, link and group on all its nodes.

    There is one of each role, so it goes by the lowest VRID where there are several elections.
    """
    servers = synced(spec)
    first = min(servers or spec.virtual_servers, key=_group)
    only6 = all(server.address.version == 6 for server in servers)
    syncid = spec.sync_id or (first.vrrp.vrid if first.vrrp is not None else 0)
    return SyncDaemon(role, first.interface, syncid, SYNC_GROUP6 if only6 else SYNC_GROUP)


def sync_state(
    spec: Spec, directed: Set[ServiceKey], tabled: Set[ServiceKey], *, strangers: bool
) -> HostState:
    """Return what the sync daemons need.

    `directed` have their address on this node, `tabled` (these and others) a table: one that has
    been given away goes on sending for a while, and hears its successor already.
    `strangers` says that there are other people's virtual servers, which must go on.
    """
    servers = synced(spec)
    if not spec.virtual_servers:
        return HostState()
    master, backup = (daemon(spec, role) for role in SyncRole)
    leads = any(server.key in tabled for server in servers)
    follows = any(server.key not in directed for server in servers)
    only_follows = Sysctl("net.ipv4.vs.backup_only", "1")
    directs_too = Sysctl("net.ipv4.vs.backup_only", "0")
    refresh = [_refresh(seconds) for seconds in REFRESH.values()]
    threshold = Sysctl("net.ipv4.vs.sync_threshold", "0 0")
    everything: frozenset[HostFact] = frozenset(
        (master, backup, only_follows, directs_too, threshold, *refresh)
    )
    if not servers:
        return HostState(absent=everything)
    present: set[HostFact] = {
        threshold,
        _refresh(min(REFRESH[server.address.version] for server in servers)),
        directs_too if tabled or strangers else only_follows,
    }
    if leads:
        present.add(master)
    if follows:
        present.add(backup)
    return HostState(frozenset(present), everything - present)


def _refresh(seconds: int) -> Sysctl:
    return Sysctl("net.ipv4.vs.sync_refresh_period", str(seconds))


def _group(server: VirtualServerSpec) -> tuple[int, str, int]:
    """Rank the elections of all nodes alike, whatever the order in their files."""
    vrid = server.vrrp.vrid if server.vrrp is not None else 256
    return vrid, server.interface, server.address.version
