"""What IPVS answers: net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_genl_fill_{service,dest,stats}.

Observed values come out in the same form as desired ones, so that they can be compared: flag
bits that the kernel adds for itself are dropped, and the netmask of a whole address reads 0.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from revip.model.ipvs import (
    Destination,
    DestinationCounters,
    Forwarding,
    IPAddress,
    Port,
    Protocol,
    SchedulerFlag,
    ServiceKey,
    Traffic,
    TunnelType,
    VirtualServer,
)
from revip.model.spec import LinkName
from revip.model.sync import SYNC_GROUP, SYNC_PORT, SyncDaemon, SyncRole
from revip.wire.ipvs import (
    AF_INET,
    AF_INET6,
    BE16,
    BE32,
    EVERY_BIT,
    FLAGS,
    ONE_PACKET,
    PERSISTENT,
    U8,
    U16,
    U32,
    U64,
    DaemonAttribute,
    DestAttribute,
    ServiceAttribute,
    Top,
    address_family,
)
from revip.wire.netlink import WireError, attributes, generic_attributes

_NO_PREFIX = -1
"""A persistence mask that has no prefix length: equal to nothing desired, so it is put right."""


_REMEMBERED = 256
"""Virtual servers whose bytes and values are kept (a few hundred KiB when all are in use)."""

CounterKey = tuple[ServiceKey, IPAddress, Port]
"""What `model.ipvs.Counters` is looked up by."""


class InexpressibleError(WireError):
    """Well formed, but a thing that revip's model has no word for (a foreign service)."""


@dataclass(frozen=True, slots=True)
class Info:
    """What the kernel says about its IPVS."""

    version: tuple[int, int, int]
    connection_table_size: int


def decode_service(payload: bytes) -> VirtualServer:
    """Read an IPVS_CMD_NEW_SERVICE answer; destinations are not part of it.

    A service by firewall mark comes out with the unspecified address of its family and port 0.
    Raises `InexpressibleError` for protocols outside the model, else `WireError`.
    """
    found = attributes(_part(generic_attributes(payload), Top.SERVICE))
    try:
        return _read_service(found)
    except (KeyError, struct.error, UnicodeDecodeError) as error:
        raise WireError(f"IPVS service: {error!r}") from error


@lru_cache(_REMEMBERED)
def decode_destinations(
    key: ServiceKey, payloads: tuple[bytes, ...]
) -> tuple[frozenset[Destination], dict[CounterKey, DestinationCounters]]:
    """Read all IPVS_CMD_NEW_DEST answers for `key`.  Raises `WireError`.

    Remembered by the bytes: of a large table most is, counters included, what it was a moment
    ago.  The dict is shared with every caller that brings the same bytes: only read it.
    """
    decoded = [_decode_destination(payload, key.address.version) for payload in payloads]
    counters = {(key, to.address, to.port): counted for to, counted in decoded}
    return frozenset(destination for destination, _ in decoded), counters


def _decode_destination(payload: bytes, version: int) -> tuple[Destination, DestinationCounters]:
    """Read one; `version` is for kernels before 3.18, which do not tell a destination's own."""
    found = attributes(_part(generic_attributes(payload), Top.DEST))
    try:
        return _read_destination(found, version), _read_counters(found)
    except (KeyError, struct.error) as error:
        raise WireError(f"IPVS destination: {error!r}") from error


def decode_info(payload: bytes) -> Info:
    """Read an IPVS_CMD_SET_INFO answer.  Raises `WireError`."""
    found = generic_attributes(payload)
    try:
        code = _number(U32, found[1])
        return Info((code >> 16 & 0xFF, code >> 8 & 0xFF, code & 0xFF), _number(U32, found[2]))
    except (KeyError, struct.error) as error:
        raise WireError(f"IPVS info: {error!r}") from error


def decode_daemon(payload: bytes) -> SyncDaemon:
    """Read one answer to `dump_daemons`.  Raises `WireError`.

    A kernel before 4.3 tells neither group nor port nor TTL, which are then the defaults.
    """
    found = attributes(_part(generic_attributes(payload), Top.DAEMON))
    try:
        return SyncDaemon(
            SyncRole(_number(U32, found[DaemonAttribute.STATE])),
            LinkName(found[DaemonAttribute.MCAST_IFN].split(b"\0", 1)[0].decode()),
            _number(U32, found[DaemonAttribute.SYNC_ID]),
            _read_group(found),
            Port(_number(U16, found.get(DaemonAttribute.MCAST_PORT, U16.pack(SYNC_PORT)))),
            _number(U8, found.get(DaemonAttribute.MCAST_TTL, b"\1")),
            _number(U16, found.get(DaemonAttribute.SYNC_MAXLEN, b"\0\0")),
        )
    except (KeyError, ValueError, struct.error) as error:
        raise WireError(f"IPVS sync daemon: {error!r}") from error


def _read_group(found: dict[int, bytes]) -> IPAddress:
    for kind, family in (
        (DaemonAttribute.MCAST_GROUP, AF_INET),
        (DaemonAttribute.MCAST_GROUP6, AF_INET6),
    ):
        if kind in found:
            return _address(found[kind], family)
    return SYNC_GROUP


