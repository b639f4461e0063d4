"""The raw tree to `Spec`, or every problem at once; pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from revip.config import rules
from revip.config.backends import Front, read_backends
from revip.config.endpoint import named_files, read_http
from revip.config.keys import (
    AGENT,
    BACKENDS,
    COMMAND,
    ELECTION,
    HEALTH,
    HTTP,
    MEMBER,
    NOTIFY,
    PROBE,
    SERVER,
    TOP,
    WEBHOOK,
    Agent,
    Command,
    Electing,
    ElectionKind,
    Key,
    Method,
    Probing,
    Server,
    Sync,
    Timing,
    Top,
    Webhook,
)
from revip.config.notifying import read_notify
from revip.config.reader import Findings, Place, Reader, open_block
from revip.config.tree import Block, Listing
from revip.model.health import PROFILES, HealthTiming
from revip.model.http import HttpSpec
from revip.model.instants import MINUTE, Span
from revip.model.ipvs import Forwarding, Port, SchedulerFlag
from revip.model.notify import NotifySpec
from revip.model.spec import (
    LinkName,
    NodeName,
    OnDuplicate,
    ProbeKind,
    ProbeSpec,
    Spec,
    VirtualServerSpec,
    VrrpSpec,
)

_FORWARDING = {
    Method.DIRECT: Forwarding.DIRECT,
    Method.MASQUERADE: Forwarding.MASQUERADE,
    Method.AUTO: Forwarding.DIRECT,
}
_SPEC = Spec(NodeName(""), None, ())


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file that the configuration names, and where it does."""

    path: Path
    place: Place


@dataclass(frozen=True, slots=True)
class ProbeFiles:
    """The files that one probe, the HTTP endpoint or the webhook needs."""

    ca: NamedFile | None
    certificate: NamedFile | None
    key: NamedFile | None
    token: NamedFile | None


@dataclass(frozen=True, slots=True)
class Parsed:
    """What the tree says, good only while `findings` hold no problem."""

    spec: Spec
    files: tuple[ProbeFiles, ...]
    program: NamedFile | None = None
    """What notifications start."""


def parse(root: Block, hostname: str, findings: Findings) -> Parsed:
    """Return what `root` says; `hostname` is the node's name when it has none.

    Everything wrong goes to `findings`; the spec is to be thrown away when there is a problem.
    """
    top = open_block(TOP, root, "", findings)
    servers: list[tuple[Reader, VirtualServerSpec]] = []
    files: list[ProbeFiles] = []
    for reader in top.subs("virtual_servers", SERVER):
        server = _server(reader, files)
        if server is not None:
            servers.append((reader, server))
    _require_servers(top)
    rules.judge_together(servers)
    rules.judge_groups(servers)
    node = top.get(Top.NODE, hostname)
    address = top.get(Top.NODE_ADDRESS, None)
    agent = top.sub("agent", AGENT)
    http = top.sub("http", HTTP)
    spec = Spec(
        NodeName(node),
        address,
        tuple(server for _, server in servers),
        socket=agent.get(Agent.SOCKET, _SPEC.socket),
        state_file=agent.get(Agent.STATE_FILE, _SPEC.state_file),
        reconcile_interval=agent.get(Agent.RECONCILE_INTERVAL, _SPEC.reconcile_interval),
        on_exit=agent.get(Agent.ON_EXIT, _SPEC.on_exit),
        manage_host=agent.get(Agent.MANAGE_HOST, _SPEC.manage_host),
        sync=agent.get(Agent.SYNC, Sync.AUTO) is Sync.AUTO,
        sync_id=agent.get(Agent.SYNC_ID, None),
        http=read_http(http),
        notify=read_notify(top),
    )
    rules.judge_node(top, spec)
    rules.judge_host(agent, spec)
    rules.judge_agent(agent, spec)
    files.extend(_endpoint_files(http, spec.http))
    files.extend(_webhook_files(top, spec.notify))
    return Parsed(spec, tuple(files), _program(top, spec.notify))


def _endpoint_files(reader: Reader, spec: HttpSpec) -> list[ProbeFiles]:
    files = [
        NamedFile(path, reader.place(key)) if path else None for key, path in named_files(spec)
    ]
    return [ProbeFiles(*files)] if files else []


def _webhook_files(top: Reader, spec: NotifySpec) -> list[ProbeFiles]:
    if spec.webhook is None:
        return []
    reader = top.sub("notify", NOTIFY).sub("webhook", WEBHOOK)
    ca, token = spec.webhook.ca, spec.webhook.token_file
    return [
        ProbeFiles(
            NamedFile(ca, reader.place(Webhook.CA)) if ca else None,
            None,
            None,
            NamedFile(token, reader.place(Webhook.TOKEN)) if token else None,
        )
    ]


def _program(top: Reader, spec: NotifySpec) -> NamedFile | None:
    if spec.command is None or not spec.command.argv:
        return None
    reader = top.sub("notify", NOTIFY).sub("command", COMMAND)
    return NamedFile(Path(spec.command.argv[0]), reader.place(Command.ARGV))


def _require_servers(top: Reader) -> None:
    match top.block.child("virtual_servers"):
        case None:
            top.blame("virtual_servers", "is missing: write at least one, or set REVIP_VIP")
        case Listing(items=()):
            top.blame("virtual_servers", "is an empty list: write at least one")


