"""Tells the service manager when the agent is up, how it is, and that its loop still turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from revip.model.instants import SECOND, Span
from revip.ports import ServiceManager

LOOK = Span(SECOND // 10)
"""Between looks at whether the agent is up."""
REFRESH = Span(5 * SECOND)
"""Between looks at what the status line should be."""


@dataclass(frozen=True, slots=True)
class Report:
    """How the agent is at one moment."""

    up: bool
    """The kernel's table was compared, or the kernel has refused that and was told of."""
    alive: bool
    """Nothing is stuck that a restart would mend."""
    status: str
    """One line for people."""


class Reporting:
    """Reports to one manager; `report` is asked for each report, and may be costly."""

    def __init__(self, manager: ServiceManager, report: Callable[[], Report]) -> None:
        self._manager = manager
        self._report = report
        self._up = False
        self._told = ""

    async def run(self) -> None:
        """Report for ever.

        The watchdog is fed from here, the loop that everything else runs in: one that is stuck
        feeds nobody, and the manager starts the agent anew.
        """
        watchdog = self._manager.watchdog
        period = REFRESH if watchdog is None else min(REFRESH, watchdog // 2)
        while True:
            up = self._look()
            await asyncio.sleep((period if up else min(LOOK, period)) / 1000)

    def reloading(self) -> None:
        """Tell that the configuration is read again; `reloaded` must follow."""
        if self._up:
            self._manager.reloading()

    def reloaded(self) -> None:
        """Tell that it is read, whatever came of it."""
        if self._up:
            self._told = self._report().status
            self._manager.ready(self._told)

    def stopping(self) -> None:
        """Tell that the agent ends."""
        self._manager.stopping()

    def _look(self) -> bool:
        report = self._report()
        if report.alive and self._manager.watchdog is not None:
            self._manager.alive()
        if report.up and not self._up:
            self._up, self._told = True, report.status
            self._manager.ready(report.status)
        elif report.status != self._told:
            self._told = report.status
            self._manager.status(report.status)
        return self._up
