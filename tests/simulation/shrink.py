"""Make a failing history small: drop faults from its schedule while it still fails alike.

Greedy delta debugging (Zeller's ddmin without its complements): ever smaller slices of what is
left are dropped, and stay dropped if the same guarantee is still broken without them.
"""

from __future__ import annotations

from tests.simulation import history
from tests.simulation.history import Outcome


def shrink(failed: Outcome, budget: int = 300) -> Outcome:
    """Return the smallest failing history found within so many runs."""
    _, _, drawn = history.schedule(failed.seed, failed.minutes)
    # What begins after the failure has no part in it.
    kept = failed.kept if failed.kept is not None else tuple(range(len(drawn)))
    best = failed
    size = max(1, len(kept) // 2)
    while size >= 1 and budget > 0:
        dropped = False
        at = 0
        while at < len(kept) and budget > 0:
            fewer = kept[:at] + kept[at + size :]
            outcome = history.run(failed.seed, failed.minutes, fewer)
            budget -= 1
            if outcome.guarantee == failed.guarantee:
                kept, best, dropped = fewer, outcome, True
            else:
                at += size
        if size > 1 or not dropped:
            size //= 2
    return best
