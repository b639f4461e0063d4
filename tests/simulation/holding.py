"""S1 and L4: nobody shares the address for longer than the window, and somebody has it in time."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

from revip.agent.hosting import LONGEST_REST
from revip.planner.grip import LONGEST_REST as LONGEST_ASIDE
from tests.simulation.keeper import REPLACED
from tests.simulation.violation import Violation

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.world import World


class Holding:
    """Watches who answers for the address."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._setup = world.setup
        self._together: dict[tuple[int, int], int] = {}
        """Since when two who hear each other both answer."""
        self._left: dict[int, int] = {}
        """Since when a host answers whose agent is gone or frozen, while its keeper works."""
        self._nobody: int | None = 0
        """Since when nobody answers."""
        self._state: tuple[Any, ...] = ()
        self._disturbed = 0
        """When the last fault began or ended."""
        self._refused = -(10**9)
        """When a kernel last refused an address."""

    def look(self) -> None:
        """See who answers now, and whether something has happened."""
        world, now = self._world, self._world.now
        network = world.network
        state = (
            tuple((h.up, h.awake, h.carrier, h.mute, h.deaf, h.agent is None) for h in world.hosts),
            tuple(h.keeper for h in world.hosts),
            tuple(sorted(pair for pair, count in network.cuts.items() if count > 0)),
            network.lossy,
            network.slow,
            tuple(self._refuses(host) for host in world.hosts),
        )
        if state != self._state:
            if any(map(self._refuses, world.hosts)) or (self._state and any(self._state[-1])):
                self._refused = now
            self._state, self._disturbed = state, now
        answering = [host for host in world.hosts if host.answers]
        self._look_at_pairs(answering)
        self._look_at_left(answering)
        if answering:
            self._nobody = None
        elif self._nobody is None or now == 0:
            self._nobody = now
            self._world.after(self._bound() + 1, self._anybody, now)

    # S1 -------------------------------------------------------------------------------------

    def _look_at_pairs(self, answering: list[Host]) -> None:
        if not self._setup.elected:
            for host in answering:
                if host.number:
                    text = f"n{host.number} answers, which is not the owner"
                    raise Violation("S1", self._world.now, text)
            return
        network = self._world.network
        clean = not network.losses and not network.slow
        together = {
            (one.number, other.number)
            for one, other in combinations(answering, 2)
            if clean and network.hear_each_other(one.number, other.number)
        }
        self._together = {pair: at for pair, at in self._together.items() if pair in together}
        for pair in together - self._together.keys():
            self._together[pair] = self._world.now
            self._world.after(self._setup.window + 1, self._still, pair, self._world.now)

    def _still(self, pair: tuple[int, int], since: int) -> None:
        if self._together.get(pair) == since:
            text = f"n{pair[0]} and n{pair[1]} both answer since {since / 1000:.3f} s"
            raise Violation("S1", self._world.now, text)

    def _look_at_left(self, answering: list[Host]) -> None:
        left = {
            host.number
            for host in answering
            if self._setup.elected
            and not host.awake
            and any(process.awake for process in host.keepers)
            and not self._refuses(host)
        }
        self._left = {number: at for number, at in self._left.items() if number in left}
        for number in left - self._left.keys():
            self._left[number] = self._world.now
            self._world.after(self._setup.leaving + 1, self._still_left, number, self._world.now)

    def _still_left(self, number: int, since: int) -> None:
        if self._left.get(number) == since:
            text = f"n{number} answers, though its agent is no more since {since / 1000:.3f} s"
            raise Violation("S1", self._world.now, text)

    def wrote(self, host: Host) -> None:
        """Judge a write of the address: none may stay that came after three silent intervals."""
        if not self._setup.elected or not host.has_vip:
            return
        silent = host.clock.now() - host.said_at
        if silent > 3 * self._setup.vrrp.advert_interval + 1:
            text = f"n{host.number} writes the address after {silent} ms without an advert"
            raise Violation("S1", self._world.now, text)

    # L4 -------------------------------------------------------------------------------------

    def _anybody(self, since: int) -> None:
        if self._nobody != since:
            return
        now = self._world.now
        network = self._world.network
        void = self._setup.elected and (network.losses or network.slow)
        due = max(since, self._disturbed) + self._bound()
        if void or not self._able() or now <= due:
            self._world.at(max(now + 500, due + 1), self._anybody, since)
            return
        text = f"nobody answers since {since / 1000:.3f} s, though n{self._able()} could"
        raise Violation("L4", now, text)

    def _able(self) -> list[int]:
        """Return who could answer."""
        hosts = self._world.hosts if self._setup.elected else self._world.hosts[:1]
        return [
            host.number
            for host in hosts
            if host.awake
            and host.carrier
            and not host.mute
            and host.agent is not None
            and not host.agent.leaving
            and not self._refuses(host)
        ]

    def _bound(self) -> int:
        bound = self._setup.succession
        if self._setup.elected and any(h.awake and h.keeper is None for h in self._world.hosts):
            bound += REPLACED
        if any(self._world.network.cuts.values()):
            bound *= self._setup.nodes  # who hears whom may settle one after the other
        if self._world.now - self._refused < LONGEST_ASIDE + bound:
            # Who is refused tries again and again, and is in nobody's way meanwhile.
            bound += LONGEST_REST + (self._setup.aside if self._setup.elected else 0)
        if any(host.deaf for host in self._world.hosts):
            bound = max(bound, self._setup.deaf_repair)
        return bound

    @staticmethod
    def _refuses(host: Host) -> bool:
        return any(refusal.what == "address" for refusal in host.kernel.refusals)
