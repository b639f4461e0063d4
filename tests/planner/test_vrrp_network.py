"""What nodes that speak VRRP do about each other, over random histories of faults."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revip.model.vrrp import (
    PriorityChanged,
    active_down,
    skew,
)
from tests.planner.vrrp_world import World, stormy

worlds = (st.integers(0, 2**32), st.integers(1, 5))
thorough = settings(max_examples=80, deadline=None)


@pytest.mark.slow
@thorough
@given(*worlds)
def test_a_calm_world_soon_has_one_active_and_then_nothing_changes(seed: int, nodes: int) -> None:
    world = stormy(seed, nodes)
    begun = world.time
    world.run(begun + world.bound)
    assert world.acting(), "somebody acts within the bound"
    for one, other in combinations(world.nodes, 2):
        assert world.together(one, other, begun) <= world.window
    # The longest way to rest: a preemption after its delay, by each node in turn.
    world.run(begun + (nodes + 1) * (world.bound + 500))
    assert len(world.acting()) == 1
    changes = [len(node.acting) for node in world.nodes]
    world.run(world.time + 15_000)
    assert [len(node.acting) for node in world.nodes] == changes, "a calm world does not flap"
    best = max(world.nodes, key=lambda node: node.state.priority)
    preempting = [n for n in world.nodes if n.state.priority == best.state.priority]
    if all(node.router.preempt for node in preempting):
        assert world.acting()[0].state.priority == best.state.priority


@pytest.mark.slow
@thorough
@given(*worlds)
def test_two_who_hear_each_other_do_not_both_act_for_long(seed: int, nodes: int) -> None:
    """No loss and no cuts, but crashes, freezes, stops and changes of priority."""
    world = World(seed, nodes)
    for node in world.nodes:
        world.at(world.dice.randrange(3000), lambda node=node: world.start(node))  # type: ignore[misc]
    for _ in range(8):
        node, when = world.dice.choice(world.nodes), world.dice.randrange(12_000)
        lasts = world.dice.choice([50, 250, 900, 3000])
        match world.dice.choice(["crash", "stop", "freeze", "priority"]):
            case "crash" | "stop" as kind:
                end = world.crash if kind == "crash" else world.stop
                world.at(when, lambda node=node, end=end: end(node))  # type: ignore[misc]
                world.at(when + lasts, lambda node=node: world.start(node))  # type: ignore[misc]
            case "freeze":
                world.at(when, lambda node=node: world.freeze(node))  # type: ignore[misc]
                world.at(when + lasts, lambda node=node: world.thaw(node))  # type: ignore[misc]
            case _:
                told = PriorityChanged(world.dice.choice([1, 30, 100, 200]), "health")
                world.at(when, lambda node=node, told=told: world.tell(node, told))  # type: ignore[misc]
    world.run(20_000)
    for one, other in combinations(world.nodes, 2):
        assert world.together(one, other, 0) <= world.window


@pytest.mark.slow
@thorough
@given(*worlds, st.integers(0, 3000), st.sampled_from([1.0, 0.0]))
def test_who_was_frozen_for_long_is_silent_until_it_has_listened(
    seed: int, nodes: int, phase: int, loss: float
) -> None:
    """With `loss` 1 it finds an empty socket, as after a paused virtual machine."""
    world = World(seed, nodes)
    for node in world.nodes:
        world.start(node)
    world.run(10_000 + phase)
    sleepers = world.nodes[: 1 + nodes // 2]
    for node in sleepers:
        world.freeze(node)
    frozen = active_down(0, world.interval) + 2 * world.interval
    woken = world.time + frozen
    world.loss = loss
    world.run(woken)
    for node in sleepers:
        world.thaw(node)
    world.run(woken + 15_000)
    for node in sleepers:
        quiet = node.router.silence
        assert not [at for at, _ in node.said if woken <= at < woken + quiet]
        assert not [at for at, acts in node.acting if acts and woken <= at < woken + quiet]


@pytest.mark.slow
@thorough
@given(st.integers(0, 2**32), st.integers(2, 5))
def test_without_preempt_the_first_stays(seed: int, nodes: int) -> None:
    world = World(seed, nodes, uniform=True)
    for node in world.nodes:
        node.router = replace(node.router, preempt=False)
    first, *others = world.dice.sample(world.nodes, nodes)
    world.start(first)
    world.run(2 * world.bound)
    for node in others:
        world.at(world.time + world.dice.randrange(2000), lambda node=node: world.start(node))  # type: ignore[misc]
    world.run(world.time + 20_000)
    assert world.acting() == [first]
    assert len(first.acting) == 1
    # When it leaves of its own accord another follows within the slowest skew: unless its
    # farewell overtakes an advert, hence after the last has arrived.
    world.run(max(world.time, first.said[-1][0] + world.delay))
    world.stop(first)
    left = world.time
    world.run(left + skew(1, world.interval) + 2 * world.delay + 1)
    assert world.acting(), "priority 0 hands over at once"
