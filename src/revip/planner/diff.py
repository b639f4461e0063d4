"""What must be done to turn the observed table into the desired one, and in which order.

The laws, each a property in tests/planner/test_diff.py:

    patched(observed, diff(desired, observed)) == desired
    diff(table, table) == ()

and at no step of a plan is a virtual server, which can take a connection before and after it,
without a destination that takes one.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from typing import assert_never

from revip.errors import KernelError
from revip.model.ipvs import (
    AddDestination,
    AddServer,
    Change,
    DeleteDestination,
    DeleteServer,
    Destination,
    IPAddress,
    Port,
    ServiceKey,
    SetDestination,
    SetServer,
    Table,
    VirtualServer,
)

Endpoint = tuple[IPAddress, Port]


def owned(observed: Table, keys: frozenset[ServiceKey]) -> dict[ServiceKey, VirtualServer]:
    """Return the part of `observed` that is ours; the rest must never reach `diff`."""
    return {key: server for key, server in observed.items() if key in keys}


def diff(desired: Table, observed: Table) -> tuple[Change, ...]:
    """Return the changes that turn `observed` (only our keys: see `owned`) into `desired`.

    Server by server: those that stand first (a dead backend should not wait for anything), then
    new ones, then those that go.  Changes to different servers do not depend on each other
    (`by_server` takes them apart), so one that the kernel refuses need not hold up the rest.
    """
    plan: list[Change] = []
    for key in sorted(desired.keys() & observed.keys(), key=_rank):
        plan += _mend(desired[key], observed[key])
    for key in sorted(desired.keys() - observed.keys(), key=_rank):
        plan += _found(desired[key])
    plan += [DeleteServer(key) for key in sorted(observed.keys() - desired.keys(), key=_rank)]
    return tuple(plan)


def by_server(plan: Iterable[Change]) -> Iterator[tuple[ServiceKey, tuple[Change, ...]]]:
    """Take a plan apart into the independent plans of its virtual servers."""
    for key, changes in groupby(plan, key_of):
        yield key, tuple(changes)


def key_of(change: Change) -> ServiceKey:
    """Return the virtual server that `change` is about."""
    return change.server.key if isinstance(change, AddServer | SetServer) else change.key


def patched(table: Table, changes: Iterable[Change]) -> dict[ServiceKey, VirtualServer]:
    """Return `table` after `changes`, as strict about what exists as the kernel is.

    Raises `KernelError` with the errno of ip_vs_genl_set_cmd: EEXIST for a thing that is there
    already, ESRCH for a virtual server and ENOENT for a destination that is not.
    """
    result = dict(table)
    for change in changes:
        key = key_of(change)
        after = _after(result.get(key), change)
        if after is None:
            del result[key]
        else:
            result[key] = after
    return result


def describe(change: Change, names: Mapping[Endpoint, str] | None = None) -> str:
    """Say `change` in one sentence; `names` are the backends' names, where they are known."""

    def full(it: Destination) -> str:
        return f"{short(it)} weight {it.weight} ({it.forwarding.name.lower()})"

    def short(it: Destination) -> str:
        name = (names or {}).get(it.endpoint)
        return f"{name} {it}" if name else str(it)

    return _sentence(change, full, short)


def _sentence(
    change: Change, full: Callable[[Destination], str], short: Callable[[Destination], str]
) -> str:
    match change:
        case AddServer(server):
            return f"add {server.key} with {_parameters(server)}"
        case SetServer(server):
            return f"set {server.key} to {_parameters(server)}"
        case DeleteServer(key):
            return f"delete {key}"
        case AddDestination(key, destination):
            return f"add {full(destination)} to {key}"
        case SetDestination(key, destination):
            return f"set {full(destination)} in {key}"
        case DeleteDestination(key, destination):
            return f"delete {short(destination)} from {key}"
        case _:
            assert_never(change)


def _parameters(server: VirtualServer) -> str:
    words = [f"scheduler {server.scheduler}", *sorted(flag.value for flag in server.flags)]
    if server.persistence:
        words.append(f"persistence {server.persistence} s")
    if server.persistence_netmask:
        words.append(f"netmask /{server.persistence_netmask}")
    if server.one_packet:
        words.append("one-packet")
    return " ".join(words)


def _found(server: VirtualServer) -> Iterator[Change]:
    yield AddServer(_bare(server))
    for destination in sorted(server.destinations, key=_inviting_first):
        yield AddDestination(server.key, destination)


def _mend(desired: VirtualServer, observed: VirtualServer) -> Iterator[Change]:
    """Invite, then turn away, then change the parameters.

    After the invitations every destination that is wanted with a weight has one, and none of
    those is touched again.  Parameters come last because they alone may be refused for ever (a
    scheduler without its module), and that must not keep a dead backend in the table.
    """
    if desired == observed:
        return
    wanted = {it.endpoint: it for it in desired.destinations}
    there = {it.endpoint: it for it in observed.destinations}
    for destination in sorted(desired.destinations - observed.destinations, key=_inviting_first):
        change = SetDestination if destination.endpoint in there else AddDestination
        yield change(desired.key, destination)
    for destination in sorted(observed.destinations, key=_inviting_first):
        if destination.endpoint not in wanted:
            yield DeleteDestination(desired.key, destination)
    if desired.parameters != observed.parameters:
        yield SetServer(_bare(desired))


def _after(server: VirtualServer | None, change: Change) -> VirtualServer | None:
    """Return the virtual server after `change`, None when it is gone."""
    if isinstance(change, AddServer):
        if server is not None:
            raise _refusal(errno.EEXIST, change)
        return _bare(change.server)
    if server is None:
        raise _refusal(errno.ESRCH, change)
    match change:
        case SetServer(wanted):
            return replace(wanted, destinations=server.destinations)
        case DeleteServer():
            return None
        case AddDestination() | SetDestination() | DeleteDestination():
            return replace(server, destinations=_destinations_after(server, change))
        case _:
            assert_never(change)


def _destinations_after(
    server: VirtualServer, change: AddDestination | SetDestination | DeleteDestination
) -> frozenset[Destination]:
    there = {it.endpoint: it for it in server.destinations}
    adding = isinstance(change, AddDestination)
    if adding == (change.destination.endpoint in there):
        raise _refusal(errno.EEXIST if adding else errno.ENOENT, change)
    there.pop(change.destination.endpoint, None)
    if not isinstance(change, DeleteDestination):
        there[change.destination.endpoint] = change.destination
    return frozenset(there.values())


def _refusal(number: int, change: Change) -> KernelError:
    return KernelError(number, describe(change), "the table is not what the plan was made for")


def _bare(server: VirtualServer) -> VirtualServer:
    return replace(server, destinations=frozenset())


def _rank(key: ServiceKey) -> tuple[int, int, int, int, int]:
    return (key.address.version, int(key.address), key.port, key.protocol, key.fwmark)


def _inviting_first(destination: Destination) -> tuple[bool, int, int, int]:
    address = destination.address
    return (destination.weight == 0, address.version, int(address), destination.port)
