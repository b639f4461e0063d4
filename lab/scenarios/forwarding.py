"""Packets: clients on the segment reach every backend, and what becomes of their connections."""

from __future__ import annotations

import time
from pathlib import Path

from lab import capture, clients
from lab.cluster import Cluster, Config, milliseconds, now
from lab.scenario import Run, scenario

SLOW = 15.0


@scenario("load-is-spread", "some 300 connections over three backends: none is idle; direct, IPv4")
def load_is_spread(run: Run) -> None:
    """Count who answers; pain-points row 28."""
    spread(run, family=4, forwarding="direct")


@scenario(
    "load-is-spread-ipv6", "some 300 connections over three backends: none is idle; direct, IPv6"
)
def load_is_spread_ipv6(run: Run) -> None:
    """Count who answers over IPv6."""
    spread(run, family=6, forwarding="direct")


@scenario("masquerade-same-segment", "a client on the backends' own subnet reaches all of them")
def masquerade_same_segment(run: Run) -> None:
    """Where kube-vip loses two of three connections; pain-points row 9."""
    spread(run, family=4, forwarding="masquerade")


def spread(run: Run, *, family: int, forwarding: str) -> None:
    """Make some 300 connections and check that they all worked and reached everybody."""

    def method(document: Config, _: str) -> None:
        document["virtual_servers"][0]["forwarding"] = forwarding

    with Cluster(run, family=family, adjust=method) as cluster:
        load = cluster.load(kept_rate=0, new_rate=60, seconds=5.0)
        load.process.wait(20)
        seen = load.finish()
        run.check(seen.failures == 0, f"every connection worked: {seen.by_error}")
        total = sum(seen.by_backend.values())
        run.check(total >= 100, f"{total} connections were made")
        fair = total / 3
        for name in cluster.nodes:
            share = seen.by_backend.get(name, 0)
            run.check(fair / 2 < share < fair * 2, f"{name} got {share} of {total}")
        run.figure("new_connection_ms", seen.p50_ms)


@scenario("followers-are-silent", "only the director answers ARP and NDP for the VIP")
def followers_are_silent(run: Run) -> None:
    """Ask who has the VIP, from the client's place."""
    for family in (4, 6):
        with Cluster(run, family=family) as cluster, cluster.lab.network.inside("c1"):
            answers = capture.who_answers("eth0", cluster.vip, 1.0)
            macs = {cluster.lab.network["n1"].mac}
            run.check(set(answers) == macs, f"IPv{family}: only n1 answers: {answers}")


@scenario("dead-backend-resets-streams", "long connections to a dead backend end, none hangs")
def dead_backend_resets_streams(run: Run) -> None:
    """Take a host away under 24 talking streams; pain-points row 8."""
    with Cluster(run) as cluster:
        held = cluster.streams(24, seconds=30)
        wait_for_streams(held.path, 24)
        victims = {s.number for s in clients.read_streams(held.path) if s.backend == "n3"}
        start = now()
        cluster.lab.network.link_down("n3")
        cluster.until(cluster.all_but("n3"), SLOW)
        time.sleep(3.0)
        held.finish()
        streams = clients.read_streams(held.path)
        lost = {s.number for s in streams if s.fate != "alive" and s.number not in victims}
        run.check(lost == set(), f"streams on living backends go on: {lost}")
        run.say(f"{len(victims)} of 24 streams were on the dead host")
        for stream in streams:
            if stream.number in victims:
                fate = f"stream {stream.number} to the dead host was reset: {stream.fate}"
                run.check(stream.fate == "reset", fate)
                run.figure("stream_reset_ms", milliseconds(start, stream.ended or now()))


@scenario("drain-keeps-streams", "drained and enabled again: no stream is cut, weight goes back")
def drain_keeps_streams(run: Run) -> None:
    """Drain by hand, and by red readiness; the entry is never deleted; row 57."""
    with Cluster(run) as cluster:
        held = cluster.streams(18, seconds=60)
        wait_for_streams(held.path, 18)
        drained = {**cluster.everybody(), cluster.address("n2"): 0}
        cluster.ask("n1", "drain", backend="n2")
        cluster.until(drained, SLOW)
        load = cluster.load(kept_rate=0, new_rate=50, seconds=2.0)
        load.process.wait(20)
        seen = load.finish()
        run.check("n2" not in seen.by_backend, f"no new connection to n2: {seen.by_backend}")
        run.check(seen.failures == 0, f"and none failed: {seen.by_error}")
        cluster.ask("n1", "enable", backend="n2")
        cluster.until(cluster.everybody(), SLOW)
        cluster.control("n2").set("unready")
        cluster.until(drained, SLOW)
        cluster.control("n2").set("serving")
        cluster.until(cluster.everybody(), SLOW)
        held.finish()
        fates = [s.fate for s in clients.read_streams(held.path)]
        run.check(set(fates) == {"alive"}, f"all 18 streams live: {fates}")


@scenario("drain-has-a-deadline", "a backend that drains for ever is taken out at the deadline")
def drain_has_a_deadline(run: Run) -> None:
    """Let readiness stay red beyond the deadline; pain-points row 57."""

    def short(document: Config, _: str) -> None:
        document["virtual_servers"][0]["drain_deadline"] = "2s"

    with Cluster(run, adjust=short) as cluster:
        cluster.control("n2").set("unready")
        cluster.until({**cluster.everybody(), cluster.address("n2"): 0}, SLOW)
        cluster.until(cluster.all_but("n2"), SLOW)
        cluster.control("n2").set("serving")
        cluster.until(cluster.everybody(), SLOW)


@scenario("pause-touches-nothing", "paused, drift is seen and planned but not repaired")
def pause_touches_nothing(run: Run) -> None:
    """Pause, flush, look at the plan, resume."""
    with Cluster(run) as cluster:
        cluster.ask("n1", "pause")
        cluster.run_in("n1", "ipvsadm", "-C")
        time.sleep(2.0)
        run.check(cluster.weights() is None, "the table stays as the vandal left it")
        plan = cluster.ask("n1", "plan")
        run.check(len(plan["table"]) == 4, f"the plan names the repair: {plan['table']}")
        cluster.ask("n1", "resume")
        cluster.until(cluster.everybody(), SLOW)


def wait_for_streams(path: Path, count: int) -> None:
    """Wait until `count` streams are talking."""
    deadline = time.monotonic() + SLOW
    while True:
        streams = clients.read_streams(path) if path.exists() else []
        if sum(1 for s in streams if s.backend) >= count:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"only {len(streams)} streams: {[s.fate for s in streams]}")
        time.sleep(0.05)
