"""The judge of one backend: probe results in, a verdict and the next question out.

Rules that are easy to get wrong, with their reasons:

- A lost held connection is a question, not a verdict: an idle server hangs up too.  It is asked
  at once, on a fresh connection, but not more often than every `fast_interval`: a server that
  hangs up after each answer must not be hammered.
- A refused connection is asked again after `confirm_interval`; two refusals in a row count as a
  fall whatever `fall` is.  A kernel that answers with a reset leaves nothing to wait for.
- An unhealthy backend that answers "not ready" `rise` times in a row is draining again.  It gets
  no new connections, but the kernel takes a re-added destination back from its trash
  (`ip_vs_trash_get_dest` in net/netfilter/ipvs/ip_vs_ctl.c), so connections that were silent
  during a false alarm go on instead of being reset.
- A fault of ours says nothing: no streak grows or ends, no verdict changes.
- Damping counts changes to and from healthy, for only they move traffic; being well for at most
  `damping_hold_max` always ends a hold.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from typing import assert_never

from revip.model.health import Finding, Health, HealthTiming, ProbeResult, Verdict
from revip.model.instants import NEVER, Instant, Span, later
from revip.planner.backoff import doubled, spread

GOOD: frozenset[Finding] = frozenset({Finding.READY, Finding.DENIED})
"""Findings in favor."""
DEAD: frozenset[Finding] = frozenset({Finding.REFUSED, Finding.FAILED})
"""Findings against, of a backend that does not even answer."""

_REFUSALS = 2
"""Refused connections in a row that count as a fall."""
_REMEMBERED = 32
"""Changes remembered beyond `damping_changes`: by then every hold has reached its maximum."""


@dataclass(frozen=True, slots=True)
class ProbeFinished:
    """The outstanding probe has ended."""

    result: ProbeResult


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """The held connection has ended by itself."""

    reason: str


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The instant of `next_wakeup` has come; an early one is harmless."""


JudgeEvent = ProbeFinished | ConnectionLost | TimerFired


@dataclass(frozen=True, slots=True)
class AskNow:
    """Start a probe now; its end must be told by `ProbeFinished`."""

    fresh: bool
    """On a new connection, not on the held one."""


