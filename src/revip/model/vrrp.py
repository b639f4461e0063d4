"""The nouns of VRRP version 3 (RFC 9568): what is said, what happens, what is remembered.

RFC 9568 calls "virtual router" what operators call a VRRP group: a number (VRID) and addresses on
one link that exactly one node, the Active, answers for.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

from revip.errors import InvariantError
from revip.model.instants import SECOND, Instant, Span
from revip.model.ipvs import IPAddress

VRRP_PROTOCOL = 112
"""IP protocol number (RFC 9568 section 5.1)."""
VRRP_TTL = 255
"""TTL or hop limit of every advert: one that came through a router has less (section 5.1)."""
GROUP_V4 = IPv4Address("224.0.0.18")
GROUP_V6 = IPv6Address("ff02::12")

CENTISECOND = Span(10)
"""The unit of the interval on the wire."""
LONGEST_INTERVAL = Span(40_950)
"""What twelve bits of centiseconds hold."""
STOPPING = 0
"""Priority of the last advert of an Active that leaves of its own accord."""
HIGHEST_PRIORITY = 254
"""255 is for the owner of the address, and nobody owns a virtual IP of ours."""
PATIENCE = 3
"""Adverts that must be missed before anybody may take over (section 6.1)."""


class Checksum(Enum):
    """What the checksum of an IPv4 advert is over; both forms are always understood.

    RFC 5798 was read in two ways.  RFC 9568 section 5.2.8 settled on the message alone, but
    keepalived (2.2 and later, unless told `v3_checksum_as_v2`) and FRR send the other form and
    discard adverts without it.  IPv6 has a pseudo-header in every reading.
    """

    PSEUDO_HEADER = "pseudo-header"
    MESSAGE_ONLY = "message-only"


@dataclass(frozen=True, slots=True)
class Advertisement:
    """One VRRPv3 advert, without the addresses of its IP packet."""

    vrid: int
    priority: int
    """0 (`STOPPING`) to 255."""
    interval: Span
    """Maximum advertisement interval in milliseconds, a multiple of 10."""
    addresses: tuple[IPAddress, ...]
    """The virtual addresses, all of one family, in the order sent."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A valid advert of the own VRID from another node."""

    source: IPAddress
    """Primary address of the sender: what breaks ties between equal priorities."""
    advertisement: Advertisement
    checksum: Checksum = Checksum.PSEUDO_HEADER
    """How its checksum was made."""


@dataclass(frozen=True, slots=True)
class VirtualRouter:
    """The configuration of one VRRP group on this node, of one address family."""

    vrid: int
    """1 to 255, unique on the link among all who speak VRRP there."""
    addresses: tuple[IPAddress, ...]
    """What the Active answers for; the same on every member (keepalived drops other lists)."""
    source: IPAddress
    """This node's own address on the link; link-local for multicast over IPv6 (5.1.2.1)."""
    interval: Span = SECOND
    """Between adverts while Active: 10 to 40950 ms, a multiple of 10."""
    preempt: bool = True
    """Take over from a living Active of lower priority."""
    preempt_delay: Span = Span(0)
    """How long a lower Active must have been heard before it is preempted."""
    checksum: Checksum = Checksum.PSEUDO_HEADER
    """Form of the IPv4 checksum that is sent."""

    def __post_init__(self) -> None:
        """Refuse what cannot be said on the wire: the config floor has checked it before."""
        if not 1 <= self.vrid <= 255:
            raise InvariantError(f"VRID {self.vrid} is not 1 to 255")
        if not CENTISECOND <= self.interval <= LONGEST_INTERVAL or self.interval % CENTISECOND:
            raise InvariantError(f"{self.interval} ms is not 10 to 40950 ms in steps of 10 ms")
        if not 1 <= len(self.addresses) <= 255:
            raise InvariantError(f"{len(self.addresses)} addresses are not 1 to 255")
        if {address.version for address in self.addresses} != {self.source.version}:
            raise InvariantError("the addresses and the source are not of one family")

    def advert(self, priority: int) -> Advertisement:
        """Return what this node says with that priority."""
        return Advertisement(self.vrid, priority, self.interval, self.addresses)

    @property
    def silence(self) -> Span:
        """How long others may hear nothing of us before one of them may take over.

        Three intervals: Active_Down_Interval without the skew, which is almost nothing for a peer
        of the highest priority.
        """
        return Span(PATIENCE * self.interval)


