"""Watches a backends file: replaced, missing for a while, or caught in the middle of a write.

The file's stat is polled each second; there is no inotify(7), which says nothing on network file
systems and loses its watch when a parent directory is replaced (as Kubernetes does with a
ConfigMap).  Only a good file is news about backends; everything else is news about the file, and
whoever listens keeps the set that it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from revip.config import parse_backends
from revip.config.files import read_file
from revip.errors import ConfigError
from revip.model.discovery import BackendsNews, BackendsRead, BackendsRefused
from revip.model.spec import VirtualServerSpec

PERIOD = 1.0
"""Seconds between two looks."""
SETTLED = 0.1
"""Seconds without a change after which a file counts as written."""
PATIENCE = 20
"""Waits for a file to settle, after which it is read as it is."""

Wait = Callable[[asyncio.Event, float], Awaitable[None]]
"""Return when the event is set or so many seconds have passed."""
Stamp = tuple[int, int, int, int, int]
"""Device, inode, size, times of modification and of status change in nanoseconds (stat(2))."""


async def wait(event: asyncio.Event, seconds: float) -> None:
    """Return when `event` is set or `seconds` have passed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class BackendsFile:
    """The backends file of one virtual server.

    `waiting` and `wall_clock` (nanoseconds, as file times are) are for tests.
    """

    def __init__(
        self,
        path: Path,
        virtual_server: VirtualServerSpec,
        waiting: Wait = wait,
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._path = path
        self._virtual_server = virtual_server
        self._wait = waiting
        self._wall_clock = wall_clock
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Look at once and tell what is there, changed or not (SIGHUP)."""
        self._asked.set()

    def read(self) -> BackendsNews:
        """Return what the file says now; never raises for what the file is."""
        try:
            text = read_file(self._path)
            backends = parse_backends(text, str(self._path), self._virtual_server)
        except ConfigError as error:
            return BackendsRefused(error.problems, _stamp(self._path) is None)
        return BackendsRead(backends)

    async def changes(self) -> AsyncIterator[BackendsNews]:
        """Yield what the file says: now, after each change, and after each `ask`."""
        seen = await self._settled()
        yield self.read()
        while True:
            await self._wait(self._asked, PERIOD)
            asked = self._asked.is_set()
            self._asked.clear()
            if not asked and _stamp(self._path) == seen:
                continue
            # The stamp is taken before reading: a write in between is another change.
            seen = await self._settled()
            yield self.read()

    async def _settled(self) -> Stamp | None:
        """Return the file's stamp once nobody has written to it for a moment.

        A younger file may still be growing, and its time could stay the same over the next
        write, as file systems count time in ticks.
        """
        stamp = _stamp(self._path)
        never = asyncio.Event()
        for _ in range(PATIENCE):
            if stamp is None or self._wall_clock() - stamp[3] >= SETTLED * 1e9:
                break
            await self._wait(never, SETTLED)
            before, stamp = stamp, _stamp(self._path)
            if stamp == before:
                break
        return stamp


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
