"""What the kernel knows of this process, and how late its event loop is."""

from __future__ import annotations

import asyncio
import os
import resource
from collections import deque
from dataclasses import dataclass
from pathlib import Path

LOOK_SECONDS = 1.0
"""Between measurements of the loop's lag."""
KEPT = 60
"""Measurements that the worst is taken of."""


@dataclass(frozen=True, slots=True)
class Process:
    """One look at /proc/self (proc(5)); seconds and bytes."""

    cpu_seconds: float
    resident: int
    virtual: int
    threads: int
    open_files: int
    files_max: float
    started: float
    """Seconds since the epoch."""


def process() -> Process:
    """Read it; raises `OSError` where there is no /proc."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    tick = os.sysconf("SC_CLK_TCK")
    boot = next(
        int(line.split()[1])
        for line in Path("/proc/stat").read_text().splitlines()
        if line.startswith("btime ")
    )
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Field n of the manual is fields[n - 3]: pid and name are before the last parenthesis.
    return Process(
        cpu_seconds=(int(fields[11]) + int(fields[12])) / tick,
        resident=int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
        virtual=int(fields[20]),
        threads=int(fields[17]),
        open_files=len(os.listdir("/proc/self/fd")) - 1,  # noqa: PTH208 (one call; less itself)
        files_max=float("inf") if limit == resource.RLIM_INFINITY else limit,
        started=boot + int(fields[19]) / tick,
    )


class LoopLag:
    """How late the loop calls what is due: the first sign of a starved agent."""

    def __init__(self) -> None:
        self._lags: deque[float] = deque(maxlen=KEPT)

    @property
    def last(self) -> float:
        """The newest measurement, in seconds."""
        return self._lags[-1] if self._lags else 0.0

    @property
    def worst(self) -> float:
        """The largest of the last minute, in seconds."""
        return max(self._lags, default=0.0)

    async def run(self) -> None:
        """Measure for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            self._lags.append(max(0.0, loop.time() - due))
