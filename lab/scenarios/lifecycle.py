"""The agent starts, stops, dies and reloads: the data plane does not notice."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

from lab.cluster import Cluster, Config, milliseconds, now
from lab.net import LINK
from lab.scenario import Run, scenario

SLOW = 10.0


@scenario("restart-loses-no-request", "SIGTERM, kill -9 and a new start under load: 0 failures")
def restart_loses_no_request(run: Run) -> None:
    """Replace the director's agent; its table is adopted, not flushed; row 55."""
    with Cluster(run) as cluster:
        load = cluster.load()
        for number in (signal.SIGTERM, signal.SIGKILL):
            old = cluster.agents["n1"]
            old.kill(number)
            old.wait(5)
            still = cluster.weights("n1")
            run.check(still == cluster.everybody(), f"the table stays without an agent: {still}")
            cluster.start_agent("n1")
            cluster.until_told("n1", "backend.verdict", "is healthy")
            seen = cluster.steady(2.0)
            run.check(len(seen) == 1, f"the table was adopted as it was: {seen}")
            changed = cluster.told("n1", "table.changed")
            run.check(changed == [], f"nothing was written: {changed}")
        kill_seen = load.finish()
        run.check(kill_seen.failures == 0, f"no request failed: {kill_seen.by_error}")


@scenario("reload-touches-nothing", "SIGHUP and a rewritten file without a change: no event")
def reload_touches_nothing(run: Run) -> None:
    """Listen to rtnetlink and the table while the configuration is read again; row 55."""
    with Cluster(run) as cluster:
        time.sleep(1.0)
        log = run.directory / "monitor.log"
        monitor = cluster.lab.exec_in(
            "n1", ["ip", "-o", "monitor", "link", "address", "route", "rule"], log=log
        )
        time.sleep(0.5)
        before = cluster.ask("n1", "status")["kernel"]["changes_applied"]
        cluster.agents["n1"].kill(signal.SIGHUP)
        path = cluster.config_path("n1")
        path.write_text(path.read_text())
        seen = cluster.steady(3.0)
        monitor.end()
        after = cluster.ask("n1", "status")["kernel"]["changes_applied"]
        heard = log.read_text().strip()
        run.check(heard == "", f"rtnetlink was silent: {heard}")
        run.check(len(seen) == 1 and before == after, f"the table was not touched: {seen}")


@scenario("bad-config-is-refused", "a broken new configuration: refused, the old one goes on")
def bad_config_is_refused(run: Run) -> None:
    """Reload nonsense, then something good."""
    with Cluster(run) as cluster:
        path = cluster.config_path("n1")
        good = path.read_text()
        path.write_text(good.replace("port: 6443", "port: 70000"))
        cluster.until_told("n1", "config.refused", "70000")
        run.check(cluster.weights() == cluster.everybody(), "the table goes on")
        path.write_text(good.replace("name: n3", "name: third"))
        cluster.until_told("n1", "config.changed", "taken over")
        cluster.until(cluster.everybody(), SLOW)


