"""Backoff, and the bounds that the configuration promises."""

from __future__ import annotations

from dataclasses import replace

import pytest

from revip.model.health import PROFILES, HealthTiming
from revip.model.instants import SECOND, Span
from revip.planner.backoff import Backoff
from revip.planner.bounds import removal_bound, return_bound

AT_ONCE = Span(0)
TIMING = HealthTiming(
    interval=Span(400), fast_interval=Span(100), timeout=Span(1000), jitter_percent=10
)


def test_removal_waits_for_one_answer_one_interval_and_fall_timeouts() -> None:
    assert removal_bound(TIMING, reconcile=AT_ONCE, backoff=AT_ONCE) == (
        1000 + 440 + 1000 + (110 + 1000)
    )


def test_return_waits_for_one_answer_one_interval_and_rise_probes() -> None:
    bound = return_bound(TIMING, reconcile=AT_ONCE, backoff=AT_ONCE, damped=False)
    assert bound == 1000 + 440 + 1000 + (110 + 1000)


def test_a_damped_return_waits_for_the_longest_hold() -> None:
    bound = return_bound(TIMING, reconcile=AT_ONCE, backoff=AT_ONCE)
    assert bound == 1000 + 440 + 1000 + 60_000 + (110 + 1000)


def test_a_rise_that_takes_longer_than_the_hold_counts_instead() -> None:
    slow = replace(TIMING, rise=101, damping_hold_max=SECOND)
    assert return_bound(slow, reconcile=AT_ONCE, backoff=AT_ONCE) == (
        return_bound(slow, reconcile=AT_ONCE, backoff=AT_ONCE, damped=False)
    )


def test_the_table_is_late_by_one_period_at_its_latest_and_one_backoff() -> None:
    for bound in (removal_bound, return_bound):
        late = bound(TIMING, reconcile=Span(500), backoff=Span(5000))
        assert late == bound(TIMING, reconcile=AT_ONCE, backoff=AT_ONCE) + 5550


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_keeps_its_promises_within_twenty_seconds(name: str) -> None:
    timing, period = PROFILES[name], Span(500)
    assert removal_bound(timing, reconcile=period, backoff=AT_ONCE) <= 20 * SECOND
    assert return_bound(timing, reconcile=period, backoff=AT_ONCE, damped=False) <= 20 * SECOND


def test_delays_double_up_to_the_ceiling_and_start_again_after_a_success() -> None:
    backoff = Backoff(first=Span(100), ceiling=Span(1000), jitter_percent=0)
    delays = []
    for _ in range(6):
        delays.append(backoff.delay)
        backoff = backoff.failed()
    assert delays == [0, 100, 200, 400, 800, 1000]
    assert backoff.succeeded().delay == 0
    assert backoff.succeeded().failed().delay == 100


def test_a_thousand_failures_wait_no_longer_than_the_ceiling() -> None:
    assert 4500 <= Backoff(failures=1000).delay <= Backoff().ceiling == 5000


def test_the_spread_of_delays_is_repeatable_and_differs_by_salt() -> None:
    def delays(salt: str) -> list[int]:
        return [Backoff(salt=salt, failures=n).delay for n in range(8, 20)]

    assert delays("n1") == delays("n1") != delays("n2")
    assert len(set(delays("n1"))) > 3