def _read_service(found: dict[int, bytes]) -> VirtualServer:
    family = _number(U16, found[ServiceAttribute.AF])
    flags, _ = FLAGS.unpack(found[ServiceAttribute.FLAGS])
    scheduler = found[ServiceAttribute.SCHED_NAME].split(b"\0", 1)[0].decode("ascii")
    return VirtualServer(
        key=_read_key(found, family),
        scheduler=scheduler,
        flags=_read_flags(scheduler, flags),
        persistence=_number(U32, found[ServiceAttribute.TIMEOUT]) if flags & PERSISTENT else 0,
        persistence_netmask=_read_netmask(found[ServiceAttribute.NETMASK], family),
        one_packet=bool(flags & ONE_PACKET),
    )


def _read_key(found: dict[int, bytes], family: int) -> ServiceKey:
    if ServiceAttribute.FWMARK in found:
        anywhere = _address(bytes(16), family)
        return ServiceKey(anywhere, Port(0), fwmark=_number(U32, found[ServiceAttribute.FWMARK]))
    number = _number(U16, found[ServiceAttribute.PROTOCOL])
    try:
        protocol = Protocol(number)
    except ValueError as error:
        raise InexpressibleError(f"IPVS service of IP protocol {number}") from error
    address = _address(found[ServiceAttribute.ADDR], family)
    return ServiceKey(address, Port(_number(BE16, found[ServiceAttribute.PORT])), protocol)


@lru_cache
def _read_flags(scheduler: str, bits: int) -> frozenset[SchedulerFlag]:
    """Name the scheduler's bits.  On a scheduler that has no names for them they mean nothing."""
    mine = (flag for flag in SchedulerFlag if flag.value.startswith(f"{scheduler}-"))
    return frozenset(flag for flag in mine if flag.bit & bits)


def _read_netmask(raw: bytes, family: int) -> int:
    if family == AF_INET6:
        prefix = _number(U32, raw)
    else:
        mask = _number(BE32, raw)
        prefix = mask.bit_count()
        if mask != EVERY_BIT << (32 - prefix) & EVERY_BIT:
            return _NO_PREFIX
    if not prefix:
        return _NO_PREFIX
    return 0 if prefix == (128 if family == AF_INET6 else 32) else prefix


def _read_destination(found: dict[int, bytes], version: int) -> Destination:
    raw_family = found.get(DestAttribute.ADDR_FAMILY)
    family = _number(U16, raw_family) if raw_family else address_family(version)
    method = _number(U32, found[DestAttribute.FWD_METHOD])
    tunnel = _number(U8, found.get(DestAttribute.TUN_TYPE, b"\0"))
    # The kernel stores any number that it is told.  What it has no meaning for reads as a value
    # that is never desired beside it, so that the entry is put right in place.
    return Destination(
        address=_address(found[DestAttribute.ADDR], family),
        port=Port(_number(BE16, found[DestAttribute.PORT])),
        weight=_number(U32, found[DestAttribute.WEIGHT]),
        forwarding=Forwarding(method) if method <= Forwarding.DIRECT else Forwarding.LOCAL,
        upper_threshold=_number(U32, found[DestAttribute.U_THRESH]),
        lower_threshold=_number(U32, found[DestAttribute.L_THRESH]),
        tunnel_type=TunnelType(tunnel if tunnel <= TunnelType.GRE else TunnelType.IPIP),
        tunnel_port=Port(_number(BE16, found.get(DestAttribute.TUN_PORT, b"\0\0"))),
        tunnel_flags=_number(U16, found.get(DestAttribute.TUN_FLAGS, b"\0\0")),
    )


def _read_counters(found: dict[int, bytes]) -> DestinationCounters:
    wide = found.get(DestAttribute.STATS64)
    return DestinationCounters(
        active=_number(U32, found[DestAttribute.ACTIVE_CONNS]),
        inactive=_number(U32, found[DestAttribute.INACT_CONNS]),
        persistent=_number(U32, found[DestAttribute.PERSIST_CONNS]),
        traffic=_read_traffic(attributes(wide), U64)
        if wide is not None
        else _read_traffic(attributes(found.get(DestAttribute.STATS, b"")), U32),
    )


def _read_traffic(found: dict[int, bytes], count: struct.Struct) -> Traffic:
    """Read IPVS_STATS_ATTR_*: bytes are 64 bits wide in both kinds, counts as `count` says."""
    if not found:
        return Traffic()
    return Traffic(
        connections=_number(count, found[1]),
        packets_in=_number(count, found[2]),
        packets_out=_number(count, found[3]),
        bytes_in=_number(U64, found[4]),
        bytes_out=_number(U64, found[5]),
        connections_per_second=_number(count, found[6]),
    )


def _part(found: dict[int, bytes], kind: Top) -> bytes:
    try:
        return found[kind]
    except KeyError as error:
        raise WireError(f"IPVS: no {kind.name.lower()} in the answer") from error


def _address(raw: bytes, family: int) -> IPAddress:
    size = {AF_INET: 4, AF_INET6: 16}.get(family)
    if size is None or len(raw) < size:
        raise WireError(f"IPVS: an address of family {family} in {len(raw)} bytes")
    return IPv4Address(raw[:4]) if size == 4 else IPv6Address(raw[:16])


def _number(form: struct.Struct, raw: bytes) -> int:
    value: int = form.unpack(raw)[0]
    return value
