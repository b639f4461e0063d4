"""The node as a specification: what it asks for after each event, on a model of the kernel."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from revip.errors import KernelError
from revip.model.health import Backend, BackendName, Finding, ProbeResult, Verdict
from revip.model.instants import Instant, Span, later
from revip.model.ipvs import (
    AddServer,
    DeleteDestination,
    Destination,
    Observation,
    Port,
    ServiceKey,
    Table,
    VirtualServer,
    table,
)
from revip.model.notes import Kind, Note
from revip.model.record import Record
from revip.model.spec import LinkName, NodeName, Spec, VirtualServerSpec
from revip.planner.actions import Action, Apply, Reconcile
from revip.planner.diff import patched
from revip.planner.health import ConnectionLost, ProbeFinished
from revip.planner.node import ALERT_INTERVAL, NOTHING_RECORDED, Node
from revip.planner.pool import PoolMode
from revip.planner.service import Ask

VIP = ServiceKey(ip_address("10.0.1.10"), Port(6443))
READY = ProbeResult(Finding.READY, "HTTP 200")
REFUSED = ProbeResult(Finding.REFUSED, "connection refused", stage="connect")
UNREADY = ProbeResult(Finding.NOT_READY, "HTTP 500", stage="http")


def backend(name: str, last: int) -> Backend:
    return Backend(BackendName(name), ip_address(f"10.0.1.{last}"), Port(6443))


INCIDENT = (backend("n1", 16), backend("n2", 19), backend("n3", 20))


def spec(owner: str = "n1", **changes: object) -> Spec:
    server = VirtualServerSpec(
        "api", VIP.address, VIP.port, LinkName("eth0"), NodeName(owner), INCIDENT
    )
    return Spec(NodeName("n1"), None, (replace(server, **changes),))  # type: ignore[arg-type]


class World:
    """A node, a kernel table that does what it is told, and backends with an answer each."""

    def __init__(
        self, spec: Spec, kernel: Table | None = None, record: Record = NOTHING_RECORDED
    ) -> None:
        self.now = Instant(1_000)
        self.kernel: Table = dict(kernel or {})
        self.answers = {one.name: READY for one in INCIDENT}
        self.refuses: KernelError | None = None
        self.notes: list[Note] = []
        self.applied: list[Apply] = []
        self.node, first = Node.begin(spec, self.now, record)
        self.perform(first)

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Ask(service, name):
                    event = ProbeFinished(self.answers[name])
                    self.perform(self.node.judge(service, name, event, self.now))
                case Reconcile(keys):
                    if self.refuses:
                        self.perform(self.node.fail(self.refuses, self.now))
                    else:
                        self.perform(self.node.observe(Observation(self.kernel), keys, self.now))
                case Apply(changes):
                    self.applied.append(action)
                    self.kernel = patched(self.kernel, changes)
                    self.perform(self.node.confirm(action, self.now))
                case Note():
                    self.notes.append(action)

    def run(self, span: int) -> None:
        end = later(self.now, Span(span))
        while self.node.next_wakeup() <= end:
            self.now = max(self.now, self.node.next_wakeup())
            self.perform(self.node.wake(self.now))
        self.now = end

    def crash(self, name: str) -> None:
        self.answers[BackendName(name)] = REFUSED
        lost = ConnectionLost("connection reset")
        self.perform(self.node.judge("api", BackendName(name), lost, self.now))

    @property
    def weights(self) -> dict[str, int]:
        seen = self.kernel.get(VIP)
        return {str(d.address): d.weight for d in (seen.destinations if seen else ())}

    def kinds(self) -> list[Kind]:
        return [note.kind for note in self.notes]


ALL_IN = {"10.0.1.16": 1, "10.0.1.19": 1, "10.0.1.20": 1}


def test_the_director_fills_the_table_with_what_answers() -> None:
    world = World(spec())
    world.run(100)
    assert world.weights == ALL_IN


def test_a_follower_has_no_virtual_server_but_knows_what_it_would_be() -> None:
    world = World(spec(owner="n2"))
    world.run(2_000)
    assert world.kernel == {}
    assert all(
        entry.state.health.verdict is Verdict.HEALTHY
        for entry in world.node.services["api"].entries.values()
    )


def test_a_crashed_backend_leaves_at_once_and_a_recovered_one_returns() -> None:
    world = World(spec())
    world.run(2_000)
    world.crash("n2")
    world.run(20)
    assert world.weights == {"10.0.1.16": 1, "10.0.1.20": 1}
    world.run(60_000)
    world.answers[BackendName("n2")] = READY
    world.run(1_000)
    assert world.weights == ALL_IN


def test_an_unready_backend_drains_at_weight_zero() -> None:
    world = World(spec())
    world.run(1_000)
    world.answers[BackendName("n3")] = UNREADY
    world.run(1_500)
    assert world.weights == {**ALL_IN, "10.0.1.20": 0}


def test_with_nobody_healthy_all_stay_in() -> None:
    world = World(spec())
    world.run(1_000)
    for name in ("n1", "n2", "n3"):
        world.crash(name)
    world.run(3_000)
    assert world.weights == ALL_IN
    assert world.node.services["api"].pool is not None
    assert world.node.services["api"].pool.mode is PoolMode.PANIC
    assert Kind.MODE in world.kinds()


@pytest.mark.parametrize("damage", ["flush", "entry", "weight", "stranger", "scheduler"])
def test_whatever_is_done_to_the_table_is_undone_and_noted(damage: str) -> None:
    world = World(spec())
    world.run(1_000)
    server = world.kernel[VIP]
    some = next(iter(server.destinations))
    stranger = Destination(ip_address("10.9.9.9"), Port(6443), 1)
    broken: dict[str, Table] = {
        "flush": {},
        "entry": table([replace(server, destinations=server.destinations - {some})]),
        "weight": table(
            [replace(server, destinations=server.destinations - {some} | {replace(some, weight=7)})]
        ),
        "stranger": table([replace(server, destinations=server.destinations | {stranger})]),
        "scheduler": table([replace(server, scheduler="rr", flags=frozenset())]),
    }
    world.kernel = broken[damage]
    world.run(600)
    assert world.kernel == {VIP: server}
    assert world.kinds().count(Kind.DRIFT) == 1
    assert world.node.drift.by_kind.total() >= 1


def test_our_own_changes_are_not_taken_for_drift() -> None:
    world = World(spec())
    world.run(1_000)
    world.crash("n2")
    world.run(30_000)
    assert Kind.DRIFT not in world.kinds()


def test_a_fight_is_named_and_outlasted() -> None:
    world = World(spec())
    world.run(1_000)
    for _ in range(6):
        world.kernel = {}
        world.run(500)
    assert world.weights == ALL_IN
    assert world.kinds().count(Kind.FIGHT) == 1
    world.kernel = {}
    world.run(ALERT_INTERVAL)
    assert world.weights == ALL_IN, "repaired faster while the fight goes on"
    world.run(120_000)
    assert not world.node.drift.fighting


def test_foreign_virtual_servers_are_left_alone() -> None:
    foreign = VirtualServer(ServiceKey(ip_address("10.96.0.1"), Port(443)), "rr")
    world = World(spec(), table([foreign]))
    world.run(5_000)
    assert world.kernel[foreign.key] == foreign


def test_an_existing_table_is_adopted_without_a_change() -> None:
    first = World(spec())
    first.run(1_000)
    second = World(spec(), first.kernel)
    second.run(5_000)
    assert second.applied == []


def test_a_refused_write_is_tried_again_and_changes_no_verdict() -> None:
    world = World(spec())
    world.run(1_000)
    world.refuses = KernelError(105, "add destination", "no buffer space")
    world.crash("n2")
    world.run(5_000)
    assert world.weights == ALL_IN
    assert world.kinds().count(Kind.KERNEL_FAILED) == 1
    assert world.node.services["api"].entries[BackendName("n2")].state.health.verdict is (
        Verdict.UNHEALTHY
    )
    world.refuses = None
    world.run(6_000)
    assert world.weights == {"10.0.1.16": 1, "10.0.1.20": 1}
    assert Kind.KERNEL_BACK in world.kinds()


def test_paused_it_observes_and_touches_nothing() -> None:
    world = World(spec())
    world.run(1_000)
    world.perform(world.node.pause(True, world.now))
    world.kernel = {}
    world.run(5_000)
    assert world.kernel == {}
    assert any(isinstance(change, AddServer) for change in world.node.plan().changes)
    world.perform(world.node.pause(False, world.now))
    assert world.weights == ALL_IN


def test_the_operator_drains_and_enables() -> None:
    world = World(spec())
    world.run(1_000)
    world.perform(world.node.drain("api", BackendName("n3"), True, world.now))
    assert world.weights == {**ALL_IN, "10.0.1.20": 0}
    world.perform(world.node.drain("api", BackendName("n3"), False, world.now))
    assert world.weights == ALL_IN


def test_a_reload_that_changes_nothing_touches_nothing() -> None:
    world = World(spec())
    world.run(1_000)
    before = len(world.applied)
    world.perform(world.node.configure(spec(), world.now))
    world.run(5_000)
    assert len(world.applied) == before


def test_a_backend_taken_from_the_configuration_leaves_the_others_alone() -> None:
    world = World(spec())
    world.run(1_000)
    world.perform(world.node.configure(spec(backends=INCIDENT[:2]), world.now))
    assert world.weights == {"10.0.1.16": 1, "10.0.1.19": 1}
    (change,) = world.applied[-1].changes
    assert isinstance(change, DeleteDestination)


def test_a_changed_vip_takes_the_old_one_away_and_keeps_the_verdicts() -> None:
    world = World(spec())
    world.run(1_000)
    moved = ip_address("10.0.1.11")
    world.perform(world.node.configure(spec(address=moved), world.now))
    (key,) = world.kernel
    assert key.address == moved
    assert len(world.kernel[key].destinations) == 3


def test_virtual_servers_of_an_earlier_run_are_removed() -> None:
    old = VirtualServer(ServiceKey(ip_address("10.0.1.99"), Port(6443)))
    world = World(spec())
    world.node.retired.add(old.key)
    world.kernel = {**world.kernel, old.key: old}
    world.run(1_000)
    assert old.key not in world.kernel


def test_withdrawal_takes_only_ours() -> None:
    foreign = VirtualServer(ServiceKey(ip_address("10.96.0.1"), Port(443)), "rr")
    world = World(spec(), table([foreign]))
    world.run(1_000)
    world.perform(world.node.withdraw())
    assert world.kernel == table([foreign])


def test_it_is_never_woken_early_or_in_a_storm() -> None:
    world = World(spec())
    wakeups = 0
    end = world.now + 60_000
    while world.now < end:
        at = world.node.next_wakeup()
        assert at >= world.now
        world.now = Instant(at)
        world.perform(world.node.wake(world.now))
        assert world.node.next_wakeup() > world.now
        wakeups += 1
    assert wakeups < 60 * (3 * 3 + 2) * 1.2


def test_a_drain_outlives_the_agent() -> None:
    first = World(spec())
    first.run(1_000)
    first.perform(first.node.drain("api", BackendName("n3"), True, first.now))
    assert first.weights == {**ALL_IN, "10.0.1.20": 0}
    second = World(spec(), first.kernel, first.node.record)
    second.run(5_000)
    assert second.weights == {**ALL_IN, "10.0.1.20": 0}
    assert second.applied == []


def test_an_idle_node_wakes_once_a_period_for_all_that_is_due() -> None:
    world = World(spec())
    world.run(5_000)
    wakes, end = 0, world.now + 10_000
    while world.node.next_wakeup() <= end:
        world.now = world.node.next_wakeup()
        world.perform(world.node.wake(world.now))
        wakes += 1
    period = spec().reconcile_interval
    assert wakes <= 10_000 / period + 2, "three probes and the comparison share a wake-up"
