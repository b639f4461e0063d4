"""The agent's side of its keeper: says what this node is worth, and hears how it stands.

What the keeper said last is taken in before it is asked for, so that an agent that was busy for a
moment does not act on old news.  The agent writes an address only within the keeper's lease.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from revip.agent.keeper import BEAT
from revip.agent.keeper_words import (
    Again,
    Resign,
    Source,
    Stand,
    Standing,
    Told,
    Wish,
    Withdraw,
    Word,
    WordsError,
    Worth,
    decode,
    encode,
)
from revip.errors import KernelError, TransientError
from revip.model.host import Lease, LinkAddress
from revip.model.instants import SECOND, Instant, Span, later
from revip.model.ipvs import IPAddress
from revip.model.notes import Kind, Level, Note
from revip.model.spec import VrrpSpec
from revip.planner.handover import HandOver
from revip.planner.telling import Seldom
from revip.ports import Clock, KeeperLink

LOOK = Span(100)
"""Between looks at what this node is worth."""
SOURCE_AGAIN = Span(300)
"""Between questions for this node's own address, while it does not serve."""
VAIN = 2
"""So often there must be no answer before that is believed: a busy kernel says no, too."""
KEEPER_PATIENCE = Span(3 * SECOND)
"""After which a silent keeper is replaced; the kernel has ended its leases by its own clock."""
KEEPER_START = Span(30 * SECOND)
"""What a keeper may take until its first word: a new interpreter on a busy host."""
FAREWELL = Span(2 * SECOND)
"""Beyond one interval, what a farewell and the wait for a successor take at most."""


class KeeperError(TransientError):
    """The keeper has ended, or is silent; the next one is started."""


@dataclass(frozen=True, slots=True)
class Ties:
    """What one kept election needs of the agent."""

    worth: Callable[[], tuple[int, str]]
    """The priority that this node deserves now, 0 for none, and why."""
    source: Callable[[], Awaitable[IPAddress]]
    """This node's own address, that adverts come from."""
    lead: Callable[[bool, str], None]
    """Told when this node begins and ceases to direct."""
    again: Callable[[], None]
    """Have the address announced once more."""
    lease: Callable[[Lease], None]
    """Until when, and for how long, the address may be written."""
    fence: Callable[[], str] = lambda: "none: this host is not managed"
    """What bounds who answers for it beside its lifetime."""


