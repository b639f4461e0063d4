"""What must hold at every step: S1, S2, and L1 to L4 of the design, by what an outsider sees.

Each bound is computed from the configuration (`revip.planner.bounds`, `Setup`).  A bound counts
from the last fault that touched what it is about; while a fault lasts that voids the promise (a
lossy way to a server, a kernel that refuses) nothing is asked of the agent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from revip.model.health import Finding, ProbeResult, Verdict
from revip.model.ipvs import Change, DeleteServer, Destination
from revip.planner.health import JudgeEvent, ProbeFinished
from revip.planner.pool import Pool
from tests.simulation.holding import Holding
from tests.simulation.judging import Judging
from tests.simulation.repairing import Repairing
from tests.simulation.servers import Probe
from tests.simulation.violation import Violation

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.world import World


class Checks:
    """All checks of one world, and the hooks by which it calls them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._judging = Judging(world)
        self._repairing = Repairing(world)
        self._holding = Holding(world)
        self._seen: dict[int, tuple[object, ...]] = {}
        self._pools: dict[int, Pool | None] = {}

    # The world ------------------------------------------------------------------------------

    def world_changed(self) -> None:
        """A fault has begun or ended, an agent came or went, an address came or went."""
        self._judging.look()
        self._repairing.look()
        self._holding.look()

    def one_probe_at_a_time(self, before: Probe | None) -> None:
        """A probe begins; the one before must be over."""
        if before is not None and not before.over:
            raise Violation("L1", self._world.now, f"two probes at once: {before}")

    # An agent -------------------------------------------------------------------------------

    def agent_moved(self, host: Host) -> None:
        """An agent has taken in one event and done all that it wants to do about it."""
        agent = host.agent
        if agent is None:
            return
        service = agent.service
        pool, before = service.pool, self._pools.get(host.number)
        leads = agent.election is not None and agent.election.leading
        seen = (id(agent), host.kernel.version, service.directing, leads)
        if seen == self._seen.get(host.number):
            if pool is before:
                return
            if pool is not None and before is not None and pool.destinations == before.destinations:
                self._pools[host.number] = pool
                return
        self._pool_changed(host, before, pool)
        self._pools[host.number], self._seen[host.number] = pool, seen
        self._judging.verify(host)
        self._repairing.compare(host)

    def agent_gone(self, host: Host) -> None:
        """What the next agent has is not compared with what the last one had."""
        self._pools.pop(host.number, None)

    def _pool_changed(self, host: Host, before: Pool | None, pool: Pool | None) -> None:
        if pool is None or pool is before:
            return
        taking = {(d.address, d.port) for d in pool.destinations if d.weight}
        assert host.agent is not None
        service = host.agent.service
        emptied = before is not None and any(d.weight for d in before.destinations) and not taking
        if emptied and service.directing:  # a follower that has just started may know nobody yet
            raise Violation("S2", self._world.now, f"n{host.number}: nobody is left in the pool")
        entries = service.entries.values()
        healthy = [e for e in entries if e.state.health.verdict is Verdict.HEALTHY]
        if healthy and not any((e.backend.address, e.backend.port) in taking for e in healthy):
            raise Violation("S2", self._world.now, f"n{host.number}: only unhealthy ones are in")

    def judged(self, host: Host, server: int, event: JudgeEvent) -> None:
        """A verdict has changed by `event`."""
        ours = isinstance(event, ProbeFinished) and event.result.finding is Finding.OURS
        if ours or not isinstance(event, ProbeFinished):
            text = f"n{host.number} changed its verdict of n{server} for {event}"
            raise Violation("S2", self._world.now, text)

    def answered(self, host: Host, server: int, result: ProbeResult) -> None:
        """A probe has ended."""

    # A kernel -------------------------------------------------------------------------------

    def wrote_table(
        self,
        host: Host,
        change: Change,
        before: frozenset[Destination],
        after: frozenset[Destination],
    ) -> None:
        """An agent has made one change; who takes connections before it and after it?"""
        agent = host.agent
        parts = isinstance(change, DeleteServer) and agent and not agent.service.directing
        if before and not after and not parts:
            text = f"n{host.number} emptied the table by {change}"
            raise Violation("S2", self._world.now, text)

    def wrote_address(self, host: Host) -> None:
        """An agent has written the address."""
        self._holding.wrote(host)

    def expired(self, host: Host) -> None:
        """The kernel takes an address away, for its lifetime is over."""
        self._repairing.expired(host)

    def disturbed(self, host: Host) -> None:
        """Somebody else has changed the table or the host."""
        self._repairing.compare(host)
