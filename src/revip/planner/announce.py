"""When to tell the neighbors that an address is here: a burst when it comes, then a slow refresh.

For ARP, RFC 5227 section 2.3 asks for ANNOUNCE_NUM (2) announcements, ANNOUNCE_INTERVAL (2 s)
apart: the last two of the burst.  RFC 5944 section 4.6 wants a few repetitions against loss: the
first three, close together, since each lost one is time in which nobody finds the VIP.  Between
them one comes a full second after the take-over, because older kernels, and hosts to which the
address is local, believe no second change of an entry within `net.ipv4.neigh.*.locktime` (1 s).

For IPv6, RFC 4861 section 7.2.6 allows MAX_NEIGHBOR_ADVERTISEMENT (3) of them, and they MUST be
RetransTimer (1 s) apart.

The refresh heals what was down or partitioned meanwhile, and keeps the switches' tables fresh.
Spans count from the announcement before, so that a stall of the agent makes no two of them meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from revip.model.host import LinkAddress
from revip.model.instants import NEVER, SECOND, Instant, Span, later

ARP_BURST = (Span(100), Span(200), Span(700), Span(2000))
"""Spans between the announcements of an IPv4 burst: at 0, 100 ms, 300 ms, 1 s and 3 s."""
ADVERTISEMENT_BURST = (Span(1000), Span(2000))
"""Spans between those of an IPv6 burst: at 0, 1 s and 3 s."""
REFRESH = Span(30_000)
"""Between announcements while the address stays: well below the 300 s that switches remember."""
RETRY = SECOND
"""After one that failed."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Where one address is in its schedule."""

    sent: int = 0
    """Announcements in this schedule so far."""
    due: Instant = Instant(0)
    """Of the next one."""


@dataclass(frozen=True, slots=True)
class Announcements:
    """The addresses that the neighbors have been told of, or are about to be."""

    turns: Mapping[LinkAddress, Turn] = field(default_factory=dict)
    refresh: Span = REFRESH


def kept(state: Announcements, held: frozenset[LinkAddress]) -> Announcements:
    """Forget what is not in `held` any more: should it return, its burst begins anew."""
    turns = {address: turn for address, turn in state.turns.items() if address in held}
    return replace(state, turns=turns)


def step(
    state: Announcements, held: frozenset[LinkAddress], now: Instant
) -> tuple[Announcements, tuple[LinkAddress, ...]]:
    """Return the next state, and what to announce at `now` of what is `held`.

    What is returned counts as sent; `failed` takes that back.
    """
    turns = dict(kept(state, held).turns)
    due = []
    for address in sorted(held, key=_order):
        turn = turns.setdefault(address, Turn(due=now))
        if turn.due <= now:
            wait = _spans(address)[turn.sent] if turn.sent < len(_spans(address)) else state.refresh
            turns[address] = Turn(turn.sent + 1, later(now, wait))
            due.append(address)
    return replace(state, turns=turns), tuple(due)


def failed(state: Announcements, address: LinkAddress, now: Instant) -> Announcements:
    """Return the state after an announcement at `now` did not go out.

    Whatever kept it (a link that was down) may have kept the others from hearing before, too: the
    burst begins anew with the first one that goes out.
    """
    return replace(state, turns={**state.turns, address: Turn(due=later(now, RETRY))})


def next_wakeup(state: Announcements) -> Instant:
    """Return when `step` has something to do next, if nothing else happens."""
    return min((turn.due for turn in state.turns.values()), default=NEVER)


def _spans(address: LinkAddress) -> tuple[Span, ...]:
    return ARP_BURST if address.address.version == 4 else ADVERTISEMENT_BURST


def _order(address: LinkAddress) -> tuple[str, int, bytes]:
    return address.link, address.address.version, address.address.packed
