"""What `forwarding: auto` comes to: direct where it can work, masquerade where it cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network

from revip.model.ipvs import Forwarding, at
from revip.model.spec import VirtualServerSpec

Network = IPv4Network | IPv6Network


def chosen(server: VirtualServerSpec, subnets: Sequence[Network]) -> VirtualServerSpec:
    """Return `server` with a forwarding method, and the reason if it was left to us.

    `subnets` are those of its interface; without one of the VIP's family the interface is not
    ready, nothing can be put on it yet, and direct stands for the time being.
    """
    if not server.automatic:
        return server
    mine = [subnet for subnet in subnets if subnet.version == server.address.version]
    method, reason = _choice(server, mine)
    return replace(server, forwarding=method, forwarding_reason=reason, undecided=not mine)


def choice(server: VirtualServerSpec) -> str:
    """Say what was chosen for an automatic one, and why."""
    return f"forwarding is {server.forwarding.name.lower()} (auto): {server.forwarding_reason}"


def _choice(server: VirtualServerSpec, subnets: Sequence[Network]) -> tuple[Forwarding, str]:
    link = server.interface
    for backend in server.backends:
        where = f"{backend.name} ({at(backend.address, backend.port)})"
        if backend.port != server.port:
            return Forwarding.MASQUERADE, f"{where} has another port than {server.port}"
        if subnets and not any(backend.address in subnet for subnet in subnets):
            shown = " and ".join(map(str, subnets))
            return Forwarding.MASQUERADE, f"{where} is outside the subnet of {link}, {shown}"
    if not subnets:
        return Forwarding.DIRECT, f"{link} has no IPv{server.address.version} subnet yet"
    return Forwarding.DIRECT, f"all backends are in the subnet of {link}, with equal ports"
