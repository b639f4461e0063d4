"""The list of connections and the messages of a sync master, as net/netfilter/ipvs has them."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import replace
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from revip.model.ipvs import Port, ServiceKey
from revip.wire.ipvs_sync import Connection, read_connections, sync_messages
from revip.wire.netlink import WireError

LISTING = """\
Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
TCP 0A000132 87F8 0A00010A 192B 0A000110 192B ESTABLISHED     899
UDP 0A000132 87F8 0A00010A 0035 0A000110 0035 UDP             299
TCP fd00:0001:0000:0000:0000:0000:0000:0050 87F9 fd00:0001:0000:0000:0000:0000:0000:0010 192B \
fd00:0001:0000:0000:0000:0000:0000:0016 192B FIN_WAIT        105
"""
FOUR = Connection(
    ip_address("10.0.1.50"),
    34808,
    ServiceKey(ip_address("10.0.1.10"), Port(6443)),
    ip_address("10.0.1.16"),
    Port(6443),
    "ESTABLISHED",
    899,
)
SIX = Connection(
    ip_address("fd00:1::50"),
    34809,
    ServiceKey(ip_address("fd00:1::10"), Port(6443)),
    ip_address("fd00:1::16"),
    Port(6443),
    "FIN_WAIT",
    105,
)
GOLDEN = (
    "00 33 002c 01 01 0000"  # reserved, syncid 51, 44 bytes, one connection, version 1
    "00 06 0024 00000003 0001"  # IPv4, TCP, 36 bytes, direct routing, established
    "87f8 192b 192b 00000000 00000383"  # ports, no mark, 899 s
    "0a000132 0a00010a 0a000110"  # client, virtual, destination
)


def test_the_list_is_read() -> None:
    assert list(read_connections(LISTING)) == [FOUR, SIX]


def test_a_message_has_the_bytes_of_the_kernels_own() -> None:
    assert list(sync_messages(51, [FOUR])) == [bytes.fromhex(GOLDEN)]


def test_both_families_go_in_one_message() -> None:
    (message,) = sync_messages(51, [FOUR, SIX])
    assert len(message) == 8 + 36 + 72
    assert message[44:48] == bytes.fromhex("01060048")


def test_many_are_cut_into_messages_that_say_their_size() -> None:
    many = [replace(FOUR, client_port=port) for port in range(1, 1001)]
    messages = list(sync_messages(51, many))
    assert sum(message[4] for message in messages) == 1000
    for message in messages:
        assert struct.unpack("!H", message[2:4]) == (len(message),)
        assert len(message) < 1280


@given(st.text())
def test_a_damaged_list_is_refused_as_such(text: str) -> None:
    with contextlib.suppress(WireError):
        list(read_connections(f"head\nTCP {text}"))
