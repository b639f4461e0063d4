"""Keys of the election."""

from __future__ import annotations

from enum import Enum

from revip.config import kinds
from revip.config.keys.key import Key, Section
from revip.model.instants import Span
from revip.model.ipvs import IPAddress


class ElectionKind(Enum):
    """The ways to find the director that can be configured."""

    STATIC = "static"
    VRRP = "vrrp"


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
