"""Growing delays with a ceiling, as a value: nobody sleeps here and nobody throws dice.

The spread that keeps nodes out of step is a stable hash of who asks and how often, so that a run
can be repeated to the millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from zlib import crc32

from revip.model.instants import Span

_STEEPEST = 32
"""Doublings after which no delay in milliseconds is short of any sane ceiling."""


def spread(span: Span, percent: int, salt: str, count: int) -> Span:
    """Return 0 to `percent` percent of `span`: the same for the same `salt` and `count`."""
    widest = span * percent // 100
    return Span(crc32(f"{salt}#{count}".encode()) % (widest + 1))


def doubled(span: Span, times: int, ceiling: Span) -> Span:
    """Return `span` doubled `times` times (0 or more), at most `ceiling`."""
    return Span(min(span << min(times, _STEEPEST), ceiling))


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait after so many failures in a row; all spans in milliseconds."""

    first: Span = Span(100)
    """Before the first repetition; doubles with each further failure."""
    ceiling: Span = Span(5_000)
    """No delay is longer."""
    salt: str = ""
    """Who waits: tells apart the spread of those that share a cause."""
    jitter_percent: int = 10
    """Each delay is shortened by 0 to this many percent, so that the ceiling stays one."""
    failures: int = 0
    """In a row, up to now."""

    def failed(self) -> Backoff:
        """Return the value after one more failure."""
        return replace(self, failures=self.failures + 1)

    def succeeded(self) -> Backoff:
        """Return the value after a success: the next failure starts from `first` again."""
        return replace(self, failures=0)

    @property
    def delay(self) -> Span:
        """How long to wait before the next attempt; 0 when the last one did not fail."""
        if not self.failures:
            return Span(0)
        full = doubled(self.first, self.failures - 1, self.ceiling)
        return Span(full - spread(full, self.jitter_percent, self.salt, self.failures))
