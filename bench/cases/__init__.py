"""What is measured.  A case takes the world and the effort, and returns rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.rows import Row
from bench.world import World


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured."""

    rounds: int = 20
    idle_starts: int = 4
    idle_seconds: float = 6.0
    """For each start."""
    rolling_rounds: int = 3
    """A round is some 3000 requests."""
    never_rounds: int = 2
    """Rounds in which something is waited for that never comes."""
    thorough: bool = True
    """Whether what takes long is done with every variant."""


QUICK = Effort(rounds=5, idle_starts=1, idle_seconds=8.0, never_rounds=1, thorough=False)

Case = Callable[[World, Effort], list[Row]]
