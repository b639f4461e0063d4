"""When neighbors are told: the burst, the refresh, and what interrupts them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revip.model.host import LinkAddress
from revip.model.instants import MINUTE, NEVER, Instant, Span, later
from revip.model.spec import LinkName
from revip.planner.announce import REFRESH, RETRY, Announcements, failed, next_wakeup, step

ETH0, ETH1 = LinkName("eth0"), LinkName("eth1")
OLD = LinkAddress(ETH0, ip_address("10.0.1.10"))
NEW = LinkAddress(ETH0, ip_address("fd00:1::10"))
OTHER = LinkAddress(ETH1, ip_address("10.0.2.10"))
BEGIN = Instant(1_000_000)

Sent = list[tuple[int, LinkAddress]]


def told(
    span: Span,
    held: Callable[[int], frozenset[LinkAddress]],
    works: Callable[[int], bool] = lambda _: True,
    late: int = 0,
) -> Sent:
    """Run for `span`, woken `late` ms after each instant that was asked for; times from 0."""
    state, now, sent = Announcements(), BEGIN, Sent()
    while now <= BEGIN + span:
        passed = now - BEGIN
        state, due = step(state, held(passed), now)
        for address in due:
            if works(passed):
                sent.append((passed, address))
            else:
                state = failed(state, address, now)
        wakeup = next_wakeup(state)
        assert wakeup > now, "nobody is woken for what is done"
        now = Instant(min(wakeup + late, now + 50))
    return sent


def times(sent: Sent, address: LinkAddress) -> list[int]:
    return [at for at, which in sent if which == address]


def always(*held: LinkAddress) -> Callable[[int], frozenset[LinkAddress]]:
    return lambda _: frozenset(held)


def test_ipv4_is_told_at_once_twice_more_soon_and_then_at_one_and_three_seconds() -> None:
    assert times(told(Span(20_000), always(OLD)), OLD) == [0, 100, 300, 1000, 3000]


def test_ipv6_is_told_three_times_at_least_a_second_apart() -> None:
    assert times(told(Span(20_000), always(NEW)), NEW) == [0, 1000, 3000]


@pytest.mark.parametrize("address", [OLD, NEW], ids=["IPv4", "IPv6"])
def test_what_stays_is_refreshed_every_thirty_seconds(address: LinkAddress) -> None:
    refreshes = [at for at in times(told(Span(100_000), always(address)), address) if at > 3000]
    assert refreshes == [3000 + REFRESH, 3000 + 2 * REFRESH, 3000 + 3 * REFRESH]


def test_each_address_has_its_own_schedule() -> None:
    def held(passed: int) -> frozenset[LinkAddress]:
        return frozenset({OLD, OTHER}) if passed >= 2000 else frozenset({OLD})

    sent = told(Span(10_000), held)
    assert times(sent, OLD) == [0, 100, 300, 1000, 3000]
    assert times(sent, OTHER) == [2000, 2100, 2300, 3000, 5000]


def test_nothing_is_told_of_what_is_gone_and_its_return_is_a_new_burst() -> None:
    def held(passed: int) -> frozenset[LinkAddress]:
        return frozenset() if 500 <= passed < 5000 else frozenset({OLD})

    at = times(told(Span(12_000), held), OLD)
    assert at == [0, 100, 300, 5000, 5100, 5300, 6000, 8000]


def test_a_failed_announcement_is_tried_each_second_and_the_burst_begins_anew() -> None:
    at = times(told(Span(12_000), always(OLD), works=lambda now: not 200 < now < 4000), OLD)
    assert at == [0, 100, 4300, 4400, 4600, 5300, 7300]
    assert RETRY == 1000


def test_a_stall_costs_announcements_but_is_not_made_up_for() -> None:
    state, due = step(Announcements(), frozenset({OLD, NEW}), BEGIN)
    assert due == (OLD, NEW)
    woken = later(BEGIN, MINUTE)
    state, due = step(state, frozenset({OLD, NEW}), woken)
    assert due == (OLD, NEW)
    assert step(state, frozenset({OLD, NEW}), woken)[1] == ()


def test_with_nothing_held_nobody_is_woken() -> None:
    state, due = step(Announcements(), frozenset(), BEGIN)
    assert (due, next_wakeup(state)) == ((), NEVER)


@given(
    late=st.integers(0, 3000),
    broken=st.sets(st.integers(0, 20)),
    gone=st.sets(st.integers(0, 20)),
)
def test_advertisements_are_never_less_than_a_second_apart_while_the_address_stays(
    late: int, broken: set[int], gone: set[int]
) -> None:
    def held(passed: int) -> frozenset[LinkAddress]:
        return frozenset() if passed // 1000 in gone else frozenset({NEW})

    at = times(told(Span(20_000), held, lambda now: now // 1000 not in broken, late), NEW)
    for before, after in itertools.pairwise(at):
        absent = any(before < second * 1000 + 1000 and second * 1000 < after for second in gone)
        assert after - before >= 1000 or absent


@given(late=st.integers(0, 3000), broken=st.sets(st.integers(0, 20)))
def test_what_is_held_and_can_be_told_is_told_within_the_retry(late: int, broken: set[int]) -> None:
    works = lambda now: now // 1000 not in broken  # noqa: E731
    at = times(told(Span(30_000), always(OLD), works, late), OLD)
    usable = next(second for second in range(25) if second not in broken) * 1000
    assert at[0] <= usable + RETRY + 50
