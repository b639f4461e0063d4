"""Netlink bytes: what the kernel's headers say, and that garbage is only ever a WireError."""

from __future__ import annotations

import contextlib
import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revip.wire import netlink
from revip.wire.netlink import Acknowledgement, Message, WireError

_payloads = st.binary(max_size=64)
_messages = st.builds(
    Message,
    kind=st.integers(0, 0xFFFF),
    flags=st.integers(0, 0xFFFF),
    sequence=st.integers(0, 0xFFFFFFFF),
    payload=_payloads,
)


def test_a_message_is_a_header_of_sixteen_bytes_and_a_padded_payload() -> None:
    packed = netlink.pack_message(Message(kind=0x1B, flags=5, sequence=7, payload=b"abcde"))
    assert packed == struct.pack("=IHHII", 21, 0x1B, 5, 7, 0) + b"abcde\0\0\0"


def test_an_attribute_is_padded_but_its_length_is_not() -> None:
    assert netlink.attribute(6, b"mh\0") == struct.pack("=HH", 7, 6) + b"mh\0\0"


def test_a_nested_attribute_says_so() -> None:
    inner = netlink.attribute(1, b"\x02\x00")
    assert netlink.nested(1, inner) == struct.pack("=HH", 12, 0x8001) + inner


def test_the_controller_is_asked_by_name_and_answers_with_an_id() -> None:
    assert (
        netlink.family_request("IPVS")
        == bytes.fromhex("03010000") + struct.pack("=HH", 9, 2) + b"IPVS\0\0\0\0"
    )
    answer = netlink.generic(1, 2, netlink.attribute(1, struct.pack("=H", 0x1B)))
    assert netlink.family_id(answer) == 0x1B


def test_a_controller_without_an_id_is_a_wire_error() -> None:
    with pytest.raises(WireError, match="no family id"):
        netlink.family_id(netlink.generic(1, 2))


@given(st.lists(_messages, max_size=5))
def test_messages_come_back_as_they_went(sent: list[Message]) -> None:
    assert list(netlink.messages(b"".join(map(netlink.pack_message, sent)))) == sent


@given(st.dictionaries(st.integers(0, 0x3FFF), _payloads, max_size=5))
def test_attributes_come_back_as_they_went(sent: dict[int, bytes]) -> None:
    packed = b"".join(netlink.attribute(kind, payload) for kind, payload in sent.items())
    assert netlink.attributes(packed) == sent


@given(st.binary(max_size=200))
def test_random_bytes_are_a_wire_error_and_nothing_else(noise: bytes) -> None:
    for read in (netlink.attributes, netlink.generic_attributes, netlink.family_id):
        with contextlib.suppress(WireError):
            read(noise)
    with contextlib.suppress(WireError):
        list(netlink.messages(noise))


@given(
    st.sampled_from([netlink.NLMSG_ERROR, netlink.NLMSG_DONE]),
    st.sampled_from([0, netlink.NLM_F_CAPPED, netlink.NLM_F_ACK_TLVS, 0x300]),
    st.binary(max_size=80),
)
def test_a_random_acknowledgement_is_a_wire_error_and_nothing_else(
    kind: int, flags: int, noise: bytes
) -> None:
    with contextlib.suppress(WireError):
        netlink.acknowledgement(Message(kind, flags, 1, noise))


@pytest.mark.parametrize("length", [0, 15, 17, 0xFFFFFFFF])
def test_a_message_that_lies_about_its_length_is_a_wire_error(length: int) -> None:
    with pytest.raises(WireError):
        list(netlink.messages(struct.pack("=IHHII", length, 2, 0, 0, 0)))


@pytest.mark.parametrize("length", [0, 3, 9])
def test_an_attribute_that_lies_about_its_length_is_a_wire_error(length: int) -> None:
    with pytest.raises(WireError):
        netlink.attributes(struct.pack("=HHI", length, 1, 0))


def test_an_acknowledgement_of_zero_is_success() -> None:
    request = struct.pack("=IHHII", 20, 0x1B, 5, 7, 0)
    done = Message(netlink.NLMSG_ERROR, netlink.NLM_F_CAPPED, 7, struct.pack("=i", 0) + request)
    assert netlink.acknowledgement(done) == Acknowledgement(0)


def test_the_end_of_a_dump_may_carry_an_error() -> None:
    end = Message(netlink.NLMSG_DONE, 2, 7, struct.pack("=i", -errno.EINTR))
    assert netlink.acknowledgement(end).errno == errno.EINTR


@pytest.mark.parametrize("capped", [True, False])
def test_the_kernels_own_words_are_read_behind_the_quoted_request(capped: bool) -> None:
    quoted = struct.pack("=IHHII", 20, 0x1B, 5, 7, 0) + (b"" if capped else b"BODY")
    words = netlink.attribute(netlink.NLMSGERR_ATTR_MSG, b"no such thing\0")
    flags = netlink.NLM_F_ACK_TLVS | (netlink.NLM_F_CAPPED if capped else 0)
    payload = struct.pack("=i", -errno.EINVAL) + quoted + words
    refused = netlink.acknowledgement(Message(netlink.NLMSG_ERROR, flags, 7, payload))
    assert refused == Acknowledgement(errno.EINVAL, "no such thing")
