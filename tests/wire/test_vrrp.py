"""VRRPv3 adverts against packets of keepalived 2.2.7, RFC 9568, and against any bytes at all."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revip.model.instants import Span
from revip.model.ipvs import IPAddress
from revip.model.vrrp import GROUP_V4, GROUP_V6, Advertisement, Checksum, Heard
from revip.wire.vrrp import (
    Envelope,
    Listener,
    Rejected,
    Rejection,
    decode,
    encode,
    split_ipv4,
)

PACKET_V4 = bytes.fromhex("45c0002000010000ff70d0980a000002e000001231336401000a76260a00000a")
"""keepalived 2.2.7, vrrp_version 3, as a raw socket gives it: with its IPv4 header."""
MESSAGE_V6 = bytes.fromhex("31336401000afd1bfd000000000000000000000000000010")
"""The same over IPv6, where raw sockets give no header."""
SOURCE_V6 = IPv6Address("fe80::b9:c7ff:fe0f:abad")
HEARD_V4 = Heard(
    IPv4Address("10.0.0.2"), Advertisement(51, 100, Span(100), (IPv4Address("10.0.0.10"),))
)
HEARD_V6 = Heard(SOURCE_V6, Advertisement(51, 100, Span(100), (IPv6Address("fd00::10"),)))
LISTENER = Listener(51, frozenset({IPv4Address("10.0.0.1"), IPv6Address("fe80::1")}))
ENVELOPE = Envelope(IPv4Address("10.0.0.2"), GROUP_V4, 255)
ENVELOPE_V6 = Envelope(SOURCE_V6, GROUP_V6, 255)


def message_v4() -> bytes:
    split = split_ipv4(PACKET_V4)
    assert not isinstance(split, Rejected)
    assert split[0] == ENVELOPE
    return split[1]


MESSAGE = message_v4()


def resummed(message: bytes) -> bytes:
    """Return the IPv4 message with the checksum that its bytes need (RFC 9568's reading)."""
    bare = message[:6] + bytes(2) + message[8:]
    total = sum(int.from_bytes(bare[at : at + 2], "big") for at in range(0, len(bare), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return bare[:6] + (total ^ 0xFFFF).to_bytes(2, "big") + bare[8:]


def patched(**at: int) -> bytes:
    """Return keepalived's message with bytes exchanged (`b4=0`: byte 4), its sum set right."""
    message = bytearray(MESSAGE)
    for name, value in at.items():
        message[int(name[1:])] = value
    return resummed(bytes(message))


def rejected(
    message: bytes, envelope: Envelope = ENVELOPE, listener: Listener = LISTENER
) -> Rejected:
    outcome = decode(message, envelope, listener)
    assert isinstance(outcome, Rejected)
    return outcome


# --- what is understood -------------------------------------------------------------------------


def test_adverts_of_keepalived_are_understood() -> None:
    assert decode(MESSAGE, ENVELOPE, LISTENER) == HEARD_V4
    assert decode(MESSAGE_V6, ENVELOPE_V6, LISTENER) == HEARD_V6


def test_ours_are_to_the_byte_what_keepalived_would_send() -> None:
    assert encode(HEARD_V4.advertisement, ENVELOPE.source, GROUP_V4) == MESSAGE
    assert encode(HEARD_V6.advertisement, SOURCE_V6, GROUP_V6) == MESSAGE_V6


def test_both_readings_of_the_ipv4_checksum_are_understood_and_told_apart() -> None:
    strict = encode(HEARD_V4.advertisement, ENVELOPE.source, GROUP_V4, Checksum.MESSAGE_ONLY)
    assert strict == resummed(MESSAGE)
    assert decode(strict, ENVELOPE, LISTENER) == replace(HEARD_V4, checksum=Checksum.MESSAGE_ONLY)


def test_reserved_bits_are_ignored() -> None:
    assert decode(patched(b4=0xF0), ENVELOPE, LISTENER) == replace(
        HEARD_V4, checksum=Checksum.MESSAGE_ONLY
    )


def test_peers_are_heard_by_unicast() -> None:
    me = IPv4Address("10.0.0.1")
    message = encode(HEARD_V4.advertisement, ENVELOPE.source, me)
    listener = replace(LISTENER, peers=frozenset({ENVELOPE.source}))
    assert decode(message, Envelope(ENVELOPE.source, me, 255), listener) == HEARD_V4


# --- what is rejected, and why ------------------------------------------------------------------


def test_a_group_of_somebody_else_is_no_concern_of_ours_whatever_is_in_it() -> None:
    outcome = rejected(patched(b0=0x21, b1=52), replace(ENVELOPE, ttl=1))
    assert outcome == Rejected(Rejection.OTHER_GROUP, "VRID 52, ours is 51")


@pytest.mark.parametrize("ttl", [254, 1, None])
def test_what_came_through_a_router_is_rejected(ttl: int | None) -> None:
    assert rejected(MESSAGE, replace(ENVELOPE, ttl=ttl)).rejection is Rejection.TTL


def test_our_own_address_as_the_source_is_rejected() -> None:
    outcome = rejected(MESSAGE, replace(ENVELOPE, source=IPv4Address("10.0.0.1")))
    assert outcome.rejection is Rejection.OWN


def test_unicast_and_multicast_do_not_mix() -> None:
    me = IPv4Address("10.0.0.1")
    peers = replace(LISTENER, peers=frozenset({ENVELOPE.source}))
    strangers = replace(LISTENER, peers=frozenset({IPv4Address("10.0.0.3")}))
    assert rejected(MESSAGE, replace(ENVELOPE, destination=me)).rejection is Rejection.STRANGER
    assert rejected(MESSAGE, ENVELOPE, peers).rejection is Rejection.STRANGER
    assert rejected(MESSAGE, ENVELOPE, strangers).text == "10.0.0.2 is not one of the peers"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (0, "version 2, without authentication"),
        (1, "version 2, with authentication leftovers (a plain password)"),
        (2, "version 2, with authentication leftovers (IPsec AH)"),
    ],
)
def test_version_2_is_named_as_such(kind: int, words: str) -> None:
    outcome = rejected(patched(b0=0x21, b4=kind) + bytes(8))
    assert outcome == Rejected(Rejection.VERSION_2, f"{words}: set vrrp_version 3 there")


@pytest.mark.parametrize(
    ("message", "rejection"),
    [
        (MESSAGE[:7], Rejection.SHORT),
        (MESSAGE[:-1], Rejection.LENGTH),
        (MESSAGE + b"\0", Rejection.LENGTH),
        (patched(b3=2), Rejection.LENGTH),
        (patched(b0=0x41), Rejection.VERSION),
        (patched(b0=0x32), Rejection.TYPE),
        (patched(b5=0), Rejection.INTERVAL),
        (resummed(patched(b3=0)[:8]), Rejection.ADDRESSES),
        (MESSAGE[:2] + b"\xff" + MESSAGE[3:], Rejection.CHECKSUM),
    ],
)
def test_a_malformed_advert_is_rejected_with_its_reason(
    message: bytes, rejection: Rejection
) -> None:
    assert rejected(message).rejection is rejection


def test_ipv6_has_a_pseudo_header_in_every_reading() -> None:
    moved = replace(ENVELOPE_V6, source=IPv6Address("fe80::2"))
    assert rejected(MESSAGE_V6, moved).rejection is Rejection.CHECKSUM


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        PACKET_V4[:19],
        b"\x46" + PACKET_V4[1:19] + b"\0",
        b"\x65" + PACKET_V4[1:],
        PACKET_V4[:2] + b"\xff\xff" + PACKET_V4[4:],
        PACKET_V4[:9] + b"\x06" + PACKET_V4[10:],
    ],
)
def test_an_ip_header_that_is_not_whole_is_rejected(packet: bytes) -> None:
    outcome = split_ipv4(packet)
    assert isinstance(outcome, Rejected)
    assert outcome.rejection is Rejection.HEADER


