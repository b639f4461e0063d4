"""A whole agent, and what its receivers are told."""

from __future__ import annotations

import asyncio

from revip.model.notes import Kind, Level
from revip.model.notify import Filter, Message

WATCHED = Filter(Level.INFO, (Kind.LEADERSHIP,))


class Kept:
    """A receiver that keeps what it is told, or fails in the way `error` says."""

    def __init__(self, error: Exception | None = None, hangs: bool = False) -> None:
        self.messages: list[Message] = []
        self.error = error
        self.hangs = hangs

    async def deliver(self, message: Message) -> None:
        if self.hangs:
            await asyncio.sleep(10_000)
        if self.error is not None:
            raise self.error
        self.messages.append(message)

    def states(self) -> list[tuple[str, ...]]:
        return [each.transition.arguments for each in self.messages if each.transition]
