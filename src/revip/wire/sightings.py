"""What one frame says about an address of ours: somebody claims it, or a fellow node speaks.

Whatever bytes come in, a value comes out; `Garbled` with its reason for what is not to be believed.
"""

from __future__ import annotations

import struct
from ipaddress import IPv6Address

from revip.model.conflict import Claimed, Garbled, Sighting, Spoke
from revip.model.host import MacAddress
from revip.model.ipvs import IPAddress
from revip.model.vrrp import Heard
from revip.wire.arp import read_arp
from revip.wire.ethernet import (
    BROADCAST,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    HEAD,
    NO_MAC,
    payload_of,
    sender_of,
)
from revip.wire.ndp import NeighborAdvertisement, read_ndp
from revip.wire.netlink import WireError
from revip.wire.vrrp import Envelope, Listener, Rejected, decode, split_ipv4

_IPV6 = struct.Struct("!4xHBB16s16s")
_VRRP = 112
_NEXT_HEADER = HEAD + 6


def sighting(frame: bytes, address: IPAddress, vrid: int | None) -> Sighting | None:
    """Judge one Ethernet frame; None when it says nothing about `address`.

    With a `vrid`, an advert of that group is a fellow's if it lists `address`.
    """
    try:
        sender = sender_of(frame)
        kind = int.from_bytes(frame[12:14], "big")
        if kind == ETHERTYPE_ARP:
            mac = _arp(frame, address)
        elif kind == ETHERTYPE_IPV6 and frame[_NEXT_HEADER : _NEXT_HEADER + 1] != bytes((_VRRP,)):
            mac = _ndp(frame, sender, address)
        else:
            return _advert(frame, sender, address, vrid)
    except WireError as error:
        return Garbled(str(error))
    if mac is None:
        return None
    if mac in (BROADCAST, NO_MAC) or mac[0] & 1:
        return Garbled(f"{address} is claimed for {mac.hex(':')}, which is nobody's address")
    return Claimed(mac)


def _arp(frame: bytes, address: IPAddress) -> MacAddress | None:
    packet = read_arp(frame)
    return packet.sender_mac if packet.claims == address else None


def _ndp(frame: bytes, sender: MacAddress, address: IPAddress) -> MacAddress | None:
    message = read_ndp(frame)
    claimed = message.target if isinstance(message, NeighborAdvertisement) else message.source
    return (message.mac or sender) if claimed == address else None


def _advert(
    frame: bytes, sender: MacAddress, address: IPAddress, vrid: int | None
) -> Spoke | Garbled | None:
    if vrid is None:
        return None
    split = _split_ipv6(frame) if address.version == 6 else _split_ipv4(frame)
    if isinstance(split, Rejected):
        return Garbled(f"vrrp: {split.text}")
    envelope, message = split
    # By multicast or unicast: who speaks for our address is a fellow either way.
    peers = frozenset(() if envelope.destination.is_multicast else (envelope.source,))
    heard = decode(message, envelope, Listener(vrid, frozenset(), peers))
    listed = isinstance(heard, Heard) and address in heard.advertisement.addresses
    return Spoke(sender) if listed else None  # what is odd about it, the election says


def _split_ipv4(frame: bytes) -> tuple[Envelope, bytes] | Rejected:
    return split_ipv4(payload_of(frame, ETHERTYPE_IPV4))


def _split_ipv6(frame: bytes) -> tuple[Envelope, bytes]:
    packet = payload_of(frame, ETHERTYPE_IPV6)
    if len(packet) < _IPV6.size:
        raise WireError(f"vrrp: {len(packet)} bytes where an IPv6 header should be")
    length, _, hops, source, destination = _IPV6.unpack_from(packet)
    envelope = Envelope(IPv6Address(source), IPv6Address(destination), hops)
    return envelope, packet[_IPV6.size : _IPV6.size + length]
