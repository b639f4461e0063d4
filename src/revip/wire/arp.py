"""ARP for IPv4 over Ethernet as bytes: RFC 826, RFC 5227, RFC 5944 section 4.6.

Whatever bytes come in, the only exception that comes out is `WireError`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address

from revip.model.host import MacAddress
from revip.wire.ethernet import (
    BROADCAST,
    ETHERTYPE_ARP,
    HEAD,
    NO_MAC,
    pack_frame,
    payload_of,
)
from revip.wire.netlink import WireError

_PACKET = struct.Struct("!HHBBH6s4s6s4s")
_ETHERNET, _IPV4 = 1, 0x0800
_FORM = (_ETHERNET, _IPV4, 6, 4)
UNSPECIFIED = IPv4Address(0)


class ArpOperation(Enum):
    """What an ARP packet is, by its number on the wire."""

    REQUEST = 1
    REPLY = 2


@dataclass(frozen=True, slots=True)
class ArpPacket:
    """One ARP packet about IPv4 over Ethernet."""

    operation: ArpOperation
    sender_mac: MacAddress
    sender: IPv4Address
    target_mac: MacAddress
    target: IPv4Address

    @property
    def claims(self) -> IPv4Address | None:
        """The address that `sender_mac` says is its own; a probe claims none (RFC 5227, 1.1)."""
        return None if self.sender == UNSPECIFIED else self.sender


def gratuitous_request(mac: MacAddress, address: IPv4Address) -> ArpPacket:
    """Return the announcement of RFC 5227 section 3: sender and target address are one.

    A host with a local route for the address (a real server with the VIP on its loopback) takes it
    for a question to itself and learns nothing (Linux, net/ipv4/arp.c, arp_process).
    """
    return ArpPacket(ArpOperation.REQUEST, mac, address, NO_MAC, address)


def gratuitous_reply(mac: MacAddress, address: IPv4Address) -> ArpPacket:
    """Return the same as an answer that nobody asked for (RFC 5944, section 4.6).

    The target hardware address is the sender's: only so does Linux take it for gratuitous, and
    overwrite an entry that changed within the last second (arp.c, arp_is_garp; `locktime`).
    """
    return ArpPacket(ArpOperation.REPLY, mac, address, mac, address)


def probe(mac: MacAddress, address: IPv4Address) -> ArpPacket:
    """Return the question whether somebody has `address`, which claims nothing itself.

    RFC 5227 section 2.1.1: from 0.0.0.0, so that no neighbor's cache is touched by it.
    """
    return ArpPacket(ArpOperation.REQUEST, mac, UNSPECIFIED, NO_MAC, address)


def pack_arp(packet: ArpPacket, destination: MacAddress = BROADCAST) -> bytes:
    """Return `packet` as an Ethernet frame, from its sender to everybody."""
    body = _PACKET.pack(
        *_FORM,
        packet.operation.value,
        packet.sender_mac,
        packet.sender.packed,
        packet.target_mac,
        packet.target.packed,
    )
    return pack_frame(destination, packet.sender_mac, ETHERTYPE_ARP, body)


def read_arp(frame: bytes) -> ArpPacket:
    """Read an Ethernet frame; padding behind the packet is ignored.

    Raises `WireError` for other frames, media and protocols, and operations but request and reply.
    """
    payload = payload_of(frame, ETHERTYPE_ARP)
    if len(payload) < _PACKET.size:
        raise WireError(f"arp: {len(frame)} bytes where {HEAD + _PACKET.size} should be")
    *form, operation, sender_mac, sender, target_mac, target = _PACKET.unpack_from(payload)
    if tuple(form) != _FORM:
        raise WireError(f"arp: not IPv4 over Ethernet: {form}")
    try:
        kind = ArpOperation(operation)
    except ValueError as error:
        raise WireError(f"arp: operation {operation} is neither request nor reply") from error
    return ArpPacket(
        kind,
        MacAddress(sender_mac),
        IPv4Address(sender),
        MacAddress(target_mac),
        IPv4Address(target),
    )
