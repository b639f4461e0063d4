"""The API servers behind the virtual IP, and what a probe of one finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from revip.model.health import Finding, ProbeResult
from revip.model.instants import Span


class Mood(Enum):
    """How a server behaves."""

    UP = "up"
    SLOW = "slow"
    """Ready, but answers at any time within the timeout."""
    UNREADY = "not ready"
    REFUSING = "refusing"
    """The process is dead: its kernel ends what it had and refuses what is new."""
    HANGING = "hanging"
    """Nothing is said, not even a reset: the host is gone, or the process stopped."""


class Sight(Enum):
    """What a node's probes can truly find out about a server."""

    WELL = "well"
    UNREADY = "unready"
    DEAD = "dead"
    UNSURE = "unsure"
    """The way there is lossy, or this node has no descriptors: nothing is promised."""


SIGHTS = {
    Mood.UP: Sight.WELL,
    Mood.SLOW: Sight.WELL,
    Mood.UNREADY: Sight.UNREADY,
    Mood.REFUSING: Sight.DEAD,
    Mood.HANGING: Sight.DEAD,
}


@dataclass
class Server:
    """One API server; the newest fault that has not ended decides its mood."""

    number: int
    moods: list[Mood] = field(default_factory=list)
    running: bool = True
    """Its host is."""
    graceful: bool = True

    @property
    def mood(self) -> Mood:
        if not self.running:
            return Mood.HANGING
        return self.moods[-1] if self.moods else Mood.UP


@dataclass(eq=False)
class Probe:
    """One question under way."""

    node: int
    server: int
    fresh: bool
    began: int
    """In world time."""
    done: Callable[[Probe, ProbeResult], None]
    over: bool = False

    def end(self, finding: Finding, reason: str, held: bool = False) -> None:
        if not self.over:
            self.over = True
            self.done(self, ProbeResult(finding, reason, Span(0), "", held))
