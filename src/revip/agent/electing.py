"""One virtual server's election on this node: the machine of `planner.vrrp` on a real socket.

The order of calls is what the machine asks of its caller: all that has come in is fed before the
timer, the clock is read before each send, and an advert that is late is not sent.  The kernel
holds the address on a lease dated by the same adverts, so that whoever freezes or kills this
process takes the address from the node, too.

It runs in the keeper's process, without an event loop: `turn` does what is due.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, assert_never

from revip.errors import KernelError
from revip.model.host import Lease, LinkAddress
from revip.model.instants import Instant, Span, later
from revip.model.ipvs import IPAddress
from revip.model.notes import Kind, Level, Note
from revip.model.spec import VrrpSpec
from revip.model.vrrp import (
    STOPPING,
    Action,
    Active,
    AnnounceAgain,
    Backup,
    BecomeActive,
    BecomeBackup,
    Heard,
    PriorityChanged,
    Report,
    SendAdvert,
    SendFailed,
    Sent,
    Started,
    Stopped,
    VirtualRouter,
)
from revip.planner import handover
from revip.planner.handover import GRACE, HandOver
from revip.planner.health import TimerFired
from revip.planner.telling import Seldom
from revip.planner.vrrp import Event, begin, holds_until, next_wakeup, resume, step
from revip.ports import Clock, Speaker, SpeakerFactory
from revip.wire.vrrp import Rejected

LOOK = Span(100)
"""At most between looks at the carrier, and at how fit this node is."""
NEVER_HELD = Instant(0)
RETRY = Span(500)
"""After the socket could not be opened, or was lost with its interface."""
LINGER = Span(300)
"""The address stays so long after a successor was heard, who first makes its own table ready."""


@dataclass(frozen=True, slots=True)
class Outside:
    """What an election needs of the agent."""

    clock: Clock
    speaker: SpeakerFactory
    source: Callable[[], IPAddress]
    """This node's own address, that adverts come from; `KernelError` while there is none."""
    fitness: Callable[[], tuple[int, str]]
    """The priority that this node deserves now, 0 for none, and why."""
    renew: Callable[[LinkAddress, Lease], None]
    """Have the kernel's lifetime renewed, if the address is there."""
    allow: Callable[[Instant], None]
    """Let answers for the address out until then, and no longer but by an advert."""
    lead: Callable[[bool, str], None]
    """Told when this node begins and ceases to direct."""
    again: Callable[[LinkAddress], None]
    """Have the address announced once more."""
    note: Callable[[Note], None]


