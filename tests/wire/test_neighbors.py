"""The kernel's neighbor table: what is read, skipped and refused."""

from __future__ import annotations

import contextlib
import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revip.wire.neighbors import RTM_NEWNEIGH, neighbors_request, read_neighbor
from revip.wire.netlink import Message, WireError, attribute

MAC = bytes.fromhex("02000a000110")
REACHABLE, STALE, FAILED, NOARP = 0x02, 0x04, 0x20, 0x40


def entry(
    address: str = "10.0.1.16", *, link: int = 2, state: int = STALE, mac: bytes = MAC
) -> Message:
    packed = ip_address(address).packed
    head = struct.pack("=BxxxiHBB", 2 if len(packed) == 4 else 10, link, state, 0, 1)
    payload = head + attribute(1, packed) + attribute(2, mac)
    return Message(RTM_NEWNEIGH, 0, 1, payload)


@pytest.mark.parametrize("address", ["10.0.1.16", "fd00::1"])
def test_a_neighbor_is_read(address: str) -> None:
    assert read_neighbor(entry(address), 2) == (MAC, ip_address(address))


def test_others_links_and_the_unresolved_are_skipped() -> None:
    assert read_neighbor(entry(), 3) is None
    assert read_neighbor(entry(state=FAILED), 2) is None
    assert read_neighbor(entry(state=NOARP), 2) is None
    assert read_neighbor(entry(mac=b""), 2) is None


def test_a_request_names_the_family() -> None:
    assert neighbors_request(4, 1).payload[0] == 2
    assert neighbors_request(6, 1).payload[0] == 10


@given(st.binary(max_size=60), st.integers(0, 40))
def test_no_bytes_do_worse_than_a_wire_error(junk: bytes, cut: int) -> None:
    for payload in (junk, entry().payload[:cut] + junk):
        with contextlib.suppress(WireError):
            read_neighbor(Message(RTM_NEWNEIGH, 0, 1, payload), 2)
