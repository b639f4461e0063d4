"""VRRP version 3 adverts as bytes: RFC 9568 section 5, validated as section 7.1 asks.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-------+-------+---------------+---------------+---------------+
    |Version| Type  |     VRID      |   Priority    |  IPvX count   |
    +-------+-------+-------+-------+---------------+---------------+
    |  zero | interval (centisec.)  |           checksum            |
    +-------+-----------------------+-------------------------------+
    |                      IPvX addresses ...                       |

Whatever bytes come in, a value comes out: `Heard` or `Rejected` with its reason.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

from revip.model.instants import Span
from revip.model.ipvs import IPAddress
from revip.model.vrrp import (
    CENTISECOND,
    VRRP_PROTOCOL,
    VRRP_TTL,
    Advertisement,
    Checksum,
    Heard,
)

_HEADER = struct.Struct("!BBBBHH")
_VERSION_3_ADVERT = 0x31
_VERSION_2_ADVERT = 0x21
_INTERVAL = 0x0FFF
_CHECKSUM_AT = 6
_IPV4_HEADER = struct.Struct("!BBHHHBBH4s4s")
_V2_AUTHENTICATION = {1: "a plain password", 2: "IPsec AH"}
"""RFC 2338 section 5.3.6; RFC 3768 took it out of the protocol, keepalived still sends it."""


class Rejection(Enum):
    """Why a packet is not an advert for us; the values are metric labels."""

    HEADER = "ip-header"
    """The IPv4 header is not whole, or not of VRRP."""
    SHORT = "short"
    OTHER_GROUP = "other-vrid"
    """Somebody else's group on the same link: quite in order."""
    OWN = "own-source"
    """It bears our own source address: an echo, or another host has our address."""
    STRANGER = "stranger"
    """With unicast peers: not from one of them; without: not sent to the multicast group."""
    TTL = "ttl"
    VERSION_2 = "version-2"
    VERSION = "version"
    TYPE = "type"
    LENGTH = "length"
    CHECKSUM = "checksum"
    INTERVAL = "interval"
    ADDRESSES = "no-addresses"


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why a packet was not taken, for the counter and for people."""

    rejection: Rejection
    text: str
    source: IPAddress | None = field(default=None, compare=False)
    """Who sent it, as far as its header says."""

    @property
    def quite_in_order(self) -> bool:
        """Whether nothing is wrong: somebody else's group may share the link."""
        return self.rejection is Rejection.OTHER_GROUP


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the IP header said."""

    source: IPAddress
    destination: IPAddress
    ttl: int | None
    """TTL or hop limit; None when the kernel did not tell."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Whose adverts are wanted."""

    vrid: int
    own: frozenset[IPAddress]
    """Addresses whose packets are echoes of our own."""
    peers: frozenset[IPAddress] = frozenset()
    """Unicast peers; empty means that adverts come by multicast."""


def encode(
    advertisement: Advertisement,
    source: IPAddress,
    destination: IPAddress,
    checksum: Checksum = Checksum.PSEUDO_HEADER,
) -> bytes:
    """Return the IP payload; `checksum` matters for IPv4 only."""
    message = _HEADER.pack(
        _VERSION_3_ADVERT,
        advertisement.vrid,
        advertisement.priority,
        len(advertisement.addresses),
        advertisement.interval // CENTISECOND,
        0,
    ) + b"".join(address.packed for address in advertisement.addresses)
    above = _pseudo_header(source, destination, len(message))
    if source.version == 4 and checksum is Checksum.MESSAGE_ONLY:
        above = b""
    total = (_sum(above + message) ^ 0xFFFF).to_bytes(2, "big")
    return message[:_CHECKSUM_AT] + total + message[_CHECKSUM_AT + 2 :]


def split_ipv4(packet: bytes) -> tuple[Envelope, bytes] | Rejected:
    """Take the IPv4 header off a packet as a raw socket gives it (raw(7), RFC 791 section 3.1)."""
    if len(packet) < _IPV4_HEADER.size:
        return Rejected(Rejection.HEADER, f"{len(packet)} bytes are no IPv4 header")
    first, _, total, _, _, ttl, protocol, _, source, destination = _IPV4_HEADER.unpack_from(packet)
    length = (first & 0x0F) * 4
    if first >> 4 != 4 or not _IPV4_HEADER.size <= length <= total <= len(packet):
        return Rejected(Rejection.HEADER, "the IPv4 header contradicts the packet's length")
    if protocol != VRRP_PROTOCOL:
        return Rejected(Rejection.HEADER, f"protocol {protocol} is not VRRP")
    envelope = Envelope(IPv4Address(source), IPv4Address(destination), ttl)
    return envelope, packet[length:total]


