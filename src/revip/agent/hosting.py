"""Keeps this host as its role asks: addresses, routes, rules and sysctls, whoever changes them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from revip.errors import KernelError, unexpected
from revip.model.host import HostFact, HostState, LinkAddress
from revip.model.instants import Span
from revip.model.notes import Kind, Level, Note
from revip.model.spec import DUMMY
from revip.planner.backoff import Backoff
from revip.planner.host import combined, describe_fact, host_diff
from revip.planner.telling import Quarrel, Seldom, Telling
from revip.ports import Clock, Host

_Answer = TypeVar("_Answer")

PERIOD = Span(5_000)
"""Between comparisons when the kernel announces nothing: sysctls have no notifications."""
LONGEST_REST = Span(1_000)
"""Between attempts while something is refused: an interface that comes back is soon noticed."""
FIGHT_PACE = Span(100)
"""Between repairs while somebody undoes each of them."""
PASSES = 4
"""Comparisons in a row at most: a kernel-made route shows only after the address is there."""


@dataclass(frozen=True, slots=True)
class Role:
    """What must be true of this host, and what of it cannot be said at present."""

    parts: tuple[HostState, ...]
    """One for each virtual server, and one with what nobody needs any more."""
    problem: KernelError | None = None
    """Why the part of some virtual server is missing, or may be out of date."""


class Hosting:
    """The reconciler of one host.

    `role` says what must be true, and is asked anew each time.  `hold` is told, at each look and
    each change, which addresses are on a real interface and should be; none, while that cannot be
    known.
    """

    def __init__(
        self,
        host: Host,
        role: Callable[[], Awaitable[Role]],
        clock: Clock,
        note: Callable[[Note], None],
        hold: Callable[[frozenset[LinkAddress]], None] = lambda _: None,
    ) -> None:
        self._host = host
        self._role = role
        self._clock = clock
        self._note = note
        self._hold = hold
        self._wanted = HostState()
        self._changed = asyncio.Event()
        self._settled = False
        self._failure: str | None = None
        self._backoff = Backoff(ceiling=LONGEST_REST, salt="host")
        self._quarrel = Quarrel()
        self._seldom = Seldom()
        self._one_at_a_time = asyncio.Lock()
        self.repairs = 0
        self.failures = 0
        self.paused = False
        self.missing: tuple[str, ...] = ()
        """What is not as it should be after the last comparison, in words."""
        self.lacking: frozenset[LinkAddress] = frozenset()
        """Addresses that should be on a real interface and were seen not to be."""

    @property
    def failure(self) -> str | None:
        """Why the last attempt failed, None when it did not."""
        return self._failure

    def look(self) -> None:
        """Compare soon: the role may have changed."""
        self._changed.set()

    async def run(self) -> None:
        """Compare and repair at every change and every `PERIOD`; never returns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            while True:
                self._changed.clear()
                await self.reconcile()
                await self._rest()

    async def reconcile(self) -> None:
        """Compare and repair until nothing differs; a refusal is noted and left for later."""
        async with self._one_at_a_time:
            try:
                problem = await self._compare()
            except KernelError as error:
                self._failed(str(error))
            except Exception as error:  # noqa: BLE001 (an adapter's bug must not end the healing)
                self._failed(unexpected(error))
            else:
                if problem is not None:
                    self._failed(str(problem))
                else:
                    self._worked()

    async def _rest(self) -> None:
        """Wait for the next comparison; own changes are announced, too, and must not spin us."""
        if self._failure is not None:
            await asyncio.sleep(self._backoff.delay / 1000)
            return
        if self._quarrel.fighting:
            await asyncio.sleep(FIGHT_PACE / 1000)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PERIOD / 1000):
                await self._changed.wait()

    async def _compare(self) -> KernelError | None:
        role = await self._known(self._role())
        wanted = combined(role.parts)
        if wanted != self._wanted:
            self._wanted, self._settled = wanted, False
        done: list[str] = []
        for _ in range(PASSES):
            step = await self._step(role.parts)
            if not step or self.paused:
                break
            done += step
        else:
            what = "; ".join(self.missing)
            raise KernelError(errno.EAGAIN, "prepare this host", f"it does not last: {what}")
        self._tell(tuple(done))
        self._settled = not self.paused
        return role.problem

    async def _step(self, parts: Sequence[HostState]) -> list[str]:
        """Observe, compare, apply once; return what was, or would be, done."""
        holds = await self._known(self._host.observe(self._wanted))
        self._report(holds)
        remove, add = host_diff(self._wanted, holds)
        words = [
            *(f"removed {describe_fact(fact)}" for fact in remove),
            *(f"set {describe_fact(fact)}" for fact in add),
        ]
        self.missing = tuple(words)
        if not self.paused and words:
            await self._apply(remove, add, parts)
            self._report(holds.difference(remove).union(add))
        return words

    async def _apply(
        self, remove: Sequence[HostFact], add: Sequence[HostFact], parts: Sequence[HostState]
    ) -> None:
        """Apply all in order; when that is refused, what each part needs, so that none starves."""
        try:
            await self._host.apply(remove, add)
        except KernelError:
            for part in parts:
                with contextlib.suppress(KernelError):  # said with the first refusal
                    await self._host.apply(
                        [fact for fact in remove if fact in part.absent],
                        [fact for fact in add if fact in part.present],
                    )
            self._report(await self._known(self._host.observe(self._wanted)))
            raise

    async def _known(self, question: Awaitable[_Answer]) -> _Answer:
        try:
            return await question
        except Exception:
            self.lacking = frozenset()  # nobody knows
            self._hold(frozenset())
            raise

    def _report(self, holds: frozenset[HostFact]) -> None:
        addresses = (fact for fact in self._wanted.present if isinstance(fact, LinkAddress))
        wanted = frozenset(place for place in addresses if place.link != DUMMY)
        self.lacking = wanted - holds
        self._hold(wanted & holds)

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(KernelError):  # without notices the period has to do
                async for _ in self._host.changes():
                    self._changed.set()
            await asyncio.sleep(PERIOD / 1000)

    def _tell(self, done: tuple[str, ...]) -> None:
        now = self._clock.now()
        if self._quarrel.calm(now):
            self._say(Kind.HOST_DRIFT, "nobody has changed this host for a while")
        if not done:
            return
        what = "; ".join(done)
        if not self._settled:
            self._say(Kind.HOST, what)
            return
        self.repairs += 1
        telling = self._quarrel.record(now)
        if telling in (Telling.EACH, Telling.BEGUN):
            text = f"changed by somebody else, put right: {what}"
            self._say(Kind.HOST_DRIFT, text, Level.WARNING)
        if telling is Telling.BEGUN:
            text = "somebody keeps changing this host: put right every time, said once a minute"
            self._say(Kind.HOST_DRIFT, text, Level.ERROR)
        if telling is Telling.STILL:
            times = self._quarrel.told(now)
            text = f"changed {times} more times by somebody else, put right; last: {what}"
            self._say(Kind.HOST_DRIFT, text, Level.WARNING)

    def _failed(self, failure: str) -> None:
        self.failures += 1
        self._backoff = self._backoff.failed()
        if self._failure != failure and self._seldom.may(failure, self._clock.now()):
            self._say(Kind.HOST_FAILED, failure, Level.ERROR)
        self._failure = failure

    def _worked(self) -> None:
        if self._failure is not None and self._seldom.may(Kind.HOST_BACK, self._clock.now()):
            self._say(Kind.HOST_BACK, "this host is as it should be")
        self._failure = None
        self._backoff = self._backoff.succeeded()

    def _say(self, kind: Kind, text: str, level: Level = Level.INFO) -> None:
        self._note(Note(self._clock.now(), kind, text, level))
