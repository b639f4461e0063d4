"""What agent and keeper say to each other: one JSON object in each packet of a socket pair.

Both ends are of one installation, so there are no versions; but nothing that comes in may end
either of them, so `decode` knows one exception.  Instants are of CLOCK_BOOTTIME, which both read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from revip.errors import RevipError
from revip.model.host import LinkAddress
from revip.model.instants import Instant, Span
from revip.model.ipvs import IPAddress
from revip.model.notes import Kind, Level, Note
from revip.model.spec import LinkName, VrrpSpec
from revip.planner.handover import HandOver, Stage

LIMIT = 32 * 1024
"""Bytes of a message."""
LONGEST_TEXT = 2_000
"""Characters of a text in it."""


class WordsError(RevipError):
    """A message that is none."""


# To the keeper ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stand:
    """Take part in an election, from now on or with these rules."""

    name: str
    place: LinkAddress
    vrrp: VrrpSpec
    worth: tuple[int, str]
    source: IPAddress | None
    """This node's own address, or None and why there is none."""
    problem: str = ""
    held_until: Instant = Instant(0)
    """Before this instant nobody else may have claimed: an earlier keeper was Active here."""


@dataclass(frozen=True, slots=True)
class Worth:
    """What this node deserves; it is also how the agent says that it lives."""

    name: str
    priority: int
    reason: str


@dataclass(frozen=True, slots=True)
class Source:
    """This node's own address, or why there is none."""

    name: str
    address: IPAddress | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Wish:
    """What an operator asks for."""

    name: str
    wish: HandOver


@dataclass(frozen=True, slots=True)
class Resign:
    """Say farewell and take no part any more."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Withdraw:
    """The election is not configured any more."""

    name: str
    reason: str


# To the agent -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Standing:
    """How an election stands; it is also how the keeper says that it lives."""

    name: str
    leading: bool
    keeps_until: Instant
    reason: str
    status: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Again:
    """The address is to be announced once more."""

    name: str


@dataclass(frozen=True, slots=True)
class Told:
    """Something for the journal."""

    note: Note


Word = Stand | Worth | Source | Wish | Resign | Withdraw | Standing | Again | Told


def encode(word: Word) -> bytes:
    """Return `word` as one packet, its texts cut to `LONGEST_TEXT`."""
    return json.dumps([type(word).__name__, _fields(word)], ensure_ascii=False).encode()


def decode(packet: bytes) -> Word:
    """Return what a packet says.  Raises `WordsError`."""
    try:
        kind, fields = json.loads(packet)
        return _READ[kind](fields)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise WordsError(f"{packet[:80]!r}: {type(error).__name__}: {error}") from error


def _fields(word: Word) -> dict[str, Any]:
    match word:
        case Stand(name, place, vrrp, worth, source, problem, held_until):
            return {"name": name, "link": place.link, "address": str(place.address)} | {
                "worth": [worth[0], _cut(worth[1])],
                "source": str(source) if source else None,
                "problem": _cut(problem),
                "held_until": held_until,
                "vrid": vrrp.vrid,
                "priority": vrrp.priority,
                "advert_interval": vrrp.advert_interval,
                "preempt": vrrp.preempt,
                "preempt_delay": vrrp.preempt_delay,
                "peers": [str(peer) for peer in vrrp.peers],
                "address_lifetime": vrrp.address_lifetime,
            }
        case Worth(name, priority, reason):
            return {"name": name, "priority": priority, "reason": _cut(reason)}
        case Source(name, address, problem):
            text = str(address) if address else None
            return {"name": name, "address": text, "problem": _cut(problem)}
        case Wish(name, wish):
            times = {"asked_at": wish.asked_at, "until": wish.until}
            return {"name": name, "stage": wish.stage.value, **times}
        case Resign(name, reason) | Withdraw(name, reason):
            return {"name": name, "reason": _cut(reason)}
        case Standing(name, leading, until, reason, status):
            said = {"name": name, "leading": leading, "keeps_until": until}
            return {**said, "reason": _cut(reason), "status": status}
        case Again(name):
            return {"name": name}
        case Told(note):
            return {
                "at": note.at,
                "kind": note.kind.value,
                "text": _cut(note.text),
                "level": note.level.value,
                "virtual_server": note.virtual_server,
            }


def _cut(text: str) -> str:
    return text[:LONGEST_TEXT]


def _stand(said: dict[str, Any]) -> Stand:
    vrrp = VrrpSpec(
        int(said["vrid"]),
        int(said["priority"]),
        Span(said["advert_interval"]),
        bool(said["preempt"]),
        Span(said["preempt_delay"]),
        tuple(ip_address(peer) for peer in said["peers"]),
        Span(said["address_lifetime"]),
    )
    place = LinkAddress(LinkName(said["link"]), ip_address(said["address"]))
    priority, reason = said["worth"]
    source = ip_address(said["source"]) if said["source"] else None
    worth = int(priority), str(reason)
    held_until = Instant(said["held_until"])
    return Stand(said["name"], place, vrrp, worth, source, said["problem"], held_until)


def _source(said: dict[str, Any]) -> Source:
    address = ip_address(said["address"]) if said["address"] else None
    return Source(said["name"], address, said["problem"])


def _wish(said: dict[str, Any]) -> Wish:
    times = Instant(said["asked_at"]), Instant(said["until"])
    return Wish(said["name"], HandOver(Stage(said["stage"]), *times))


def _standing(said: dict[str, Any]) -> Standing:
    until = Instant(said["keeps_until"])
    return Standing(said["name"], said["leading"], until, said["reason"], said["status"])


def _told(said: dict[str, Any]) -> Told:
    kind, level = Kind(said["kind"]), Level(said["level"])
    return Told(Note(Instant(said["at"]), kind, said["text"], level, said["virtual_server"]))


_READ: dict[str, Callable[[dict[str, Any]], Word]] = {
    "Stand": _stand,
    "Worth": lambda said: Worth(said["name"], int(said["priority"]), said["reason"]),
    "Source": _source,
    "Wish": _wish,
    "Resign": lambda said: Resign(said["name"], said["reason"]),
    "Withdraw": lambda said: Withdraw(said["name"], said["reason"]),
    "Standing": _standing,
    "Again": lambda said: Again(said["name"]),
    "Told": _told,
}
