"""The held connection of one backend: at most one, idle, watched."""

from __future__ import annotations

from collections.abc import Callable

from revip.adapters.probes.connection import Connection
from revip.model.instants import MINUTE, SECOND, Instant, Span, later
from revip.ports import Clock

SHORT_LIFE = SECOND
"""A held connection that ends younger than this may belong to a server that holds none."""
FUTILE_LOSSES = 3
"""That many short lives in a row, each followed by a good probe, and holding is pointless."""
REST = Span(MINUTE)
"""How long holding is then left alone.

Each loss makes the caller ask again at once, so a server that closes every connection by itself
would otherwise be asked hundreds of times a second.
"""


class HeldConnection:
    """Keeps the newest good connection and calls `lost(reason)` when it ends by itself."""

    def __init__(self, clock: Clock, lost: Callable[[str], None]) -> None:
        self._clock = clock
        self._lost = lost
        self._connection: Connection | None = None
        self._opened = Instant(0)
        self._closed = False
        self._short_loss = False
        self._futile = 0
        self._rest_until = Instant(0)

    def take(self) -> Connection | None:
        """Take the connection out for use; None when there is none."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()
        return connection

    def succeeded(self, connection: Connection, *, keep: bool, opened: Instant | None) -> None:
        """After a good probe: hold `connection` if `keep`, else close it.

        `opened` is when a new connection was opened, None for one that was taken from here.
        """
        self._count_futile_loss()
        now = self._clock.now()
        if self._closed or not keep or now < self._rest_until or not connection.hold(self._ended):
            connection.abort()
            return
        if self._connection is not None:
            self._connection.abort()
        self._connection = connection
        if opened is not None:
            self._opened = opened

    def failed(self) -> None:
        """After a bad probe: the loss before it, if any, told something."""
        self._short_loss = False
        self._futile = 0

    def close(self) -> None:
        """Close the connection, and hold no other from now on."""
        self._closed = True
        connection = self.take()
        if connection is not None:
            connection.abort()

    def _ended(self, reason: str) -> None:
        self._connection = None
        self._short_loss = self._clock.now() < later(self._opened, SHORT_LIFE)
        if not self._short_loss:
            self._futile = 0
        self._lost(reason)

    def _count_futile_loss(self) -> None:
        if self._short_loss:
            self._short_loss = False
            self._futile += 1
            if self._futile >= FUTILE_LOSSES:
                self._futile = 0
                self._rest_until = later(self._clock.now(), REST)