def _server(reader: Reader, files: list[ProbeFiles]) -> VirtualServerSpec | None:
    address = reader.get(Server.ADDRESS, None)
    port = reader.get(Server.PORT, Port(6443))
    interface = reader.get(Server.INTERFACE, None)
    owner, vrrp = _election(reader)
    method = reader.get(Server.FORWARDING, Method.DIRECT)
    known_port = port if reader.good(Server.PORT) else None
    front = Front(address, known_port, method is Method.DIRECT and reader.good(Server.FORWARDING))
    members = reader.subs(BACKENDS, MEMBER)
    backends = read_backends(members, front)
    scheduler, flags = _scheduling(reader)
    name = reader.get(Server.NAME, f"vip-{address}-{port}")
    backends_file = reader.get(Server.BACKENDS_FILE, None)
    if not members and not reader.given(Server.BACKENDS_FILE) and reader.good(BACKENDS):
        reader.blame(BACKENDS, "lists no backend: write at least one, or backends_file")
    panic_threshold = reader.get(Server.PANIC_THRESHOLD, 1)
    drain_deadline = reader.get(Server.DRAIN_DEADLINE, Span(10 * MINUTE))
    probe = _probe(reader.sub("probe", PROBE), files)
    health = _health(reader.sub("health", HEALTH))
    if address is None or interface is None or (owner is None and vrrp is None):
        return None
    server = VirtualServerSpec(
        name,
        address,
        port,
        LinkName(interface),
        NodeName(owner) if owner is not None else None,
        backends,
        backends_file=backends_file,
        scheduler=scheduler,
        flags=flags,
        forwarding=_FORWARDING[method],
        automatic=method is Method.AUTO,
        panic_threshold=panic_threshold,
        drain_deadline=drain_deadline,
        probe=probe,
        health=health,
        vrrp=vrrp,
        on_duplicate=reader.get(Server.ON_DUPLICATE, OnDuplicate.DEFEND),
    )
    rules.judge_server(reader, server)
    return server


def _election(server: Reader) -> tuple[str | None, VrrpSpec | None]:
    """Return the owner or the election, whichever the kind asks for."""
    owner = server.get(Server.OWNER, None)
    reader = server.sub("election", ELECTION)
    kind = reader.get(Electing.KIND, ElectionKind.STATIC)
    usual = VrrpSpec(1)
    spec = VrrpSpec(
        vrid=reader.get(Electing.VRID, usual.vrid),
        priority=reader.get(Electing.PRIORITY, usual.priority),
        advert_interval=reader.get(Electing.ADVERT_INTERVAL, usual.advert_interval),
        preempt=reader.get(Electing.PREEMPT, usual.preempt),
        preempt_delay=reader.get(Electing.PREEMPT_DELAY, usual.preempt_delay),
        peers=reader.get(Electing.PEERS, usual.peers),
        address_lifetime=reader.get(Electing.LIFETIME, usual.address_lifetime),
    )
    rules.judge_election(server, reader, kind, spec)
    return owner, spec if kind is ElectionKind.VRRP else None


def _scheduling(reader: Reader) -> tuple[str, frozenset[SchedulerFlag]]:
    scheduler = reader.get(Server.SCHEDULER, "mh")
    usual = (SchedulerFlag.MH_PORT, SchedulerFlag.MH_FALLBACK) if scheduler == "mh" else ()
    flags = frozenset(reader.get(Server.FLAGS, usual))
    rules.judge_flags(reader, scheduler, flags)
    return scheduler, flags


def _probe(reader: Reader, files: list[ProbeFiles]) -> ProbeSpec:
    usual = ProbeSpec()
    spec = ProbeSpec(
        kind=reader.get(Probing.KIND, ProbeKind.HTTPS),
        path=reader.get(Probing.PATH, usual.path),
        expected=frozenset(reader.get(Probing.EXPECTED, tuple(usual.expected))),
        port=reader.get(Probing.PORT, None),
        server_name=reader.get(Probing.SERVER_NAME, None),
        verify=reader.get(Probing.VERIFY, usual.verify),
        ca=reader.get(Probing.CA, None),
        client_certificate=reader.get(Probing.CERTIFICATE, None),
        client_key=reader.get(Probing.KEY, None),
        token_file=reader.get(Probing.TOKEN, None),
        held=reader.get(Probing.HELD, usual.held),
        fresh_every=reader.get(Probing.FRESH_EVERY, usual.fresh_every),
    )
    rules.judge_probe(reader, spec)

    def named(key: Key[Path], path: Path | None) -> NamedFile | None:
        return NamedFile(path, reader.place(key)) if path else None

    files.append(
        ProbeFiles(
            named(Probing.CA, spec.ca),
            named(Probing.CERTIFICATE, spec.client_certificate),
            named(Probing.KEY, spec.client_key),
            named(Probing.TOKEN, spec.token_file),
        )
    )
    return spec


def _health(reader: Reader) -> HealthTiming:
    usual = PROFILES[reader.get(Timing.PROFILE, "default")]
    timing = HealthTiming(
        interval=reader.get(Timing.INTERVAL, usual.interval),
        fast_interval=reader.get(Timing.FAST_INTERVAL, usual.fast_interval),
        confirm_interval=reader.get(Timing.CONFIRM_INTERVAL, usual.confirm_interval),
        timeout=reader.get(Timing.TIMEOUT, usual.timeout),
        connect_timeout=reader.get(Timing.CONNECT_TIMEOUT, usual.connect_timeout),
        rise=reader.get(Timing.RISE, usual.rise),
        fall=reader.get(Timing.FALL, usual.fall),
        jitter_percent=reader.get(Timing.JITTER, usual.jitter_percent),
        damping_changes=reader.get(Timing.DAMPING_CHANGES, usual.damping_changes),
        damping_window=reader.get(Timing.DAMPING_WINDOW, usual.damping_window),
        damping_hold=reader.get(Timing.DAMPING_HOLD, usual.damping_hold),
        damping_hold_max=reader.get(Timing.DAMPING_HOLD_MAX, usual.damping_hold_max),
    )
    rules.judge_timing(reader, timing)
    return timing
