"""Alarms by name: each has one time, the newest that was set.

Waking an idle process costs more than what it then does: its caches are cold.  So an alarm also
says from when on it may ring, and those that may ring with one that must.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from revip.model.instants import NEVER, Instant

Name = TypeVar("Name")

FEW = 16
"""With more alarms than these something always rings, and looking at all of them costs more."""
SLACK = 64
"""Overtaken entries that may stay in the heap beside the valid ones."""


@dataclass(slots=True)
class Alarms(Generic[Name]):
    """A heap of times; what a later `set` has overtaken is passed over."""

    _times: dict[Name, Instant] = field(default_factory=dict)
    _ripe: dict[Name, Instant] = field(default_factory=dict)
    _heap: list[tuple[Instant, int, Name]] = field(default_factory=list)
    _count: int = 0

    def set(self, name: Name, at: Instant, ripe: Instant | None = None) -> None:
        """Ring for `name` at `at`, or in company from `ripe` on; `NEVER` takes the alarm away."""
        if at == NEVER:
            self._times.pop(name, None)
            self._ripe.pop(name, None)
            return
        self._ripe[name] = at if ripe is None else ripe
        if self._times.get(name) == at:
            return
        self._times[name] = at
        self._count += 1  # names need no order
        heapq.heappush(self._heap, (at, self._count, name))
        if len(self._heap) > SLACK + 2 * len(self._times):
            self._heap = [entry for entry in self._heap if self._times.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)

    def due(self, now: Instant) -> Iterator[Name]:
        """Yield and forget the names whose time has come."""
        while self.next() <= now:
            _, _, name = heapq.heappop(self._heap)
            del self._times[name], self._ripe[name]
            yield name

    def company(self, now: Instant) -> Iterator[Name]:
        """Yield and forget the names that may ring, since the process is awake."""
        if len(self._times) > FEW:
            return
        for name in [name for name, ripe in self._ripe.items() if ripe <= now]:
            del self._times[name], self._ripe[name]
            yield name

    def next(self) -> Instant:
        """Return the earliest time; `NEVER` when there is none."""
        while self._heap and self._times.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else NEVER

    def __len__(self) -> int:
        return len(self._heap)
