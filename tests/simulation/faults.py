"""What may befall a cluster: each fault is a value, so that a schedule can be thinned out."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.simulation.kernel import Refusal
from tests.simulation.servers import Mood
from tests.simulation.setup import Setup
from tests.simulation.vandals import DEEDS, disturb

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.world import World

End = Callable[[], None]

MOODS = {
    "die": Mood.REFUSING,
    "hang": Mood.HANGING,
    "unready": Mood.UNREADY,
    "slow": Mood.SLOW,
}
REFUSALS = (
    *(("write", number) for number in (errno.EPERM, errno.ENOBUFS, errno.ENOMEM)),
    ("AddDestination", errno.EEXIST),
    ("SetDestination", errno.ENOENT),
    ("DeleteDestination", errno.ENOENT),
    ("AddServer", errno.EEXIST),
    ("dump", errno.ENOBUFS),
    ("short", errno.EINTR),
    ("address", errno.EPERM),
    ("address", errno.ENOBUFS),
)
KINDS = (
    *("crash", "crash", "kill", "kill", "forget", "stop", "freeze", "freeze", "stall", "halt"),
    *("keeper killed", "keeper frozen", "both killed", "both frozen"),
    *("carrier", "mute", "deaf", "breathless", "wall"),
    *("cut", "cut", "isolate", "split", "loss", "delay", "double"),
    *(
        "die",
        "die",
        "die",
        "hang",
        "hang",
        "unready",
        "unready",
        "slow",
        "flap",
        "all",
        "others",
        "hangup",
    ),
    *("refuse", "refuse", "refuse", "vandal", "vandal", "vandal", "fight"),
)


@dataclass(frozen=True)
class Fault:
    """One fault: when, for how long, of what kind, and to whom."""

    at: int
    lasts: int
    kind: str
    node: int
    other: int
    level: int
    """0 to 99, for each kind to make of it what it needs."""

    def __str__(self) -> str:
        return (
            f"{self.at / 1000:8.3f} s  {self.kind} for {self.lasts} ms: "
            f"n{self.node}, n{self.other}, {self.level}"
        )

    def begin(self, world: World) -> None:
        """Let it happen, and have it end."""
        world.trace("fault:", self.kind, self.node, self.other, self.level, "lasts", self.lasts)
        end = _begun(self, world)
        if end is not None:
            world.after(self.lasts, _ended, self, world, end)


def _ended(fault: Fault, world: World, end: End) -> None:
    world.trace("fault ends:", fault.kind, fault.node, fault.other)
    end()


def draw(dice: random.Random, setup: Setup, until: int) -> list[Fault]:
    """Draw a schedule whose last fault has ended by `until`: calm at times, a storm at others."""
    faults: list[Fault] = []
    at = dice.randrange(15_000)
    # Some worlds know few kinds of faults: these go together more often there.
    kinds = KINDS if dice.random() < 0.6 else tuple(dice.sample(KINDS, 6))
    while at < until:
        for _ in range(dice.choice((1, 1, 2, 4))):
            lasts = dice.choice((1, 50, 400, 2000, 5000, 12_000, 30_000))
            node, other = dice.randrange(setup.nodes), dice.randrange(setup.nodes)
            fault = Fault(
                at, min(lasts, until - at), dice.choice(kinds), node, other, dice.randrange(100)
            )
            faults.append(fault)
            at += dice.choice((0, 3, 100, 700, 3000))
        at += dice.choice((1000, 10_000, 30_000, 60_000))
    return [fault for fault in faults if fault.at + fault.lasts <= until]


def _begun(fault: Fault, world: World) -> End | None:
    """Begin a fault; return what ends it."""
    if fault.kind in MOODS or fault.kind in ("flap", "all", "others", "hangup"):
        return _server(fault, world)
    if fault.kind in ("cut", "isolate", "split", "loss", "delay", "double"):
        return _network(fault, world)
    if fault.kind in ("keeper killed", "keeper frozen", "both killed", "both frozen"):
        return _keeper(fault, world)
    if fault.kind in ("crash", "kill", "forget", "stop", "freeze", "stall", "halt"):
        return _process(fault, world)
    return _host(fault, world)


def _process(fault: Fault, world: World) -> End | None:
    host = world.hosts[fault.node]
    agent, boots = host.agent, host.boots
    match fault.kind:
        case "crash":
            host.crash()
            return host.boot
        case "kill" | "forget":
            world.trace("kill", host.number)
            host.kill()
            if fault.kind == "forget":
                host.forget()
            return host.start
        case "stop":
            host.stop()
            return host.start_after_exit
        case "freeze" if agent is not None:
            host.freeze()
            return lambda: host.thaw(agent)
        case "halt" if host.up:
            host.halt()
            return lambda: host.resume(boots, fault.lasts)
        case "stall":
            host.stall = fault.lasts
    return None


def _keeper(fault: Fault, world: World) -> End | None:
    """Do something to the keeper, or to both processes, as to a container."""
    host = world.hosts[fault.node]
    agent, process = host.agent, host.agent.link.process if host.agent is not None else None
    both = fault.kind.startswith("both")
    if process is None or not process.begun:  # its agent waits 30 s for an interpreter
        return None
    if fault.kind.endswith("frozen"):
        process.freeze()
        if both:
            host.freeze()

        def thaw() -> None:
            process.thaw()
            if both:
                host.thaw(agent)

        return thaw
    world.trace("kill the keeper", host.number)
    if both:
        host.kill()
    process.end()
    return host.start if both else None


def _host(fault: Fault, world: World) -> End | None:
    host = world.hosts[fault.node]
    match fault.kind:
        case "carrier":
            return _switched(world, host, "carrier_lost")
        case "mute" | "deaf" | "breathless":
            return _switched(world, host, fault.kind)
        case "wall":
            host.clock.wall += (fault.level - 50) * 72_000  # an hour, this way or that
            return None
        case "refuse":
            what, number = REFUSALS[fault.level % len(REFUSALS)]
            refusal = Refusal(number, what, 100 if fault.level % 2 else 50)
            host.kernel.refusals.append(refusal)
            world.look()
            return lambda: _accept(world, host.kernel.refusals, refusal)
        case "vandal":
            disturb(host, DEEDS[fault.level % len(DEEDS)])
        case "fight":
            every = (20, 130, 600, 2500)[fault.level % 4]
            for at in range(0, min(fault.lasts, 40 * every), every):
                world.after(at, disturb, host, DEEDS[fault.level % len(DEEDS)])
    return None


def _accept(world: World, refusals: list[Refusal], refusal: Refusal) -> None:
    refusals.remove(refusal)
    world.look()


def _switched(world: World, host: Host, name: str) -> End:
    """Count one more fault of this name on the host, and one less at its end."""

    def switch(by: int) -> None:
        setattr(host, name, getattr(host, name) + by)
        world.doubt() if name == "breathless" else world.look()
        world.switched(host, name)

    switch(+1)
    return lambda: switch(-1)


def _network(fault: Fault, world: World) -> End:
    network, everybody = world.network, range(world.setup.nodes)
    percent = 10 + fault.level // 2
    match fault.kind:
        case "loss":
            return _listed(world, network.losses, percent)
        case "delay":
            return _listed(world, network.delays, (50, 200, 900)[fault.level % 3])
        case "double":
            return _listed(world, network.copies, percent)
        case "cut":
            pairs = [(fault.node, fault.other)]
        case "isolate":
            pairs = [p for n in everybody for p in ((n, fault.node), (fault.node, n))]
        case _:
            inside = {n for n in everybody if fault.level >> n & 1}
            pairs = [(a, b) for a in everybody for b in everybody if (a in inside) != (b in inside)]

    def change(by: int) -> None:
        for pair in pairs:
            network.cuts[pair] += by
        world.look()

    change(+1)
    return lambda: change(-1)


def _listed(world: World, wanted: list[int], value: int) -> End:
    wanted.append(value)
    world.doubt()

    def end() -> None:
        wanted.remove(value)
        world.doubt()

    return end


def _server(fault: Fault, world: World) -> End | None:
    if fault.kind == "hangup":
        world.hang_up(fault.node)
        return None
    mood = MOODS.get(fault.kind) or tuple(MOODS.values())[fault.level % len(MOODS)]
    everybody = range(world.setup.nodes)
    servers = {
        "all": list(everybody),
        "others": [server for server in everybody if server != fault.node],
    }.get(fault.kind, [fault.node])
    mood = Mood.HANGING if fault.kind == "others" else mood
    if fault.kind == "flap":
        every = (40, 300, 1500, 6000)[fault.level % 4]
        for at in range(0, min(fault.lasts, 24 * every), 2 * every):
            world.after(at, world.feel, fault.node, mood, True)
            world.after(at + every, world.feel, fault.node, mood, False)
        return None

    def change(begins: bool) -> None:
        for server in servers:
            world.feel(server, mood, begins)

    change(True)
    return lambda: change(False)
