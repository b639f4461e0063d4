"""The segment between the hosts: loss, delay, reordering, duplicates, one-way partitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from revip.model.vrrp import Heard


@dataclass
class Network:
    """Each packet takes its own time, so that they overtake each other."""

    dice: Random
    at: Callable[..., None]
    """Have something done after so many milliseconds."""
    way: int
    """The longest way while nothing is the matter."""
    nodes: int
    receive: Callable[[int, Heard], None] = lambda node, heard: None
    cuts: Counter[tuple[int, int]] = field(default_factory=Counter)
    """From whom nothing reaches whom, and how many faults want that."""
    losses: list[int] = field(default_factory=list)
    """Percent of packets lost: one for each fault, the worst counts."""
    delays: list[int] = field(default_factory=list)
    """Longest ways in milliseconds, likewise."""
    copies: list[int] = field(default_factory=list)
    """Percent of packets that come twice, likewise."""

    @property
    def lossy(self) -> int:
        return max(self.losses, default=0)

    @property
    def slow(self) -> bool:
        return bool(self.delays)

    def cut(self, one: int, other: int) -> bool:
        return one != other and self.cuts[one, other] > 0

    def hear_each_other(self, one: int, other: int) -> bool:
        return not (self.cut(one, other) or self.cut(other, one))

    def latency(self) -> int:
        """Return the way of one packet."""
        return self.dice.randint(0, max(self.delays, default=self.way))

    def lost(self) -> bool:
        return bool(self.losses) and self.dice.randrange(100) < self.lossy

    def multicast(self, sender: int, heard: Heard) -> None:
        for node in range(self.nodes):
            if node == sender or self.cut(sender, node) or self.lost():
                continue
            self.at(self.latency(), self.receive, node, heard)
            if self.copies and self.dice.randrange(100) < max(self.copies):
                self.at(self.latency() + self.latency(), self.receive, node, heard)
