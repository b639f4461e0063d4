"""The keeper: holds the elections and the lifetime of the addresses, whatever the agent does.

It is a small process beside the agent, which can be busy, blocked or collecting garbage without
an advert or a renewal coming late.  It judges nothing but the agent's life: what the node is
worth is told to it, and said again at least every `BEAT`.  When nothing is said for `PATIENCE`
the agent is taken for frozen, and the node stands aside: priority 0, the address stays until a
successor was heard, and is then removed here, since the agent would not.  The same when the agent
has ended, and then the keeper ends, too.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from revip.agent.electing import Election, Outside
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
from revip.errors import KernelError
from revip.model.host import Lease, LinkAddress
from revip.model.instants import NEVER, Instant, Span, later
from revip.model.ipvs import IPAddress
from revip.model.notes import Kind, Level, Note
from revip.model.vrrp import STOPPING
from revip.planner.telling import Seldom
from revip.ports import Clock, Fences, LeasedAddresses, Speaker, SpeakerFactory

BEAT = Span(200)
"""At most between two words of the agent, and of the keeper."""
PATIENCE = Span(1_100)
"""After which a silent agent is taken for frozen: a collection, a slow write are shorter."""


@dataclass(slots=True)
class _Part:
    """One election, and what the agent has said about it."""

    stand: Stand
    election: Election
    worth: tuple[int, str]
    source: IPAddress | None
    problem: str
    told: Standing | None = None
    told_at: Instant = Instant(0)


class Keeper:
    """All elections of one node; `turn` does what is due."""

    def __init__(
        self,
        clock: Clock,
        speaker: SpeakerFactory,
        addresses: LeasedAddresses,
        fences: Fences,
        send: Callable[[bytes], bool],
    ) -> None:
        """`send` gives a packet to the agent, and returns False when there is no room for it."""
        self._clock = clock
        self._speaker = speaker
        self._addresses = addresses
        self._fences = fences
        self._send = send
        self._parts: dict[str, _Part] = {}
        self._heard_at = self._looked_at = clock.now()
        self._due = NEVER
        self._gone = False
        self._seldom = Seldom()
        self._unsaid: list[Word] = []
        """What there was no room for; the journal may lose something, a standing is said anew."""

    @property
    def speakers(self) -> list[Speaker]:
        """What is to be listened to beside the agent."""
        elections = (part.election for part in self._parts.values())
        return [election.speaker for election in elections if election.speaker is not None]

    @property
    def alone(self) -> bool:
        """Whether the agent has ended."""
        return self._gone

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do: the agent has ended and nothing is held here."""
        return self._gone and not any(part.election.leading for part in self._parts.values())

    def hear(self, packet: bytes) -> None:
        """Take in one packet of the agent; an empty one means that it has ended."""
        if not packet:
            self._gone = True
            return
        try:
            word = decode(packet)
        except WordsError as error:
            self._fault(f"keeper: {error}")
            return
        self._heard_at = self._clock.now()
        self._obey(word)

    def turn(self, looked_at: Instant) -> Instant:
        """Do what is due; return when to be called next.

        All that had come in at `looked_at` was heard: what this process slept through since is
        no silence of the agent's.
        """
        self._looked_at = looked_at
        if (late := looked_at - self._due) > 0:
            # The whole machine stood still, or was too busy even for us: so was the agent.
            self._heard_at = min(looked_at, later(self._heard_at, Span(late)))
        self._say_unsaid()
        due = later(self._clock.now(), BEAT)
        if not self._silent():
            due = min(due, Instant(later(self._heard_at, PATIENCE) + 1))
        for part in self._parts.values():
            due = min(due, part.election.turn())
            self._tell(part)
        self._due = due
        return due

    # -------------------------------------------------------------------------------------------

    def _silent(self) -> str | None:
        """Return why the agent cannot be reckoned with, None when it lives."""
        if self._gone:
            return "the agent of this node has ended"
        if self._looked_at - self._heard_at > PATIENCE:
            return "the agent of this node is silent: frozen, or kept from running"
        return None

    def _obey(self, word: Word) -> None:
        if isinstance(word, Stand):
            self._stand(word)
            return
        if isinstance(word, Standing | Again | Told):
            return
        part = self._parts.get(word.name)
        if part is None:
            return  # it was withdrawn meanwhile
        match word:
            case Worth(_, priority, reason):
                part.worth = priority, reason
            case Source(_, address, problem):
                part.source, part.problem = address, problem
            case Wish(_, wish):
                part.election.hand_over(wish)
            case Resign(_, reason):
                part.election.resign(reason)
            case Withdraw(name, reason):
                del self._parts[name]
                part.election.withdraw(reason)
            case _:
                assert_never(word)

    def _stand(self, stand: Stand) -> None:
        former = self._parts.pop(stand.name, None)
        if former is not None:
            former.election.withdraw("the election begins anew")
        name, place = stand.name, stand.place

        def part() -> _Part:
            return self._parts[name]

        def source() -> IPAddress:
            if (known := part().source) is not None:
                return known
            raise KernelError(99, f"find this node's own address on {place.link}", part().problem)

        def fitness() -> tuple[int, str]:
            silence = self._silent()
            return (STOPPING, silence) if silence else part().worth

        def lead(leading: bool, _: str) -> None:
            if not leading and self._silent():
                self._remove(place)

        outside = Outside(
            self._clock,
            self._speaker,
            source,
            fitness,
            self._renew,
            lambda until: self._allow(stand, until),
            lead,
            lambda _: self._say(Again(name)),
            lambda note: self._say(Told(note)),
        )
        election = Election(name, place, stand.vrrp, outside, stand.held_until)
        self._parts[name] = _Part(stand, election, stand.worth, stand.source, stand.problem)

    def _renew(self, place: LinkAddress, lease: Lease) -> None:
        try:
            self._addresses.renew(place, lease)
        except KernelError as error:
            self._fault(str(error))

    def _allow(self, stand: Stand, until: Instant) -> None:
        if stand.vrrp.fenced:
            try:
                self._fences.open(stand.place, until)
            except KernelError as error:
                if error.errno != errno.ENOSYS:  # of that the agent tells, who is to build it
                    self._fault(str(error))

    def _remove(self, place: LinkAddress) -> None:
        try:
            self._addresses.remove(place)
        except KernelError as error:  # its lifetime ends it
            self._fault(str(error))

    def _tell(self, part: _Part) -> None:
        """Say how an election stands, when that has changed or was not said for a while."""
        now, election = self._clock.now(), part.election
        status = election.status()
        reason = str(status["reason"])
        standing = Standing(part.stand.name, election.leading, election.keeps_until, reason, status)
        if standing == part.told and now - part.told_at < BEAT:
            return
        if not self._gone and self._send(encode(standing)):
            part.told, part.told_at = standing, now

    def _say(self, word: Word) -> None:
        if not self._gone and not self._send(encode(word)):
            self._unsaid = [*self._unsaid[-15:], word]

    def _say_unsaid(self) -> None:
        unsaid, self._unsaid = self._unsaid, []
        for word in unsaid:
            self._say(word)

    def _fault(self, text: str) -> None:
        if self._seldom.may(text, self._clock.now()):
            self._say(Told(Note(self._clock.now(), Kind.FAULT, text, Level.ERROR)))
