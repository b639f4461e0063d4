"""How often to say the same thing: a log is read by people, and kept on a disk that can fill up."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum

from revip.model.instants import MINUTE, NEVER, Instant, Span

FIGHT_ROUNDS = 5
"""This many repairs within `FIGHT_WINDOW` are a fight: one vandal's slip is one or two."""
FIGHT_WINDOW = MINUTE


class Telling(Enum):
    """What to say about one more disturbance."""

    EACH = "say what happened"
    BEGUN = "say that it has become a fight"
    STILL = "say that the fight goes on"
    NOTHING = "keep silent: it was said"


@dataclass(slots=True)
class Quarrel:
    """Tells a slip from a fight, and how loud to be about either."""

    rounds: deque[Instant] = field(default_factory=lambda: deque(maxlen=FIGHT_ROUNDS))
    fighting: bool = False
    untold: int = 0
    """Disturbances since the last one that was said."""
    _told: Instant = NEVER

    def record(self, now: Instant) -> Telling:
        """Count one disturbance; return what to say about it.

        While a fight lasts that is one line in each `FIGHT_WINDOW`, however often it is repaired.
        """
        self.rounds.append(now)
        if not self.fighting:
            if not self._frequent(now):
                return Telling.EACH
            self.fighting, self.untold, self._told = True, 0, now
            return Telling.BEGUN
        self.untold += 1
        return Telling.STILL if now - self._told >= FIGHT_WINDOW else Telling.NOTHING

    def told(self, now: Instant) -> int:
        """Return how many went unsaid, and begin to count anew."""
        untold, self.untold, self._told = self.untold, 0, now
        return untold

    def calm(self, now: Instant) -> bool:
        """Return True once when a fight has been quiet for the whole window."""
        if self.fighting and now - self.rounds[-1] > FIGHT_WINDOW:
            self.fighting = False
            self.rounds.clear()
            return True
        return False

    def _frequent(self, now: Instant) -> bool:
        return len(self.rounds) == FIGHT_ROUNDS and now - self.rounds[0] <= FIGHT_WINDOW


@dataclass(slots=True)
class Seldom:
    """Says the same thing at most once in each `period`."""

    period: Span = MINUTE
    _said: dict[Hashable, Instant] = field(default_factory=dict)

    def may(self, what: Hashable, now: Instant) -> bool:
        """Return whether to say `what` now; True counts as said."""
        self._said = {key: at for key, at in self._said.items() if now - at < self.period}
        if what in self._said:
            return False
        self._said[what] = now
        return True