@dataclass(frozen=True, slots=True)
class Asking:
    """A probe is outstanding."""

    again: bool = False
    """The held connection was lost meanwhile: ask once more when this one ends."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """No probe is outstanding; the next is due at `until`, and welcome from `ripe` on."""

    until: Instant
    ripe: Instant


@dataclass(frozen=True, slots=True)
class Streaks:
    """How many results in a row, up to the newest, said the same."""

    good: int = 0
    bad: int = 0
    alive: int = 0
    """Not ready: bad, but answered."""
    dead: int = 0
    """Refused or failed: bad, and not answered."""
    refused: int = 0

    def then(self, finding: Finding) -> Streaks:
        """Return the streaks after one more result, which is not a fault of ours."""

        def extended(streak: int, kinds: Set[Finding]) -> int:
            return streak + 1 if finding in kinds else 0

        return Streaks(
            good=extended(self.good, GOOD),
            bad=extended(self.bad, DEAD | {Finding.NOT_READY}),
            alive=extended(self.alive, {Finding.NOT_READY}),
            dead=extended(self.dead, DEAD),
            refused=extended(self.refused, {Finding.REFUSED}),
        )


@dataclass(frozen=True, slots=True)
class State:
    """All that the judge remembers of one backend."""

    health: Health
    errand: Asking | Waiting
    cause: str
    """Why the verdict is what it is, without what damping adds."""
    cause_finding: Finding | None = None
    """What the result that gave `cause` had found."""
    streaks: Streaks = Streaks()
    ours: int = 0
    """Faults of ours in a row."""
    probes: int = 0
    """Probes started so far."""
    lost: str = ""
    """Why the held connection ended, until a good result answers for it."""
    loss_asked: Instant | None = None
    """When a lost connection was last asked about."""
    turns: tuple[Instant, ...] = ()
    """Changes to and from healthy within the damping window, oldest first; bounded."""


@dataclass(frozen=True, slots=True)
class Judge:
    """The rules for one backend.  Holds no state: `step` returns it."""

    timing: HealthTiming
    salt: str
    """Node and backend: what sets this judge's jitter apart from the others'."""
    fresh_every: int = 5
    """Every nth probe opens a new connection; 1 or more."""

    def begin(self, now: Instant) -> State:
        """Return the state of a backend never asked; its first probe is due at once."""
        cause = "not asked yet"
        return State(Health(Verdict.UNKNOWN, now, cause), Waiting(now, now), cause)

    def step(
        self, state: State, event: JudgeEvent, now: Instant
    ) -> tuple[State, tuple[AskNow, ...]]:
        """Take in one event; return the next state and whether to ask the backend now."""
        state = self._hear(state, event, now)
        errand = state.errand
        early = isinstance(event, TimerFired) and isinstance(errand, Waiting) and now >= errand.ripe
        if isinstance(errand, Asking) or (now < errand.until and not early):
            return state, ()
        return self._ask(state, now)

    def next_wakeup(self, state: State) -> Instant:
        """Return when `TimerFired` is wanted; `NEVER` while a probe is outstanding."""
        return state.errand.until if isinstance(state.errand, Waiting) else NEVER

    def ripe(self, state: State) -> Instant:
        """Return from when on `TimerFired` is welcome: before the jitter of `next_wakeup`."""
        return state.errand.ripe if isinstance(state.errand, Waiting) else NEVER

    def _hear(self, state: State, event: JudgeEvent, now: Instant) -> State:
        errand = state.errand
        match event:
            case ProbeFinished(result):
                if isinstance(errand, Waiting):
                    return state  # nobody waits for it: it is from a probe of a former life
                state = self._weigh(state, result, errand.again, now)
                pause, jitter = self._pause(state, result)
                ripe = later(now, pause)
                due = later(ripe, jitter)
                if errand.again and result.finding is not Finding.REFUSED:
                    due = min(due, self._loss_due(state, now))
                return replace(state, errand=Waiting(due, min(due, ripe)))
            case ConnectionLost(reason):
                if isinstance(errand, Asking):
                    return replace(state, errand=Asking(again=True), lost=reason)
                due = min(errand.until, self._loss_due(state, now))
                return replace(state, errand=Waiting(due, min(due, errand.ripe)), lost=reason)
            case TimerFired():
                return state
            case _:
                assert_never(event)

    def _ask(self, state: State, now: Instant) -> tuple[State, tuple[AskNow, ...]]:
        last = state.health.last
        doubted = last is None or last.finding not in GOOD or bool(state.lost)
        fresh = doubted or state.probes % self.fresh_every == 0
        asking = replace(
            state,
            errand=Asking(),
            probes=state.probes + 1,
            loss_asked=now if state.lost else state.loss_asked,
        )
        return asking, (AskNow(fresh),)

    def _loss_due(self, state: State, now: Instant) -> Instant:
        if state.loss_asked is None:
            return now
        return max(now, later(state.loss_asked, self.timing.fast_interval))

    def _pause(self, state: State, result: ProbeResult) -> tuple[Span, Span]:
        """Return how long to wait after `result`, which `state` has taken in, and the jitter."""
        timing, verdict = self.timing, state.health.verdict
        if result.finding is Finding.OURS:
            doubt = state.ours == 1
        elif self._soon(state, result):
            return Span(max(1, timing.confirm_interval)), Span(0)
        else:
            doubt = verdict is not _speaks_for(result.finding)
        interval = timing.fast_interval if doubt else timing.interval
        jitter = spread(interval, timing.jitter_percent, self.salt, state.probes)
        return Span(max(1, interval)), jitter

    def _soon(self, state: State, result: ProbeResult) -> bool:
        """Whether to ask again at once, because the answer will settle the matter.

        A dying process may still take a connection just before its listener goes, and break it
        off: the first bad answer after a lost connection is as much as a refusal.  So is the
        first that fails over the held connection, which had answered a moment ago.
        """
        if state.health.verdict is Verdict.UNHEALTHY:
            return False
        shaken = bool(state.lost) or result.held
        crash = shaken and result.finding in DEAD and state.streaks.bad == 1
        return result.finding is Finding.REFUSED or crash

    def _weigh(self, state: State, result: ProbeResult, again: bool, now: Instant) -> State:
        """Take `result` into streaks, verdict and reason."""
        turns = tuple(t for t in state.turns if now < later(t, self.timing.damping_window))
        health = replace(state.health, last=result, changes=len(turns))
        if result.finding is Finding.OURS:
            if health.verdict is Verdict.UNKNOWN:
                health = replace(health, reason=f"cannot tell, the fault is ours: {result.reason}")
            return replace(state, health=health, turns=turns, ours=state.ours + 1)
        state = replace(
            state, health=health, turns=turns, ours=0, streaks=state.streaks.then(result.finding)
        )
        state = self._decide(state, result, now)
        answered = result.finding in GOOD and not again
        return replace(state, lost="" if answered else state.lost)

    def _decide(self, state: State, result: ProbeResult, now: Instant) -> State:
        before = state.health.verdict
        held = self._held_back_until(state, now)
        verdict = self._verdict(before, state.streaks)
        if verdict is Verdict.HEALTHY and held is not None and now < held:
            verdict = before
        if verdict is before:
            return self._stay(state, result, held)
        turns = state.turns
        if Verdict.UNKNOWN is not before and Verdict.HEALTHY in (before, verdict):
            turns = (*turns, now)[-(self.timing.damping_changes + _REMEMBERED) :]
        cause = _because(state, result)
        health = Health(verdict, now, cause, last=result, changes=len(turns))
        return replace(state, health=health, cause=cause, cause_finding=result.finding, turns=turns)

    def _verdict(self, verdict: Verdict, streaks: Streaks) -> Verdict:
        """Return what the streaks make of `verdict`, damping aside."""
        rise, fall = self.timing.rise, self.timing.fall
        refused = streaks.refused >= _REFUSALS
        match verdict:
            case Verdict.UNKNOWN | Verdict.HEALTHY:
                if streaks.good:
                    return Verdict.HEALTHY
                if streaks.bad >= fall or refused:
                    return Verdict.UNHEALTHY if streaks.dead else Verdict.DRAINING
            case Verdict.DRAINING:
                if streaks.good >= rise:
                    return Verdict.HEALTHY
                if streaks.dead >= fall or refused:
                    return Verdict.UNHEALTHY
            case Verdict.UNHEALTHY:
                if streaks.good >= rise:
                    return Verdict.HEALTHY
                if streaks.alive >= rise:
                    return Verdict.DRAINING
            case _:
                assert_never(verdict)
        return verdict

    def _held_back_until(self, state: State, now: Instant) -> Instant | None:
        """Return the end of the hold: set by the first good result, dropped by a bad one."""
        if state.streaks.good > 1:
            return state.health.held_back_until
        beyond = len(state.turns) + 1 - self.timing.damping_changes
        well_again = state.streaks.good and state.health.verdict is not Verdict.HEALTHY
        if not well_again or not state.turns or beyond < 0:
            return None
        return later(now, doubled(self.timing.damping_hold, beyond, self.timing.damping_hold_max))

    def _stay(self, state: State, result: ProbeResult, held: Instant | None) -> State:
        """Keep the verdict; keep its reason true."""
        cause, finding = state.cause, state.cause_finding
        healthy = state.health.verdict is Verdict.HEALTHY
        if state.health.verdict is Verdict.UNKNOWN:
            cause, finding = f"no verdict yet: {result.reason}", result.finding
        elif healthy and result.finding in GOOD:
            cause, finding = result.reason, result.finding  # a certificate may be about to expire
        reason = cause
        if held is not None:
            minutes = self.timing.damping_window / 60_000
            reason += (
                f"; well again, but held back for it changed {len(state.turns)} times"
                f" within {minutes:g} min"
            )
        health = replace(state.health, reason=reason, held_back_until=held)
        return replace(state, health=health, cause=cause, cause_finding=finding)


def _speaks_for(finding: Finding) -> Verdict:
    """Return the verdict that a finding, not one of ours, agrees with."""
    if finding in GOOD:
        return Verdict.HEALTHY
    return Verdict.UNHEALTHY if finding in DEAD else Verdict.DRAINING


def _because(state: State, result: ProbeResult) -> str:
    """Say what decided: the newest result, and how often it was said."""
    streaks, said = state.streaks, result.reason
    same = max(streaks.good, streaks.alive, streaks.dead)
    if streaks.bad > same:
        said += f", the last of {streaks.bad} bad results in a row"
    elif streaks.refused >= _REFUSALS:
        said += ", confirmed"
    elif same > 1:
        said += f", {same} in a row"
    if streaks.bad and state.lost:
        return f"held connection lost ({state.lost}), then {said}"
    return said
