"""What an operator may ask of an election by hand: give the address away, or take it here.

VRRP cannot name a successor (RFC 9568 has no such message): who gives the address away says
priority 0, and the peers agree among themselves; whoever is to have it must ask for it himself,
by a priority above all.  Both last for a while, so that the election does not undo them at once:

- **Given away**: this node takes part again with its own priority as soon as a successor was
  heard, but preempts nobody until the while is over.  When the successor fails, it is over.
- **Not taken**: nobody answered, so this node takes its part again and keeps the address; while
  it listens (as whoever comes back must) it is still the only one who answers.
- **Taken here**: priority 254 and preemption for the while, also where `preempt` is off.  A node
  that may not direct at all (no carrier, no backends) does not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from revip.model.instants import Instant, Span, later
from revip.model.ipvs import IPAddress
from revip.model.vrrp import (
    HIGHEST_PRIORITY,
    STOPPING,
    Active,
    Backup,
    State,
    VirtualRouter,
    active_down,
)

GRACE = Span(500)
"""Beyond one interval, within which every peer answers a farewell (RFC 9568: its skew)."""


class Stage(Enum):
    """How far a hand-over by hand has come."""

    GIVING = "giving"
    GIVEN = "given"
    NOT_TAKEN = "not-taken"
    TAKING = "taking"
    TAKEN = "taken"
    REFUSED = "refused"


PENDING = frozenset({Stage.GIVING, Stage.TAKING})


@dataclass(frozen=True, slots=True)
class HandOver:
    """One hand-over that an operator has asked for."""

    stage: Stage
    asked_at: Instant
    until: Instant
    """When the election goes its own way again."""
    other: IPAddress | None = None
    """Who has taken the address, or does not let go of it."""


def give(now: Instant, hold: Span) -> HandOver:
    """Return the wish to give the address away and not to preempt for `hold`."""
    return HandOver(Stage.GIVING, now, later(now, hold))


def take(now: Instant, hold: Span) -> HandOver:
    """Return the wish to have the address here for `hold`."""
    return HandOver(Stage.TAKING, now, later(now, hold))


def worth(wish: HandOver | None, deserved: tuple[int, str]) -> tuple[int, str]:
    """Return the priority to take part with, and why; 0 stands aside."""
    if wish is None or deserved[0] == STOPPING:
        return deserved
    match wish.stage:
        case Stage.GIVING:
            return STOPPING, "handed over by the operator"
        case Stage.TAKING | Stage.TAKEN:
            return HIGHEST_PRIORITY, "the operator wants it here"
        case _:
            return deserved


def amended(wish: HandOver | None, router: VirtualRouter) -> VirtualRouter:
    """Return the group with the rules of preemption that hold meanwhile."""
    match wish:
        case HandOver(Stage.GIVING | Stage.GIVEN):
            return replace(router, preempt=False)
        case HandOver(Stage.TAKING | Stage.TAKEN):
            return replace(router, preempt=True, preempt_delay=Span(0))
        case _:
            return router


def keeps(wish: HandOver | None) -> bool:
    """Return whether the address stays until somebody else was heard, however long that is."""
    return wish is not None and wish.stage in (Stage.GIVING, Stage.NOT_TAKEN)


def patience(wish: HandOver, interval: Span) -> Span:
    """Return how long after it was asked for a hand-over that nobody lets happen is given up."""
    if wish.stage is Stage.GIVING:
        return Span(interval + GRACE)
    return Span(2 * active_down(STOPPING, interval) + GRACE)


def advanced(wish: HandOver, state: State, interval: Span, now: Instant) -> HandOver | None:
    """Return what has become of `wish`, None when the election goes its own way again."""
    here = isinstance(state.phase, Active)
    holder = state.phase.active if isinstance(state.phase, Backup) else None
    if now > wish.until and wish.stage not in PENDING:
        return None
    given_up = now > later(wish.asked_at, patience(wish, interval))
    match wish.stage:
        case Stage.GIVING if holder is not None:
            return replace(wish, stage=Stage.GIVEN, other=holder)
        case Stage.GIVING if given_up:
            return replace(wish, stage=Stage.NOT_TAKEN)
        case Stage.NOT_TAKEN if holder is not None:
            return replace(wish, stage=Stage.GIVEN, other=holder)
        case Stage.GIVEN | Stage.NOT_TAKEN if here:
            return None
        case Stage.TAKING if here:
            return replace(wish, stage=Stage.TAKEN)
        case Stage.TAKING if given_up:
            return replace(wish, stage=Stage.REFUSED, other=holder)
        case _:
            return wish
