"""Rules between values: within a virtual server, and between virtual servers."""

from __future__ import annotations

from revip.config.backends import unusable
from revip.config.keys import (
    BACKENDS,
    ELECTION,
    Agent,
    Electing,
    ElectionKind,
    Probing,
    Server,
    Timing,
)
from revip.config.kinds import shown
from revip.config.reader import Reader
from revip.model.health import HealthTiming
from revip.model.instants import SECOND
from revip.model.ipvs import SCHEDULERS, Forwarding, SchedulerFlag, at
from revip.model.spec import DUMMY, ProbeKind, ProbeSpec, Spec, VirtualServerSpec, VrrpSpec

SLOW_INTERVAL = 10 * SECOND
"""From here on a crash that sends nothing is noticed too late to be called healing."""
SOCKET_PATH_MAX = 107
"""Bytes of sun_path, less the final zero (unix(7))."""


def judge_flags(server: Reader, scheduler: str, flags: frozenset[SchedulerFlag]) -> None:
    """Blame flags that the scheduler does not know."""
    strangers = [flag for flag in flags if flag.value.partition("-")[0] != scheduler]
    if not strangers or scheduler not in SCHEDULERS:
        return
    fitting = [flag.value for flag in SchedulerFlag if flag.value.startswith(f"{scheduler}-")]
    instead = f"use {' or '.join(fitting)}" if fitting else "it has none: remove them"
    names = ", ".join(sorted(flag.value for flag in strangers))
    mend = f"{names} does not belong to scheduler {scheduler}; {instead}"
    server.rule((Server.FLAGS, Server.SCHEDULER), True, mend)


def judge_timing(health: Reader, timing: HealthTiming) -> None:
    """Blame timings that contradict each other; warn of those that heal slowly or nervously."""
    spans = (
        (Timing.FAST_INTERVAL, timing.fast_interval, Timing.INTERVAL, timing.interval),
        (Timing.CONNECT_TIMEOUT, timing.connect_timeout, Timing.TIMEOUT, timing.timeout),
        (
            Timing.CONFIRM_INTERVAL,
            timing.confirm_interval,
            Timing.FAST_INTERVAL,
            timing.fast_interval,
        ),
        (
            Timing.DAMPING_HOLD,
            timing.damping_hold,
            Timing.DAMPING_HOLD_MAX,
            timing.damping_hold_max,
        ),
    )
    for short, less, long, more in spans:
        mend = (
            f"{short.name} ({shown(less)}) must not be longer than {long.name} ({shown(more)}):"
            " set both"
        )
        health.rule((short, long), less > more, mend)
    if timing.interval > SLOW_INTERVAL:
        health.warn(Timing.INTERVAL, "a backend that hangs is noticed this late, times fall")
    if timing.fall == 1:
        health.warn(Timing.FALL, "one lost packet takes a backend out; 2 asks again first")


def judge_probe(probe: Reader, spec: ProbeSpec) -> None:
    """Blame credentials that are half there or would be sent in clear; warn of what is unused."""
    pair = (Probing.CERTIFICATE, Probing.KEY)
    if spec.client_certificate and not spec.client_key:
        probe.rule(pair, True, "needs client_key beside it")
    if spec.client_key and not spec.client_certificate:
        probe.rule(pair, True, "needs client_certificate beside it")
    if spec.token_file and spec.kind is not ProbeKind.HTTPS:
        mend = f"would go over {spec.kind.value} in clear: remove it, or choose kind: https"
        probe.rule((Probing.TOKEN,), True, mend)
    tls = (Probing.CA, Probing.CERTIFICATE, Probing.KEY, Probing.SERVER_NAME, Probing.VERIFY)
    unused = {
        ProbeKind.HTTPS: (),
        ProbeKind.HTTP: tls,
        ProbeKind.TCP: (*tls, Probing.PATH, Probing.EXPECTED),
    }
    for key in unused[spec.kind]:
        if probe.given(key):
            probe.warn(key, f"a probe of kind {spec.kind.value} does not use it")
    if not spec.verify:
        probe.warn(Probing.VERIFY, "whoever answers on a backend's address is believed")
        if spec.ca:
            probe.warn(Probing.CA, "is not used, as verify is false")


