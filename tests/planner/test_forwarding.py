"""`forwarding: auto`: what it comes to, and the reason it gives."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from revip.model.health import Backend, BackendName
from revip.model.ipvs import Forwarding, Port
from revip.model.spec import LinkName, NodeName, VirtualServerSpec
from revip.planner.forwarding import choice, chosen

NEAR = (("n1", "10.0.1.16", 6443), ("n2", "10.0.1.19", 6443))
SUBNETS = (ip_network("10.0.1.0/24"), ip_network("fd00:1::/64"))


def server(*backends: tuple[str, str, int], automatic: bool = True) -> VirtualServerSpec:
    return VirtualServerSpec(
        "api",
        ip_address("10.0.1.10"),
        Port(6443),
        LinkName("eth0"),
        NodeName("n1"),
        tuple(Backend(BackendName(n), ip_address(a), Port(p)) for n, a, p in backends),
        automatic=automatic,
    )


def test_backends_on_the_interfaces_own_subnet_are_forwarded_to_directly() -> None:
    found = chosen(server(*NEAR), SUBNETS)
    assert found.forwarding is Forwarding.DIRECT
    assert not found.undecided
    assert choice(found) == (
        "forwarding is direct (auto): all backends are in the subnet of eth0, with equal ports"
    )


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (("n3", "10.0.2.20", 6443), "n3 (10.0.2.20:6443) is outside the subnet of eth0"),
        (("n3", "10.0.1.20", 8443), "n3 (10.0.1.20:8443) has another port than 6443"),
    ],
)
def test_one_backend_elsewhere_makes_it_masquerade(odd: tuple[str, str, int], reason: str) -> None:
    found = chosen(server(*NEAR, odd), SUBNETS)
    assert found.forwarding is Forwarding.MASQUERADE
    assert reason in found.forwarding_reason


def test_without_a_subnet_of_the_family_it_is_not_decided_yet() -> None:
    found = chosen(server(*NEAR), SUBNETS[1:])
    assert found.undecided
    assert "no IPv4 subnet yet" in found.forwarding_reason
    assert not chosen(found, SUBNETS).undecided


def test_what_was_configured_is_left_alone() -> None:
    given = server(("n3", "10.0.2.20", 6443), automatic=False)
    assert chosen(given, SUBNETS) is given
