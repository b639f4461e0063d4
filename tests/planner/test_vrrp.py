"""The VRRP election: what one node does about each event."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from revip.errors import InvariantError
from revip.model.instants import NEVER, Instant, Span
from revip.model.ipvs import IPAddress
from revip.model.vrrp import (
    Action,
    Active,
    AnnounceAgain,
    Backup,
    BecomeActive,
    BecomeBackup,
    Checksum,
    Claiming,
    Heard,
    Oddity,
    PriorityChanged,
    Report,
    SendAdvert,
    SendFailed,
    Sent,
    Started,
    State,
    StepDown,
    Stopped,
    VirtualRouter,
    active_down,
    skew,
)
from revip.planner.health import TimerFired
from revip.planner.vrrp import Event, begin, holds_until, next_wakeup, step

VIP = IPv4Address("10.0.0.10")
LOWER, ME, HIGHER = (IPv4Address(f"10.0.0.{last}") for last in (1, 2, 3))
ROUTER = VirtualRouter(51, (VIP,), ME, Span(100))
DOWN = active_down(100, Span(100))


@dataclass
class Player:
    """One machine, and a hand that moves it; what is to be sent leaves at once."""

    router: VirtualRouter = ROUTER
    state: State = field(default_factory=lambda: begin(100))
    now: Instant = Instant(1_000_000)
    sending: bool = True

    def feed(self, event: Event, after: int = 0) -> list[Action]:
        self.now = Instant(self.now + after)
        self.state, actions = step(self.router, self.state, event, self.now)
        done: list[Action] = []
        for action in actions:
            done.append(action)
            if isinstance(action, SendAdvert):
                sent = self.sending and self.now <= action.not_after
                done += self.feed(Sent(self.now) if sent else SendFailed("forbidden"))
        return done

    def hear(
        self, source: IPAddress, priority: int, after: int = 0, **other: object
    ) -> list[Action]:
        advert = replace(self.router.advert(priority), **other)  # type: ignore[arg-type]
        return self.feed(Heard(source, advert), after)

    def wake(self) -> list[Action]:
        """Let time pass until its alarm, and fire it."""
        self.now = next_wakeup(self.router, self.state)
        return self.feed(TimerFired())

    def alarm(self) -> int:
        return next_wakeup(self.router, self.state) - self.now


def backup(**router: object) -> Player:
    player = Player(replace(ROUTER, **router))  # type: ignore[arg-type]
    assert player.feed(Started()) == []
    return player


def active(**router: object) -> Player:
    player = backup(**router)
    player.wake()
    assert isinstance(player.state.phase, Active)
    return player


def kinds(actions: list[Action]) -> list[type[Action]]:
    return [type(action) for action in actions]


def adverts(actions: list[Action]) -> list[int]:
    return [action.priority for action in actions if isinstance(action, SendAdvert)]


def oddities(actions: list[Action]) -> list[Oddity]:
    return [action.oddity for action in actions if isinstance(action, Report)]


# --- taking over --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "priority", "down"),
    [(1000, 100, 3610), (1000, 254, 3008), (100, 100, 361), (100, 254, 301), (10, 100, 37)],
)
def test_the_timers_are_those_of_rfc_9568(interval: int, priority: int, down: int) -> None:
    assert active_down(priority, Span(interval)) == down


def test_a_node_listens_before_it_claims_and_advertises_before_it_is_active() -> None:
    player = backup()
    assert player.alarm() == DOWN
    actions = player.wake()
    assert kinds(actions) == [SendAdvert, BecomeActive]
    assert adverts(actions) == [100]
    assert player.alarm() == 100


def test_adverts_keep_a_steady_pace_though_timers_are_late() -> None:
    player = active()
    first = player.now
    player.feed(TimerFired(), after=107)
    assert next_wakeup(player.router, player.state) == first + 200


def test_an_active_that_is_heard_keeps_a_node_backup_by_its_own_interval() -> None:
    player = backup()
    assert oddities(player.hear(HIGHER, 150, after=300, interval=Span(200))) == [
        Oddity.OTHER_INTERVAL
    ]
    assert player.alarm() == active_down(100, Span(200))
    assert player.state.phase.reason == "10.0.0.3 is active with priority 150, ours is 100"


def test_priority_zero_hands_over_after_the_skew_time() -> None:
    player = backup()
    player.hear(HIGHER, 150, after=300)
    player.hear(HIGHER, 150, after=100)
    assert player.hear(HIGHER, 0, after=10) == []
    assert player.alarm() == skew(100, Span(100))
    assert kinds(player.wake()) == [SendAdvert, BecomeActive]


def test_priority_zero_does_not_cut_the_first_listening_short() -> None:
    player = backup()
    player.hear(HIGHER, 0, after=10)
    assert player.alarm() == DOWN - 10


def test_priority_zero_of_another_than_the_active_hurries_nobody() -> None:
    player = backup()
    player.hear(HIGHER, 150, after=400)
    player.hear(LOWER, 0, after=10)
    assert player.alarm() == DOWN - 10


# --- preempting ---------------------------------------------------------------------------------


def test_a_lower_active_is_preempted() -> None:
    player = backup()
    for _ in range(3):
        player.hear(LOWER, 50, after=100)
    assert player.alarm() == DOWN - 300
    assert "about to be preempted" in player.state.phase.reason
    assert kinds(player.wake()) == [SendAdvert, BecomeActive]


def test_without_preempt_a_lower_active_is_left_alone() -> None:
    player = backup(preempt=False)
    for _ in range(20):
        assert player.hear(LOWER, 50, after=100) == []
    assert player.alarm() == DOWN
    assert player.state.phase.reason.endswith("ours is 100, and preempt is off")


def test_preemption_waits_for_its_delay() -> None:
    player = backup(preempt_delay=Span(5000))
    waited = 0
    while player.alarm() == DOWN or not waited:
        player.hear(LOWER, 50, after=100)
        waited += 100
    assert 5000 <= waited - 100 <= 5100
    assert kinds(player.wake()) == [SendAdvert, BecomeActive]


def test_a_dead_active_is_replaced_whatever_the_delay() -> None:
    player = backup(preempt_delay=Span(5000))
    player.hear(LOWER, 50, after=100)
    assert player.alarm() == DOWN
    assert kinds(player.wake()) == [SendAdvert, BecomeActive]


def test_an_equal_active_is_not_preempted() -> None:
    player = backup()
    player.hear(LOWER, 100, after=100)
    assert player.alarm() == DOWN


# --- two at once --------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "priority"), [(LOWER, 101), (HIGHER, 100)])
def test_the_lesser_of_two_yields_and_counts_it(source: IPAddress, priority: int) -> None:
    player = active()
    actions = player.hear(source, priority, after=20)
    assert kinds(actions) == [Report, BecomeBackup]
    assert oddities(actions) == [Oddity.TWO_ACTIVE]
    assert player.alarm() == DOWN


@pytest.mark.parametrize(("source", "priority"), [(HIGHER, 99), (LOWER, 100)])
def test_the_better_of_two_asserts_itself_at_once(source: IPAddress, priority: int) -> None:
    player = active()
    actions = player.hear(source, priority, after=20)
    assert kinds(actions) == [Report, SendAdvert, AnnounceAgain]


def test_assertions_do_not_flood_the_link() -> None:
    player = active()
    sent = [priority for _ in range(100) for priority in adverts(player.hear(LOWER, 50, after=1))]
    assert len(sent) <= 10


def test_an_active_answers_priority_zero_so_that_nobody_takes_over() -> None:
    player = active()
    assert adverts(player.hear(LOWER, 0, after=20)) == [100]


# --- leaving ------------------------------------------------------------------------------------


def test_a_stop_says_farewell_first() -> None:
    player = active()
    actions = player.feed(Stopped("shutdown"), after=20)
    assert actions == [
        SendAdvert(0, Instant(player.now - 20 + 300)),
        BecomeBackup("shutdown"),
    ]
    assert next_wakeup(player.router, player.state) == NEVER


def test_a_backup_stops_in_silence() -> None:
    player = backup()
    assert player.feed(Stopped("shutdown"), after=20) == []


def test_who_stepped_down_listens_again() -> None:
    player = active()
    actions = player.feed(StepDown("handover"), after=20)
    assert adverts(actions) == [0]
    assert player.alarm() == DOWN


def test_priority_zero_stands_aside_for_as_long_as_it_lasts() -> None:
    player = active()
    actions = player.feed(PriorityChanged(0, "carrier lost"), after=20)
    assert kinds(actions) == [SendAdvert, BecomeBackup]
    assert adverts(actions) == [0]
    assert next_wakeup(player.router, player.state) == NEVER
    player.feed(PriorityChanged(100, "carrier back"), after=60_000)
    assert player.alarm() == DOWN


def test_a_lowered_priority_is_told_at_once_and_a_better_peer_takes_over() -> None:
    better, lesser = active(), backup()
    lesser.state = replace(lesser.state, priority=80)
    assert adverts(better.feed(PriorityChanged(50, "apiserver unhealthy"), after=20)) == [50]
    lesser.hear(ME, 50, after=400)
    assert "about to be preempted" in lesser.state.phase.reason


def test_a_priority_lowered_while_about_to_preempt_does_not_blip() -> None:
    player = backup()
    player.hear(LOWER, 50, after=DOWN - 10)
    player.feed(PriorityChanged(40, "apiserver unhealthy"))
    assert player.alarm() == active_down(40, Span(100))
    player.hear(LOWER, 50, after=90)
    assert player.alarm() == active_down(40, Span(100))


# --- frozen, deaf, mute -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        TimerFired(),
        Heard(LOWER, ROUTER.advert(50)),
        Heard(LOWER, ROUTER.advert(0)),
        PriorityChanged(200, "well again"),
        StepDown("handover"),
        Stopped("shutdown"),
        SendFailed("forbidden"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_a_frozen_active_that_wakes_looks_before_it_speaks(event: Event) -> None:
    player = active()
    actions = player.feed(event, after=301)
    assert adverts(actions) == []
    assert Oddity.OVERSLEPT in oddities(actions)
    assert [kind for kind in kinds(actions) if kind is not Report] == [BecomeBackup]
    if not isinstance(event, Stopped):
        assert player.alarm() >= 300


def test_a_backup_that_slept_through_its_alarm_listens_again() -> None:
    player = backup()
    actions = player.feed(TimerFired(), after=DOWN + 101)
    assert oddities(actions) == [Oddity.OVERSLEPT]
    assert player.alarm() == DOWN


def test_a_timer_that_is_a_little_late_is_not_a_freeze() -> None:
    player = backup()
    assert kinds(player.feed(TimerFired(), after=DOWN + 100)) == [SendAdvert, BecomeActive]
    assert kinds(player.feed(TimerFired(), after=300)) == [SendAdvert]


def test_who_cannot_send_does_not_become_active_and_tries_again_later() -> None:
    player = backup()
    player.sending = False
    actions = player.wake()
    assert kinds(actions) == [SendAdvert, Report]
    assert player.state.phase.reason == "an advert was not sent: forbidden"
    assert player.alarm() == DOWN
    player.sending = True
    assert kinds(player.wake()) == [SendAdvert, BecomeActive]


def test_an_active_whose_adverts_do_not_get_out_yields_when_peers_may_claim() -> None:
    player = active()
    claimed = player.now
    player.sending = False
    actions: list[Action] = []
    while BecomeBackup not in kinds(actions):
        actions = player.wake()
    assert player.now == claimed + 301


def test_a_claim_whose_outcome_comes_too_late_is_none() -> None:
    state = begin(100)
    state, _ = step(ROUTER, state, Started(), Instant(0))
    state, _ = step(ROUTER, state, TimerFired(), Instant(DOWN))
    assert isinstance(state.phase, Claiming)
    state, actions = step(ROUTER, state, Sent(Instant(DOWN)), Instant(DOWN + 10_000))
    assert isinstance(state.phase, Backup)
    assert BecomeActive not in kinds(list(actions))


def test_the_hold_is_dated_from_the_last_advert_that_left() -> None:
    player = active()
    assert holds_until(player.router, player.state) == player.now + 300
    player.sending = False
    player.wake()
    assert holds_until(player.router, player.state) == player.now + 200
    assert holds_until(ROUTER, backup().state) is None


# --- oddities -----------------------------------------------------------------------------------


def test_a_foreign_group_with_our_vrid_is_reported_and_not_obeyed() -> None:
    player = backup()
    actions = player.hear(HIGHER, 200, after=100, addresses=(IPv4Address("10.0.0.99"),))
    assert oddities(actions) == [Oddity.CLASH]
    assert player.alarm() == DOWN - 100


def test_an_overlapping_list_of_addresses_is_reported_and_obeyed() -> None:
    player = backup()
    actions = player.hear(HIGHER, 200, after=100, addresses=(VIP, IPv4Address("10.0.0.99")))
    assert oddities(actions) == [Oddity.OTHER_ADDRESSES]
    assert player.alarm() == DOWN


def test_another_checksum_is_reported() -> None:
    player = backup()
    heard = Heard(HIGHER, ROUTER.advert(200), Checksum.MESSAGE_ONLY)
    assert oddities(player.feed(heard)) == [Oddity.OTHER_CHECKSUM]


def test_the_same_oddity_is_fresh_once_a_minute() -> None:
    player = backup()
    fresh = 0
    for _ in range(1200):
        for report in player.hear(HIGHER, 200, after=100, interval=Span(200)):
            assert isinstance(report, Report)
            fresh += report.fresh
    assert fresh == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"vrid": 0},
        {"interval": Span(15)},
        {"interval": Span(40_960)},
        {"addresses": ()},
        {"addresses": (VIP,) * 256},
        {"source": IPv6Address("fe80::1")},
    ],
)
def test_what_cannot_be_said_on_the_wire_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvariantError):
        replace(ROUTER, **wrong)  # type: ignore[arg-type]
