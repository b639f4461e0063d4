"""A whole control plane in the lab: stand-in API servers and revip agents on every node.

`with Cluster(run) as cluster:` starts them and waits until the director's table is full.  What a
scenario asserts on comes from the lab's own observer and clients, never from revip.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Protocol, Self

import yaml

from lab import clients, observer, pki, standin
from lab.clients import LoadClient, StreamClient, Summary, Target
from lab.net import LINK, PORT, VIP, VIP6
from lab.processes import Lab, Process
from lab.standin import StandInControl
from revip.errors import RevipError

START_SECONDS = 30.0
"""Until a freshly started cluster must be complete; CI machines are slow."""

Config = dict[str, Any]


class Stage(Protocol):
    """Where a cluster plays: a scenario's `Run`, or a standing lab."""

    @property
    def lab(self) -> Lab:
        """The network."""
        ...

    @property
    def directory(self) -> Path:
        """An empty folder of the cluster's own."""
        ...


class Load:
    """A running client; its result is asked once, at the end."""

    def __init__(self, process: Process, path: Path) -> None:
        self.process = process
        self.path = path

    def finish(self) -> Summary:
        """Stop the client and return what it saw."""
        self.process.kill(signal.SIGTERM)
        self.process.wait(10)
        return clients.summarize(clients.read_requests(self.path))


