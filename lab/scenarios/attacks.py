"""What a hostile operator tries on a real kernel: links, addresses and processes taken away."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

from lab.cluster import Cluster, Config, milliseconds, now
from lab.net import LINK
from lab.scenario import Run, scenario

SLOW = 15.0
MOVED = "10.0.1.11"


def addresses(cluster: Cluster, node: str = "n1", link: str = LINK) -> str:
    """Return what is on a link of a node, as one text."""
    return cluster.run_in(node, "ip", "-o", "address", "show", "dev", link)


def until(true: object, seconds: float = SLOW) -> int:
    """Wait until `true()`; return the instant."""
    assert callable(true)
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"never so: {true}")
        time.sleep(0.02)
    return now()


def quiet(run: Run, cluster: Cluster, what: str, seconds: float = 4.0, most: int = 12) -> None:
    """Check that the agent is calm: few notes, little work."""
    before = cluster.ask("n1", "status")
    time.sleep(seconds)
    after = cluster.ask("n1", "status")
    notes = sum(after["notes_by_kind"].values()) - sum(before["notes_by_kind"].values())
    repairs = after["host"]["repairs"] - before["host"]["repairs"]
    failures = after["host"]["failures"] - before["host"]["failures"]
    run.say(f"{what}: {notes} notes, {repairs} repairs, {failures} refusals in {seconds:g} s")
    run.check(notes <= most, f"{what}: the log is not flooded ({notes} notes)")
    run.check(repairs + failures <= 50, f"{what}: no storm ({repairs} + {failures})")


@scenario("link-down-makes-no-storm", "the director's link goes down and comes back, both methods")
def link_down_makes_no_storm(run: Run) -> None:
    """Take the interface down under direct forwarding, then under masquerading."""

    def masquerading(document: Config, _: str) -> None:
        document["virtual_servers"][0]["forwarding"] = "masquerade"

    for adjust in (None, masquerading):
        with Cluster(run, agents=("n1",), adjust=adjust) as cluster:
            time.sleep(1.0)
            cluster.run_in("n1", "ip", "link", "set", LINK, "down")
            quiet(run, cluster, "link down")
            cluster.run_in("n1", "ip", "link", "set", LINK, "up")
            back = now()
            until(lambda c=cluster: str(c.vip) in addresses(c))
            full = cluster.until(cluster.everybody(), SLOW)
            run.figure("link_up_to_table_ms", milliseconds(back, full))
            run.figure("link_up_to_answer_ms", milliseconds(back, cluster.until_reachable()))
            quiet(run, cluster, "link up again")


@scenario("dummy-comes-back", "our dummy interface is deleted, our rules and routes flushed")
def dummy_comes_back(run: Run) -> None:
    """Delete everything that the host preparation made, once."""
    with Cluster(run, agents=("n1", "n2")) as cluster:
        time.sleep(1.0)
        for node in ("n2", "n1"):
            began = now()
            cluster.run_in(node, "ip", "link", "delete", "dummy-revip")
            cluster.run_in(node, "sh", "-c", "ip rule flush; ip rule add lookup main pref 32766")
            until(
                lambda n=node: (
                    "lookup 30313" in cluster.run_in(n, "ip", "rule")
                    and str(cluster.vip) in cluster.run_in(n, "ip", "-o", "address", "show")
                )
            )
            run.figure("rebuilt_ms", milliseconds(began, now()))
        cluster.until_reachable()


@scenario("moved-vip-leaves-nothing", "the VIP is changed by reload, and over a restart")
def moved_vip_leaves_nothing(run: Run) -> None:
    """Change the address in the file: while the agent runs, and while it does not."""
    with Cluster(run, agents=("n1", "n2")) as cluster:
        old = str(cluster.vip)
        time.sleep(1.0)
        path = cluster.config_path("n1")
        text = path.read_text()
        path.write_text(text.replace(f"address: {old}", f"address: {MOVED}"))
        until(lambda: f" {MOVED}/32" in addresses(cluster))
        until(lambda: f" {old}/32" not in cluster.run_in("n1", "ip", "-o", "address"))
        until(lambda: old not in cluster.run_in("n1", "ipvsadm", "-Sn"))
        time.sleep(1.0)
        for number in (signal.SIGTERM, signal.SIGKILL):
            cluster.agents["n1"].kill(number)
            cluster.agents["n1"].wait(5)
            shown = cluster.run_in("n1", "ip", "-o", "address")
            gone, come = (MOVED, old) if f" {MOVED}/32" in shown else (old, MOVED)
            cluster.start_agent("n1", yaml_with(cluster, come))
            until(lambda c=come: f" {c}/32" in addresses(cluster))
            until(lambda g=gone: f" {g}/32" not in cluster.run_in("n1", "ip", "-o", "address"))
            left = cluster.run_in("n1", "sh", "-c", "ip rule; ip route show table all; ipvsadm -Sn")
            lines = [line for line in left.splitlines() if f"{gone} " in line]
            run.check(lines == [], f"nothing of {gone} is left: {lines}")


def yaml_with(cluster: Cluster, address: str) -> Config:
    """Return n1's configuration with another virtual address."""
    document = cluster.config("n1")
    document["virtual_servers"][0]["address"] = address
    return document


