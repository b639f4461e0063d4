"""The keeper's process, and the link between it and its agent.

What the process does is the agent's own code (`revip.agent.keeper`, `revip.agent.electing`), and
so are the words that pass between the two; the waiting is the world's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from revip.agent.keeper import Keeper
from revip.agent.kept import KEEPER_PATIENCE, LOOK, KeeperError, Keeping
from revip.model.instants import MINUTE, Instant, later
from revip.model.vrrp import Heard
from revip.planner.backoff import Backoff
from tests.simulation.outside import Ear, KeepersAddresses, NoFences

if TYPE_CHECKING:
    from tests.simulation.agent import Agent
    from tests.simulation.host import Host

START = (50, 1500)
"""Milliseconds that a new interpreter takes; the first keeper is forked."""
REPLACED = KEEPER_PATIENCE + Backoff().ceiling + max(START) + LOOK
"""Milliseconds within which an agent has another keeper, when one has died or stopped."""


class Process:
    """One keeper: it outlives its agent until it has given the address away."""

    def __init__(self, host: Host, link: Link) -> None:
        self.host = host
        self.frozen = 0
        """How many faults keep it stopped."""
        self.adverts: list[Heard] = []
        self.over = False
        self._link = link
        self._keeper: Keeper | None = None
        """None while it is being started."""
        self._inbox: list[bytes] = []
        self._due = Instant(0)
        self._armed: int | None = None
        self._hurried = False

    @property
    def begun(self) -> bool:
        return self._keeper is not None

    @property
    def awake(self) -> bool:
        return self.begun and not (self.over or self.frozen or self.host.halted)

    def begin(self) -> None:
        if not self.over:
            addresses = KeepersAddresses(self.host)
            self._keeper = Keeper(
                self.host.clock,
                lambda _, router, __: Ear(self, router),
                addresses,
                NoFences(),
                self._say,
            )
            self.host.world.look()
            self.run()

    def run(self) -> None:
        """Do what `revip.keeper.main` does between two waits."""
        self._hurried = False
        keeper = self._keeper
        if keeper is None or not self.awake:
            return
        looked_at = self.host.clock.now()
        inbox, self._inbox = self._inbox, []
        for packet in inbox:
            keeper.hear(packet)
        self._due = keeper.turn(looked_at)
        if keeper.done:
            self.end()
        else:
            self._arm()

    def hear(self, packet: bytes) -> None:
        self._inbox.append(packet)
        self._hurry()

    def hear_advert(self, heard: Heard) -> None:
        self.adverts.append(heard)
        self._hurry()

    def end(self) -> None:
        """It has ended, or is killed; its agent hears of it."""
        if not self.over:
            self.over = True
            self.host.keepers.remove(self)
            self._link.come(self, b"")
            self.host.world.look()

    def freeze(self) -> None:
        self.frozen += 1
        self.host.world.look()

    def thaw(self) -> None:
        self.frozen = max(0, self.frozen - 1)
        self.host.world.look()
        self.run()

    def _say(self, packet: bytes) -> bool:
        return self._link.come(self, packet)

    def _hurry(self) -> None:
        if not self._hurried:
            self._hurried = True
            self.host.world.after(0, self.run)

    def _arm(self) -> None:
        when = self.host.clock.world_time(self._due)
        if self._armed is None or when < self._armed:
            self._armed = when
            self.host.world.at(when, self._ring, when)

    def _ring(self, when: int) -> None:
        if self._armed != when:
            return
        self._armed = None
        if self.host.clock.now() < self._due and self.awake:
            self._arm()
        else:
            self.run()


class Link:
    """The port `KeeperLink`: the agent's end."""

    def __init__(self, agent: Agent) -> None:
        self.process: Process | None = None
        self._agent = agent
        self._came: list[bytes] = []
        self._starts = 0

    def start(self) -> None:
        host = self._agent.host
        self.process, self._came = Process(host, self), []
        host.keepers.append(self.process)
        host.world.after(host.world.dice.randint(*START) if self._starts else 0, self.process.begin)
        self._starts += 1

    def send(self, packet: bytes) -> bool:
        if self.process is None or self.process.over:
            return False
        self.process.hear(packet)
        return True

    def receive(self) -> list[bytes]:
        came, self._came = self._came, []
        return came

    async def readable(self) -> None:
        pass

    def close(self, *, kill: bool = False) -> None:
        process, self.process = self.process, None
        if process is not None and kill:
            process.end()
        elif process is not None:
            process.hear(b"")

    def come(self, process: Process, packet: bytes) -> bool:
        """A keeper says something; nobody hears a former one."""
        host = self._agent.host
        if self.process is not process or host.agent is not self._agent:
            return False
        if not self._came:
            host.world.after(0, host.call, self._agent, self._agent.keeping.hurry)
        self._came.append(packet)
        return True


class Kept(Keeping):
    """The agent's side: what `Keeping.run` does, by the world's clock."""

    def __init__(self, agent: Agent, link: Link) -> None:
        super().__init__(agent.host.clock, link, agent.note)
        self._agent = agent
        self._backoff = Backoff(salt="keeper")
        self._began = Instant(0)

    def serve(self) -> None:
        """Start a keeper."""
        self._began = self.clock.now()
        self._begin()
        self._go_on(self.starts)

    def hurry(self) -> None:
        """Look at once: the keeper has said something."""
        if not self._running:
            return
        try:
            self._look()
        except KeeperError:
            self._running = False
            self._link.close()
            if self.clock.now() - self._began > MINUTE:
                self._backoff = self._backoff.succeeded()
            self._backoff = self._backoff.failed()
            self._agent.after(self._backoff.delay, self.serve)

    def _go_on(self, start: int) -> None:
        if self._running and self.starts == start:
            self._agent.host.at_once(self._introduce())
            self.hurry()
            self._agent.at(later(self.clock.now(), LOOK), lambda: self._go_on(start))