class Cluster:
    """Nodes with a stand-in API server and an agent each."""

    def __init__(
        self,
        stage: Stage,
        *,
        family: int = 4,
        owner: str = "n1",
        agents: Iterable[str] | None = None,
        adjust: Callable[[Config, str], None] | None = None,
        drain_seconds: float = 3.0,
    ) -> None:
        """Remember what to start.

        `agents` are the nodes with an agent, all if None; `adjust` may change the configuration
        document of a node before it is written.
        """
        self.lab = stage.lab
        self.nodes = {node.name: node for node in stage.lab.network.nodes}
        self.family = family
        self.owner = owner
        self.vip: IPv4Address | IPv6Address = VIP if family == 4 else VIP6
        self.servers: dict[str, Process] = {}
        self.agents: dict[str, Process] = {}
        self.folder = stage.directory
        self._with_agent = tuple(self.nodes if agents is None else agents)
        self._adjust = adjust
        self._drain_seconds = drain_seconds
        self._loads = 0
        self._pki = pki.make(
            self.folder / "pki",
            {name: (node.address, node.address6) for name, node in self.nodes.items()},
            (VIP, VIP6),
        )

    def __enter__(self) -> Self:
        """Start everything and wait until the director's table holds every node."""
        try:
            for name in self.nodes:
                self.start(name)
            for name in self._with_agent:
                self.start_agent(name)
            if self.owner in self._with_agent:
                self.until(self.everybody(), START_SECONDS)
                self.until_reachable()
        except TimeoutError as error:
            said = "; ".join(self._inventory())
            self.__exit__()
            raise TimeoutError(f"the cluster did not come up: {error}; {said}") from None
        except BaseException:
            self.__exit__()
            raise
        return self

    def _inventory(self) -> Iterator[str]:
        """Say of each process whether it lives, and of each node what it listens on."""
        for process in [*self.servers.values(), *self.agents.values()]:
            yield f"{process} {'lives' if process.alive else f'ended with {process.code}'}"
        for name in self.nodes:
            listening = [line.split()[3] for line in self.run_in(name, "ss", "-Hltn").splitlines()]
            yield f"{name} listens on {', '.join(listening) or 'nothing'}"

    def __exit__(self, *_: object) -> None:
        """End the processes; the network's end is the lab's affair."""
        for process in [*self.agents.values(), *self.servers.values()]:
            process.end()

    # --- API servers ----------------------------------------------------------------------------

    def start(self, name: str) -> int:
        """Start the node's API server; return the instant (monotonic ns) when it served."""
        node, files = self.nodes[name], self._pki.server(name)
        # As kube-apiserver does, on every address: the VIP's frames come to this host, too.
        wildcards = (IPv4Address(0), IPv6Address(0))
        self.servers[name] = self.lab.spawn(
            node.name,
            _serve,
            wildcards,
            files.certificate,
            files.key,
            self._control(name),
            name,
            self._drain_seconds,
        )
        self.control(name).wait()
        return time.monotonic_ns()

    def kill(self, name: str) -> int:
        """Kill the node's API server with SIGKILL; return the instant just before."""
        self._control(name).unlink(missing_ok=True)
        now = time.monotonic_ns()
        self.servers[name].kill()
        self.servers[name].wait(5)
        return now

    def control(self, name: str) -> StandInControl:
        """Return the switch of the node's API server."""
        return StandInControl(self._control(name))

    def address(self, name: str) -> str:
        """Return the node's address in the VIP's family, as text."""
        node = self.nodes[name]
        return str(node.address if self.family == 4 else node.address6)

    # --- agents ---------------------------------------------------------------------------------

    def start_agent(self, name: str, config: Config | None = None) -> Process:
        """Start the node's agent, in a fork of this warm process."""
        document = self.config(name) if config is None else config
        path = self.config_path(name)
        draft = path.with_suffix(".new")
        draft.write_text(yaml.safe_dump(document, sort_keys=False))
        draft.replace(path)
        self.agents[name] = self.lab.spawn(name, _agent, str(path))
        return self.agents[name]

    def config_path(self, name: str) -> Path:
        """Return the path of the node's configuration file."""
        return self.folder / f"{name}.yaml"

    def config(self, name: str) -> Config:
        """Return the node's configuration document."""
        document: Config = {
            "node": name,
            "virtual_servers": [
                {
                    "name": "api",
                    "address": str(self.vip),
                    "port": PORT,
                    "interface": LINK,
                    "owner": self.owner,
                    "backends": [
                        {"name": node, "address": self.address(node)} for node in self.nodes
                    ],
                    "probe": {"ca": str(self._pki.ca)},
                }
            ],
            "agent": {
                "socket": str(self.folder / name / "revip.sock"),
                "state_file": str(self.folder / name / "state.json"),
            },
        }
        if self._adjust is not None:
            self._adjust(document, name)
        return document

    def server_status(self, name: str) -> Any:
        """Return the node's own words on the virtual server, for scenarios about what it tells."""
        return self.ask(name, "status")["virtual_servers"][0]

    def told(self, name: str, kind: str) -> list[str]:
        """Return the texts of the events of one kind that the node's present agent told."""
        restored = self.ask(name, "status")["history"]["restored"]
        events = self.ask(name, "events")
        return [e["text"] for e in events if e["event"] == kind and e["id"] > restored]

    def until_told(self, name: str, kind: str, words: str, seconds: float = 10.0) -> None:
        """Wait until the node has told an event of `kind` with `words` in it."""
        deadline = time.monotonic() + seconds
        said: list[str] = []
        while not any(words in text for text in said):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} never said {words!r}, but: {said}")
            with contextlib.suppress(RevipError):  # it is still starting
                said = self.told(name, kind)
            time.sleep(0.02)

    def ask(self, name: str, command: str, **arguments: Any) -> Any:
        """Send a command to the node's agent."""
        from revip.api.control import ask

        return ask(self.folder / name / "revip.sock", command, **arguments)

    # --- what an outsider sees ------------------------------------------------------------------

    def everybody(self, weight: int = 1) -> dict[str, int]:
        """Return the weights of a full table."""
        return {self.address(name): weight for name in self.nodes}

    def all_but(self, *names: str) -> dict[str, int]:
        """Return the weights of a table that lacks `names`."""
        return {self.address(name): 1 for name in self.nodes if name not in names}

    def weights(self, node: str | None = None) -> dict[str, int] | None:
        """Return the weights in a node's kernel (the director's by default); None: no server."""
        with self.lab.network.inside(node or self.owner):
            return self._weights(observer.read_tables())

    def until(self, weights: dict[str, int] | None, timeout: float, node: str | None = None) -> int:
        """Wait until a node's table has these weights; return the instant (monotonic ns).

        Raises TimeoutError, with the table as it is.
        """
        with self.lab.network.inside(node or self.owner):
            return observer.wait_until(lambda tables: self._weights(tables) == weights, timeout)

    def steady(self, seconds: float) -> set[str]:
        """Watch the director's table for that long; return what it was, in words."""
        seen = set()
        deadline = time.monotonic() + seconds
        with self.lab.network.inside(self.owner), observer.TableReader() as reader:
            while time.monotonic() < deadline:
                seen.add(json.dumps(self._weights(reader.read()), sort_keys=True))
                time.sleep(0.005)
        return seen

    def target(self, timeout: float = 5.0, keepalive: int = 15) -> Target:
        """Return the VIP as clients address it."""
        ca = self._pki.ca
        return Target(str(self.vip), PORT, ca, timeout=timeout, keepalive=keepalive)

    def until_reachable(self, client: str = "c1", seconds: float = START_SECONDS) -> int:
        """Wait until `client` gets an answer through the VIP; return the instant."""
        deadline = time.monotonic() + seconds
        while True:
            with self.lab.network.inside(client):
                sample = clients.ask_once(self.target(timeout=1.0))
            if sample.error is None:
                return time.monotonic_ns()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{client} got no answer from the VIP: {sample.error}")
            time.sleep(0.02)

    def load(
        self,
        *,
        client: str = "c1",
        kept_rate: float = 200,
        new_rate: float = 20,
        seconds: float = 120,
        timeout: float = 5.0,
    ) -> Load:
        """Start clients that record every request until `Load.finish`."""
        self._loads += 1
        path = self.folder / f"load-{self._loads}.jsonl"
        loaded = LoadClient(self.target(timeout), kept_rate, new_rate)
        process = self.lab.spawn(client, clients.run, loaded, path, seconds)
        while not path.exists() or not path.stat().st_size:
            if not process.alive:
                raise RuntimeError(f"the client died: see {process.log}")
            time.sleep(0.01)
        return Load(process, path)

    def streams(self, count: int, client: str = "c1", seconds: float = 120) -> Load:
        """Start `count` long-lived streams through the VIP.

        They ask each silent second whether the other side lives, as client-go's HTTP/2 pings do
        every 30 s: a connection that nobody asks about has no way to end.
        """
        self._loads += 1
        path = self.folder / f"streams-{self._loads}.jsonl"
        held = StreamClient(self.target(keepalive=1), count)
        return Load(self.lab.spawn(client, clients.run, held, path, seconds), path)

    def run_in(self, node: str, *argv: str) -> str:
        """Run a program on a node (a vandal's ipvsadm, ip); return what it printed."""
        return self.lab.network.output(node, list(argv))

    def _weights(self, tables: observer.Tables) -> dict[str, int] | None:
        for service in tables:
            if service.address == str(self.vip) and service.port == PORT:
                return service.weights
        return None

    def _control(self, name: str) -> Path:
        return self.folder / f"{name}.control"


def now() -> int:
    """Return the instant in nanoseconds, as the observer and the clients count."""
    return time.monotonic_ns()


def milliseconds(since: int, until: int) -> float:
    """Return the milliseconds between two instants in nanoseconds."""
    return (until - since) / 1e6


def _serve(
    addresses: tuple[IPv4Address | IPv6Address, ...],
    certificate: Path,
    key: Path,
    control: Path,
    name: str,
    drain_seconds: float,
) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        standin.serve(
            addresses, PORT, certificate, key, control, name=name, drain_seconds=drain_seconds
        )


def _agent(config: str) -> int:
    from revip.cli.main import main

    return main(["run", "--config", config])
