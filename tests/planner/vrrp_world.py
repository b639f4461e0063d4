"""A little deterministic network of nodes that speak VRRP, and what may befall them.

Delays, reordering, loss, one-way partitions, crashes, freezes and clocks that differ.  It
records what a node does (its adverts, the actions it returns), never its own opinion.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import pairwise

from revip.model.instants import Instant, Span
from revip.model.vrrp import (
    BecomeActive,
    BecomeBackup,
    Heard,
    PriorityChanged,
    SendAdvert,
    Sent,
    Started,
    State,
    StepDown,
    Stopped,
    VirtualRouter,
    active_down,
)
from revip.planner.health import TimerFired
from revip.planner.vrrp import Event, begin, next_wakeup, step

VIP = IPv4Address("10.0.0.10")


@dataclass
class Node:
    """A node of the little network."""

    number: int
    router: VirtualRouter
    state: State
    skewed: int
    """What its clock shows more than the world's."""
    up: bool = False
    frozen: bool = False
    inbox: list[Heard] = field(default_factory=list)
    acting: list[tuple[int, bool]] = field(default_factory=list)
    """When it began and ceased to answer for the address."""
    asleep: list[tuple[int, bool]] = field(default_factory=list)
    """When it was frozen and woken."""
    said: list[tuple[int, int]] = field(default_factory=list)
    """When it sent an advert, and with what priority."""

    def acts(self) -> bool:
        return bool(self.acting) and self.acting[-1][1]


class World:
    """A deterministic network: events in order of time, dice from a seed."""

    def __init__(self, seed: int, nodes: int, uniform: bool = False) -> None:
        self.dice = random.Random(seed)
        self.time = 0
        self.delay = self.dice.choice([0, 1, 5, 30])
        """Longest way of an advert; each takes its own time, so they overtake each other."""
        self.loss = 0.0
        self.cut: set[tuple[int, int]] = set()
        """From whom nothing reaches whom."""
        self.calm_since = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        interval = Span(self.dice.choice([100, 200, 1000]))
        self.nodes = [
            self._make(number, interval if uniform or number else Span(5 * interval))
            for number in range(nodes)
        ]
        self.interval = Span(max(node.router.interval for node in self.nodes))

    def _make(self, number: int, interval: Span) -> Node:
        router = VirtualRouter(
            51,
            (VIP,),
            IPv4Address(f"10.0.0.{100 + number}"),
            interval,
            preempt=self.dice.random() < 0.7,
            preempt_delay=Span(self.dice.choice([0, 0, 500])),
        )
        state = begin(self.dice.choice([1, 50, 100, 100, 254]))
        return Node(number, router, state, skewed=self.dice.randrange(10**7))

    # what the network does

    def at(self, when: int, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (max(when, self.time), self._count, what))

    def run(self, until: int) -> None:
        while self._queue and self._queue[0][0] <= until:
            self.time, _, what = heapq.heappop(self._queue)
            what()
        self.time = until

    def _broadcast(self, sender: Node, priority: int) -> None:
        heard = Heard(sender.router.source, sender.router.advert(priority))
        for node in self.nodes:
            lost = self.dice.random() < self.loss
            if node is not sender and (sender.number, node.number) not in self.cut and not lost:
                way = self.dice.randint(0, self.delay)
                self.at(self.time + way, lambda node=node: self._arrive(node, heard))  # type: ignore[misc]

    def _arrive(self, node: Node, heard: Heard) -> None:
        if node.up:
            node.inbox.append(heard)
            self._turn(node)

    # what the nodes do

    def _turn(self, node: Node) -> None:
        """Let a node do what its agent would: empty the socket, then look at the alarm."""
        if not node.up or node.frozen:
            return
        while node.inbox:
            self.feed(node, node.inbox.pop(0))
        if self.time + node.skewed >= next_wakeup(node.router, node.state):
            self.feed(node, TimerFired())
        alarm = next_wakeup(node.router, node.state) - node.skewed
        assert alarm > self.time, "nobody is woken for nothing"
        if alarm < 10**12:
            self.at(alarm, lambda: self._turn(node))

    def feed(self, node: Node, event: Event) -> None:
        now = Instant(self.time + node.skewed)
        node.state, actions = step(node.router, node.state, event, now)
        for action in actions:
            if isinstance(action, SendAdvert):
                assert now <= action.not_after
                node.said.append((self.time, action.priority))
                self._broadcast(node, action.priority)
                self.feed(node, Sent(now))
            elif isinstance(action, BecomeActive | BecomeBackup):
                node.acting.append((self.time, isinstance(action, BecomeActive)))

    # what befalls them

    def start(self, node: Node) -> None:
        if not node.up and not node.frozen:
            node.up = True
            node.state = begin(node.state.priority)
            self.feed(node, Started())
            self._turn(node)

    def crash(self, node: Node) -> None:
        """The host is gone, and with it its address."""
        node.up = False
        node.inbox.clear()
        if node.acts():
            node.acting.append((self.time, False))

    def freeze(self, node: Node) -> None:
        node.frozen = True
        node.asleep.append((self.time, True))

    def thaw(self, node: Node) -> None:
        if node.frozen:
            node.frozen = False
            node.asleep.append((self.time, False))
            self._turn(node)

    def stop(self, node: Node) -> None:
        if node.up and not node.frozen:
            self.feed(node, Stopped("shutdown"))
            node.up = False

    def tell(self, node: Node, event: Event) -> None:
        if node.up and not node.frozen:
            self.feed(node, event)
            self._turn(node)

    def calm(self) -> None:
        """End all faults: everybody is up and hears everybody."""
        self.loss, self.calm_since = 0.0, self.time
        self.cut.clear()
        for node in self.nodes:
            self.thaw(node)
            self.start(node)

    # what may be asked of it

    @property
    def window(self) -> int:
        """How long two may act while they hear each other: see the machine's docstring."""
        return self.interval + 2 * self.delay + 2

    @property
    def bound(self) -> int:
        """How long nobody may act in a calm world."""
        return active_down(0, self.interval) + 2 * self.delay + 2

    def acting(self) -> list[Node]:
        return [node for node in self.nodes if node.acts()]

    def together(self, one: Node, other: Node, since: int) -> int:
        """Return the longest time that both acted, awake and without a pause, from `since` on."""
        pasts = (one.acting, other.acting, one.asleep, other.asleep)
        changes = sorted({since, self.time, *(at for past in pasts for at, _ in past)})
        longest = lasted = 0
        for begun, ended in pairwise(changes):
            both = begun >= since and all(_acted(node, begun) for node in (one, other))
            lasted = lasted + ended - begun if both else 0
            longest = max(longest, lasted)
        return longest