# --- any bytes at all ---------------------------------------------------------------------------

addresses = {4: st.ip_addresses(v=4), 6: st.ip_addresses(v=6)}


@st.composite
def adverts(draw: st.DrawFn) -> tuple[Advertisement, IPAddress, IPAddress, Checksum]:
    version = draw(st.sampled_from([4, 6]))
    advertisement = Advertisement(
        draw(st.integers(1, 255)),
        draw(st.integers(0, 255)),
        Span(10 * draw(st.integers(1, 4095))),
        tuple(draw(st.lists(addresses[version], min_size=1, max_size=20))),
    )
    source = draw(addresses[version])
    group: IPAddress = GROUP_V4 if version == 4 else GROUP_V6
    return advertisement, source, group, draw(st.sampled_from(Checksum))


@given(adverts())
def test_whatever_is_said_is_heard(
    said: tuple[Advertisement, IPAddress, IPAddress, Checksum],
) -> None:
    advertisement, source, group, checksum = said
    message = encode(advertisement, source, group, checksum)
    listener = Listener(advertisement.vrid, frozenset())
    heard = decode(message, Envelope(source, group, 255), listener)
    assert isinstance(heard, Heard)
    assert (heard.source, heard.advertisement) == (source, advertisement)


@given(adverts(), st.data())
def test_one_flipped_bit_is_never_heard_as_another_advert(
    said: tuple[Advertisement, IPAddress, IPAddress, Checksum], data: st.DataObject
) -> None:
    advertisement, source, group, _ = said
    message = bytearray(encode(advertisement, source, group))
    bit = data.draw(st.integers(0, 8 * len(message) - 1))
    message[bit // 8] ^= 1 << bit % 8
    listener = Listener(advertisement.vrid, frozenset())
    heard = decode(bytes(message), Envelope(source, group, 255), listener)
    # One chance in 2^16 is that the other reading of the checksum fits.
    assert isinstance(heard, Rejected) or heard.checksum is Checksum.MESSAGE_ONLY


envelopes = st.sampled_from([ENVELOPE, ENVELOPE_V6])
ttls = st.none() | st.integers(-1, 256)


@given(st.binary(max_size=80), envelopes, ttls, st.booleans())
def test_any_bytes_give_a_value(
    tail: bytes, envelope: Envelope, ttl: int | None, ours: bool
) -> None:
    message = b"\x31\x33" + tail if ours else tail
    outcome = decode(message, replace(envelope, ttl=ttl), LISTENER)
    assert isinstance(outcome, Heard | Rejected)


@given(st.binary(max_size=100), st.integers(0, 19), st.integers(0, 255))
def test_any_ipv4_packet_gives_a_value(noise: bytes, at: int, value: int) -> None:
    damaged = bytearray(PACKET_V4)
    damaged[at] = value
    for packet in (noise, bytes(damaged), bytes(damaged)[: len(noise)]):
        outcome = split_ipv4(packet)
        if not isinstance(outcome, Rejected):
            assert isinstance(decode(outcome[1], outcome[0], LISTENER), Heard | Rejected)
