"""L3: whoever changes the kernel's table, the address or the host, it is put right in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from revip.agent.hosting import LONGEST_REST
from revip.model.ipvs import SchedulerFlag, VirtualServer
from tests.simulation.keeper import REPLACED
from tests.simulation.violation import Violation

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.world import World

FLAGS = frozenset({SchedulerFlag.MH_PORT, SchedulerFlag.MH_FALLBACK})


@dataclass
class Wrong:
    """What is wrong on one host, None or since when."""

    table: int | None = None
    parted: int | None = None
    """A follower's table, which should go after a while."""
    host: int | None = None
    keeper: int | None = None
    """Since when an agent is without one that works."""


class Repairing:
    """Watches every host for what lasts too long."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._setup = world.setup
        self._wrong = {number: Wrong() for number in range(world.setup.nodes)}
        self._quiet: dict[int, int] = {}
        """Since when nothing has befallen a host that voids the promise."""
        self._state: dict[int, tuple[object, ...]] = {}
        self._refused: dict[int, int] = {}
        """When a host's kernel last refused."""

    def look(self) -> None:
        """See to which hosts something has happened."""
        now = self._world.now
        for host in self._world.hosts:
            refusals = tuple(host.kernel.refusals)
            if refusals or self._state.get(host.number, (None, ()))[1]:
                self._refused[host.number] = now
            state = (
                *(host.agent, refusals, host.awake, host.deaf, host.mute, host.carrier),
                host.keeper,
            )
            if state != self._state.get(host.number):
                self._state[host.number] = state
                self._quiet[host.number] = now
                self.compare(host)

    def compare(self, host: Host) -> None:
        """Note what is wrong now, and have it looked at again when it should be right."""
        now, wrong = self._world.now, self._wrong[host.number]
        table, parted = self._table_is_wrong(host)
        for name, bad, bound in (
            ("table", table, self._setup.repair),
            ("parted", parted, self._setup.parting),
            ("host", self._host_is_wrong(host), self._setup.host_repair),
            ("keeper", self._setup.elected and host.awake and not host.keeper, REPLACED),
        ):
            since = getattr(wrong, name)
            if bad and since is None:
                setattr(wrong, name, now)
                self._world.after(bound + 1, self._due, host, name, now)
            elif not bad:
                setattr(wrong, name, None)

    def _due(self, host: Host, name: str, since: int) -> None:
        self.compare(host)
        if getattr(self._wrong[host.number], name) != since or not host.awake:
            if not host.awake:
                setattr(self._wrong[host.number], name, None)  # begins anew when it is
            return
        base = max(since, self._quiet.get(host.number, 0))
        if name == "host":
            bound = self._setup.deaf_repair if host.deaf else self._setup.host_repair
            rest: int = LONGEST_REST
        else:
            bound = {
                "table": self._setup.repair,
                "parted": self._setup.parting,
                "keeper": REPLACED,
            }[name]
            rest = self._setup.backoff
        if host.kernel.refusals:
            self._world.after(bound, self._due, host, name, since)
            return
        refused = self._refused.get(host.number)
        due = max(base, since) + bound
        if refused is not None:
            due = max(due, refused + rest + bound)
        if self._world.now <= due:
            self._world.at(due + 1, self._due, host, name, since)
            return
        raise self._violation(host, name, since)

    def expired(self, host: Host) -> None:
        """Judge a lifetime that has run out: never under an Active that nothing has befallen."""
        agent = host.agent
        if agent is None or agent.election is None or not host.awake or host.kernel.refusals:
            return
        longest = self._setup.vrrp.address_lifetime + 2 * LONGEST_REST
        quiet = self._world.now - self._quiet.get(host.number, 0) > longest
        status = agent.election.standing.status
        active = status.get("state") == "active" and host.clock.now() - status["since"] > longest
        if quiet and active:
            text = f"the address expired on n{host.number}, which is Active and well"
            raise Violation("L3", self._world.now, text)

    def _table_is_wrong(self, host: Host) -> tuple[bool, bool]:
        """Return whether a director's table is, and whether a follower has one."""
        agent = host.agent
        if agent is None or agent.service.pool is None or not host.awake or agent.leaving:
            return False, False
        there = host.kernel.table.get(self._setup.key)
        if not agent.service.directing:
            return False, there is not None
        wanted = VirtualServer(
            self._setup.key, "mh", FLAGS, destinations=agent.service.pool.destinations
        )
        return there != wanted, False

    def _host_is_wrong(self, host: Host) -> bool:
        agent = host.agent
        if agent is None or not host.awake or agent.leaving:
            return False
        if (agent.service.directing and agent.keeps) != host.has_vip:
            return True
        wanted = agent.hosting._wanted
        facts = host.kernel.facts
        return not wanted.present <= facts or bool(wanted.absent & facts)

    def _violation(self, host: Host, name: str, since: int) -> Violation:
        agent = host.agent
        assert agent is not None
        what = {
            "table": f"the table is {host.kernel.table.get(self._setup.key)}, "
            f"wanted are {agent.service.pool and agent.service.pool.destinations}",
            "parted": "a follower still has a table",
            "keeper": "the agent has no keeper that works",
            "host": f"the host is not put right: {agent.hosting.missing}; "
            f"directs: {agent.service.directing}, has the address: {host.has_vip}",
        }[name]
        text = f"n{host.number}, since {since / 1000:.3f} s: {what}"
        return Violation("L3", self._world.now, text)
