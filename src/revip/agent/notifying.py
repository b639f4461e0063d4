"""Decides which events go to which receiver; a follower of the history that never waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

from revip.agent.outbox import Outbox
from revip.model.instants import SECOND, Instant, Span
from revip.model.notes import Event, Kind, Note
from revip.model.notify import Filter, Message, Transition, VrrpState
from revip.planner.stories import Stories
from revip.ports import Clock

LOOK_SECONDS = 1.0
"""Between looks at the elections: not every change of theirs is an event."""

FAULT_AFTER = Span(3 * SECOND)
"""A keeper that is started anew takes part again before that."""

Standing = Mapping[str, tuple[VrrpState, int]]
"""What this node is for each elected virtual server, and its priority."""


class EventMessages:
    """Hands the events that pass a filter to one outbox."""

    def __init__(self, node: str, wanted: Filter, outbox: Outbox, past: Iterable[Event]) -> None:
        """Remember of `past` what has begun and not ended; it was told of in its time."""
        self._stories = Stories(node, wanted)
        self._outbox = outbox
        for event in past:
            self._stories.hear(event)

    def hear(self, event: Event) -> None:
        """Take in one event."""
        for message in self._stories.hear(event):
            self._outbox.put(message)


class CommandMessages:
    """Hands events to the outbox of a command, and changes of leadership as keepalived does.

    Of `vip.leadership` it tells changes of state alone, whatever their level, so that a script
    written for keepalived is never called in another way.
    """

    def __init__(
        self,
        node: str,
        wanted: Filter,
        outbox: Outbox,
        standing: Callable[[], Standing],
        clock: Clock,
    ) -> None:
        """Ask `standing` what this node is at present."""
        self._node = node
        self._stories = Stories(node, wanted)
        self._elections = not wanted.kinds or Kind.LEADERSHIP in wanted.kinds
        self._outbox = outbox
        self._standing = standing
        self._clock = clock
        self._told: dict[str, VrrpState] = {}
        self._ill_since: dict[str, Instant] = {}
        self._newest = 0

    def hear(self, event: Event) -> None:
        """Take in one event."""
        self._newest = event.number
        if event.note.kind is Kind.LEADERSHIP:
            self._look(event)
            return
        for message in self._stories.hear(event):
            self._outbox.put(message)

    async def run(self) -> None:
        """Look at the elections for ever."""
        while True:
            self._look(None)
            await asyncio.sleep(LOOK_SECONDS)

    def stop(self) -> None:
        """Tell that the elections of this node have ended with the agent."""
        if self._elections:
            for instance in self._told:
                priority = self._standing().get(instance, (VrrpState.STOP, 0))[1]
                self._tell(Transition(instance, VrrpState.STOP, priority), None)

    def _look(self, event: Event | None) -> None:
        if not self._elections:
            return
        standing = self._standing()
        for instance, (seen, priority) in standing.items():
            state = self._settled(instance, seen)
            if state is not None and self._told.get(instance) is not state:
                self._told[instance] = state
                about = event and event.note.virtual_server == instance
                self._tell(Transition(instance, state, priority), event if about else None)
        for instance in self._told.keys() - standing.keys():
            del self._told[instance]
            self._tell(Transition(instance, VrrpState.STOP, 0), None)

    def _settled(self, instance: str, seen: VrrpState) -> VrrpState | None:
        """Return what to tell; an election that begins, or begins anew, is no fault yet."""
        if seen is not VrrpState.FAULT:
            self._ill_since.pop(instance, None)
            return seen
        now = self._clock.now()
        if now - self._ill_since.setdefault(instance, now) >= FAULT_AFTER:
            return VrrpState.FAULT
        return VrrpState.BACKUP if instance in self._told else None

    def _tell(self, transition: Transition, event: Event | None) -> None:
        if event is None:
            text = f"this node is {transition.state.value} of {transition.instance}"
            note = Note(
                self._clock.now(), Kind.LEADERSHIP, text, virtual_server=transition.instance
            )
            event = Event(self._newest, datetime.now(UTC), note)
        self._outbox.put(Message(self._node, event, transition=transition))
