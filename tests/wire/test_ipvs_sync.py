"""Sync daemons as bytes, against include/uapi/linux/ip_vs.h (IPVS_DAEMON_ATTR_*)."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revip.model.ipvs import Port
from revip.model.spec import LinkName
from revip.model.sync import SYNC_GROUP, SYNC_GROUP6, SyncDaemon, SyncRole
from revip.wire import ipvs, ipvs_answers
from revip.wire.netlink import WireError

little_endian = pytest.mark.skipif(sys.byteorder != "little", reason="golden bytes")

MASTER = SyncDaemon(SyncRole.MASTER, LinkName("eth0"), 51)
GOLDEN_NEW = (
    "09010000 38000380"  # IPVS_CMD_NEW_DAEMON, version 1; DAEMON, nested
    "08000100 01000000"  # STATE = master
    "09000200 6574683000000000"  # MCAST_IFN = "eth0"
    "08000300 33000000"  # SYNC_ID = 51
    "08000500 e0000051"  # MCAST_GROUP = 224.0.0.81
    "06000700 90220000"  # MCAST_PORT = 8848, in the machine's order
    "05000800 01000000"  # MCAST_TTL
)


@little_endian
def test_the_bytes_are_those_of_the_header_file() -> None:
    assert ipvs.new_daemon(MASTER) == bytes.fromhex(GOLDEN_NEW)
    assert ipvs.delete_daemon(SyncRole.BACKUP) == bytes.fromhex("0a0100000c0003800800010002000000")
    assert ipvs.dump_daemons() == bytes.fromhex("0b010000")


@given(
    st.sampled_from(SyncRole),
    st.sampled_from(["eth0", "bond0.7", "e"]),
    st.integers(0, 255),
    st.sampled_from([SYNC_GROUP, SYNC_GROUP6]),
    st.integers(1, 65535),
    st.integers(1, 255),
    st.integers(0, 65535),
)
def test_what_is_asked_for_reads_the_same(
    role: SyncRole, link: str, syncid: int, group: object, port: int, ttl: int, maxlen: int
) -> None:
    daemon = SyncDaemon(role, LinkName(link), syncid, SYNC_GROUP, Port(port), ttl, maxlen)
    daemon = replace(daemon, group=group)  # type: ignore[arg-type]
    read = ipvs_answers.decode_daemon(ipvs.new_daemon(daemon))
    assert read == daemon
    assert read.maxlen == maxlen


def test_an_old_kernel_that_tells_less_has_the_usual_rest() -> None:
    whole = ipvs.new_daemon(MASTER)
    short = bytes.fromhex("09010000 20000380") + whole[8:36]
    assert ipvs_answers.decode_daemon(short) == MASTER


@given(st.binary(max_size=80))
def test_garbage_is_refused_as_such(garbage: bytes) -> None:
    with contextlib.suppress(WireError):
        ipvs_answers.decode_daemon(b"\x09\x01\0\0" + garbage)
