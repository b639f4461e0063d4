"""Follows the sources that say which backends there are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from revip.model.discovery import BackendsRead, BackendsRefused
from revip.model.health import Backend
from revip.model.spec import Spec, VirtualServerSpec
from revip.ports import BackendSource


class Discovery:
    """One running source for each virtual server that has one."""

    def __init__(
        self,
        source: Callable[[VirtualServerSpec], BackendSource | None],
        read: Callable[[str, Sequence[Backend]], None],
        refused: Callable[[str, BackendsRefused], None],
        start: Callable[[str, Callable[[], Awaitable[None]]], asyncio.Task[None]],
    ) -> None:
        self._source = source
        self._read = read
        self._refused = refused
        self._start = start
        self._running: dict[str, tuple[VirtualServerSpec, asyncio.Task[None]]] = {}

    def follow(self, spec: Spec) -> None:
        """Start the source of new or changed virtual servers, end that of vanished ones."""
        wanted = {server.name: server for server in spec.virtual_servers}
        for name, (server, task) in list(self._running.items()):
            if wanted.get(name) != server:
                task.cancel()
                del self._running[name]
        for name, server in wanted.items():
            source = self._source(server) if name not in self._running else None
            if source is not None:
                task = self._start(f"discovery {name}", partial(self._feed, name, source))
                self._running[name] = (server, task)

    async def _feed(self, name: str, source: BackendSource) -> None:
        async for change in source.changes():
            match change:
                case BackendsRefused():
                    self._refused(name, change)
                case BackendsRead(backends):
                    self._read(name, tuple(backends))
