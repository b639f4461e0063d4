"""Keys of virtual servers and their backends."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from revip.config import kinds
from revip.config.keys.key import Key, Section
from revip.model.instants import Span
from revip.model.ipvs import SCHEDULERS, WEIGHT_MAX, IPAddress, Port, SchedulerFlag
from revip.model.spec import OnDuplicate


class Method(Enum):
    """The forwarding methods that can be configured."""

    DIRECT = "direct"
    MASQUERADE = "masquerade"
    AUTO = "auto"


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
        " and equal ports; `masquerade` does without both.  `auto` is `direct` where all backends"
        " are in the interface's own subnet and have the same port, else `masquerade`.",
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
    ON_DUPLICATE: Key[OnDuplicate] = Key(
        "on_duplicate",
        kinds.member(OnDuplicate),
        "When somebody outside the cluster answers for the virtual IP, too: `defend` keeps it and"
        " announces it again, `yield` leaves it to the other until nobody answers.",
        "defend",
    )
    BACKENDS_FILE: Key[Path] = Key(
        "backends_file",
        kinds.PATH,
        "A watched file with the same list under the key `backends`.  Once it has been read it"
        " takes the place of `backends`.",
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


BACKENDS = "backends"
BACKENDS_VARIABLE = "REVIP_BACKENDS"
"""`n1=10.0.1.16:6443,n2=10.0.1.19`, or plain addresses."""

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
        Server.ON_DUPLICATE,
        Server.BACKENDS_FILE,
    ),
    (BACKENDS, "election", "probe", "health"),
)
MEMBER = Section(
    "virtual_servers[].backends[]",
    "",
    "The servers behind it.  By environment variable all of them at once: "
    f"`{BACKENDS_VARIABLE}=n1=10.0.1.16:6443,n2=10.0.1.19:6443`, or plain addresses.",
    (Member.NAME, Member.ADDRESS, Member.PORT, Member.WEIGHT),
)
