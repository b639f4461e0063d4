"""IPVS bytes against include/uapi/linux/ip_vs.h, and observed values in the form of desired ones.

The hexadecimal bytes are of a little-endian machine; ports and IPv4 masks are big endian on all.
"""

from __future__ import annotations

import contextlib
import struct
import sys
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revip.model.ipvs import (
    AddDestination,
    AddServer,
    DeleteDestination,
    DeleteServer,
    Destination,
    DestinationCounters,
    Forwarding,
    Port,
    Protocol,
    SchedulerFlag,
    ServiceKey,
    SetDestination,
    SetServer,
    Traffic,
    TunnelType,
    VirtualServer,
)
from revip.wire import ipvs, ipvs_answers
from revip.wire.netlink import WireError, attribute, generic_attributes, nested

little_endian = pytest.mark.skipif(sys.byteorder != "little", reason="golden bytes")

VIP = ServiceKey(IPv4Address("10.0.1.10"), Port(6443))
VIP6 = ServiceKey(IPv6Address("fd00::10"), Port(6443))
N2 = Destination(IPv4Address("10.0.1.19"), Port(6443), 1)
MH = VirtualServer(VIP, "mh", frozenset({SchedulerFlag.MH_PORT, SchedulerFlag.MH_FALLBACK}))

GOLDEN_KEY = (
    "06000100 02000000"  # AF = AF_INET
    "06000200 06000000"  # PROTOCOL = TCP
    "14000300 0a00010a" + "00" * 12 +  # ADDR = 10.0.1.10
    "06000400 192b0000"  # PORT = 6443, big endian
)  # fmt: skip
GOLDEN_NEW_SERVICE = (
    "01010000 54000180"  # IPVS_CMD_NEW_SERVICE, version 1; SERVICE, nested
    + GOLDEN_KEY +
    "07000600 6d680000"  # SCHED_NAME = "mh"
    "0c000700 18000000ffffffff"  # FLAGS = SCHED1 | SCHED2, every bit counts
    "08000800 00000000"  # TIMEOUT
    "08000900 ffffffff"  # NETMASK
)  # fmt: skip
GOLDEN_ENDPOINT = (
    "06000b00 02000000"  # ADDR_FAMILY
    "14000100 0a000113" + "00" * 12 +  # ADDR = 10.0.1.19
    "06000200 192b0000"  # PORT
)  # fmt: skip
GOLDEN_NEW_DEST = (
    "05010000 30000180" + GOLDEN_KEY +  # IPVS_CMD_NEW_DEST
    "60000280" + GOLDEN_ENDPOINT +  # DEST, nested
    "08000300 03000000"  # FWD_METHOD = direct routing
    "08000400 01000000"  # WEIGHT
    "05000d00 00000000"  # TUN_TYPE
    "06000e00 00000000"  # TUN_PORT
    "06000f00 00000000"  # TUN_FLAGS
    "08000500 00000000"  # U_THRESH
    "08000600 00000000"  # L_THRESH
)  # fmt: skip

_v4 = st.ip_addresses(v=4)
_v6 = st.ip_addresses(v=6)
_ports = st.integers(0, 65535).map(Port)
_u32 = st.integers(0, 0xFFFFFFFF)
_keys = st.builds(ServiceKey, _v4 | _v6, _ports, st.sampled_from(Protocol))
_marks = st.builds(
    ServiceKey,
    st.sampled_from([IPv4Address(0), IPv6Address(0)]),
    st.just(Port(0)),
    fwmark=st.integers(1, 0xFFFFFFFF),
)


@st.composite
def _servers(draw: st.DrawFn) -> VirtualServer:
    key = draw(_keys | _marks)
    scheduler = draw(st.sampled_from(["rr", "wrr", "lc", "wlc", "mh", "sh", "none"]))
    mine = [flag for flag in SchedulerFlag if flag.value.startswith(f"{scheduler}-")]
    return VirtualServer(
        key,
        scheduler,
        frozenset(draw(st.sets(st.sampled_from(mine)))) if mine else frozenset(),
        persistence=draw(_u32),
        persistence_netmask=draw(st.integers(0, 31 if key.address.version == 4 else 127)),
        one_packet=draw(st.booleans()),
    )


