"""Every key there is, as one table of data.

The parser, the environment variables, `docs/configuration.md` and `revip check --explain` all
derive from it.  A default is written here as one would write it in the file; a test proves that
it is what the model does when the key is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Generic, TypeVar

from revip.config import kinds
from revip.config.kinds import Kind
from revip.model.health import PROFILES
from revip.model.instants import Span
from revip.model.ipvs import SCHEDULERS, WEIGHT_MAX, IPAddress, Port, SchedulerFlag
from revip.model.spec import OnExit, ProbeKind

T_co = TypeVar("T_co", covariant=True)


class ElectionKind(Enum):
    """The ways to find the director that can be configured."""

    STATIC = "static"
    VRRP = "vrrp"


class Method(Enum):
    """The forwarding methods that can be configured."""

    DIRECT = "direct"
    MASQUERADE = "masquerade"


@dataclass(frozen=True, slots=True)
class Key(Generic[T_co]):
    """One key: its name, kind, default and what it is for."""

    name: str
    kind: Kind[T_co]
    doc: str
    default: str = ""
    """As written in YAML; empty when there is none."""
    absent: str = ""
    """What happens without it, in words, where `default` cannot say it."""
    required: bool = False
    variable: str = ""
    """The environment variable, when it is not the section's prefix and the name."""


@dataclass(frozen=True, slots=True)
class Section:
    """A group of keys that stand together."""

    path: str
    """Where it stands, e.g. `virtual_servers[].probe`; empty for the top."""
    prefix: str
    """What its environment variables begin with; empty when it has none."""
    doc: str
    keys: tuple[Key[object], ...]
    children: tuple[str, ...] = ()
    """Keys that hold further sections."""

    def __iter__(self) -> Iterator[str]:
        yield from (key.name for key in self.keys)
        yield from self.children

    def variable(self, key: Key[object]) -> str:
        """Return the environment variable of `key`; empty when it has none."""
        return key.variable or (self.prefix + key.name.upper() if self.prefix else "")


class Top:
    """Keys at the top of the file."""

    NODE: Key[str] = Key(
        "node",
        kinds.NAME,
        "This node's name, as `owner` names it.",
        absent="the host name",
    )
    NODE_ADDRESS: Key[IPAddress] = Key(
        "node_address",
        kinds.ADDRESS,
        "This node's own address: the source of what it sends to the virtual IP.",
        absent="the first global address of the interface",
    )


class Server:
    """Keys of one virtual server."""

    NAME: Key[str] = Key(
        "name", kinds.NAME, "Names it in logs, status and metrics.", absent="`vip-ADDRESS-PORT`"
    )
    ADDRESS: Key[IPAddress] = Key(
        "address", kinds.ADDRESS, "The virtual IP.", required=True, variable="REVIP_VIP"
    )
    PORT: Key[Port] = Key("port", kinds.PORT, "The port that clients connect to.", "6443")
    INTERFACE: Key[str] = Key(
        "interface", kinds.LINK, "The interface that carries the virtual IP.", required=True
    )
    OWNER: Key[str] = Key(
        "owner",
        kinds.NAME,
        "The node that is the director, with `election.kind: static`.",
        absent="required, but not with `election.kind: vrrp`",
    )
    SCHEDULER: Key[str] = Key(
        "scheduler",
        kinds.choice(SCHEDULERS),
        "How connections are spread.  Only `mh` keeps them when the virtual IP moves.",
        "mh",
    )
    FLAGS: Key[tuple[SchedulerFlag, ...]] = Key(
        "scheduler_flags",
        kinds.many(kinds.member(SchedulerFlag), "list of scheduler flags"),
        "Options of the scheduler: `mh-port`, `mh-fallback`; `sh-port`, `sh-fallback`.",
        absent="`[mh-port, mh-fallback]` with `mh`, else `[]`",
    )
    FORWARDING: Key[Method] = Key(
        "forwarding",
        kinds.member(Method),
        "How packets reach a backend.  `direct` keeps the client's address and needs one segment"
        " and equal ports; `masquerade` does without both.",
        "direct",
    )
    PANIC_THRESHOLD: Key[int] = Key(
        "panic_threshold",
        kinds.whole(1, 1024),
        "With fewer healthy backends than this, all known ones are used.",
        "1",
    )
    DRAIN_DEADLINE: Key[Span] = Key(
        "drain_deadline",
        kinds.duration("0s", "24h"),
        "How long a draining backend keeps its connections; `0s` is for ever.",
        "10m",
    )
    BACKENDS_FILE: Key[Path] = Key(
        "backends_file",
        kinds.PATH,
        "A watched file with the same list under the key `backends`.  Once it has been read it"
        " takes the place of `backends`.",
    )


