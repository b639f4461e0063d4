"""Whether a director gets its address: one that cannot have it must not keep it from the others.

The adverts of a node whose kernel refuses the address (EPERM, ENOBUFS on RTM_NEWADDR) hold every
peer back while nobody answers.  So it stands aside for a while, and then tries again: nobody but
the kernel knows whether the reason has gone, and it is asked only by a director.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from revip.model.instants import SECOND, Instant, Span, later
from revip.planner.backoff import Backoff

REST = Span(10 * SECOND)
"""Before the first new attempt; doubles with each vain one."""
LONGEST_REST = Span(60 * SECOND)
"""Long beside the time that a vain attempt costs, short where no peer can take over."""
RESTS = Backoff(REST, LONGEST_REST, salt="grip")


@dataclass(frozen=True, slots=True)
class Grip:
    """How well this node holds one address."""

    patience: Span
    """How long a director may lack the address: `address_lifetime`, in milliseconds."""
    lacking_since: Instant | None = None
    aside_until: Instant = Instant(0)
    rests: Backoff = RESTS

    def seen(self, now: Instant, *, held: bool, lacking: bool) -> Grip:
        """Take in a look at the interface: both are false for who should not have the address."""
        rests = self.rests.succeeded() if held else self.rests
        since = (self.lacking_since or now) if lacking else None
        return replace(self, rests=rests, lacking_since=since)

    def at(self, now: Instant) -> Grip:
        """Let time pass: patience comes to an end, and so does a rest."""
        since = self.lacking_since
        if since is None or now < self.aside_until:
            return self
        # What was seen while it stood aside does not count: the address was being given away.
        if now - max(since, self.aside_until) <= self.patience:
            return self
        rests = self.rests.failed()
        return replace(self, rests=rests, aside_until=later(now, rests.delay))

    def objection(self, now: Instant) -> str | None:
        """Return why this node must not direct, None when it may."""
        if now >= self.aside_until:
            return None
        return "the address cannot be put on the interface of this node (see host.failed)"
