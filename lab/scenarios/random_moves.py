"""Random faults, one after the other, while an observer never looks away: who answers, and when.

Each telling has eight faults from a seed of its own; `script/lab run random-moves --repeat 25` is
the long one, with 200.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from pyroute2.netlink.exceptions import NetlinkError

from lab import vigil
from lab.cluster import Cluster, now
from lab.net import LINK, routes
from lab.scenario import Run, scenario
from lab.scenarios.announcing import opened, wait
from lab.scenarios.election import elected
from lab.scenarios.failover import UNPLANNED_MS, WATCHED, Vigil, lost

FAULTS = 8
STREAMS = 6
SEED = 2026
_TOLD = itertools.count()
"""Tellings in this process: each has another seed."""
INTERVAL = "500ms"
"""Between adverts.  An agent that is started anew takes half a second of the guest's only
processor from all the others, and adverts of 100 ms do not bear that."""
YIELDED_MS = 1500
"""At most so long do two answer when one yields: until it hears the other, one advert; then the
300 ms of the hand-over; and what a busy guest adds."""
DOWN_MS = 1900
"""Active_Down_Interval (RFC 9568) of the least node, and a little."""
MARGIN_MS = 500
"""What a busy guest adds to that.

A fault that begins or ends while nobody answers makes the rest wait once more, and so does each
time that the whole guest stood still for long: its nodes then listen anew, as they must.
"""
STALL = 300 * vigil.MS
SEEN_MS = 150
"""A shorter silence may be the guest's only processor, busy elsewhere."""
AFTER_MS = 4000
"""What happens so soon after a fault's end is due to it: a node that returns listens first, and
then takes over from the lesser one."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens to a node, and its end."""

    name: str
    begin: Callable[[str], None]
    end: Callable[[str], None]
    window_ms: float = YIELDED_MS
    """How long two may answer because of it."""
    deaf: bool = False
    """Nobody can answer until it ends if it hits the director: VRRP does not notice."""


@dataclass(frozen=True, slots=True)
class Happened:
    """A fault that happened."""

    fault: Fault
    node: str
    began: int
    ended: int

    def __str__(self) -> str:
        return f"{self.fault.name} of {self.node} for {(self.ended - self.began) / 1e6:.0f} ms"


@scenario(
    "random-moves",
    "eight random faults: never two answer beyond the window, and always somebody soon",
    topology=WATCHED,
)
def random_moves(run: Run) -> None:
    """Hurt one node after the other, at moments of chance; judge what the observer recorded."""
    seed = SEED + next(_TOLD)
    chance = random.Random(seed)
    run.say(f"seed {seed}")
    with Cluster(run, adjust=elected(INTERVAL)) as cluster:
        held = cluster.streams(STREAMS)
        wait(lambda: opened(held.path) == STREAMS, "the streams are open")
        load = cluster.load(kept_rate=20, new_rate=4)
        watch = Vigil(cluster)
        deck = faults(cluster)
        history = [_suffer(run, watch, cluster, chance, deck) for _ in range(FAULTS)]
        time.sleep(2.0)
        run.check(len(watch.recently()) == 1, f"one answers at the end: {watch.recently()}")
        seen, requests, gone = watch.end(), load.finish(), lost(held.process, held.path)
        _judge(run, seen, history)
        new = vigil.read(watch.doors)
        run.figure("new_connections", len(new))
        run.figure("new_connections_failed", sum(one.who == "-" for one in new))
        run.figure("requests", requests.requests)
        run.figure("failed_requests", requests.failures)
        run.figure(f"streams_lost_of_{STREAMS}", len(gone))
        for one in gone:
            run.say(f"stream on {one.backend}: {one.fate}")


