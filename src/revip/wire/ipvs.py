"""What IPVS is asked over generic netlink: include/uapi/linux/ip_vs.h.

Ports and IPv4 masks are big endian, everything else has the byte order of the machine.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from functools import lru_cache
from typing import assert_never

from revip.model.ipvs import (
    AddDestination,
    AddServer,
    Change,
    DeleteDestination,
    DeleteServer,
    Destination,
    IPAddress,
    ServiceKey,
    SetDestination,
    SetServer,
    VirtualServer,
)
from revip.model.sync import SyncDaemon, SyncRole
from revip.wire.netlink import (
    attribute,
    generic,
    nested,
)

FAMILY = "IPVS"
VERSION = 1


class Command(IntEnum):
    """IPVS_CMD_*: what is asked of the kernel."""

    NEW_SERVICE = 1
    SET_SERVICE = 2
    DEL_SERVICE = 3
    GET_SERVICE = 4
    NEW_DEST = 5
    SET_DEST = 6
    DEL_DEST = 7
    GET_DEST = 8
    NEW_DAEMON = 9
    DEL_DAEMON = 10
    GET_DAEMON = 11
    GET_INFO = 15


class Top(IntEnum):
    """IPVS_CMD_ATTR_*: what a message is about."""

    SERVICE = 1
    DEST = 2
    DAEMON = 3


class ServiceAttribute(IntEnum):
    """IPVS_SVC_ATTR_*."""

    AF = 1
    PROTOCOL = 2
    ADDR = 3
    PORT = 4
    FWMARK = 5
    SCHED_NAME = 6
    FLAGS = 7
    TIMEOUT = 8
    NETMASK = 9


class DestAttribute(IntEnum):
    """IPVS_DEST_ATTR_*."""

    ADDR = 1
    PORT = 2
    FWD_METHOD = 3
    WEIGHT = 4
    U_THRESH = 5
    L_THRESH = 6
    ACTIVE_CONNS = 7
    INACT_CONNS = 8
    PERSIST_CONNS = 9
    STATS = 10
    ADDR_FAMILY = 11
    STATS64 = 12
    TUN_TYPE = 13
    TUN_PORT = 14
    TUN_FLAGS = 15


class DaemonAttribute(IntEnum):
    """IPVS_DAEMON_ATTR_*."""

    STATE = 1
    MCAST_IFN = 2
    SYNC_ID = 3
    SYNC_MAXLEN = 4
    MCAST_GROUP = 5
    MCAST_GROUP6 = 6
    MCAST_PORT = 7
    MCAST_TTL = 8


AF_INET = 2
AF_INET6 = 10

PERSISTENT = 0x0001
ONE_PACKET = 0x0004
EVERY_BIT = 0xFFFFFFFF
_WHOLE = {4: 32, 6: 128}
BE16 = struct.Struct(">H")
BE32 = struct.Struct(">I")
U8 = struct.Struct("=B")
U16 = struct.Struct("=H")
U32 = struct.Struct("=I")
U64 = struct.Struct("=Q")
FLAGS = struct.Struct("=II")


def request(change: Change) -> bytes:
    """Return the generic netlink payload that makes `change`."""
    match change:
        case AddServer(server):
            return _command(Command.NEW_SERVICE, _full_service(server))
        case SetServer(server):
            return _command(Command.SET_SERVICE, _full_service(server))
        case DeleteServer(key):
            return _command(Command.DEL_SERVICE, _service(key))
        case AddDestination(key, destination):
            return _command(Command.NEW_DEST, _service(key), _full_destination(destination))
        case SetDestination(key, destination):
            return _command(Command.SET_DEST, _service(key), _full_destination(destination))
        case DeleteDestination(key, destination):
            return _command(Command.DEL_DEST, _service(key), _destination(destination))
        case _:
            assert_never(change)


def get_service(key: ServiceKey) -> bytes:
    """Return the payload that asks for one virtual server."""
    return _command(Command.GET_SERVICE, _service(key))


def dump_services() -> bytes:
    """Return the payload that, with NLM_F_DUMP, asks for every virtual server."""
    return _command(Command.GET_SERVICE)


def dump_destinations(key: ServiceKey) -> bytes:
    """Return the payload that, with NLM_F_DUMP, asks for the destinations of `key`."""
    return _command(Command.GET_DEST, _service(key))


def get_info() -> bytes:
    """Return the payload that asks for `Info`."""
    return _command(Command.GET_INFO)


def dump_daemons() -> bytes:
    """Return the payload that, with NLM_F_DUMP, asks for the sync daemons."""
    return _command(Command.GET_DAEMON)


def new_daemon(daemon: SyncDaemon) -> bytes:
    """Return the payload that starts `daemon`; its port is in the machine's byte order."""
    v6 = daemon.group.version == 6
    group = DaemonAttribute.MCAST_GROUP6 if v6 else DaemonAttribute.MCAST_GROUP
    parts = [
        attribute(DaemonAttribute.STATE, U32.pack(daemon.role)),
        attribute(DaemonAttribute.MCAST_IFN, daemon.link.encode() + b"\0"),
        attribute(DaemonAttribute.SYNC_ID, U32.pack(daemon.syncid)),
        attribute(group, daemon.group.packed),
        attribute(DaemonAttribute.MCAST_PORT, U16.pack(daemon.port)),
        attribute(DaemonAttribute.MCAST_TTL, U8.pack(daemon.ttl)),
    ]
    if daemon.maxlen:
        parts.append(attribute(DaemonAttribute.SYNC_MAXLEN, U16.pack(daemon.maxlen)))
    return _command(Command.NEW_DAEMON, nested(Top.DAEMON, *parts))


