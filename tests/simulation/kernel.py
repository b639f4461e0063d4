"""A host's kernel as revip meets it: the IPVS table, and addresses that live for a while.

Written independently of the planner: its refusals are those of `ip_vs_genl_set_cmd`
(net/netfilter/ipvs/ip_vs_ctl.c), its lifetimes those of net/ipv4/devinet.c: whole seconds, up to
one second late, and a refresh of an address that is not there creates it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from revip.errors import KernelError
from revip.model.host import KERNEL_LOCAL_TABLE, HostFact, LinkAddress, LocalRoute, Sysctl
from revip.model.ipvs import (
    AddDestination,
    AddServer,
    Change,
    DeleteDestination,
    DeleteServer,
    Destination,
    Observation,
    ServiceKey,
    SetDestination,
    SetServer,
    VirtualServer,
)


@dataclass(frozen=True)
class Refusal:
    """One standing order to refuse."""

    errno: int
    what: str
    """`write`, `dump`, `short` (a dump that silently ends early), `address`, or the name of a
    kind of change."""
    percent: int
    """Of the calls that it hits."""

    def __str__(self) -> str:
        return f"{errno.errorcode[self.errno]} to {self.percent} % of {self.what}"


@dataclass
class Kernel:
    """The part of one booted kernel that matters here."""

    percent: Callable[[], int]
    """A dice of 0 to 99."""
    table: dict[ServiceKey, VirtualServer] = field(default_factory=dict)
    facts: set[HostFact] = field(default_factory=set)
    ends: dict[LinkAddress, int] = field(default_factory=dict)
    """When the lifetime of an address is over, in world time; absent is for ever."""
    refusals: list[Refusal] = field(default_factory=list)
    version: int = 0
    """Grows with each change of the table, or of the host."""

    # The table ------------------------------------------------------------------------------

    def observe(self, keys: frozenset[ServiceKey]) -> Observation:
        self.refuse("dump", "dump the table")
        found = {key: server for key, server in self.table.items() if key in keys}
        if self.hit("short"):
            found = {key: _cut_short(server) for key, server in found.items()}
        return Observation(found)

    def write(self, change: Change) -> None:
        """Make one change, as strictly as the kernel does.  Raises `KernelError`."""
        kind = type(change).__name__
        self.refuse("write", kind)
        self.refuse(kind, kind)
        key = change.server.key if isinstance(change, AddServer | SetServer) else change.key
        server = self.table.get(key)
        if isinstance(change, AddServer):
            _demand(server is None, errno.EEXIST, kind)
            self.put(replace(change.server, destinations=frozenset()))
            return
        if server is None:
            raise KernelError(errno.ESRCH, kind, "no such virtual server")
        if isinstance(change, DeleteServer):
            self.drop(key)
        elif isinstance(change, SetServer):
            self.put(replace(change.server, destinations=server.destinations))
        else:
            self.put(replace(server, destinations=_changed(server, change)))

    def put(self, server: VirtualServer) -> None:
        self.table[server.key] = server
        self.version += 1

    def drop(self, key: ServiceKey) -> None:
        self.table.pop(key, None)
        self.version += 1

    def taking(self, key: ServiceKey) -> frozenset[Destination]:
        """Return the destinations that take new connections."""
        server = self.table.get(key)
        return frozenset(d for d in server.destinations if d.weight) if server else frozenset()

    # The host -------------------------------------------------------------------------------

    def establish(self, fact: HostFact, ends: int | None) -> bool:
        """Make `fact` true; return whether it was not."""
        news = fact not in self.facts
        self.version += news
        if isinstance(fact, Sysctl) and news:  # one value at a time
            same = {f for f in self.facts if isinstance(f, Sysctl) and f.name == fact.name}
            self.facts -= same
        self.facts.add(fact)
        if isinstance(fact, LinkAddress):
            if news:
                self.facts.add(_own_route(fact))
            if ends is None:
                self.ends.pop(fact, None)
            else:
                self.ends[fact] = ends
        return news

    def withdraw(self, fact: HostFact) -> bool:
        """Make `fact` untrue; return whether it was true."""
        news = fact in self.facts
        self.version += news
        self.facts.discard(fact)
        if isinstance(fact, LinkAddress):
            self.ends.pop(fact, None)
            self.facts.discard(_own_route(fact))
        return news

    # Refusals -------------------------------------------------------------------------------

    def refuse(self, what: str, operation: str) -> None:
        for refusal in self.refusals:
            if refusal.what == what and self.percent() < refusal.percent:
                raise KernelError(refusal.errno, operation, errno.errorcode[refusal.errno])

    def hit(self, what: str) -> bool:
        return any(r.what == what and self.percent() < r.percent for r in self.refusals)


def _own_route(place: LinkAddress) -> LocalRoute:
    return LocalRoute(place.link, place.address, KERNEL_LOCAL_TABLE)


def _cut_short(server: VirtualServer) -> VirtualServer:
    """Leave the last destination out, as a dump that was interrupted may."""
    kept = sorted(server.destinations, key=lambda it: it.endpoint)[:-1]
    return replace(server, destinations=frozenset(kept))


def _changed(
    server: VirtualServer, change: AddDestination | SetDestination | DeleteDestination
) -> frozenset[Destination]:
    kind, wanted = type(change).__name__, change.destination
    others = frozenset(it for it in server.destinations if it.endpoint != wanted.endpoint)
    there = len(others) < len(server.destinations)
    if isinstance(change, AddDestination):
        _demand(not there, errno.EEXIST, kind)
        return others | {wanted}
    _demand(there, errno.ENOENT, kind)
    return others if isinstance(change, DeleteDestination) else others | {wanted}


def _demand(true: bool, number: int, operation: str) -> None:
    if not true:
        raise KernelError(number, operation, errno.errorcode[number])