def _acted(node: Node, when: int) -> bool:
    """Whether it acted from that instant on; the address of a frozen one is the fence's to take."""
    return _last(node.acting, when) and not _last(node.asleep, when)


def _last(past: list[tuple[int, bool]], when: int) -> bool:
    said = [now for at, now in past if at <= when]
    return bool(said) and said[-1]


def storm(world: World, faults: int, span: int) -> None:
    """Let `faults` faults befall random nodes within `span` milliseconds."""
    for _ in range(faults):
        when = world.dice.randrange(span)
        node = world.dice.choice(world.nodes)
        other = world.dice.choice(world.nodes)
        lasts = world.dice.choice([50, 250, 500, 2000, 10_000])
        kind = world.dice.choice(["crash", "freeze", "cut", "loss", "stop", "priority", "yield"])
        match kind:
            case "crash":
                world.at(when, lambda node=node: world.crash(node))  # type: ignore[misc]
                world.at(when + lasts, lambda node=node: world.start(node))  # type: ignore[misc]
            case "stop":
                world.at(when, lambda node=node: world.stop(node))  # type: ignore[misc]
                world.at(when + lasts, lambda node=node: world.start(node))  # type: ignore[misc]
            case "freeze":
                world.at(when, lambda node=node: world.freeze(node))  # type: ignore[misc]
                world.at(when + lasts, lambda node=node: world.thaw(node))  # type: ignore[misc]
            case "cut":
                pair = (node.number, other.number)
                world.at(when, lambda pair=pair: world.cut.add(pair))  # type: ignore[misc]
                world.at(when + lasts, lambda pair=pair: world.cut.discard(pair))  # type: ignore[misc]
            case "loss":
                world.at(when, lambda: setattr(world, "loss", 0.3))
                world.at(when + lasts, lambda: setattr(world, "loss", 0.0))
            case "priority":
                told = PriorityChanged(world.dice.choice([1, 30, 100, 200]), "health")
                world.at(when, lambda node=node, told=told: world.tell(node, told))  # type: ignore[misc]
            case _:
                world.at(when, lambda node=node: world.tell(node, StepDown("handover")))  # type: ignore[misc]


def stormy(seed: int, nodes: int) -> World:
    """Return a world after a storm, at the instant it became calm."""
    world = World(seed, nodes)
    for node in world.nodes:
        world.at(world.dice.randrange(3000), lambda node=node: world.start(node))  # type: ignore[misc]
    storm(world, faults=world.dice.randrange(25), span=15_000)
    world.run(27_000)
    world.calm()
    return world
