"""Messages for one receiver: a bounded queue, one attempt at a time, patience with a bound."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from revip.errors import NotWantedError, TransientError, unexpected
from revip.model.instants import MINUTE, SECOND, Span
from revip.model.notes import Kind, Level, Note
from revip.model.notify import Message
from revip.planner.backoff import Backoff
from revip.planner.measures import Deliveries
from revip.planner.telling import Seldom
from revip.ports import Clock, Messenger

LIMIT = 100
"""Messages that wait for a receiver; the oldest makes room for the newest."""
REMINDER = Span(10 * MINUTE)
"""How often it is said that a receiver still fails for the same reason."""
FIRST_REST = Span(SECOND // 2)
LONGEST_REST = Span(30 * SECOND)


class Outbox:
    """Delivers in order what `put` takes; nobody ever waits for it."""

    def __init__(
        self,
        name: str,
        messenger: Messenger,
        attempts: int,
        clock: Clock,
        note: Callable[[Note], None],
    ) -> None:
        """Try each message up to `attempts` times."""
        self.name = name
        self.counts = Deliveries()
        self._messenger = messenger
        self._attempts = attempts
        self._clock = clock
        self._waiting: deque[Message] = deque()
        self._news = asyncio.Event()
        self._seldom = Seldom(REMINDER)
        self._note = note
        self._failing = False
        self._under_way: tuple[Message, asyncio.Future[None]] | None = None

    def put(self, message: Message) -> None:
        """Have `message` delivered; never waits, never fails."""
        if len(self._waiting) >= LIMIT:
            self._waiting.popleft()
            self.counts.dropped["full"] += 1
        self._waiting.append(message)
        self.counts.waiting = len(self._waiting)
        self._news.set()

    async def run(self) -> None:
        """Deliver for ever."""
        while True:
            self._news.clear()
            await self._empty()
            await self._news.wait()

    async def finish(self, seconds: float) -> None:
        """Deliver what still waits, as far as that can be done in `seconds`; not beside `run`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._empty()
        if self._under_way is not None:
            self._under_way[1].cancel()
            await asyncio.wait({self._under_way[1]}, timeout=seconds)

    async def _empty(self) -> None:
        while self._waiting:
            message = self._waiting[0]
            await self._send(message)
            # It may have had to make room for others meanwhile.
            if self._waiting and self._waiting[0] is message:
                self._waiting.popleft()
            self.counts.waiting = len(self._waiting)

    async def _send(self, message: Message) -> None:
        backoff = Backoff(first=FIRST_REST, ceiling=LONGEST_REST, salt=self.name)
        for attempt in range(1, self._attempts + 1):
            try:
                await self._deliver(message)
            except NotWantedError as error:
                self._failed(f"{error}; not tried again")
                self.counts.dropped["refused"] += 1
                return
            except TransientError as error:
                self._failed(str(error))
            except Exception as error:  # noqa: BLE001 (a bug here must not stop later messages)
                self._failed(unexpected(error))
            else:
                self._delivered()
                return
            if attempt < self._attempts:
                backoff = backoff.failed()
                await asyncio.sleep(backoff.delay / 1000)
        self.counts.dropped["gave_up"] += 1

    async def _deliver(self, message: Message) -> None:
        """Make one attempt; it outlives the end of `run`, and `finish` waits for the same one.

        Else a program that is still at work would be started a second time beside itself.
        """
        if self._under_way is not None and self._under_way[0] is not message:
            await asyncio.wait({self._under_way[1]})  # its message made room for newer ones
            self._under_way = None
        if self._under_way is None:
            self._under_way = (message, asyncio.ensure_future(self._messenger.deliver(message)))
        attempt = self._under_way[1]
        try:
            await asyncio.shield(attempt)
        finally:
            if attempt.done():
                self._under_way = None

    def _delivered(self) -> None:
        self.counts.delivered += 1
        if self._failing:
            self._failing = False
            text = f"{self.name}: messages are delivered again"
            self._note(Note(self._clock.now(), Kind.NOTIFY, text))

    def _failed(self, reason: str) -> None:
        self.counts.failed += 1
        self._failing = True
        now = self._clock.now()
        if self._seldom.may(reason, now):
            self._note(Note(now, Kind.NOTIFY, f"{self.name}: {reason}", Level.WARNING))