class KeptElection:
    """An election of this node, held by the keeper."""

    def __init__(
        self, name: str, place: LinkAddress, spec: VrrpSpec, ties: Ties, keeping: Keeping
    ) -> None:
        self.name = name
        self.place = place
        self.spec = spec
        self.ties = ties
        self.source: IPAddress | None = None
        self.problem = "not asked for yet"
        self.asked_at: Instant | None = None
        """When this node's own address was asked for last."""
        self.vain = 0
        """How often in a row there was none."""
        self.said: tuple[int, str] | None = None
        self.said_at = Instant(0)
        self.standing = Standing(name, False, Instant(0), "no keeper yet")
        self._keeping = keeping

    @property
    def leading(self) -> bool:
        """Whether this node directs; it goes on a little after it has yielded to a successor."""
        return self.standing.leading

    def keeps(self) -> bool:
        """Return whether the address may be on this node at this moment."""
        now = self._keeping.clock.now()  # before looking: it is no silence if we sleep after it
        self._keeping.catch_up()
        return self.leading and now <= self.standing.keeps_until

    def hand_over(self, wish: HandOver) -> None:
        """Begin what an operator asks for; `status` tells what becomes of it."""
        self._keeping.say(Wish(self.name, wish))
        told = {"stage": wish.stage.value, "other": None, "until": wish.until}
        self.hear(self.standing_with(handover=told))

    async def resign(self, reason: str) -> None:
        """Say farewell, and return when a successor has taken over or nobody wants to."""
        if not self._keeping.say(Resign(self.name, reason)):
            return
        deadline = later(self._keeping.clock.now(), Span(self.spec.advert_interval + FAREWELL))
        while self.leading and self._keeping.clock.now() < deadline:
            await asyncio.sleep(LOOK / 5000)
            self._keeping.catch_up()
        self.give_up(reason)

    def withdraw(self, reason: str) -> None:
        """End the part that this node takes: the group is not configured any more."""
        self._keeping.say(Withdraw(self.name, reason))
        self.give_up(reason)

    def give_up(self, reason: str) -> None:
        """Direct no longer, whatever the keeper says later."""
        if self.leading:
            self.hear(Standing(self.name, False, Instant(0), reason, self.standing.status))

    def status(self) -> dict[str, Any]:
        """Return what an operator wants to know."""
        now, said = self._keeping.clock.now(), self.standing.status
        wish, since = said.get("handover"), said.get("since")
        left = said.get("lifetime_ends", now) - now
        return {
            "kind": "vrrp",
            "vrid": self.spec.vrid,
            "state": said.get("state", "initialize"),
            "priority": said.get("priority", 0),
            "since_ms_ago": now - since if since is not None else None,
            "holder": said.get("holder"),
            "reason": said.get("reason") or self._keeping.problem,
            "lifetime_left_ms": max(0, left) if self.leading else None,
            "fence": self.ties.fence(),
            "oddities": said.get("oddities", {}),
            "handover": wish
            and {
                "stage": wish["stage"],
                "other": wish["other"],
                "left_ms": max(0, wish["until"] - now),
            },
            "keeper": self._keeping.status(),
        }

    def hear(self, standing: Standing) -> None:
        """Take in how this election stands."""
        was, self.standing = self.standing, standing
        if standing.leading:
            self.ties.lease(Lease(standing.keeps_until, self.spec.address_lifetime))
        if standing.leading != was.leading:
            self.ties.lead(standing.leading, standing.reason)

    def standing_with(self, **changes: Any) -> Standing:
        """Return the present standing with a changed status."""
        now = self.standing
        status = {**now.status, **changes}
        return Standing(self.name, now.leading, now.keeps_until, now.reason, status)

    def stand(self) -> Stand:
        """Return what a new keeper is to be told."""
        self.said = self.ties.worth()
        active = self.leading and self.standing.status.get("state") == "active"
        held_until = self.standing.keeps_until if active else Instant(0)
        return Stand(
            self.name, self.place, self.spec, self.said, self.source, self.problem, held_until
        )


