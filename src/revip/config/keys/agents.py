"""Keys of the agent and of the node it runs on."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from revip.config import kinds
from revip.config.keys.key import Key, Section
from revip.model.instants import Span
from revip.model.ipvs import IPAddress
from revip.model.spec import OnExit


class Sync(Enum):
    """Whether the sync daemons run."""

    AUTO = "auto"
    OFF = "off"


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
    SYNC: Key[Sync] = Key(
        "sync",
        kinds.member(Sync),
        "`auto`: where there is an election, the kernel's sync daemons tell the next director of"
        " each connection. `off`: a move after a drain or an outage breaks some of them.",
        "auto",
    )
    SYNC_ID: Key[int] = Key(
        "sync_id",
        kinds.whole(1, 255),
        "Number of the sync daemons, the same on all nodes and no other cluster's on the segment.",
        absent="the lowest `vrid`",
    )


TOP = Section(
    "",
    "REVIP_",
    "At the top of the file.",
    (Top.NODE, Top.NODE_ADDRESS),
    ("virtual_servers", "agent", "http", "notify"),
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
        Agent.SYNC,
        Agent.SYNC_ID,
    ),
)
