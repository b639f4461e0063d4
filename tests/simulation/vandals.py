"""What others do to a host: to the virtual server, and to address, routes and rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from revip.model.host import LinkAddress, LocalRoute, WireRule
from revip.model.ipvs import Destination, Forwarding, Port

if TYPE_CHECKING:
    from tests.simulation.host import Host


def disturb(host: Host, deed: str) -> None:
    """Do it, as far as there is something to do it to."""
    if host.up:
        host.world.trace("vandal", host.number, deed)
        _DEEDS[deed](host)
        host.world.checks.disturbed(host)


def _flush(host: Host) -> None:
    """`ipvsadm -C`."""
    host.kernel.drop(host.world.setup.key)


def _changed(
    change: Callable[[Destination], Destination | None], every: bool = False
) -> Callable[[Host], None]:
    def deed(host: Host) -> None:
        server = host.kernel.table.get(host.world.setup.key)
        if server is None or not server.destinations:
            return
        there = sorted(server.destinations, key=lambda it: it.endpoint)
        chosen = there if every else [host.world.dice.choice(there)]
        kept = {it: change(it) if it in chosen else it for it in there}
        left = frozenset(it for it in kept.values() if it is not None)
        host.kernel.put(replace(server, destinations=left))

    return deed


def _scheduler(host: Host) -> None:
    if server := host.kernel.table.get(host.world.setup.key):
        host.kernel.put(replace(server, scheduler="rr", flags=frozenset(), persistence=300))


def _stranger(host: Host, *, alone: bool = False) -> None:
    if server := host.kernel.table.get(host.world.setup.key):
        six = host.world.setup.version == 6
        stranger = Destination(ip_address("fd00::99" if six else "10.0.1.99"), Port(80), 7)
        others = {
            it for it in server.destinations if it.endpoint != stranger.endpoint and not alone
        }
        host.kernel.put(replace(server, destinations=frozenset(others | {stranger})))


def _address(host: Host) -> None:
    host.withdraw(host.vip)


def _kind(*kinds: type) -> Callable[[Host], None]:
    def deed(host: Host) -> None:
        for fact in sorted(host.kernel.facts, key=repr):
            if isinstance(fact, kinds) and fact != host.vip:
                host.withdraw(fact)

    return deed


_DEEDS: dict[str, Callable[[Host], None]] = {
    "flush": _flush,
    "delete one": _changed(lambda it: None),
    "delete all": _changed(lambda it: None, every=True),
    "weight 0": _changed(lambda it: replace(it, weight=0)),
    "all weights 0": _changed(lambda it: replace(it, weight=0), every=True),
    "weight 9": _changed(lambda it: replace(it, weight=9)),
    "forwarding": _changed(lambda it: replace(it, forwarding=Forwarding.TUNNEL)),
    "scheduler": _scheduler,
    "stranger": _stranger,
    "only a stranger": lambda host: _stranger(host, alone=True),
    "address": _address,
    "rules": _kind(WireRule),
    "routes": _kind(LocalRoute),
    "other addresses": _kind(LinkAddress),
}
DEEDS = tuple(_DEEDS)
