"""The fence as bytes: what is asked of the kernel, and how its answers are known as ours."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revip.model.host import Fence
from revip.model.instants import Span
from revip.model.spec import LinkName
from revip.wire.netlink import NLM_F_ACK, WireError, attribute, attributes, messages
from revip.wire.nft import (
    fence_built,
    fence_destroyed,
    fence_opened,
    has_elements,
    is_the_fence,
    table_name,
)

FENCES = [Fence(LinkName("eth0"), ip_address(vip), 51, Span(300)) for vip in ("10.0.0.9", "fd::9")]
EACH = pytest.mark.parametrize("fence", FENCES, ids=["IPv4", "IPv6"])
NEW_RULE, NEW_ELEMENT = 10 << 8 | 6, 10 << 8 | 12
USERDATA = 7


@EACH
def test_a_transaction_is_framed_and_its_last_part_is_answered(fence: Fence) -> None:
    for packed in (
        fence_built(fence, 2, Span(300), 7),
        fence_opened(fence.address, 2, None, 7),
        fence_destroyed(fence.address, 7),
    ):
        parts = list(messages(packed))
        assert [parts[0].kind, parts[-1].kind] == [0x10, 0x11]
        assert {part.sequence for part in parts} == {7}
        assert [part for part in parts if part.flags & NLM_F_ACK] == [parts[-2]]


@EACH
def test_only_an_open_fence_has_an_element(fence: Fence) -> None:
    for span, there in ((Span(300), 1), (None, 0)):
        kinds = [part.kind for part in messages(fence_built(fence, 2, span, 7))]
        assert kinds.count(NEW_ELEMENT) == there
        kinds = [part.kind for part in messages(fence_opened(fence.address, 2, span, 7))]
        assert kinds.count(NEW_ELEMENT) == there


@EACH
def test_rules_are_known_by_their_marks_all_of_them_and_no_other(fence: Fence) -> None:
    parts = messages(fence_built(fence, 2, None, 7))
    rules = [part.payload for part in parts if part.kind == NEW_RULE]
    assert is_the_fence(fence, rules)
    assert not is_the_fence(fence, rules[:1])
    assert not is_the_fence(fence, rules[::-1])
    assert not is_the_fence(fence, [*rules, rules[0]])
    assert not is_the_fence(fence, [])
    assert not is_the_fence(Fence(fence.link, fence.address, 52, Span(300)), rules)
    assert attributes(rules[0][4:])[USERDATA].endswith(b"vrid 51 300 ms: each advert\0")


def test_a_table_is_called_what_nft_reads() -> None:
    assert [table_name(fence.address) for fence in FENCES] == [
        "revip_0a000009",
        "revip_00fd0000000000000000000000000009",
    ]


def test_an_empty_set_has_no_elements() -> None:
    assert not has_elements([])
    assert not has_elements([bytes(4)])
    assert has_elements([bytes(4) + attribute(3, b"some")])


@given(st.lists(st.binary(max_size=40), max_size=3))
def test_whatever_comes_in_one_exception_comes_out(answers: list[bytes]) -> None:
    with contextlib.suppress(WireError):
        is_the_fence(FENCES[0], answers)
    with contextlib.suppress(WireError):
        has_elements(answers)
