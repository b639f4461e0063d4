"""A host: its power, its kernel, its clock, and the processes on it: an agent and its keepers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from revip.model.host import HostFact, LinkAddress
from revip.model.instants import Instant
from revip.model.record import Record
from revip.model.vrrp import Heard
from revip.planner.node import NOTHING_RECORDED
from tests.simulation.agent import Agent
from tests.simulation.keeper import Process
from tests.simulation.kernel import Kernel
from tests.simulation.setup import KERNEL_LATE, LINK

if TYPE_CHECKING:
    from tests.simulation.world import World

MILLION = 1_000_000
NOTICE = 10
"""Milliseconds after which a change of the host is told (the agent folds bursts)."""


class Clock:
    """CLOCK_BOOTTIME of one boot, a little fast or slow; the wall clock may jump beside it."""

    def __init__(self, world: World, shows: int, drift: int) -> None:
        self._world = world
        self._booted = world.now
        self._shows = shows
        self._drift = drift
        self.wall = 0
        """By how much the wall clock is beside it; nobody may care."""

    def now(self) -> Instant:
        passed = self._world.now - self._booted
        return Instant(self._shows + passed + passed * self._drift // MILLION)

    def world_time(self, local: int) -> int:
        """Return when it will show `local`, in world time."""
        ahead = local - self._shows
        when = ahead * MILLION // (MILLION + self._drift) - 1
        while when + when * self._drift // MILLION < ahead:
            when += 1
        return when + self._booted


class Host:
    """One node of the cluster."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.up = False
        self.carrier_lost = 0
        """How many faults keep the cable out."""
        self.frozen = 0
        """How many faults keep the agent's process stopped."""
        self.halted = 0
        """How many keep the whole machine stopped (a paused virtual machine)."""
        self.breathless = 0
        """How many keep probes from getting a descriptor."""
        self.mute = 0
        """How many keep adverts from leaving."""
        self.deaf = 0
        """How many keep the kernel's notices from the agent."""
        self.stall: int | None = None
        """The next write of an address freezes the agent for so long."""
        self.kernel = Kernel(self._percent)
        self.clock = Clock(world, world.setup.offsets[number], world.setup.drifts[number])
        self.record: Record = NOTHING_RECORDED
        """What the agent wrote down; survives it, not the boot."""
        self.agent: Agent | None = None
        self.keepers: list[Process] = []
        """The agent's own, and those of its predecessors that still wait for a successor."""
        self.boots = 0
        self.said_at = Instant(0)
        """When the last advert left, by this boot's clock."""
        self._backlog: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._suspended: Coroutine[Any, Any, object] | None = None

    # Power ----------------------------------------------------------------------------------

    def boot(self) -> None:
        if self.up:
            return
        self.up = True
        self.boots += 1
        if self.boots > 1:
            drift = self.world.setup.drifts[self.number]
            self.clock = Clock(self.world, self.world.dice.randrange(5000), drift)
            self.kernel = Kernel(self._percent, refusals=self.kernel.refusals)
            self.record = NOTHING_RECORDED
        self.world.servers[self.number].running = True
        self.world.trace("boot", self.number)
        self.start()
        self.world.look()

    def crash(self) -> None:
        """The host loses its power."""
        if not self.up:
            return
        self.world.trace("crash", self.number)
        self.up = False
        self.frozen = self.halted = 0
        for process in self.keepers:
            process.over = True
        self.keepers.clear()
        self.kill()
        self.world.servers[self.number].running = False
        self.world.moved(self.number)

    def start(self) -> None:
        """Start the agent, unless it runs."""
        if self.up and self.agent is None:
            self.world.trace("start", self.number)
            self.frozen = 0
            self.agent = Agent(self)
            self.deliver(self.agent.begin)
            self.world.look()

    def kill(self) -> None:
        """SIGKILL: nothing of the process is left but what is in the kernel and on the disk."""
        agent, self.agent = self.agent, None
        if agent is not None:
            agent.link.close()  # its keeper hears the end
        self.world.checks.agent_gone(self)
        self._backlog.clear()
        if self._suspended is not None:
            self._suspended.close()
            self._suspended = None
        self.frozen = 0
        self.world.held = {place for place in self.world.held if place[0] != self.number}
        self.world.probes = {p: q for p, q in self.world.probes.items() if p[0] != self.number}
        self.world.look()

    def forget(self) -> None:
        """Lose what the agent wrote down."""
        self.record = NOTHING_RECORDED

    def start_after_exit(self) -> None:
        """Start the agent anew once its predecessor, who takes his time, has gone."""
        if self.agent is not None and self.agent.leaving:
            self.world.after(200, self.start_after_exit)
        else:
            self.start()

    def exited(self, agent: Agent) -> None:
        """The agent has ended of its own accord."""
        if self.agent is agent:
            self.world.trace("exit", self.number)
            self.kill()

    def stop(self) -> None:
        """SIGTERM."""
        if self.agent is not None:
            self.deliver(self.agent.leave)

    # The process ----------------------------------------------------------------------------

    @property
    def carrier(self) -> bool:
        return not self.carrier_lost

    @property
    def awake(self) -> bool:
        return self.agent is not None and not self.frozen and not self.halted

    @property
    def keeper(self) -> Process | None:
        """The keeper of the agent that is here now, if it runs."""
        process = self.agent.link.process if self.agent is not None else None
        return process if process is not None and process.awake else None

    def deliver(self, what: Callable[..., None], *args: Any) -> None:
        """Let the agent take something in, as soon as it is awake."""
        if self.agent is None:
            return
        if self.frozen or self.halted:
            self._backlog.append((what, args))
            return
        what(*args)
        if self.agent is not None and not self.frozen:
            self.agent.settle()

    def call(self, agent: Agent, what: Callable[..., None], *args: Any) -> None:
        """Deliver to this very process: another does not know what was meant."""
        if self.agent is agent:
            self.deliver(what, *args)

    def freeze(self) -> None:
        self.frozen += 1
        self.world.look()

    def freeze_for(self, span: int) -> None:
        """Stop the agent now, in the middle of what it does."""
        self.freeze()
        self.world.after(span, self.thaw, self.agent)

    def thaw(self, agent: Agent | None) -> None:
        if self.agent is agent and self.frozen:
            self.frozen -= 1
            self._wake()

    def halt(self) -> None:
        self.halted += 1
        self.world.look()

    def resume(self, boots: int, lasted: int) -> None:
        """Let a machine go on whose own time stood still, but for CLOCK_BOOTTIME."""
        if self.boots == boots and self.halted:
            self.halted -= 1
            self.kernel.ends = {place: at + lasted for place, at in self.kernel.ends.items()}
            for place, at in self.kernel.ends.items():
                self.world.at(at, self._expire, self.boots, place)
            self._wake()

    def _wake(self) -> None:
        for process in list(self.keepers):
            process.run()
        if self.frozen or self.halted:
            return
        self.world.look()
        if self._suspended is not None:
            suspended, self._suspended = self._suspended, None
            self.at_once(suspended)
            if self.awake and self.agent is not None:
                self.agent.settle()
        backlog, self._backlog = self._backlog, []
        for what, args in backlog:
            self.deliver(what, *args)

    def at_once(self, task: Coroutine[Any, Any, Any]) -> Any:
        """Run what awaits nothing but the stalls of this host; return its result."""
        try:
            task.send(None)
        except StopIteration as end:
            return end.value
        self._suspended = task  # goes on when the process is thawed
        return None

    # What comes in --------------------------------------------------------------------------

    def receive(self, heard: Heard) -> None:
        if self.up and self.carrier and not self.halted:
            for process in self.keepers:
                process.hear_advert(heard)

    def lost(self, server: int) -> None:
        if self.agent is not None:
            self.deliver(self.agent.lost, server)

    def notice(self) -> None:
        """The kernel tells of a change of links, addresses, routes or rules."""
        if self.agent is not None and not self.deaf:
            self.world.after(NOTICE, self.call, self.agent, self.agent.look_at_host)

    # Addresses ------------------------------------------------------------------------------

    @property
    def vip(self) -> LinkAddress:
        return LinkAddress(LINK, self.world.setup.vip)

    @property
    def has_vip(self) -> bool:
        return self.vip in self.kernel.facts

    @property
    def answers(self) -> bool:
        """Whether ARP for the VIP would be answered from here."""
        return self.up and self.carrier and not self.halted and self.has_vip

    def establish(self, fact: HostFact, lifetime: int | None) -> None:
        ends = None
        if lifetime is not None:
            ends = self.world.now + lifetime + self.world.dice.randint(0, KERNEL_LATE)
        news = self.kernel.establish(fact, ends)
        if ends is not None and isinstance(fact, LinkAddress):
            self.world.at(ends, self._expire, self.boots, fact)
        if news:
            self._changed(fact, "has")

    def withdraw(self, fact: HostFact) -> None:
        if self.kernel.withdraw(fact):
            self._changed(fact, "has no longer")

    def _expire(self, boots: int, place: LinkAddress) -> None:
        if self.boots != boots or self.halted:
            return
        ends = self.kernel.ends.get(place)
        if ends is not None and ends <= self.world.now:
            self.world.checks.expired(self)
            self.withdraw(place)

    def _changed(self, fact: HostFact, words: str) -> None:
        self.notice()
        if fact == self.vip:
            self.world.trace(self.number, words, "the address")
            self.world.look()

    def _percent(self) -> int:
        return self.world.dice.randrange(100)
