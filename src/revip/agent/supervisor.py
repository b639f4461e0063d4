"""Keeps parts running: a fault in one part degrades that part and no other."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from revip.errors import KernelError, TransientError, unexpected
from revip.model.instants import MINUTE, Span
from revip.model.notes import Kind, Level, Note
from revip.planner.backoff import Backoff
from revip.planner.telling import Seldom
from revip.ports import Clock

REMINDER = Span(10 * MINUTE)
"""How often it is said that a part still fails for the same reason."""


async def supervised(
    name: str,
    part: Callable[[], Awaitable[None]],
    note: Callable[[Note], None],
    clock: Clock,
) -> None:
    """Run `part` for ever; when it fails or returns, note why and start it again with backoff.

    The same reason is noted once in each `REMINDER`.
    """
    backoff = Backoff(salt=name)
    seldom = Seldom(REMINDER)
    while True:
        started = clock.now()
        try:
            await part()
            reason = "ended by itself"
        except TransientError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 (the one place that catches the unforeseen)
            reason = unexpected(error)
        if clock.now() - started > MINUTE:
            backoff = backoff.succeeded()
        backoff = backoff.failed()
        if seldom.may(reason, clock.now()):
            text = f"{name}: {reason}; started again in {backoff.delay} ms"
            note(Note(clock.now(), Kind.FAULT, text, Level.ERROR))
        await asyncio.sleep(backoff.delay / 1000)


@contextmanager
def foreseen(operation: str) -> Iterator[None]:
    """Make one more refusal of an error that nobody thought of: it is tried again, and told."""
    try:
        yield
    except KernelError:
        raise
    except Exception as error:
        sentence = unexpected(error)
        raise KernelError(errno.EIO, operation, sentence) from error
