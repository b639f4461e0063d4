"""Tells the neighbors where the VIPs are: fed with what is held, it keeps to its schedule."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from revip.errors import KernelError
from revip.model.host import LinkAddress
from revip.model.instants import NEVER, Instant, Span
from revip.model.notes import Kind, Level, Note
from revip.planner.announce import Announcements, failed, kept, next_wakeup, step
from revip.ports import Announcer, Clock

FRESH = Span(500)
"""Nothing is sent on older knowledge of what is held: a frozen agent looks before it speaks."""


class Announcing:
    """Announces each address that is held, from when it comes until it goes.

    `look` asks for a fresh `hold` soon; `may` is asked at the last moment.
    """

    def __init__(
        self,
        announcer: Announcer,
        look: Callable[[], None],
        clock: Clock,
        note: Callable[[Note], None],
        may: Callable[[LinkAddress], bool] = lambda _: True,
    ) -> None:
        self._announcer = announcer
        self._look = look
        self._clock = clock
        self._note = note
        self._may = may
        self._state = Announcements()
        self._told_at: Instant | None = None
        self._news = asyncio.Event()
        self._failures: dict[LinkAddress, str] = {}
        self._known: frozenset[LinkAddress] = frozenset()
        self.held: frozenset[LinkAddress] = frozenset()
        """Addresses that are on a real interface of this node now, and should be."""
        self.sent = 0
        """Announcements since the start; one is two frames for IPv4."""
        self.failed = 0

    @property
    def failure(self) -> str | None:
        """Why the last attempt for some address failed, None when none did."""
        return next(iter(self._failures.values()), None)

    def hold(self, held: frozenset[LinkAddress]) -> None:
        """Learn what is held at this moment; what is not is forgotten at once."""
        self.held = held
        self._told_at = self._clock.now()
        self._state = kept(self._state, held)
        self._failures = {place: why for place, why in self._failures.items() if place in held}
        self._known &= held
        self._news.set()

    def again(self, place: LinkAddress) -> None:
        """Begin the burst of `place` anew: somebody else has claimed it meanwhile."""
        self._state = kept(self._state, self.held - {place})
        self._news.set()

    async def run(self) -> None:
        """Announce what is due, for ever."""
        while True:
            await self._refreshed()
            self._news.clear()
            self._announce()
            at, now = next_wakeup(self._state), self._clock.now()
            try:
                async with asyncio.timeout(None if at == NEVER else max(0, at - now) / 1000):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _refreshed(self) -> None:
        """Return when what is held is known as of now."""
        while self._told_at is None or self._clock.now() - self._told_at > FRESH:
            self._news.clear()
            self._look()
            await self._news.wait()

    def _announce(self) -> None:
        self._state, due = step(self._state, self.held, self._clock.now())
        for place in due:
            if not self._may(place):  # the next look tells whether it is still ours
                continue
            try:
                self._announcer.announce(place)
            except KernelError as error:
                self._missed(place, str(error))
            else:
                self._worked(place)

    def _missed(self, place: LinkAddress, why: str) -> None:
        self.failed += 1
        self._state = failed(self._state, place, self._clock.now())
        if self._failures.get(place) != why:
            self._failures[place] = why
            self._tell(Kind.ANNOUNCE_FAILED, why, Level.ERROR)

    def _worked(self, place: LinkAddress) -> None:
        self.sent += 1
        again = self._failures.pop(place, None) is not None
        if again or place not in self._known:
            self._known |= {place}
            self._tell(Kind.ANNOUNCED, f"neighbors on {place.link} are told of {place.address}")

    def _tell(self, kind: Kind, text: str, level: Level = Level.INFO) -> None:
        self._note(Note(self._clock.now(), kind, text, level))
