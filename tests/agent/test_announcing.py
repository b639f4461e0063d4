"""Announcing: what is held is told, what is not is not, and a frozen agent looks first."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address

from revip.agent.announcing import FRESH, Announcing
from revip.errors import KernelError
from revip.model.host import LinkAddress
from revip.model.instants import Instant
from revip.model.notes import Kind, Note
from revip.model.spec import LinkName

VIP = LinkAddress(LinkName("eth0"), ip_address("10.0.1.10"))
HELD, NOTHING = frozenset({VIP}), frozenset[LinkAddress]()


class World:
    """A clock that the test moves, and neighbors that remember what they were told."""

    def __init__(self) -> None:
        self.instant = Instant(1000)
        self.told: list[LinkAddress] = []
        self.refusal: KernelError | None = None
        self.notes: list[Note] = []
        self.looks = 0
        self.seen: Callable[[], None] = lambda: None
        self.spoke = asyncio.Event()
        self.announcing = Announcing(self, self.look, self, self.notes.append)

    def now(self) -> Instant:
        return self.instant

    def announce(self, place: LinkAddress) -> None:
        self.spoke.set()
        if self.refusal is not None:
            raise self.refusal
        self.told.append(place)

    def close(self) -> None:
        raise AssertionError("the agent gives it back, not its parts")

    def look(self) -> None:
        self.looks += 1
        self.seen()

    async def spoken(self) -> None:
        async with asyncio.timeout(5):
            await self.spoke.wait()
        self.spoke.clear()

    def kinds(self) -> list[Kind]:
        return [note.kind for note in self.notes]


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    made = World()
    running = asyncio.ensure_future(made.announcing.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_comes_is_told_at_once_and_noted_once() -> None:
    async with world() as seen:
        seen.announcing.hold(HELD)
        await seen.spoken()
        seen.announcing.hold(HELD)
        await settled()
        assert (seen.told, seen.announcing.sent) == ([VIP], 1)
        assert seen.kinds() == [Kind.ANNOUNCED]


async def test_an_address_that_was_lost_and_put_back_is_told_again() -> None:
    """Even if both happened before anybody could have been told."""
    async with world() as seen:
        seen.announcing.hold(HELD)
        await seen.spoken()
        seen.announcing.hold(NOTHING)
        seen.announcing.hold(HELD)
        await seen.spoken()
        assert seen.told == [VIP, VIP]
        assert seen.kinds() == [Kind.ANNOUNCED, Kind.ANNOUNCED]


async def test_what_was_lost_meanwhile_is_not_told() -> None:
    async with world() as seen:
        seen.announcing.hold(HELD)
        seen.announcing.hold(NOTHING)
        await settled()
        assert seen.told == []


async def test_before_the_first_look_nothing_is_said() -> None:
    async with world() as seen:
        await settled()
        assert (seen.looks, seen.told) == (1, [])


async def test_an_agent_that_was_frozen_looks_before_it_speaks() -> None:
    async with world() as seen:
        seen.announcing.hold(HELD)
        await seen.spoken()
        await settled()
        seen.instant = Instant(seen.instant + 60_000)
        looked = asyncio.Event()
        seen.seen = looked.set
        async with asyncio.timeout(5):
            await looked.wait()  # the second of the burst is due, but the knowledge is old
        assert seen.told == [VIP]
        seen.announcing.hold(NOTHING)
        await settled()
        assert seen.told == [VIP], "the VIP went while it was frozen"


async def test_one_that_still_has_the_address_goes_on_after_the_look() -> None:
    async with world() as seen:
        seen.announcing.hold(HELD)
        await seen.spoken()
        await settled()
        seen.instant = Instant(seen.instant + FRESH + 1)
        seen.seen = lambda: seen.announcing.hold(HELD)
        await seen.spoken()
        assert (seen.told, seen.looks) == ([VIP, VIP], 1)


async def test_a_refusal_is_said_once_counted_and_tried_again() -> None:
    async with world() as seen:
        seen.refusal = KernelError(errno.EPERM, "announce", "run as root or with CAP_NET_RAW")
        seen.announcing.hold(HELD)
        await seen.spoken()
        for _ in range(2):
            seen.instant = Instant(seen.instant + 1000)
            seen.announcing.hold(HELD)
            await seen.spoken()
        assert (seen.announcing.sent, seen.announcing.failed) == (0, 3)
        assert "CAP_NET_RAW" in str(seen.announcing.failure)
        assert seen.kinds() == [Kind.ANNOUNCE_FAILED]
        seen.refusal = None
        seen.instant = Instant(seen.instant + 1000)
        seen.announcing.hold(HELD)
        await seen.spoken()
        assert (seen.announcing.failure, seen.kinds()[-1]) == (None, Kind.ANNOUNCED)
