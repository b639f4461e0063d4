"""Somebody else changes the kernel's table: it is put right, every time, and said aloud."""

from __future__ import annotations

import time

from lab import observer
from lab.cluster import Cluster, milliseconds, now
from lab.net import PORT, VIP
from lab.processes import Process
from lab.scenario import Run, scenario

SLOW = 10.0
VIRTUAL = f"{VIP}:{PORT}"


@scenario("vandal-is-repaired", "table flushed, entries deleted, changed, added: all undone")
def vandal_is_repaired(run: Run) -> None:
    """Do by hand what nobody repairs under keepalived."""
    with Cluster(run) as cluster:
        entry = f"{cluster.address('n2')}:{PORT}"
        for what, argv in (
            ("table_flushed", ("-C",)),
            ("entry_deleted", ("-d", "-t", VIRTUAL, "-r", entry)),
            ("weight_changed", ("-e", "-t", VIRTUAL, "-r", entry, "-g", "-w", "0")),
            ("stranger_added", ("-a", "-t", VIRTUAL, "-r", "10.0.1.99:6443", "-g")),
            ("server_deleted", ("-D", "-t", VIRTUAL)),
        ):
            full = cluster.everybody()
            cluster.run_in("n1", "ipvsadm", *argv)
            done = now()
            run.figure(f"{what}_repaired_ms", milliseconds(done, cluster.until(full, SLOW)))
            scheduler = cluster.run_in("n1", "ipvsadm", "-Sn").splitlines()[0]
            run.check("-s mh -b mh-fallback,mh-port" in scheduler, f"the scheduler: {scheduler}")
        told = cluster.told("n1", "table.drift")
        run.check(len(told) == 5, f"each disturbance was said once: {told}")
        repairs = cluster.ask("n1", "status")["drift"]["repairs_by_kind"]
        run.check(set(repairs) >= {"server-deleted", "destination-added"}, f"counted: {repairs}")


@scenario("fight-is-outlasted", "another program deletes the virtual server again and again")
def fight_is_outlasted(run: Run) -> None:
    """Play kube-proxy in IPVS mode; pain-points row 10: detected, named, outlasted."""
    with Cluster(run) as cluster:
        foreign = "10.96.0.1:443"
        cluster.run_in("n1", "ipvsadm", "-A", "-t", foreign, "-s", "rr")
        load = cluster.load(kept_rate=0, new_rate=50, timeout=2.0)
        rival: Process = cluster.lab.spawn("n1", kube_proxy, VIRTUAL)
        cluster.until_told("n1", "table.fight", "keeps changing", 20)
        rival.wait(30)
        cluster.until(cluster.everybody(), SLOW)
        seen = load.finish()
        run.figure("requests", seen.requests)
        run.figure("failed_requests", seen.failures)
        share = 1 - seen.failures / max(1, seen.requests)
        run.check(share > 0.8, f"{share:.1%} of new connections worked during the fight")
        named = cluster.told("n1", "table.fight")
        run.check(any("kube-proxy" in text for text in named), f"the culprit is named: {named}")
        with cluster.lab.network.inside("n1"):
            names = [service.name for service in observer.read_tables()]
        run.check(f"TCP {foreign}" in names, f"the foreign virtual server is untouched: {names}")


def kube_proxy(virtual: str, rounds: int = 20) -> None:
    """Delete the virtual server every half second, under kube-proxy's name."""
    import ctypes
    import subprocess

    ctypes.CDLL(None).prctl(15, b"kube-proxy", 0, 0, 0)  # PR_SET_NAME
    for _ in range(rounds):
        subprocess.run(["ipvsadm", "-D", "-t", virtual], check=False, stderr=subprocess.DEVNULL)
        time.sleep(0.5)


@scenario("host-is-put-right", "address, rule, route and sysctls of ours are removed: all return")
def host_is_put_right(run: Run) -> None:
    """Take away what direct routing needs of the hosts."""
    with Cluster(run) as cluster:
        for node, what, argv in (
            ("n1", "vip_deleted", ("ip", "address", "del", f"{VIP}/32", "dev", "eth0")),
            ("n2", "dummy_deleted", ("ip", "link", "del", "dummy-revip")),
            ("n2", "rules_deleted", ("ip", "rule", "flush", "protocol", "118")),
        ):
            before = now()
            cluster.run_in(node, *argv)
            mended = until_mended(cluster, node, argv)
            run.figure(f"{what}_repaired_ms", milliseconds(before, mended))
        cluster.run_in("n2", "sysctl", "-qw", "net.ipv4.conf.eth0.arp_ignore=0")
        deadline = time.monotonic() + SLOW
        while cluster.run_in("n2", "sysctl", "-n", "net.ipv4.conf.eth0.arp_ignore").strip() != "1":
            run.check(time.monotonic() < deadline, "the sysctl is put back")
            time.sleep(0.1)
        cluster.until_reachable()


def until_mended(cluster: Cluster, node: str, argv: tuple[str, ...]) -> int:
    """Wait until what `argv` removed is there again; return the instant."""
    deadline = time.monotonic() + SLOW
    want = {"address": 2, "link": 1, "rule": 2}[argv[1]]
    ask = {
        "address": ("ip", "-4", "-o", "address", "show", "to", f"{VIP}/32"),
        "link": ("ip", "-4", "-o", "address", "show", "dev", "dummy-revip"),
        "rule": ("ip", "rule", "show", "protocol", "118"),
    }[argv[1]]
    while True:
        try:
            seen = cluster.run_in(node, *ask).count(str(VIP))
        except Exception:  # noqa: BLE001 - no such link yet
            seen = 0
        if seen >= want:
            return now()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{' '.join(argv)} on {node} was not repaired")
        time.sleep(0.01)
