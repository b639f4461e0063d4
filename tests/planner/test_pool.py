"""The pool policy: who is in the table, with which weight, and why."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from revip.model.health import Backend, BackendName, Finding, Health, ProbeResult, Verdict
from revip.model.instants import Instant
from revip.model.ipvs import Destination, Forwarding, Port, ServiceKey
from revip.model.spec import LinkName, NodeName, VirtualServerSpec
from revip.planner.pool import (
    Member,
    Pool,
    PoolMode,
    common_cause,
    drain_refusal,
    pool,
    virtual_server,
)

NOW = Instant(1_000_000)
OURS = ProbeResult(Finding.OURS, "no route to host", stage="connect")
FAILED = ProbeResult(Finding.FAILED, "no answer", stage="http")
READY = ProbeResult(Finding.READY, "HTTP 200")

HEALTHY, DRAINING = Verdict.HEALTHY, Verdict.DRAINING
UNHEALTHY, UNKNOWN = Verdict.UNHEALTHY, Verdict.UNKNOWN

NOTHING: frozenset[Destination] = frozenset()


def backend(number: int, weight: int = 10) -> Backend:
    return Backend(BackendName(f"n{number}"), IPv4Address(f"10.0.1.{number}"), Port(6443), weight)


def spec(**changes: object) -> VirtualServerSpec:
    values: dict[str, object] = {
        "name": "kube",
        "address": IPv4Address("10.0.1.10"),
        "port": Port(6443),
        "interface": LinkName("eth0"),
        "owner": NodeName("n1"),
        "backends": (),
    }
    return VirtualServerSpec(**{**values, **changes})  # type: ignore[arg-type]


def member(
    number: int,
    verdict: Verdict,
    *,
    drained: bool = False,
    drained_since: Instant | None = None,
    last: ProbeResult | None = None,
    ago: int = 0,
    held: Instant | None = None,
) -> Member:
    health = Health(
        verdict, Instant(NOW - ago), f"reason {number}", last=last, held_back_until=held
    )
    return Member(backend(number), health, drained, drained_since)


def found(**weights: int) -> frozenset[Destination]:
    """What the kernel has, `n1=10` for 10.0.1.1 with weight 10."""
    return frozenset(
        Destination(IPv4Address(f"10.0.1.{name[1:]}"), Port(6443), weight)
        for name, weight in weights.items()
    )


def decide(
    *members: Member, observed: frozenset[Destination] = NOTHING, **changes: object
) -> tuple[PoolMode, dict[str, int]]:
    """Return the mode, and weights by backend name."""
    decided = pool(spec(**changes), members, observed, NOW)
    assert decided.reason
    assert all(decided.reasons[each.backend.name] for each in members)
    return decided.mode, weights(decided)


def weights(decided: Pool) -> dict[str, int]:
    return {f"n{str(d.address).split('.')[-1]}": d.weight for d in decided.destinations}


# Normal ---------------------------------------------------------------------------------------


def test_healthy_backends_get_their_weight_draining_ones_none_dead_ones_are_out() -> None:
    mode, table = decide(member(1, HEALTHY), member(2, DRAINING), member(3, UNHEALTHY))
    assert (mode, table) == (PoolMode.NORMAL, {"n1": 10, "n2": 0})


def test_a_destination_has_the_port_of_its_backend_and_the_forwarding_asked_for() -> None:
    decided = pool(spec(forwarding=Forwarding.MASQUERADE), [member(1, HEALTHY)], NOTHING, NOW)
    assert decided.destinations == {
        Destination(IPv4Address("10.0.1.1"), Port(6443), 10, Forwarding.MASQUERADE)
    }


def test_every_place_has_its_reason() -> None:
    members = [
        member(1, HEALTHY),
        member(2, DRAINING),
        member(3, UNHEALTHY),
        member(4, HEALTHY, drained=True),
        member(5, UNKNOWN),
    ]
    decided = pool(spec(), members, NOTHING, NOW)
    assert decided.reason == "1 of 5 healthy, 1 needed"
    assert decided.reasons == {
        "n1": "healthy: reason 1",
        "n2": "draining, weight 0: reason 2",
        "n3": "unhealthy, out: reason 3",
        "n4": "weight 0: drained by the operator",
        "n5": "not in the table and left out: unknown (reason 5)",
    }


def test_a_backend_no_longer_known_is_dropped() -> None:
    assert decide(member(1, HEALTHY), observed=found(n1=10, n9=10))[1] == {"n1": 10}
    assert decide(member(1, UNKNOWN), observed=found(n9=10))[1] == {}


def test_with_no_backend_known_the_pool_is_empty() -> None:
    assert decide(observed=found(n1=10)) == (PoolMode.EMPTY, {})


def test_the_virtual_server_is_the_spec_with_the_destinations_decided() -> None:
    decided = pool(spec(), [member(1, HEALTHY)], NOTHING, NOW)
    server = virtual_server(spec(), decided)
    assert server.key == ServiceKey(IPv4Address("10.0.1.10"), Port(6443))
    assert (server.scheduler, server.flags) == ("mh", spec().flags)
    assert server.destinations == decided.destinations


# Draining -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ago", "deadline", "table"),
    [
        (599, 600, {"n1": 10, "n2": 0}),
        (600, 600, {"n1": 10}),
        (999_999, 0, {"n1": 10, "n2": 0}),
    ],
)
def test_a_draining_backend_is_taken_out_at_its_deadline(
    ago: int, deadline: int, table: dict[str, int]
) -> None:
    members = member(1, HEALTHY), member(2, DRAINING, ago=ago)
    assert decide(*members, drain_deadline=deadline)[1] == table


def test_an_operators_drain_lasts_until_its_own_deadline_if_it_has_one() -> None:
    old = Instant(NOW - 600)
    for_ever = member(2, HEALTHY, drained=True, ago=9999)
    dated = member(3, HEALTHY, drained=True, drained_since=old)
    assert decide(member(1, HEALTHY), for_ever, dated, drain_deadline=600)[1] == {
        "n1": 10,
        "n2": 0,
    }


def test_a_drained_backend_that_dies_is_out() -> None:
    assert decide(member(1, HEALTHY), member(2, UNHEALTHY, drained=True))[1] == {"n1": 10}


@pytest.mark.parametrize(("observed", "weight"), [({}, None), ({"n2": 10}, 0), ({"n2": 0}, 0)])
def test_a_drained_backend_not_judged_yet_gets_no_new_connections(
    observed: dict[str, int], weight: int | None
) -> None:
    members = member(1, HEALTHY), member(2, UNKNOWN, drained=True)
    assert decide(*members, observed=found(**observed))[1].get("n2") == weight


# Starting -------------------------------------------------------------------------------------


def test_a_start_with_an_empty_table_leaves_it_empty_until_the_first_verdict() -> None:
    assert decide(member(1, UNKNOWN), member(2, UNKNOWN)) == (PoolMode.STARTING, {})
    assert decide(member(1, HEALTHY), member(2, UNKNOWN)) == (PoolMode.NORMAL, {"n1": 10})


def test_a_restart_adopts_the_table_as_it_is_with_the_weights_configured() -> None:
    members = [member(number, UNKNOWN) for number in (1, 2, 3)]
    assert decide(*members, observed=found(n1=1, n2=0)) == (
        PoolMode.STARTING,
        {"n1": 10, "n2": 0},
    )


def test_a_restart_in_panic_takes_nobody_out_before_all_verdicts_are_in() -> None:
    members = member(1, UNHEALTHY), member(2, DRAINING), member(3, UNKNOWN, last=FAILED)
    everyone = {"n1": 10, "n2": 10, "n3": 10}
    assert decide(*members, observed=found(**everyone)) == (PoolMode.STARTING, everyone)


def test_one_healthy_backend_is_in_at_once_though_more_are_needed() -> None:
    members = member(1, HEALTHY), member(2, UNKNOWN), member(3, UNHEALTHY)
    assert decide(*members, observed=found(n2=5, n3=5), panic_threshold=2) == (
        PoolMode.STARTING,
        {"n1": 10, "n2": 10},
    )


def test_a_fault_of_ours_keeps_the_table_that_is_there() -> None:
    members = member(1, UNKNOWN, last=OURS), member(2, UNKNOWN, last=OURS)
    assert decide(*members, observed=found(n1=10)) == (PoolMode.STARTING, {"n1": 10})


def test_a_fault_of_ours_does_not_keep_dead_backends_in() -> None:
    members = member(1, UNKNOWN, last=OURS), member(2, UNHEALTHY)
    assert decide(*members, observed=found(n1=10, n2=10)) == (PoolMode.STARTING, {"n1": 10})


@pytest.mark.parametrize("observed", [{}, {"n1": 0}, {"n2": 10}])
def test_a_fault_of_ours_does_not_keep_the_pool_empty_for_ever(observed: dict[str, int]) -> None:
    members = member(1, UNKNOWN, last=OURS), member(2, UNHEALTHY)
    assert decide(*members, observed=found(**observed)) == (PoolMode.PANIC, {"n1": 10, "n2": 10})


# Panic ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", [UNHEALTHY, DRAINING])
def test_with_nobody_healthy_all_known_backends_are_in(verdict: Verdict) -> None:
    members = member(1, verdict, ago=999_999), member(2, UNHEALTHY), member(3, DRAINING)
    everyone = {"n1": 10, "n2": 10, "n3": 10}
    assert decide(*members, drain_deadline=1) == (PoolMode.PANIC, everyone)


def test_panic_takes_the_drained_ones_too_and_says_so() -> None:
    members = [member(1, UNHEALTHY, drained=True), member(2, UNHEALTHY)]
    decided = pool(spec(), members, NOTHING, NOW)
    assert weights(decided) == {"n1": 10, "n2": 10}
    assert decided.reason == "0 of 2 healthy, 1 needed: all known backends are in"
    assert decided.reasons[BackendName("n1")] == (
        "panic, in although drained by the operator, unhealthy (reason 1)"
    )


@pytest.mark.parametrize(
    ("threshold", "mode"), [(0, PoolMode.NORMAL), (1, PoolMode.NORMAL), (2, PoolMode.PANIC)]
)
def test_panic_begins_below_its_threshold(threshold: int, mode: PoolMode) -> None:
    members = member(1, HEALTHY), member(2, UNHEALTHY), member(3, UNHEALTHY)
    decided, table = decide(*members, panic_threshold=threshold)
    assert decided is mode
    assert len(table) == (1 if mode is PoolMode.NORMAL else 3)


def test_a_threshold_of_zero_does_not_empty_the_pool() -> None:
    assert decide(member(1, UNHEALTHY), panic_threshold=0) == (PoolMode.PANIC, {"n1": 10})


def test_all_known_backends_being_healthy_is_no_panic_however_few_they_are() -> None:
    assert decide(member(1, HEALTHY), panic_threshold=3)[0] is PoolMode.NORMAL


def test_a_drain_is_overridden_before_the_dead_are_called_back() -> None:
    members = [member(1, HEALTHY, drained=True), member(2, UNHEALTHY), member(3, DRAINING)]
    decided = pool(spec(), members, NOTHING, NOW)
    assert (decided.mode, weights(decided)) == (PoolMode.PANIC, {"n1": 10, "n3": 0})
    assert (
        decided.reasons[BackendName("n1")] == "panic, drain overridden: too few others are healthy"
    )


def test_a_hold_of_the_damping_is_overridden_before_the_dead_are_called_back() -> None:
    members = [
        member(1, UNHEALTHY, held=Instant(NOW + 5000)),
        member(2, UNHEALTHY),
        member(3, HEALTHY),
    ]
    decided = pool(spec(panic_threshold=2), members, NOTHING, NOW)
    assert (decided.mode, weights(decided)) == (PoolMode.PANIC, {"n1": 10, "n3": 10})
    assert (
        decided.reasons[BackendName("n1")]
        == "panic, held back no longer: too few others are healthy"
    )


# The operator's drain -------------------------------------------------------------------------


def test_a_drain_is_fine_while_another_backend_is_healthy() -> None:
    members = [member(1, HEALTHY), member(2, HEALTHY)]
    assert drain_refusal(members, BackendName("n1")) is None


def test_a_drain_that_would_leave_nothing_is_refused_with_the_state_of_the_others() -> None:
    members = [member(1, HEALTHY), member(2, UNHEALTHY), member(3, HEALTHY, drained=True)]
    assert drain_refusal(members, BackendName("n1")) == (
        "without n1 only 0 healthy of the 1 needed would be left: n2 is unhealthy (reason 2); "
        "n3 is drained by the operator, healthy (reason 3)"
    )
    assert drain_refusal(members[:1], BackendName("n1")) == (
        "without n1 only 0 healthy of the 1 needed would be left: it is the only one"
    )


def test_a_drain_that_would_fall_below_the_threshold_is_refused() -> None:
    members = [member(1, HEALTHY), member(2, HEALTHY)]
    assert drain_refusal(members, BackendName("n1"), panic_threshold=2) is not None


def test_a_drain_of_a_stranger_names_the_backends_there_are() -> None:
    assert drain_refusal([member(2, HEALTHY), member(1, HEALTHY)], BackendName("x")) == (
        "no backend is called x; known are: n1, n2"
    )
    assert drain_refusal([], BackendName("x")) == "no backend is called x; known are: none"


# A common cause -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finding", "stage", "suspect"),
    [
        (Finding.DENIED, "", "credential"),
        (Finding.NOT_READY, "", "etcd"),
        (Finding.OURS, "connect", "our side"),
        (Finding.REFUSED, "connect", "wrong port"),
        (Finding.FAILED, "tls", "CA"),
        (Finding.FAILED, "connect", "network"),
        (Finding.FAILED, "http", "common cause"),
    ],
)
def test_backends_that_all_fail_alike_are_suspected_of_a_common_cause(
    finding: Finding, stage: str, suspect: str
) -> None:
    last = ProbeResult(finding, "reason", stage=stage)
    said = common_cause([member(1, UNHEALTHY, last=last), member(2, UNHEALTHY, last=last)])
    assert said is not None
    assert said.startswith("all 2 backends fail alike (reason): ")
    assert suspect in said


@pytest.mark.parametrize(
    "lasts", [[FAILED], [FAILED, READY], [READY, READY], [None, None], [FAILED, OURS], []]
)
def test_what_is_not_common_is_not_called_so(lasts: list[ProbeResult | None]) -> None:
    members = [member(number, UNKNOWN, last=last) for number, last in enumerate(lasts, 1)]
    assert common_cause(members) is None


def test_nobody_is_taken_out_while_all_the_healthy_ones_have_just_failed_too() -> None:
    members = member(1, HEALTHY, last=FAILED), member(2, UNHEALTHY, last=FAILED)
    full = found(n1=10, n2=10)
    assert decide(*members, observed=full) == (PoolMode.NORMAL, {"n1": 10, "n2": 10})
    assert "kept until another" in pool(spec(), members, full, NOW).reasons[BackendName("n2")]


def test_one_that_is_well_is_reason_enough_to_take_a_dead_one_out() -> None:
    members = member(1, HEALTHY, last=FAILED), member(2, UNHEALTHY, last=FAILED)
    well = member(3, HEALTHY, last=READY)
    everyone = found(n1=10, n2=10, n3=10)
    assert decide(*members, well, observed=everyone) == (PoolMode.NORMAL, {"n1": 10, "n3": 10})


def test_what_is_out_stays_out_while_the_others_are_in_doubt() -> None:
    members = member(1, HEALTHY, last=FAILED), member(2, UNHEALTHY, last=FAILED)
    assert decide(*members, observed=found(n1=10)) == (PoolMode.NORMAL, {"n1": 10})


def test_one_that_panic_let_in_stays_when_it_answers_well() -> None:
    members = member(1, HEALTHY, last=READY), member(2, UNHEALTHY, last=READY)
    assert decide(*members, observed=found(n1=10, n2=10))[1] == {"n1": 10, "n2": 10}
    assert decide(*members)[1] == {"n1": 10}
