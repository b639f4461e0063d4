"""The agent's own election (`revip.agent.electing`), driven by the world instead of asyncio.

Everything but the waiting is the agent's code: what to do about each action, the lease, and how
long the address stays for a successor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from revip.agent.electing import GRACE, LOOK, RETRY, Election, Outside
from revip.errors import KernelError
from revip.model.instants import NEVER, Instant
from revip.model.ipvs import IPAddress
from revip.model.spec import VirtualServerSpec, VrrpSpec
from revip.model.vrrp import STOPPING, Active, PriorityChanged, Started, VirtualRouter
from revip.planner.vrrp import begin, next_wakeup

if TYPE_CHECKING:
    from tests.simulation.agent import Agent


class Ballot(Election):
    """One node's part in the election."""

    def __init__(
        self, agent: Agent, server: VirtualServerSpec, spec: VrrpSpec, outside: Outside
    ) -> None:
        super().__init__(server, spec, outside)
        self._agent = agent
        self._armed: int | None = None

    def take_part(self) -> None:
        """Do what `Election.run` and `_take_part` do until they wait."""
        self._router = VirtualRouter(
            self.spec.vrid,
            (self.server.address,),
            self._agent.host.at_once(self._own_address()),
            self.spec.advert_interval,
            self.spec.preempt,
            self.spec.preempt_delay,
        )
        speaker = self._outside.speaker(self.server.interface, self._router, self.spec.peers)
        speaker.open()
        self._speaker = speaker
        self._state = begin(self._deserved(speaker)[0])
        self.failure = None
        self._guarded(lambda: self._feed(Started()))
        self.turn()

    async def _own_address(self) -> IPAddress:
        return await self._outside.source()

    def turn(self) -> None:
        """Take in what has come and what is due, then wait."""
        speaker, router = self._speaker, self._router
        if speaker is not None and router is not None:
            self._guarded(lambda: self._turn(speaker, router))
            self._arm()

    def look(self) -> None:
        """Have a look at carrier and fitness within `LOOK`, as a waiting election does."""
        self._agent.host.world.after(
            self._agent.host.world.dice.randint(0, LOOK),
            self._agent.host.call,
            self._agent,
            self.turn,
        )

    def leave(self, done: Callable[[], None]) -> None:
        """Do what `resign` does, and call `done` when it is over."""
        self._resigned = "shutdown"
        if self._speaker is not None:
            self._guarded(lambda: self._feed(PriorityChanged(STOPPING, self._resigned or "")))
        if not self.leading:
            done()
            return
        self._arm()
        limit = self._outside.clock.now() + self.spec.advert_interval + 2 * GRACE
        self._agent.wait_until(Instant(limit), lambda: self._quit(done), lambda: not self.leading)

    def _quit(self, done: Callable[[], None]) -> None:
        self._yield()
        done()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except KernelError as error:
            self._fail(str(error))
            self._close()
            self._agent.after(RETRY, self.take_part)

    def _arm(self) -> None:
        if self._router is None:
            return
        due = next_wakeup(self._router, self._state)
        if self.leading and not isinstance(self._state.phase, Active):
            due = min(due, Instant(self._keeps_until + 1))
        if due != self._armed:
            self._armed = due
            if due != NEVER:
                self._agent.at(due, lambda: self._ring(due))

    def _ring(self, due: Instant) -> None:
        if self._armed == due:
            self._armed = None
            self.turn()
