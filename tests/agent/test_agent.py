"""The real agent on a modelled outside: what it does, and what it outlives."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from revip.agent.commands import CannotError
from revip.errors import KernelError, Problem
from revip.model.discovery import BackendsRead, BackendsRefused
from revip.model.health import Backend, BackendName, Finding, HealthTiming, ProbeResult, Verdict
from revip.model.host import HostFact, LinkAddress
from revip.model.instants import Span
from revip.model.ipvs import AddServer, Change, Port, ServiceKey
from revip.model.notes import Kind
from revip.model.record import Record
from revip.model.spec import LinkName, NodeName, OnExit, Spec, VirtualServerSpec
from revip.planner.diff import key_of
from tests.agent.fakes import READY, REFUSED, Stage, play

VIP = ip_address("10.0.1.10")
BACKENDS = tuple(
    Backend(BackendName(name), ip_address(f"10.0.1.{last}"), Port(6443))
    for name, last in (("n1", 16), ("n2", 19), ("n3", 20))
)
N2 = BACKENDS[1].address
ALL_IN = {"10.0.1.16": 1, "10.0.1.19": 1, "10.0.1.20": 1}
WITHOUT_N2 = {"10.0.1.16": 1, "10.0.1.20": 1}
GONE = KernelError(2, "find IPVS", "the IPVS kernel module is not loaded")


def server(**changes: Any) -> VirtualServerSpec:
    plain = VirtualServerSpec("api", VIP, Port(6443), LinkName("eth0"), NodeName("n1"), BACKENDS)
    return replace(plain, **changes)


def spec(*servers: VirtualServerSpec, **changes: Any) -> Spec:
    return replace(Spec(NodeName("n1"), None, servers or (server(),)), **changes)


def played(
    story: Callable[..., Coroutine[Any, Any, None]],
) -> Callable[..., None]:
    """Make a test of a coroutine function: run it in virtual time."""

    @functools.wraps(story)
    def test(*arguments: Any, **named: Any) -> None:
        play(story(*arguments, **named))

    return test


# --- the ordinary life ---------------------------------------------------------------------------


@played
async def test_it_fills_the_table_and_then_takes_the_address() -> None:
    async with Stage(spec()) as stage:
        await stage.until(lambda: stage.host.addresses() == {"10.0.1.10"})
        table, address = "add TCP 10.0.1.10:6443", "give address 10.0.1.10/32 dev eth0"
        assert stage.order(table, address) == [table, address]
        await stage.until(lambda: stage.weights() == ALL_IN)


@played
async def test_the_address_is_taken_although_there_is_no_table() -> None:
    stage = Stage(spec())
    stage.kernel.down = GONE
    async with stage:
        took = await stage.until(lambda: stage.host.addresses() == {"10.0.1.10"})
        assert 2.9 < took < 3.5


@played
async def test_a_dead_backend_leaves_and_a_recovered_one_returns() -> None:
    async with Stage(spec()) as stage:
        await stage.until(lambda: stage.weights() == ALL_IN)
        for _ in range(3):
            stage.backends.answers[N2] = REFUSED
            await stage.until(lambda: stage.weights() == WITHOUT_N2, 1.0)
            del stage.backends.answers[N2]
            await stage.until(lambda: stage.weights() == ALL_IN, 1.0)


@played
async def test_a_lost_held_connection_is_asked_about_at_once() -> None:
    async with Stage(spec()) as stage:
        await stage.until(lambda: stage.weights() == ALL_IN)
        await stage.pass_by(1.0)
        probe = next(one for one in stage.backends.probes if one.backend.address == N2)
        stage.backends.answers[N2] = REFUSED
        probe.lost("reset")
        assert await stage.until(lambda: stage.weights() == WITHOUT_N2) < 0.02


@played
async def test_a_follower_prepares_its_host_and_has_no_table() -> None:
    async with Stage(spec(server(owner=NodeName("n2")))) as stage:
        await stage.until(lambda: stage.host.addresses("dummy-revip") == {"10.0.1.10"})
        await stage.pass_by(5.0)
        assert stage.host.addresses() == set()
        assert stage.kernel.table == {}


@played
async def test_a_stop_leaves_everything_by_default() -> None:
    stage = Stage(spec())
    async with stage:
        await stage.until(lambda: stage.host.addresses() == {"10.0.1.10"})
    assert stage.weights() == ALL_IN
    assert stage.host.addresses() == {"10.0.1.10"}
    assert all(probe.closed for probe in stage.backends.probes)


@played
async def test_a_stop_withdraws_when_told_to() -> None:
    stage = Stage(spec(on_exit=OnExit.WITHDRAW))
    async with stage:
        await stage.until(lambda: stage.host.addresses() == {"10.0.1.10"})
    assert stage.kernel.table == {}
    assert stage.host.addresses() == stage.host.addresses("dummy-revip") == set()


@played
async def test_a_stop_while_the_host_is_being_prepared_leaves_nothing_behind() -> None:
    stage = Stage(spec(on_exit=OnExit.WITHDRAW))

    def held_up(_: HostFact) -> None:
        if stage.host.applied == 3:
            stage.host.gate.clear()

    stage.host.refuses = held_up
    async with stage:
        await stage.until(lambda: stage.host.applied == 4)
        await stage.pass_by(1.0)
        stage.agent.stop()
        asyncio.get_running_loop().call_later(0.5, stage.host.gate.set)
    assert stage.host.addresses() == stage.host.addresses("dummy-revip") == set()
    assert stage.kernel.table == {}


@played
async def test_a_restart_adopts_what_is_there() -> None:
    first = Stage(spec())
    async with first:
        await first.until(lambda: first.host.addresses() == {"10.0.1.10"})
    second = Stage(spec(), first.ownership.record)
    second.kernel, second.host = first.kernel, first.host
    changes, facts = len(first.kernel.applied), first.host.applied
    async with second:
        await second.pass_by(20.0)
        assert second.weights() == ALL_IN
    assert (len(second.kernel.applied), second.host.applied) == (changes, facts)


@played
async def test_a_restart_with_another_address_takes_the_old_one_away() -> None:
    first = Stage(spec())
    async with first:
        await first.until(lambda: first.host.addresses() == {"10.0.1.10"})
    second = Stage(spec(server(address=ip_address("10.0.1.11"))), first.ownership.record)
    second.kernel, second.host = first.kernel, first.host
    async with second:
        await second.until(lambda: second.host.addresses() == {"10.0.1.11"})
        await second.until(lambda: second.host.addresses("dummy-revip") == {"10.0.1.11"})
        assert [str(key.address) for key in second.kernel.table] == ["10.0.1.11"]


# --- faults in probes ----------------------------------------------------------------------------


async def _bug() -> ProbeResult:
    raise LookupError("a bug")


async def _cancelled() -> ProbeResult:
    raise asyncio.CancelledError


async def _hung() -> ProbeResult:
    await asyncio.Event().wait()
    return READY


@pytest.mark.parametrize("fault", [_bug, _cancelled, _hung])
@played
async def test_a_probe_that_goes_wrong_ends_neither_agent_nor_asking(
    fault: Callable[[], Awaitable[ProbeResult]],
) -> None:
    async with Stage(spec()) as stage:
        await stage.until(lambda: stage.weights() == ALL_IN)
        stage.backends.answers[N2] = fault
        await stage.pass_by(30.0)
        assert stage.weights() == ALL_IN, "a fault of ours says nothing about the backend"
        assert len(stage.told(Kind.FAULT)) <= 4, "and is not said thirty times"
        stage.backends.answers[N2] = REFUSED
        await stage.until(lambda: stage.weights() == WITHOUT_N2, 10.0)
        stage.backends.answers[N2] = READY
        await stage.until(lambda: stage.weights() == ALL_IN, 10.0)


@played
async def test_an_answer_from_a_former_address_is_not_credited_to_the_new_one() -> None:
    stage = Stage(spec())
    moved = replace(BACKENDS[1], address=ip_address("10.0.1.77"))
    answered = asyncio.Event()

    async def late() -> ProbeResult:
        await answered.wait()
        return READY

    async with stage:
        await stage.until(lambda: stage.weights() == ALL_IN)
        stage.backends.answers[N2] = late
        await stage.pass_by(0.6)  # a probe of the old address is under way
        stage.backends.answers[moved.address] = REFUSED
        new = (BACKENDS[0], moved, BACKENDS[2])
        stage.agent.reconfigure(spec(server(backends=new)))
        await stage.pass_by(0.0005)  # one of the new address is, too
        answered.set()
        await stage.pass_by(5.0)
        assert stage.weights() == WITHOUT_N2
        assert stage.order("add 10.0.1.77") == []


@played
async def test_a_backend_taken_out_and_put_back_at_once_is_asked_on() -> None:
    async with Stage(spec()) as stage:
        await stage.until(lambda: stage.weights() == ALL_IN)
        for _ in range(50):
            stage.agent.reconfigure(spec(server(backends=BACKENDS[::2])))
            stage.agent.reconfigure(spec())
            await stage.pass_by(0.0005)
        await stage.until(lambda: stage.weights() == ALL_IN, 2.0)
        stage.backends.answers[N2] = REFUSED
        await stage.until(lambda: stage.weights() == WITHOUT_N2, 2.0)
        stage.backends.answers[N2] = READY
        await stage.until(lambda: stage.weights() == ALL_IN, 2.0)


@played
async def test_several_backends_leave_at_once_again_and_again() -> None:
    async with Stage(spec()) as stage:
        await stage.until(lambda: stage.weights() == ALL_IN)
        stage.agent.reconfigure(spec(server(backends=BACKENDS[:1])))
        stage.agent.reconfigure(spec(server(backends=BACKENDS[:1], scheduler="rr")))
        await stage.pass_by(1.0)
        assert stage.weights() == {"10.0.1.16": 1}


@played
async def test_a_probe_that_cannot_be_closed_is_let_go() -> None:
    async with Stage(spec()) as stage:
        await stage.until(lambda: stage.weights() == ALL_IN)
        stage.backends.close_fails = True
        stage.agent.reconfigure(spec(server(backends=BACKENDS[::2])))
        await stage.until(lambda: stage.weights() == WITHOUT_N2)
        await stage.pass_by(1.0)


@played
async def test_a_stall_of_ours_takes_no_backend_out() -> None:
    async with Stage(spec()) as stage:
        await stage.until(lambda: stage.weights() == ALL_IN)
        late = ProbeResult(Finding.FAILED, "no answer for 1000 ms", Span(9_000), "http")
        stage.backends.answers = {one.address: late for one in BACKENDS}
        await stage.pass_by(5.0)
        verdicts = {
            e.state.health.verdict for e in stage.agent.node.services["api"].entries.values()
        }
        assert verdicts == {Verdict.HEALTHY}


# --- faults in the kernel ------------------------------------------------------------------------


@played
async def test_without_the_kernel_module_it_waits_and_then_works() -> None:
    stage = Stage(spec())
    stage.kernel.down = GONE
    async with stage:
        await stage.pass_by(60.0)
        assert len(stage.told(Kind.KERNEL_FAILED)) == 1
        stage.kernel.down = None
        assert await stage.until(lambda: stage.weights() == ALL_IN) <= 5.1


@played
async def test_one_refused_virtual_server_starves_no_other() -> None:
    other = server(name="other", address=ip_address("10.0.1.11"))
    stage = Stage(spec(server(), other))
    key = server().key

    def refuses(change: Change) -> Exception | None:
        return KernelError(22, "add", "invalid argument") if key_of(change) == key else None

    stage.kernel.refuses = refuses
    async with stage:
        await stage.until(lambda: stage.weights("other") == ALL_IN)
        stage.backends.answers[N2] = REFUSED
        await stage.until(lambda: stage.weights("other") == WITHOUT_N2, 2.0)
        await stage.pass_by(60.0)
        assert len(stage.told(Kind.KERNEL_FAILED)) == 1
        assert stage.told(Kind.KERNEL_BACK) == []


@pytest.mark.parametrize("where", ["read", "write"])
@played
async def test_an_unforeseen_error_of_the_table_is_one_more_failure(where: str) -> None:
    stage = Stage(spec())
    bug = ArithmeticError("a bug")
    if where == "read":
        stage.kernel.down = bug
    else:
        stage.kernel.refuses = lambda change: bug if isinstance(change, AddServer) else None
    async with stage:
        await stage.pass_by(60.0)
        (told,) = stage.told(Kind.KERNEL_FAILED)
        assert "ArithmeticError: a bug" in told
        stage.kernel.down = None
        stage.kernel.refuses = lambda _: None
        await stage.until(lambda: stage.weights() == ALL_IN, 6.0)


@played
async def test_a_flushed_table_is_repaired_and_a_fight_names_culprits() -> None:
    async with Stage(spec()) as stage:
        await stage.until(lambda: stage.weights() == ALL_IN)
        for _ in range(10):
            stage.kernel.table = {}
            await stage.until(lambda: stage.weights() == ALL_IN, 0.6)
        assert any("ipvsadm (pid 7)" in text for text in stage.told(Kind.FIGHT))


@played
async def test_culprits_that_cannot_be_named_do_no_harm() -> None:
    def broken() -> tuple[str, ...]:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "a process with a strange name")

    stage = Stage(spec())
    stage.culprits = broken
    async with stage:
        await stage.until(lambda: stage.weights() == ALL_IN)
        for _ in range(10):
            stage.kernel.table = {}
            await stage.until(lambda: stage.weights() == ALL_IN, 0.6)
        assert any("keeps changing" in text for text in stage.told(Kind.FIGHT))


@played
async def test_a_full_disk_is_said_once_and_keeps_nothing_from_working() -> None:
    stage = Stage(spec())
    stage.ownership.full = True
    async with stage:
        await stage.until(lambda: stage.weights() == ALL_IN)
        await stage.pass_by(60.0)
        assert len(stage.told(Kind.FAULT)) == 1
        assert stage.command("status")["unrecorded"]
        stage.ownership.full = False
        await stage.until(lambda: stage.ownership.keys == {server().key}, 1.0)


# --- faults of the host --------------------------------------------------------------------------


@played
async def test_a_host_that_refuses_is_tried_until_it_does_not() -> None:
    stage = Stage(spec())
    stage.host.down = KernelError(19, "read addresses of eth0", "no interface eth0 on this host")
    async with stage:
        await stage.pass_by(60.0)
        assert stage.weights() == ALL_IN
        assert len(stage.told(Kind.HOST_FAILED)) == 1
        stage.host.down = None
        await stage.until(lambda: stage.host.addresses() == {"10.0.1.10"}, 5.1)
        assert len(stage.told(Kind.HOST_BACK)) == 1


@played
async def test_an_unforeseen_error_of_the_host_is_one_more_failure() -> None:
    stage = Stage(spec())
    stage.host.down = ArithmeticError("a bug")
    async with stage:
        await stage.pass_by(60.0)
        assert len(stage.told(Kind.HOST_FAILED)) == 1
        assert stage.told(Kind.FAULT) == []
        stage.host.down = None
        await stage.until(lambda: stage.host.addresses() == {"10.0.1.10"}, 5.1)


@played
async def test_a_virtual_server_without_its_interface_starves_no_other() -> None:
    other = server(name="other", address=ip_address("10.0.2.11"), interface=LinkName("eth9"))
    async with Stage(spec(other, server())) as stage:
        await stage.until(lambda: stage.host.addresses() == {"10.0.1.10"}, 10.0)
        assert len(stage.told(Kind.HOST_FAILED)) == 1
        stage.host.own[LinkName("eth9"), 4] = ip_address("10.0.2.16")
        await stage.until(lambda: stage.host.addresses("eth9") == {"10.0.2.11"}, 10.0)


@played
async def test_a_fact_that_the_kernel_refuses_starves_no_other_virtual_server() -> None:
    other = server(name="other", address=ip_address("10.0.1.9"))
    stage = Stage(spec(other, server()))

    def refuses(fact: HostFact) -> Exception | None:
        bad = isinstance(fact, LinkAddress) and str(fact.address) == "10.0.1.9"
        return KernelError(13, "add address", "permission denied") if bad else None

    stage.host.refuses = refuses
    async with stage:
        await stage.until(lambda: stage.host.addresses() == {"10.0.1.10"}, 10.0)
        stage.host.refuses = lambda _: None
        await stage.until(lambda: stage.host.addresses() == {"10.0.1.10", "10.0.1.9"}, 10.0)


@played
async def test_an_own_address_that_is_gone_for_a_while_withdraws_nothing() -> None:
    async with Stage(spec()) as stage:
        await stage.until(lambda: stage.host.addresses() == {"10.0.1.10"})
        await stage.pass_by(1.0)
        own = stage.host.own.pop((LinkName("eth0"), 4))
        for _ in range(100):
            await stage.pass_by(0.1)
            assert stage.host.addresses() == {"10.0.1.10"}
        stage.host.own[LinkName("eth0"), 4] = own
        await stage.pass_by(10.0)
        assert stage.told(Kind.HOST_BACK)


@played
async def test_an_address_that_somebody_takes_away_is_put_back() -> None:
    async with Stage(spec()) as stage:
        await stage.until(lambda: stage.host.addresses() == {"10.0.1.10"})
        await stage.pass_by(6.0)
        stage.host.take(LinkAddress(LinkName("eth0"), VIP))
        assert await stage.until(lambda: stage.host.addresses() == {"10.0.1.10"}) < 0.1
        await stage.pass_by(1.0)
        assert len(stage.told(Kind.HOST_DRIFT)) == 1


@played
async def test_a_fight_over_an_address_does_not_flood_the_log() -> None:
    async with Stage(spec()) as stage:
        await stage.until(lambda: stage.host.addresses() == {"10.0.1.10"})
        await stage.pass_by(6.0)
        address = LinkAddress(LinkName("eth0"), VIP)
        back = 0
        for _ in range(6_000):
            if address in stage.host.holds:
                back += 1
                stage.host.take(address)
            await stage.pass_by(0.1)
        assert back > 2_000, "it is put back every time"
        assert len(stage.told(Kind.HOST_DRIFT)) < 30


@played
async def test_a_fact_that_never_holds_makes_no_storm() -> None:
    stage = Stage(spec())
    give = stage.host.give
    never = LinkAddress(LinkName("eth0"), VIP)

    def forgetful(fact: HostFact) -> None:
        give(fact)
        if fact == never:
            stage.host.take(fact)

    stage.host.give = forgetful  # type: ignore[method-assign]
    async with stage:
        await stage.until(lambda: stage.weights() == ALL_IN)
        await stage.pass_by(10.0)
        before = stage.host.applied
        await stage.pass_by(60.0)
        assert stage.host.applied - before < 60 * 15
        assert len(stage.journal.history.events) < 60


# --- reloads -------------------------------------------------------------------------------------


@played
async def test_a_moved_address_is_moved_and_the_old_one_taken_away() -> None:
    async with Stage(spec()) as stage:
        await stage.until(lambda: stage.host.addresses() == {"10.0.1.10"})
        stage.agent.reconfigure(spec(server(address=ip_address("10.0.1.11"))))
        await stage.until(lambda: stage.host.addresses() == {"10.0.1.11"}, 5.0)
        await stage.until(lambda: stage.host.addresses("dummy-revip") == {"10.0.1.11"}, 5.0)
        assert [str(key.address) for key in stage.kernel.table] == ["10.0.1.11"]


@played
async def test_a_director_by_reload_has_its_table_before_its_address() -> None:
    follower = server(owner=NodeName("n2"))
    async with Stage(spec(follower)) as stage:
        await stage.until(lambda: stage.host.addresses("dummy-revip") == {"10.0.1.10"})
        stage.agent.reconfigure(spec())
        await stage.until(lambda: stage.host.addresses() == {"10.0.1.10"}, 0.1)
        table, address = "add 10.0.1.20:6443 weight 1", "give address 10.0.1.10/32 dev eth0"
        assert stage.order(table, address) == [table, address]


@played
async def test_a_former_director_by_reload_loses_its_address_before_its_table() -> None:
    async with Stage(spec()) as stage:
        await stage.until(lambda: stage.host.addresses() == {"10.0.1.10"})
        await stage.pass_by(1.0)
        stage.agent.reconfigure(spec(server(owner=NodeName("n2"))))
        await stage.until(lambda: stage.kernel.table == {}, 0.1)
        table, address = "delete TCP 10.0.1.10:6443", "take address 10.0.1.10/32 dev eth0"
        assert stage.order(table, address) == [address, table]


@played
async def test_a_former_director_whose_host_refuses_gives_its_table_up_all_the_same() -> None:
    async with Stage(spec()) as stage:
        await stage.until(lambda: stage.host.addresses() == {"10.0.1.10"})
        stage.host.down = KernelError(5, "read", "input/output error")
        stage.agent.reconfigure(spec(server(owner=NodeName("n2"))))
        await stage.until(lambda: stage.kernel.table == {}, 10.0)


@played
async def test_a_storm_of_reloads_changes_nothing() -> None:
    async with Stage(spec()) as stage:
        await stage.until(lambda: stage.host.addresses() == {"10.0.1.10"})
        await stage.pass_by(6.0)
        changes, facts = len(stage.kernel.applied), stage.host.applied
        for number in range(300):
            timing = HealthTiming(interval=Span(400 + number % 3))
            stage.agent.reconfigure(spec(server(health=timing)))
            await stage.pass_by(0.003)
        await stage.pass_by(10.0)
        assert stage.weights() == ALL_IN
        assert (len(stage.kernel.applied), stage.host.applied) == (changes, facts)


@played
async def test_a_refused_reload_is_said_and_the_old_goes_on() -> None:
    async with Stage(spec()) as stage:
        stage.reload_says = "revip.yaml:3: port: is no port"
        with pytest.raises(CannotError, match="is no port"):
            stage.command("reload")
        await stage.until(lambda: stage.weights() == ALL_IN)


# --- discovery -----------------------------------------------------------------------------------


FILE = server(backends=(), backends_file=Path("/etc/revip/backends.yaml"))


@played
async def test_discovery_is_followed() -> None:
    async with Stage(spec(FILE)) as stage:
        await stage.until(lambda: "api" in stage.sources)
        stage.sources["api"].say(BackendsRead(BACKENDS))
        await stage.until(lambda: stage.weights() == ALL_IN)
        stage.sources["api"].say(BackendsRead(BACKENDS[::2]))
        await stage.until(lambda: stage.weights() == WITHOUT_N2)
        refused = BackendsRefused((Problem("b.yaml", "", "", "does not exist"),), missing=True)
        stage.sources["api"].say(refused)
        await stage.until(lambda: stage.told(Kind.DISCOVERY_FAILED))
        assert stage.weights() == WITHOUT_N2


@played
async def test_a_restart_with_its_backends_file_missing_leaves_the_table_alone() -> None:
    first = Stage(spec())
    async with first:
        await first.until(lambda: first.weights() == ALL_IN)
    second = Stage(spec(FILE), first.ownership.record)
    second.kernel, second.host = first.kernel, first.host
    async with second:
        await second.pass_by(30.0)
        assert second.weights() == ALL_IN


@played
async def test_discovery_that_breaks_is_started_again_and_said_seldom() -> None:
    async with Stage(spec(FILE)) as stage:
        await stage.until(lambda: "api" in stage.sources)
        for _ in range(50):
            stage.sources["api"].say(OSError("a bug"))
        await stage.pass_by(600.0)
        assert len(stage.told(Kind.FAULT)) < 10
        stage.sources["api"].say(BackendsRead(BACKENDS))
        await stage.until(lambda: stage.weights() == ALL_IN)


# --- commands ------------------------------------------------------------------------------------


@played
async def test_the_operator_drains_enables_and_may_not_empty_the_pool() -> None:
    async with Stage(spec()) as stage:
        await stage.until(lambda: stage.weights() == ALL_IN)
        stage.command("drain", backend="n2")
        await stage.until(lambda: stage.weights() == {**ALL_IN, "10.0.1.19": 0}, 0.1)
        stage.command("enable", backend="10.0.1.19")
        await stage.until(lambda: stage.weights() == ALL_IN, 0.1)
        with pytest.raises(CannotError, match="is not a backend"):
            stage.command("drain", backend="n9")
        stage.command("drain", backend="n1")
        stage.command("drain", backend="n2")
        with pytest.raises(CannotError, match="--force"):
            stage.command("drain", backend="n3")


@played
async def test_paused_it_plans_and_touches_nothing() -> None:
    async with Stage(spec()) as stage:
        await stage.until(lambda: stage.host.addresses() == {"10.0.1.10"})
        await stage.pass_by(1.0)
        stage.command("pause")
        stage.kernel.table = {}
        stage.host.take(LinkAddress(LinkName("eth0"), VIP))
        await stage.pass_by(20.0)
        assert stage.kernel.table == {}
        assert stage.host.addresses() == set()
        plan = stage.command("plan")
        assert len(plan["table"]) == 4
        assert any("10.0.1.10/32 dev eth0" in line for line in plan["host"])
        stage.command("resume")
        await stage.until(lambda: stage.weights() == ALL_IN, 0.1)
        await stage.until(lambda: stage.host.addresses() == {"10.0.1.10"}, 0.1)


@played
async def test_a_paused_agent_withdraws_nothing_and_says_so() -> None:
    stage = Stage(spec(on_exit=OnExit.WITHDRAW))
    async with stage:
        await stage.until(lambda: stage.host.addresses() == {"10.0.1.10"})
        await stage.pass_by(1.0)
        stage.command("pause")
    assert stage.weights() == ALL_IN
    assert stage.host.addresses() == {"10.0.1.10"}
    assert "paused" in stage.told(Kind.AGENT)[-1]


@played
async def test_the_status_of_a_foreign_key_in_the_record_is_cleaned_up() -> None:
    old = ServiceKey(ip_address("10.0.1.99"), Port(6443))
    async with Stage(spec(), Record(frozenset({old}))) as stage:
        await stage.until(lambda: stage.weights() == ALL_IN)
        await stage.until(lambda: stage.ownership.keys == {server().key}, 2.0)
        assert stage.command("status")["in_sync"]


# --- parts ---------------------------------------------------------------------------------------


@played
async def test_a_part_that_fails_for_ever_is_said_seldom_and_harms_nobody() -> None:
    stage = Stage(spec())

    async def part() -> None:
        raise OSError(13, "permission denied")

    async with stage:
        stage.agent.add_part("control socket", part)
        await stage.pass_by(3600.0)
        assert len(stage.told(Kind.FAULT)) < 20
        assert stage.weights() == ALL_IN


@played
async def test_a_bug_in_a_decision_stops_neither_clock_nor_agent() -> None:
    async with Stage(spec()) as stage:
        await stage.until(lambda: stage.weights() == ALL_IN)
        wake = stage.agent.node.wake

        def broken(now: object) -> list[Any]:
            raise ZeroDivisionError("a bug")

        stage.agent.node.__class__.wake = broken  # type: ignore[assignment,method-assign]
        try:
            await stage.pass_by(30.0)
        finally:
            stage.agent.node.__class__.wake = wake.__func__  # type: ignore[attr-defined,method-assign]
        assert 1 <= len(stage.told(Kind.FAULT)) < 5
        stage.backends.answers[N2] = REFUSED
        await stage.until(lambda: stage.weights() == WITHOUT_N2, 5.0)
