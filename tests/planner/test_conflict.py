"""Somebody else has the address: when it is asked, told, defended and left alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revip.model.conflict import (
    Alert,
    Aside,
    Asking,
    Blind,
    Claim,
    Clear,
    Conflict,
    ConflictAction,
    Defend,
    Heard,
    Held,
    Question,
    Recognized,
    Released,
)
from revip.model.host import MacAddress
from revip.model.instants import MINUTE, NEVER, SECOND, Instant, Span
from revip.model.spec import OnDuplicate
from revip.planner.conflict import (
    CHECK,
    DEFEND_INTERVAL,
    FORGET,
    RETRY_CEILING,
    Event,
    Rules,
    may_hold,
    next_wakeup,
    objection,
    step,
)
from revip.planner.health import TimerFired

VIP = ip_address("10.0.1.10")
STRANGER = MacAddress(bytes.fromhex("020000000099"))
OTHER = MacAddress(bytes.fromhex("020000000098"))
FELLOW = MacAddress(bytes.fromhex("020000000002"))
WINDOW = Span(4_000)
BEGIN = Instant(1_000_000)
POLICIES = pytest.mark.parametrize("policy", OnDuplicate)


class World:
    """A link with hosts that answer each question; the machine and what it did, by time."""

    def __init__(self, policy: OnDuplicate = OnDuplicate.DEFEND, *, elected: bool = False) -> None:
        patience = Span(2 * SECOND) if elected else Span(0)
        self.rules = Rules(VIP, policy, WINDOW, patience, 51 if elected else None)
        self.state = Conflict()
        self.now = BEGIN
        self.answering: set[MacAddress] = set()
        self.neighbors: set[MacAddress] = set()
        """Those that the kernel's neighbor table has as fellows."""
        self.did: list[tuple[int, ConflictAction]] = []

    def feed(self, event: Event) -> None:
        self.state, actions = step(self.rules, self.state, event, self.now)
        for action in actions:
            self.did.append((self.now - BEGIN, action))
        for action in actions:
            if isinstance(action, Question):
                for mac in sorted(self.answering):
                    self.hear(mac)

    def hear(self, mac: MacAddress) -> None:
        self.feed(Heard(mac, mac in self.neighbors))

    def run(self, span: int) -> None:
        """Let time pass; each alarm is on time."""
        end = Instant(self.now + span)
        while (at := next_wakeup(self.state)) <= end:
            assert at >= self.now
            self.now = Instant(max(at, self.now))
            self.feed(TimerFired())
            assert next_wakeup(self.state) > self.now, "nobody is woken for what is done"
        self.now = end

    def start(self, span: int = 2_500) -> World:
        self.feed(Claim())
        self.run(span)
        return self

    def holding(self) -> World:
        self.start()
        assert may_hold(self.state)
        self.feed(Held())
        return self

    def times(self, kind: type) -> list[int]:
        return [at for at, action in self.did if isinstance(action, kind)]

    def alerts(self) -> list[str]:
        return [action.text for _, action in self.did if isinstance(action, Alert)]


def test_three_questions_within_three_tenths_of_a_second_come_before_the_first_claim() -> None:
    world = World()
    world.feed(Claim())
    assert not may_hold(world.state)
    world.run(299)
    assert not may_hold(world.state)
    world.run(1)
    assert may_hold(world.state)
    assert world.times(Question) == [0, 100, 200]
    assert world.alerts() == []
    assert next_wakeup(world.state) == NEVER, "who does not hold it is not woken"


def test_later_claims_are_not_asked_about() -> None:
    world = World().holding()
    world.feed(Released())
    world.answering = {STRANGER}
    world.feed(Claim())
    assert may_hold(world.state), "in a fail-over each millisecond counts"
    assert objection(world.state) is None


def test_what_a_former_run_left_is_kept_without_asking() -> None:
    world = World(OnDuplicate.YIELD)
    world.feed(Held())
    world.feed(Claim())
    assert may_hold(world.state)
    assert world.times(Question) == []