class Keeping:
    """Keeps one keeper running, and in the picture."""

    def __init__(self, clock: Clock, link: KeeperLink, note: Callable[[Note], None]) -> None:
        self.clock = clock
        self.elections: dict[str, KeptElection] = {}
        self.problem = "the keeper has not been started yet"
        self.starts = 0
        self._link = link
        self._note = note
        self._running = False
        self._ended = False
        self._heard = False
        self._heard_at = Instant(0)
        self._stood: set[str] = set()
        """Elections that the present keeper knows."""
        self._seldom = Seldom()

    async def run(self) -> None:
        """Start a keeper and serve it.  Raises `KeeperError` when it ends, to be run again."""
        self._begin()
        problem = ""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._find_sources())
                group.create_task(self._serve())
        except* (KernelError, KeeperError) as errors:
            problem = str(errors.exceptions[0])  # raised below: in here some versions group it
        finally:
            self._running = False
            self._link.close()
        raise KeeperError(problem)

    def add(self, election: KeptElection) -> None:
        """Hold an election from now on."""
        self.elections[election.name] = election

    def remove(self, name: str) -> None:
        """Hold it no longer."""
        self.elections.pop(name).withdraw("the configuration has changed")
        self._stood.discard(name)

    def say(self, word: Word) -> bool:
        """Tell the keeper something; return whether it could be told."""
        return self._running and self._link.send(encode(word))

    def catch_up(self) -> None:
        """Take in all that the keeper has said so far."""
        if not self._running or self._ended:
            return
        for packet in self._link.receive():
            if not packet:
                self._ended = True
                return
            self._heard, self._heard_at = True, self.clock.now()
            try:
                self._hear(decode(packet))
            except WordsError as error:
                if self._seldom.may("words", self.clock.now()):
                    self._fault(f"keeper: {error}")

    def status(self) -> dict[str, Any]:
        """Return what an operator wants to know of the process."""
        heard = self._running and self._heard
        silent = self.clock.now() - self._heard_at if heard else None
        return {"starts": self.starts, "heard_ms_ago": silent}

    # -------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._stood.clear()
        self._link.start()
        self.starts += 1
        self._running, self._ended = True, False
        self._heard, self._heard_at = False, self.clock.now()

    async def _serve(self) -> None:
        while True:
            self._look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK / 1000):
                    await self._link.readable()

    def _look(self) -> None:
        """Hear the keeper and tell it what is new.  Raises `KeeperError` when it has failed."""
        now = self.clock.now()  # before looking: it is no silence if we sleep after it
        self.catch_up()
        self._end_what_is_over(now)
        if self._ended:
            raise self._failed("the keeper has ended")
        if now - self._heard_at > (KEEPER_PATIENCE if self._heard else KEEPER_START):
            self._link.close(kill=True)
            raise self._failed(f"the keeper was silent for {now - self._heard_at} ms")
        self._beat(now)

    def _failed(self, problem: str) -> KeeperError:
        self.problem = problem
        return KeeperError(problem)

    def _end_what_is_over(self, now: Instant) -> None:
        """Give up what a dead or frozen keeper cannot give up, when others may have it."""
        for election in self.elections.values():
            if election.leading and now > election.standing.keeps_until:
                election.give_up("the keeper has renewed it no longer")

    def _beat(self, now: Instant) -> None:
        for election in self.elections.values():
            if election.name not in self._stood:
                continue
            worth = election.ties.worth()
            due = worth != election.said or now - election.said_at >= BEAT - LOOK
            if due and self.say(Worth(election.name, *worth)):
                election.said, election.said_at = worth, now

    async def _find_sources(self) -> None:
        """Ask for this node's own address until there is one, and again when it does not serve."""
        while True:
            await self._introduce()
            await asyncio.sleep(LOOK / 1000)

    async def _introduce(self) -> None:
        """Tell the keeper of the elections that it does not know, and of our own address."""
        for election in list(self.elections.values()):
            known = election.name in self._stood
            fine = election.source and election.standing.status.get("state") != "initialize"
            due = election.asked_at is None or self.clock.now() - election.asked_at >= SOURCE_AGAIN
            if not (known and fine) and due:
                await self._find_source(election)
            unknown = election.name in self.elections and election.name not in self._stood
            ready = election.source is not None or election.vain >= VAIN
            self.catch_up()  # else old news of this name would be taken for the new one's
            if unknown and ready and self.say(election.stand()):
                self._stood.add(election.name)

    async def _find_source(self, election: KeptElection) -> None:
        former = election.source, election.problem
        election.asked_at = self.clock.now()
        try:
            election.source, election.problem = await election.ties.source(), ""
            election.vain = 0
        except KernelError as error:
            election.vain += 1
            if election.vain >= VAIN:  # else the kernel was busy, and what was known holds
                election.source, election.problem = None, error.sentence
        if election.name in self._stood and (election.source, election.problem) != former:
            self.say(Source(election.name, election.source, election.problem))

    def _hear(self, word: Word) -> None:
        match word:
            case Told(note):
                self._note(note)
            case Standing(name) if name in self._stood:
                self.elections[name].hear(word)
            case Again(name) if name in self.elections:
                self.elections[name].ties.again()
            case _:
                pass  # of an election that was withdrawn meanwhile

    def _fault(self, text: str) -> None:
        self._note(Note(self.clock.now(), Kind.FAULT, text, Level.ERROR))
