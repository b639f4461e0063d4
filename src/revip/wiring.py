"""The composition root: a valid `Spec` in, a wired agent out; the only file with adapters."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from revip.adapters.announcer import PacketAnnouncer
from revip.adapters.backends_file import BackendsFile
from revip.adapters.clock import BootClock
from revip.adapters.culprits import culprits
from revip.adapters.fences import NftFences
from revip.adapters.history_file import HistoryFile
from revip.adapters.host import LinuxHost
from revip.adapters.ipvs import GenetlinkIpvs
from revip.adapters.ownership import StateFile
from revip.adapters.preflight.standing import (
    Check,
    judge_standing,
    read_standing,
    refusals,
)
from revip.adapters.probes import probe_factory
from revip.adapters.sentry import LinkSentry
from revip.adapters.service_manager import ServiceManager
from revip.adapters.subnets import subnets
from revip.adapters.timed_table import TimedTable
from revip.agent.agent import Agent
from revip.agent.commands import Commands
from revip.agent.journal import Journal
from revip.agent.notices import Notices
from revip.agent.outside import Ports
from revip.agent.reporting import Report, Reporting
from revip.api import words
from revip.api.control import Command, ControlServer
from revip.api.health import liveness, well
from revip.api.status import status
from revip.config.load import load
from revip.errors import ConfigError, Problem
from revip.model.discovery import BackendsNews
from revip.model.health import Backend, ProbeResult
from revip.model.notes import Kind, Level
from revip.model.spec import Spec, VirtualServerSpec
from revip.planner.forwarding import choice, chosen
from revip.planner.measures import Deliveries
from revip.ports import BackendSource, KeeperLink

CONFIG_POLL_SECONDS = 1.0
CONFIG_SETTLED_SECONDS = 0.1
"""A file that stays the same for so long counts as written."""


def ports(spec: Spec, keeper: KeeperLink | None = None) -> Ports:
    """Fill every port with the adapter that `spec` asks for."""
    clock = BootClock()
    ipvs = GenetlinkIpvs()
    fences = NftFences(clock)

    def source(server: VirtualServerSpec) -> BackendSource | None:
        if server.backends_file is None:
            return None
        return BackendsFile(server.backends_file, server)

    return Ports(
        clock=clock,
        table=TimedTable(ipvs),
        host=LinuxHost(host_record(spec), ipvs, fences) if spec.manage_host else None,
        probes=probe_factory(clock),
        source=source,
        ownership=StateFile(spec.state_file),
        culprits=culprits,
        keeper=keeper,
        announcer=PacketAnnouncer() if spec.manage_host else None,
        sentry=LinkSentry if spec.manage_host else None,
    )


def settled(spec: Spec) -> Spec:
    """Return `spec` with every choice made that it leaves to this host."""
    servers = (chosen(server, subnets(server.interface)) for server in spec.virtual_servers)
    return replace(spec, virtual_servers=tuple(servers))


def host_record(spec: Spec) -> Path:
    """Return where the host's former values (sysctls) are kept."""
    return spec.state_file.with_name("host.json")


def obstacles(spec: Spec) -> tuple[Check, ...]:
    """Return what keeps an agent from starting here; cheap enough for every start."""
    return refusals(judge_standing(read_standing(spec)))


def survey(spec: Spec) -> tuple[Check, ...]:
    """Return every check of this host; not to be called within an event loop."""
    from revip.adapters.preflight.judge import preflight  # not for the daemon, see standing
    from revip.adapters.preflight.read import read_facts

    chosen = settled(spec)
    return preflight(chosen, read_facts(chosen))


def discovered(server: VirtualServerSpec) -> BackendsNews | None:
    """Return what the backends file of `server` says now, None where it has no such file."""
    path = server.backends_file
    return None if path is None else BackendsFile(path, server).read()


async def ask_each(server: VirtualServerSpec) -> dict[Backend, ProbeResult]:
    """Probe every backend of `server` once, all at the same time, as an agent would."""
    factory = probe_factory(BootClock())

    async def ask(backend: Backend) -> ProbeResult:
        probe = factory(backend, server.probe, server.health, lambda _: None)
        try:
            return await probe.ask(fresh=True)
        finally:
            await probe.close()

    results = await asyncio.gather(*map(ask, server.backends))
    return dict(zip(server.backends, results, strict=True))


