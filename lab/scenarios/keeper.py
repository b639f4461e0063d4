"""The keeper: what the agent suffers does not move the virtual IP, and neither does its own end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lab.cluster import Cluster, Config, milliseconds, now
from lab.processes import Process
from lab.scenario import Run, scenario
from lab.scenarios.announcing import finished, opened, wait
from lab.scenarios.election import STREAMS, answering, elected, present

PARTED = 2.0
"""Seconds, after which a former director has said all that it had to say."""
STARVED_SECONDS = 30.0
BURST = 0.8
"""Seconds for which the agent gets no processor at all, as in a long collection of garbage."""
REST = 1.2
BURNERS = 2


@scenario("starved", "the director's agent starved 30 s: burnt CPU, full disk, stops: VIP stays")
def starved(run: Run) -> None:
    """Keep the agent from running again and again; its keeper must not care."""
    with full_disk(run.directory / "full") as disk, Cluster(run, adjust=on(disk)) as cluster:
        memory(run, cluster.agents["n1"])
        # Another may have begun, and yields to the higher priority first.
        wait(lambda: cluster.server_status("n1")["role"] == "director", "n1 directs")
        wait(lambda: answering(cluster) == {"n1"}, "only n1 answers")
        time.sleep(PARTED)
        changes = directed(cluster)
        tormentors = [cluster.lab.spawn("n1", burn) for _ in range(BURNERS)]
        tormentors.append(cluster.lab.spawn("n1", stop_often, cluster.agents["n1"].pid))
        began, elsewhere = time.monotonic(), set[str]()
        while time.monotonic() < began + STARVED_SECONDS:
            elsewhere |= watched(cluster, 3.0)
            for command in ("drain", "enable"):  # something to write down
                cluster.ask("n1", command, seconds=20.0, backend="n3")
        for tormentor in tormentors:
            tormentor.kill()
        cluster.agents["n1"].cont()
        run.check(not elsewhere, f"the address was nowhere else: {elsewhere}")
        run.check(answering(cluster) == {"n1"}, "n1 answers")
        after = directed(cluster)
        run.check(after == changes, f"nobody became or ceased to be the director: {after}")
        said = cluster.ask("n1", "status")["unrecorded"]
        run.check(said is not None, f"the disk was full: {said}")


@scenario("keeper-killed", "kill -9 of the elected director's keeper: the next goes on")
def keeper_killed(run: Run) -> None:
    """Kill the process that holds the election, three times: no stream and no request is lost.

    The next one goes on where it began in time, which a new interpreter on a busy machine may
    not; then another node directs for a while.
    """
    with Cluster(run, adjust=leisurely) as cluster:
        held = cluster.streams(STREAMS)
        wait(lambda: opened(held.path) == STREAMS, "the streams are open")
        load = cluster.load(kept_rate=20, new_rate=10)
        for _ in range(3):
            _kill_keeper(run, cluster)
        starts = cluster.server_status("n1")["election"]["keeper"]["starts"]
        run.check(starts == 4, f"each start is counted: {starts}")
        requests, streams = load.finish(), finished(held.process, held.path)
        lost = [stream.backend for stream in streams if stream.fate != "alive"]
        run.figure("failed_requests", requests.failures)
        run.check(requests.failures == 0, f"no request failed: {requests.by_error}")
        run.check(not lost, f"no stream was lost: {lost}")


def _kill_keeper(run: Run, cluster: Cluster) -> None:
    former, at = keeper_of(cluster.agents["n1"]), now()
    os.kill(former, signal.SIGKILL)
    wait(lambda: is_new(cluster, former), "another keeper", 30.0)
    run.figure("until_another_keeper_ms", milliseconds(at, now()))
    run.figure("moved", len(watched(cluster, 6.0)))
    wait(lambda: answering(cluster) == {"n1"}, "n1 directs, and it alone", 30.0)


def leisurely(document: Config, node: str) -> None:
    """Let three adverts last longer than a new interpreter takes in user-mode Linux (1 to 3 s)."""
    elected("1500ms")(document, node)
    document["virtual_servers"][0]["election"]["address_lifetime"] = "5s"


def on(disk: Path) -> Callable[[Config, str], None]:
    """Return the configuration of an election with the state of n1 on that disk."""
    elect = elected("1s")

    def adjust(document: Config, node: str) -> None:
        elect(document, node)
        if node == "n1":
            document["agent"]["state_file"] = str(disk / "state.json")

    return adjust


@contextlib.contextmanager
def full_disk(path: Path) -> Iterator[Path]:
    """Give a file system that has no room."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", path], check=True)
    try:
        with contextlib.suppress(OSError):
            (path / "filler").write_bytes(bytes(64 * 1024))
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def burn() -> None:
    """Use a processor for nothing, and much memory for a moment each."""
    while True:
        for _ in [{} for _ in range(100_000)]:
            pass


def stop_often(pid: int) -> None:
    """Stop a process again and again, before all others so that it is not for longer."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(2))
    while True:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(BURST)
        os.kill(pid, signal.SIGCONT)
        time.sleep(REST)


def watched(cluster: Cluster, seconds: float) -> set[str]:
    """Return the followers that had the address on the real interface within that time."""
    deadline = time.monotonic() + seconds
    seen: set[str] = set()
    while time.monotonic() < deadline:
        seen |= {name for name in ("n2", "n3") if present(cluster, name)}
        time.sleep(0.1)
    return seen


def directed(cluster: Cluster) -> dict[str, list[str]]:
    """Return what every node has said about directing."""
    return {name: cluster.told(name, "vip.leadership") for name in cluster.nodes}


def keeper_of(agent: Process) -> int:
    """Return the pid of the agent's keeper: its one child."""
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    living = [pid for pid in map(int, children) if _state(pid) not in ("Z", "")]
    return living[0] if living else 0


def is_new(cluster: Cluster, former: int) -> bool:
    """Return whether n1 has another keeper, and that has spoken."""
    pid = keeper_of(cluster.agents["n1"])
    status = cluster.server_status("n1")["election"]
    return pid not in (0, former) and status["keeper"]["heard_ms_ago"] is not None


def memory(run: Run, agent: Process) -> None:
    """Say how much memory agent and keeper take (proc(5), smaps_rollup)."""
    for name, pid in (("agent", agent.pid), ("keeper", keeper_of(agent))):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            return
        found = {line.split()[0]: int(line.split()[1]) for line in lines[1:]}
        private = found["Private_Dirty:"] + found["Private_Clean:"]
        run.figure(f"{name}_pss_kib", found["Pss:"])
        run.figure(f"{name}_private_kib", private)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
