"""Events and messages for tests of notifications."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from revip.model.instants import Instant
from revip.model.notes import Event, Kind, Level, Note
from revip.model.notify import Message, Transition, VrrpState

NOON = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)


def event(
    kind: Kind = Kind.VERDICT,
    level: Level = Level.WARNING,
    text: str = "n2 is unhealthy: connection refused",
    server: str = "api",
    backend: str = "n2",
    number: int = 1,
) -> Event:
    note = Note(Instant(number * 1000), kind, text, level, server, backend)
    return Event(number, NOON + timedelta(seconds=number), note)


def message(text: str = "n2 is unhealthy: connection refused", number: int = 1) -> Message:
    return Message("n1", event(text=text, number=number), lasts=True)


def transition(state: VrrpState = VrrpState.MASTER) -> Message:
    change = Transition("api", state, 150)
    return Message(
        "n1", event(Kind.LEADERSHIP, Level.INFO, "directs", backend=""), transition=change
    )
