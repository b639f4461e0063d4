"""How fit a node is to direct, by what it knows of the servers."""

from __future__ import annotations

from revip.agent.fitness import ALONE, UNWELL, fitness
from revip.model.health import BackendName
from revip.model.spec import VrrpSpec
from tests.planner.test_node import INCIDENT, REFUSED, World
from tests.planner.test_node_election import elected

VRRP = VrrpSpec(vrid=51, priority=150)
OWN = INCIDENT[0].address


def world(*dead: str) -> World:
    told = World(elected())
    told.run(1_000)
    for name in dead:
        told.crash(name)
    told.run(5_000)
    return told


def deserved(told: World) -> int:
    return fitness(VRRP, told.node.services["api"], OWN, waits=False)[0]


def test_a_node_whose_servers_are_well_has_its_whole_priority() -> None:
    assert deserved(world()) == 150


def test_a_dead_neighbor_lowers_nothing() -> None:
    assert deserved(world("n2")) == 150


def test_a_node_whose_own_server_is_dead_gives_way() -> None:
    assert deserved(world("n1")) == 150 - UNWELL


def test_a_node_that_reaches_no_server_but_its_own_may_be_cut_off_and_gives_way() -> None:
    told = world("n2", "n3")
    assert deserved(told) == 150 - ALONE
    told.answers[BackendName("n2")] = told.answers[BackendName("n1")]
    told.run(30_000)
    assert deserved(told) == 150


def test_where_the_others_are_dead_indeed_the_living_one_directs() -> None:
    alone, dead = world("n2", "n3"), world("n1", "n3")
    assert deserved(alone) > deserved(dead)


def test_a_cause_that_all_share_lowers_nothing() -> None:
    told = world("n1", "n2", "n3")
    assert told.answers[BackendName("n1")] is REFUSED
    assert deserved(told) == 150


def test_the_only_server_there_is_makes_nobody_alone() -> None:
    told = World(elected(backends=INCIDENT[:1]))
    told.run(1_000)
    assert deserved(told) == 150