def judge_election(server: Reader, reader: Reader, kind: ElectionKind, spec: VrrpSpec) -> None:
    """Blame what the kind of election lacks, or has no use for."""
    if not reader.good(Electing.KIND) or not server.good("election"):
        return
    if kind is ElectionKind.STATIC:
        if not server.given(Server.OWNER):
            mend = "is missing: write a name, or set REVIP_OWNER, or choose election.kind: vrrp"
            server.blame(Server.OWNER, mend)
        for key in ELECTION.keys:
            if key.name != Electing.KIND.name and reader.given(key):
                reader.blame(key, "is of an election: write kind: vrrp beside it, or remove it")
        return
    if server.given(Server.OWNER) and server.good(Server.OWNER):
        mend = "the nodes elect the director (election.kind: vrrp): remove it"
        server.blame(Server.OWNER, mend)
    if not reader.given(Electing.VRID):
        reader.blame(Electing.VRID, "is missing: write a whole number from 1 to 255")
    shortest = shown(spec.advert_interval + 2 * SECOND)
    mend = (
        f"address_lifetime ({shown(spec.address_lifetime)}) must be at least {shortest}:"
        " an advert that is late must not cost the address"
    )
    lapses = spec.address_lifetime < spec.advert_interval + 2 * SECOND
    reader.rule((Electing.LIFETIME, Electing.ADVERT_INTERVAL), lapses, mend)
    if spec.preempt_delay and not spec.preempt:
        reader.warn(Electing.PREEMPT_DELAY, "is not used, as preempt is false")


def judge_server(server: Reader, spec: VirtualServerSpec) -> None:
    """Blame what cannot work in one virtual server; warn of what is odd."""
    refusal = unusable(spec.address)
    server.rule((Server.ADDRESS,), bool(refusal), refusal)
    ours = (str(DUMMY), "lo")
    mend = "name the interface that faces the clients; revip makes its own dummy beside it"
    server.rule((Server.INTERFACE,), spec.interface in ours, mend)
    _judge_backends(server, spec)
    _judge_peers(server, spec)
    mend = "auto judges by the backends in this file: choose direct or masquerade"
    server.rule((Server.FORWARDING,), spec.automatic and spec.backends_file is not None, mend)
    if spec.vrrp is not None and spec.forwarding is not Forwarding.DIRECT:
        server.warn(Server.FORWARDING, "connections break when the virtual IP moves; direct is not")
    if spec.scheduler != "mh":
        server.warn(Server.SCHEDULER, "connections break when the virtual IP moves; mh keeps them")


def _judge_backends(server: Reader, spec: VirtualServerSpec) -> None:
    count = len(spec.backends)
    if not count:
        return
    if spec.backends_file is None:
        mend = f"is more than the {count} backends there are: it would be panic for ever"
        server.rule((Server.PANIC_THRESHOLD,), spec.panic_threshold > count, mend)
    if 1 < count == spec.panic_threshold:
        server.warn(Server.PANIC_THRESHOLD, "the first backend that fails makes it panic")
    if count == 1:
        server.warn(BACKENDS, "one backend: there is nothing to balance or to heal with")
    elif count % 2 == 0:
        server.warn(BACKENDS, f"{count} control-plane nodes bear no more failures than {count - 1}")
    if spec.vrrp is None and spec.owner not in {str(backend.name) for backend in spec.backends}:
        server.warn(Server.OWNER, "no backend has this name; the owner may be another node")


def _judge_peers(server: Reader, spec: VirtualServerSpec) -> None:
    for peer in spec.vrrp.peers if spec.vrrp is not None else ():
        reader = server.sub("election", ELECTION)
        if peer.version != spec.address.version:
            version = spec.address.version
            reader.blame(Electing.PEERS, f"{peer} is not IPv{version}, as the virtual IP is")
        elif peer == spec.address or (refusal := unusable(peer)):
            why = "is the virtual IP" if peer == spec.address else refusal
            reader.blame(Electing.PEERS, f"{peer} {why}: write the other nodes' own addresses")


