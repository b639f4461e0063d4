"""L1 and L2: a server that is well is in every agent's pool by B, one that is not is out by D."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.simulation.servers import Sight
from tests.simulation.violation import Violation

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.world import World


@dataclass
class View:
    """What one node can truly see of one server, since when, and how often that has changed."""

    sight: Sight = Sight.UNSURE
    since: int = 0
    changes: deque[int] = field(default_factory=lambda: deque(maxlen=64))


class Judging:
    """Watches every pair of an agent and a server."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._setup = world.setup
        nodes = range(world.setup.nodes)
        self._views = {(node, server): View() for node in nodes for server in nodes}
        self._awake: dict[int, tuple[object, int]] = {}
        """Since when each agent has been awake, and which one it is."""

    def look(self) -> None:
        """See what has changed for whom."""
        now = self._world.now
        for host in self._world.hosts:
            before = self._awake.get(host.number)
            if not host.awake:
                self._awake.pop(host.number, None)
            elif before is None or before[0] is not host.agent:
                self._awake[host.number] = (host.agent, now)
                for server in range(self._setup.nodes):
                    view = self._views[host.number, server]
                    view.changes.append(now)  # its probes may have failed by its own freeze
                self._schedule(host)
        for (node, server), view in self._views.items():
            sight = self._world.sight(node, server)
            if sight is not view.sight:
                view.sight, view.since = sight, now
                view.changes.append(now)
                self._schedule(self._world.hosts[node])

    def _schedule(self, host: Host) -> None:
        for bound in (
            self._setup.removal,
            self._setup.comeback,
            self._setup.damped_comeback,
        ):
            self._world.after(bound + 1, self.verify, host)

    def verify(self, host: Host) -> None:
        """Compare what an agent wants with what is true, where a bound has passed."""
        agent, awake = host.agent, self._awake.get(host.number)
        if agent is None or awake is None or agent.service.pool is None or agent.leaving:
            return
        weights = {d.address: d.weight for d in agent.service.pool.destinations}
        well = self._well(host.number, awake[1])
        for server in range(self._setup.nodes):
            view = self._views[host.number, server]
            base = max(view.since, awake[1])
            backend = self._setup.backends[server]
            weight = weights.get(backend.address)
            if view.sight is Sight.WELL and server in well and weight != backend.weight:
                raise self._violation("L1", host, server, base, weight)
            others = len(well - {server}) >= max(1, self._setup.threshold)
            if self._world.now <= base + self._setup.removal or not others:
                continue
            if view.sight is Sight.DEAD and weight is not None:
                raise self._violation("L2", host, server, base, weight)
            if view.sight is Sight.UNREADY and weight:
                raise self._violation("L2", host, server, base, weight)

    def _well(self, node: int, awake: int) -> set[int]:
        """Return the servers that have been well for longer than B."""
        return {
            server
            for server in range(self._setup.nodes)
            if (view := self._views[node, server]).sight is Sight.WELL
            and self._world.now > max(view.since, awake) + self._bound(view)
        }

    def _bound(self, view: View) -> int:
        """Return B: the damped one, if the view has changed often enough for damping."""
        timing, now = self._setup.timing, self._world.now
        begun = now - timing.damping_window - self._setup.damped_comeback
        recent = sum(at > begun for at in view.changes)
        # While a way is lossy, one change of the view may be many of the verdict.
        lossy = view.sight is Sight.UNSURE or any(at > begun for at in self._world.unsure)
        damped = lossy or recent >= timing.damping_changes
        return self._setup.damped_comeback if damped else self._setup.comeback

    def _violation(
        self, guarantee: str, host: Host, server: int, base: int, weight: int | None
    ) -> Violation:
        agent = host.agent
        assert agent is not None
        assert agent.service.pool is not None
        view = self._views[host.number, server]
        backend = self._setup.backends[server]
        why = agent.service.pool.reasons.get(backend.name)
        place = "out" if weight is None else f"in with weight {weight}"
        text = (
            f"n{server} is {view.sight.value} to n{host.number} since {base / 1000:.3f} s, "
            f"and there is {place} ({why})"
        )
        return Violation(guarantee, self._world.now, text)
