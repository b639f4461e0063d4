"""Debian's keepalived and revip share one group: each takes over from the other."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from lab import vigil
from lab.cluster import Cluster, milliseconds, now
from lab.net import LINK, routes
from lab.places import LabError, program
from lab.processes import Process
from lab.scenario import Run, scenario
from lab.scenarios.announcing import wait
from lab.scenarios.election import PRIORITIES, elected
from lab.scenarios.failover import PLANNED_MS, TAKEN_MS, UNPLANNED_MS, WATCHED, Vigil

THEIRS = "n2"
"""The node with keepalived: revip's n1 is better, revip's n3 is worse."""
REAL_SERVER = ("net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2")


class Keepalived:
    """keepalived on a node that is a real server of revip's as well, prepared by hand."""

    def __init__(self, cluster: Cluster, interval: float = 0.1) -> None:
        self._cluster = cluster
        self._folder = cluster.folder / "keepalived"
        self._folder.mkdir()
        self._file = self._folder / "keepalived.conf"
        self._file.write_text(configuration(cluster, interval))
        self._process: Process | None = None
        cluster.run_in(THEIRS, "sysctl", "-qw", *REAL_SERVER)
        cluster.run_in(THEIRS, "ip", "address", "replace", f"{cluster.vip}/32", "dev", "lo")

    def start(self) -> None:
        """Start it."""
        found = program("keepalived")
        if found is None:
            raise LabError("keepalived is not here: run script/bootstrap")
        pids = {"-p": "main.pid", "-r": "vrrp.pid", "-c": "checkers.pid"}
        files = [word for flag, name in pids.items() for word in (flag, str(self._folder / name))]
        argv = [found, "-f", str(self._file), "--dont-fork", "--log-console", "--vrrp", *files]
        self._process = self._cluster.lab.exec_in(THEIRS, argv)

    def stop(self) -> None:
        """Ask it to end: it says farewell and takes the VIP with it."""
        assert self._process is not None, "start it first"
        self._process.end()

    def kill(self) -> None:
        """Kill it and its children with SIGKILL; the VIP stays."""
        assert self._process is not None, "start it first"
        kill_keepalived(self._process)
        self._process.wait(5)

    def clear(self) -> None:
        """Take the VIP that a killed one left, as a reboot or an administrator does."""
        vip = str(self._cluster.vip)
        with routes(self._cluster.nodes[THEIRS].namespace) as rtnl:
            index = rtnl.link_lookup(ifname=LINK)[0]
            for _ in rtnl.get_addr(index=index, address=vip):
                rtnl.addr("del", index=index, address=vip, prefixlen=32)


def kill_keepalived(process: Process) -> None:
    """Kill keepalived and its children, which must not see their parent die: they would tidy up.

    They ask for SIGTERM at their parent's death (PR_SET_PDEATHSIG).
    """
    pid = process.pid
    os.kill(pid, signal.SIGSTOP)  # nor is it to start them anew
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    process.kill()


def configuration(cluster: Cluster, interval: float) -> str:
    """Return a keepalived.conf(5) of the group that `elected` makes."""
    return f"""global_defs {{
    router_id lab
    vrrp_version 3
}}
vrrp_instance api {{
    state BACKUP
    interface {LINK}
    virtual_router_id 51
    priority {PRIORITIES[THEIRS]}
    advert_int {interval:g}
    virtual_ipaddress {{
        {cluster.vip}/32 dev {LINK}
    }}
}}
"""