def test_a_duplicate_at_the_start_is_told_at_once_and_claimed_all_the_same() -> None:
    world = World()
    world.answering = {STRANGER}
    world.feed(Claim())
    assert may_hold(world.state), "the first answer decides"
    (text,) = world.alerts()
    assert "02:00:00:00:00:99 already answers for 10.0.1.10" in text
    assert "claimed all the same" in text
    assert world.state.conflicts == 1


def test_yield_stays_away_and_asks_less_and_less_often_until_nobody_answers() -> None:
    world = World(OnDuplicate.YIELD)
    world.answering = {STRANGER}
    world.start(200_000)
    assert not may_hold(world.state)
    assert "02:00:00:00:00:99" in str(objection(world.state))
    asked = world.times(Question)
    gaps = [b - a for a, b in itertools.pairwise(asked)]
    assert gaps[:4] == [1000, 2000, 4000, 8000]
    assert max(gaps) == RETRY_CEILING
    assert len(world.alerts()) == 1
    world.answering = set()
    world.run(RETRY_CEILING + 300)
    assert may_hold(world.state)
    assert objection(world.state) is None
    assert "nobody else answers" in world.alerts()[-1]


def test_an_elected_node_waits_for_the_adverts_before_it_calls_anybody_a_stranger() -> None:
    world = World(OnDuplicate.YIELD, elected=True)
    world.answering = {FELLOW}
    world.start(1_000)
    assert objection(world.state) is None
    world.feed(Recognized(FELLOW))
    world.run(5_000)
    assert may_hold(world.state)
    assert world.alerts() == []


@POLICIES
def test_without_an_advert_it_is_a_stranger_after_two_intervals(policy: OnDuplicate) -> None:
    world = World(policy, elected=True)
    world.answering = {STRANGER}
    world.start(1_999)
    assert world.alerts() == []
    world.run(1)
    assert len(world.alerts()) == 1
    assert (objection(world.state) is not None) == (policy is OnDuplicate.YIELD)


def test_the_group_s_virtual_hardware_address_is_a_fellow_s() -> None:
    world = World(OnDuplicate.YIELD, elected=True).holding()
    world.answering = {MacAddress(bytes.fromhex("00005e000133"))}
    world.run(WINDOW - 500)
    assert world.alerts() == []
    assert may_hold(world.state)


def test_while_it_is_held_a_silent_kernel_that_has_it_too_is_found_within_a_second() -> None:
    world = World().holding()
    world.run(10_000)
    assert world.times(Question)[3:] == [2_500 + n * CHECK for n in range(1, 11)]
    world.answering = {STRANGER}
    began = world.now - BEGIN
    world.run(2_000)
    assert world.times(Alert)[0] - began <= CHECK
    assert world.times(Defend) == world.times(Alert)


def test_it_is_defended_at_most_once_in_ten_seconds_and_told_once_a_minute() -> None:
    world = World().holding()
    world.answering = {STRANGER}
    world.run(MINUTE + 5_000)
    defended = world.times(Defend)
    assert len(defended) == 7
    assert all(b - a >= DEFEND_INTERVAL for a, b in itertools.pairwise(defended))
    assert len(world.alerts()) == 2
    assert "still" in world.alerts()[1]
    assert world.state.conflicts == 1


def test_the_end_of_a_conflict_is_told_and_its_return_is_a_new_one() -> None:
    world = World().holding()
    world.answering = {STRANGER}
    world.run(3_000)
    world.answering = set()
    world.run(FORGET + CHECK)
    assert "has not claimed" in world.alerts()[-1]
    world.answering = {STRANGER}
    world.run(2_000)
    assert len(world.alerts()) == 3
    assert world.state.conflicts == 2


def test_yield_wants_to_hear_it_twice() -> None:
    world = World(OnDuplicate.YIELD).holding()
    world.hear(STRANGER)
    assert objection(world.state) is None, "one frame can be forged"
    assert world.times(Question)[-1] == world.now - BEGIN, "it asks at once"
    world.run(FORGET)
    assert objection(world.state) is None
    world.answering = {STRANGER}
    world.run(CHECK)
    assert objection(world.state) is not None
    assert not may_hold(world.state)
    assert world.times(Defend) == []


