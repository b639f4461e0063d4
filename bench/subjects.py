"""Who is measured: revip and keepalived, each started and ended in the same way."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import yaml
from lab.net import LINK, PORT, VIP
from lab.places import LabError
from lab.processes import Process

from bench.keepalived import Checks, Task, command, configuration
from bench.world import DIRECTOR, World

START_SECONDS = 20.0
"""Until a subject's table must be full."""
END_SECONDS = 5.0
NO_DAMPING = 1000
"""Changes before flap damping begins: the benchmark does nothing but flap."""


class Subject(Protocol):
    """One balancer with one set of settings."""

    @property
    def name(self) -> str:
        """What the table calls it."""
        ...

    @property
    def period(self) -> float:
        """Its longest period, seconds: a fault must come at a moment of chance within it."""
        ...

    def start(self, world: World) -> Process:
        """Start it on the director (and what it needs on the other nodes)."""
        ...

    def end(self, world: World) -> None:
        """End it; its table and addresses are gone afterwards."""
        ...


class Running:
    """A subject at work with a full table, for a block."""

    def __init__(self, subject: Subject, world: World) -> None:
        self.subject = subject
        self.world = world
        self.process: Process

    def __enter__(self) -> Running:
        """Start it; raises LabError when its table does not fill."""
        self.world.revive()
        self.process = self.subject.start(self.world)
        with self.world.watch(0.02) as watch:
            if watch.until(self.world.everybody, START_SECONDS) is None:
                said = self.process.log.read_text(errors="replace")[-2000:]
                found = watch.weights()
                self.__exit__()
                raise LabError(f"{self.subject.name} filled no table but {found}; it said:\n{said}")
        self.world.pause(self.subject.period)
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.subject.end(self.world)


@dataclass(slots=True)
class Revip:
    """revip's agent with one profile."""

    name: str = "revip"
    profile: str = "default"
    period: float = 0.5
    """The default profile's longest: the reconcile interval."""
    everywhere: bool = False
    """On all nodes, which then prepare themselves as real servers; else only on the director."""
    executed: bool = False
    """A process of its own by execve(2); else a fork of this warm one, which starts sooner."""
    _nodes: list[str] = field(default_factory=list)

    def start(self, world: World) -> Process:
        """See Subject."""
        self._nodes = list(world.cluster.nodes) if self.everywhere else [DIRECTOR]
        for node in self._nodes:
            if self.executed:
                path = self.write_config(world, node)
                argv = [sys.executable, "-m", "revip", "run", "--config", str(path)]
                world.cluster.agents[node] = world.lab.exec_in(node, argv)
            else:
                world.cluster.start_agent(node, self.config(world, node))
        return world.cluster.agents[DIRECTOR]

    def end(self, world: World) -> None:
        """See Subject."""
        for node in self._nodes:
            world.cluster.agents[node].kill(15)
        for node in self._nodes:
            world.cluster.agents[node].wait(END_SECONDS)
        world.clear()

    def config(self, world: World, node: str) -> dict[str, object]:
        """Return the agent's configuration: what the lab uses, and it cleans up behind itself."""
        document = world.cluster.config(node)
        health = {"profile": self.profile, "damping_changes": NO_DAMPING}
        document["virtual_servers"][0]["health"] = health
        document["agent"]["on_exit"] = "withdraw"
        return document

    def write_config(self, world: World, node: str) -> Path:
        """Write the configuration file and return its path."""
        path = world.cluster.config_path(node)
        path.write_text(yaml.safe_dump(self.config(world, node), sort_keys=False))
        return path


@dataclass(slots=True)
class Keepalived:
    """keepalived with one set of checks."""

    name: str
    checks: Checks
    real_servers: bool = False
    """Prepare the other nodes, so that traffic flows."""
    _process: Process | None = None

    @property
    def period(self) -> float:
        """See Subject."""
        return self.checks.delay_loop

    def start(self, world: World) -> Process:
        """See Subject."""
        if self.real_servers:
            world.prepare_real_servers()
        self._process = world.lab.exec_in(DIRECTOR, self.command(world))
        return self._process

    def end(self, world: World) -> None:
        """See Subject."""
        if self._process is not None:
            self._process.end()
        world.clear()
        if self.real_servers:
            world.restore_real_servers()

    def command(self, world: World) -> list[str]:
        """Write the configuration and return the command that runs it."""
        addresses = [world.cluster.address(node) for node in world.cluster.nodes]
        path = world.folder / "keepalived.conf"
        path.write_text(configuration(Task(str(VIP), PORT, LINK, addresses), self.checks))
        return command(path, world.folder)


SECOND = Checks(delay_loop=1.0, connect_timeout=1.0)
QUICK = Checks(delay_loop=0.2, connect_timeout=0.3)
GENTLE = Checks(delay_loop=0.2, connect_timeout=0.3, inhibit_on_failure=True)
"""The quick checks for rolling restarts: connections of a real server that is down go on."""

DEFAULT, FAST = "revip", "revip fast"
KEEPALIVED, KEEPALIVED_QUICK = "keepalived 1 s", "keepalived 0.2 s"


def contestants() -> list[Subject]:
    """Return who is compared in how fast faults are seen."""
    return [
        Revip(),
        Keepalived(KEEPALIVED, SECOND),
        Revip(FAST, "fast"),
        Keepalived(KEEPALIVED_QUICK, QUICK),
    ]


def alternately(
    world: World, subjects: list[Subject], rounds: int, block: int, play: Callable[[Running], None]
) -> None:
    """Let every subject play `rounds` rounds, in blocks that take turns: A B A B.

    A block is one start of a subject, which takes seconds.
    """
    done = 0
    while done < rounds:
        count = min(block, rounds - done)
        for subject in subjects:
            with Running(subject, world) as running:
                for _ in range(count):
                    play(running)
        done += count
