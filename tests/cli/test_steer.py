"""The commands that talk to a running agent: an agent's node and commands behind a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from revip.agent.agent import Agent
from revip.agent.commands import Commands
from revip.agent.journal import Journal
from revip.agent.outside import Ports
from revip.api.control import ControlServer, claim
from revip.api.status import status
from revip.model.health import Backend, HealthTiming
from revip.model.instants import Instant
from revip.model.ipvs import Observation, ServiceKey
from revip.model.record import Record
from revip.model.spec import ProbeSpec
from revip.planner.node import Node
from revip.ports import BackendProbe, BackendSource
from tests.cli.conftest import Revip
from tests.planner.test_node import World, spec


class Still:
    """The outside of an agent that nothing happens to: a clock that stands, an empty kernel."""

    def now(self) -> Instant:
        """See Clock."""
        return Instant(200_000)

    def observe(self, keys: frozenset[ServiceKey] | None = None) -> Observation:
        """See KernelTable."""
        return Observation({})

    def apply(self, changes: object) -> None:
        """See KernelTable."""

    def strangers(self, keys: frozenset[ServiceKey]) -> bool:
        return False

    def close(self) -> None:
        """See KernelTable."""

    def read(self) -> Record:
        """See Ownership."""
        return Record()

    def write(self, record: Record) -> None:
        """See Ownership."""


def no_probe(
    backend: Backend, spec: ProbeSpec, timing: HealthTiming, lost: Callable[[str], None]
) -> BackendProbe:
    raise AssertionError("nobody is asked here")


def no_source(_: object) -> BackendSource | None:
    return None


def node() -> Node:
    """Return the node of a director whose three backends are well."""
    world = World(spec())
    world.run(2_000)
    return world.node


class Served:
    """An agent's commands on a control socket, in a thread with a loop of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._ended: asyncio.Event
        self._loop: asyncio.AbstractEventLoop

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        still = Still()
        ports = Ports(still, still, None, no_probe, no_source, still, lambda: ())
        agent = Agent(spec(), ports, Journal("n1", json_lines=False))
        agent.node = node()
        # What an operator's wish starts in the kernel is not what is looked at here.
        agent.perform = lambda actions: None  # type: ignore[method-assign]
        commands = Commands(agent, lambda a: status(a.node, still.now()), lambda: None)
        with claim(self._path):
            server = asyncio.ensure_future(ControlServer(self._path, commands.table()).run())
            while not os.path.exists(self._path):  # noqa: ASYNC110, ASYNC240, PTH110
                await asyncio.sleep(0)
            self._ready.set()
            await self._ended.wait()
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """Return the socket of a running agent."""
    path = tmp_path / "revip.sock"
    with Served(path):
        yield path


def test_without_an_agent_every_command_says_so_and_what_to_do(
    revip: Revip, tmp_path: Path
) -> None:
    path = tmp_path / "revip.sock"
    for command in (
        ["status"],
        ["status", "--json"],
        ["events"],
        ["why"],
        ["plan"],
        ["drain", "n2"],
        ["enable", "n2"],
        ["handover"],
        ["pause"],
        ["resume"],
        ["reload"],
    ):
        said = revip(*command, "--socket", path)
        assert said.code == 1
        assert said.out == ""
        expected = "no agent is running here: start `revip run`, or name its socket with --socket"
        assert said.err == f"revip: {path}: {expected}\n"


