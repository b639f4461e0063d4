"""Whether somebody else has our address: asked before the first claim, listened for ever after.

RFC 5227 (IPv4) and RFC 4862 (IPv6) settle it for a host's own address.  A virtual IP differs:

- **Only the first claim of a start is asked about.**  In a fail-over the silent peer may be dead,
  and each millisecond counts; in a hand-over it still answers, as it should (make before break).
  There nothing is asked first, and a stranger is found a second later.  Nor is asked about an
  address that this node already has (a restarted agent).
- **Not for seconds.**  RFC 5227 asks for up to 7 s, for hosts behind slow bridges that have time.
  Three questions within 300 ms are beside the first probes of the backends and delay nothing; what
  they miss is found when the address is held.
- **Fellow nodes are no strangers.**  Who speaks VRRP for our address, or is one of the backends,
  may answer for a while: the old holder at a hand-over, a frozen or killed agent whose address the
  kernel has not yet ended.  That is the election's affair, told only when it outlasts the
  documented window, and never fought about with announcements: both sides would for ever.
  An answer at the start, before the first adverts were heard, may be a fellow's: with an election
  the verdict waits for two intervals, in which it listens anyway.
- **Holding, it asks each second.**  A kernel that merely has the address, too, sends nothing to
  anybody but those who ask.  The question comes from this node's own address in IPv6, since a
  kernel answers one from `::` to the whole link and so would mislead it (ndisc_recv_ns).
- **Defending is a new burst of announcements, at most one each 10 s** (DEFEND_INTERVAL): RFC 5227
  section 2.4 has a single one, but hosts believe no second change within a second (`locktime`).
- **Yielding wants to hear it twice**: one forged frame must not move an address.

The caller's part: `Claim` when its ear is open, and again after it had to be opened anew; `Heard`
before each `TimerFired`; never with this node's own hardware address.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import assert_never

from revip.model.conflict import (
    Alert,
    Aside,
    Asking,
    Blind,
    Claim,
    Clear,
    Conflict,
    ConflictAction,
    ConflictEvent,
    Defend,
    Heard,
    Held,
    Idle,
    Permitted,
    Question,
    Recognized,
    Released,
    Rival,
)
from revip.model.host import MacAddress, mac_text
from revip.model.instants import MINUTE, NEVER, SECOND, Instant, Span, later
from revip.model.ipvs import IPAddress
from revip.model.spec import OnDuplicate
from revip.planner.backoff import doubled
from revip.planner.health import TimerFired

QUESTIONS = 3
"""Before the first claim (PROBE_NUM of RFC 5227 section 1.1)."""
QUESTION_GAP = Span(100)
"""Between them, and from the last one to the verdict."""
CHECK = SECOND
"""Between questions while the address is held."""
DEFEND_INTERVAL = Span(10_000)
"""Between bursts of announcements in defense (RFC 5227 section 1.1)."""
RETRY = SECOND
RETRY_CEILING = Span(30_000)
"""Between checks while it stands aside: the first and, doubled each time, the longest."""
FORGET = Span(10_000)
"""Who was not heard for so long claims it no longer."""
APART = Span(3 * CHECK)
"""A fellow that was not heard for three questions had given the address up meanwhile."""
REMEMBERED = 8
"""Rivals at once; a flood of forged ones must not fill memory or log."""
FELLOWS = 64
CERTAIN = 2
"""Claims after which the policy `yield` does."""

Event = ConflictEvent | TimerFired
Step = tuple[Conflict, tuple[ConflictAction, ...]]


@dataclass(frozen=True, slots=True)
class Rules:
    """What one address is judged by."""

    address: IPAddress
    policy: OnDuplicate
    window: Span
    """For so long two fellow nodes may answer."""
    patience: Span = Span(0)
    """At the first claim, for so long an answer may turn out to be a fellow's."""
    vrid: int | None = None
    """Of the election, None without one."""


def may_hold(state: Conflict) -> bool:
    """Return whether the address may be put on the interface."""
    return isinstance(state.stage, Clear)


def objection(state: Conflict) -> str | None:
    """Return why this node leaves the address to somebody else, None when it does not."""
    match state.stage:
        case Aside() as aside:
            return _reason(aside)
        case Asking(aside=Aside() as aside):
            return _reason(aside)
        case _:
            return None


def next_wakeup(state: Conflict) -> Instant:
    """Return when `TimerFired` is due next."""
    ends = (later(rival.last, FORGET) for rival in state.rivals.values())
    return min((_due(state), *ends))


def step(rules: Rules, state: Conflict, event: Event, now: Instant) -> Step:
    """Take in one event; return the next state and what to do, in this order."""
    match event:
        case Claim():
            return _claim(state, now)
        case Held():
            return _held(state, now)
        case Released():
            stage = Clear(NEVER) if isinstance(state.stage, Clear) else state.stage
            return replace(state, holding=False, stage=stage), ()
        case Heard():
            return _heard(rules, state, event, now)
        case Recognized(mac):
            return _recognized(state, mac), ()
        case Blind():
            if isinstance(state.stage, Idle | Asking) and objection(state) is None:
                return _clear(state, now)
            return state, ()
        case TimerFired():
            return _timer_fired(rules, state, now)
        case _:
            assert_never(event)


