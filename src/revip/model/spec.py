"""What the operator asked for, already valid: nobody below the config floor checks it again."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import NewType

from revip.model.health import Backend, HealthTiming
from revip.model.http import HttpSpec
from revip.model.instants import SECOND, Span
from revip.model.ipvs import Forwarding, IPAddress, Port, SchedulerFlag, ServiceKey
from revip.model.notify import NotifySpec

NodeName = NewType("NodeName", str)
LinkName = NewType("LinkName", str)

DUMMY = LinkName("dummy-revip")
"""Our own interface that carries VIPs and never answers; Calico's detection skips `dummy.*`."""


class ProbeKind(Enum):
    """How a backend is asked."""

    HTTPS = "https"
    HTTP = "http"
    TCP = "tcp"


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """How to ask a backend whether it is ready."""

    kind: ProbeKind = ProbeKind.HTTPS
    path: str = "/readyz"
    expected: frozenset[int] = frozenset({200})
    """HTTP status codes that mean ready."""
    port: Port | None = None
    """Port to probe when it is not the backend's own."""
    server_name: str | None = None
    """Name to verify in the certificate and to send as SNI; None is the backend's address."""
    verify: bool = True
    """False accepts any certificate (`insecure_skip_verify`)."""
    ca: Path | None = None
    """PEM bundle; None is the system's trust store."""
    client_certificate: Path | None = None
    client_key: Path | None = None
    token_file: Path | None = None
    """Bearer token, read again when the file changes."""
    held: bool = True
    """Keep one connection open to each backend, so that a crash is heard at once."""
    fresh_every: int = 10
    """Every nth probe opens a new connection, so that accepting is tested too."""


class OnExit(Enum):
    """What becomes of the table and the VIP on SIGTERM."""

    LEAVE = "leave"
    WITHDRAW = "withdraw"


class OnDuplicate(Enum):
    """What to do when somebody else answers for the virtual IP."""

    DEFEND = "defend"
    YIELD = "yield"


@dataclass(frozen=True, slots=True)
class VrrpSpec:
    """Election by VRRP version 3 (RFC 9568): the nodes agree on the director among themselves."""

    vrid: int
    """1 to 255, unique among all who speak VRRP on the interface."""
    priority: int = 100
    """1 to 254, of a node that is fit; the highest directs."""
    advert_interval: Span = SECOND
    """Between adverts of the director, a multiple of 10 ms; the same on every node."""
    preempt: bool = True
    """A node that returns takes over from one of lower priority."""
    preempt_delay: Span = Span(0)
    """How long it has heard the lower one before it does."""
    peers: tuple[IPAddress, ...] = ()
    """The other nodes, for adverts by unicast; empty is multicast."""
    address_lifetime: Span = Span(3 * SECOND)
    """After a renewal the kernel keeps the address for so long, whole seconds."""

    @property
    def fenced(self) -> bool:
        """Whether others may take over (after three intervals) before the lifetime is over."""
        return 3 * self.advert_interval < self.address_lifetime


@dataclass(frozen=True, slots=True)
class VirtualServerSpec:
    """One virtual server: the VIP and port, how it is balanced, and over whom."""

    name: str
    address: IPAddress
    port: Port
    interface: LinkName
    owner: NodeName | None
    """Static election: the node that is the director; None when it is elected."""
    backends: tuple[Backend, ...]
    """Static backends; may be empty when `backends_file` is given."""
    backends_file: Path | None = None
    scheduler: str = "mh"
    flags: frozenset[SchedulerFlag] = frozenset({SchedulerFlag.MH_PORT, SchedulerFlag.MH_FALLBACK})
    forwarding: Forwarding = Forwarding.DIRECT
    automatic: bool = False
    """The forwarding method is left to revip (`planner.forwarding`)."""
    forwarding_reason: str = ""
    """Why it is this one, where it was left to revip."""
    undecided: bool = False
    """It may become another one yet: the interface has no subnet to judge by."""
    panic_threshold: int = 1
    """With fewer healthy backends than this, all known backends are in (panic)."""
    drain_deadline: Span = Span(600_000)
    """How long a draining backend stays at weight 0 before it is taken out; 0 is for ever."""
    probe: ProbeSpec = ProbeSpec()
    health: HealthTiming = HealthTiming()
    vrrp: VrrpSpec | None = None
    """How the director is elected; None when it is `owner`."""
    on_duplicate: OnDuplicate = OnDuplicate.DEFEND

    @property
    def key(self) -> ServiceKey:
        """What this virtual server is called in the kernel."""
        return ServiceKey(self.address, self.port)


@dataclass(frozen=True, slots=True)
class Spec:
    """The whole configuration of one agent."""

    node: NodeName
    node_address: IPAddress | None
    """This node's own address; None is the first global address of the interface."""
    virtual_servers: tuple[VirtualServerSpec, ...]
    socket: Path = Path("/run/revip/revip.sock")
    """Local control socket, mode 0600."""
    state_file: Path = Path("/run/revip/state.json")
    """What we own in this kernel and the sysctls' former values; lost at reboot as they are."""
    reconcile_interval: Span = Span(SECOND // 2)
    """How often kernel and desired state are compared when nothing else asks for it."""
    on_exit: OnExit = OnExit.LEAVE
    manage_host: bool = True
    """Prepare addresses, routes, rules and sysctls; False leaves all but the table to others."""
    sync: bool = True
    """Have the next director know each connection, where there is an election."""
    sync_id: int | None = None
    """Of the sync daemons, 1 to 255; None is the lowest VRID."""
    http: HttpSpec = HttpSpec()
    notify: NotifySpec = NotifySpec()
    warnings: tuple[str, ...] = field(default=())
    """Things that are allowed but that the operator should know, each one line."""
