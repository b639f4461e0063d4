"""Moments in the life of a node, as `revip status` gets them: a real planner on a model kernel."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from revip.api.status import status
from revip.errors import KernelError
from revip.model.health import BackendName, Finding, ProbeResult
from revip.model.instants import Span
from revip.model.ipvs import DestinationCounters, Observation
from revip.model.notes import Note
from tests.planner.test_node import REFUSED, UNREADY, VIP, World, spec

HUNG = ProbeResult(Finding.FAILED, "TLS handshake not finished in 1000 ms", Span(1000), "tls")
N2 = BackendName("n2")
BOOT = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
"""When the model's clock stood at 0."""


def snapshot(world: World, **changes: Any) -> dict[str, Any]:
    """Return what the agent of `world` would answer."""
    return {
        **status(world.node, world.now),
        "up_ms": world.now - 1_000,
        "host": {"error": None, "repairs": 0, "failures": 0, "pending": []},
        "log_lines_dropped": 0,
        "unrecorded": None,
        "events": [_event(note) for note in world.notes[-10:]],
        **changes,
    }


def _event(note: Note) -> dict[str, Any]:
    stamp = BOOT + timedelta(milliseconds=note.at)
    return {
        "time": stamp.isoformat(timespec="milliseconds"),
        "event": note.kind.value,
        "level": note.level.value,
        "virtual_server": note.virtual_server,
        "backend": note.backend,
        "text": note.text,
    }


def healthy(owner: str = "n1") -> World:
    """Return a node whose three backends have been well for a while, with traffic."""
    world = World(spec(owner))
    world.run(130_000)
    counters = {
        (VIP, entry.backend.address, entry.backend.port): DestinationCounters(active=12 + n)
        for n, entry in enumerate(world.node.services["api"].entries.values())
    }
    world.perform(
        world.node.observe(Observation(world.kernel, counters), world.node.keys, world.now)
    )
    return world


def one_out() -> dict[str, Any]:
    """n2 refuses connections."""
    world = healthy()
    world.answers[N2] = REFUSED
    world.run(95_000)
    return snapshot(world)


def one_hung() -> dict[str, Any]:
    """n2 accepts and says nothing."""
    world = healthy()
    world.answers[N2] = HUNG
    world.run(7_000)
    return snapshot(world)


def not_ready() -> dict[str, Any]:
    """n2 answers 500."""
    world = healthy()
    world.answers[N2] = UNREADY
    world.run(7_000)
    return snapshot(world)


def drained() -> dict[str, Any]:
    """The operator drains n2."""
    world = healthy()
    world.perform(world.node.drain("api", N2, True, world.now))
    world.run(300_000)
    return snapshot(world)


def panic() -> dict[str, Any]:
    """Nobody answers."""
    world = healthy()
    world.answers = dict.fromkeys(world.answers, REFUSED)
    world.run(42_000)
    return snapshot(world)


def fight() -> dict[str, Any]:
    """Somebody deletes the virtual server twice a second."""
    world = healthy()
    for _ in range(12):
        world.kernel = {}
        world.run(500)
    return snapshot(world)


def no_module() -> dict[str, Any]:
    """ip_vs is not loaded."""
    world = healthy()
    sentence = (
        "the IPVS kernel module is not loaded: run `modprobe ip_vs` (on Ubuntu it is in package "
        "linux-modules-extra-$(uname -r))"
    )
    world.refuses = KernelError(2, "read the IPVS table", sentence)
    world.answers[N2] = REFUSED
    world.run(30_000)
    return snapshot(world)


def no_interface() -> dict[str, Any]:
    """The interface is not there."""
    error = "find the address of eth0: there is no interface eth0: set interface to one of: ens3"
    host = {"error": error, "repairs": 0, "failures": 3, "pending": []}
    return snapshot(healthy(), host=host)


def follower() -> dict[str, Any]:
    """n2 directs, this node follows."""
    return snapshot(healthy("n2"))


def paused() -> dict[str, Any]:
    """Observing only, while n2 is out and still in the kernel."""
    world = healthy()
    world.perform(world.node.pause(True, world.now))
    world.answers[N2] = REFUSED
    world.run(10_000)
    return snapshot(world)


def ours() -> dict[str, Any]:
    """This node has no route to anybody."""
    world = healthy()
    lost = ProbeResult(Finding.OURS, "no route from this host: check its interface and routes")
    world.answers = dict.fromkeys(world.answers, lost)
    world.run(42_000)
    return snapshot(world)


def well() -> dict[str, Any]:
    """Everybody answers."""
    return snapshot(healthy())


MOMENTS: dict[str, Callable[[], dict[str, Any]]] = {
    "healthy": well,
    "one out": one_out,
    "one hung": one_hung,
    "not ready": not_ready,
    "drained": drained,
    "panic": panic,
    "fight": fight,
    "no module": no_module,
    "no interface": no_interface,
    "follower": follower,
    "paused": paused,
    "a fault of ours": ours,
}


@cache
def _lived(moment: str) -> dict[str, Any]:
    return MOMENTS[moment]()


def at(moment: str) -> dict[str, Any]:
    """Return a snapshot of that moment, to keep and to change."""
    return deepcopy(_lived(moment))
