"""The kernel's connection synchronization daemon, which tells other directors of connections.

One master (it tells) and one backup (it listens) are possible in each network namespace; each is
a kernel thread that lives on without any process (net/netfilter/ipvs/ip_vs_sync.c).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

from revip.model.ipvs import IPAddress, Port
from revip.model.spec import LinkName

SYNC_GROUP = IPv4Address("224.0.0.81")
"""IP_VS_SYNC_GROUP: where the kernel sends when it is not told otherwise."""
SYNC_GROUP6 = IPv6Address("ff02::81")
"""Our choice where every virtual IP is IPv6; the kernel has no such default."""
SYNC_PORT = Port(8848)
"""IP_VS_SYNC_PORT, UDP."""


class SyncRole(IntEnum):
    """Which of the two a daemon is (IP_VS_STATE_*)."""

    MASTER = 1
    BACKUP = 2


@dataclass(frozen=True, slots=True)
class SyncDaemon:
    """`ipvsadm --start-daemon ROLE --mcast-interface LINK --syncid ID`."""

    role: SyncRole
    link: LinkName
    syncid: int
    """0 to 255; a backup drops messages with another one, and with 0 it takes every."""
    group: IPAddress = SYNC_GROUP
    port: Port = SYNC_PORT
    ttl: int = 1
    """IP TTL or hop limit of the multicast; 1 stays on the segment."""
    maxlen: int = field(default=0, compare=False)
    """Bytes of a message at most; 0 is what the link's MTU allows, which the kernel then tells."""

    def __str__(self) -> str:
        role = self.role.name.lower()
        return f"sync daemon {role} dev {self.link} syncid {self.syncid} group {self.group}"
