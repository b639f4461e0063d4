"""What discovery can say about the backends of one virtual server."""

from __future__ import annotations

from dataclasses import dataclass

from revip.errors import Problem
from revip.model.health import Backend


@dataclass(frozen=True, slots=True)
class BackendsRead:
    """The source is good; these are the backends now."""

    backends: tuple[Backend, ...]


@dataclass(frozen=True, slots=True)
class BackendsRefused:
    """The source is missing or wrong; the backends stay as they were."""

    problems: tuple[Problem, ...]
    missing: bool

    def __str__(self) -> str:
        return "; ".join(map(str, self.problems))


BackendsNews = BackendsRead | BackendsRefused