def delete_daemon(role: SyncRole) -> bytes:
    """Return the payload that stops the daemon of `role`."""
    state = attribute(DaemonAttribute.STATE, U32.pack(role))
    return _command(Command.DEL_DAEMON, nested(Top.DAEMON, state))


def _command(command: Command, *parts: bytes) -> bytes:
    return generic(command, VERSION, b"".join(parts))


@lru_cache
def _service(key: ServiceKey) -> bytes:
    return nested(Top.SERVICE, _identity(key))


def _identity(key: ServiceKey) -> bytes:
    family = attribute(ServiceAttribute.AF, U16.pack(address_family(key.address.version)))
    if key.fwmark:
        return family + attribute(ServiceAttribute.FWMARK, U32.pack(key.fwmark))
    return b"".join(
        (
            family,
            attribute(ServiceAttribute.PROTOCOL, U16.pack(key.protocol)),
            attribute(ServiceAttribute.ADDR, _union(key.address)),
            attribute(ServiceAttribute.PORT, BE16.pack(key.port)),
        )
    )


def _full_service(server: VirtualServer) -> bytes:
    """Every field, each time: the kernel keeps nothing of the old entry that is not named."""
    return nested(
        Top.SERVICE,
        _identity(server.key),
        attribute(ServiceAttribute.SCHED_NAME, server.scheduler.encode("ascii") + b"\0"),
        attribute(ServiceAttribute.FLAGS, FLAGS.pack(_flag_bits(server), EVERY_BIT)),
        attribute(ServiceAttribute.TIMEOUT, U32.pack(server.persistence)),
        attribute(ServiceAttribute.NETMASK, _pack_netmask(server)),
    )


def _destination(destination: Destination) -> bytes:
    return nested(Top.DEST, *_endpoint(destination))


def _full_destination(destination: Destination) -> bytes:
    return nested(
        Top.DEST,
        *_endpoint(destination),
        attribute(DestAttribute.FWD_METHOD, U32.pack(destination.forwarding)),
        attribute(DestAttribute.WEIGHT, U32.pack(destination.weight)),
        attribute(DestAttribute.TUN_TYPE, U8.pack(destination.tunnel_type)),
        attribute(DestAttribute.TUN_PORT, BE16.pack(destination.tunnel_port)),
        attribute(DestAttribute.TUN_FLAGS, U16.pack(destination.tunnel_flags)),
        attribute(DestAttribute.U_THRESH, U32.pack(destination.upper_threshold)),
        attribute(DestAttribute.L_THRESH, U32.pack(destination.lower_threshold)),
    )


def _endpoint(destination: Destination) -> tuple[bytes, bytes, bytes]:
    family = address_family(destination.address.version)
    return (
        attribute(DestAttribute.ADDR_FAMILY, U16.pack(family)),
        attribute(DestAttribute.ADDR, _union(destination.address)),
        attribute(DestAttribute.PORT, BE16.pack(destination.port)),
    )


def _flag_bits(server: VirtualServer) -> int:
    bits = PERSISTENT if server.persistence else 0
    bits |= ONE_PACKET if server.one_packet else 0
    for flag in server.flags:
        bits |= flag.bit
    return bits


def _pack_netmask(server: VirtualServer) -> bytes:
    """Return a mask for IPv4, a prefix length for IPv6 (ip_vs_add_service: 1 to 128)."""
    version = server.key.address.version
    prefix = server.persistence_netmask or _WHOLE[version]
    if version == 6:
        return U32.pack(prefix)
    return BE32.pack(EVERY_BIT << (32 - prefix) & EVERY_BIT)


def address_family(version: int) -> int:
    """Return AF_* of an IP version."""
    return AF_INET if version == 4 else AF_INET6


def _union(address: IPAddress) -> bytes:
    """Return union nf_inet_addr: 16 bytes for either family."""
    return address.packed.ljust(16, b"\0")
