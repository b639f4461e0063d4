"""One address on one link: the machine of `planner.conflict` with an ear on the link."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from revip.errors import KernelError
from revip.model.conflict import (
    Alert,
    Blind,
    Claim,
    Claimed,
    Conflict,
    ConflictAction,
    Defend,
    Garbled,
    Heard,
    Held,
    Permitted,
    Question,
    Recognized,
    Released,
    Sighting,
    Spoke,
)
from revip.model.host import LinkAddress, MacAddress, mac_text
from revip.model.instants import MINUTE, NEVER, Instant, Span, later
from revip.model.ipvs import IPAddress
from revip.model.notes import Kind, Level
from revip.planner.conflict import Event, Rules, may_hold, next_wakeup, objection, step
from revip.planner.health import TimerFired
from revip.planner.telling import Seldom
from revip.ports import Clock, Sentry

GONE = frozenset({errno.ENODEV, errno.ENXIO, errno.ENETDOWN})
"""An address cannot be had on such a link either: the first claim waits for it."""
RETRY = Span(250)
"""After the link was gone or down."""
DEAF_RETRY = Span(5_000)
"""After any other refusal."""
REMINDER = Span(10 * MINUTE)
FELLOWS_HEARD = Span(5_000)
"""Between looks at who has spoken VRRP: what the socket's buffer holds, and no wake-up for each."""
KNOWN_FOR = Span(1_000)
"""For so long the kernel's neighbor table is not read again."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a watch needs of the agent."""

    clock: Clock
    sentry: Callable[[], Sentry]
    had: Callable[[], Awaitable[bool]]
    """Whether the address is on the interface already, by this agent's former run."""
    source: Callable[[], Awaitable[IPAddress | None]]
    """What to ask as, while the address is held; None asks nothing then, for IPv6."""
    fellows: Callable[[], Mapping[IPAddress, str]]
    """The nodes of this cluster, by address, with their names."""
    look: Callable[[], None]
    """Have the host compared: whether the address may be here has changed."""
    again: Callable[[], None]
    """Have the address announced once more."""
    note: Callable[[Kind, str, Level], None]


