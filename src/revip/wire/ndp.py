"""Neighbor discovery as bytes: RFC 4861 over Ethernet (RFC 2464), checksum of RFC 4443.

Only solicitations and advertisements.  What is read is held against the rules of RFC 4861
sections 7.1.1 and 7.1.2; whatever bytes come in, the only exception that comes out is `WireError`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv6Address

from revip.model.host import MacAddress
from revip.wire.ethernet import ETHERTYPE_IPV6, pack_frame, payload_of
from revip.wire.netlink import WireError

ALL_NODES = IPv6Address("ff02::1")
UNSPECIFIED = IPv6Address(0)

_IPV6 = struct.Struct("!IHBB16s16s")
_MESSAGE = struct.Struct("!BBHB3x16s")
_PSEUDO = struct.Struct("!16s16sII")
_VERSION = 6 << 28
_ICMPV6 = 58
_HOP_LIMIT = 255
"""A router lowers it: what still has it comes from this link (RFC 4861, 7.1)."""
_SOLICITATION, _ADVERTISEMENT = 135, 136
_ROUTER, _SOLICITED, _OVERRIDE = 0x80, 0x40, 0x20
_SOURCE_LINK_LAYER, _TARGET_LINK_LAYER = 1, 2
_SOLICITED_NODE = bytes.fromhex("ff0200000000000000000001ff")


@dataclass(frozen=True, slots=True)
class NeighborSolicitation:
    """The question who has `target` (RFC 4861, section 4.3)."""

    source: IPv6Address
    """`::` in duplicate address detection."""
    destination: IPv6Address
    target: IPv6Address
    mac: MacAddress | None = None
    """Source link-layer address; None where the option is missing."""


@dataclass(frozen=True, slots=True)
class NeighborAdvertisement:
    """The claim that `target` is at `mac` (RFC 4861, section 4.4)."""

    source: IPv6Address
    destination: IPv6Address
    target: IPv6Address
    mac: MacAddress | None = None
    """Target link-layer address; None where the option is missing."""
    router: bool = False
    solicited: bool = False
    override: bool = True


def unsolicited(mac: MacAddress, address: IPv6Address, *, router: bool) -> NeighborAdvertisement:
    """Return the advertisement to all that `address` is at `mac` now (RFC 4861, section 7.2.6).

    `router` is whether this node forwards IPv6: hosts that had it as their router would drop the
    routes through it at an advertisement without that flag (RFC 4861, 7.2.5).
    """
    return NeighborAdvertisement(address, ALL_NODES, address, mac, router=router)


def duplicate_probe(address: IPv6Address) -> NeighborSolicitation:
    """Return the question of duplicate address detection (RFC 4862, section 5.4.2).

    From `::`, hence without a link-layer option: it claims nothing.
    """
    return NeighborSolicitation(UNSPECIFIED, solicited_node(address), address)


def solicited_node(address: IPv6Address) -> IPv6Address:
    """Return the multicast group that whoever has `address` listens to (RFC 4291, 2.7.1)."""
    return IPv6Address(_SOLICITED_NODE + address.packed[-3:])


def pack_ndp(message: NeighborSolicitation | NeighborAdvertisement, source: MacAddress) -> bytes:
    """Return `message` as an Ethernet frame from `source`; its destination must be multicast."""
    if isinstance(message, NeighborSolicitation):
        kind, flags, option = _SOLICITATION, 0, _SOURCE_LINK_LAYER
    else:
        kind, flags, option = _ADVERTISEMENT, _flags(message), _TARGET_LINK_LAYER
    tail = b"" if message.mac is None else bytes((option, 1)) + message.mac
    draft = _MESSAGE.pack(kind, 0, 0, flags, message.target.packed) + tail
    checksum = _checksum(message.source, message.destination, draft)
    body = draft[:2] + checksum.to_bytes(2, "big") + draft[4:]
    ends = (message.source.packed, message.destination.packed)
    head = _IPV6.pack(_VERSION, len(body), _ICMPV6, _HOP_LIMIT, *ends)
    group = MacAddress(b"\x33\x33" + message.destination.packed[-4:])  # RFC 2464, section 7
    return pack_frame(group, source, ETHERTYPE_IPV6, head + body)


def read_ndp(frame: bytes) -> NeighborSolicitation | NeighborAdvertisement:
    """Read an Ethernet frame.  Raises `WireError` for all that a node must not believe."""
    source, destination, body = _unwrap(payload_of(frame, ETHERTYPE_IPV6))
    kind, code, _, flags, raw = _MESSAGE.unpack_from(body)
    if kind not in (_SOLICITATION, _ADVERTISEMENT) or code:
        raise WireError(f"ndp: ICMPv6 type {kind} code {code}")
    if _checksum(source, destination, body):
        raise WireError("ndp: wrong checksum")
    target = IPv6Address(raw)
    if target.is_multicast:
        raise WireError(f"ndp: target {target} is multicast")
    options = _options(body[_MESSAGE.size :])
    if kind == _SOLICITATION:
        return _solicitation(source, destination, target, options.get(_SOURCE_LINK_LAYER))
    solicited = bool(flags & _SOLICITED)
    if solicited and destination.is_multicast:
        raise WireError(f"ndp: an answer to {destination}, who cannot have asked")
    return NeighborAdvertisement(
        source,
        destination,
        target,
        options.get(_TARGET_LINK_LAYER),
        router=bool(flags & _ROUTER),
        solicited=solicited,
        override=bool(flags & _OVERRIDE),
    )


def _unwrap(packet: bytes) -> tuple[IPv6Address, IPv6Address, bytes]:
    """Return source, destination and ICMPv6 message of an IPv6 packet without other headers.

    Extension headers are refused: RFC 6980 forbids fragments here, and nobody sends others.
    """
    if len(packet) < _IPV6.size:
        raise WireError(f"ndp: {len(packet)} bytes where an IPv6 header should be")
    first, length, following, hops, source, destination = _IPV6.unpack_from(packet)
    if first >> 28 != 6 or following != _ICMPV6:
        raise WireError(f"ndp: version {first >> 28}, next header {following}")
    if hops != _HOP_LIMIT:
        raise WireError(f"ndp: hop limit {hops}, so it may come from beyond this link")
    body = packet[_IPV6.size : _IPV6.size + length]
    if not _MESSAGE.size <= length == len(body):
        raise WireError(f"ndp: a message of {length} bytes in {len(body)}")
    return IPv6Address(source), IPv6Address(destination), body


def _solicitation(
    source: IPv6Address, destination: IPv6Address, target: IPv6Address, mac: MacAddress | None
) -> NeighborSolicitation:
    if source == UNSPECIFIED and (mac is not None or destination != solicited_node(target)):
        raise WireError("ndp: a question from nobody, but not duplicate address detection")
    return NeighborSolicitation(source, destination, target, mac)


def _options(rest: bytes) -> dict[int, MacAddress]:
    """Return the link-layer addresses by option type; others are skipped (RFC 4861, 4.6)."""
    found: dict[int, MacAddress] = {}
    while rest:
        length = rest[1] * 8 if len(rest) > 1 else 0
        if not 0 < length <= len(rest):
            raise WireError(f"ndp: an option of {length} bytes in {len(rest)}")
        if rest[0] in (_SOURCE_LINK_LAYER, _TARGET_LINK_LAYER) and length == 8:
            found.setdefault(rest[0], MacAddress(rest[2:8]))
        rest = rest[length:]
    return found


def _flags(message: NeighborAdvertisement) -> int:
    return (
        (_ROUTER if message.router else 0)
        | (_SOLICITED if message.solicited else 0)
        | (_OVERRIDE if message.override else 0)
    )


def _checksum(source: IPv6Address, destination: IPv6Address, body: bytes) -> int:
    """Return the Internet checksum with IPv6's pseudo header (RFC 4443, 2.3; RFC 8200, 8.1).

    0 when `body` has the right one in it.
    """
    pseudo = _PSEUDO.pack(source.packed, destination.packed, len(body), _ICMPV6)
    padded = pseudo + body + bytes(len(body) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