# Asking -----------------------------------------------------------------------------------------


def _claim(state: Conflict, now: Instant) -> Step:
    match state.stage:
        case Idle():
            return _ask(state, None, now)
        case Asking(aside=aside):  # what was asked may never have left this host
            return _ask(state, aside, now)
        case _:
            return state, ()


def _ask(state: Conflict, aside: Aside | None, now: Instant) -> Step:
    asking = Asking(now, 1, later(now, QUESTION_GAP), aside)
    return replace(state, stage=asking), (Question(state.holding),)


def _held(state: Conflict, now: Instant) -> Step:
    if state.holding:
        return state, ()
    state = replace(state, holding=True)
    match state.stage:
        case Idle():  # a restarted agent has had it all the time
            return _clear(state, now)
        case Clear():
            return replace(state, stage=Clear(later(now, CHECK))), ()
        case _:
            return state, ()


def _clear(state: Conflict, now: Instant) -> Step:
    due_at = later(now, CHECK) if state.holding else NEVER
    return replace(state, stage=Clear(due_at)), (Permitted(),)


def _timer_fired(rules: Rules, state: Conflict, now: Instant) -> Step:
    state, ended = _forgotten(rules, state, now)
    if now < _due(state):
        return state, ended
    match state.stage:
        case Asking(asked=asked) as asking if asked < QUESTIONS:
            asking = replace(asking, asked=asked + 1, due_at=later(now, QUESTION_GAP))
            return replace(state, stage=asking), (*ended, Question(state.holding))
        case Asking() as asking if now < _verdict_at(rules, asking):
            asking = replace(asking, due_at=_verdict_at(rules, asking))
            return replace(state, stage=asking), ended
        case Asking() as asking:
            state, actions = _verdict(rules, state, asking, now)
        case Clear():
            state, actions = replace(state, stage=Clear(later(now, CHECK))), (Question(True),)
        case Aside() as aside:
            state, actions = _ask(state, aside, now)
        case Idle():
            actions = ()
        case stage:
            assert_never(stage)
    return state, (*ended, *actions)


def _verdict_at(rules: Rules, asking: Asking) -> Instant:
    patience = Span(0) if asking.aside else rules.patience
    return later(asking.since, Span(max(patience, QUESTIONS * QUESTION_GAP)))


def _verdict(rules: Rules, state: Conflict, asking: Asking, now: Instant) -> Step:
    answered = [r for r in _strangers(state) if r.last >= asking.since]
    rival = max(answered, key=lambda r: (r.last, r.mac), default=None)
    if rival is None:
        state, actions = _clear(state, now)
        if asking.aside is None:
            return state, actions
        text = f"nobody else answers for {rules.address} any more: this node may have it again"
        return state, (Alert(text, grave=False), *actions)
    if asking.aside is not None:
        return _step_aside(state, replace(asking.aside, mac=rival.mac), now)
    conflicts = state.conflicts + 1
    state = replace(_told(state, rival, now), conflicts=conflicts)
    who = f"{_who(rival)} already answers for {rules.address}"
    if rules.policy is OnDuplicate.YIELD:
        alert = Alert(f"{who}: this node leaves it alone until nobody does (on_duplicate: yield)")
        state, actions = _step_aside(state, Aside(rival.mac, now, now, 0), now)
    else:
        alert = Alert(f"{who}: it is claimed all the same (on_duplicate: defend); {_MEND}")
        state, actions = _clear(state, now)
    return state, (alert, *actions)


def _step_aside(state: Conflict, aside: Aside, now: Instant) -> Step:
    wait = doubled(RETRY, aside.rounds, RETRY_CEILING)
    due = replace(aside, due_at=later(now, wait), rounds=aside.rounds + 1)
    return replace(state, stage=due), (Permitted(),)


# Hearing ----------------------------------------------------------------------------------------


def _recognized(state: Conflict, mac: MacAddress) -> Conflict:
    if mac in state.fellows or len(state.fellows) >= FELLOWS:
        return state
    rivals = {**state.rivals}
    if known := rivals.get(mac):
        rivals[mac] = replace(known, fellow=True)
    return replace(state, fellows=state.fellows | {mac}, rivals=rivals)


