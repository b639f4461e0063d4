"""The newest notes, numbered: what `revip events`, the page and the timeline are read from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from revip.model.notes import Event, Note

HISTORY = 1000
"""Events kept; a few hours of an ill cluster, months of a well one."""


class History:
    """A bounded ring of events that others may follow."""

    def __init__(self, restored: Iterable[Event] = ()) -> None:
        """Go on after `restored`, what an earlier agent has left."""
        self.events: deque[Event] = deque(restored, maxlen=HISTORY)
        self.followers: list[Callable[[Event], None]] = []
        """Told of each event at once; must neither wait nor fail."""
        # Without an earlier one the numbers begin at a time, so that they never go back: whoever
        # had heard number 7 of a lost history must not wait for an 8.
        began = int(datetime.now(UTC).timestamp() * 1000)
        self.newest = self.events[-1].number if self.events else began
        self.restored = self.newest
        """What is after this number happened to this very agent."""

    def add(self, time: datetime, note: Note) -> None:
        """Append a note."""
        self.newest += 1
        event = Event(self.newest, time, note)
        self.events.append(event)
        for follower in self.followers:
            follower(event)

    def after(self, number: int, most: int = HISTORY) -> list[Event]:
        """Return the events that came after `number`, at most the newest `most` of them.

        A number that was never given is of another history: all is news to who asks.
        """
        if number > self.newest:
            number = 0
        return [event for event in self.events if event.number > number][-most:]

    def since(self, time: datetime, most: int = HISTORY) -> list[Event]:
        """Return the events not older than `time`, at most the newest `most` of them."""
        return [event for event in self.events if event.time >= time][-most:]
