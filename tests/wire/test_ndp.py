"""Neighbor discovery: what RFC 4861 says, what others see, and what must not be believed."""

from __future__ import annotations

import contextlib
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import capture
from revip.model.host import MacAddress, mac_text
from revip.wire.ndp import (
    ALL_NODES,
    NeighborAdvertisement,
    NeighborSolicitation,
    duplicate_probe,
    pack_ndp,
    read_ndp,
    solicited_node,
    unsolicited,
)
from revip.wire.netlink import WireError

MAC = MacAddress(bytes.fromhex("02000a000110"))
VIP = IPv6Address("fd00:1::10")
HOST = IPv6Address("fe80::50")

_macs = st.binary(min_size=6, max_size=6).map(MacAddress)
_hosts = st.integers(1, (0xFF << 120) - 1).map(IPv6Address)
_advertisements = st.builds(
    NeighborAdvertisement,
    _hosts,
    st.just(ALL_NODES),
    _hosts,
    st.none() | _macs,
    router=st.booleans(),
    override=st.booleans(),
)
_solicitations = st.builds(
    lambda source, target, mac: NeighborSolicitation(source, solicited_node(target), target, mac),
    _hosts,
    _hosts,
    st.none() | _macs,
)


def test_an_unsolicited_advertisement_is_as_rfc_4861_draws_it() -> None:
    frame = pack_ndp(unsolicited(MAC, VIP, router=False), MAC)
    assert frame[:14] == bytes.fromhex("333300000001 02000a000110 86dd")
    assert frame[14:22] == bytes.fromhex("60000000 0020 3a ff"), "ICMPv6, hop limit 255"
    assert frame[22:38] == VIP.packed
    assert frame[38:54] == ALL_NODES.packed
    assert frame[54:56] == b"\x88\x00"
    assert frame[58:62] == bytes.fromhex("20000000"), "override, neither solicited nor router"
    assert frame[62:78] == VIP.packed
    assert frame[78:] == b"\x02\x01" + MAC, "target link-layer address"


def test_a_router_says_so_lest_it_be_dropped_as_one() -> None:
    assert pack_ndp(unsolicited(MAC, VIP, router=True), MAC)[58] == 0xA0


def test_a_duplicate_probe_comes_from_nobody_to_the_solicited_node_group() -> None:
    frame = pack_ndp(duplicate_probe(VIP), MAC)
    assert frame[:6] == bytes.fromhex("3333ff000010")
    assert frame[22:38] == bytes(16)
    assert frame[38:54] == IPv6Address("ff02::1:ff00:10").packed
    assert frame[54] == 135
    assert len(frame) == 78, "no link-layer option from the unspecified address"


def test_the_checksum_is_that_of_an_independent_sender() -> None:
    ours = NeighborSolicitation(HOST, solicited_node(VIP), VIP, MAC)
    assert pack_ndp(ours, MAC) == capture.solicitation(MAC, HOST, VIP)


@given(_advertisements | _solicitations, _macs)
def test_messages_come_back_as_they_went(
    message: NeighborAdvertisement | NeighborSolicitation, mac: MacAddress
) -> None:
    frame = pack_ndp(message, mac)
    assert read_ndp(frame) == message
    assert read_ndp(frame + bytes(8)) == message, "padding is not part of it"


@given(_advertisements, _macs)
def test_an_independent_parser_sees_the_same(
    message: NeighborAdvertisement, mac: MacAddress
) -> None:
    seen = capture.parse(pack_ndp(message, mac), 7)
    assert seen is not None
    assert (seen.kind, seen.claims, seen.gratuitous) == ("advertisement", str(message.target), True)
    assert seen.mac == mac_text(message.mac or mac)


@pytest.mark.parametrize(
    ("offset", "byte", "reason"),
    [
        (12, 0x08, "EtherType"),
        (14, 0x40, "version 4"),
        (19, 0x21, "33 bytes"),
        (20, 44, "next header 44"),
        (21, 254, "hop limit 254"),
        (54, 134, "type 134"),
        (55, 1, "code 1"),
        (57, 0, "checksum"),
        (70, 1, "checksum"),
    ],
)
def test_what_a_node_must_not_believe_is_refused(offset: int, byte: int, reason: str) -> None:
    frame = bytearray(pack_ndp(unsolicited(MAC, VIP, router=False), MAC))
    assert frame[offset] != byte
    frame[offset] = byte
    with pytest.raises(WireError, match=reason):
        read_ndp(bytes(frame))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (NeighborAdvertisement(VIP, ALL_NODES, VIP, MAC, solicited=True), "cannot have asked"),
        (NeighborAdvertisement(VIP, ALL_NODES, ALL_NODES, MAC), "multicast"),
        (NeighborSolicitation(IPv6Address(0), solicited_node(VIP), VIP, MAC), "from nobody"),
        (NeighborSolicitation(IPv6Address(0), ALL_NODES, VIP), "from nobody"),
    ],
    ids=["solicited", "target", "option", "group"],
)
def test_messages_that_contradict_themselves_are_refused(
    message: NeighborAdvertisement | NeighborSolicitation, reason: str
) -> None:
    with pytest.raises(WireError, match=reason):
        read_ndp(pack_ndp(message, MAC))


def _with_options(options: bytes) -> bytes:
    """Return an advertisement with other options and its checksum put right."""
    message = unsolicited(MAC, VIP, router=False)
    body = bytes.fromhex("88000000 20000000") + VIP.packed + options
    pseudo = VIP.packed + ALL_NODES.packed + len(body).to_bytes(4, "big") + bytes((0, 0, 0, 58))
    checksum = capture._checksum(pseudo + body + bytes(len(body) % 2))
    body = body[:2] + checksum.to_bytes(2, "big") + body[4:]
    head = pack_ndp(message, MAC)[:54]
    return head[:18] + len(body).to_bytes(2, "big") + head[20:] + body


def test_options_of_newer_kinds_are_skipped() -> None:
    nonce = b"\x0e\x01" + bytes(6)  # RFC 7527
    read = read_ndp(_with_options(nonce + b"\x02\x01" + MAC))
    assert read.mac == MAC


@pytest.mark.parametrize("options", [b"\x02\x00" + MAC, b"\x02\x02" + MAC, b"\x02"])
def test_an_option_without_length_or_beyond_the_end_is_refused(options: bytes) -> None:
    with pytest.raises(WireError, match="option"):
        read_ndp(_with_options(options))


def test_a_link_layer_address_of_another_size_is_no_ethernet_address() -> None:
    read = read_ndp(_with_options(b"\x02\x02" + bytes(14)))
    assert read.mac is None


@given(st.binary(max_size=120), st.binary(max_size=40))
def test_no_bytes_do_worse_than_a_wire_error(frame: bytes, options: bytes) -> None:
    valid = pack_ndp(unsolicited(MAC, VIP, router=False), MAC)
    for candidate in (frame, valid[:54] + frame, valid[: len(frame)], _with_options(options)):
        with contextlib.suppress(WireError):
            read_ndp(candidate)
