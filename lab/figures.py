"""Samples of measured times and what is told of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict


class Figure(TypedDict):
    """Summary of one named time, in milliseconds."""

    p50: float
    p99: float
    n: int


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile: the smallest sample that `percent` % do not exceed.

    It is always a value that was measured.  With fewer than 100 samples the 99th is the worst.
    Raises ValueError when there are no samples or `percent` is not in (0, 100].
    """
    if not samples:
        raise ValueError("no samples")
    if not 0 < percent <= 100:
        raise ValueError(f"{percent} is not a percentage above 0")
    return sorted(samples)[math.ceil(percent / 100 * len(samples)) - 1]


def summary(samples: Iterable[float]) -> Figure:
    """Return the figure of `samples`, to a tenth of a millisecond."""
    known = list(samples)
    return Figure(
        p50=round(percentile(known, 50), 1), p99=round(percentile(known, 99), 1), n=len(known)
    )


class Samples:
    """Samples by name, in the order in which the names first came."""

    def __init__(self) -> None:
        self._known: dict[str, list[float]] = {}

    def add(self, name: str, milliseconds: float) -> None:
        """Take in one sample."""
        self._known.setdefault(name, []).append(milliseconds)

    def merge(self, other: Samples) -> None:
        """Take in all samples of `other`."""
        for name, values in other._known.items():
            self._known.setdefault(name, []).extend(values)

    def figures(self) -> Mapping[str, Figure]:
        """Return the figure of each name."""
        return {name: summary(values) for name, values in self._known.items()}
