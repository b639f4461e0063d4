"""The client matrix: from every place, by every method, among everything, to every backend."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby

from lab import observer
from lab.clients import one_shot
from lab.cluster import Cluster, Config
from lab.matrix import CLIENTS, FORBIDDEN, METHODS, PLAIN, SYSCTLS, Cell, everything, subset
from lab.net import Topology
from lab.scenario import Run, scenario
from lab.surroundings import around

SLOW = 15.0
AT_ONCE = 6
AT_MOST = 48
"""With mh over three backends, 48 connections miss one of them once in 10^8 times."""
TIMEOUT = 5.0
SETTLE = 6.0
"""Seconds in which sysctls that somebody else has written are put right."""
PLACES = {client.words: client for client in CLIENTS}


@dataclass
class Outcome:
    """What the connections of one cell came to."""

    tried: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    reached: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)

    @property
    def good(self) -> int:
        """How many connections were answered."""
        return self.tried - self.errors.total()


@scenario(
    "client-matrix",
    "six kinds of clients, two methods, IPv4 and IPv6, others' rules: each reaches every backend",
    topology=Topology(router=True, pods=True),
)
def client_matrix(run: Run) -> None:
    """Go through the cells of `lab.matrix`; with --thorough through all of them."""
    cells = list(everything() if run.thorough else subset())

    def prepared(document: Config, _: str) -> None:
        server = document["virtual_servers"][0]
        server["forwarding"] = METHODS[0][0]
        # The scenario kills the same servers again and again, which is none of its business.
        server["health"] = {"damping_changes": 100}

    for family in sorted({cell.family for cell in cells}):
        mine = [cell for cell in cells if cell.family == family]
        with Cluster(run, family=family, adjust=prepared) as cluster:
            for forwarding, some in groupby(mine, lambda c: c.forwarding):
                forward_by(cluster, forwarding)
                go_through(run, cluster, list(some))


def forward_by(cluster: Cluster, forwarding: str) -> None:
    """Have every node forward by this method, by a new configuration if need be."""
    if methods(cluster) == {forwarding}:
        return
    for name in cluster.nodes:
        path = cluster.config_path(name)
        path.write_text(re.sub("forwarding: .*", f"forwarding: {forwarding}", path.read_text()))
    for name in cluster.nodes:
        cluster.until_told(name, "config.changed", "taken over")
        cluster.until_told(name, "host.changed", "removed address")
    cluster.until_reachable()


def go_through(run: Run, cluster: Cluster, cells: list[Cell]) -> None:
    """Measure the cells of one method."""
    network = cluster.lab.network
    for surroundings, some in groupby(cells, lambda c: c.surroundings):
        with around(network, surroundings, cluster.family):
            if surroundings == SYSCTLS:
                time.sleep(SETTLE)
            measure_all(run, cluster, list(some))


def measure_all(run: Run, cluster: Cluster, cells: Iterable[Cell]) -> None:
    """Measure cells with the same surroundings, and with an apiserver killed in between."""

    def down(cell: Cell) -> str:
        return PLACES[cell.client].local if cell.apiserver == "down" else ""

    for killed, some in groupby(sorted(cells, key=down), down):
        healthy = set(cluster.nodes) - {killed}
        if killed:
            cluster.kill(killed)
            cluster.until(cluster.all_but(killed), SLOW)
        for cell in some:
            judge(
                run, cluster, cell, measure(cluster, PLACES[cell.client].member, healthy), healthy
            )
        if killed:
            cluster.start(killed)
            cluster.until(cluster.everybody(), SLOW)


def measure(cluster: Cluster, client: str, healthy: set[str]) -> Outcome:
    """Connect from there until all the healthy have answered, one failed, or it is enough."""
    seen = Outcome()
    target = cluster.target(timeout=TIMEOUT)

    async def several() -> None:
        for sample in await asyncio.gather(*(one_shot(target) for _ in range(AT_ONCE))):
            seen.tried += 1
            if sample.error is not None or sample.backend is None:
                seen.errors[sample.error or "nobody"] += 1
                continue
            seen.reached.add(sample.backend)
            seen.sources.add(json.loads(sample.body)["client"].removeprefix("::ffff:"))

    with cluster.lab.network.inside(client):
        while seen.tried < AT_MOST and not seen.errors and not healthy <= seen.reached:
            asyncio.run(several())
    return seen


def judge(run: Run, cluster: Cluster, cell: Cell, seen: Outcome, healthy: set[str]) -> None:
    """Tell what a cell came to, and check it where it can work."""
    fields = {name: getattr(cell, name) for name in Cell.__slots__}
    run.event("cell", **fields, good=seen.good, tried=seen.tried)
    if (cell.forwarding, cell.surroundings) in FORBIDDEN:
        return
    done = f"{seen.good} of {seen.tried} worked {dict(seen.errors) or ''}"
    run.check(not seen.errors and seen.reached == healthy, f"{cell}: {done}, {seen.reached}")
    if cell.forwarding == "direct" and cell.surroundings != "pod masquerading" and seen.sources:
        member = cluster.lab.network[PLACES[cell.client].member]
        own = str(member.address if cluster.family == 4 else member.address6)
        run.check(seen.sources == {own}, f"{cell}: the backends see {own}: {seen.sources}")


@scenario(
    "path-mtu-is-found",
    "a narrow link behind a router: what backends send too large gets through, ufw or not",
    topology=Topology(router=True, pods=True),
)
def path_mtu_is_found(run: Run) -> None:
    """Let the router say "fragmentation needed" to the VIP, which only the director answers for.

    It must reach the backend that has sent, past the director's firewall and the backend's rules
    (RFC 1191); the server's part of the TLS handshake is larger than the link.
    """
    with Cluster(run) as cluster:
        cluster.run_in("r1", "ip", "link", "set", "eth1", "mtu", "600")
        for surroundings in (PLAIN, "kube-proxy", "ufw"):
            for node in cluster.nodes:
                cluster.run_in(node, "ip", "route", "flush", "cache")
            with around(cluster.lab.network, surroundings, 4):
                seen = measure(cluster, "far1", set(cluster.nodes))
            done = f"{seen.good} of {seen.tried} worked {dict(seen.errors) or ''}"
            whole = not seen.errors and seen.reached == set(cluster.nodes)
            run.check(whole, f"{surroundings}: {done}, {seen.reached}")
            learned = [n for n in cluster.nodes if "mtu 600" in route_to_far(cluster, n)]
            run.check(learned == list(cluster.nodes), f"each backend has learned it: {learned}")


def route_to_far(cluster: Cluster, node: str) -> str:
    """Return the node's route to the far client, with what it has learned."""
    far = str(cluster.lab.network["far1"].address)
    return cluster.run_in(node, "ip", "route", "get", far, "from", str(cluster.vip))


