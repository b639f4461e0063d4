"""Somebody outside the cluster has the virtual IP, too: told with its hardware address."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from lab.cluster import Cluster, Config, milliseconds, now
from lab.net import LINK
from lab.scenario import Run, scenario
from lab.scenarios.announcing import wait
from lab.scenarios.election import answering, elected, present

INTRUDER = "c1"


@scenario("duplicate-address", "another host has the VIP: named at once, defended or left alone")
def duplicate_address(run: Run) -> None:
    """Give the client the director's VIP, as a mistake would: its kernel only answers for it."""
    for family in (4, 6):
        _defended(run, family)
        _yielded(run, family)


@scenario("fellows-are-no-strangers", "frozen, killed, stopped holders: no duplicate is told")
def fellows_are_no_strangers(run: Run) -> None:
    """Make two nodes answer for the VIP in each documented way; a stranger is told all the same."""
    with Cluster(run, adjust=elected("1s")) as cluster:
        cluster.agents["n1"].kill(signal.SIGSTOP)
        _until_directs(cluster, "n2")
        wait(lambda: answering(cluster) == {"n2"}, "the frozen node answers no longer")
        _until_quiet(run, cluster, "n2", "a frozen holder's kernel went on answering")
        cluster.agents["n1"].kill(signal.SIGCONT)
        _until_directs(cluster, "n1")
        _until_quiet(run, cluster, "n1", "a better node took over from a living one")
        cluster.agents["n1"].kill(signal.SIGKILL)
        _until_directs(cluster, "n2")
        wait(lambda: answering(cluster) == {"n2"}, "the killed one's node answers no longer")
        _until_quiet(run, cluster, "n2", "a killed holder's kernel went on answering")
        cluster.agents["n2"].kill(signal.SIGTERM)
        _until_directs(cluster, "n3")
        _until_quiet(run, cluster, "n3", "a planned hand-over")
        at = now()
        _intrude(cluster, "add")
        cluster.until_told("n3", "vip.conflict", run.lab.network[INTRUDER].mac, 5.0)
        run.figure("intruder_to_alert_ms", milliseconds(at, now()))
        _intrude(cluster, "del")


def _until_directs(cluster: Cluster, node: str) -> None:
    wait(lambda: present(cluster, node), f"{node} directs")


def _until_quiet(run: Run, cluster: Cluster, node: str, story: str) -> None:
    """Give the holder time for two questions; then it must have told nothing."""
    time.sleep(2.2)
    told = cluster.told(node, "vip.conflict")
    run.check(not told, f"{story}: {node} tells nothing: {told}")


def _defended(run: Run, family: int) -> None:
    with Cluster(run, family=family, adjust=_policy("defend")) as cluster:
        run.check(not cluster.told("n1", "vip.conflict"), "alone: nothing is told")
        at = now()
        _intrude(cluster, "add")
        mac = run.lab.network[INTRUDER].mac
        cluster.until_told("n1", "vip.conflict", mac, 5.0)
        named = milliseconds(at, now())
        run.figure(f"intruder_to_alert_ipv{family}_ms", named)
        run.check(named < 2500, f"named within {named:.0f} ms")
        run.check(present(cluster, "n1"), "the director keeps the address")
        time.sleep(2.0)
        told = cluster.told("n1", "vip.conflict")
        run.check(len(told) == 1, f"told once: {told}")
        seen = cluster.server_status("n1")["duplicates"]
        run.check(seen["defenses"] == 1, f"defended once within 10 s: {seen}")
        run.check(not cluster.told("n2", "vip.conflict"), "a follower has nothing to tell")
        _intrude(cluster, "del")
        cluster.until_reachable()


def _yielded(run: Run, family: int) -> None:
    with Cluster(run, family=family, adjust=_policy("yield"), agents=("n2", "n3")) as cluster:
        _intrude(cluster, "add")
        cluster.start_agent("n1")
        mac = run.lab.network[INTRUDER].mac
        cluster.until_told("n1", "vip.conflict", mac, 15.0)
        time.sleep(1.0)
        run.check(not present(cluster, "n1"), "cold start: the address in use is left alone")
        at = now()
        _intrude(cluster, "del")
        wait(lambda: present(cluster, "n1"), "it is taken once nobody answers")
        run.figure(f"free_to_taken_ipv{family}_ms", milliseconds(at, now()))
        cluster.until_reachable()
        at = now()
        _intrude(cluster, "add")
        wait(lambda: not present(cluster, "n1"), "the holder gives it up")
        gone = milliseconds(at, now())
        run.figure(f"intruder_to_yielded_ipv{family}_ms", gone)
        run.check(gone < 3000, f"given up within {gone:.0f} ms")
        _intrude(cluster, "del")
        wait(lambda: present(cluster, "n1"), "and takes it again")
        cluster.until_reachable()


def _policy(policy: str) -> Callable[[Config, str], None]:
    def adjust(document: Config, _: str) -> None:
        document["agent"]["on_exit"] = "withdraw"
        server = document["virtual_servers"][0]
        server["on_duplicate"] = policy
        server["health"] = {"timeout": "5s", "connect_timeout": "2s"}

    return adjust


def _intrude(cluster: Cluster, verb: str) -> None:
    """Add or delete the VIP on a host that is no node."""
    bits = cluster.vip.max_prefixlen
    nodad = ["nodad"] if cluster.family == 6 and verb == "add" else []
    cluster.run_in(INTRUDER, "ip", "address", verb, f"{cluster.vip}/{bits}", "dev", LINK, *nodad)
