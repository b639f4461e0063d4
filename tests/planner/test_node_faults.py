"""What an operator fears: faults that starve, flood, forget, or empty a table nobody meant to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from revip.errors import KernelError
from revip.model.health import (
    ROUTE,
    Backend,
    BackendName,
    Finding,
    HealthTiming,
    ProbeResult,
    Verdict,
)
from revip.model.instants import MINUTE, Span
from revip.model.ipvs import (
    Change,
    DeleteServer,
    Destination,
    Port,
    ServiceKey,
    Table,
    VirtualServer,
    table,
)
from revip.model.notes import Kind, Level
from revip.model.spec import LinkName, NodeName, Spec, VirtualServerSpec
from revip.planner.actions import Action, Apply
from revip.planner.diff import key_of, patched
from revip.planner.pool import PoolMode
from tests.planner.test_node import ALL_IN, INCIDENT, READY, REFUSED, VIP, World, backend, spec

OTHER = ServiceKey(ip_address("10.0.1.11"), Port(6443))
NO_ROOM = KernelError(12, "add destination", "no memory")
FULL = frozenset(Destination(one.address, one.port, one.weight) for one in INCIDENT)


def two_servers(first_scheduler: str = "mh") -> Spec:
    one = spec()
    (server,) = one.virtual_servers
    other = replace(server, name="other", address=OTHER.address)
    return replace(
        one, virtual_servers=(replace(server, scheduler=first_scheduler, flags=frozenset()), other)
    )


def discovered(**changes: Any) -> Spec:
    """A configuration whose backends are in a file."""
    return spec(backends=(), backends_file=Path("/etc/revip/backends.yaml"), **changes)


class Refusing(World):
    """A kernel that reads well and refuses some writes."""

    def __init__(self, spec: Spec, kernel: Table | None = None) -> None:
        self.refused: Callable[[Change], bool] = lambda _: False
        self.attempts = 0
        super().__init__(spec, kernel)

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Apply) and any(map(self.refused, action.changes)):
                self.attempts += 1
                for change in action.changes:
                    if self.refused(change):
                        break
                    self.kernel = patched(self.kernel, (change,))
                self.perform(self.node.fail(NO_ROOM, self.now, action))
            else:
                super().perform([action])

    def weights_of(self, key: ServiceKey) -> dict[str, int]:
        seen = self.kernel.get(key)
        return {str(d.address): d.weight for d in (seen.destinations if seen else ())}


# --- a kernel that refuses -----------------------------------------------------------------------


def test_a_server_that_the_kernel_refuses_starves_no_other() -> None:
    world = Refusing(two_servers())
    world.refused = lambda change: key_of(change) == VIP
    world.run(1_000)
    assert world.weights_of(OTHER) == ALL_IN
    world.answers[BackendName("n2")] = REFUSED
    world.run(2_000)
    assert world.weights_of(OTHER) == {"10.0.1.16": 1, "10.0.1.20": 1}
    world.answers[BackendName("n2")] = READY
    world.run(2_000)
    assert world.weights_of(OTHER) == ALL_IN
    world.refused = lambda _: False
    world.run(6_000)
    assert world.weights_of(VIP) == ALL_IN


def test_a_refused_write_is_said_once_and_tried_ever_less_often() -> None:
    world = Refusing(spec())
    world.refused = lambda _: True
    world.run(10 * MINUTE)
    assert world.kinds().count(Kind.KERNEL_FAILED) == 1
    assert Kind.KERNEL_BACK not in world.kinds()
    assert 110 <= world.attempts <= 150, "every 5 s in the end"
    assert world.node.failure == NO_ROOM
    world.refused = lambda _: False
    world.run(6_000)
    assert world.weights == ALL_IN
    assert world.kinds().count(Kind.KERNEL_BACK) == 1
    assert world.node.failure is None


def test_backoff_starts_again_after_a_success() -> None:
    world = Refusing(spec())
    world.refused = lambda _: True
    world.run(MINUTE)
    world.refused = lambda _: False
    world.run(6_000)
    world.refused = lambda _: True
    world.answers[BackendName("n2")] = REFUSED
    world.run(1_000)
    world.refused = lambda _: False
    world.run(900)
    assert "10.0.1.19" not in world.weights


def test_a_retired_server_that_cannot_be_deleted_is_not_forgotten() -> None:
    world = Refusing(spec())
    world.run(1_000)
    world.refused = lambda change: isinstance(change, DeleteServer)
    world.perform(world.node.configure(spec(address=OTHER.address), world.now))
    world.run(20_000)
    assert set(world.kernel) == {VIP, OTHER}
    world.refused = lambda _: False
    world.run(6_000)
    assert set(world.kernel) == {OTHER}


# --- discovery that has not spoken yet -----------------------------------------------------------


def adopted() -> Table:
    world = World(spec())
    world.run(1_000)
    return world.kernel


def test_a_restart_before_discovery_has_spoken_leaves_the_table_alone() -> None:
    world = World(discovered(), adopted())
    world.run(60_000)
    assert world.weights == ALL_IN
    assert world.applied == []
    assert not [note for note in world.notes if note.level is Level.ERROR]
    world.perform(world.node.discover("api", INCIDENT, world.now))
    world.run(1_000)
    assert world.weights == ALL_IN
    assert world.applied == []


def test_an_empty_list_that_is_meant_empties_the_table() -> None:
    world = World(discovered(), adopted())
    world.run(1_000)
    world.perform(world.node.discover("api", (), world.now))
    assert world.weights == {}
    assert world.node.services["api"].pool is not None
    assert world.node.services["api"].pool.mode is PoolMode.EMPTY


def test_a_reload_with_other_timing_keeps_the_discovered_backends() -> None:
    world = World(discovered())
    world.perform(world.node.discover("api", INCIDENT, world.now))
    world.run(1_000)
    before = len(world.applied)
    changed = discovered(health=HealthTiming(interval=Span(500)))
    world.perform(world.node.configure(changed, world.now))
    world.run(5_000)
    assert world.weights == ALL_IN
    assert len(world.applied) == before


# --- what the operator wished --------------------------------------------------------------------


@pytest.mark.parametrize(
    "change", [{"health": HealthTiming(interval=Span(500))}, {"scheduler": "rr"}]
)
def test_a_drained_backend_stays_drained_over_a_reload(change: dict[str, Any]) -> None:
    world = World(spec())
    world.run(1_000)
    world.perform(world.node.drain("api", BackendName("n3"), True, world.now))
    world.perform(world.node.configure(spec(flags=frozenset(), **change), world.now))
    world.run(5_000)
    assert world.weights == {**ALL_IN, "10.0.1.20": 0}


def test_paused_over_a_reload_it_touches_nothing_until_resumed() -> None:
    world = World(spec())
    world.run(1_000)
    world.perform(world.node.pause(True, world.now))
    world.perform(world.node.configure(spec(backends=INCIDENT[:2]), world.now))
    world.run(5_000)
    assert world.weights == ALL_IN
    world.perform(world.node.pause(False, world.now))
    assert world.weights == {"10.0.1.16": 1, "10.0.1.19": 1}


# --- floods --------------------------------------------------------------------------------------


def test_a_fight_without_end_does_not_flood_the_log() -> None:
    world = World(spec())
    world.run(1_000)
    for _ in range(20 * 60 * 10):
        world.kernel = {}
        world.run(50)
    assert world.weights == ALL_IN
    assert len(world.notes) < 60, "ten minutes, ten thousand repairs"
    assert world.node.drift.by_kind["server-deleted"] > 10_000
    assert world.kinds().count(Kind.FIGHT) >= 9, "but somebody is told that it goes on"


def test_after_a_fight_single_disturbances_are_told_again() -> None:
    world = World(spec())
    world.run(1_000)
    for _ in range(40):
        world.kernel = {}
        world.run(500)
    world.run(3 * MINUTE)
    assert not world.node.drift.fighting
    seen = world.kinds().count(Kind.DRIFT)
    world.kernel = {}
    world.run(1_000)
    assert world.kinds().count(Kind.DRIFT) == seen + 1


def test_own_changes_during_a_fight_are_still_told() -> None:
    world = World(spec())
    world.run(1_000)
    for _ in range(60):
        world.kernel = {}
        world.run(50)
    world.crash("n2")
    world.run(100)
    assert any(
        note.kind is Kind.TABLE and "delete 10.0.1.19" in note.text for note in world.notes[-3:]
    )


def test_a_common_cause_with_a_changing_text_does_not_flood_the_log() -> None:
    world = World(spec())
    world.run(1_000)
    for number in range(600):
        failed = ProbeResult(Finding.NOT_READY, f"HTTP 500: request {number}", stage="")
        world.answers = {one.name: failed for one in INCIDENT}
        world.run(500)
    assert world.kinds().count(Kind.COMMON_CAUSE) <= 6


def test_a_cause_that_comes_and_goes_does_not_flood_the_log() -> None:
    world = World(spec())
    world.run(1_000)
    unready = ProbeResult(Finding.NOT_READY, "HTTP 500", stage="")
    for number in range(600):
        other = unready if number % 2 else REFUSED
        world.answers = {one.name: unready for one in INCIDENT}
        world.answers[BackendName("n1")] = other
        world.run(500)
    assert world.kinds().count(Kind.COMMON_CAUSE) <= 6


def test_wakeups_do_not_pile_up() -> None:
    world = World(spec(health=HealthTiming(interval=Span(3_600_000))))
    world.run(1_000)
    for _ in range(2_000):
        world.crash("n2")
        world.answers[BackendName("n2")] = READY
        world.run(200)
    assert len(world.node._alarms) < 100


# --- faults of ours ------------------------------------------------------------------------------


def test_a_backend_that_cannot_be_asked_is_told_once() -> None:
    world = World(spec())
    world.run(1_000)
    ours = ProbeResult(Finding.OURS, "no free file descriptor (EMFILE)", stage="connect")
    world.answers[BackendName("n2")] = ours
    world.run(10 * MINUTE)
    told = [note for note in world.notes if note.backend == "n2" and "EMFILE" in note.text]
    assert len(told) == 1
    assert world.weights == ALL_IN
    world.answers[BackendName("n2")] = REFUSED
    world.run(5_000)
    assert world.weights == {"10.0.1.16": 1, "10.0.1.20": 1}


# --- names and addresses -------------------------------------------------------------------------


def test_a_renumbered_backend_is_judged_anew() -> None:
    world = World(spec())
    world.run(1_000)
    moved = replace(INCIDENT[1], address=ip_address("10.0.1.77"))
    world.answers[BackendName("n2")] = REFUSED
    world.perform(world.node.discover("api", (INCIDENT[0], moved, INCIDENT[2]), world.now))
    world.run(5_000)
    assert world.weights == {"10.0.1.16": 1, "10.0.1.20": 1}
    world.answers[BackendName("n2")] = READY
    world.run(5_000)
    assert world.weights == {"10.0.1.16": 1, "10.0.1.20": 1, "10.0.1.77": 1}


def test_renamed_backends_stay_in_the_table() -> None:
    world = World(spec())
    world.run(1_000)
    before = len(world.applied)
    renamed = tuple(replace(one, name=BackendName(f"cp{one.name}")) for one in INCIDENT)
    world.answers = {one.name: READY for one in renamed}
    world.perform(world.node.configure(spec(backends=renamed), world.now))
    world.run(5_000)
    assert world.weights == ALL_IN
    assert len(world.applied) == before


def test_a_backend_of_changed_weight_keeps_its_verdict() -> None:
    world = World(spec())
    world.run(1_000)
    heavy = replace(INCIDENT[1], weight=7)
    world.perform(world.node.discover("api", (INCIDENT[0], heavy, INCIDENT[2]), world.now))
    assert world.weights == {**ALL_IN, "10.0.1.19": 7}


def test_a_flood_of_reloads_changes_nothing() -> None:
    world = World(spec())
    world.run(1_000)
    before = len(world.applied)
    for number in range(200):
        world.perform(
            world.node.configure(
                spec(health=HealthTiming(interval=Span(400 + number % 7))), world.now
            )
        )
        world.run(20)
    world.run(2_000)
    assert world.weights == ALL_IN
    assert len(world.applied) == before
    assert all(
        entry.state.health.verdict is Verdict.HEALTHY
        for entry in world.node.services["api"].entries.values()
    )


def test_ownership_that_comes_by_reload_fills_the_table_and_goes_by_reload() -> None:
    world = World(spec(owner="n2"))
    world.run(1_000)
    assert world.kernel == {}
    world.perform(world.node.configure(spec(owner="n1"), world.now))
    assert world.weights == ALL_IN
    world.perform(world.node.configure(spec(owner="n2"), world.now))
    world.run(1_000)
    assert world.kernel == {}


def test_a_misspelt_owner_changes_nothing_in_the_kernel() -> None:
    world = World(spec(owner="nl"))
    world.run(5_000)
    assert world.kernel == {}
    assert world.applied == []


def test_after_a_suspend_it_goes_on_at_once() -> None:
    world = World(spec())
    world.run(1_000)
    world.crash("n2")
    world.answers[BackendName("n2")] = READY
    world.now += 8 * 60 * MINUTE  # type: ignore[assignment]
    world.perform(world.node.wake(world.now))
    world.run(1_000)
    assert world.weights == ALL_IN


def test_a_threshold_above_one_keeps_everybody_and_lets_the_dead_go_after() -> None:
    world = World(spec(panic_threshold=2))
    world.run(1_000)
    for name in ("n1", "n2"):
        world.crash(name)
    world.run(5_000)
    assert world.weights == ALL_IN
    world.answers[BackendName("n1")] = READY
    world.run(5_000)
    assert world.weights == {"10.0.1.16": 1, "10.0.1.20": 1}


def test_an_ipv6_pool_heals_alike() -> None:
    def six(name: str, last: int) -> Backend:
        return Backend(BackendName(name), ip_address(f"fd00::{last}"), Port(6443))

    backends = (six("n1", 1), six("n2", 2), six("n3", 3))
    server = VirtualServerSpec(
        "api", ip_address("fd00::100"), Port(6443), LinkName("eth0"), NodeName("n1"), backends
    )
    world = World(Spec(NodeName("n1"), None, (server,)))
    world.run(1_000)
    world.crash("n2")
    world.run(2_000)
    (held,) = world.kernel.values()
    assert {str(d.address) for d in held.destinations} == {"fd00::1", "fd00::3"}
    world.answers[BackendName("n2")] = READY
    world.run(3_000)
    (held,) = world.kernel.values()
    assert len(held.destinations) == 3


def test_a_stranger_in_the_backends_place_is_put_right() -> None:
    world = World(spec())
    world.run(1_000)
    world.kernel = table([VirtualServer(VIP, "rr", destinations=FULL)])
    world.run(1_000)
    assert world.kernel[VIP].scheduler == "mh"
    assert backend("n1", 16) in INCIDENT


NO_WAY = ProbeResult(Finding.OURS, "no route from this host (ENETUNREACH)", stage=ROUTE)


def test_a_backend_that_alone_cannot_be_reached_from_here_is_taken_out_and_returns() -> None:
    world = World(spec())
    world.run(1_000)
    world.answers[BackendName("n2")] = NO_WAY
    world.run(5_000)
    assert world.weights == {"10.0.1.16": 1, "10.0.1.20": 1}
    verdicts = [note.text for note in world.notes if note.kind is Kind.VERDICT]
    assert "while others are reached" in verdicts[-1]
    world.answers[BackendName("n2")] = READY
    world.run(2_000)
    assert world.weights == ALL_IN


def test_no_way_to_any_backend_says_nothing_about_them() -> None:
    world = World(spec())
    world.run(1_000)
    for name in world.answers:
        world.answers[name] = NO_WAY
    world.run(20_000)
    assert world.weights == ALL_IN
    assert {
        entry.state.health.verdict for entry in world.node.services["api"].entries.values()
    } == {Verdict.HEALTHY}