def judge_groups(servers: list[tuple[Reader, VirtualServerSpec]]) -> None:
    """Blame virtual servers that would speak as one VRRP group, or elect one address twice."""
    for index, (reader, spec) in enumerate(servers):
        for other_reader, other in servers[:index]:
            if spec.vrrp is None or other.vrrp is None or spec.key == other.key:
                continue
            first = f"virtual server {other.name}, at {other_reader.block.origin}"
            group = (spec.vrrp.vrid, spec.interface, spec.address.version)
            if spec.address == other.address:
                mend = f"is elected in {first}, too: an elected address has one virtual server"
                reader.blame(Server.ADDRESS, mend)
            elif group == (other.vrrp.vrid, other.interface, other.address.version):
                mend = f"is that of {first}, on the same interface: give each its own"
                reader.sub("election", ELECTION).blame(Electing.VRID, mend)


def judge_host(agent: Reader, spec: Spec) -> None:
    """Blame an election whose outcome nobody would put into effect."""
    elected = [server.name for server in spec.virtual_servers if server.vrrp is not None]
    if elected and not spec.manage_host:
        mend = f"must be true: the election of {elected[0]} is about an address that revip sets"
        agent.blame(Agent.MANAGE_HOST, mend)


def judge_together(servers: list[tuple[Reader, VirtualServerSpec]]) -> None:
    """Blame virtual servers that cannot stand beside each other."""
    for index, (reader, spec) in enumerate(servers):
        for other_reader, other in servers[:index]:
            first = f"virtual server {other.name}, at {other_reader.block.origin}"
            if spec.key == other.key:
                shared = at(spec.address, spec.port)
                reader.blame(Server.ADDRESS, f"{shared} is already that of {first}")
                continue
            if spec.name == other.name:
                reader.blame(Server.NAME, f"is already that of {first}")
            if spec.address == other.address:
                _judge_shared_address(reader, spec, other, first)
        _judge_foreign_backends(reader, spec, servers)


def _judge_shared_address(
    reader: Reader, spec: VirtualServerSpec, other: VirtualServerSpec, first: str
) -> None:
    for key, mine, theirs in (
        (Server.OWNER, spec.owner or "elected", other.owner or "elected"),
        (Server.INTERFACE, spec.interface, other.interface),
    ):
        mend = f"must be {theirs}, as in {first}: an address is in one place at a time"
        reader.rule((key,), mine != theirs, mend)


def _judge_foreign_backends(
    reader: Reader, spec: VirtualServerSpec, servers: list[tuple[Reader, VirtualServerSpec]]
) -> None:
    for _, other in servers:
        if other is not spec and any(b.address == spec.address for b in other.backends):
            reader.blame(Server.ADDRESS, f"is also a backend of virtual server {other.name}")


def judge_node(top: Reader, spec: Spec) -> None:
    """Blame a node address that cannot be the source of packets to every virtual server."""
    address = spec.node_address
    if address is None:
        return
    refusal = unusable(address)
    if refusal:
        top.blame("node_address", refusal)
        return
    for server in spec.virtual_servers:
        if server.address == address:
            top.blame("node_address", f"is the virtual IP of {server.name}: write the node's own")
        elif server.address.version != address.version:
            mend = (
                f"is IPv{address.version}, but {server.name} is IPv{server.address.version}:"
                " leave it out, so that each family takes its own"
            )
            top.blame("node_address", mend)


def judge_agent(agent: Reader, spec: Spec) -> None:
    """Blame paths that the agent cannot use."""
    length = len(str(spec.socket).encode())
    mend = f"is {length} bytes long; a unix socket's path has {SOCKET_PATH_MAX} at most"
    agent.rule((Agent.SOCKET,), length > SOCKET_PATH_MAX, mend)
    mend = "must not be the socket's path"
    agent.rule((Agent.STATE_FILE,), spec.state_file == spec.socket, mend)
