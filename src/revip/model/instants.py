"""Time as the core knows it: whole milliseconds of CLOCK_BOOTTIME, passed in, never read here."""

from __future__ import annotations

from typing import NewType

Instant = NewType("Instant", int)
"""A point in time: milliseconds since boot, suspended time included (clock_gettime(2))."""

Span = NewType("Span", int)
"""A length of time in milliseconds."""

SECOND = Span(1000)
MINUTE = Span(60_000)

NEVER = Instant(2**63 - 1)
"""Later than every instant that a machine lives to see."""


def later(instant: Instant, span: Span) -> Instant:
    """Return the instant `span` milliseconds after `instant`; `NEVER` stays `NEVER`."""
    return NEVER if instant == NEVER else Instant(instant + span)