def skew(priority: int, interval: Span) -> Span:
    """Return Skew_Time (section 6.1): the lower the priority, the later; in ms, rounded up."""
    return Span(-((priority - 256) * interval // 256))


def active_down(priority: int, interval: Span) -> Span:
    """Return Active_Down_Interval (section 6.1) for the interval that the Active advertises."""
    return Span(PATIENCE * interval + skew(priority, interval))


# What happens -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The node may take part from now on; the priority is that of `begin`."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The node takes part no longer (shutdown)."""

    reason: str


@dataclass(frozen=True, slots=True)
class Sent:
    """The advert that was asked for has left the host."""

    at: Instant
    """Read from the clock before the send."""


@dataclass(frozen=True, slots=True)
class SendFailed:
    """The advert that was asked for has not left the host."""

    reason: str


@dataclass(frozen=True, slots=True)
class PriorityChanged:
    """From now on this is our priority: lower while the node is less fit, 0 to stand aside."""

    priority: int
    reason: str


@dataclass(frozen=True, slots=True)
class StepDown:
    """Give the role to a peer; lower the priority too, or it is preempted again."""

    reason: str


VrrpEvent = Started | Stopped | Heard | Sent | SendFailed | PriorityChanged | StepDown
"""Beside the timer's."""


# What to do about it ----------------------------------------------------------------------------


class Oddity(Enum):
    """Things an operator should know; the values are metric labels."""

    TWO_ACTIVE = "two-active"
    """Another node was Active too; a preemption counts as one."""
    CLASH = "vrid-clash"
    OTHER_ADDRESSES = "other-addresses"
    OTHER_INTERVAL = "other-interval"
    OTHER_CHECKSUM = "other-checksum"
    OVERSLEPT = "overslept"
    UNSENT = "advert-not-sent"


@dataclass(frozen=True, slots=True)
class SendAdvert:
    """Send an advert now and feed the outcome back."""

    priority: int
    not_after: Instant
    """A process that was frozen in between must feed `SendFailed` instead."""


@dataclass(frozen=True, slots=True)
class BecomeActive:
    """Answer for the addresses and announce them."""

    reason: str


@dataclass(frozen=True, slots=True)
class BecomeBackup:
    """Answer for them no longer."""

    reason: str


@dataclass(frozen=True, slots=True)
class AnnounceAgain:
    """Announce the addresses once more: another node may have misled neighbors and switches."""

    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """Count `oddity`; log `text` when it is `fresh`."""

    oddity: Oddity
    text: str
    fresh: bool
    """False while the same was reported within the last minute."""


Action = SendAdvert | BecomeActive | BecomeBackup | AnnounceAgain | Report


# What is remembered -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Initialize:
    """Takes no part."""

    reason: str


@dataclass(frozen=True, slots=True)
class Backup:
    """Listens."""

    since: Instant
    reason: str
    """Why this node is not Active, for people."""
    interval: Span
    """Active_Adver_Interval: what the Active advertises, our own until one is heard."""
    down_at: Instant
    """When the Active_Down_Timer runs out."""
    listening_until: Instant
    """No claim before this, whatever the timer says."""
    active: IPAddress | None = None
    """Who was last heard to be Active."""
    preempt_at: Instant | None = None
    """When the delay ends after which a lower Active is no longer obeyed."""


@dataclass(frozen=True, slots=True)
class Claiming:
    """Has asked for its first advert and waits for the outcome."""

    asked_at: Instant
    reason: str


@dataclass(frozen=True, slots=True)
class Active:
    """Answers for the addresses."""

    since: Instant
    reason: str
    sent_at: Instant
    """Send instant of the last advert that left the host."""
    due_at: Instant
    """When the next is due (Adver_Timer)."""


Phase = Initialize | Backup | Claiming | Active


@dataclass(frozen=True, slots=True)
class State:
    """All that the election remembers."""

    phase: Phase
    priority: int
    told: tuple[tuple[IPAddress, Oddity, Instant], ...] = ()
    """What was reported lately, about whom, oldest first."""