class Electing:
    """Keys of the election."""

    KIND: Key[ElectionKind] = Key(
        "kind",
        kinds.member(ElectionKind),
        "`static`: `owner` says who is the director. `vrrp`: the nodes elect it among themselves.",
        "static",
    )
    VRID: Key[int] = Key(
        "vrid",
        kinds.whole(1, 255),
        "Number of the group, unique among all who speak VRRP on the interface.",
        absent="required with `kind: vrrp`",
    )
    PRIORITY: Key[int] = Key(
        "priority",
        kinds.whole(1, 254),
        "The highest of the fit nodes directs; lower by 50 while the node's own server is unwell.",
        "100",
    )
    ADVERT_INTERVAL: Key[Span] = Key(
        "advert_interval",
        kinds.duration("100ms", "40s", step="10ms"),
        "Between adverts of the director, the same on every node; the others take over after a"
        " little more than three of them.",
        "1s",
    )
    PREEMPT: Key[bool] = Key(
        "preempt",
        kinds.BOOLEAN,
        "Whether a node that returns takes over from one of lower priority.",
        "true",
    )
    PREEMPT_DELAY: Key[Span] = Key(
        "preempt_delay",
        kinds.duration("0s", "1h"),
        "For how long it must have heard the lower one before it does.",
        "0s",
    )
    PEERS: Key[tuple[IPAddress, ...]] = Key(
        "peers",
        kinds.many(kinds.ADDRESS, "list of IP addresses"),
        "The other nodes' addresses, for adverts by unicast.",
        absent="multicast",
    )
    LIFETIME: Key[Span] = Key(
        "address_lifetime",
        kinds.duration("2s", "2m", step="1s"),
        "How long the kernel keeps the virtual IP that nobody renews: what bounds a frozen agent.",
        "3s",
    )


class Member:
    """Keys of one backend."""

    NAME: Key[str] = Key("name", kinds.NAME, "The node's name.", absent="its address")
    ADDRESS: Key[IPAddress] = Key("address", kinds.ADDRESS, "The node's address.", required=True)
    PORT: Key[Port] = Key(
        "port",
        kinds.PORT,
        "Where the backend listens.",
        absent="the virtual server's port",
    )
    WEIGHT: Key[int] = Key(
        "weight", kinds.whole(1, WEIGHT_MAX), "Share of new connections while healthy.", "1"
    )


