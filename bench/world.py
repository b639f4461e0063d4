"""Where it happens: the lab's network and stand-ins, an observer, and nobody else."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.cluster import Cluster
from lab.net import LINK, PORT, PREFIX, SWITCH, VIP, routes
from lab.observer import NAP_SECONDS, POLL_SECONDS, TableReader
from lab.places import LabError
from lab.processes import Lab
from lab.scenario import Run

DIRECTOR = "n1"
Weights = dict[str, int] | None
"""Weight by address of the virtual server; None without one."""

_T0 = time.monotonic()


def say(text: str) -> None:
    """Tell progress, on standard error."""
    print(f"bench {time.monotonic() - _T0:6.1f} s  {text}", file=sys.stderr, flush=True)


class World:
    """Three nodes with a stand-in API server each; who directs n1 is up to the subject."""

    def __init__(self, lab: Lab, folder: Path, kernel: str) -> None:
        self.lab = lab
        self.folder = folder
        self.cluster = Cluster(Run(lab, folder, kernel, lambda _: None), agents=())
        self.random = random.Random(2)
        """Where in its period a subject is hit must be chance; the seed makes it repeatable."""

    def __enter__(self) -> World:
        """Start the stand-ins."""
        self.cluster.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """End the stand-ins."""
        self.cluster.__exit__()

    def pause(self, period: float) -> None:
        """Wait for a moment of chance within `period` seconds."""
        time.sleep(self.random.uniform(0, period))

    def watch(self, period: float = POLL_SECONDS) -> Watch:
        """Return an observer of the director's table; it looks every `period` seconds."""
        with self.lab.network.inside(DIRECTOR):
            return Watch(period)

    def kill(self, name: str) -> int:
        """Kill the node's API server; return the instant just before, without waiting."""
        now = time.monotonic_ns()
        self.cluster.servers[name].kill()
        return now

    def plug(self, name: str, state: str) -> int:
        """Set the host's port of the bridge `up` or `down`; return the instant just before."""
        with routes(PREFIX + SWITCH) as rtnl:
            (port,) = rtnl.link_lookup(ifname=name)
            now = time.monotonic_ns()
            rtnl.link("set", index=port, state=state)
        return now

    def everybody(self, weights: Weights) -> bool:
        """Whether every API server takes connections and nobody else does."""
        return weights == self.cluster.everybody()

    def without(self, name: str) -> Callable[[Weights], bool]:
        """Return whether the node takes no new connections: out, or with weight 0."""
        address = self.cluster.address(name)
        return lambda weights: weights is not None and not weights.get(address)

    def revive(self) -> None:
        """Start API servers that have ended without being asked to, and say so."""
        for name, server in self.cluster.servers.items():
            if not server.alive:
                last = server.log.read_text(errors="replace")[-500:]
                say(f"the API server of {name} had ended with exit code {server.code}: {last}")
                self.cluster.start(name)

    def clear(self) -> None:
        """Leave nothing of a subject on the director."""
        self.cluster.run_in(DIRECTOR, "ipvsadm", "-C")
        with contextlib.suppress(LabError):  # it is gone, as it should be
            self.cluster.run_in(DIRECTOR, "ip", "address", "del", f"{VIP}/32", "dev", LINK)

    def prepare_real_servers(self, *nodes: str) -> None:
        """Do by hand, on n2 and n3 by default, what keepalived leaves to the administrator."""
        for node in nodes or ("n2", "n3"):
            self.cluster.run_in(node, "sysctl", "-qw", *(f"{n}={v}" for n, v in _REAL_SERVER))
            self.cluster.run_in(node, "ip", "address", "replace", f"{VIP}/32", "dev", "lo")

    def restore_real_servers(self, *nodes: str) -> None:
        """Undo `prepare_real_servers`."""
        for node in nodes or ("n2", "n3"):
            self.cluster.run_in(node, "ip", "address", "del", f"{VIP}/32", "dev", "lo")
            self.cluster.run_in(node, "sysctl", "-qw", *(f"{n}=0" for n, _ in _REAL_SERVER))


_REAL_SERVER = (("net.ipv4.conf.all.arp_ignore", "1"), ("net.ipv4.conf.all.arp_announce", "2"))


class Watch:
    """Looks at the table of the namespace it was made in; a context manager."""

    def __init__(self, period: float) -> None:
        self.period = period
        self._reader = TableReader().__enter__()

    def __enter__(self) -> Watch:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the socket."""
        self._reader.__exit__()

    def weights(self) -> Weights:
        """Return the table as it is now."""
        for service in self._reader.read():
            if service.address == str(VIP) and service.port == PORT:
                return service.weights
        return None

    def until(
        self,
        wanted: Callable[[Weights], bool],
        seconds: float,
        sentinel: Sentinel | None = None,
    ) -> int | None:
        """Return the instant (monotonic ns) at which `wanted` was seen; None after `seconds`."""
        due = time.monotonic()
        deadline = due + seconds
        while True:
            weights = self.weights()
            now = time.monotonic_ns()
            if sentinel is not None:
                sentinel.look(now)
            if wanted(weights):
                return now
            if time.monotonic() > deadline:
                return None
            due = max(due + self.period, time.monotonic())
            time.sleep(max(NAP_SECONDS, due - time.monotonic()))


@dataclass(slots=True)
class Sentinel:
    """A connection to an API server that tells when the kernel has ended it."""

    connection: socket.socket
    ended: int | None = None

    @classmethod
    def to(cls, world: World, name: str) -> Sentinel:
        """Connect from the director."""
        with world.lab.network.inside(DIRECTOR):
            return cls(socket.create_connection((world.cluster.address(name), PORT), 2.0))

    def look(self, now: int) -> None:
        """Note `now` when the connection has just ended."""
        if self.ended is None and select.select([self.connection], [], [], 0)[0]:
            self.ended = now

    def close(self) -> None:
        """Close it."""
        self.connection.close()


def milliseconds(since: int, until: int | None) -> float | None:
    """Return the milliseconds between two instants; None when there is no second."""
    return None if until is None else max(0.0, (until - since) / 1e6)