class Watch:
    """Whether somebody else has one address; `run` never returns."""

    def __init__(self, place: LinkAddress, rules: Rules, around: Surroundings) -> None:
        self._place = place
        self._rules = rules
        self._around = around
        self._state = Conflict()
        self._sentry: Sentry | None = None
        self._source: IPAddress | None = None
        self._looked = False
        self._news = asyncio.Event()
        self._neighbors: tuple[Instant, Mapping[IPAddress, MacAddress]] | None = None
        self._seldom = Seldom(REMINDER)
        self.deaf: str | None = None
        """Why nobody can be heard at present, None when all is well."""
        self.counts: Counter[str] = Counter()

    async def permits(self) -> bool:
        """Return whether the address may be put on the interface.

        Raises `KernelError` while it cannot be known whether it is there already.
        """
        await self._look()
        return may_hold(self._state)

    def objection(self) -> str | None:
        """Return why the address is left to somebody else, None when it is not."""
        return objection(self._state)

    def hold(self, held: bool) -> None:
        """Learn whether the address is on the interface, by our will."""
        if held != self._state.holding:
            self._feed(Held() if held else Released())
            self._news.set()

    def status(self) -> dict[str, Any]:
        """Return what an operator wants to know."""
        now, state = self._around.clock.now(), self._state
        return {
            "policy": self._rules.policy.value,
            "state": type(state.stage).__name__.lower(),
            "conflicts": state.conflicts,
            "defenses": state.defenses,
            "standing_aside": objection(state),
            "rivals": [
                {
                    "mac": mac_text(rival.mac),
                    "name": rival.name,
                    "fellow": rival.fellow,
                    "since_ms_ago": now - rival.since,
                    "last_ms_ago": now - rival.last,
                    "times": rival.times,
                    "told": rival.told_at is not None,
                }
                for rival in state.rivals.values()
            ],
            "unwatched": self.deaf,
            "counts": dict(self.counts),
        }

    async def run(self) -> None:
        """Ask and listen for ever; a link that is gone is waited for."""
        while True:
            try:
                await self._look()
                await self._listen()
            except KernelError as error:
                wait = self._missed(error)
            finally:
                self._close()
            await asyncio.sleep(wait / 1000)

    # -------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """See once whether a former run has left the address here: then it stays."""
        if not self._looked:
            if await self._around.had():
                self._feed(Held())
            self._looked = True

    async def _listen(self) -> None:
        sentry = self._around.sentry()
        sentry.open()
        self._sentry = sentry
        self._source = await self._around.source()
        sentry.receive()  # what an interface that is down says, is said here
        self._feed(Claim())
        self.deaf = None
        while True:
            self._news.clear()
            for seen in sentry.receive():
                self._see(seen)
            if self._around.clock.now() >= next_wakeup(self._state):
                self._feed(TimerFired())
            await self._pause(sentry)

    async def _pause(self, sentry: Sentry) -> None:
        """Wait for the next frame, news or timer."""
        at = next_wakeup(self._state)
        if self._rules.vrid is not None:
            at = min(at, later(self._around.clock.now(), FELLOWS_HEARD))
        left = None if at == NEVER else max(0, at - self._around.clock.now()) / 1000
        heard = asyncio.ensure_future(sentry.readable())
        told = asyncio.ensure_future(self._news.wait())
        try:
            await asyncio.wait((heard, told), timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (heard, told):
                each.cancel()
            await asyncio.gather(heard, told, return_exceptions=True)

    def _see(self, seen: Sighting) -> None:
        match seen:
            case Claimed(mac):
                self.counts["claims"] += 1
                self._feed(Heard(mac, *self._known(mac)))
            case Spoke(mac):
                self._feed(Recognized(mac))
            case Garbled():
                self.counts["garbled"] += 1
            case _:
                assert_never(seen)

    def _known(self, mac: MacAddress) -> tuple[bool, str]:
        """Return whether `mac` is a fellow node's, and what else is known of who has it."""
        there = [address for address, known in self._table().items() if known == mac]
        fellows = self._around.fellows()
        for address in there:
            if address in fellows:
                return True, f"{fellows[address]}, {address}"
        others = [str(address) for address in there if address != self._place.address]
        return False, ", ".join(sorted(others)[:3])

    def _table(self) -> Mapping[IPAddress, MacAddress]:
        now = self._around.clock.now()
        if self._neighbors is None or now - self._neighbors[0] >= KNOWN_FOR:
            table: Mapping[IPAddress, MacAddress] = {}
            if self._sentry is not None:
                with contextlib.suppress(KernelError):  # then it is a stranger
                    table = self._sentry.neighbors()
            self._neighbors = now, table
        return self._neighbors[1]

    def _feed(self, event: Event) -> None:
        self._state, actions = step(self._rules, self._state, event, self._around.clock.now())
        for action in actions:
            self._act(action)

    def _act(self, action: ConflictAction) -> None:
        match action:
            case Question(holding):
                self._ask(holding)
            case Defend():
                self.counts["defenses"] += 1
                self._around.again()
            case Permitted():
                self._around.look()
            case Alert(text, grave):
                level = Level.ERROR if grave else Level.INFO
                self._around.note(Kind.CONFLICT, text, level)
            case _:
                assert_never(action)

    def _ask(self, holding: bool) -> None:
        source = self._source if holding else None
        if self._sentry is None or (
            holding and source is None and self._place.address.version == 6
        ):
            return
        try:
            self._sentry.ask(source)
            self.counts["questions"] += 1
        except KernelError as error:
            self.counts["unasked"] += 1
            if error.errno in GONE:
                raise

    def _missed(self, error: KernelError) -> Span:
        self.deaf = str(error)
        self.counts["deaf"] += 1
        waits = error.errno in GONE
        if self._seldom.may(self.deaf, self._around.clock.now()):
            what = "the first claim waits for that" if waits else "going on without"
            text = f"cannot watch for a second {self._place.address}: {error}; {what}"
            self._around.note(Kind.UNWATCHED, text, Level.WARNING)
        if not waits:
            self._feed(Blind(self.deaf))
        return RETRY if waits else DEAF_RETRY

    def _close(self) -> None:
        if self._sentry is not None:
            self._sentry.close()
            self._sentry = None