def test_the_socket_can_be_named_by_environment(
    revip: Revip, agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVIP_SOCKET", str(agent))
    assert json.loads(_run_with_environment("status", "--json"))["node"] == "n1"


def _run_with_environment(*arguments: str) -> str:
    command = [sys.executable, "-m", "revip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout


def test_status_is_a_screenful_and_exit_code_0_when_all_is_well(revip: Revip, agent: Path) -> None:
    said = revip("status", "--socket", agent)
    assert said.code == 0, said
    assert said.out.startswith(" WELL  n1  revip ")
    assert "3 of 3 in, normal" in said.out
    assert "\x1b" not in said.out


def test_status_for_programs_is_one_object(revip: Revip, agent: Path) -> None:
    said = revip("status", "--json", "--socket", agent)
    assert said.code == 0
    document = json.loads(said.out)
    assert document["schema"] == "revip.status/v1"
    assert [each["verdict"] for each in document["virtual_servers"][0]["backends"]] == [
        "healthy"
    ] * 3


def test_a_drained_backend_is_told_and_makes_exit_code_1(revip: Revip, agent: Path) -> None:
    said = revip("drain", "n2", "--socket", agent)
    assert (said.code, said.out) == (0, "n2 drains: no new connections\n")
    said = revip("status", "--socket", agent)
    assert said.code == 1
    assert "n2 (10.0.1.19:6443) is drained by the operator" in said.out
    assert revip("enable", "10.0.1.19", "--socket", agent).out == "n2 is enabled\n"
    assert revip("status", "--socket", agent).code == 0


def test_an_unknown_backend_is_refused_with_those_that_are_known(revip: Revip, agent: Path) -> None:
    said = revip("drain", "n7", "--socket", agent)
    assert said.code == 1
    known = "n1 of api, n2 of api, n3 of api"
    assert said.err == f"revip: n7: is not a backend; there are: {known}\n"


def test_the_last_healthy_backend_is_not_drained_by_mistake(revip: Revip, agent: Path) -> None:
    for name in ("n1", "n2"):
        assert revip("drain", name, "--socket", agent).code == 0
    said = revip("drain", "n3", "--socket", agent)
    assert said.code == 1
    assert "--force drains it all the same" in said.err
    assert revip("drain", "n3", "--force", "--socket", agent).code == 0


def test_where_nothing_is_elected_a_hand_over_says_what_to_do(revip: Revip, agent: Path) -> None:
    said = revip("handover", "--for", "10s", "--socket", agent)
    assert said.code == 1
    mend = "to move it, change `owner` on every node and reload"
    assert said.err == f"revip: api: nothing is elected (election.kind: static); {mend}\n"
    known = "10.0.1.10 (api)"
    said = revip("handover", "10.0.1.99", "--socket", agent)
    assert said.err == f"revip: 10.0.1.99: is not a virtual IP here; there are: {known}\n"


def test_a_time_to_hold_without_a_unit_is_wrong_usage(revip: Revip, agent: Path) -> None:
    for text in ("5", "m", "0s", "25h", "-1s"):
        said = revip("handover", f"--for={text}", "--socket", agent)
        assert said.code == 2
        assert f"{text}: want a time from 1s to 24h, such as 5m" in said.err


def test_pause_and_resume_are_confirmed_and_shown(revip: Revip, agent: Path) -> None:
    assert revip("pause", "--socket", agent).out == "paused: observing only\n"
    assert "paused by the operator" in revip("status", "--socket", agent).out
    assert revip("resume", "--socket", agent).out == "resumed\n"


def test_a_plan_without_steps_says_so_and_why_backends_stand_where_they_stand(
    revip: Revip, agent: Path
) -> None:
    said = revip("plan", "--socket", agent)
    assert said.code == 0
    first, *reasons = said.out.splitlines()
    assert first == "nothing to do: the kernel is as it should be"
    assert [line.split(":")[:2] for line in reasons] == [["api", f" n{n}"] for n in (1, 2, 3)]


def test_events_ask_for_a_sane_number(revip: Revip, agent: Path) -> None:
    said = revip("events", "--last", "0", "--socket", agent)
    assert (said.code, said.err) == (1, "revip: last: want a whole number from 1 on\n")
    assert revip("events", "--socket", agent).code == 0
    assert revip("events", "--since", "2h", "--json", "--socket", agent).code == 0
    said = revip("events", "--since", "2 hours", "--socket", agent)
    assert said.code == 2
    assert said.problems[-1].endswith("'2 hours' is not a duration: write 90s, 30m, 2h or 7d")


def test_why_answers_about_all_or_one(revip: Revip, agent: Path) -> None:
    said = revip("why", "--socket", agent)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("api, 10.0.1.10:6443: the virtual IP is here, as n1 directs\n")
    assert revip("why", "n2", "--socket", agent).out.startswith("n2 of api, 10.0.1.19:6443: in")
    said = revip("why", "n9", "--socket", agent)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("revip: n9: is neither virtual server nor backend; there are: api")


@pytest.mark.parametrize("command", ["status", "status --json", "plan"])
def test_a_reader_that_leaves_early_is_no_error(agent: Path, command: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing) as broken:
        done = subprocess.run(
            [sys.executable, "-m", "revip", *command.split(), "--socket", str(agent)],
            stdout=broken,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.stderr == ""
    assert done.returncode == 1


def test_status_starts_without_the_drawing_library_and_the_event_loop(agent: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "revip", "status", "--json", "--socket", agent],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "revip.api.asking" in loaded
    assert loaded.isdisjoint({"rich", "asyncio", "yaml", "h11", "ssl", "pyroute2", "logging"})


def test_run_starts_without_what_only_other_commands_need() -> None:
    script = "import sys, revip.cli.run; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    assert set(done.stdout.split()).isdisjoint({"rich", "pyroute2", "argparse", "shutil"})