_destinations = st.builds(
    Destination,
    address=_v4 | _v6,
    port=_ports,
    weight=st.integers(0, 65535),
    forwarding=st.sampled_from(Forwarding),
    upper_threshold=_u32,
    lower_threshold=_u32,
    tunnel_type=st.sampled_from(TunnelType),
    tunnel_port=_ports,
    tunnel_flags=st.integers(0, 65535),
)


def as_answered(destination: Destination, *counted: bytes, key: ServiceKey = VIP) -> bytes:
    """The kernel's NEW_DEST answer: our own attributes, and the counters behind them."""
    payload = ipvs.request(AddDestination(key, destination))
    counters = counted or tuple(attribute(kind, struct.pack("=I", kind)) for kind in (7, 8, 9))
    return payload[:4] + nested(2, generic_attributes(payload)[2], *counters)


def as_answered_service(*parts: bytes) -> bytes:
    return struct.pack("=BBH", 1, 1, 0) + nested(1, *parts)


@little_endian
def test_a_new_service_has_these_bytes() -> None:
    assert ipvs.request(AddServer(MH)) == bytes.fromhex(GOLDEN_NEW_SERVICE)


@little_endian
def test_a_new_destination_has_these_bytes() -> None:
    assert ipvs.request(AddDestination(VIP, N2)) == bytes.fromhex(GOLDEN_NEW_DEST)


@little_endian
def test_deleting_names_no_more_than_what_is_deleted() -> None:
    assert ipvs.request(DeleteServer(VIP)) == bytes.fromhex("03010000 30000180" + GOLDEN_KEY)
    assert ipvs.request(DeleteDestination(VIP, N2)) == bytes.fromhex(
        "07010000 30000180" + GOLDEN_KEY + "28000280" + GOLDEN_ENDPOINT
    )


def test_changing_in_place_says_set_and_all_fields() -> None:
    assert ipvs.request(SetServer(MH))[0] == ipvs.Command.SET_SERVICE
    assert ipvs.request(SetServer(MH))[1:] == ipvs.request(AddServer(MH))[1:]
    assert ipvs.request(SetDestination(VIP, N2))[0] == ipvs.Command.SET_DEST
    assert ipvs.request(SetDestination(VIP, N2))[1:] == ipvs.request(AddDestination(VIP, N2))[1:]


def test_the_persistence_mask_of_ipv4_is_a_mask_and_of_ipv6_a_length() -> None:
    masks = {
        (VIP, 0): b"\xff\xff\xff\xff",
        (VIP, 24): b"\xff\xff\xff\x00",
        (VIP6, 0): struct.pack("=I", 128),
        (VIP6, 64): struct.pack("=I", 64),
    }
    for (key, prefix), expected in masks.items():
        server = VirtualServer(key, persistence=360, persistence_netmask=prefix)
        service = generic_attributes(ipvs.request(AddServer(server)))[1]
        assert service.endswith(attribute(9, expected))


@given(_servers())
def test_a_service_comes_back_as_it_went(server: VirtualServer) -> None:
    assert ipvs_answers.decode_service(ipvs.request(AddServer(server))) == server


@given(_destinations)
def test_a_destination_comes_back_as_it_went(destination: Destination) -> None:
    found, counters = ipvs_answers.decode_destinations(VIP, (as_answered(destination),))
    assert found == {destination}
    assert counters == {(VIP, destination.address, destination.port): DestinationCounters(7, 8, 9)}


def test_flag_bits_of_the_kernel_itself_are_no_difference() -> None:
    found = generic_attributes(ipvs.request(AddServer(MH)))[1]
    with_hashed = found.replace(
        struct.pack("=II", 0x18, 0xFFFFFFFF), struct.pack("=II", 0x1A, 0xFFFFFFFF)
    )
    assert with_hashed != found
    assert ipvs_answers.decode_service(as_answered_service(with_hashed)) == MH


def test_the_whole_address_as_persistence_mask_is_the_default() -> None:
    for key, whole in ((VIP, 32), (VIP6, 128)):
        sent = VirtualServer(key, persistence=360, persistence_netmask=whole)
        received = ipvs_answers.decode_service(ipvs.request(AddServer(sent)))
        assert received == replace(sent, persistence_netmask=0)


