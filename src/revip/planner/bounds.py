"""What the configuration promises: how late a death is answered and a recovery honored.

Both bounds are derived from the rules of `revip.planner.health`, for every history of faults
before, and are what the property tests, `revip check` and the documentation quote.  They hold
while our own side works: a probe that fails by a fault of ours says nothing about the backend.

Terms, in milliseconds: `interval` and `fast_interval` are taken with their widest jitter;
`reconcile` is the period at which desired and observed table are compared when no event asks for
it earlier, taken at its latest (`comparison_bound`), `backoff` the longest delay before a failed
kernel write is tried again.
"""

from __future__ import annotations

from revip.model.health import HealthTiming
from revip.model.instants import Span

COMPANY = 10
"""A comparison waits for one part in so many of its period for a probe to be made with it."""


def removal_bound(timing: HealthTiming, *, reconcile: Span, backoff: Span) -> Span:
    """Return D: a backend that is dead from t on is out of the table by t + D (L2).

    In the worst case a probe was under way at t and still ends well, after `timeout`; the next
    begins `interval` later; then `fall` probes, each hanging for `timeout`, are needed, the
    later ones `fast_interval` (or, refused, `confirm_interval`) after the one before.  A crash
    is told by the held connection and is out far earlier; this bound is for what tells nothing.
    """
    doubt = max(_widest(timing, timing.fast_interval), timing.confirm_interval)
    first = timing.timeout + _widest(timing, timing.interval) + timing.timeout
    further = (timing.fall - 1) * (doubt + timing.timeout)
    return Span(first + further + comparison_bound(reconcile) + backoff)


def return_bound(
    timing: HealthTiming, *, reconcile: Span, backoff: Span, damped: bool = True
) -> Span:
    """Return B: a backend that is healthy from t on has its weight in the table by t + B (L1).

    In the worst case a probe was under way at t and still ends badly, after `timeout`; the next
    begins `interval` later and ends well within `timeout`.  From that first good result on,
    `rise - 1` more are needed, each `fast_interval + timeout` after the one before; a damped
    backend is held for at most `damping_hold_max` from the same result on, and returns with the
    first good result after it, another `fast_interval + timeout` later.  The two run side by
    side, so the longer one counts.  `damped=False` is for a backend that has not flapped.
    """
    step = _widest(timing, timing.fast_interval) + timing.timeout
    first = timing.timeout + _widest(timing, timing.interval) + timing.timeout
    further = (timing.rise - 1) * step
    if damped and timing.damping_hold:
        further = max(further, timing.damping_hold_max + step)
    return Span(first + further + comparison_bound(reconcile) + backoff)


def comparison_bound(reconcile: Span) -> Span:
    """Return how long it is at most from one comparison to the next (L3)."""
    return Span(reconcile + reconcile // COMPANY)


def _widest(timing: HealthTiming, span: Span) -> int:
    return max(1, span + span * timing.jitter_percent // 100)
