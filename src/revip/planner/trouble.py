"""What the kernel refuses, kept apart by virtual server: one that fails must starve no other.

A refusal is a difference that stays; here is only how long it is left alone, so that a kernel
which refuses for ever is neither hammered nor complained about at each attempt.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from revip.errors import KernelError
from revip.model.instants import NEVER, Instant, Span, later
from revip.model.ipvs import ServiceKey
from revip.planner.backoff import Backoff

Place = ServiceKey | None
"""What fails: writing one virtual server, or (None) reading the table."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that has failed and has not worked since."""

    error: KernelError
    since: Instant
    backoff: Backoff
    until: Instant
    """When it may be tried again."""
    said: frozenset[str]
    """Errors told already: two that take turns are told once each."""


@dataclass(slots=True)
class Troubles:
    """All that fails at present."""

    count: int = 0
    """Failures ever."""
    _now: dict[Place, Trouble] = field(default_factory=dict)

    @property
    def first(self) -> Trouble | None:
        """The longest-lasting trouble, None when there is none."""
        return min(self._now.values(), key=lambda trouble: trouble.since, default=None)

    def until(self, place: Place) -> Instant:
        """Return when `place`, which fails, may be tried again; `NEVER` when it does not fail."""
        trouble = self._now.get(place)
        return trouble.until if trouble else NEVER

    def resting(self, place: Place, now: Instant) -> bool:
        """Whether `place` is still to be left alone."""
        return place in self._now and now < self._now[place].until

    def failed(self, place: Place, error: KernelError, now: Instant) -> bool:
        """Take in a failure; return whether it is news."""
        self.count += 1
        before = self._now.get(place)
        backoff = (before.backoff if before else Backoff(salt=f"kernel {place}")).failed()
        said = before.said if before else frozenset()
        since = before.since if before else now
        until = later(now, backoff.delay)
        self._now[place] = Trouble(error, since, backoff, until, said | {str(error)})
        return str(error) not in said

    def ended(self, place: Place, now: Instant) -> Span | None:
        """Take in that `place` works; return how long it had not, None when it always had."""
        trouble = self._now.pop(place, None)
        return None if trouble is None else Span(now - trouble.since)

    def forget(self, kept: frozenset[ServiceKey]) -> None:
        """Drop the troubles of virtual servers that are ours no longer."""
        self._now = {p: t for p, t in self._now.items() if p is None or p in kept}