@pytest.mark.parametrize("mask", [b"\xff\x00\xff\x00", bytes(4)])
def test_a_mask_without_a_prefix_length_equals_nothing_desired(mask: bytes) -> None:
    found = generic_attributes(ipvs.request(AddServer(MH)))[1]
    odd = found.replace(attribute(9, b"\xff" * 4), attribute(9, mask))
    assert ipvs_answers.decode_service(as_answered_service(odd)).persistence_netmask < 0


def test_a_timeout_without_the_persistent_flag_is_no_persistence() -> None:
    found = generic_attributes(ipvs.request(AddServer(MH)))[1]
    idle = found.replace(attribute(8, bytes(4)), attribute(8, struct.pack("=I", 360)))
    assert ipvs_answers.decode_service(as_answered_service(idle)).persistence == 0


def test_a_service_of_a_foreign_protocol_is_inexpressible() -> None:
    found = generic_attributes(ipvs.request(AddServer(MH)))[1]
    esp = found.replace(attribute(2, struct.pack("=H", 6)), attribute(2, struct.pack("=H", 50)))
    with pytest.raises(ipvs_answers.InexpressibleError, match="protocol 50"):
        ipvs_answers.decode_service(as_answered_service(esp))


def test_a_forwarding_method_that_we_do_not_know_is_a_difference_not_an_error() -> None:
    bypass = attribute(3, struct.pack("=I", 4))
    counted = tuple(attribute(kind, bytes(4)) for kind in (7, 8, 9))
    (found,), _ = ipvs_answers.decode_destinations(VIP, (as_answered(N2, bypass, *counted),))
    assert found == replace(N2, forwarding=Forwarding.LOCAL)


def test_counters_are_read_from_64_bits_and_from_32_where_there_are_no_others() -> None:
    connections = tuple(attribute(kind, bytes(4)) for kind in (7, 8, 9))

    def stats(count: str) -> bytes:
        values = [(1, count), (2, count), (3, count), (4, "=Q"), (5, "=Q"), (6, count)]
        return b"".join(attribute(kind, struct.pack(form, kind)) for kind, form in values)

    expected = DestinationCounters(traffic=Traffic(1, 2, 3, 4, 5, 6))
    for kind, form in ((12, "=Q"), (10, "=I")):
        answer = as_answered(N2, *connections, nested(kind, stats(form)))
        _, counters = ipvs_answers.decode_destinations(VIP, (answer,))
        assert list(counters.values()) == [expected]


def test_info_has_a_version_and_a_table_size() -> None:
    answer = struct.pack("=BBH", 14, 1, 0)
    answer += attribute(1, struct.pack("=I", 0x010201)) + attribute(2, struct.pack("=I", 4096))
    assert ipvs_answers.decode_info(answer) == ipvs_answers.Info((1, 2, 1), 4096)


def decode_all(noise: bytes) -> None:
    """Every decoder: what it raises, if anything, is a WireError."""
    with contextlib.suppress(WireError):
        ipvs_answers.decode_service(noise)
    with contextlib.suppress(WireError):
        ipvs_answers.decode_destinations(VIP, (noise,))
    with contextlib.suppress(WireError):
        ipvs_answers.decode_info(noise)


@given(st.binary(max_size=200))
def test_random_bytes_are_a_wire_error_and_nothing_else(noise: bytes) -> None:
    decode_all(noise)


@given(st.dictionaries(st.integers(0, 16), st.binary(max_size=24), max_size=16))
def test_well_formed_nonsense_is_a_wire_error_and_nothing_else(parts: dict[int, bytes]) -> None:
    body = b"".join(attribute(kind, payload) for kind, payload in parts.items())
    decode_all(struct.pack("=BBH", 1, 1, 0) + nested(1, body) + nested(2, body))


@given(st.data())
def test_a_damaged_answer_is_a_wire_error_or_another_value(data: st.DataObject) -> None:
    answer = bytearray(as_answered(N2) + generic_attributes(ipvs.request(AddServer(MH)))[1])
    for position in data.draw(st.lists(st.integers(0, len(answer) - 1), max_size=4)):
        answer[position] = data.draw(st.integers(0, 255))
    decode_all(bytes(answer[: data.draw(st.integers(0, len(answer)))]))
