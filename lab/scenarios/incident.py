"""The incident: a backend fails, leaves the table, recovers, and must be back by itself."""

from __future__ import annotations

import json

from lab.cluster import Cluster, milliseconds, now
from lab.scenario import Run, scenario

SLOW = 10.0
"""Seconds that nothing here may take, on the slowest CI machine."""


@scenario("recovered-backend-returns", "a killed apiserver leaves the table and returns by itself")
def recovered_backend_returns(run: Run) -> None:
    """Kill and restart each apiserver in turn; pain-points row 1, the reason for revip."""
    with Cluster(run) as cluster:
        for name in ("n2", "n3", "n1"):
            killed = cluster.kill(name)
            gone = cluster.until(cluster.all_but(name), SLOW)
            run.figure("removed_after_ms", milliseconds(killed, gone))
            served = cluster.start(name)
            back = cluster.until(cluster.everybody(), SLOW)
            run.figure("readded_after_ms", max(0.0, milliseconds(served, back)))


@scenario("vanished-host-leaves", "a host that drops all packets leaves the table and returns")
def vanished_host_leaves(run: Run) -> None:
    """Take a node's cable; nothing is refused, everything is silent."""
    with Cluster(run) as cluster:
        start = now()
        cluster.lab.network.link_down("n3")
        gone = cluster.until(cluster.all_but("n3"), SLOW)
        run.figure("host_gone_removed_ms", milliseconds(start, gone))
        cluster.lab.network.link_up("n3")
        start = now()
        back = cluster.until(cluster.everybody(), SLOW)
        run.figure("host_back_readded_ms", milliseconds(start, back))


@scenario("not-ready-drains", "readyz red: weight 0; green again: weight back")
def not_ready_drains(run: Run) -> None:
    """Turn readiness red: the living server keeps its connections; pain-points row 23."""
    with Cluster(run) as cluster:
        start = now()
        cluster.control("n2").set("unready")
        drained = cluster.until({**cluster.everybody(), cluster.address("n2"): 0}, SLOW)
        run.figure("unready_drained_ms", milliseconds(start, drained))
        start = now()
        cluster.control("n2").set("serving")
        back = cluster.until(cluster.everybody(), SLOW)
        run.figure("ready_weight_back_ms", milliseconds(start, back))


@scenario("rolling-restart-fails-no-request", "three graceful restarts under load: 0 failures")
def rolling_restart_fails_no_request(run: Run) -> None:
    """Restart each apiserver as Kubernetes does: readiness red 3 s before the port closes."""
    with Cluster(run) as cluster:
        load = cluster.load()
        for name in ("n1", "n2", "n3"):
            cluster.control(name).set("graceful-stop", drain_seconds=3.0)
            cluster.servers[name].wait(15)
            cluster.until(cluster.all_but(name), SLOW)
            cluster.start(name)
            cluster.until(cluster.everybody(), SLOW)
        seen = load.finish()
        run.figure("requests", seen.requests)
        run.figure("failed_requests", seen.failures)
        run.figure("retried_requests", seen.retried)
        run.figure("longest_gap_ms", seen.gap_max_ms)
        run.check(seen.requests > 500, f"the client made {seen.requests} requests")
        run.check(seen.failures == 0, f"no request failed: {seen.by_error}")


@scenario("panic-keeps-the-pool", "with every apiserver down the table stays, and all return")
def panic_keeps_the_pool(run: Run) -> None:
    """Kill all: no servers would be worse than doubtful ones; pain-points row 11."""
    with Cluster(run) as cluster:
        for name in cluster.nodes:
            cluster.kill(name)
        cluster.until_told("n1", "pool.mode", "panic")
        cluster.until(cluster.everybody(), SLOW)
        seen = cluster.steady(3.0)
        full = json.dumps(cluster.everybody(), sort_keys=True)
        run.check(seen == {full}, f"all backends stay in while none is healthy: {seen}")
        mode = cluster.server_status("n1")["mode"]
        run.check(mode == "panic", f"the status says panic, not {mode}")
        for name in cluster.nodes:
            cluster.start(name)
        cluster.until(cluster.everybody(), SLOW)
        cluster.until_reachable()
