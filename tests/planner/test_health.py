"""The judge of one backend, rule by rule."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from revip.model.health import Finding, Health, HealthTiming, ProbeResult, Verdict
from revip.model.instants import MINUTE, NEVER, Instant
from revip.planner.health import AskNow, ConnectionLost, Judge, ProbeFinished, State, TimerFired

READY = ProbeResult(Finding.READY, "HTTP 200 from /readyz")
DENIED = ProbeResult(Finding.DENIED, "HTTP 401 from /readyz")
NOT_READY = ProbeResult(Finding.NOT_READY, "HTTP 500 from /readyz")
REFUSED = ProbeResult(Finding.REFUSED, "connection refused", stage="connect")
FAILED = ProbeResult(Finding.FAILED, "no answer within 1 s", stage="http")
OURS = ProbeResult(Finding.OURS, "no route to host", stage="connect")

STEADY = HealthTiming(jitter_percent=0)


@dataclass
class Bench:
    """A judge under test, with a clock that only the test moves."""

    judge: Judge = field(default_factory=lambda: Judge(STEADY, "n1/kube/b", fresh_every=1000))
    now: Instant = Instant(1_000_000)
    state: State = field(init=False)
    asked: list[AskNow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = self.judge.begin(self.now)
        self.wake()

    @property
    def health(self) -> Health:
        return self.state.health

    @property
    def verdict(self) -> Verdict:
        return self.state.health.verdict

    @property
    def pause(self) -> int:
        """Until the next wake-up."""
        return self.judge.next_wakeup(self.state) - self.now

    def wake(self) -> None:
        """Let time pass until the judge asks."""
        self.now = max(self.now, self.judge.next_wakeup(self.state))
        self.state, actions = self.judge.step(self.state, TimerFired(), self.now)
        self.asked.extend(actions)

    def answer(self, result: ProbeResult, after: int = 1) -> tuple[AskNow, ...]:
        """End the outstanding probe `after` milliseconds."""
        self.now = Instant(self.now + after)
        self.state, actions = self.judge.step(self.state, ProbeFinished(result), self.now)
        self.asked.extend(actions)
        return actions

    def hear(self, *results: ProbeResult) -> Bench:
        """Answer with each result in turn, whenever the judge asks."""
        for result in results:
            if self.judge.next_wakeup(self.state) != NEVER:
                self.wake()
            self.answer(result)
        return self

    def lose(self) -> tuple[AskNow, ...]:
        """End the held connection by itself."""
        self.state, actions = self.judge.step(self.state, ConnectionLost("reset by peer"), self.now)
        self.asked.extend(actions)
        return actions


def bench(**timing: int) -> Bench:
    return Bench(Judge(replace(STEADY, **timing), "salt", fresh_every=1000))  # type: ignore[arg-type]


# From unknown ---------------------------------------------------------------------------------


def test_the_first_probe_is_due_at_once_and_on_a_fresh_connection() -> None:
    judge = Judge(STEADY, "salt")
    state = judge.begin(Instant(5))
    assert judge.next_wakeup(state) == 5
    state, actions = judge.step(state, TimerFired(), Instant(5))
    assert actions == (AskNow(fresh=True),)
    assert judge.next_wakeup(state) == NEVER


@pytest.mark.parametrize("result", [READY, DENIED])
def test_one_good_answer_makes_an_unknown_backend_healthy(result: ProbeResult) -> None:
    assert Bench().hear(result).verdict is Verdict.HEALTHY


@pytest.mark.parametrize(
    ("result", "verdict"),
    [(NOT_READY, Verdict.DRAINING), (FAILED, Verdict.UNHEALTHY), (REFUSED, Verdict.UNHEALTHY)],
)
def test_an_unknown_backend_falls_after_as_many_bad_results_as_any_other(
    result: ProbeResult, verdict: Verdict
) -> None:
    first = Bench().hear(result)
    assert first.verdict is Verdict.UNKNOWN
    assert first.health.reason == f"no verdict yet: {result.reason}"
    assert first.hear(result).verdict is verdict


# Falling --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("results", "verdict", "reason"),
    [
        ([NOT_READY] * 2, Verdict.DRAINING, "HTTP 500 from /readyz, 2 in a row"),
        ([FAILED] * 2, Verdict.UNHEALTHY, "no answer within 1 s, 2 in a row"),
        (
            [FAILED, NOT_READY],
            Verdict.DRAINING,
            "HTTP 500 from /readyz, the last of 2 bad results in a row",
        ),
        (
            [NOT_READY, FAILED],
            Verdict.UNHEALTHY,
            "no answer within 1 s, the last of 2 bad results in a row",
        ),
        ([REFUSED] * 2, Verdict.UNHEALTHY, "connection refused, confirmed"),
    ],
)
def test_the_last_of_the_bad_results_decides_what_a_healthy_backend_becomes(
    results: list[ProbeResult], verdict: Verdict, reason: str
) -> None:
    fallen = Bench().hear(READY, *results)
    assert (fallen.verdict, fallen.health.reason) == (verdict, reason)
    assert fallen.health.since == fallen.now
    assert fallen.health.last == results[-1]


def test_one_bad_result_is_doubt_not_a_verdict() -> None:
    doubted = Bench().hear(READY, FAILED)
    assert doubted.verdict is Verdict.HEALTHY
    assert doubted.pause == STEADY.fast_interval
    assert doubted.hear(READY, FAILED, READY, FAILED).verdict is Verdict.HEALTHY


def test_a_fall_of_one_needs_no_second_opinion() -> None:
    assert bench(fall=1).hear(READY, FAILED).health.reason == "no answer within 1 s"


def test_a_refused_connection_is_confirmed_at_once_whatever_fall_is() -> None:
    doubted = bench(fall=5).hear(READY, REFUSED)
    assert doubted.verdict is Verdict.HEALTHY
    assert doubted.pause == STEADY.confirm_interval
    assert doubted.hear(REFUSED).verdict is Verdict.UNHEALTHY


def test_a_refusal_that_is_not_confirmed_counts_as_any_bad_result() -> None:
    assert bench(fall=3).hear(READY, REFUSED, FAILED).verdict is Verdict.HEALTHY
    assert bench(fall=3).hear(READY, REFUSED, READY, REFUSED).verdict is Verdict.HEALTHY


def test_a_draining_backend_that_dies_is_unhealthy() -> None:
    draining = bench(fall=3).hear(READY, *[NOT_READY] * 3)
    assert draining.hear(FAILED, FAILED).verdict is Verdict.DRAINING
    assert draining.pause == STEADY.fast_interval
    assert draining.hear(FAILED).verdict is Verdict.UNHEALTHY
    assert bench(fall=3).hear(*[NOT_READY] * 3, *[REFUSED] * 2).verdict is Verdict.UNHEALTHY


def test_a_dead_backend_that_answers_not_ready_is_draining_again() -> None:
    starting = bench(rise=2).hear(FAILED, FAILED, NOT_READY)
    assert starting.verdict is Verdict.UNHEALTHY
    assert starting.pause == STEADY.fast_interval
    assert starting.hear(NOT_READY).verdict is Verdict.DRAINING


# Returning ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [NOT_READY, FAILED, REFUSED])
def test_a_recovered_backend_returns(bad: ProbeResult) -> None:
    recovering = bench(rise=3).hear(READY, bad, bad, READY, READY)
    assert recovering.verdict is not Verdict.HEALTHY
    assert recovering.pause == STEADY.fast_interval
    assert recovering.hear(READY).verdict is Verdict.HEALTHY
    assert recovering.health.reason == "HTTP 200 from /readyz, 3 in a row"
    assert recovering.pause == STEADY.interval


def test_a_relapse_starts_the_count_of_good_results_again() -> None:
    assert bench(rise=2).hear(FAILED, FAILED, READY, FAILED, READY).verdict is Verdict.UNHEALTHY


@pytest.mark.parametrize("result", [READY, NOT_READY, FAILED])
def test_a_verdict_out_of_doubt_is_asked_about_at_the_slow_interval(result: ProbeResult) -> None:
    assert Bench().hear(result, result).pause == STEADY.interval


def test_a_living_server_that_does_not_know_us_is_healthy_and_the_reason_says_so() -> None:
    denied = Bench().hear(READY, DENIED)
    assert denied.verdict is Verdict.HEALTHY
    assert denied.health.reason == "HTTP 401 from /readyz"
    assert denied.hear(READY).health.reason == "HTTP 200 from /readyz"


# A lost connection ----------------------------------------------------------------------------


def test_a_lost_connection_is_a_question_asked_at_once_on_a_fresh_connection() -> None:
    held = Bench().hear(READY)
    assert held.lose() == (AskNow(fresh=True),)
    assert held.verdict is Verdict.HEALTHY
    assert held.hear(READY).verdict is Verdict.HEALTHY
    assert held.pause == STEADY.interval


def test_a_crash_is_known_after_two_refusals() -> None:
    crashed = Bench().hear(READY)
    before = crashed.now
    crashed.lose()
    assert crashed.hear(REFUSED, REFUSED).verdict is Verdict.UNHEALTHY
    assert crashed.now - before == STEADY.confirm_interval + 2  # each refusal takes 1 ms here
    assert crashed.health.reason == (
        "held connection lost (reset by peer), then connection refused, confirmed"
    )


def test_a_connection_lost_during_a_probe_is_asked_about_as_soon_as_it_ends() -> None:
    held = Bench().hear(READY)
    held.wake()
    assert held.lose() == ()
    assert held.answer(READY) == (AskNow(fresh=True),)


def test_a_probe_that_is_refused_after_the_loss_is_confirmed_like_any() -> None:
    held = Bench().hear(READY)
    held.wake()
    held.lose()
    assert held.answer(REFUSED) == ()
    assert held.pause == STEADY.confirm_interval


def test_a_server_that_hangs_up_after_each_answer_is_not_hammered() -> None:
    rude = Bench().hear(READY)
    begun = rude.now
    while rude.now < begun + 1000:
        rude.lose()
        rude.hear(READY)
    assert len(rude.asked) <= 1000 / STEADY.fast_interval + 2


# Faults of ours -------------------------------------------------------------------------------


def test_a_fault_of_ours_changes_no_verdict_and_no_streak() -> None:
    doubted = bench(fall=2).hear(READY, FAILED, *[OURS] * 20)
    assert doubted.verdict is Verdict.HEALTHY
    assert doubted.health.last == OURS
    assert doubted.hear(FAILED).verdict is Verdict.UNHEALTHY
    assert doubted.hear(READY, OURS, READY).verdict is Verdict.HEALTHY


def test_a_fault_of_ours_is_retried_fast_once_then_slowly() -> None:
    ours = Bench().hear(READY, OURS)
    assert ours.pause == STEADY.fast_interval
    assert ours.hear(OURS).pause == STEADY.interval


def test_a_backend_never_reached_for_a_fault_of_ours_stays_unknown() -> None:
    unknown = Bench().hear(*[OURS] * 5)
    assert unknown.verdict is Verdict.UNKNOWN
    assert unknown.health.reason == "cannot tell, the fault is ours: no route to host"


# Damping --------------------------------------------------------------------------------------

FLAP = (FAILED, FAILED, READY, READY)
"""Out and in again: two changes."""


def flapped(cycles: int) -> Bench:
    timing = {"damping_changes": 4, "damping_hold": 1000, "damping_hold_max": 3000}
    return bench(**timing).hear(READY, *FLAP * cycles)


def held_for(flapping: Bench) -> int:
    """Stay well from now on; return how long the backend is kept out."""
    flapping.hear(FAILED, FAILED, READY)
    begun = flapping.now
    assert flapping.health.held_back_until is not None
    while flapping.verdict is not Verdict.HEALTHY:
        flapping.hear(READY)
    return flapping.now - begun


def test_a_backend_that_rarely_changes_is_not_held_back() -> None:
    once = flapped(1)
    assert (once.verdict, once.health.changes) == (Verdict.HEALTHY, 2)


def test_from_the_nth_change_on_a_return_must_stay_good_for_the_hold() -> None:
    held = flapped(2)  # the fourth change is held back
    assert held.verdict is Verdict.UNHEALTHY
    assert held.health.changes == 3
    assert held.health.held_back_until is not None
    assert held.health.reason == (
        "no answer within 1 s, 2 in a row; well again, but held back for it changed 3 times"
        " within 10 min"
    )
    assert held.pause == STEADY.fast_interval


def test_the_hold_doubles_up_to_its_maximum_and_always_ends() -> None:
    flapping = flapped(1)
    step = STEADY.fast_interval + 1
    holds = [held_for(flapping) for _ in range(40)]
    for hold, nominal in zip(holds, [1000, 3000, *[3000] * 38], strict=True):
        assert nominal <= hold < nominal + step
    assert flapping.health.held_back_until is None
    assert len(flapping.state.turns) <= 4 + 32


def test_a_bad_result_during_the_hold_starts_it_again() -> None:
    held = flapped(2)
    first = held.health.held_back_until
    held.hear(FAILED)
    assert held.health.held_back_until is None
    assert held.health.reason == "no answer within 1 s, 2 in a row"
    held.hear(READY)
    assert first is not None
    assert held.health.held_back_until == held.now + 1000 > first


def test_a_fault_of_ours_neither_ends_nor_restarts_a_hold() -> None:
    held = flapped(2)
    until = held.health.held_back_until
    assert held.hear(OURS).health.held_back_until == until
    assert until is not None
    held.wake()
    held.answer(OURS, after=until)
    assert held.verdict is Verdict.UNHEALTHY
    assert held.hear(READY).verdict is Verdict.HEALTHY


def test_old_changes_are_forgotten() -> None:
    calm = flapped(1)
    calm.wake()
    calm.answer(READY, after=10 * MINUTE)
    assert calm.health.changes == 0
    assert calm.hear(*FLAP).verdict is Verdict.HEALTHY


def test_moves_among_the_dead_are_no_flapping() -> None:
    crashing = bench(damping_changes=2).hear(*(NOT_READY, NOT_READY, REFUSED, REFUSED) * 5)
    assert crashing.health.changes == 0
    assert crashing.hear(READY, READY).verdict is Verdict.HEALTHY


# The clockwork --------------------------------------------------------------------------------


def test_a_timer_that_fires_early_or_during_a_probe_is_harmless() -> None:
    early = Bench()
    assert early.judge.step(early.state, TimerFired(), early.now) == (early.state, ())
    early.hear(READY)
    assert early.judge.step(early.state, TimerFired(), early.now) == (early.state, ())


def test_an_answer_nobody_waits_for_is_ignored() -> None:
    idle = Bench().hear(READY)
    before = idle.state
    assert idle.answer(FAILED) == ()
    assert idle.state == before


def test_every_nth_probe_opens_a_new_connection() -> None:
    nth = Bench(Judge(STEADY, "salt", fresh_every=3)).hear(*[READY] * 7)
    assert [asked.fresh for asked in nth.asked] == [True, False, False, True, False, False, True]


@pytest.mark.parametrize("bad", [NOT_READY, REFUSED, FAILED, OURS])
def test_after_a_result_that_is_not_good_the_next_connection_is_fresh(bad: ProbeResult) -> None:
    doubted = Bench().hear(READY, bad)
    doubted.wake()
    assert doubted.asked[-1].fresh


def test_jitter_lengthens_each_interval_and_sets_judges_out_of_step() -> None:
    timing = HealthTiming(jitter_percent=50)

    def pauses(salt: str) -> list[int]:
        calm = Bench(Judge(timing, salt))
        return [calm.hear(READY).pause for _ in range(20)]

    assert all(timing.interval <= pause <= timing.interval * 1.5 for pause in pauses("n1"))
    assert len(set(pauses("n1"))) > 5
    assert pauses("n1") == pauses("n1") != pauses("n2")


def test_a_handshake_broken_off_after_a_lost_connection_is_confirmed_at_once() -> None:
    timing = HealthTiming(jitter_percent=0)
    judge = Judge(timing, "n1/api/n2")
    state = judge.begin(Instant(0))
    state, _ = judge.step(state, TimerFired(), Instant(0))
    state, _ = judge.step(state, ProbeFinished(ProbeResult(Finding.READY, "HTTP 200")), Instant(1))
    state, asked = judge.step(state, ConnectionLost("reset"), Instant(100))
    assert asked
    broken = ProbeResult(Finding.FAILED, "connection reset in the TLS handshake", stage="tls")
    state, _ = judge.step(state, ProbeFinished(broken), Instant(102))
    assert state.health.verdict is Verdict.HEALTHY, "one bad answer is not a fall"
    assert judge.next_wakeup(state) == 102 + timing.confirm_interval