class Reloading:
    """Reads the configuration again: on SIGHUP, on `revip reload`, and when the file changes."""

    def __init__(self, path: Path | None, environ: Mapping[str, str], hostname: str) -> None:
        self._path = path
        self._environ = environ
        self._hostname = hostname
        self._stamp = self._look()
        self._chosen: frozenset[str] = frozenset()
        self._before: Callable[[], None] = lambda: None
        self._after: Callable[[], None] = lambda: None

    def tell(self, agent: Agent) -> None:
        """Note what was chosen for virtual servers that leave it to us."""
        automatic = [server for server in agent.spec.virtual_servers if server.automatic]
        chosen = frozenset(f"{server.name}: {choice(server)}" for server in automatic)
        for text in sorted(chosen - self._chosen):
            agent.note(Kind.CONFIG, text)
        self._chosen = chosen

    def watched_by(self, before: Callable[[], None], after: Callable[[], None]) -> None:
        """Have `before` and `after` called around each reading."""
        self._before, self._after = before, after

    def reload(self, agent: Agent) -> str | None:
        """Take the configuration over; return why it was refused, None when it was not."""
        self._before()
        try:
            return self._reload(agent)
        finally:
            self._after()

    def _reload(self, agent: Agent) -> str | None:
        self._stamp = self._look()
        try:
            spec = settled(load(self._path, self._environ, self._hostname))
            _refuse_restart_keys(agent.spec, spec)
        except ConfigError as error:
            for problem in error.problems:
                text = f"refused, the old configuration goes on: {problem}"
                agent.note(Kind.CONFIG_REFUSED, text, Level.ERROR)
            return str(error)
        if spec != agent.spec:
            agent.reconfigure(spec)
            self.tell(agent)
        return None

    async def watch(self, agent: Agent) -> None:
        """Poll the file; one stat(2) a second."""
        while True:
            await asyncio.sleep(CONFIG_POLL_SECONDS)
            found = self._look()
            if found in (self._stamp, None):
                self._choose(agent)
                continue
            await asyncio.sleep(CONFIG_SETTLED_SECONDS)
            if self._look() == found:  # else somebody is still writing
                self.reload(agent)

    def _choose(self, agent: Agent) -> None:
        """Choose again what was chosen before its interface had a subnet; nothing else wavers."""
        servers = tuple(
            chosen(server, subnets(server.interface)) if server.undecided else server
            for server in agent.spec.virtual_servers
        )
        if servers != agent.spec.virtual_servers:
            agent.reconfigure(replace(agent.spec, virtual_servers=servers))
            self.tell(agent)

    def _look(self) -> object:
        try:
            found = self._path.stat() if self._path else None
        except OSError:
            return None  # being replaced; the old configuration goes on
        return found and (found.st_mtime_ns, found.st_ino, found.st_size)


def _refuse_restart_keys(old: Spec, new: Spec) -> None:
    for key in ("node", "node_address", "socket", "state_file", "manage_host", "http", "notify"):
        if getattr(old, key) != getattr(new, key):
            mend = "cannot change while the agent runs: restart it (nothing is lost by that)"
            value = "" if key == "notify" else str(getattr(new, key))  # which may hold secrets
            raise ConfigError(Problem("configuration", key, value, mend))


def history_file(spec: Spec) -> HistoryFile:
    """Return where the history outlives a restart: beside what else must."""
    return HistoryFile(spec.state_file.with_name("history.jsonl"))


