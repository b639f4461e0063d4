"""The nouns of duplicate addresses: what is seen on a link, what happens, what to do about it.

RFC 5227 calls it a conflict when somebody else answers for an address of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from revip.model.host import MacAddress
from revip.model.instants import Instant

# What is seen ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claimed:
    """Somebody else says that the address is at `mac`."""

    mac: MacAddress


@dataclass(frozen=True, slots=True)
class Spoke:
    """`mac` speaks VRRP of our group, for our address: a fellow node."""

    mac: MacAddress


@dataclass(frozen=True, slots=True)
class Garbled:
    """A frame that is not what it claims to be."""

    reason: str


Sighting = Claimed | Spoke | Garbled

# What happens ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claim:
    """This node is about to have the address, or may come to; its ear on the link is open."""


@dataclass(frozen=True, slots=True)
class Held:
    """The address is on the interface, by our will."""


@dataclass(frozen=True, slots=True)
class Released:
    """It is not there any more."""


@dataclass(frozen=True, slots=True)
class Heard:
    """Somebody else claims the address."""

    mac: MacAddress
    fellow: bool = False
    """Whether it is known to be a node of this cluster."""
    name: str = ""
    """What it is called, where that is known."""


@dataclass(frozen=True, slots=True)
class Recognized:
    """`mac` is a fellow node's from now on."""

    mac: MacAddress


@dataclass(frozen=True, slots=True)
class Blind:
    """Nobody can be asked or heard here, and that will not mend itself soon."""

    reason: str


ConflictEvent = Claim | Held | Released | Heard | Recognized | Blind
"""Beside the timer's."""

# What to do about it -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Question:
    """Ask on the link who has the address."""

    holding: bool
    """False asks as one who has it not yet: an ARP probe, or a solicitation from `::`."""


@dataclass(frozen=True, slots=True)
class Defend:
    """Announce the address again: neighbors may have been misled."""


@dataclass(frozen=True, slots=True)
class Permitted:
    """Whether this node may have the address has changed: look again."""


@dataclass(frozen=True, slots=True)
class Alert:
    """Tell people."""

    text: str
    grave: bool = True
    """False for what has ended well."""


ConflictAction = Question | Defend | Permitted | Alert

# What is remembered ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rival:
    """Somebody else who claims the address."""

    mac: MacAddress
    since: Instant
    """First heard, without a long pause since."""
    last: Instant
    times: int
    fellow: bool
    name: str = ""
    told_at: Instant | None = None
    """When people were last told of it."""


@dataclass(frozen=True, slots=True)
class Idle:
    """Nobody has asked for the address here yet, or the link cannot be heard yet."""


@dataclass(frozen=True, slots=True)
class Aside:
    """Leaves the address to somebody else (policy `yield`)."""

    mac: MacAddress
    since: Instant
    due_at: Instant
    """When it is asked again whether somebody answers."""
    rounds: int = 1
    """Checks in a row in which somebody did."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Asks whether somebody has it."""

    since: Instant
    asked: int
    due_at: Instant
    """Of the next question, or of the verdict."""
    aside: Aside | None = None
    """What it comes from; None is the first claim."""


@dataclass(frozen=True, slots=True)
class Clear:
    """May have it, and asks now and then while it does."""

    due_at: Instant


Stage = Idle | Asking | Clear | Aside


@dataclass(frozen=True, slots=True)
class Conflict:
    """All that is remembered about one address on one link."""

    stage: Stage = field(default_factory=Idle)
    holding: bool = False
    rivals: Mapping[MacAddress, Rival] = field(default_factory=dict)
    fellows: frozenset[MacAddress] = frozenset()
    defended_at: Instant | None = None
    conflicts: int = 0
    """Episodes with strangers, and with fellows that outlasted the window."""
    defenses: int = 0
