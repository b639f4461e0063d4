"""The virtual IP moves when Maglev's hash is no longer what the open streams began with.

With the sync daemons the next director knows each connection; without them, as the second half of
each scenario shows, it sends those of a backend that drains or had been out somewhere else.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

from lab import clients
from lab.cluster import Cluster, Config, Load, milliseconds, now
from lab.scenario import Run, scenario
from lab.scenarios.announcing import finished, opened, wait
from lab.scenarios.election import answering, elected

STREAMS = 30
REFRESHED = 6.5
"""Seconds in which every stream with traffic has been told to the followers at least once."""
RESET = 5.0
"""Seconds after the new director's first answer; a client's own pings take far longer."""
OUT = "n3"
"""The backend that drains, or is out: neither the leader nor its successor."""


@scenario("move-during-drain", "the VIP moves while a backend drains: no stream is lost")
def move_during_drain(run: Run) -> None:
    """Open streams, drain one backend everywhere, move the VIP by SIGTERM and by SIGKILL."""

    def before(cluster: Cluster) -> Load:
        held = open_streams(cluster)
        drained = {**cluster.everybody(), cluster.address(OUT): 0}
        cluster.control(OUT).set("unready")
        cluster.until(drained, 10.0)
        time.sleep(1.0)  # so that the others have judged it, too
        return held

    compare(run, before)


@scenario("move-after-outage", "the VIP moves after a backend was out: no stream is lost")
def move_after_outage(run: Run) -> None:
    """Open streams while one backend is out, let it return, move the VIP."""

    def before(cluster: Cluster) -> Load:
        cluster.kill(OUT)
        cluster.until(cluster.all_but(OUT), 10.0)
        held = open_streams(cluster)
        cluster.start(OUT)
        cluster.until(cluster.everybody(), 15.0)
        time.sleep(1.0)
        return held

    compare(run, before)


@scenario("move-from-a-dead-host", "the director's host dies: its own streams are reset at once")
def move_from_a_dead_host(run: Run) -> None:
    """Pull the leader's cable: what it served must be told so, and nothing else be lost."""
    for family in (4, 6):
        with Cluster(run, family=family, adjust=elected("1s")) as cluster:
            until_all_answer(cluster)
            held = open_streams(cluster)
            time.sleep(REFRESHED)
            at = now()
            cluster.lab.network.link_down("n1")
            wait(partial(_answers, cluster, "n2"), "n2 answers")
            answers = now()
            time.sleep(RESET + 1.0)
            streams = finished(held.process, held.path)
            cluster.lab.network.link_up("n1")
            its_own = [stream for stream in streams if stream.backend == "n1"]
            late = [s.fate for s in its_own if (s.ended or now()) > answers + RESET * 1e9]
            run.figure(f"ipv{family}_streams_on_the_dead_host", len(its_own))
            run.figure(
                f"ipv{family}_last_reset_ms",
                max(milliseconds(at, s.ended or now()) for s in its_own),
            )
            run.check(not late, f"its own streams were reset within {RESET:g} s: {late}")
            lost = [s.backend for s in streams if s.backend != "n1" and s.fate != "alive"]
            run.check(not lost, f"IPv{family}: no other stream is lost: {lost}")


def compare(run: Run, before: Callable[[Cluster], Load]) -> None:
    """Move with the sync daemons, where nothing may be lost, and without, to show what was."""
    for family, number in ((4, signal.SIGTERM), (4, signal.SIGKILL), (6, signal.SIGTERM)):
        name = f"ipv{family}_{number.name.lower()}"
        lost = lost_at_a_move(run, before, family, number, name, sync="auto")
        run.check(not lost, f"no stream is lost, {name}: {lost}")
    name = "ipv4_sigterm_without_sync"
    lost = lost_at_a_move(run, before, 4, signal.SIGTERM, name, sync="off")
    run.check(lost, "without the sync daemons some are, so this shows something")


def lost_at_a_move(
    run: Run,
    before: Callable[[Cluster], Load],
    family: int,
    number: signal.Signals,
    name: str,
    *,
    sync: str,
) -> list[str]:
    """Return the fates of the streams that the move from n1 to n2 has cost."""

    def adjust(document: Config, node: str) -> None:
        elected("1s")(document, node)
        document["agent"]["sync"] = sync

    run.say(name.replace("_", " "))
    with Cluster(run, family=family, adjust=adjust) as cluster:
        until_all_answer(cluster)
        held = before(cluster)
        if sync == "auto":
            stopped_and_back(run, cluster)
        time.sleep(REFRESHED)
        at = now()
        cluster.agents["n1"].kill(number)
        wait(lambda: answering(cluster) == {"n2"}, "only n2 answers")
        run.figure(f"{name}_until_one_answers_ms", milliseconds(at, now()))
        time.sleep(3.0)
        streams = finished(held.process, held.path)
    lost = Counter(f"{s.fate} on {s.backend}" for s in streams if s.fate != "alive")
    run.figure(f"{name}_streams_lost_of_{STREAMS}", lost.total())
    run.event("lost", name=name, fates=dict(lost))
    return [f"{count} {fate}" for fate, count in lost.items()]


def stopped_and_back(run: Run, cluster: Cluster) -> None:
    """Stop the daemons that the move needs, as a vandal would; they must be back."""
    for node, role in (("n1", "master"), ("n2", "backup")):
        cluster.run_in(node, "ipvsadm", "--stop-daemon", role)
        at = now()
        wait(partial(_only, cluster, node, role), f"{role} runs again on {node}")
        run.figure(f"{role}_back_ms", milliseconds(at, now()))


def runs(cluster: Cluster, node: str) -> set[str]:
    """Return the roles of the sync daemons that run on a node."""
    listed = cluster.run_in(node, "ipvsadm", "-L", "--daemon")
    return {line.split()[0] for line in listed.splitlines() if "sync daemon" in line}


def _answers(cluster: Cluster, node: str) -> bool:
    return node in answering(cluster)


def _only(cluster: Cluster, node: str, role: str) -> bool:
    return runs(cluster, node) == {role}


def until_all_answer(cluster: Cluster) -> None:
    """Wait until every node has answered through the VIP, and so is ready as a follower."""
    answered: set[str | None] = set()

    def all_have() -> bool:
        with cluster.lab.network.inside("c1"):
            answered.add(clients.ask_once(cluster.target(timeout=1.0)).backend)
        return answered >= set(cluster.nodes)

    wait(all_have, "every node answers")


def open_streams(cluster: Cluster) -> Load:
    """Open the streams from the client, and wait until each has a backend."""
    held = cluster.streams(STREAMS)
    wait(lambda: opened(held.path) == STREAMS, "the streams are open")
    begun = [stream.backend for stream in clients.read_streams(held.path)]
    if None in begun:
        raise TimeoutError(f"{begun.count(None)} streams were never answered")
    return held
