"""A cluster in virtual time: one heap of events, one dice, hosts, servers and the segment."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any
from zlib import crc32

from revip.model.health import Finding
from revip.model.vrrp import Heard
from tests.simulation.checks import Checks
from tests.simulation.host import Host
from tests.simulation.network import Network
from tests.simulation.servers import SIGHTS, Mood, Probe, Server, Sight
from tests.simulation.setup import Setup
from tests.simulation.violation import Violation

SPIN = 20_000
"""Events of one instant that are too many."""


class World:
    """Everything that there is; `run` lets time pass."""

    def __init__(self, setup: Setup, dice: random.Random, *, loud: bool = False) -> None:
        self.setup = setup
        self.dice = dice
        self.now = 0
        self.events = 0
        self.digest = 0
        """Of all that was traced: two runs of one history have the same."""
        self.loud = loud
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self.network = Network(dice, self.after, setup.way, setup.nodes)
        self.servers = [Server(number) for number in range(setup.nodes)]
        self.probes: dict[tuple[int, int], Probe] = {}
        self.unsure: list[int] = []
        """When ways became or ceased to be lossy or slow, or probes to be possible."""
        self.held: set[tuple[int, int]] = set()
        """Which node holds an idle connection to which server."""
        self.hosts = [Host(self, number) for number in range(setup.nodes)]
        self.network.receive = self._receive
        self.checks = Checks(self)

    # Time -----------------------------------------------------------------------------------

    def at(self, when: int, what: Callable[..., None], *args: Any) -> None:
        self._count += 1
        heapq.heappush(self._heap, (max(when, self.now), self._count, what, args))

    def after(self, span: int, what: Callable[..., None], *args: Any) -> None:
        self.at(self.now + span, what, *args)

    def run(self, until: int) -> None:
        heap, begun, now = self._heap, self.events, self.now
        while heap and heap[0][0] <= until:
            self.now, _, what, args = heapq.heappop(heap)
            self.events += 1
            if self.now > now:
                begun, now = self.events, self.now
            elif self.events - begun > SPIN:
                raise Violation("L4", now, f"it spins: {SPIN} events and no time passes")
            what(*args)
        self.now = until

    def trace(self, *words: object) -> None:
        """Take what was done into the digest, and print it when this world is `loud`."""
        line = f"{self.now} {' '.join(map(str, words))}"
        self.digest = crc32(line.encode(), self.digest)
        if self.loud:
            self.say(*words)

    def say(self, *words: object) -> None:
        """Print one line of a loud world."""
        print(f"{self.now / 1000:9.3f} s ", *words)  # noqa: T201

    # Adverts --------------------------------------------------------------------------------

    def _receive(self, node: int, heard: Heard) -> None:
        self.hosts[node].receive(heard)

    # Probes ---------------------------------------------------------------------------------

    def sight(self, node: int, server: int) -> Sight:
        """Return what the probes of `node` can truly find out about `server`."""
        host = self.hosts[node]
        if host.breathless or (node != server and (self.network.losses or self.network.slow)):
            return Sight.UNSURE
        if not self._reach(node, server):
            return Sight.DEAD
        return SIGHTS[self.servers[server].mood]

    def probe(self, probe: Probe) -> None:
        """Begin to ask; `probe.done` is called when it ends."""
        place = (probe.node, probe.server)
        self.checks.one_probe_at_a_time(self.probes.get(place))
        self.probes[place] = probe
        if self.hosts[probe.node].breathless:
            self.after(1, probe.end, Finding.OURS, "no free descriptor")
            return
        mood = self.servers[probe.server].mood
        if mood is Mood.HANGING or not self._reach(*place) or self._lost_for_good(probe):
            return  # the prober's own deadline ends it
        timeout = self.setup.timing.timeout
        latency = 1 + self.network.latency() + self.dice.randint(0, 3)
        if mood is Mood.SLOW:
            latency = self.dice.randint(0, timeout - 1)
        if self.network.lost() and probe.node != probe.server:
            latency += 200  # the kernel's first retransmission
        if latency < timeout:
            finding = {Mood.UNREADY: Finding.NOT_READY, Mood.REFUSING: Finding.REFUSED}.get(mood)
            self.after(latency, self._answer, probe, finding or Finding.READY)

    def _answer(self, probe: Probe, finding: Finding) -> None:
        if probe.over or not self._reach(probe.node, probe.server):
            return
        if self.servers[probe.server].mood is Mood.HANGING:
            return
        if finding is Finding.READY:
            self.held.add((probe.node, probe.server))
        probe.end(finding, finding.value)

    def _lost_for_good(self, probe: Probe) -> bool:
        lossy = probe.node != probe.server and self.network.losses
        return bool(lossy) and self.network.lost() and self.network.lost()

    def _reach(self, node: int, server: int) -> bool:
        if node == server:
            return True
        carried = self.hosts[node].carrier and self.hosts[server].carrier
        return carried and self.network.hear_each_other(node, server)

    def feel(self, server: int, mood: Mood, begins: bool) -> None:
        """A server's mood begins or ends."""
        moods = self.servers[server].moods
        if begins:
            moods.append(mood)
        elif mood in moods:
            moods.remove(mood)
        self.moved(server)

    def moved(self, server: int) -> None:
        """Draw the consequences of a new mood: a dead process ends what it had."""
        if self.servers[server].mood is Mood.REFUSING:
            for node, host in enumerate(self.hosts):
                probe = self.probes.get((node, server))
                if probe is not None and not probe.over and self._reach(node, server):
                    self.after(self.network.latency(), probe.end, Finding.FAILED, "reset")
                if (node, server) in self.held:
                    self.held.discard((node, server))
                    if self._reach(node, server):
                        self.after(self.network.latency(), host.lost, server)
        self.look()

    def hang_up(self, server: int) -> None:
        """A server ends its idle connections, as kube-apiserver does from time to time."""
        for node, host in enumerate(self.hosts):
            if (node, server) in self.held and self._reach(node, server):
                self.held.discard((node, server))
                self.after(self.network.latency(), host.lost, server)

    def look(self) -> None:
        """Something has changed in the world: let the checks see it."""
        self.checks.world_changed()

    def switched(self, host: Host, name: str) -> None:
        """A carrier came or went: the kernel tells; a keeper looks by itself."""
        if name == "carrier_lost":
            host.notice()

    def doubt(self) -> None:
        """Remember that nothing sure is to be seen about now."""
        self.unsure.append(self.now)
        self.look()
