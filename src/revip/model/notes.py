"""What changed, as values: one vocabulary for the log, the history and `revip events`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from revip.model.instants import Instant


class Level(Enum):
    """How loud a note is."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Kind(Enum):
    """What a note is about; the names are an interface that logs are searched by."""

    VERDICT = "backend.verdict"
    MODE = "pool.mode"
    COMMON_CAUSE = "pool.common_cause"
    TABLE = "table.changed"
    ADOPTED = "table.adopted"
    DRIFT = "table.drift"
    FIGHT = "table.fight"
    KERNEL_FAILED = "kernel.failed"
    KERNEL_BACK = "kernel.back"
    HOST = "host.changed"
    HOST_DRIFT = "host.drift"
    HOST_FAILED = "host.failed"
    HOST_BACK = "host.back"
    ANNOUNCED = "vip.announced"
    ANNOUNCE_FAILED = "vip.announce_failed"
    CONFLICT = "vip.conflict"
    UNWATCHED = "vip.unwatched"
    LEADERSHIP = "vip.leadership"
    DISCOVERY = "discovery.changed"
    DISCOVERY_FAILED = "discovery.failed"
    CONFIG = "config.changed"
    CONFIG_REFUSED = "config.refused"
    OPERATOR = "operator"
    AGENT = "agent"
    FAULT = "agent.fault"
    HISTORY = "agent.history"
    ACCESS = "http.refused"
    NOTIFY = "notify.failed"


@dataclass(frozen=True, slots=True)
class Note:
    """One change of state: what and why, in one sentence."""

    at: Instant
    kind: Kind
    text: str
    level: Level = Level.INFO
    virtual_server: str = ""
    backend: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """A note with its place in the history."""

    number: int
    """Grows by one with each note; goes on over a restart."""
    time: datetime
    """UTC."""
    note: Note

    def as_json(self) -> dict[str, str | int]:
        """Return it as `revip events --json`, the status and the HTTP endpoint show it."""
        note = self.note
        return {
            "id": self.number,
            "time": self.time.isoformat(timespec="milliseconds"),
            "event": note.kind.value,
            "level": note.level.value,
            "virtual_server": note.virtual_server,
            "backend": note.backend,
            "text": note.text,
        }