def faults(cluster: Cluster) -> tuple[Fault, ...]:
    """Return what may happen to a node."""
    agents, network = cluster.agents, cluster.lab.network

    def stopped(number: int) -> Callable[[str], None]:
        def stop(node: str) -> None:
            agents[node].kill(number)
            if number == signal.SIGKILL:
                agents[node].wait(5)

        return stop

    def started(node: str) -> None:
        agents[node].wait(10)
        cluster.start_agent(node)

    def set_link(state: str) -> Callable[[str], None]:
        def change(node: str) -> None:
            with routes(network[node].namespace) as rtnl:
                rtnl.link("set", index=rtnl.link_lookup(ifname=LINK)[0], state=state)

        return change

    def delete(node: str) -> None:
        with routes(network[node].namespace) as rtnl:
            index = rtnl.link_lookup(ifname=LINK)[0]
            with contextlib.suppress(NetlinkError):  # it is not there
                rtnl.addr("del", index=index, address=str(cluster.vip), prefixlen=32)

    def nothing(_: str) -> None:
        """End what has ended by itself."""

    return (
        Fault("planned", stopped(signal.SIGTERM), started),
        Fault("killed", stopped(signal.SIGKILL), started, UNPLANNED_MS),
        Fault("frozen", stopped(signal.SIGSTOP), stopped(signal.SIGCONT), UNPLANNED_MS),
        Fault("deleted", delete, nothing),
        Fault("link-down", set_link("down"), set_link("up")),
        Fault("carrier", network.link_down, network.link_up),
        Fault("cut", network.cut, network.mend),
        Fault(
            "mute",
            lambda node: network.mute(node, muted=True),
            lambda node: network.mute(node, muted=False),
        ),
        Fault("deaf", lambda node: network.netem(node, loss_percent=100), network.netem, deaf=True),
    )


def _suffer(
    run: Run, watch: Vigil, cluster: Cluster, chance: random.Random, deck: tuple[Fault, ...]
) -> Happened:
    """Let one fault happen, mostly to who answers; return when it did."""
    fault = chance.choice(deck)
    holders = sorted(watch.recently() & set(cluster.nodes))
    anybody = chance.choice(sorted(cluster.nodes))
    node = chance.choice(holders) if holders and chance.random() < 0.8 else anybody
    run.say(f"{fault.name} of {node}, while {holders} answer")
    began = now()
    fault.begin(node)
    time.sleep(chance.uniform(0.2, 2.8))
    fault.end(node)
    ended = now()
    time.sleep(chance.uniform(0.2, 1.2))
    return Happened(fault, node, began, ended)


def _judge(run: Run, seen: list[vigil.Seen], history: list[Happened]) -> None:
    doubles, gaps = vigil.overlaps(seen), vigil.outages(seen)
    run.figure("faults", len(history))
    for both in doubles:
        # A kill's or a freeze's window runs on while the next fault is there already.
        near = [one for one in history if _may_cause(one, both)]
        allowed = max((one.fault.window_ms for one in near), default=YIELDED_MS)
        kind = "planned" if allowed <= YIELDED_MS else "killed_or_frozen"
        run.figure(f"two_answered_{kind}_ms", both.ms)
        text = f"{' and '.join(sorted(both.who))} answered at once for {both.ms:.0f} ms"
        run.check(both.ms <= allowed, f"{text}, of {allowed:.0f}: {[str(one) for one in near]}")
    for gap in (gap for gap in gaps if gap.ms > SEEN_MS):
        causes = [one for one in history if _around(one, gap)]
        excused = sum(_shared(one, gap) for one in causes if one.fault.deaf)
        run.figure("nobody_answered_ms", gap.ms - excused)
        text = f"nobody answered for {gap.ms:.0f} ms: {[str(one) for one in causes]}"
        instants = [at for one in history for at in (one.began, one.ended)]
        restarts = sum(gap.begin < at < gap.end for at in instants)
        restarts += len(vigil.stalls(seen, gap.begin - DOWN_MS * vigil.MS, gap.end, STALL))
        allowed = DOWN_MS * (1 + restarts) + MARGIN_MS
        run.check(gap.ms - excused <= allowed, f"{text}, of {allowed}")


def _may_cause(one: Happened, both: vigil.Stretch) -> bool:
    reach = int(max(one.fault.window_ms, AFTER_MS) * vigil.MS)
    return one.began - 100 * vigil.MS <= both.begin and both.end <= one.ended + reach


def _around(one: Happened, gap: vigil.Stretch) -> bool:
    late = int(AFTER_MS * vigil.MS)
    return gap.end >= one.began and gap.begin <= one.ended + late


def _shared(one: Happened, gap: vigil.Stretch) -> float:
    return max(0.0, (min(one.ended, gap.end) - max(one.began, gap.begin)) / vigil.MS)
