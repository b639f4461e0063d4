"""Groups of nodes of which one directs: revip's and keepalived's, hurt in the same way."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from lab.net import LINK, PORT, VIP
from lab.places import LabError
from lab.processes import Process
from lab.scenarios.election import elected
from lab.scenarios.interop import kill_keepalived

from bench.keepalived import Checks, Member, Task, command, configuration
from bench.subjects import (
    DEFAULT,
    FAST,
    KEEPALIVED,
    KEEPALIVED_QUICK,
    NO_DAMPING,
    QUICK,
    SECOND,
)
from bench.world import World

LEADER, HEIR = "n1", "n2"
PRIORITIES = {LEADER: 150, HEIR: 120}
READY_SECONDS = 20.0


class Group(Protocol):
    """The balancers of all nodes, with one set of timers."""

    @property
    def name(self) -> str:
        """What the table calls it."""
        ...

    def start(self, node: str) -> None:
        """Start the node's balancer."""
        ...

    def stop(self, node: str, number: int) -> None:
        """Send a signal to every process of the node's balancer, without waiting."""
        ...

    def ended(self, node: str) -> None:
        """Wait for its end, and take away what it left, as a reboot does."""
        ...

    def enter(self) -> None:
        """Start all of it."""
        ...

    def leave(self) -> None:
        """End all of it; nothing stays."""
        ...


@dataclass(slots=True)
class RevipGroup:
    """revip's agents on all nodes."""

    name: str
    world: World
    interval: str
    profile: str

    def start(self, node: str) -> None:
        """See Group."""
        document = self.world.cluster.config(node)
        elected(self.interval)(document, node)
        health = {"profile": self.profile, "damping_changes": NO_DAMPING}
        document["virtual_servers"][0]["health"] = health
        self.world.cluster.start_agent(node, document)

    def stop(self, node: str, number: int) -> None:
        """See Group."""
        self.world.cluster.agents[node].kill(number)

    def ended(self, node: str) -> None:
        """See Group."""
        self.world.cluster.agents[node].wait(10)

    def enter(self) -> None:
        """See Group."""
        for node in self.world.cluster.nodes:
            self.start(node)

    def leave(self) -> None:
        """See Group."""
        for node in self.world.cluster.nodes:
            self.stop(node, signal.SIGTERM)
        for node in self.world.cluster.nodes:
            self.ended(node)
            path = self.world.cluster.config_path(node)
            self.world.lab.spawn(node, _cleanup, str(path)).wait(20)
        _clear(self.world, list(self.world.cluster.nodes))


@dataclass(slots=True)
class KeepalivedGroup:
    """keepalived on two nodes; the third is a real server only."""

    name: str
    world: World
    advert: float
    checks: Checks
    _processes: dict[str, Process] = field(default_factory=dict)

    def start(self, node: str) -> None:
        """See Group."""
        cluster = self.world.cluster
        folder = self.world.folder / node
        folder.mkdir(exist_ok=True)
        task = Task(str(VIP), PORT, LINK, [cluster.address(name) for name in cluster.nodes])
        member = Member("BACKUP", PRIORITIES[node], self.advert, sync=True, alpha=False)
        path = folder / "keepalived.conf"
        path.write_text(configuration(task, self.checks, member))
        self._processes[node] = self.world.lab.exec_in(node, command(path, folder))

    def stop(self, node: str, number: int) -> None:
        """See Group."""
        process = self._processes[node]
        if number == signal.SIGKILL:
            kill_keepalived(process)
        else:
            process.kill(number)

    def ended(self, node: str) -> None:
        """See Group."""
        self._processes[node].wait(10)
        _clear(self.world, [node])

    def enter(self) -> None:
        """See Group."""
        self.world.prepare_real_servers(*self.world.cluster.nodes)
        for node in PRIORITIES:
            self.start(node)

    def leave(self) -> None:
        """See Group."""
        for node in PRIORITIES:
            self.stop(node, signal.SIGTERM)
        for node in PRIORITIES:
            self.ended(node)
        self.world.restore_real_servers(*self.world.cluster.nodes)


def _cleanup(path: str) -> int:
    from revip.cli.main import main

    return main(["cleanup", "--config", path])


def _clear(world: World, nodes: list[str]) -> None:
    for node in nodes:
        world.cluster.run_in(node, "ipvsadm", "-C")
        for role in ("master", "backup"):
            with contextlib.suppress(LabError):  # it does not run, as it should be
                world.cluster.run_in(node, "ipvsadm", "--stop-daemon", role)
        with contextlib.suppress(LabError):  # it is gone, as it should be
            world.cluster.run_in(node, "ip", "address", "del", f"{VIP}/32", "dev", LINK)


def groups(world: World) -> list[Group]:
    """Return who is compared."""
    return [
        RevipGroup(DEFAULT, world, "1s", "default"),
        KeepalivedGroup(KEEPALIVED, world, 1.0, SECOND),
        RevipGroup(FAST, world, "100ms", "fast"),
        KeepalivedGroup(KEEPALIVED_QUICK, world, 0.1, QUICK),
    ]


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until `condition` holds; raises LabError that names it."""
    deadline = time.monotonic() + READY_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"not within {READY_SECONDS:g} s: {what}")
        time.sleep(0.02)
