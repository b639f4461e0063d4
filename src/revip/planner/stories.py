"""Which events go on with or end earlier ones: what was told of has an end to tell, too."""

from __future__ import annotations

from revip.model.notes import Event, Kind, Level
from revip.model.notify import Filter, Message

_ENDED_BY_ITSELF = frozenset({Kind.VERDICT, Kind.MODE, Kind.FIGHT, Kind.CONFLICT})
"""At `info` these say that it is over."""
_ENDS = {
    Kind.KERNEL_BACK: Kind.KERNEL_FAILED,
    Kind.HOST_BACK: Kind.HOST_FAILED,
    Kind.DISCOVERY: Kind.DISCOVERY_FAILED,
    Kind.CONFIG: Kind.CONFIG_REFUSED,
    **{kind: kind for kind in _ENDED_BY_ITSELF},
}
_LASTING = frozenset(_ENDS.values())
_LOUDNESS = {level: rank for rank, level in enumerate(Level)}
_OPEN_MAX = 1000
"""Stories that are remembered; the configuration names far fewer backends."""

Subject = tuple[Kind, str, str]


class Stories:
    """Turns the events that pass a filter into messages."""

    def __init__(self, node: str, wanted: Filter) -> None:
        self._node = node
        self._wanted = wanted
        self._open: dict[Subject, Event] = {}

    def hear(self, event: Event) -> list[Message]:
        """Take in one event; return what is to be told of it."""
        note = event.note
        if note.level is Level.INFO and note.kind in _ENDS:
            ended = self._close(_ENDS[note.kind], note.virtual_server, note.backend)
            if ended:
                return [Message(self._node, event, began, ends=True) for began in ended]
        if not self._passes(event):
            return []
        if note.level is Level.INFO or note.kind not in _LASTING:
            return [Message(self._node, event)]
        subject = (note.kind, note.virtual_server, note.backend)
        began = self._open.pop(subject, None)
        if began is None or began.note.level is not note.level:
            self._open[subject] = event
        else:
            self._open[subject] = began
        if len(self._open) > _OPEN_MAX:
            del self._open[next(iter(self._open))]
        return [Message(self._node, event, began, lasts=True)]

    def _passes(self, event: Event) -> bool:
        note, wanted = event.note, self._wanted
        if note.kind is Kind.NOTIFY:
            return False  # a message that says that no message arrives would breed for ever
        loud = _LOUDNESS[note.level] >= _LOUDNESS[wanted.level]
        return loud and (not wanted.kinds or note.kind in wanted.kinds)

    def _close(self, kind: Kind, server: str, backend: str) -> list[Event]:
        """End the stories of one subject; an end that names none is that of all of its kind."""
        over = [
            subject
            for subject in self._open
            if subject[0] is kind and server in ("", subject[1]) and backend in ("", subject[2])
        ]
        return [self._open.pop(subject) for subject in over]
