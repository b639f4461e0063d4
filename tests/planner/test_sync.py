"""The sync daemons by role: who tells, who listens, and when IPVS is off meanwhile."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from itertools import permutations

import pytest

from revip.model.host import HostState, Sysctl
from revip.model.ipvs import Forwarding, Port
from revip.model.spec import LinkName, NodeName, Spec, VirtualServerSpec, VrrpSpec
from revip.model.sync import SYNC_GROUP, SYNC_GROUP6, SyncDaemon, SyncRole
from revip.planner.host import combined, host_diff, undone
from revip.planner.sync import sync_state


def elected(address: str = "10.0.1.10", vrid: int = 51, link: str = "eth0") -> VirtualServerSpec:
    return VirtualServerSpec(
        name=f"vip-{address}",
        address=ip_address(address),
        port=Port(6443),
        interface=LinkName(link),
        owner=None,
        backends=(),
        vrrp=VrrpSpec(vrid),
    )


def spec(*servers: VirtualServerSpec, **changes: object) -> Spec:
    return replace(Spec(NodeName("n1"), None, servers), **changes)  # type: ignore[arg-type]


ONE = elected()
TWO = elected("10.0.1.11", 52)
STATIC = replace(elected("10.0.1.12"), owner=NodeName("n1"), vrrp=None)


def state(wanted: Spec, *directed: VirtualServerSpec, strangers: bool = False) -> HostState:
    keys = {server.key for server in directed}
    return sync_state(wanted, keys, keys, strangers=strangers)


def roles(of: HostState) -> set[str]:
    return {fact.role.name for fact in of.present if isinstance(fact, SyncDaemon)}


def sysctl(of: HostState, name: str) -> str:
    (value,) = (
        fact.value
        for fact in of.present
        if isinstance(fact, Sysctl) and fact.name == f"net.ipv4.vs.{name}"
    )
    return value


@pytest.mark.parametrize(
    ("servers", "directed", "running", "backup_only"),
    [
        ((ONE,), (), {"BACKUP"}, "1"),
        ((ONE,), (ONE,), {"MASTER"}, "0"),
        ((ONE, TWO), (TWO,), {"MASTER", "BACKUP"}, "0"),
        ((ONE, STATIC), (STATIC,), {"BACKUP"}, "0"),
    ],
    ids=["follower", "director", "director-of-one-of-two", "director-by-configuration"],
)
def test_a_director_tells_a_follower_listens_and_only_a_follower_has_ipvs_off(
    servers: tuple[VirtualServerSpec, ...],
    directed: tuple[VirtualServerSpec, ...],
    running: set[str],
    backup_only: str,
) -> None:
    wanted = state(spec(*servers), *directed)
    assert roles(wanted) == running
    assert sysctl(wanted, "backup_only") == backup_only


def test_who_has_given_the_address_away_goes_on_with_the_table_and_listens_already() -> None:
    wanted = sync_state(spec(ONE), frozenset(), {ONE.key}, strangers=False)
    assert roles(wanted) == {"MASTER", "BACKUP"}
    assert sysctl(wanted, "backup_only") == "0"


def test_other_peoples_virtual_servers_go_on_beside_a_follower() -> None:
    assert sysctl(state(spec(ONE), strangers=True), "backup_only") == "0"


def test_each_connection_is_told_and_told_again() -> None:
    assert sysctl(state(spec(ONE)), "sync_threshold") == "0 0"
    assert sysctl(state(spec(ONE)), "sync_refresh_period") == "5"
    assert sysctl(state(spec(ONE, elected("fd00::10"))), "sync_refresh_period") == "2"


@pytest.mark.parametrize(
    "wanted",
    [
        spec(STATIC),
        spec(ONE, sync=False),
        spec(ONE, manage_host=False),
        spec(replace(ONE, forwarding=Forwarding.MASQUERADE)),
    ],
    ids=["static", "off", "host-of-others", "masquerade"],
)
def test_without_use_for_it_nothing_runs(wanted: Spec) -> None:
    assert state(wanted, STATIC).present == frozenset()


def test_all_nodes_agree_on_number_link_and_group_whatever_the_order_of_the_file() -> None:
    servers = (elected("fd00::10", 9, "eth1"), elected("10.0.1.10", 9, "eth0"), elected(vrid=77))
    found = {
        fact
        for order in permutations(servers)
        for fact in state(spec(*order)).present
        if isinstance(fact, SyncDaemon)
    }
    assert found == {SyncDaemon(SyncRole.BACKUP, LinkName("eth0"), 9, SYNC_GROUP)}


def test_where_all_is_ipv6_so_is_the_multicast_and_the_number_can_be_chosen() -> None:
    (found,) = (
        fact
        for fact in state(spec(elected("fd00::10"), sync_id=200)).present
        if isinstance(fact, SyncDaemon)
    )
    assert (found.group, found.syncid) == (SYNC_GROUP6, 200)


def test_the_listener_is_stopped_before_the_address_is_taken() -> None:
    follower, leader = state(spec(ONE)), state(spec(ONE), ONE)
    remove, add = host_diff(combined((leader, undone(follower))), follower.present)
    assert [str(fact) for fact in remove] == [
        "sync daemon backup dev eth0 syncid 51 group 224.0.0.81"
    ]
    assert not [fact for fact in add if isinstance(fact, SyncDaemon) and fact in follower.present]


def test_a_sysctl_that_is_wanted_is_never_put_back_at_the_same_time() -> None:
    both = combined((state(spec(ONE), ONE), undone(state(spec(ONE)))))
    wanted = {fact.name for fact in both.present if isinstance(fact, Sysctl)}
    assert not wanted & {fact.name for fact in both.absent if isinstance(fact, Sysctl)}


def test_all_of_it_can_be_undone() -> None:
    former = state(spec(ONE), ONE).present | state(spec(ONE)).present
    assert former <= undone(combined((state(spec(ONE), ONE), state(spec(ONE))))).absent
