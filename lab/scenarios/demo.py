"""The demo's story: the incident and what else goes wrong, healed while a client watches.

`script/demo` shows it; told to people it is also a scenario like any other.  Beside the usual
events it tells `cluster`, `step`, `mark` and `measured`, and those of `lab.feed`.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from lab import clients, observer
from lab.cluster import Cluster, Config, Load, milliseconds, now
from lab.feed import Feed, Tail
from lab.net import PORT
from lab.scenario import Run, scenario
from lab.scenarios.announcing import finished, opened, wait
from lab.scenarios.election import answering

SLOW = 10.0
"""Seconds that nothing here may take, on the slowest machine."""
LOOK = 1.4
"""Seconds to look at a state before the next thing happens."""
DRAIN_SECONDS = 3.0
"""Readiness is red for that long before the port closes."""
KEPT_CONNECTIONS = 12
"""Of the client: enough that every backend has some."""
STREAMS = 50
PATIENCE = 2.0
"""Seconds after which the client gives a request up."""


@scenario("demo", "the whole story of script/demo: killed, back, wiped, rolled, all down, moved")
def demo(run: Run) -> None:
    """Tell it."""
    run.say("Three API servers and a revip agent on each node are starting")
    with Cluster(run, adjust=elected) as cluster:
        load = busy_client(cluster, run.directory / "requests.jsonl")
        epoch = now()
        story = Story(run, cluster, load, epoch)
        run.event(
            "cluster",
            vip=f"{cluster.vip}:{PORT}",
            release=platform.release(),
            backends={name: cluster.address(name) for name in cluster.nodes},
        )
        with story.watched():
            story.all_in()
            story.killed_and_back("n2")
            story.vandal()
            rolled = story.rolling_restart()
            story.all_down()
            story.leader_killed()
        load.finish()
        story.count(*rolled)
        run.say("All of it healed by itself")


def elected(document: Config, node: str) -> None:
    """Have the nodes elect the director; the first one has the highest priority."""
    server = document["virtual_servers"][0]
    first = node == server.pop("owner")
    server["election"] = {"kind": "vrrp", "vrid": 51, "priority": 200 if first else 100}


def busy_client(cluster: Cluster, path: Path) -> Load:
    """Start the client; return it when its first request is on record."""
    client = clients.LoadClient(cluster.target(PATIENCE), connections=KEPT_CONNECTIONS)
    process = cluster.lab.spawn("c1", clients.run, client, path, 300.0)
    deadline = time.monotonic() + SLOW
    while not path.exists() or not path.stat().st_size:
        if not process.alive or time.monotonic() > deadline:
            raise TimeoutError(f"the client records nothing: see {process.log}")
        time.sleep(0.01)
    return Load(process, path)


class Story:
    """The acts, in order."""

    def __init__(self, run: Run, cluster: Cluster, load: Load, epoch: int) -> None:
        self.run = run
        self.cluster = cluster
        self.load = load
        self.epoch = epoch

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Stream what outsiders see, for the block."""
        feed = Feed(self.run, self.cluster, Tail(self.load.path, self.epoch))
        output = os.dup(1)
        try:
            process = self.cluster.lab.spawn(
                self.cluster.owner, feed.follow, output, keep=(output,)
            )
        finally:
            os.close(output)
        try:
            yield
        finally:
            time.sleep(0.5)  # the last look of the feed comes at most 0.2 s after the end
            process.end()

    def all_in(self) -> None:
        """Look at a healthy cluster."""
        with self.step("in", "All three API servers are in the kernel's table") as step:
            self.cluster.until(self.cluster.everybody(), SLOW)
            time.sleep(LOOK)
            step.result = f"{len(self.cluster.nodes)} in"

    def killed_and_back(self, name: str) -> None:
        """Replay the incident."""
        where = self.cluster.address(name)
        with self.step("removed", f"{where} is killed (SIGKILL): out of the table") as step:
            killed = self.cluster.kill(name)
            self.mark("removed", killed, f".{where.rpartition('.')[2]} killed")
            gone = self.cluster.until(self.cluster.all_but(name), SLOW)
            step.took("removed_after_ms", "out after", milliseconds(killed, gone))
        time.sleep(LOOK)
        with self.step("readded", f"{where} serves again: back in the table") as step:
            served = self.cluster.start(name)
            self.mark("readded", served, "restarted")
            back = self.cluster.until(self.cluster.everybody(), SLOW)
            step.took("readded_after_ms", "back after", milliseconds(served, back))
        time.sleep(LOOK)

    def vandal(self) -> None:
        """Empty the table as somebody with a root shell might."""
        with self.step("drift", "A vandal types `ipvsadm -C`: the table is repaired") as step:
            for _ in range(3):
                seen = self._wipe()
                if seen is not None:
                    break  # else it was repaired between two looks of ours: once more
            wiped, repaired = seen or (0, 0)
            self.run.check(seen, "the observer saw the table empty and full again")
            self.mark("drift", wiped, "ipvsadm -C")
            step.took("drift_repaired_after_ms", "repaired after", milliseconds(wiped, repaired))
        time.sleep(LOOK)

    def _wipe(self) -> tuple[int, int] | None:
        """Empty the table; return when it was seen empty and when full again."""
        cluster, empty = self.cluster, 0
        full = cluster.everybody()
        vandal = cluster.lab.exec_in(cluster.owner, ["ipvsadm", "-C"])

        def repaired(tables: observer.Tables) -> bool:
            nonlocal empty
            weights = next((s.weights for s in tables if s.address == str(cluster.vip)), {})
            empty = empty or (0 if weights else now())
            done = bool(empty) or not vandal.alive
            return done and weights == full

        with cluster.lab.network.inside(cluster.owner):
            at = observer.wait_until(repaired, SLOW)
        vandal.wait(SLOW)
        return (empty, at) if empty else None

    def rolling_restart(self) -> tuple[int, int]:
        """Restart each server as kube-apiserver stops; return the first and the last instant."""
        began = now()
        title = "Rolling restart, readiness red 3 s before: failed requests"
        with self.step("rolling", title) as step:
            for number, name in enumerate(self.cluster.nodes, 1):
                self._restart(name)
                step.progress(f"{number} of {len(self.cluster.nodes)}")
            ended = now()
            time.sleep(PATIENCE + 0.1)  # then the last request of this act has its answer
            failed, requests = self._failed(began, ended)
            step.result = f"{failed} of {requests}"
        return began, ended

    def _restart(self, name: str) -> None:
        cluster, where = self.cluster, self.cluster.address(name)
        self.run.say(f"{where} is asked to stop: readiness turns red, the port stays open for 3 s")
        asked = now()
        cluster.control(name).set("graceful-stop", drain_seconds=DRAIN_SECONDS)
        self.mark(name, asked, f".{where.rpartition('.')[2]} stops")
        drained = cluster.until({**cluster.everybody(), where: 0}, SLOW)
        self.run.figure("weight_0_after_ms", milliseconds(asked, drained))
        self.measured(name, f"weight 0: {written(milliseconds(asked, drained))}")
        cluster.servers[name].wait(15)
        cluster.until(cluster.all_but(name), SLOW)
        self.run.say(f"{where} has closed its port, is out of the table and starts anew")
        cluster.start(name)
        cluster.until(cluster.everybody(), SLOW)

    def _failed(self, began: int, ended: int) -> tuple[int, int]:
        """Return how many requests sent between the instants failed, and how many there were."""
        requests = clients.read_requests(self.load.path)
        sent = [request for request in requests if began <= request.start <= ended]
        return sum(request.error is not None for request in sent), len(sent)

    def count(self, began: int, ended: int) -> None:
        """Count the rolling restart's failures when every request is on record."""
        failed, requests = self._failed(began, ended)
        self.run.figure("rolling_restart_failed_requests", failed)
        self.run.figure("rolling_restart_requests", requests)
        self.span(began, ended, f"rolling restart: {failed} of {requests} requests failed")
        self.run.check(failed == 0, f"none of {requests} requests failed in the rolling restart")

    def all_down(self) -> None:
        """Kill every server: the table is kept, and all come back."""
        cluster = self.cluster
        with self.step("panic", "All three are killed: panic, the table is kept") as step:
            killed = [cluster.kill(name) for name in cluster.nodes]
            self.mark("panic", killed[0], "all killed")
            cluster.until_told(cluster.owner, "pool.mode", "panic")
            cluster.until(cluster.everybody(), SLOW)
            kept = self._fewest(LOOK)
            self.run.figure("panic_kept_backends", kept)
            self.run.check(kept == len(cluster.nodes), f"panic keeps every backend in: {kept}")
            step.result = f"{kept} kept"
            self.measured("panic", f"panic: {kept} kept")
        with self.step("back", "All three serve again: the client is answered") as step:
            started = now()
            self.mark("back", started, "started again")
            self.span(killed[0], started, "no server is up")
            for name in cluster.nodes:
                cluster.start(name)
            cluster.until_told(cluster.owner, "pool.mode", "normal")
            cluster.until(cluster.everybody(), SLOW)
            cluster.until_reachable()
            answered = self._first_answer(killed[-1])
            step.took("answered_after_ms", "answers after", milliseconds(started, answered))
        time.sleep(LOOK)

    def leader_killed(self) -> None:
        """Kill the director's agent while long connections are open."""
        cluster, leader = self.cluster, self.cluster.owner
        title = f"The director's agent is killed (SIGKILL): {STREAMS} open streams go on"
        with self.step("leader", title) as step:
            held = cluster.streams(STREAMS)
            wait(lambda: opened(held.path) == STREAMS, "the streams are open")
            time.sleep(LOOK)
            killed = now()
            cluster.agents[leader].kill(signal.SIGKILL)
            self.mark("leader", killed, f"{leader}'s agent killed")
            wait(lambda: bool(seen := answering(cluster)) and leader not in seen, "another answers")
            moved = milliseconds(killed, now())
            time.sleep(LOOK)
            streams = finished(held.process, held.path)
            lost = [stream.backend for stream in streams if stream.fate != "alive"]
            self.run.figure("leader_moved_after_ms", moved)
            self.run.figure("leader_killed_streams", len(streams))
            self.run.figure("leader_killed_streams_lost", len(lost))
            self.run.check(not lost, f"all {len(streams)} streams go on: {lost} lost")
            step.result = f"{len(lost)} of {len(streams)} lost"
            self.measured("leader", f"only another answers after {written(moved)}")
        time.sleep(LOOK)

    def _first_answer(self, killed: int) -> int:
        """Wait for the client's first good answer to a request sent after `killed`; return when.

        Raises TimeoutError.
        """
        deadline = time.monotonic() + SLOW
        while time.monotonic() < deadline:
            requests = clients.read_requests(self.load.path)
            good = [r.end for r in requests if r.start > killed and r.error is None]
            if good:
                return min(good)
            time.sleep(0.1)
        raise TimeoutError("the client has had no answer since all servers were killed")

    def _fewest(self, seconds: float) -> int:
        """Watch the table; return the least number of backends that took new connections."""
        cluster, fewest = self.cluster, len(self.cluster.nodes)
        deadline = time.monotonic() + seconds
        with cluster.lab.network.inside(cluster.owner), observer.TableReader() as reader:
            while time.monotonic() < deadline:
                weights = [s.weights for s in reader.read() if s.address == str(cluster.vip)]
                fewest = min(fewest, sum(w > 0 for found in weights for w in found.values()))
                time.sleep(0.005)
        return fewest

    # --- telling --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def step(self, key: str, title: str) -> Iterator[Step]:
        """Tell that a step begins, and with its result that it is done or failed."""
        self.run.say(title)
        step = Step(self, key, title)
        step.tell("running")
        try:
            yield step
        except BaseException:
            step.tell("failed")
            raise
        step.tell("done")

    def mark(self, key: str, at: int, text: str) -> None:
        """Tell that something was done at that instant."""
        self.run.event("mark", key=key, t_ms=self._since_epoch(at), text=text)

    def span(self, began: int, ended: int, text: str) -> None:
        """Tell what there is to say of the time between two instants."""
        start, end = self._since_epoch(began), self._since_epoch(ended)
        self.run.event("span", **{"from": start, "to": end}, text=text)

    def _since_epoch(self, at: int) -> float:
        return round((at - self.epoch) / 1e6, 1)

    def measured(self, key: str, text: str) -> None:
        """Tell what was measured after the mark of that key."""
        self.run.event("measured", key=key, text=text)


class Step:
    """A step under way."""

    def __init__(self, story: Story, key: str, title: str) -> None:
        self.result = ""
        self._story = story
        self._key = key
        self._title = title

    def took(self, figure: str, words: str, spent: float) -> None:
        """Note the time that this step was about.

        It can fall below 0 when the start of a server was known here after its effect.
        """
        spent = max(0.0, spent)
        self.result = written(spent)
        self._story.run.figure(figure, spent)
        self._story.measured(self._key, f"{words} {self.result}")

    def progress(self, result: str) -> None:
        """Tell how far it is."""
        self.result = result
        self.tell("running")

    def tell(self, state: str) -> None:
        """Tell its state: `running`, `done` or `failed`."""
        self._story.run.event(
            "step", key=self._key, title=self._title, state=state, result=self.result
        )


def written(milliseconds: float) -> str:
    """Write a span: `18.9 ms`, `455 ms`, `1.23 s`."""
    if milliseconds >= 999.5:
        return f"{milliseconds / 1000:.2f} s"
    return f"{milliseconds:.0f} ms" if milliseconds >= 99.95 else f"{milliseconds:.1f} ms"
