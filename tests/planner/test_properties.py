"""Safety and liveness of judge and policy over random fault histories, in virtual time.

Three backends live through random histories (up, refusing, hanging, not ready, a fault of our own,
hanging up on us) and then stay as they are for good.  Every event is checked for what must never
be; the time after the last fault for what must come to be: S2, L1 and L2 of the design.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from revip.model.health import HealthTiming, Verdict
from revip.model.instants import Instant, Span
from revip.planner.bounds import removal_bound, return_bound
from tests.planner.world import DEAD, START, History, Mood, World

# What is drawn --------------------------------------------------------------------------------

timings = st.builds(
    lambda fast, slower, timeout, rise, fall, jitter, changes, hold, longest: HealthTiming(
        interval=Span(fast * slower),
        fast_interval=Span(fast),
        confirm_interval=Span(5),
        timeout=Span(timeout),
        rise=rise,
        fall=fall,
        jitter_percent=jitter,
        damping_changes=changes,
        damping_window=Span(20_000),
        damping_hold=Span(hold),
        damping_hold_max=Span(hold * longest),
    ),
    fast=st.sampled_from([50, 100, 200]),
    slower=st.integers(1, 6),
    timeout=st.sampled_from([60, 300, 1000]),
    rise=st.integers(1, 4),
    fall=st.integers(1, 4),
    jitter=st.sampled_from([0, 10, 50]),
    changes=st.integers(1, 5),
    hold=st.sampled_from([0, 300, 1000]),
    longest=st.integers(1, 3),
)


def histories(last: st.SearchStrategy[Mood]) -> st.SearchStrategy[History]:
    lengths = st.one_of(st.integers(0, 30), st.integers(0, 400), st.integers(0, 2500))
    return st.builds(
        History,
        moods=st.lists(st.tuples(lengths, st.sampled_from(Mood)), max_size=12).map(tuple),
        last=last,
        latencies=st.lists(st.integers(0, 1000), min_size=1, max_size=4).map(tuple),
        hangups=st.lists(st.integers(0, 8000), max_size=4).map(tuple),
        rude=st.booleans(),
        drained=st.sampled_from([False, False, True]),
    )


RELAXED = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
AT_ONCE = Span(0)

FLAPPING = History(
    moods=((400, Mood.UP), (400, Mood.REFUSING)) * 8,
    last=Mood.UP,
    latencies=(20,),
    hangups=(),
    rude=False,
)
GONE = History(((3000, Mood.UP),), Mood.HANGING, (1000,), (), rude=False)
FADING = History(((3000, Mood.UNREADY),), Mood.HANGING, (1000,), (), rude=False)
CRASHED = History(((3000, Mood.UP),), Mood.REFUSING, (0,), (), rude=False)
WELL = History((), Mood.UP, (5,), (), rude=False)
SHORT = HealthTiming(
    damping_changes=4, damping_hold=Span(500), damping_hold_max=Span(2000), timeout=Span(300)
)


# The properties -------------------------------------------------------------------------------


@RELAXED
@example(SHORT, 1, [FLAPPING, FLAPPING, GONE])
@example(HealthTiming(), 1, [FLAPPING, GONE, WELL])
@given(timings, st.integers(1, 3), st.lists(histories(st.just(Mood.UP)), min_size=1, max_size=3))
def test_a_backend_that_stays_well_is_in_with_its_weight_within_the_return_bound(
    timing: HealthTiming, threshold: int, drawn: list[History]
) -> None:
    world = World(timing, threshold, drawn)
    bound = return_bound(timing, reconcile=AT_ONCE, backoff=AT_ONCE)
    for patient in sorted(world.patients, key=lambda each: each.history.settled):
        if patient.history.last is Mood.UP:
            world.run(Instant(patient.history.settled + bound))
            assert patient.state.health.verdict is Verdict.HEALTHY
    _stays(world, 2000)


@RELAXED
@example(SHORT, [FLAPPING, GONE, GONE])
@example(SHORT, [FADING])
@given(
    timings,
    st.lists(histories(st.sampled_from(sorted(DEAD, key=str))), min_size=1, max_size=2),
)
def test_a_backend_that_stays_dead_is_out_within_the_removal_bound(
    timing: HealthTiming, drawn: list[History]
) -> None:
    world = World(timing, 1, [WELL, *drawn])
    bound = removal_bound(timing, reconcile=AT_ONCE, backoff=AT_ONCE)
    for patient in sorted(world.patients, key=lambda each: each.history.settled):
        if patient.history.last in DEAD:
            world.run(Instant(patient.history.settled + bound))
            assert world.weight(patient) is None
            assert patient.state.health.verdict is Verdict.UNHEALTHY
    _stays(world, 2000)


@RELAXED
@given(timings, st.lists(histories(st.sampled_from(Mood)), min_size=1, max_size=3))
def test_whatever_all_backends_do_the_pool_is_never_emptied(
    timing: HealthTiming, drawn: list[History]
) -> None:
    world = World(timing, 1, drawn)
    bound = removal_bound(timing, reconcile=AT_ONCE, backoff=AT_ONCE)
    end = max(history.settled for history in drawn) + bound
    judged = False
    while world.queue[0][0] <= end:
        world.run(world.queue[0][0])
        taking = any(dest.weight for dest in world.table)
        judged = judged or taking
        assert taking or not judged
    assert judged, "nobody is in: a fault of ours must not keep the pool empty"


@RELAXED
@given(timings, histories(st.just(Mood.REFUSING)))
def test_a_crash_is_known_after_one_interval_and_a_confirmation_whatever_fall_is(
    timing: HealthTiming, history: History
) -> None:
    world = World(timing, 1, [WELL, history])
    interval = timing.interval + timing.interval * timing.jitter_percent // 100
    refusals = 2 * (timing.timeout // 100)
    world.run(Instant(history.settled + interval + refusals + timing.confirm_interval))
    assert world.patients[1].state.health.verdict is Verdict.UNHEALTHY


@pytest.mark.parametrize("fall", [1, 2, 3, 10])
def test_the_held_connection_tells_a_crash_within_one_confirmation(fall: int) -> None:
    world = World(replace(SHORT, fall=fall), 1, [WELL, CRASHED])
    world.run(Instant(CRASHED.settled + SHORT.confirm_interval))
    assert world.weight(world.patients[1]) is None


@pytest.mark.parametrize("often", [1, 2, 3])
@pytest.mark.parametrize(
    ("before", "after", "verdict", "bound"),
    [
        (Mood.UP, Mood.HANGING, Verdict.UNHEALTHY, removal_bound),
        (Mood.HANGING, Mood.UP, Verdict.HEALTHY, return_bound),
    ],
)
def test_the_bounds_are_reached_in_the_worst_case_and_no_looser_than_that(
    before: Mood,
    after: Mood,
    verdict: Verdict,
    bound: Callable[..., Span],
    often: int,
) -> None:
    timing = replace(
        SHORT, rise=often, fall=often, jitter_percent=0, damping_hold=Span(0), interval=Span(500)
    )
    calm = History((), before, (1000,), (), rude=False)  # answers at the very last moment
    world = World(timing, 1, [calm, WELL])
    world.run(Instant(START + 10_000))
    probes = world.patients[0].state.probes
    while world.patients[0].state.probes == probes:
        world.run(world.queue[0][0])
    begun = world.now  # a probe has just begun: it will still say what was
    world.patients[0].mood = after
    while world.patients[0].state.health.verdict is not verdict:
        world.run(world.queue[0][0])
    assert world.now - begun == bound(timing, reconcile=AT_ONCE, backoff=AT_ONCE)


def test_a_flapping_backend_really_is_held_back() -> None:
    world = World(SHORT, 1, [FLAPPING, WELL])
    world.run(FLAPPING.settled)
    held = []
    while world.queue[0][0] <= FLAPPING.settled + 3000:
        world.run(world.queue[0][0])
        held.append(world.patients[0].state.health.held_back_until is not None)
    assert any(held)
    assert not held[-1]


def _stays(world: World, span: int) -> None:
    """Nothing changes any more once all have settled."""
    settled = max(patient.history.settled for patient in world.patients)
    world.run(Instant(max(settled, world.now) + 20_000))
    before = world.table, [patient.state.health.verdict for patient in world.patients]
    world.run(Instant(world.now + span))
    assert (world.table, [patient.state.health.verdict for patient in world.patients]) == before