@scenario("backends-file-is-followed", "the file is replaced, missing, cut short: the pool follows")
def backends_file_is_followed(run: Run) -> None:
    """Replace the watched backends file atomically, take it away, truncate it."""
    path = run.directory / "backends.yaml"

    def watched(document: Config, _: str) -> None:
        server = document["virtual_servers"][0]
        write(path, [backend["address"] for backend in server["backends"]])
        del server["backends"]
        server["backends_file"] = str(path)

    with Cluster(run, adjust=watched) as cluster:
        addresses = list(cluster.everybody())
        write(path, addresses[:2])
        cluster.until(cluster.all_but("n3"), SLOW)
        path.unlink()
        seen = cluster.steady(2.5)
        run.check(len(seen) == 1, f"a missing file changes nothing: {seen}")
        write(path, addresses)
        cluster.until(cluster.everybody(), SLOW)
        whole = path.read_text()
        path.write_text(whole[: len(whole) // 2 - 3])
        seen = cluster.steady(2.5)
        run.check(len(seen) == 1, f"a file cut short changes nothing: {seen}")
        write(path, addresses)


def write(path: Path, addresses: list[str]) -> None:
    """Replace the backends file atomically."""
    entries = [f"  - {{name: n{i}, address: {a}}}" for i, a in enumerate(addresses, 1)]
    draft = path.with_suffix(".new")
    draft.write_text("\n".join(["backends:", *entries, ""]))
    draft.replace(path)


@scenario("missing-ip_vs-is-outlived", "no ip_vs module: said, retried, and then it works")
def missing_ip_vs_is_outlived(run: Run) -> None:
    """Unload the module under a running agent; pain-points row 22."""
    if run.kernel != "uml":
        run.say("skipped: modules are unloaded only in a kernel of our own")
        return
    loader = Path("/proc/sys/kernel/modprobe")
    before = loader.read_text()
    with Cluster(run, agents=()) as cluster:
        loader.write_text("/bin/false")
        try:
            unload()
            cluster.start_agent("n1")
            cluster.until_told("n1", "kernel.failed", "modprobe ip_vs")
            run.check(cluster.agents["n1"].alive, "the agent lives")
            cluster.until_told("n1", "backend.verdict", "n3 (10.0.1.20:6443) is healthy")
        finally:
            loader.write_text(before)
        subprocess.run([before.strip(), "-a", "ip_vs", "ip_vs_mh"], check=True)
        cluster.until(cluster.everybody(), 20)
        cluster.until_told("n1", "kernel.back", "answers again")
        cluster.until_reachable()


def unload() -> None:
    """Remove ip_vs and its schedulers."""
    loaded = [line.split()[0] for line in Path("/proc/modules").read_text().splitlines()]
    users = [name for name in loaded if name.startswith("ip_vs_") or name == "xt_ipvs"]
    subprocess.run(["rmmod", *users, "ip_vs"], check=True)


@scenario("missing-interface-is-waited-for", "no such interface yet: said, and taken when it comes")
def missing_interface_is_waited_for(run: Run) -> None:
    """Start the director before its interface has the name that the configuration says."""
    with Cluster(run, agents=("n2", "n3")) as cluster:
        rename(cluster, LINK, "late0")
        cluster.start_agent("n1")
        cluster.until_told("n1", "host.failed", LINK)
        cluster.until(cluster.everybody(), SLOW)
        run.check(cluster.agents["n1"].alive, "the agent lives, and keeps its table")
        error = cluster.ask("n1", "status")["host"]["error"]
        run.check(LINK in error, f"the status says what is missing: {error}")
        held = cluster.run_in("n1", "ip", "-o", "address")
        run.check(str(cluster.vip) not in held, "the virtual IP is nowhere on the node")
        rename(cluster, "late0", LINK)
        there = now()
        run.figure("interface_to_first_answer_ms", milliseconds(there, cluster.until_reachable()))
        cluster.until_told("n1", "host.back", "as it should be")


def rename(cluster: Cluster, old: str, new: str) -> None:
    """Rename n1's interface, as udev does in mid-boot; its IPv4 addresses stay on it."""
    for argv in (("set", old, "down"), ("set", old, "name", new), ("set", new, "up")):
        cluster.run_in("n1", "ip", "link", *argv)


@scenario("cleanup-leaves-nothing", "withdraw and `revip cleanup`: the host is as before")
def cleanup_leaves_nothing(run: Run) -> None:
    """Compare every table of the host before and after, byte for byte."""

    def withdrawing(document: Config, _: str) -> None:
        document["agent"]["on_exit"] = "withdraw"

    for family, nodes in ((4, ("n1", "n2")), (6, ("n2",))):
        with Cluster(run, family=family, agents=(), adjust=withdrawing) as cluster:
            for node in nodes:
                leaves_nothing(run, cluster, node)


def leaves_nothing(run: Run, cluster: Cluster, node: str) -> None:
    """Start and withdraw, then start, kill and clean up; compare the host each time."""
    before = host(cluster, node)
    cluster.start_agent(node)
    cluster.until_told(node, "host.changed", "set ")
    cluster.agents[node].kill(signal.SIGTERM)
    cluster.agents[node].wait(10)
    after = host(cluster, node)
    run.check(before == after, f"{node} withdrew everything: {difference(before, after)}")
    cluster.start_agent(node)
    cluster.until_told(node, "host.changed", "set ")
    cluster.agents[node].kill(signal.SIGKILL)
    cluster.agents[node].wait(5)
    cleaning = cluster.lab.spawn(node, cleanup, str(cluster.config_path(node)))
    run.check(cleaning.wait(20) == 0, f"cleanup worked: {cleaning.log.read_text()}")
    after = host(cluster, node)
    run.check(before == after, f"{node} was cleaned: {difference(before, after)}")


def cleanup(config: str) -> int:
    """Run `revip cleanup`."""
    from revip.cli.main import main

    return main(["cleanup", "--config", config])


def host(cluster: Cluster, node: str) -> str:
    """Return all of a host that revip may touch, as text."""
    asks = (
        ("ip", "-o", "address"),
        ("ip", "rule"),
        ("ip", "-6", "rule"),
        ("ip", "route", "show", "table", "all"),
        ("ip", "-6", "route", "show", "table", "all"),
        ("ipvsadm", "-Sn"),
        ("sysctl", "-ar", r"^net\.ipv4\.(conf\.(all|eth0|default)|vs|ip_forward|tcp_e)"),
        ("sysctl", "-ar", r"^net\.ipv6\.conf\.(all|eth0|default)"),
        ("iptables-legacy-save",),
        ("ip6tables-legacy-save",),
    )
    lines = "\n".join(cluster.run_in(node, *argv) for argv in asks).splitlines()
    # A legacy table that nobody had asked for yet is there, empty, once it was listed.
    return "\n".join(line for line in lines if line[:1] not in ("#", ":", "*", "C"))


def difference(before: str, after: str) -> list[str]:
    """Return the lines that are in one only."""
    return sorted(set(before.splitlines()) ^ set(after.splitlines()))[:8]
