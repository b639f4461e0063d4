"""What an election means for the table: who leads fills it, who ceases leaves it until it parts."""

from __future__ import annotations

from dataclasses import replace

from revip.model.ipvs import AddServer, Port
from revip.model.notes import Kind
from revip.model.spec import Spec, VrrpSpec
from tests.planner.test_node import ALL_IN, World, spec

VRRP = VrrpSpec(vrid=51)


def elected(**changes: object) -> Spec:
    return spec(owner=None, vrrp=VRRP, **changes)  # type: ignore[arg-type]


def led(leading: bool, world: World, reason: str = "nobody else is active") -> None:
    world.perform(world.node.elect("api", leading, reason, world.now))


def director() -> World:
    world = World(elected())
    world.run(1_000)
    led(True, world)
    return world


def test_nobody_directs_before_the_election_has_spoken() -> None:
    world = World(elected())
    world.run(2_000)
    assert world.kernel == {}
    assert Kind.LEADERSHIP not in world.kinds()


def test_the_elected_one_has_its_whole_table_at_once_and_says_why() -> None:
    world = World(elected())
    world.run(1_000)
    before = world.now
    led(True, world)
    assert world.weights == ALL_IN
    assert world.now == before
    assert isinstance(world.applied[0].changes[0], AddServer)
    (note,) = (note for note in world.notes if note.kind is Kind.LEADERSHIP)
    assert note.text == "this node directs: nobody else is active"


def test_a_backend_that_died_before_the_claim_is_not_in_the_first_table() -> None:
    world = World(elected())
    world.run(1_000)
    world.crash("n2")
    world.run(1_000)
    led(True, world)
    assert world.weights == {"10.0.1.16": 1, "10.0.1.20": 1}


def test_who_ceases_to_lead_keeps_the_table_until_it_parts() -> None:
    world = director()
    led(False, world, "10.0.1.19 is active")
    world.run(5_000)
    assert world.weights == ALL_IN
    world.perform(world.node.part(world.now))
    assert world.kernel == {}


def test_the_table_that_lingers_is_nobodys_to_change() -> None:
    world = director()
    led(False, world)
    applied = len(world.applied)
    world.crash("n2")
    world.run(5_000)
    assert world.weights == ALL_IN
    world.kernel = {}
    world.run(5_000)
    assert world.kernel == {}, "and what another took away is not put back"
    assert len(world.applied) == applied


def test_who_leads_again_before_it_parts_goes_on_with_its_table() -> None:
    world = director()
    led(False, world)
    world.run(300)
    applied = len(world.applied)
    led(True, world, "10.0.1.19 gives up")
    world.perform(world.node.part(world.now))
    world.run(2_000)
    assert world.weights == ALL_IN
    assert len(world.applied) == applied


def test_what_lingered_is_mended_as_soon_as_this_node_leads_again() -> None:
    world = director()
    led(False, world)
    world.crash("n2")
    world.run(1_000)
    led(True, world)
    assert world.weights == {"10.0.1.16": 1, "10.0.1.20": 1}


def test_to_part_twice_or_without_having_led_is_nothing() -> None:
    world = director()
    led(False, world)
    world.perform(world.node.part(world.now))
    applied = len(world.applied)
    assert world.node.part(world.now) == []
    assert len(world.applied) == applied


def test_the_same_word_twice_is_told_once() -> None:
    world = director()
    assert world.node.elect("api", True, "again", world.now) == []
    led(False, world)
    assert world.node.elect("api", False, "again", world.now) == []
    assert world.kinds().count(Kind.LEADERSHIP) == 2


def test_an_unknown_virtual_server_and_one_with_an_owner_are_not_elected() -> None:
    world = World(spec(owner="n2"))
    world.run(1_000)
    assert world.node.elect("api", True, "a claim", world.now) == []
    assert world.node.elect("web", True, "a claim", world.now) == []
    world.run(1_000)
    assert world.kernel == {}


def test_a_table_that_a_dead_agent_left_is_taken_away_by_a_start_without_leadership() -> None:
    left = director().kernel
    world = World(elected(), left)
    world.run(2_000)
    assert world.kernel == {}


def test_another_health_timing_does_not_end_the_leadership() -> None:
    world = director()
    server = elected().virtual_servers[0]
    slower = replace(server, health=replace(server.health, rise=3))
    world.perform(
        world.node.configure(replace(world.node.spec, virtual_servers=(slower,)), world.now)
    )
    world.run(1_000)
    assert world.node.services["api"].directing
    assert world.weights == ALL_IN


def test_another_group_is_another_election() -> None:
    world = director()
    server = replace(elected().virtual_servers[0], vrrp=VrrpSpec(vrid=52))
    changed = replace(world.node.spec, virtual_servers=(server,))
    world.perform(world.node.configure(changed, world.now, linger=True))
    assert not world.node.services["api"].directing
    world.run(5_000)
    assert world.weights == ALL_IN, "it lingers as after a lost election"
    world.perform(world.node.part(world.now))
    assert world.kernel == {}


def test_a_paused_node_fills_no_table_though_it_is_elected() -> None:
    world = World(elected())
    world.run(1_000)
    world.perform(world.node.pause(True, world.now))
    led(True, world)
    world.run(2_000)
    assert world.kernel == {}
    world.perform(world.node.pause(False, world.now))
    assert world.weights == ALL_IN


def test_a_clean_stop_takes_what_lingers_as_well() -> None:
    world = director()
    led(False, world)
    world.perform(world.node.withdraw())
    assert world.kernel == {}


def test_an_election_is_about_one_virtual_server() -> None:
    first = elected().virtual_servers[0]
    second = replace(first, name="web", port=Port(443))
    world = World(replace(elected(), virtual_servers=(first, second)))
    world.run(1_000)
    led(True, world)
    assert set(world.kernel) == {first.key}
