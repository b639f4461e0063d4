"""An observer that never looks away: who answers for an address, from a host of its own.

`ask` asks every few milliseconds who has the address and records each question and every answer;
`spans`, `overlaps` and `outages` say from the record how long two nodes answered at once, and how
long nobody did.  `knock` opens a TCP connection every few milliseconds, `ping` sends echo
requests.  Each runs in a process of its own until SIGTERM; instants are CLOCK_MONOTONIC
nanoseconds.  An outage lasts from the first question without an answer to the next answer: a
watcher that is itself late asks later, and blames nobody for it.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from lab.capture import (
    NeighborCapture,
    arp_question,
    own_ipv4,
    own_link_local,
    parse,
    solicitation,
)

IPAddress = IPv4Address | IPv6Address

MS = 1_000_000
"""Nanoseconds."""
PERIOD = 0.01
"""Seconds between questions."""
BRIDGE = 60 * MS
"""Answers of one node that are no further apart are one span: it went on answering."""
GRACE = 15 * MS
"""An answer that comes so soon after its question is no outage."""
KNOCK_NS = 400 * MS
"""After which a connection that is not open has failed: before the first repeated SYN (1 s)."""
ASKED = "?"


@dataclass(frozen=True, slots=True)
class Seen:
    """One line of a record: a question, or an answer by `who`."""

    at: int
    who: str
    """`?` for a question; a MAC address; for `knock` and `ping` the number of what came back."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Something that lasted from `begin` to `end`."""

    begin: int
    end: int
    who: frozenset[str] = frozenset()

    @property
    def ms(self) -> float:
        """Its length in milliseconds."""
        return (self.end - self.begin) / MS


# --- watching -----------------------------------------------------------------------------------


def ask(path: Path, interface: str, address: IPAddress, period: float = PERIOD) -> None:
    """Ask by ARP or neighbor solicitation until SIGTERM; record each node that answers."""
    with NeighborCapture(interface) as capture, _record(path) as write:
        if isinstance(address, IPv4Address):
            question = arp_question(capture.mac, own_ipv4(interface), address)
        else:
            question = solicitation(capture.mac, own_link_local(interface), address)
        own = ":".join(f"{byte:02x}" for byte in capture.mac)

        def look() -> None:
            neighbor = parse(capture.receive(), time.monotonic_ns())
            if neighbor is None or neighbor.gratuitous or neighbor.mac == own:
                return
            if neighbor.claims == str(address):
                write(neighbor.at, neighbor.mac)

        def question_all() -> None:
            write(time.monotonic_ns(), ASKED)
            capture.send(question)

        _repeat(period, question_all, capture.fileno(), look)


def ping(path: Path, address: IPv4Address, period: float = 0.001) -> None:
    """Send ICMP echo requests until SIGTERM; record each and its answer by number."""
    icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with icmp as raw, _record(path) as write:
        raw.connect((str(address), 0))
        numbers = itertools.count()

        def send() -> None:
            number = next(numbers)
            body = struct.pack("!BBHHI", 8, 0, 0, 0x7669, number)
            total = sum(struct.unpack("!5H", body))
            total = (total & 0xFFFF) + (total >> 16)
            total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
            write(time.monotonic_ns(), ASKED)
            with contextlib.suppress(OSError):  # EHOSTUNREACH is no answer
                raw.send(body[:2] + struct.pack("!H", total) + body[4:])

        def look() -> None:
            with contextlib.suppress(OSError):
                packet = raw.recv(256)
                kind, _, _, mine, number = struct.unpack_from("!BBHHI", packet, 20)
                if (kind, mine) == (0, 0x7669):
                    write(time.monotonic_ns(), str(number))

        _repeat(period, send, raw.fileno(), look)


