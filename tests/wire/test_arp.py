"""ARP frames: what the RFCs say, what an independent parser sees, and that garbage is an error."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import capture
from revip.model.host import MacAddress, mac_text
from revip.wire.arp import (
    ArpOperation,
    ArpPacket,
    gratuitous_reply,
    gratuitous_request,
    pack_arp,
    probe,
    read_arp,
)
from revip.wire.netlink import WireError

MAC = MacAddress(bytes.fromhex("02000a000110"))
VIP = IPv4Address("10.0.1.10")

_macs = st.binary(min_size=6, max_size=6).map(MacAddress)
_addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
_packets = st.builds(ArpPacket, st.sampled_from(ArpOperation), _macs, _addresses, _macs, _addresses)


def test_the_request_form_asks_everybody_for_its_own_address() -> None:
    assert pack_arp(gratuitous_request(MAC, VIP)) == bytes.fromhex(
        "ffffffffffff 02000a000110 0806"
        "0001 0800 06 04 0001"
        "02000a000110 0a00010a 000000000000 0a00010a"
    )


def test_the_reply_form_names_itself_as_target_hardware_too() -> None:
    assert pack_arp(gratuitous_reply(MAC, VIP)) == bytes.fromhex(
        "ffffffffffff 02000a000110 0806"
        "0001 0800 06 04 0002"
        "02000a000110 0a00010a 02000a000110 0a00010a"
    )


def test_a_probe_comes_from_nobody_and_claims_nothing() -> None:
    packet = probe(MAC, VIP)
    assert pack_arp(packet) == bytes.fromhex(
        "ffffffffffff 02000a000110 0806"
        "0001 0800 06 04 0001"
        "02000a000110 00000000 000000000000 0a00010a"
    )
    assert packet.claims is None
    assert gratuitous_request(MAC, VIP).claims == VIP


@given(_packets)
def test_packets_come_back_as_they_went(packet: ArpPacket) -> None:
    frame = pack_arp(packet)
    assert read_arp(frame) == packet
    assert read_arp(frame + bytes(60 - len(frame))) == packet, "padded to the shortest frame"


@given(_packets)
def test_an_independent_parser_sees_the_same(packet: ArpPacket) -> None:
    seen = capture.parse(pack_arp(packet), 7)
    assert seen is not None
    assert (
        seen.kind
        == {ArpOperation.REQUEST: "who-has", ArpOperation.REPLY: "is-at"}[packet.operation]
    )
    assert seen.mac == mac_text(packet.sender_mac)
    assert (seen.sender, seen.target) == (str(packet.sender), str(packet.target))
    assert seen.gratuitous == (packet.sender == packet.target)


def test_what_an_independent_sender_asks_is_read() -> None:
    frame = capture.arp_question(MAC, IPv4Address("10.0.1.50"), VIP)
    asked = read_arp(frame)
    assert (asked.operation, asked.sender_mac, asked.target) == (ArpOperation.REQUEST, MAC, VIP)


@pytest.mark.parametrize(
    ("offset", "byte", "reason"),
    [
        (12, 0x86, "EtherType"),
        (15, 6, "not IPv4 over Ethernet"),
        (16, 0x86, "not IPv4 over Ethernet"),
        (18, 8, "not IPv4 over Ethernet"),
        (19, 16, "not IPv4 over Ethernet"),
        (21, 3, "operation 3"),
        (21, 0, "operation 0"),
    ],
)
def test_other_media_protocols_and_operations_are_refused(
    offset: int, byte: int, reason: str
) -> None:
    frame = bytearray(pack_arp(probe(MAC, VIP)))
    frame[offset] = byte
    with pytest.raises(WireError, match=reason):
        read_arp(bytes(frame))


@pytest.mark.parametrize("length", [0, 13, 14, 41])
def test_a_frame_cut_short_is_refused(length: int) -> None:
    with pytest.raises(WireError):
        read_arp(pack_arp(probe(MAC, VIP))[:length])


@given(st.binary(max_size=80), st.binary(max_size=46))
def test_no_bytes_do_worse_than_a_wire_error(frame: bytes, body: bytes) -> None:
    for candidate in (frame, b"\xff" * 6 + MAC + b"\x08\x06" + body):
        with contextlib.suppress(WireError):
            read_arp(candidate)