@POLICIES
def test_a_fellow_may_answer_for_the_window_and_is_told_after_it(policy: OnDuplicate) -> None:
    world = World(policy).holding()
    world.answering = world.neighbors = {FELLOW}
    began = world.now - BEGIN
    world.run(WINDOW)
    assert world.alerts() == []
    world.run(2 * CHECK)
    (text,) = world.alerts()
    assert "two nodes hold it" in text
    assert world.times(Alert)[0] - began <= WINDOW + 2 * CHECK
    world.run(30_000)
    assert len(world.alerts()) == 1
    assert world.times(Defend) == []
    assert may_hold(world.state), "that is the election's affair"


def test_hand_overs_hour_after_hour_raise_no_alarm() -> None:
    world = World(elected=True).holding()
    world.feed(Recognized(FELLOW))
    for _ in range(20):
        world.answering = {FELLOW}
        world.run(3_500)
        world.answering = set()
        world.feed(Released())
        world.hear(FELLOW)
        world.run(MINUTE)
        world.feed(Held())
    assert world.alerts() == []


def test_who_does_not_hold_it_hears_the_holder_and_says_nothing() -> None:
    world = World().start()
    for _ in range(10):
        world.hear(STRANGER)
        world.run(1_000)
    assert world.alerts() == []
    assert not world.state.rivals


def test_the_deaf_claim_all_the_same() -> None:
    world = World(OnDuplicate.YIELD)
    world.feed(Blind("not permitted"))
    assert may_hold(world.state)


def test_a_link_that_came_back_is_asked_anew() -> None:
    world = World()
    world.feed(Claim())
    world.run(150)
    world.now = Instant(world.now + 5_000)
    world.feed(Claim())
    world.run(299)
    assert not may_hold(world.state)
    world.run(1)
    assert may_hold(world.state)


_events = st.one_of(
    st.just(Claim()),
    st.just(Held()),
    st.just(Released()),
    st.just(Blind("x")),
    st.just(TimerFired()),
    st.builds(Heard, st.binary(min_size=6, max_size=6).map(MacAddress), st.booleans()),
    st.sampled_from([Heard(STRANGER), Heard(OTHER), Heard(FELLOW, fellow=True)]),
    st.builds(Recognized, st.sampled_from([FELLOW, OTHER])),
)
_histories = st.lists(st.tuples(st.integers(0, 5_000), _events), max_size=60)


@given(_histories, st.sampled_from(OnDuplicate), st.booleans())
def test_in_every_history(
    history: Iterable[tuple[int, Event]], policy: OnDuplicate, elected: bool
) -> None:
    """Memory is bounded, defenses are rare, and after an end of trouble the address may be had."""
    world = World(policy, elected=elected)
    for wait, event in history:
        world.run(wait)
        world.feed(event)
        assert len(world.state.rivals) <= 8
        stood_aside = objection(world.state) is not None
        assert not (may_hold(world.state) and stood_aside)
        assert policy is OnDuplicate.YIELD or not stood_aside
        assert isinstance(world.state.stage, Aside | Asking | Clear) or not world.state.conflicts
    assert all(b - a >= DEFEND_INTERVAL for a, b in itertools.pairwise(world.times(Defend)))
    world.feed(Claim())
    world.run(RETRY_CEILING + FORGET + 3_000)
    assert may_hold(world.state), "nobody has answered for long"
    alerts = [action for _, action in world.did if isinstance(action, Alert)]
    assert policy is OnDuplicate.DEFEND or not world.times(Defend)
    assert len(alerts) <= 4 * len(world.did)


def test_two_short_overlaps_soon_after_each_other_are_no_long_one() -> None:
    world = World(elected=True).holding()
    world.feed(Recognized(FELLOW))
    for _ in range(2):
        world.answering = {FELLOW}
        world.run(2 * CHECK)
        world.answering = set()
        world.run(4 * CHECK)
    assert world.alerts() == []
