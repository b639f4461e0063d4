"""Counts what the history forgets: changes of verdict and of leadership since the start."""

from __future__ import annotations

from collections import Counter

from revip.model.notes import Event, Kind, Level


class Tally:
    """A follower of the history."""

    def __init__(self) -> None:
        self.transitions: Counter[tuple[str, str]] = Counter()
        """Changes of verdict, by virtual server and backend."""
        self.leadership: Counter[str] = Counter()
        """Beginnings and ends of directing, by virtual server."""

    def count(self, event: Event) -> None:
        """Take in one event."""
        note = event.note
        if note.kind is Kind.VERDICT:
            self.transitions[note.virtual_server, note.backend] += 1
        # At other levels the election tells what is odd, and nobody has won or lost.
        if note.kind is Kind.LEADERSHIP and note.level is Level.INFO:
            self.leadership[note.virtual_server] += 1

    def keep(self, backends: frozenset[tuple[str, str]]) -> None:
        """Forget the counts of other backends: their labels must not heap up."""
        for place in self.transitions.keys() - backends:
            del self.transitions[place]
        names = {server for server, _ in backends}
        for name in self.leadership.keys() - names:
            del self.leadership[name]
