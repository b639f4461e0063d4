"""The election of RFC 9568 section 6: adverts and the time go in, what to say and be comes out.

What the RFC leaves open, or revip does more strictly, with the reasons:

- **Look before you speak.**  A node that starts, that was woken later than its alarm by more than
  one interval, or that as Active has got no advert out for three intervals, first listens for a
  whole Active_Down_Interval: it neither sends nor claims, whatever priority it has.  Three
  intervals, not Active_Down_Interval, since a peer's skew may be almost nothing.
- **Who cannot say so does not become Active.**  A claim is an advert first; only when that has
  left the host (`Sent`) does the node become Active.  An Active whose adverts fail (`SendFailed`:
  a packet filter, a dead link) is silent, and yields by the rule above.
- **Priority 0 at run time stands aside**: never claims, and gives up at once when Active.
- A lower Active is asserted against at once, as section 6.4.3 says, but at most every 10 ms, so
  that two implementations that both think themselves better do not flood the link.
- An advert of our VRID for none of our addresses is a foreign group's: reported and not obeyed,
  else nobody would serve our address.  If the lists differ but overlap it is obeyed and reported,
  for then both want the same address.
- Priority 0 from somebody else than the Active last heard does not hurry the take-over.

The caller's part: before each `TimerFired` take everything out of the socket and feed it first;
send no advert after its `not_after`; feed `Sent` with a clock read *before* the send.
VRRP knows one Active only among nodes that hear each other.  While they do, two are Active for at
most one interval of the better one plus the delay of the network.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from revip.model.instants import MINUTE, NEVER, Instant, Span, later
from revip.model.ipvs import IPAddress
from revip.model.vrrp import (
    STOPPING,
    Action,
    Active,
    AnnounceAgain,
    Backup,
    BecomeActive,
    BecomeBackup,
    Claiming,
    Heard,
    Initialize,
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
    VrrpEvent,
    active_down,
    skew,
)
from revip.planner.health import TimerFired

ASSERTION_GAP = Span(10)
"""Between an advert and an assertion against a lower Active."""
REMEMBERED = 32
"""Oddities that are told once a minute, not each time."""


Event = VrrpEvent | TimerFired
Step = tuple[State, tuple[Action, ...]]


def begin(priority: int) -> State:
    """Return the state before `Started`; `priority` is 0 (stand aside) to 254."""
    return State(Initialize("not started"), priority)


def resume(router: VirtualRouter, priority: int, held_until: Instant, now: Instant) -> State:
    """Return the state of a node that was Active before it was started again.

    `held_until` is what `holds_until` said, and is not over: nobody may have taken over, so there
    is nothing to listen for first.  The next advert is due at once.
    """
    sent_at = Instant(held_until - router.silence)
    return State(Active(now, "goes on after a new start", sent_at, due_at=now), priority)


def next_wakeup(router: VirtualRouter, state: State) -> Instant:
    """Return when `TimerFired` is due next."""
    match state.phase:
        case Initialize():
            return NEVER
        case Backup(down_at=down_at, listening_until=until):
            return NEVER if state.priority == STOPPING else max(down_at, until)
        case Claiming(asked_at):
            return Instant(later(asked_at, router.silence) + 1)
        case Active(sent_at=sent_at, due_at=due_at):
            return min(due_at, Instant(later(sent_at, router.silence) + 1))
        case phase:
            assert_never(phase)


def holds_until(router: VirtualRouter, state: State) -> Instant | None:
    """Return until when no peer may take over: what a fence or lifetime is to be dated by.

    None unless Active.
    """
    match state.phase:
        case Active(sent_at=sent_at):
            return later(sent_at, router.silence)
        case _:
            return None


def step(router: VirtualRouter, state: State, event: Event, now: Instant) -> Step:
    """Take in one event; return the next state and what to do, in this order."""
    before: tuple[Action, ...] = ()
    if isinstance(event, Sent):
        state, before = _sent(router, state, event)
    slept = _overslept(router, state, now)
    if slept:
        state, told = _told(state, Oddity.OVERSLEPT, router.source, slept, now)
        state, yielded = _listen(router, state, slept, now)
        before = (told, *yielded)  # what was to be done is out of date
    state, actions = _react(router, state, event, now)
    return state, before + actions


def _react(router: VirtualRouter, state: State, event: Event, now: Instant) -> Step:
    match event:
        case Heard():
            return _heard(router, state, event, now)
        case TimerFired():
            return _timer_fired(router, state, now)
        case SendFailed(reason):
            return _send_failed(router, state, reason, now)
        case PriorityChanged(priority, reason):
            return _priority_changed(router, state, priority, reason, now)
        case StepDown(reason):
            return _step_down(router, state, reason, now)
        case Started():
            if isinstance(state.phase, Initialize):
                return _listen(router, state, "just started: listens first", now)
            return state, ()
        case Stopped(reason):
            state, actions = _step_down(router, state, reason, now)
            return replace(state, phase=Initialize(reason)), actions
        case Sent():
            return state, ()
        case _:
            assert_never(event)


# Time -------------------------------------------------------------------------------------------


def _overslept(router: VirtualRouter, state: State, now: Instant) -> str:
    """Return why this node must look before it does anything else, or nothing."""
    match state.phase:
        case Active(sent_at=at) | Claiming(asked_at=at) if now > later(at, router.silence):
            return f"no advert of ours left this host for {now - at} ms: listens before it speaks"
        case Backup(interval=interval):
            # What came while we slept a little is in the socket, and is fed first.
            alarm = next_wakeup(router, state)
            if now > later(alarm, min(interval, router.interval)):
                return f"woken {now - alarm} ms late: listens before it speaks"
    return ""


def _timer_fired(router: VirtualRouter, state: State, now: Instant) -> Step:
    if now < next_wakeup(router, state):
        return state, ()
    match state.phase:
        case Backup(active=None):
            reason = "nobody else is active"
        case Backup(active=active, preempt_at=None):
            reason = f"{active} is active no longer"
        case Backup(active=active):
            reason = f"{active} is active with a lower priority than our {state.priority}"
        case Active(due_at=due_at) as phase if now >= due_at:
            # Steady: a timer that fires late by a little does not shift those after it.
            following = later(due_at, router.interval)
            if following <= now:
                following = later(now, router.interval)
            state = replace(state, phase=replace(phase, due_at=following))
            return state, (_advert(router, state, phase),)
        case _:
            return state, ()
    claim = SendAdvert(state.priority, not_after=later(now, router.interval))
    return replace(state, phase=Claiming(now, reason)), (claim,)


def _listen(router: VirtualRouter, state: State, reason: str, now: Instant) -> Step:
    """Be Backup and hear a whole Active_Down_Interval before anything else."""
    until = later(now, active_down(state.priority, router.interval))
    was = isinstance(state.phase, Active)
    phase = Backup(now, reason, router.interval, down_at=until, listening_until=until)
    return replace(state, phase=phase), (BecomeBackup(reason),) if was else ()


# Our own adverts --------------------------------------------------------------------------------


def _advert(router: VirtualRouter, state: State, phase: Active) -> SendAdvert:
    return SendAdvert(state.priority, not_after=later(phase.sent_at, router.silence))


def _sent(router: VirtualRouter, state: State, event: Sent) -> Step:
    match state.phase:
        case Claiming(reason=reason):
            due_at = later(event.at, router.interval)
            active = Active(event.at, reason, sent_at=event.at, due_at=due_at)
            return replace(state, phase=active), (BecomeActive(reason),)
        case Active() as active if event.at > active.sent_at:
            return replace(state, phase=replace(active, sent_at=event.at)), ()
        case _:
            return state, ()


def _send_failed(router: VirtualRouter, state: State, reason: str, now: Instant) -> Step:
    text = f"an advert was not sent: {reason}"
    state, told = _told(state, Oddity.UNSENT, router.source, text, now)
    if isinstance(state.phase, Claiming):
        state, yielded = _listen(router, state, text, now)
        return state, (told, *yielded)
    return state, (told,)


def _priority_changed(
    router: VirtualRouter, state: State, priority: int, reason: str, now: Instant
) -> Step:
    former, state = state.priority, replace(state, priority=priority)
    if former == priority:
        return state, ()
    match state.phase:
        case Active() | Claiming() if priority == STOPPING:
            return _step_down(router, state, reason, now)
        case Active() as phase:
            return state, (_advert(router, state, phase),)  # so that a better peer knows at once
        case Backup() as phase if priority == STOPPING:
            return replace(state, phase=replace(phase, reason=f"stands aside: {reason}")), ()
        case Backup() if former == STOPPING:
            return _listen(router, state, f"{reason}: listens first", now)
        case Backup() as phase if phase.preempt_at is not None:
            # Whether to preempt is to be asked again, with the next advert.
            down_at = max(phase.down_at, later(now, active_down(priority, phase.interval)))
            return replace(state, phase=replace(phase, down_at=down_at, preempt_at=None)), ()
        case _:
            return state, ()


def _step_down(router: VirtualRouter, state: State, reason: str, now: Instant) -> Step:
    match state.phase:
        case Active(sent_at=at) | Claiming(asked_at=at):
            farewell = SendAdvert(STOPPING, not_after=later(at, router.silence))
            state, yielded = _listen(router, state, reason, now)
            return state, (farewell, *(yielded or (BecomeBackup(reason),)))
        case _:
            return state, ()


# The adverts of others --------------------------------------------------------------------------


def _heard(router: VirtualRouter, state: State, heard: Heard, now: Instant) -> Step:
    reports: list[Action] = []
    for oddity, text in _oddities(router, heard):
        state, report = _told(state, oddity, heard.source, text, now)
        reports.append(report)
        if oddity is Oddity.CLASH:
            return state, tuple(reports)
    match state.phase:
        case Backup() as phase:
            phase = _heard_as_backup(router, state.priority, phase, heard, now)
            return replace(state, phase=phase), tuple(reports)
        case Active() | Claiming() as phase:
            state, actions = _heard_as_active(router, state, phase, heard, now)
            return state, (*reports, *actions)
        case Initialize():
            return state, tuple(reports)
        case phase:
            assert_never(phase)


def _heard_as_backup(
    router: VirtualRouter, priority: int, phase: Backup, heard: Heard, now: Instant
) -> Backup:
    source, advert = heard.source, heard.advertisement
    if advert.priority == STOPPING:
        if phase.active not in (None, source):
            return phase
        down_at = min(phase.down_at, later(now, skew(priority, phase.interval)))
        return replace(phase, down_at=down_at, preempt_at=None, reason=f"{source} gives up")
    lower = advert.priority < priority
    reason = f"{source} is active with priority {advert.priority}, ours is {priority}"
    preempt_at = None
    if lower and router.preempt:
        preempt_at = phase.preempt_at or later(now, router.preempt_delay)
        if now >= preempt_at:
            reason += ": about to be preempted"
            return replace(phase, reason=reason, active=source, preempt_at=preempt_at)
        reason += f": preempted in {preempt_at - now} ms"
    elif lower:
        reason += ", and preempt is off"
    if not priority:
        reason = phase.reason
    return replace(
        phase,
        reason=reason,
        interval=advert.interval,
        down_at=later(now, active_down(priority, advert.interval)),
        active=source,
        preempt_at=preempt_at,
    )


def _heard_as_active(
    router: VirtualRouter, state: State, phase: Active | Claiming, heard: Heard, now: Instant
) -> Step:
    """RFC 9568 section 6.4.3; a claim that is not yet made is easily taken back."""
    source, advert = heard.source, heard.advertisement
    if advert.priority == STOPPING:
        # It was Active as well, and its peers must not think that nobody is.
        return state, (_advert(router, state, phase),) if isinstance(phase, Active) else ()
    theirs = f"{source} is active with priority {advert.priority}"
    better = (advert.priority, int(source)) > (state.priority, int(router.source))
    reason = f"{theirs}, ours is {state.priority}" + (
        " and our address lower" if better and advert.priority == state.priority else ""
    )
    actions: list[Action] = []
    if isinstance(phase, Active):
        state, report = _told(state, Oddity.TWO_ACTIVE, source, f"{theirs}, and so are we", now)
        actions.append(report)
    if better:
        down_at = later(now, active_down(state.priority, advert.interval))
        following = Backup(
            now, reason, advert.interval, down_at, listening_until=now, active=source
        )
        if isinstance(phase, Active):
            actions.append(BecomeBackup(reason))
        return replace(state, phase=following), tuple(actions)
    if isinstance(phase, Active):
        if now - phase.sent_at >= ASSERTION_GAP:
            actions.append(_advert(router, state, phase))
        actions.append(AnnounceAgain(f"{theirs} beside us, ours is {state.priority}"))
    return state, tuple(actions)


def _oddities(router: VirtualRouter, heard: Heard) -> list[tuple[Oddity, str]]:
    source, advert = heard.source, heard.advertisement
    ours, theirs = set(router.addresses), set(advert.addresses)
    listed = ", ".join(map(str, advert.addresses))
    found: list[tuple[Oddity, str]] = []
    if not ours & theirs:
        text = (
            f"VRID {router.vrid} is used by {source} for {listed}, none of which is ours: "
            "give one of the two groups another VRID"
        )
        return [(Oddity.CLASH, text)]
    if ours != theirs:
        text = f"{source} lists {listed}; make it the same on all members"
        found.append((Oddity.OTHER_ADDRESSES, text))
    if advert.interval != router.interval:
        text = f"{source} advertises every {advert.interval} ms, we every {router.interval} ms"
        found.append((Oddity.OTHER_INTERVAL, text))
    if router.source.version == 4 and heard.checksum is not router.checksum:
        text = (
            f"{source} makes checksums by {heard.checksum.value}, we by {router.checksum.value}: "
            "it may not accept ours"
        )
        found.append((Oddity.OTHER_CHECKSUM, text))
    return found


def _told(
    state: State, oddity: Oddity, about: IPAddress, text: str, now: Instant
) -> tuple[State, Report]:
    """Return the report, fresh unless the same was told within the last minute."""
    recent = tuple(entry for entry in state.told if now - entry[2] < MINUTE)
    if any(entry[:2] == (about, oddity) for entry in recent):
        return state, Report(oddity, text, fresh=False)
    told = (*recent, (about, oddity, now))[-REMEMBERED:]
    return replace(state, told=told), Report(oddity, text, fresh=True)