def _heard(rules: Rules, state: Conflict, event: Heard, now: Instant) -> Step:
    waiting = isinstance(state.stage, Asking | Aside)
    if not (state.holding or waiting):
        return state, ()  # whoever has it may say so
    fellow = event.fellow or event.mac in state.fellows or _is_virtual(rules, event.mac)
    before = state.rivals.get(event.mac)
    if before is None and len(state.rivals) >= REMEMBERED:
        return state, ()
    rival = Rival(event.mac, now, now, 1, fellow, event.name)
    if before is not None and now - before.last < FORGET:
        fellow = fellow or before.fellow
        name = event.name or before.name
        rival = replace(before, last=now, times=before.times + 1, fellow=fellow, name=name)
        if fellow and now - before.last >= APART:
            rival = replace(rival, since=now)  # one hand-over after the other is no long one
    state = replace(state, rivals={**state.rivals, event.mac: rival})
    match state.stage:
        case Asking() as asking:
            if fellow or (asking.aside is None and rules.patience):
                return state, ()
            return _verdict(rules, state, asking, now)
        case Clear() if fellow:
            return _heard_fellow(rules, state, rival, now)
        case Clear():
            return _heard_stranger(rules, state, rival, now)
        case _:
            return state, ()


def _heard_fellow(rules: Rules, state: Conflict, rival: Rival, now: Instant) -> Step:
    lasted = now - rival.since
    if lasted < rules.window or not _due_to_tell(rival, now):
        return state, ()
    new = rival.told_at is None
    state = replace(_told(state, rival, now), conflicts=state.conflicts + new)
    text = (
        f"{_who(rival)} has answered for {rules.address} beside this node for {lasted} ms:"
        " two nodes hold it; see who should (revip status on both), and stop the other"
    )
    return state, (Alert(text),)


def _heard_stranger(rules: Rules, state: Conflict, rival: Rival, now: Instant) -> Step:
    new = rival.told_at is None
    who = f"{_who(rival)} answers for {rules.address}, which this node has"
    if rules.policy is OnDuplicate.YIELD and rival.times >= CERTAIN:
        text = f"{who}: it is left to it until nobody else answers (on_duplicate: yield)"
        state = replace(_told(state, rival, now), conflicts=state.conflicts + new)
        state, actions = _step_aside(state, Aside(rival.mac, now, now, 0), now)
        return state, (Alert(text), *actions)
    actions = ()
    if rules.policy is OnDuplicate.YIELD:
        actions = (Question(state.holding),)
    elif state.defended_at is None or now - state.defended_at >= DEFEND_INTERVAL:
        state = replace(state, defended_at=now, defenses=state.defenses + 1)
        actions = (Defend(),)
    if not _due_to_tell(rival, now):
        return state, actions
    state = replace(_told(state, rival, now), conflicts=state.conflicts + new)
    what = "asked once more" if rules.policy is OnDuplicate.YIELD else f"defended; {_MEND}"
    again = "" if new else f" still, heard {rival.times} times"
    return state, (Alert(f"{who}{again}: {what}"), *actions)


def _forgotten(rules: Rules, state: Conflict, now: Instant) -> Step:
    """Drop who has fallen silent, and say so of those who were told of."""
    gone = [r for r in state.rivals.values() if now - r.last >= FORGET]
    if not gone:
        return state, ()
    kept = {mac: rival for mac, rival in state.rivals.items() if rival not in gone}
    told = (r for r in gone if r.told_at is not None and isinstance(state.stage, Clear))
    ends = [
        Alert(
            f"{_who(rival)} has not claimed {rules.address} for {now - rival.last} ms", grave=False
        )
        for rival in told
        if state.holding
    ]
    return replace(state, rivals=kept), tuple(ends)


# Small things -----------------------------------------------------------------------------------

_MEND = "find it by this hardware address (switch table, `ip neigh`) and take the address from it"


def _due(state: Conflict) -> Instant:
    match state.stage:
        case Idle():
            return NEVER
        case Asking(due_at=due_at) | Clear(due_at=due_at) | Aside(due_at=due_at):
            return due_at
        case stage:
            assert_never(stage)


def _strangers(state: Conflict) -> Iterable[Rival]:
    return (rival for rival in state.rivals.values() if not rival.fellow)


def _is_virtual(rules: Rules, mac: MacAddress) -> bool:
    """Whether `mac` is our group's virtual router (RFC 9568 section 7.3; keepalived's use_vmac)."""
    if rules.vrid is None:
        return False
    family = 1 if rules.address.version == 4 else 2
    return mac == bytes((0, 0, 0x5E, 0, family, rules.vrid))


def _due_to_tell(rival: Rival, now: Instant) -> bool:
    return rival.told_at is None or now - rival.told_at >= MINUTE


def _told(state: Conflict, rival: Rival, now: Instant) -> Conflict:
    return replace(state, rivals={**state.rivals, rival.mac: replace(rival, told_at=now)})


def _who(rival: Rival) -> str:
    name = f" ({rival.name})" if rival.name else ""
    return f"{mac_text(rival.mac)}{name}"


def _reason(aside: Aside) -> str:
    return f"{mac_text(aside.mac)} answers for the address (on_duplicate: yield)"