class Probing:
    """Keys of the probe."""

    KIND: Key[ProbeKind] = Key("kind", kinds.member(ProbeKind), "How a backend is asked.", "https")
    PATH: Key[str] = Key("path", kinds.URL_PATH, "What is requested.", "/readyz")
    EXPECTED: Key[tuple[int, ...]] = Key(
        "expected_status",
        kinds.many(kinds.whole(100, 599), "list of HTTP status codes"),
        "Status codes that mean ready.",
        "[200]",
    )
    PORT: Key[Port] = Key(
        "port", kinds.PORT, "The port that is probed.", absent="the backend's port"
    )
    SERVER_NAME: Key[str] = Key(
        "server_name",
        kinds.SERVER_NAME,
        "Name expected in the certificate, and sent as SNI.",
        absent="the backend's address",
    )
    VERIFY: Key[bool] = Key(
        "verify", kinds.BOOLEAN, "Whether the certificate must be genuine.", "true"
    )
    CA: Key[Path] = Key(
        "ca", kinds.PATH, "PEM file of the authorities.", absent="the system's trust store"
    )
    CERTIFICATE: Key[Path] = Key(
        "client_certificate", kinds.PATH, "PEM file of our own certificate."
    )
    KEY: Key[Path] = Key("client_key", kinds.PATH, "PEM file of its key, not encrypted.")
    TOKEN: Key[Path] = Key(
        "token_file", kinds.PATH, "File with a bearer token; read again when it changes."
    )
    HELD: Key[bool] = Key(
        "held_connection",
        kinds.BOOLEAN,
        "Whether one connection is kept to each backend, so that a crash is heard at once.",
        "true",
    )
    FRESH_EVERY: Key[int] = Key(
        "fresh_every",
        kinds.whole(1, 1000),
        "Every nth probe opens a new connection, so that accepting is tested too.",
        "10",
    )


class Timing:
    """Keys of the judge's timing; defaults are those of the profile."""

    PROFILE: Key[str] = Key(
        "profile",
        kinds.choice(PROFILES),
        "Where the values below come from when they are left out.",
        "default",
    )
    INTERVAL: Key[Span] = Key(
        "interval",
        kinds.duration("20ms", "5m"),
        "Between probes while the verdict is not in doubt.",
        "500ms",
    )
    FAST_INTERVAL: Key[Span] = Key(
        "fast_interval",
        kinds.duration("10ms", "5m"),
        "Between probes while the newest result disagrees with the verdict.",
        "100ms",
    )
    CONFIRM_INTERVAL: Key[Span] = Key(
        "confirm_interval",
        kinds.duration("1ms", "10s"),
        "Before a refused connection or a lost held one is asked again.",
        "2ms",
    )
    TIMEOUT: Key[Span] = Key("timeout", kinds.duration("10ms", "1m"), "For a whole probe.", "1s")
    CONNECT_TIMEOUT: Key[Span] = Key(
        "connect_timeout", kinds.duration("5ms", "1m"), "For the TCP handshake.", "300ms"
    )
    RISE: Key[int] = Key(
        "rise", kinds.whole(1, 100), "Good results in a row that bring a backend back.", "2"
    )
    FALL: Key[int] = Key(
        "fall", kinds.whole(1, 100), "Bad results in a row that take a backend out.", "2"
    )
    JITTER: Key[int] = Key(
        "jitter_percent",
        kinds.whole(0, 50),
        "Each interval is longer by up to this many percent, at random.",
        "10",
    )
    DAMPING_CHANGES: Key[int] = Key(
        "damping_changes",
        kinds.whole(2, 1000),
        "From this many changes of verdict within the window on, a return is held back.",
        "10",
    )
    DAMPING_WINDOW: Key[Span] = Key(
        "damping_window", kinds.duration("1s", "24h"), "The window they are counted in.", "10m"
    )
    DAMPING_HOLD: Key[Span] = Key(
        "damping_hold",
        kinds.duration("0s", "1h"),
        "How long the first return is held back; doubles with each change.",
        "5s",
    )
    DAMPING_HOLD_MAX: Key[Span] = Key(
        "damping_hold_max",
        kinds.duration("0s", "1h"),
        "The longest hold: a well backend always returns within it.",
        "1m",
    )