@scenario("forwarding-auto", "backends on one segment: direct; one elsewhere: masquerade; told why")
def forwarding_auto(run: Run) -> None:
    """Move one backend behind a router by a new configuration, and back."""

    def automatic(document: Config, _: str) -> None:
        document["virtual_servers"][0]["forwarding"] = "auto"

    with Cluster(run, adjust=automatic) as cluster:
        cluster.until_told("n1", "config.changed", "forwarding is direct (auto)")
        run.check(methods(cluster) == {"direct"}, f"at first direct: {methods(cluster)}")
        path = cluster.config_path("n1")
        near = path.read_text()
        path.write_text(near.replace("10.0.1.20", "10.0.9.50"))
        cluster.until_told("n1", "config.changed", "outside the subnet of eth0")
        cluster.until(cluster.all_but("n3"), SLOW)
        run.check(methods(cluster) == {"masquerade"}, f"then masquerade: {methods(cluster)}")
        cluster.until_reachable()
        reason = cluster.server_status("n1")["forwarding_reason"]
        run.check("10.0.9.50" in reason, f"the status says why: {reason}")
        told = cluster.ask("n1", "plan")["forwarding"]
        run.check("masquerade (auto)" in told["api"], f"the plan, too: {told}")
        path.write_text(near)
        cluster.until(cluster.everybody(), SLOW)
        run.check(methods(cluster) == {"direct"}, f"and direct again: {methods(cluster)}")
        cluster.until_reachable()


def methods(cluster: Cluster) -> set[str]:
    """Return the forwarding methods in the director's table."""
    with cluster.lab.network.inside(cluster.owner):
        tables = observer.read_tables()
    return {d.forwarding for service in tables for d in service.destinations}
