"""Binds the connections that a follower was told of to the destinations of its new table.

A follower has no virtual server, so what a master tells it stands by itself: when a destination
is deleted, `expire_nodest_conn` passes such a connection over, and it hangs.  The kernel binds the
two when it is told again (ip_vs_try_bind_dest).  So who takes over tells its own backup daemon
once more, by multicast that never leaves this host: each connection of a destination that is in
the table as it is, and each of another as one of a destination that is there.  Its server knows
nothing of the connection and resets it, as the hash alone would have it: the client comes again.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from revip.model.ipvs import Table
from revip.model.sync import SyncDaemon
from revip.ports import SyncDaemons
from revip.wire.ipvs_sync import Connection, read_connections, sync_messages

LISTED = Path("/proc/thread-self/net/ip_vs_conn")
HEARD = 0.02
"""Seconds after which the backup daemon, a kernel thread that was woken, has done its part."""
AT_ONCE = 50
"""Messages of 33 connections each that fit into the daemon's socket (net.core.rmem_default)."""
BREATH = 0.002
"""Seconds that it is given to read them."""
FORGOTTEN = 10
"""Seconds until a connection that is to be reset is forgotten, as in state CLOSE."""


async def bind(backup: SyncDaemon, daemons: SyncDaemons) -> None:
    """Bind what is listed, by way of `backup`, which runs.

    Raises `KernelError`, `OSError` or `WireError`; the connections are then as they were.
    """
    connections = tuple(read_connections(_listing()))
    table = daemons.observe(frozenset(each.virtual for each in connections)).table
    told = tuple(_as_they_should_be(connections, table))
    if not told:
        return
    with _only_here(backup) as sending:
        for number, message in enumerate(sync_messages(backup.syncid, told), 1):
            sending.sendto(message, (str(backup.group), backup.port))
            if not number % AT_ONCE:
                await asyncio.sleep(BREATH)
    await asyncio.sleep(HEARD)


def _listing() -> str:
    return LISTED.read_text(encoding="ascii")


def _as_they_should_be(connections: Iterable[Connection], table: Table) -> Iterator[Connection]:
    for each in connections:
        server = table.get(each.virtual)
        inviting = [it.endpoint for it in server.destinations if it.weight] if server else []
        if server is None or not inviting:
            continue  # nobody knows better
        there = {destination.endpoint for destination in server.destinations}
        if (each.destination, each.destination_port) in there:
            yield each
            continue
        address, port = min(inviting, key=str)
        yield replace(
            each, destination=address, destination_port=port, state="CLOSE", expires=FORGOTTEN
        )


def _only_here(backup: SyncDaemon) -> socket.socket:
    index = socket.if_nametoindex(backup.link)
    if backup.group.version == 6:
        sending = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sending.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        sending.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 0)
    else:
        sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        chosen = struct.pack("@4s4si", b"", b"", index)  # struct ip_mreqn
        sending.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, chosen)
        sending.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
    return sending