class Agent:
    """Keys of the agent itself."""

    SOCKET: Key[Path] = Key(
        "socket",
        kinds.PATH,
        "Control socket of `revip status` and others.",
        "/run/revip/revip.sock",
    )
    STATE_FILE: Key[Path] = Key(
        "state_file",
        kinds.PATH,
        "Remembers what is ours in the kernel, and the sysctls' former values.",
        "/run/revip/state.json",
    )
    RECONCILE_INTERVAL: Key[Span] = Key(
        "reconcile_interval",
        kinds.duration("50ms", "1m"),
        "How often kernel and desired state are compared when nothing happens.",
        "500ms",
    )
    ON_EXIT: Key[OnExit] = Key(
        "on_exit",
        kinds.member(OnExit),
        "Whether table and virtual IP stay on SIGTERM (`leave`) or go (`withdraw`).",
        "leave",
    )
    MANAGE_HOST: Key[bool] = Key(
        "manage_host",
        kinds.BOOLEAN,
        "Whether addresses, routes, rules and sysctls are prepared; `false` leaves all but the"
        " table to others.",
        "true",
    )


BACKENDS = "backends"
BACKENDS_VARIABLE = "REVIP_BACKENDS"
"""`n1=10.0.1.16:6443,n2=10.0.1.19`, or plain addresses."""

TOP = Section(
    "",
    "REVIP_",
    "At the top of the file.",
    (Top.NODE, Top.NODE_ADDRESS),
    ("virtual_servers", "agent"),
)
SERVER = Section(
    "virtual_servers[]",
    "REVIP_",
    "One virtual IP and port, and how it is balanced.",
    (
        Server.NAME,
        Server.ADDRESS,
        Server.PORT,
        Server.INTERFACE,
        Server.OWNER,
        Server.SCHEDULER,
        Server.FLAGS,
        Server.FORWARDING,
        Server.PANIC_THRESHOLD,
        Server.DRAIN_DEADLINE,
        Server.BACKENDS_FILE,
    ),
    (BACKENDS, "election", "probe", "health"),
)
ELECTION = Section(
    "virtual_servers[].election",
    "REVIP_ELECTION_",
    "Who is the director, and so has the virtual IP.",
    (
        Electing.KIND,
        Electing.VRID,
        Electing.PRIORITY,
        Electing.ADVERT_INTERVAL,
        Electing.PREEMPT,
        Electing.PREEMPT_DELAY,
        Electing.PEERS,
        Electing.LIFETIME,
    ),
)
MEMBER = Section(
    "virtual_servers[].backends[]",
    "",
    "The servers behind it.  By environment variable all of them at once: "
    f"`{BACKENDS_VARIABLE}=n1=10.0.1.16:6443,n2=10.0.1.19:6443`, or plain addresses.",
    (Member.NAME, Member.ADDRESS, Member.PORT, Member.WEIGHT),
)
PROBE = Section(
    "virtual_servers[].probe",
    "REVIP_PROBE_",
    "How a backend is asked whether it is ready.",
    (
        Probing.KIND,
        Probing.PATH,
        Probing.EXPECTED,
        Probing.PORT,
        Probing.SERVER_NAME,
        Probing.VERIFY,
        Probing.CA,
        Probing.CERTIFICATE,
        Probing.KEY,
        Probing.TOKEN,
        Probing.HELD,
        Probing.FRESH_EVERY,
    ),
)
HEALTH = Section(
    "virtual_servers[].health",
    "REVIP_HEALTH_",
    "When a backend is judged well or not.  Defaults shown are those of the profile `default`.",
    (
        Timing.PROFILE,
        Timing.INTERVAL,
        Timing.FAST_INTERVAL,
        Timing.CONFIRM_INTERVAL,
        Timing.TIMEOUT,
        Timing.CONNECT_TIMEOUT,
        Timing.RISE,
        Timing.FALL,
        Timing.JITTER,
        Timing.DAMPING_CHANGES,
        Timing.DAMPING_WINDOW,
        Timing.DAMPING_HOLD,
        Timing.DAMPING_HOLD_MAX,
    ),
)
AGENT = Section(
    "agent",
    "REVIP_",
    "The agent itself.",
    (
        Agent.SOCKET,
        Agent.STATE_FILE,
        Agent.RECONCILE_INTERVAL,
        Agent.ON_EXIT,
        Agent.MANAGE_HOST,
    ),
)
SECTIONS = (TOP, SERVER, ELECTION, MEMBER, PROBE, HEALTH, AGENT)