async def serve(agent: Agent, reloading: Reloading, kept: HistoryFile) -> None:
    """Run `agent` with its surfaces and signals until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    render: Callable[[Agent], dict[str, Any]] = lambda a: status(a.node, a.ports.clock.now())  # noqa: E731
    commands = Commands(agent, render, lambda: reloading.reload(agent)).table()
    _keep_history(agent, kept)
    notices = notifications(agent, os.environ)
    whole = surfaces(agent, commands["status"], kept, notices.deliveries)
    commands = {**commands, "status": whole}
    manager = ServiceManager(os.environ, os.getpid())
    reporting = Reporting(manager, lambda: _report(commands["status"]({})))
    if manager.listens:
        agent.add_part("service manager", reporting.run)
        reloading.watched_by(reporting.reloading, reporting.reloaded)

    def stop() -> None:
        reporting.stopping()
        agent.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, reloading.reload, agent)
    agent.add_part("control socket", ControlServer(agent.spec.socket, commands).run)
    reloading.tell(agent)
    agent.add_part("configuration watch", lambda: reloading.watch(agent))
    try:
        await agent.run()
    finally:
        await notices.finish()
        manager.close()
        agent.ports.table.close()
        if agent.ports.host is not None:
            await agent.ports.host.close()
        if agent.ports.announcer is not None:
            agent.ports.announcer.close()


def _keep_history(agent: Agent, kept: HistoryFile) -> None:
    loop = asyncio.get_running_loop()

    def failed(text: str) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it all that could be told
            loop.call_soon_threadsafe(agent.note, Kind.HISTORY, text, Level.WARNING)

    kept.failed = failed
    agent.journal.history.followers.append(kept.write)


def _report(snapshot: Mapping[str, Any]) -> Report:
    """Say in one line how the agent is; `troubles` has the gravest first."""
    first = next(iter(snapshot["troubles"]), None)
    pools = (
        f"{server['name']} {sum(bool(each['wanted_weight']) for each in server['backends'])} of"
        f" {len(server['backends'])} in, {server['role']}"
        for server in snapshot["virtual_servers"]
    )
    text = first["what"] if first else "; ".join(pools)
    up = snapshot["observed_ms_ago"] is not None or snapshot["kernel"]["error"] is not None
    return Report(up, well(liveness(snapshot)), f"{snapshot['state']}: {text}")


def notifications(agent: Agent, environ: Mapping[str, str]) -> Notices:
    """Give `agent` those who are told of events, if there are any."""
    notices, spec = Notices(agent), agent.spec.notify
    if spec.webhook is not None:
        # Imported here alone, so that an agent without it does not carry it.
        from revip.adapters.webhook import WebhookMessenger

        notices.post("webhook", WebhookMessenger(spec.webhook), spec.webhook.filter)
    if spec.command is not None:
        from revip.adapters.command import CommandMessenger

        notices.run("command", CommandMessenger(spec.command, environ), spec.command.filter)
    return notices


def surfaces(
    agent: Agent,
    told: Command,
    kept: HistoryFile,
    deliveries: Mapping[str, Deliveries] = MappingProxyType({}),
) -> Command:
    """Give `agent` its HTTP endpoint, if it is to have one; return the whole status."""
    if agent.spec.http.listen is None:
        return lambda request: _whole(agent, told(request), kept, None)
    # Imported here alone, so that an agent without it does not carry it.
    from revip.api.http.routes import Told
    from revip.api.http.server import HttpServer
    from revip.api.process import LoopLag, process
    from revip.api.tally import Tally

    tally, lag, table = Tally(), LoopLag(), agent.ports.table

    def whole(request: Mapping[str, Any]) -> dict[str, Any]:
        return _whole(agent, told(request), kept, server.status())

    def metrics() -> bytes:
        from revip.api.metrics import Facts, render  # the first scrape may wait, a start may not

        facts = Facts(
            whole({}),
            time.time(),
            process(),
            agent.probing.counts,
            tally,
            lag,
            notes=agent.journal.by_kind,
            history_failures=kept.failures,
            history_dropped=kept.dropped,
            http=server,
            deliveries=deliveries,
        )
        if isinstance(table, TimedTable):
            facts = replace(facts, kernel=table.durations, refusals=table.refusals)
        return render(facts)

    history = agent.journal.history
    told_there = Told(lambda: whole({}), metrics, history.after)
    server = HttpServer(agent.spec.http, told_there, agent.ports.clock, agent.journal.write)
    history.followers += (tally.count, server.tell)
    agent.add_part("HTTP endpoint", server.run)
    agent.add_part("loop lag", lag.run)
    return whole


def _whole(
    agent: Agent, snapshot: dict[str, Any], kept: HistoryFile, http: dict[str, Any] | None
) -> dict[str, Any]:
    """Add to a snapshot what only the surfaces know, and what it means.

    `peers` is for what other nodes say of themselves, each `{node, url, age_ms, error, status}`.
    """
    history = {
        "file": str(kept.path),
        "error": kept.failure,
        "dropped": kept.dropped,
        "restored": agent.journal.history.restored,
    }
    snapshot = {**snapshot, "http": http, "history": history, "peers": []}
    return {**snapshot, **words.told(snapshot)}


def wired(spec: Spec, journal: Journal, keeper: KeeperLink) -> Agent:
    """Return an agent for `spec`, with real adapters."""
    if not any(server.vrrp for server in spec.virtual_servers):
        keeper.close()  # another is started when a new configuration needs one
    return Agent(settled(spec), ports(spec, keeper), journal)
