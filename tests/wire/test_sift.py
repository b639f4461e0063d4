"""The kernel's filters let in what the readers understand, and nothing else."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

from hypothesis import given
from hypothesis import strategies as st

from revip.model.conflict import Claimed, Garbled, Spoke
from revip.model.host import MacAddress
from revip.model.instants import Span
from revip.model.ipvs import IPAddress
from revip.model.vrrp import VRRP_PROTOCOL, Advertisement, Checksum
from revip.wire.arp import ArpOperation, ArpPacket, gratuitous_reply, pack_arp, probe
from revip.wire.ethernet import ETHERTYPE_IPV4, ETHERTYPE_IPV6, pack_frame
from revip.wire.ndp import (
    NeighborAdvertisement,
    NeighborSolicitation,
    duplicate_probe,
    pack_ndp,
    solicited_node,
    unsolicited,
)
from revip.wire.sift import arp_claims, group_adverts, group_adverts6, ndp_claims
from revip.wire.sightings import sighting
from revip.wire.vrrp import encode

MAC = MacAddress(bytes.fromhex("02000a000110"))
VIP, VIP6 = IPv4Address("10.0.1.10"), IPv6Address("fd00:1::10")
VRID = 51
GROUP, GROUP6 = ip_address("224.0.0.18"), ip_address("ff02::12")

_macs = st.binary(min_size=6, max_size=6).map(MacAddress)
_addresses = st.just(VIP) | st.integers(0, 2**32 - 1).map(IPv4Address)
_addresses6 = st.just(VIP6) | st.integers(1, (0xFF << 120) - 1).map(IPv6Address)
_arp_packets = st.builds(
    ArpPacket, st.sampled_from(ArpOperation), _macs, _addresses, _macs, _addresses
)


def passes(program: bytes, packet: bytes) -> bool:
    """Run a classic BPF program as the kernel does (net/core/filter.c), before it is translated."""
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator = index = at = 0
    while True:
        opcode, true, false, operand = code[at]
        at += 1
        if opcode == 0x06:
            return bool(operand)
        if opcode == 0x15:
            at += true if accumulator == operand else false
        elif opcode == 0x54:
            accumulator &= operand
        else:
            size = {0x20: 4, 0x28: 2, 0x30: 1, 0xB1: 1, 0x50: 1}[opcode]
            start = operand + (index if opcode == 0x50 else 0)
            if start + size > len(packet):
                return False  # a load beyond the end rejects
            loaded = int.from_bytes(packet[start : start + size], "big")
            if opcode == 0xB1:
                index = 4 * (loaded & 15)
            else:
                accumulator = loaded


def advert(
    address: IPAddress, *, vrid: int = VRID, ttl: int = 255, to: IPAddress | None = None
) -> bytes:
    """Return an advert as a frame."""
    if address.version == 4:
        source: IPAddress = ip_address("10.0.1.16")
        destination = to or GROUP
        message = encode(Advertisement(vrid, 100, Span(1000), (address,)), source, destination)
        head = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0xC0, 20 + len(message), 0, 0, ttl, VRRP_PROTOCOL, 0,
            source.packed, destination.packed,
        )  # fmt: skip
        return pack_frame(
            MacAddress(b"\x01\x00\x5e\x00\x00\x12"), MAC, ETHERTYPE_IPV4, head + message
        )
    source, destination = ip_address("fe80::1"), to or GROUP6
    message = encode(
        Advertisement(vrid, 100, Span(1000), (address,)), source, destination, Checksum.MESSAGE_ONLY
    )
    head = struct.pack(
        "!IHBB16s16s", 6 << 28, len(message), VRRP_PROTOCOL, ttl, source.packed, destination.packed
    )
    return pack_frame(MacAddress(b"\x33\x33\x00\x00\x00\x12"), MAC, ETHERTYPE_IPV6, head + message)


@given(_arp_packets)
def test_arp_passes_if_it_claims_the_address(packet: ArpPacket) -> None:
    assert passes(arp_claims(VIP), pack_arp(packet)) == (packet.sender == VIP)


@given(_addresses6, _addresses6, _macs)
def test_neighbor_discovery_passes_if_it_claims_the_address(
    source: IPv6Address, target: IPv6Address, mac: MacAddress
) -> None:
    for message, claimed in (
        (NeighborAdvertisement(source, solicited_node(target), target, mac), target),
        (NeighborSolicitation(source, solicited_node(target), target, mac), source),
    ):
        frame = pack_ndp(message, mac)
        assert passes(ndp_claims(VIP6), frame) == (claimed == VIP6)
        claims = isinstance(sighting(frame, VIP6, VRID), Claimed | Garbled)
        assert claims == (claimed == VIP6)


def test_questions_of_one_who_has_nothing_claim_nothing() -> None:
    assert not passes(arp_claims(VIP), pack_arp(probe(MAC, VIP)))
    assert not passes(ndp_claims(VIP6), pack_ndp(duplicate_probe(VIP6), MAC))
    assert sighting(pack_arp(probe(MAC, VIP)), VIP, None) is None
    assert sighting(pack_ndp(duplicate_probe(VIP6), MAC), VIP6, None) is None


def test_adverts_of_our_group_for_our_address_make_a_fellow() -> None:
    for vip, program in ((VIP, group_adverts(VRID)), (VIP6, group_adverts6(VRID))):
        assert passes(program, advert(vip))
        assert sighting(advert(vip), vip, VRID) == Spoke(MAC)
        peer = ip_address("10.0.1.17") if vip.version == 4 else ip_address("fe80::2")
        assert sighting(advert(vip, to=peer), vip, VRID) == Spoke(MAC), "by unicast, too"


def test_adverts_of_others_or_from_afar_do_not() -> None:
    for vip, program in ((VIP, group_adverts(VRID)), (VIP6, group_adverts6(VRID))):
        assert not passes(program, advert(vip, vrid=52))
        assert not passes(program, advert(vip, ttl=254))
        assert sighting(advert(vip, vrid=52), vip, VRID) is None
        assert sighting(advert(vip, ttl=254), vip, VRID) is None
        other = ip_address("10.0.1.11") if vip.version == 4 else ip_address("fd00:1::11")
        assert sighting(advert(other), vip, VRID) is None, "a foreign group with our number"
        assert sighting(advert(vip), vip, None) is None


def test_who_claims_is_who_caches_would_believe() -> None:
    """ARP's own field, not the frame's sender; the option of neighbor discovery before it."""
    other = MacAddress(b"\x02\x00\x00\x00\x00\x05")
    frame = other.join((b"\xff" * 6, pack_arp(gratuitous_reply(MAC, VIP))[12:]))
    assert sighting(frame, VIP, None) == Claimed(MAC)
    frame = pack_ndp(unsolicited(MAC, VIP6, router=False), other)
    assert sighting(frame, VIP6, None) == Claimed(MAC)


def test_a_claim_for_everybody_s_or_nobody_s_hardware_address_is_garbled() -> None:
    for mac in (b"\xff" * 6, bytes(6), b"\x01\x00\x5e\x00\x00\x01"):
        frame = pack_arp(gratuitous_reply(MacAddress(mac), VIP))
        assert isinstance(sighting(frame, VIP, None), Garbled)


@given(st.binary(max_size=120), st.integers(0, 90), st.sampled_from([None, VRID]))
def test_no_bytes_raise(junk: bytes, cut: int, vrid: int | None) -> None:
    heads = [
        pack_arp(gratuitous_reply(MAC, VIP)),
        pack_ndp(unsolicited(MAC, VIP6, router=False), MAC),
        advert(VIP),
        advert(VIP6),
    ]
    for frame in (junk, *(head[:cut] + junk for head in heads)):
        for vip in (VIP, VIP6):
            seen = sighting(frame, vip, vrid)
            assert seen is None or isinstance(seen, Claimed | Spoke | Garbled)
        for program in (arp_claims(VIP), group_adverts(VRID), ndp_claims(VIP6)):
            passes(program, frame)