@scenario("former-director-hands-over", "the owner changes on every node by reload, under load")
def former_director_hands_over(run: Run) -> None:
    """Reload the new owner first, as one must with static ownership, then the old one."""
    with Cluster(run) as cluster:
        time.sleep(1.0)
        load = cluster.load()
        for node in ("n2", "n3", "n1"):
            path = cluster.config_path(node)
            path.write_text(path.read_text().replace("owner: n1", "owner: n2"))
            cluster.until_told(node, "config.changed", "taken over")
        until(lambda: f" {cluster.vip}/32" not in addresses(cluster))
        cluster.until(cluster.everybody(), SLOW, node="n2")
        cluster.until(None, SLOW, node="n1")
        time.sleep(2.0)
        seen = load.finish()
        run.figure("requests", seen.requests)
        run.figure("failed_requests", seen.failures)
        run.figure("longest_gap_ms", seen.gap_max_ms)
        run.say(f"by error: {seen.by_error}")
        cluster.until_reachable()


@scenario("killed-anywhere-it-recovers", "kill -9 in the middle of starting, again and again")
def killed_anywhere_it_recovers(run: Run) -> None:
    """Kill the director's agent a bit later each time; then let it start."""
    with Cluster(run, agents=()) as cluster:
        for pause in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.9):
            agent = cluster.start_agent("n1")
            time.sleep(pause)
            agent.kill(signal.SIGKILL)
            agent.wait(5)
        cluster.start_agent("n1")
        cluster.until(cluster.everybody(), SLOW)
        cluster.until_reachable()
        cluster.until_told("n1", "backend.verdict", "is healthy")
        quiet(run, cluster, "after eight murders")


@scenario("its-files-may-vanish", "socket directory, state and configuration are deleted under it")
def its_files_may_vanish(run: Run) -> None:
    """Remove /run/revip's like and the configuration; the balancing goes on."""
    with Cluster(run, agents=("n1",)) as cluster:
        time.sleep(1.0)
        folder = Path(run.directory) / "n1"
        shutil.rmtree(folder)
        cluster.config_path("n1").unlink()
        cluster.kill("n2")
        cluster.until(cluster.all_but("n2"), SLOW)
        cluster.start("n2")
        cluster.until(cluster.everybody(), SLOW)
        run.check(cluster.agents["n1"].alive, "the agent lives")
        until(lambda: (folder / "revip.sock").exists())
        run.check(cluster.ask("n1", "status")["in_sync"], "and can be asked again")


@scenario("frozen-agent-harms-nobody", "SIGSTOP for 5 s and SIGCONT: nobody is taken for dead")
def frozen_agent_harms_nobody(run: Run) -> None:
    """Freeze the agent in mid-probe, several times."""
    with Cluster(run, agents=("n1",)) as cluster:
        for _ in range(3):
            cluster.agents["n1"].kill(signal.SIGSTOP)
            time.sleep(3.0)
            cluster.agents["n1"].kill(signal.SIGCONT)
            seen = cluster.steady(1.5)
            run.check(len(seen) == 1, f"the table is as it was: {seen}")
        bad = [text for text in cluster.told("n1", "backend.verdict") if "was healthy" in text]
        run.check(bad == [], f"no verdict has changed: {bad}")