def decode(message: bytes, envelope: Envelope, listener: Listener) -> Heard | Rejected:
    """Judge one IP payload of protocol 112.

    The group comes first: nothing in an advert of somebody else's group is our business.
    """
    refused = _refuse_envelope(message, envelope, listener) or _refuse_form(message, envelope)
    if refused:
        return replace(refused, source=envelope.source)
    _, vrid, priority, count, interval, _ = _HEADER.unpack_from(message)
    form = _checksum_form(message, envelope)
    if form is None:
        text = "the checksum is wrong in either reading of RFC 9568"
        return Rejected(Rejection.CHECKSUM, text, envelope.source)
    if not interval & _INTERVAL:
        text = "an advertisement interval of zero"
        return Rejected(Rejection.INTERVAL, text, envelope.source)
    if not count:
        return Rejected(Rejection.ADDRESSES, "not a single virtual address", envelope.source)
    advertisement = Advertisement(
        vrid,
        priority,
        Span((interval & _INTERVAL) * CENTISECOND),
        _addresses(message[_HEADER.size :], envelope.source.version),
    )
    return Heard(envelope.source, advertisement, form)


def _refuse_envelope(message: bytes, envelope: Envelope, listener: Listener) -> Rejected | None:
    if len(message) < _HEADER.size:
        return Rejected(Rejection.SHORT, f"{len(message)} bytes are no VRRP header")
    if message[1] != listener.vrid:
        return Rejected(Rejection.OTHER_GROUP, f"VRID {message[1]}, ours is {listener.vrid}")
    if envelope.source in listener.own:
        return Rejected(
            Rejection.OWN,
            f"it comes from our own address {envelope.source}: an echo, or a second host has it",
        )
    if listener.peers and envelope.source not in listener.peers:
        return Rejected(Rejection.STRANGER, f"{envelope.source} is not one of the peers")
    if envelope.destination.is_multicast == bool(listener.peers):
        kind = "multicast" if envelope.destination.is_multicast else "unicast"
        wanted = "unicast" if listener.peers else "multicast"
        return Rejected(Rejection.STRANGER, f"it came by {kind}, this group speaks by {wanted}")
    if envelope.ttl != VRRP_TTL:
        return Rejected(Rejection.TTL, f"TTL {envelope.ttl} is not 255: it is not of this link")
    return None


def _refuse_form(message: bytes, envelope: Envelope) -> Rejected | None:
    first, _, _, count, *_ = message
    if first == _VERSION_2_ADVERT:
        kind = _V2_AUTHENTICATION.get(message[4])
        leftovers = f"with authentication leftovers ({kind})" if kind else "without authentication"
        return Rejected(Rejection.VERSION_2, f"version 2, {leftovers}: set vrrp_version 3 there")
    if first >> 4 != 3:
        return Rejected(Rejection.VERSION, f"version {first >> 4}, ours is 3")
    if first != _VERSION_3_ADVERT:
        return Rejected(Rejection.TYPE, f"type {first & 0x0F} is not an advertisement")
    expected = _HEADER.size + count * (4 if envelope.source.version == 4 else 16)
    if len(message) < expected:
        return Rejected(
            Rejection.LENGTH, f"{len(message)} bytes, {count} addresses need {expected}"
        )
    if len(message) > expected:
        return Rejected(
            Rejection.LENGTH,
            f"{len(message) - expected} bytes after the addresses: "
            "version 3 has no authentication (keepalived's auth_hmac?)",
        )
    return None


def _checksum_form(message: bytes, envelope: Envelope) -> Checksum | None:
    """Return which form of checksum `message` has; None when it has neither."""
    above = _pseudo_header(envelope.source, envelope.destination, len(message))
    if _sum(above + message) == 0xFFFF:
        return Checksum.PSEUDO_HEADER
    if envelope.source.version == 4 and _sum(message) == 0xFFFF:
        return Checksum.MESSAGE_ONLY
    return None


def _pseudo_header(source: IPAddress, destination: IPAddress, length: int) -> bytes:
    """RFC 8200 section 8.1, and for IPv4 that of TCP (RFC 9293 section 3.1)."""
    form = "!HH" if source.version == 4 else "!II"
    return source.packed + destination.packed + struct.pack(form, VRRP_PROTOCOL, length)


def _sum(data: bytes) -> int:
    """Return the one's complement sum of 16-bit words (RFC 1071)."""
    padded = data + bytes(len(data) % 2)
    # 2^16 is 1 modulo 0xFFFF: the whole as one number is congruent to the sum of its words.
    whole = int.from_bytes(padded, "big")
    return whole % 0xFFFF or (0xFFFF if whole else 0)


def _addresses(packed: bytes, version: int) -> tuple[IPAddress, ...]:
    if version == 4:
        return tuple(IPv4Address(packed[at : at + 4]) for at in range(0, len(packed), 4))
    return tuple(IPv6Address(packed[at : at + 16]) for at in range(0, len(packed), 16))