def knock(path: Path, address: IPAddress, port: int, period: float = 0.02) -> None:
    """Open and reset a TCP connection each `period`; record when each was begun, if it opened.

    A line is the beginning of a connection that opened within `KNOCK_NS`, or `-` for one that
    did not.
    """
    open_ones: dict[int, tuple[int, socket.socket]] = {}
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    poll = select.poll()
    with _record(path) as write:
        for _ in _ticks():
            begun = time.monotonic_ns()
            knocking = socket.socket(family)
            knocking.setblocking(False)
            linger = struct.pack("ii", 1, 0)  # a reset instead of a minute of TIME_WAIT
            knocking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            with contextlib.suppress(BlockingIOError, OSError):
                knocking.connect((str(address), port))
            open_ones[knocking.fileno()] = (begun, knocking)
            poll.register(knocking, select.POLLOUT)
            _settle(poll, open_ones, period, write)


def _settle(
    poll: select.poll,
    open_ones: dict[int, tuple[int, socket.socket]],
    period: float,
    write: Callable[[int, str], None],
) -> None:
    deadline = time.monotonic() + period
    while (left := deadline - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(max(1, left * 1000)):
            begun, done = open_ones.pop(descriptor)
            poll.unregister(descriptor)
            failed = done.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            write(begun, "-" if failed else "open")
            done.close()
    for descriptor, (begun, late) in list(open_ones.items()):
        if time.monotonic_ns() - begun > KNOCK_NS:
            del open_ones[descriptor]
            poll.unregister(descriptor)
            write(begun, "-")
            late.close()


def adverts(path: Path, interface: str) -> None:
    """Record VRRP adverts until SIGTERM, each as `SOURCE/PRIORITY` with its version if not 3."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as wire, _record(path) as write:
        wire.bind((interface, 0x0003))

        def look() -> None:
            packet = wire.recv(2048)
            if len(packet) > 28 and packet[0] >> 4 == 4 and packet[9] == 112:
                vrrp = packet[(packet[0] & 15) * 4 :]
                source, kind = IPv4Address(packet[12:16]), vrrp[0]
            elif len(packet) > 48 and packet[0] >> 4 == 6 and packet[6] == 112:
                source, vrrp = IPv6Address(packet[8:24]), packet[40:]  # type: ignore[assignment]
                kind = vrrp[0]
            else:
                return
            odd = "" if kind == 0x31 else f"/kind-{kind:#x}"
            write(time.monotonic_ns(), f"{source}/{vrrp[2]}{odd}")

        _repeat(PERIOD, lambda: None, wire.fileno(), look)


def _repeat(
    period: float, act: Callable[[], object], descriptor: int, look: Callable[[], None]
) -> None:
    """Act each `period` and look whenever something can be read, until SIGTERM."""
    stop = _Stop()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    due = time.monotonic()
    while not stop.asked:
        act()
        due = max(due + period, time.monotonic() - period)
        while (left := due - time.monotonic()) > 0:
            if poll.poll(left * 1000):
                look()


def _ticks() -> Iterator[None]:
    stop = _Stop()
    while not stop.asked:
        yield


class _Stop:
    """Whether SIGTERM has come."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True


@contextlib.contextmanager
def _record(path: Path) -> Iterator[Callable[[int, str], None]]:
    with path.open("w", buffering=1) as file:
        yield lambda at, who: (file.write(f"{at} {who}\n"), None)[1]


def read(path: Path) -> list[Seen]:
    """Return what was recorded so far."""
    if not path.exists():
        return []
    whole = path.read_text().rpartition("\n")[0]
    return [
        Seen(int(at), who)
        for at, _, who in (line.partition(" ") for line in whole.split("\n"))
        if at
    ]


# --- judging ------------------------------------------------------------------------------------


def spans(seen: Iterable[Seen], bridge: int = BRIDGE) -> list[Stretch]:
    """Return, for each who answered, from when to when it went on doing so."""
    found: list[Stretch] = []
    running: dict[str, Stretch] = {}
    for one in seen:
        if one.who == ASKED:
            continue
        before = running.get(one.who)
        if before is not None and one.at - before.end <= bridge:
            running[one.who] = Stretch(before.begin, one.at, before.who)
        else:
            found += [before] if before is not None else []
            running[one.who] = Stretch(one.at, one.at, frozenset({one.who}))
    return sorted([*found, *running.values()], key=lambda span: span.begin)


def overlaps(seen: Iterable[Seen], bridge: int = BRIDGE) -> list[Stretch]:
    """Return when two answered at once, each pair by itself; neighbors in time are joined."""
    found: list[Stretch] = []
    for one, other in itertools.combinations(spans(seen, bridge), 2):
        begin, end = max(one.begin, other.begin), min(one.end, other.end)
        if one.who != other.who and begin <= end:
            found.append(Stretch(begin, end, one.who | other.who))
    joined: dict[frozenset[str], Stretch] = {}
    done: list[Stretch] = []
    for both in sorted(found, key=lambda both: both.begin):
        before = joined.get(both.who)
        if before is not None and both.begin - before.end <= bridge:
            joined[both.who] = Stretch(before.begin, max(before.end, both.end), both.who)
        else:
            done += [before] if before is not None else []
            joined[both.who] = both
    return sorted([*done, *joined.values()], key=lambda both: both.begin)


def outages(seen: Iterable[Seen], grace: int = GRACE) -> list[Stretch]:
    """Return when questions went without an answer; one that has not ended lasts to the end."""
    found = []
    unanswered: int | None = None
    last = 0
    for one in seen:
        last = one.at
        if one.who == ASKED:
            unanswered = one.at if unanswered is None else unanswered
        elif unanswered is not None:
            if one.at - unanswered > grace:
                found.append(Stretch(unanswered, one.at))
            unanswered = None
    if unanswered is not None and last - unanswered > grace:
        found.append(Stretch(unanswered, last))
    return found


def stalls(seen: Iterable[Seen], since: int, until: int, least: int) -> list[Stretch]:
    """Return when the watcher itself did not come to ask for `least` nanoseconds."""
    asked = [one.at for one in seen if one.who == ASKED and since <= one.at <= until]
    return [Stretch(a, b) for a, b in itertools.pairwise(asked) if b - a >= least]


def within(stretches: Iterable[Stretch], since: int, until: int) -> list[Stretch]:
    """Return those that touch the time between two instants."""
    return [one for one in stretches if one.end >= since and one.begin <= until]


def longest(stretches: Iterable[Stretch]) -> float:
    """Return the length of the longest, in milliseconds; 0 for none."""
    return max((one.ms for one in stretches), default=0.0)


def longest_gap(seen: Iterable[Seen], since: int, until: int) -> float:
    """Return the longest time between two answers that touches the span, in milliseconds."""
    instants = [one.at for one in seen if one.who != ASKED]
    pairs = [(a, b) for a, b in itertools.pairwise(instants) if b > since and a < until]
    return max(((b - a) / MS for a, b in pairs), default=0.0)


@dataclass(frozen=True, slots=True)
class Doors:
    """How new connections fared after a fault."""

    first: float | None
    """Milliseconds from the first connection that failed to the next that opened; 0 when none
    failed; None when none opened any more."""
    every: float
    """Milliseconds from the first that failed to the last that did; 0 when none did."""
    failed: int
    tried: int


def doors(seen: Iterable[Seen], at: int, until: int) -> Doors:
    """Judge the record of `knock` between a fault and a later instant."""
    tries = sorted((one for one in seen if at <= one.at <= until), key=lambda one: one.at)
    failed = [one.at for one in tries if one.who == "-"]
    good = [one.at for one in tries if one.who != "-"]
    first: float | None = None
    if not failed:
        first = 0.0
    else:
        after = [instant for instant in good if instant > failed[0]]
        first = (after[0] - failed[0]) / MS if after else None
    every = (failed[-1] - failed[0]) / MS if failed else 0.0
    return Doors(first, every, len(failed), len(tries))
