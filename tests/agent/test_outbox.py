"""Delivery: in order, patient within bounds, and never in anybody's way; in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from revip.agent.outbox import LIMIT, LONGEST_REST, Outbox
from revip.errors import NotWantedError, TransientError
from revip.model.notes import Kind, Level, Note
from revip.model.notify import Message
from tests.agent.fakes import FakeClock, play
from tests.messages import message

Answer = Callable[[Message], Awaitable[None]]


class Story:
    """An outbox, what was delivered by it, and what it had to say."""

    def __init__(self, answer: Answer | None = None, attempts: int = 20) -> None:
        self.answer = answer
        self.delivered: list[int] = []
        self.notes: list[Note] = []
        self.outbox = Outbox("webhook", self, attempts, FakeClock(), self.notes.append)

    async def deliver(self, message: Message) -> None:
        if self.answer is not None:
            await self.answer(message)
        self.delivered.append(message.event.number)

    async def go_on(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.outbox.run()


def test_messages_are_delivered_in_order() -> None:
    story = Story()

    async def plot() -> None:
        for number in range(5):
            story.outbox.put(message(number=number))
        await story.go_on(1)

    play(plot())
    assert story.delivered == [0, 1, 2, 3, 4]
    assert story.outbox.counts.delivered == 5
    assert story.outbox.counts.waiting == 0
    assert story.notes == []


def test_an_outage_is_outlasted_and_told_once() -> None:
    async def ill(_: Message) -> None:
        if asyncio.get_running_loop().time() < 1_120:
            raise TransientError("http://x answered 503")

    story = Story(ill)

    async def plot() -> None:
        story.outbox.put(message(number=1))
        story.outbox.put(message(number=2))
        await story.go_on(300)

    play(plot())
    assert story.delivered == [1, 2]
    assert [(note.kind, note.level) for note in story.notes] == [
        (Kind.NOTIFY, Level.WARNING),
        (Kind.NOTIFY, Level.INFO),
    ]
    assert 5 < story.outbox.counts.failed < 15


def test_patience_has_a_bound() -> None:
    async def ill(about: Message) -> None:
        if about.event.number == 1:
            raise TransientError("no")

    story = Story(ill, attempts=3)

    async def plot() -> None:
        story.outbox.put(message(number=1))
        story.outbox.put(message(number=2))
        await story.go_on(3 * LONGEST_REST / 1000)

    play(plot())
    assert story.delivered == [2]
    assert story.outbox.counts.dropped["gave_up"] == 1
    assert story.outbox.counts.failed == 3


def test_what_is_refused_is_not_repeated() -> None:
    async def refuse(about: Message) -> None:
        if about.event.number == 1:
            raise NotWantedError("http://x answered 404")

    story = Story(refuse)

    async def plot() -> None:
        story.outbox.put(message(number=1))
        story.outbox.put(message(number=2))
        await story.go_on(1)

    play(plot())
    assert story.delivered == [2]
    assert (story.outbox.counts.dropped["refused"], story.outbox.counts.failed) == (1, 1)


def test_a_bug_of_ours_stops_no_later_message() -> None:
    async def fall(about: Message) -> None:
        if about.event.number == 1:
            raise ValueError("bug")

    story = Story(fall, attempts=2)

    async def plot() -> None:
        story.outbox.put(message(number=1))
        story.outbox.put(message(number=2))
        await story.go_on(60)

    play(plot())
    assert story.delivered == [2]
    assert "unexpected ValueError: bug" in story.notes[0].text


def test_the_newest_are_kept_when_nobody_takes_them() -> None:
    async def hang(about: Message) -> None:
        if about.event.number == 0:
            await asyncio.sleep(60)

    story = Story(hang)

    async def plot() -> None:
        story.outbox.put(message(number=0))
        running = asyncio.ensure_future(story.go_on(120))
        await asyncio.sleep(1)  # the first is on its way now
        for number in range(1, 1001):
            story.outbox.put(message(number=number))
        assert story.outbox.counts.waiting == LIMIT
        await running

    play(plot())
    assert story.delivered == [0, *range(1001 - LIMIT, 1001)]
    assert story.outbox.counts.dropped["full"] == 1001 - LIMIT


def test_the_end_waits_a_little_and_no_longer() -> None:
    async def slow(_: Message) -> None:
        await asyncio.sleep(0.8)

    story = Story(slow)

    async def plot() -> float:
        loop = asyncio.get_running_loop()
        for number in range(5):
            story.outbox.put(message(number=number))
        began = loop.time()
        await story.outbox.finish(2)
        return loop.time() - began

    assert play(plot()) <= 2.01
    assert story.delivered == [0, 1]


def test_what_is_under_way_at_the_end_is_waited_for_and_not_begun_again() -> None:
    begun: list[int] = []

    async def slow(about: Message) -> None:
        begun.append(about.event.number)
        await asyncio.sleep(1)

    story = Story(slow)

    async def plot() -> None:
        story.outbox.put(message(number=1))
        story.outbox.put(message(number=2))
        await story.go_on(0.5)
        await story.outbox.finish(2)

    play(plot())
    assert begun == story.delivered == [1, 2]
    assert story.outbox.counts.delivered == 2


def test_what_takes_too_long_at_the_end_is_given_up() -> None:
    ended: list[str] = []

    async def hang(_: Message) -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    story = Story(hang)

    async def plot() -> None:
        story.outbox.put(message(number=1))
        await story.go_on(0.5)
        await story.outbox.finish(2)

    play(plot())
    assert ended == ["cancelled"]
    assert story.delivered == []
