"""What the benchmark yields: rows of cells, with who wins and whether a bound is met."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.figures import percentile

EVEN = 0.05
"""Medians that differ by less than this share are called even."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What one subject did in one row, over all rounds."""

    samples: tuple[float, ...] = ()
    late: int = 0
    """Rounds in which it did not come within `limit` seconds; they count as worse than any."""
    limit: float = 0.0

    @property
    def n(self) -> int:
        """Rounds."""
        return len(self.samples) + self.late

    def at(self, percent: float) -> float:
        """Return the nearest-rank percentile; infinite when that round was late."""
        return percentile([*self.samples, *([float("inf")] * self.late)], percent)

    def __str__(self) -> str:
        if not self.samples:
            return f"not within {self.limit:g} s" if self.late else "-"
        median, worst = self.at(50), self.at(99)
        if self.n == 1:
            return _number(median)
        last = f"not within {self.limit:g} s" if self.late else _number(worst)
        return f"{_number(median)} / {last}"


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that a subject may take to meet its aim."""

    subject: str
    p50: float | None = None
    p99: float | None = None
    times: tuple[float, str] | None = None
    """At most this many times the median of that other subject."""

    def met(self, cells: Mapping[str, Cell]) -> bool | None:
        """Return whether `cells` keep it; None when its subject was not measured."""
        cell = cells.get(self.subject)
        if cell is None or not cell.n:
            return None
        fine = (self.p50 is None or cell.at(50) <= self.p50) and (
            self.p99 is None or cell.at(99) <= self.p99
        )
        if self.times is not None and self.times[1] in cells:
            fine = fine and cell.at(50) <= self.times[0] * cells[self.times[1]].at(50)
        return fine

    def __str__(self) -> str:
        parts = []
        if self.p50 is not None:
            parts.append(f"p50 ≤ {self.p50:g}")
        if self.p99 is not None:
            parts.append(f"p99 ≤ {self.p99:g}")
        if self.times is not None:
            parts.append(f"≤ {self.times[0]:g} × {self.times[1]}")
        return f"{self.subject}: {', '.join(parts)}"


@dataclass(frozen=True, slots=True)
class Row:
    """One thing measured, of every subject that can do it; less is better."""

    what: str
    unit: str
    cells: Mapping[str, Cell]
    bounds: tuple[Bound, ...] = ()
    note: str = ""
    contest: bool = True
    """False where the subjects do not compete: shares of one figure, or figures about the lab."""

    @property
    def winner(self) -> str:
        """The subject with the least median; `even`, or empty when there is nobody to beat.

        Two settings of the same program that are even do not make it a draw.
        """
        able = sorted((c.at(50), name) for name, c in self.cells.items() if c.n)
        if not self.contest or len(able) < 2 or able[0][0] == float("inf"):
            return ""
        best, winner = able[0]
        program = winner.split()[0]
        others = [median for median, name in able if name.split()[0] != program] or [able[1][0]]
        return "even" if best >= (1 - EVEN) * others[0] else winner

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document; `from_json` reads it back."""
        return {
            "what": self.what,
            "unit": self.unit,
            "note": self.note,
            "contest": self.contest,
            "winner": self.winner,
            "bounds": [_bound_json(bound, self.cells) for bound in self.bounds],
            "cells": {name: _cell_json(cell) for name, cell in self.cells.items()},
        }


def from_json(document: Mapping[str, Any]) -> Row:
    """Return the row that `to_json` wrote."""
    return Row(
        what=document["what"],
        unit=document["unit"],
        note=document["note"],
        contest=document["contest"],
        bounds=tuple(
            Bound(b["subject"], b["p50"], b["p99"], tuple(b["times"]) if b["times"] else None)
            for b in document["bounds"]
        ),
        cells={
            name: Cell(tuple(c["samples"]), c["late"], c["limit"])
            for name, c in document["cells"].items()
        },
    )


@dataclass(slots=True)
class Sheet:
    """Collects samples until they are a row."""

    what: str
    unit: str = "ms"
    bounds: tuple[Bound, ...] = ()
    note: str = ""
    limit: float = 10.0
    contest: bool = True
    samples: dict[str, list[float | None]] = field(default_factory=dict)

    def add(self, subject: str, value: float | None) -> None:
        """Take in one round's value; None when it did not come within `limit`."""
        self.samples.setdefault(subject, []).append(value)

    def row(self) -> Row:
        """Return what was collected."""
        cells = {
            name: Cell(
                tuple(value for value in values if value is not None),
                sum(value is None for value in values),
                self.limit,
            )
            for name, values in self.samples.items()
        }
        return Row(self.what, self.unit, cells, self.bounds, self.note, self.contest)


def _bound_json(bound: Bound, cells: Mapping[str, Cell]) -> dict[str, Any]:
    return {
        "subject": bound.subject,
        "p50": bound.p50,
        "p99": bound.p99,
        "times": bound.times,
        "met": bound.met(cells),
    }


def _cell_json(cell: Cell) -> dict[str, Any]:
    known = bool(cell.samples)
    return {
        "p50": cell.at(50) if known and cell.at(50) != float("inf") else None,
        "p99": cell.at(99) if known and not cell.late else None,
        "n": cell.n,
        "late": cell.late,
        "limit": cell.limit,
        "samples": [round(sample, 4) for sample in cell.samples],
    }


def _number(value: float) -> str:
    """Return three digits that mean something."""
    if value == float("inf"):
        return "never"
    if value >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
