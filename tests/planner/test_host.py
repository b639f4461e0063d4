"""Roles and their host state: what each has, and that one is exactly undone by the next."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revip.errors import InvariantError
from revip.model.host import (
    KERNEL_LOCAL_TABLE,
    ROUTE_TABLE,
    HostFact,
    HostState,
    LinkAddress,
    LocalRoute,
    Snat,
    Sysctl,
    Untracked,
    WireRule,
)
from revip.model.ipvs import Forwarding, IPAddress, Port
from revip.model.spec import DUMMY, LinkName, NodeName, Spec, VirtualServerSpec
from revip.planner.host import combined, describe_fact, host_diff, host_state, undone

ETH0 = LinkName("eth0")
VIP: dict[int, IPAddress] = {4: ip_address("10.0.1.10"), 6: ip_address("fd00::10")}
OWN: dict[int, IPAddress] = {4: ip_address("10.0.1.16"), 6: ip_address("fd00::16")}
ROLES = list(product((Forwarding.DIRECT, Forwarding.MASQUERADE), (True, False)))
FAMILIES = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


def role(
    version: int,
    directing: bool,
    method: Forwarding = Forwarding.DIRECT,
    link: str = "eth0",
    manage: bool = True,
) -> HostState:
    server = VirtualServerSpec(
        name="api",
        address=VIP[version],
        port=Port(6443),
        interface=LinkName(link),
        owner=NodeName("n1"),
        backends=(),
        forwarding=method,
    )
    spec = Spec(NodeName("n1"), None, (server,), manage_host=manage)
    return host_state(spec, server, directing, OWN[version])


class Kernel:
    """As much of Linux as matters here: an address brings a local route, and takes it along."""

    def __init__(self, *held: HostFact) -> None:
        self.held: set[HostFact] = set(held)

    def settle(self, wanted: HostState) -> int:
        for passes in range(5):
            remove, add = host_diff(wanted, self.holding(wanted))
            if not remove and not add:
                return passes
            for fact in remove:
                self._withdraw(fact)
            for fact in add:
                self._establish(fact)
        raise AssertionError("does not settle")

    def holding(self, wanted: HostState) -> frozenset[HostFact]:
        return frozenset(self.held & (wanted.present | wanted.absent))

    def _establish(self, fact: HostFact) -> None:
        self.held.add(fact)
        if isinstance(fact, LinkAddress):
            self.held.add(LocalRoute(fact.link, fact.address, KERNEL_LOCAL_TABLE))

    def _withdraw(self, fact: HostFact) -> None:
        self.held.discard(fact)
        if isinstance(fact, LinkAddress):
            self.held.discard(LocalRoute(fact.link, fact.address, KERNEL_LOCAL_TABLE))


@FAMILIES
@pytest.mark.parametrize("path", list(permutations(ROLES, 3)), ids=str)
def test_a_change_of_role_leaves_only_what_the_new_role_has(
    version: int, path: tuple[tuple[Forwarding, bool], ...]
) -> None:
    kernel = Kernel()
    for method, directing in path:
        wanted = role(version, directing, method)
        assert kernel.settle(wanted) <= 2
        assert kernel.held == set(wanted.present)


@FAMILIES
@pytest.mark.parametrize(("method", "directing"), ROLES)
def test_what_is_undone_leaves_nothing(version: int, method: Forwarding, directing: bool) -> None:
    kernel = Kernel()
    wanted = role(version, directing, method)
    kernel.settle(wanted)
    kernel.settle(undone(wanted))
    assert kernel.held == set()


@FAMILIES
def test_becoming_director_adds_and_changes_nothing_of_the_follower(version: int) -> None:
    director, follower = role(version, True), role(version, False)
    assert follower.present < director.present


@FAMILIES
def test_the_address_is_the_last_to_come_and_the_first_to_go(version: int) -> None:
    _, add = host_diff(role(version, True), frozenset())
    assert [fact for fact in add if not isinstance(fact, Untracked)][-1] == LinkAddress(
        ETH0, VIP[version]
    )
    remove, _ = host_diff(role(version, False), role(version, True).present)
    assert remove[0] == LinkAddress(ETH0, VIP[version])


def test_the_host_keeps_quiet_about_the_vip_before_it_has_it() -> None:
    _, add = host_diff(role(4, False), frozenset())
    quiet = add.index(Sysctl("net.ipv4.conf.eth0.arp_ignore", "1"))
    assert quiet < add.index(LinkAddress(DUMMY, VIP[4]))


@FAMILIES
def test_a_local_route_goes_only_when_what_stands_in_for_it_is_there(version: int) -> None:
    wanted = role(version, False)
    route = LocalRoute(DUMMY, VIP[version], KERNEL_LOCAL_TABLE)
    rule = next(fact for fact in wanted.present if isinstance(fact, WireRule))
    remove, add = host_diff(wanted, (wanted.present - {rule}) | {route})
    assert (remove, add) == ((), (rule,))
    assert host_diff(wanted, wanted.present | {route}) == ((route,), ())


@FAMILIES
def test_a_masquerading_follower_needs_nothing(version: int) -> None:
    assert role(version, False, Forwarding.MASQUERADE).present == frozenset()


def test_a_router_keeps_its_default_route_from_advertisements() -> None:
    _, add = host_diff(role(6, True, Forwarding.MASQUERADE), frozenset())
    names = [fact.name for fact in add if isinstance(fact, Sysctl)]
    assert names.index("net.ipv6.conf.eth0.accept_ra") < names.index("net.ipv6.conf.all.forwarding")


def test_an_interface_with_a_dot_has_a_slash_in_sysctl_names() -> None:
    names = {
        fact.name for fact in role(4, False, link="eth0.7").present if isinstance(fact, Sysctl)
    }
    assert "net.ipv4.conf.eth0/7.rp_filter" in names


def test_what_one_virtual_server_needs_stays_though_another_does_not() -> None:
    both = combined((role(4, True), role(4, False, Forwarding.MASQUERADE)))
    assert role(4, True).present <= both.present
    assert not both.present & both.absent


def test_nothing_is_wanted_where_the_host_is_left_to_others() -> None:
    assert role(4, True, manage=False) == HostState()


def test_an_address_of_the_other_family_is_our_own_mistake() -> None:
    server = VirtualServerSpec("api", VIP[6], Port(6443), ETH0, NodeName("n1"), ())
    with pytest.raises(InvariantError):
        host_state(Spec(NodeName("n1"), None, (server,)), server, True, OWN[4])


def test_facts_read_like_the_commands_that_make_them() -> None:
    assert describe_fact(LinkAddress(ETH0, VIP[4])) == "address 10.0.1.10/32 dev eth0"
    assert describe_fact(LocalRoute(ETH0, VIP[4], 255, OWN[4])) == (
        "route local 10.0.1.10 dev eth0 src 10.0.1.16 table local"
    )
    assert describe_fact(LocalRoute(DUMMY, VIP[6], ROUTE_TABLE)) == (
        "route local fd00::10 dev dummy-revip table 30313"
    )
    assert describe_fact(WireRule(ETH0, VIP[4], 6, Port(6443))) == (
        "rule iif eth0 to 10.0.1.10 ipproto tcp dport 6443 lookup 30313"
    )
    assert describe_fact(WireRule(ETH0, VIP[6], 58, None)) == (
        "rule iif eth0 to fd00::10 ipproto icmpv6 lookup 30313"
    )
    assert describe_fact(Snat(VIP[6], Port(6443))) == (
        "masquerade what IPVS forwards for [fd00::10]:6443"
    )


@given(st.data())
def test_whatever_holds_two_passes_settle_it(data: st.DataObject) -> None:
    version = data.draw(st.sampled_from((4, 6)))
    method, directing = data.draw(st.sampled_from(ROLES))
    wanted = role(version, directing, method)
    facts = sorted(wanted.present | wanted.absent, key=describe_fact)
    kernel = Kernel(*data.draw(st.sets(st.sampled_from(facts))))
    assert kernel.settle(wanted) <= 2
    assert kernel.held == set(wanted.present)


def untracked(state: HostState, version: int) -> set[Untracked]:
    found = {fact for fact in state.present if isinstance(fact, Untracked)}
    assert all(fact.address == VIP[version] for fact in found)
    return found


@FAMILIES
def test_a_follower_leaves_untracked_what_it_has_sent_itself_a_director_everything(
    version: int,
) -> None:
    own = Untracked(ETH0, VIP[version], Port(6443), OWN[version])
    everybody = Untracked(ETH0, VIP[version], Port(6443))
    assert untracked(role(version, False), version) == {own}
    assert untracked(role(version, True), version) == {own, everybody}
    assert untracked(role(version, True, Forwarding.MASQUERADE), version) == set()


@FAMILIES
def test_nobody_waits_for_the_packet_filter(version: int) -> None:
    _, add = host_diff(role(version, True), frozenset())
    assert isinstance(add[-1], Untracked)
    remove, _ = host_diff(undone(role(version, True)), role(version, True).present)
    assert isinstance(remove[-1], Untracked)


@FAMILIES
@pytest.mark.parametrize("directing", [True, False])
def test_forwarded_segments_are_not_tied_to_sockets(version: int, directing: bool) -> None:
    fact = Sysctl("net.ipv4.tcp_early_demux", "0", optional=True)
    assert fact in role(version, directing).present
    assert fact in role(version, directing, Forwarding.MASQUERADE).absent


def test_sources_are_bound_to_the_interface_only_where_the_nodes_address_is_on_it() -> None:
    name = "net.ipv6.conf.eth0.use_oif_addrs_only"
    fact = Sysctl(name, "1", optional=True)
    assert fact in role(6, False).present
    server = VirtualServerSpec(
        "api", VIP[6], Port(6443), ETH0, NodeName("n1"), (), forwarding=Forwarding.DIRECT
    )
    given = host_state(Spec(NodeName("n1"), OWN[6], (server,)), server, False, OWN[6])
    assert fact not in given.present | given.absent