class Election:
    """Whether this node directs one virtual server."""

    def __init__(
        self,
        name: str,
        place: LinkAddress,
        spec: VrrpSpec,
        outside: Outside,
        held_until: Instant = NEVER_HELD,
    ) -> None:
        """Take `held_until`, before which nobody may have followed this node as Active."""
        self.name = name
        self.spec = spec
        self.place = place
        self.leading = False
        """Whether this node directs; it goes on a little after it has yielded to a successor."""
        self.keeps_until = Instant(0)
        """The address may be on this node until then, while `leading`."""
        self.odd: Counter[str] = Counter()
        """Oddities and refused packets, by kind."""
        self.failure: str | None = None
        """Why this node takes no part, None while it does."""
        self._outside = outside
        self._held_until = held_until
        self._router: VirtualRouter | None = None
        self._speaker: Speaker | None = None
        self._state = begin(STOPPING)
        self._retry_at = Instant(0)
        self._renewed_at = Instant(0)
        self._reason = ""
        self._resigned: str | None = None
        self._wish: HandOver | None = None
        """What an operator has asked for, while it lasts."""
        self._succeeded = False
        """While handing over: whether a successor was heard."""
        self._seldom = Seldom()

    @property
    def speaker(self) -> Speaker | None:
        """What is to be listened to at present."""
        return self._speaker

    def turn(self) -> Instant:
        """Do what is due; return when it is to be called again, unless something comes in first.

        Whatever goes wrong with the link is tried again.
        """
        now = self._outside.clock.now()
        if self._speaker is None and now < self._retry_at:
            return self._retry_at
        try:
            self._take_part()
        except KernelError as error:
            self._fail(str(error))
            self._close()
            self._retry_at = later(now, RETRY)
            return self._retry_at
        return self._due()

    def hand_over(self, wish: HandOver) -> None:
        """Begin what an operator asks for; `status` tells what becomes of it."""
        self._wish = wish

    def resign(self, reason: str) -> None:
        """Say farewell for good; `leading` ends when a successor was heard, or nobody wants to."""
        self._resigned, self._wish = reason, None
        if self._speaker is not None:
            self._feed(PriorityChanged(STOPPING, reason))

    def withdraw(self, reason: str) -> None:
        """End the part that this node takes: the group is not configured any more."""
        if self._speaker is not None:
            self._feed(Stopped(reason))
        self._keep(Instant(0))
        self._yield()
        self._close()

    def status(self) -> dict[str, Any]:
        """Return what an operator wants to know; instants are milliseconds of CLOCK_BOOTTIME."""
        phase = self._state.phase
        return {
            "kind": "vrrp",
            "vrid": self.spec.vrid,
            "state": type(phase).__name__.lower(),
            "priority": self._state.priority,
            "since": phase.since if isinstance(phase, Active | Backup) else None,
            "holder": self._holder(),
            "reason": self.failure or phase.reason,
            "lifetime_ends": later(self._renewed_at, self.spec.address_lifetime),
            "oddities": dict(self.odd),
            "handover": None
            if self._wish is None
            else {
                "stage": self._wish.stage.value,
                "other": None if self._wish.other is None else str(self._wish.other),
                "until": self._wish.until,
            },
        }

    # -------------------------------------------------------------------------------------------

    def _holder(self) -> str | None:
        phase, router = self._state.phase, self._router
        if isinstance(phase, Active) and router is not None:
            return str(router.source)
        return str(phase.active) if isinstance(phase, Backup) and phase.active else None

    def _take_part(self) -> None:
        if self._speaker is None or self._router is None:
            self._join()
        if self._speaker is not None and self._router is not None:
            self._turn(self._speaker, self._router)

    def _join(self) -> None:
        self._router = VirtualRouter(
            self.spec.vrid,
            (self.place.address,),
            self._outside.source(),
            self.spec.advert_interval,
            self.spec.preempt,
            self.spec.preempt_delay,
        )
        speaker = self._outside.speaker(self.place.link, self._router, self.spec.peers)
        speaker.open()
        self._speaker = speaker
        self.failure = None
        priority, now = self._deserved(speaker)[0], self._outside.clock.now()
        held_until, self._held_until = self._held_until, Instant(0)
        if priority != STOPPING and now < held_until:
            self.leading, self.keeps_until = True, held_until
            self._state = resume(self._router, priority, held_until, now)
        else:
            self._state = begin(priority)
            self._feed(Started())

    def _due(self) -> Instant:
        due = later(self._outside.clock.now(), LOOK)
        if self._router is not None:
            due = min(due, next_wakeup(self._router, self._state))
        if self.leading and not isinstance(self._state.phase, Active):
            due = min(due, Instant(self.keeps_until + 1))
        return due

    def _turn(self, speaker: Speaker, router: VirtualRouter) -> None:
        for received in speaker.receive():
            if isinstance(received, Heard):
                self._feed(received)
            else:
                self._reject(received)
        if self.leading and not isinstance(self._state.phase, Active):
            self._hand_over()  # before anything lets the successor be forgotten
        self._reconsider(speaker)
        if self._outside.clock.now() >= next_wakeup(router, self._state):
            self._feed(TimerFired())

    def _reconsider(self, speaker: Speaker) -> None:
        """Take in what the operator wants, and what this node is worth now."""
        if self._wish is not None:
            self._wish = handover.advanced(
                self._wish, self._state, self.spec.advert_interval, self._outside.clock.now()
            )
        priority, reason = self._deserved(speaker)
        if priority != self._state.priority:
            self._feed(PriorityChanged(priority, reason))

    def _reject(self, refused: Rejected) -> None:
        """Count an advert that is none for us, and tell of it unless that is quite in order."""
        self.odd[refused.rejection.value] += 1
        about = refused.rejection, refused.source
        if not refused.quite_in_order and self._seldom.may(about, self._outside.clock.now()):
            who = refused.source or "somebody"
            text = f"an advert of {who} for VRID {self.spec.vrid} is not obeyed: {refused.text}"
            self._note(text, Level.WARNING)

    def _deserved(self, speaker: Speaker) -> tuple[int, str]:
        if self._resigned is not None:
            return STOPPING, self._resigned
        if trouble := speaker.trouble():
            return STOPPING, trouble
        return handover.worth(self._wish, self._outside.fitness())

    def _feed(self, event: Event) -> None:
        now = self._outside.clock.now()
        if self._router is None:
            return
        router = handover.amended(self._wish, self._router)
        was_held = holds_until(router, self._state)
        self._state, actions = step(router, self._state, event, now)
        until = holds_until(router, self._state)
        if until is not None:
            self._renew(until, now)
        for action in actions:
            self._act(action, was_held is not None and now <= was_held)

    def _act(self, action: Action, held: bool) -> None:
        match action:
            case SendAdvert():
                self._feed(self._send(action))
            case BecomeActive(reason):
                self._reason = reason
                if not self.leading:
                    self.leading = True
                    self._outside.lead(True, reason)
            case BecomeBackup(reason):
                self._reason = reason
                self._lose(held)
            case AnnounceAgain():
                self._outside.again(self.place)
            case Report(oddity, text, fresh):
                self.odd[oddity.value] += 1
                if fresh:
                    self._note(text, Level.WARNING)
            case _:
                assert_never(action)

    def _send(self, action: SendAdvert) -> Event:
        at = self._outside.clock.now()
        if at > action.not_after or self._speaker is None:
            return SendFailed("woken too late to send it")
        try:
            self._speaker.send(action.priority)
        except KernelError as error:
            if error.errno in (errno.EINVAL, errno.EADDRNOTAVAIL):
                self._router_is_outdated()
            return SendFailed(error.sentence)
        if action.priority and self._outside.clock.now() > action.not_after:
            self._outside.allow(NEVER_HELD)  # frozen meanwhile: the late advert opened the fence
        return Sent(at)

    def _router_is_outdated(self) -> None:
        """Have the socket opened anew, by the address that this node has now."""
        if self._speaker is not None:
            self._speaker.close()

    def _keep(self, until: Instant) -> None:
        """Keep the address until then, although no advert says so."""
        if until != self.keeps_until:
            self.keeps_until = until
            self._outside.allow(until)

    def _renew(self, until: Instant, now: Instant) -> None:
        self.keeps_until = until
        if self.leading and now - self._renewed_at >= self.spec.address_lifetime // 4:
            self._renewed_at = now
            self._outside.renew(self.place, Lease(until, self.spec.address_lifetime))

    def _lose(self, held: bool) -> None:
        """Make before break: while the lease holds, the address waits for the successor."""
        now = self._outside.clock.now()
        carries = self._carries(self._speaker)
        wait = Span(self.spec.advert_interval + GRACE)
        self._keep(later(now, wait) if held and carries else Instant(now - 1))
        self._succeeded = False
        self._hand_over()

    def _hand_over(self) -> None:
        """Keep the address until a successor was heard and has had time to be ready."""
        now = self._outside.clock.now()
        if self._holder() is not None and not self._succeeded:
            self._succeeded = True
            self._keep(min(self.keeps_until, later(now, LINGER)))
        if now > self.keeps_until:
            self._yield()
        elif handover.keeps(self._wish) and not self._succeeded and self._carries(self._speaker):
            until = later(now, Span(self.spec.advert_interval + GRACE))
            self._keep(until)
            self._renew(until, now)

    @staticmethod
    def _carries(speaker: Speaker | None) -> bool:
        try:
            return speaker is not None and speaker.trouble() is None
        except KernelError:
            return False

    def _yield(self) -> None:
        if self.leading:
            self.leading = False
            self._outside.lead(False, self._reason)

    def _fail(self, failure: str) -> None:
        self.failure = failure
        if self._seldom.may(failure, self._outside.clock.now()):
            self._note(f"takes no part in the election: {failure}", Level.ERROR)
        if self._speaker is not None:
            self._feed(Stopped(failure))
        self._keep(Instant(0))
        self._yield()

    def _close(self) -> None:
        if self._speaker is not None:
            self._speaker.close()
            self._speaker = None

    def _note(self, text: str, level: Level) -> None:
        now = self._outside.clock.now()
        self._outside.note(Note(now, Kind.LEADERSHIP, text, level, self.name))