@scenario(
    "keepalived-interop",
    "keepalived and revip share a group, and take over from each other",
    topology=WATCHED,
)
def keepalived_interop(run: Run) -> None:
    """Go through deaths, farewells and returns on both sides; the observer hears all adverts."""
    with Cluster(run, adjust=elected("100ms"), agents=("n1", "n3")) as cluster:
        peer = Keepalived(cluster)
        heard = cluster.folder / "adverts"
        listener = cluster.lab.spawn("o1", vigil.adverts, heard, LINK)
        watch = Vigil(cluster)
        story = Story(run, cluster, watch)
        peer.start()
        time.sleep(2.0)
        run.check(watch.recently() == {"n1"}, "keepalived leaves the better one alone")

        story.act("revip_killed", lambda: cluster.agents["n1"].kill(), "n2", UNPLANNED_MS)
        story.act("revip_returns", lambda: _restart(cluster, "n1"), "n1")
        story.act("revip_stops", lambda: cluster.agents["n1"].kill(signal.SIGTERM), "n2")
        story.act("keepalived_stops", peer.stop, "n3")
        story.act("keepalived_returns", peer.start, "n2")
        story.act("keepalived_host_gone", lambda: cluster.lab.network.cut(THEIRS), "n3")
        peer.kill()
        peer.clear()
        cluster.lab.network.mend(THEIRS)
        time.sleep(0.5)
        run.check(watch.recently() == {"n3"}, "the host that is back has not the VIP")
        story.act("keepalived_returns", peer.start, "n2")
        story.act("revip_returns", lambda: _restart(cluster, "n1"), "n1")

        story.act("revip_stops", lambda: cluster.agents["n1"].kill(signal.SIGTERM), "n2")
        _their_split_brain(run, watch, peer)

        listener.kill(15)
        listener.wait(5)
        _judge_adverts(run, cluster, vigil.read(heard))
        watch.end()


class Story:
    """One fault after the other, each with who must answer then."""

    def __init__(self, run: Run, cluster: Cluster, watch: Vigil) -> None:
        self._run, self._cluster, self._watch = run, cluster, watch

    def act(
        self, name: str, fault: Callable[[], object], heir: str, window: float = PLANNED_MS
    ) -> None:
        """Let something happen, wait until only `heir` answers, and judge what was seen."""
        run, at = self._run, now()
        fault()
        self._watch.until(heir, seconds=15.0)
        time.sleep(0.7)
        seen = self._watch.seen()
        came = [one.at for one in seen if one.who == heir and one.at > at]
        both = vigil.longest(vigil.within(vigil.overlaps(seen), at, now()))
        gap = vigil.longest(vigil.within(vigil.outages(seen), at, now()))
        run.figure(f"{name}_heir_answers_ms", milliseconds(at, came[0]))
        run.figure(f"{name}_nobody_answers_ms", gap)
        run.figure(f"{name}_two_answer_ms", both)
        run.check(both <= window, f"{name}: two answered at once for {both:.0f} ms")
        run.check(gap <= TAKEN_MS, f"{name}: nobody answered for {gap:.0f} ms")


def _restart(cluster: Cluster, node: str) -> None:
    cluster.agents[node].wait(10)
    cluster.start_agent(node)


def _their_split_brain(run: Run, watch: Vigil, peer: Keepalived) -> None:
    """Show what the kernel's lifetime is for: killed -9, keepalived leaves the VIP for ever."""
    at = now()
    peer.kill()
    wait(lambda: watch.recently() == {"n2", "n3"}, "the dead one answers beside revip")
    time.sleep(UNPLANNED_MS / 1000 + 1)
    run.check(watch.recently() == {"n2", "n3"}, "and it goes on, longer than a lifetime")
    both = vigil.longest(vigil.within(vigil.overlaps(watch.seen()), at, now()))
    run.figure("keepalived_killed_two_answer_until_removed_by_hand_ms", both)
    peer.clear()
    watch.until("n3")


def _judge_adverts(run: Run, cluster: Cluster, heard: list[vigil.Seen]) -> None:
    """Check what was on the wire: version 3 only, of known members, two at once never for long."""
    speakers = {one.who.partition("/")[0] for one in heard}
    known = {cluster.address(node) for node in cluster.nodes}
    odd = {one.who for one in heard if one.who.count("/") > 1}
    run.figure("adverts", len(heard))
    run.check(speakers == known and not odd, f"all three spoke VRRPv3: {speakers}, odd: {odd}")
    leading = [
        vigil.Seen(one.at, one.who.partition("/")[0]) for one in heard if not one.who.endswith("/0")
    ]
    both = vigil.longest(vigil.overlaps(leading, bridge=250 * vigil.MS))
    run.figure("two_send_adverts_ms", both)
    run.check(both <= PLANNED_MS, f"two sent adverts at once for {both:.0f} ms")
