"""What a sync master sends, and where the kernel lists its connections.

Messages are those of version 1, net/netfilter/ipvs/ip_vs_sync.c (struct ip_vs_sync_mesg,
ip_vs_sync_v4 and ip_vs_sync_v6): network byte order.  The list is /proc/net/ip_vs_conn.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from revip.model.ipvs import Forwarding, IPAddress, Port, Protocol, ServiceKey
from revip.wire.netlink import WireError

STATES = (
    "NONE",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "SYNACK",
)
"""IP_VS_TCP_S_*, in order, as the list names them but for `SYNACK`."""
MESSAGE_MAX = 1200
"""Bytes of a message; IPv6 guarantees 1280 with all headers."""

_HEADER = struct.Struct("!BBHBbH")
_ENTRY = struct.Struct("!BBHIHHHHII")
_VERSION = 1
_IPV6 = 1


@dataclass(frozen=True, slots=True)
class Connection:
    """One TCP connection that IPVS knows."""

    client: IPAddress
    client_port: int
    virtual: ServiceKey
    destination: IPAddress
    destination_port: Port
    state: str
    expires: int
    """Seconds until the kernel forgets it."""


def read_connections(listing: str) -> Iterator[Connection]:
    """Read /proc/net/ip_vs_conn; lines about other protocols are left out.  Raises `WireError`."""
    for line in listing.splitlines()[1:]:
        words = line.split()
        if not words or words[0] != "TCP":
            continue
        try:
            client, client_port, vip, port, to, to_port, state, expires = words[1:9]
            key = ServiceKey(_address(vip), Port(int(port, 16)), Protocol.TCP)
            yield Connection(
                _address(client),
                int(client_port, 16),
                key,
                _address(to),
                Port(int(to_port, 16)),
                state if state in STATES else STATES[-1],
                int(expires),
            )
        except ValueError as error:
            raise WireError(f"ip_vs_conn: {line!r}: {error}") from error


def sync_messages(syncid: int, connections: Iterable[Connection]) -> Iterator[bytes]:
    """Return the messages that tell of direct-routed `connections`, with their time to live."""
    entries: list[bytes] = []
    for each in map(_entry, connections):
        if sum(map(len, entries)) + len(each) > MESSAGE_MAX:
            yield _message(syncid, entries)
            entries = []
        entries.append(each)
    if entries:
        yield _message(syncid, entries)


def _message(syncid: int, entries: list[bytes]) -> bytes:
    body = b"".join(entries)
    size = _HEADER.size + len(body)
    return _HEADER.pack(0, syncid, size, len(entries), _VERSION, 0) + body


def _entry(connection: Connection) -> bytes:
    addresses = (connection.client, connection.virtual.address, connection.destination)
    packed = b"".join(address.packed for address in addresses)
    fixed = _ENTRY.pack(
        _IPV6 if connection.virtual.address.version == 6 else 0,
        Protocol.TCP,
        _ENTRY.size + len(packed),
        Forwarding.DIRECT,
        STATES.index(connection.state),
        connection.client_port,
        connection.virtual.port,
        connection.destination_port,
        0,
        connection.expires,
    )
    return fixed + packed


def _address(text: str) -> IPAddress:
    return IPv6Address(text) if ":" in text else IPv4Address(int(text, 16))
