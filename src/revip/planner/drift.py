"""Differences that others made: telling them from our own changes, and noticing a fight."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from revip.model.instants import Instant
from revip.model.ipvs import (
    AddDestination,
    AddServer,
    Change,
    DeleteDestination,
    DeleteServer,
    SetDestination,
    SetServer,
)
from revip.model.notes import Kind, Level, Note
from revip.planner.diff import describe
from revip.planner.telling import Quarrel, Telling


def kind_of(repair: Change) -> str:
    """Name what somebody did to the table by what undoes it; a metric label, so a small set."""
    match repair:
        case AddServer():
            return "server-deleted"
        case SetServer():
            return "server-changed"
        case DeleteServer():
            return "server-added"
        case AddDestination():
            return "destination-deleted"
        case SetDestination():
            return "destination-changed"
        case DeleteDestination():
            return "destination-added"


@dataclass(slots=True)
class DriftLog:
    """How often the table was disturbed, by kind, and whether somebody keeps doing it."""

    by_kind: Counter[str] = field(default_factory=Counter)
    quarrel: Quarrel = field(default_factory=Quarrel)

    @property
    def fighting(self) -> bool:
        """Whether somebody keeps disturbing the table."""
        return self.quarrel.fighting

    def notes(self, repairs: tuple[Change, ...], now: Instant) -> list[Note]:
        """Count one disturbance, none when `repairs` is empty; return what to say about it."""
        notes: list[Note] = []
        if self.quarrel.calm(now):
            notes.append(Note(now, Kind.FIGHT, "nobody has disturbed the table for a while"))
        if not repairs:
            return notes
        self.by_kind.update(kind_of(repair) for repair in repairs)
        undo = sentence(repairs)
        telling = self.quarrel.record(now)
        if telling in (Telling.EACH, Telling.BEGUN):
            text = f"the table was changed by somebody else; to undo: {undo}"
            notes.append(Note(now, Kind.DRIFT, text, Level.WARNING))
        if telling is Telling.BEGUN:
            text = "somebody keeps changing our virtual servers: repairing faster, and every time"
            notes.append(Note(now, Kind.FIGHT, text, Level.ERROR))
        if telling is Telling.STILL:
            times = self.quarrel.told(now)
            text = f"still fighting: changed {times} more times by somebody else; last: {undo}"
            notes.append(Note(now, Kind.FIGHT, text, Level.WARNING))
        return notes


def sentence(changes: tuple[Change, ...], most: int = 6) -> str:
    """Say what `changes` do, at most `most` of them by name."""
    shown = "; ".join(map(describe, changes[:most]))
    return shown if len(changes) <= most else f"{shown}; and {len(changes) - most} more"
