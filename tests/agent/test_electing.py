"""The director is elected: who has the virtual IP, when, and in which order it moves."""

from __future__ import annotations

from typing import Any

from revip.errors import KernelError
from revip.model.host import LinkAddress
from revip.model.instants import Span
from revip.model.notes import Kind
from revip.model.spec import LinkName, Spec, VrrpSpec
from tests.agent.fakes import REFUSED, Stage
from tests.agent.test_agent import ALL_IN, BACKENDS, VIP, played, server, spec

PEER = "10.0.1.19"
PLACE = LinkAddress(LinkName("eth0"), VIP)
TABLE, TOOK, LEFT = "add TCP 10.0.1.10:6443", "give address 10.0.1.10/32 dev eth0", "take address"
GONE = KernelError(19, "look at eth0", "it is gone")


def elected(**changes: Any) -> Spec:
    return spec(server(owner=None, vrrp=VrrpSpec(51, **changes)))


async def leads(stage: Stage) -> float:
    return await stage.until(lambda: stage.host.addresses() == {"10.0.1.10"})


@played
async def test_it_listens_before_it_takes_the_address_and_fills_the_table_first() -> None:
    async with Stage(elected()) as stage:
        took = await leads(stage)
        assert 3.6 <= took < 4.2, "Active_Down_Interval of priority 100 is 3.6 s"
        assert stage.order(TABLE, TOOK) == [TABLE, TOOK]
        assert stage.weights() == ALL_IN
        assert any("this node directs: " in text for text in stage.told(Kind.LEADERSHIP))


@played
async def test_a_follower_has_neither_address_nor_table() -> None:
    async with Stage(elected()) as stage:
        for _ in range(20):
            await stage.pass_by(1.0)
            stage.speaker.hear(PEER, 200)
        assert stage.host.addresses() == set()
        assert stage.kernel.table == {}
        assert stage.command("status")["virtual_servers"][0]["election"]["holder"] == PEER


@played
async def test_the_address_is_leased_and_renewed_with_the_adverts() -> None:
    async with Stage(elected()) as stage:
        await leads(stage)
        await stage.pass_by(10.0)
        assert 8 <= stage.host.renewed <= 12
        lease = stage.host.leases[PLACE]
        assert lease.lifetime == 3000
        assert 0 < lease.ends - stage.clock.now() <= 3000, "three intervals from the last advert"


@played
async def test_a_frozen_agent_looks_before_it_speaks() -> None:
    async with Stage(elected()) as stage:
        await leads(stage)
        said = len(stage.speaker.said)
        stage.clock.slept += 10_000
        stage.host.take(PLACE)  # as the kernel does when the lifetime is over
        await stage.pass_by(3.0)
        assert stage.host.addresses() == set(), "others may have it"
        assert len(stage.speaker.said) == said
        await leads(stage)


@played
async def test_a_better_node_is_given_the_address_and_the_table_goes_last() -> None:
    async with Stage(elected()) as stage:
        await leads(stage)
        stage.speaker.hear(PEER, 200)
        assert await stage.until(lambda: not stage.host.addresses()) < 0.6
        assert stage.kernel.table, "some neighbors still send to us"
        for _ in range(3):
            stage.speaker.hear(PEER, 200)
            await stage.pass_by(0.5)
        assert stage.kernel.table == {}


@played
async def test_a_stop_says_farewell_and_waits_for_the_successor() -> None:
    stage = Stage(elected())
    async with stage:
        await leads(stage)
        stage.agent.stop()
        await stage.until(lambda: stage.speaker.said[-1] == 0)
        assert stage.host.addresses() == {"10.0.1.10"}
        stage.speaker.hear(PEER, 90)
        assert 0.25 < await stage.until(lambda: not stage.host.addresses()) < 0.5
        assert stage.kernel.table
        await stage.task
    assert stage.kernel.table == {}


@played
async def test_a_stop_that_nobody_answers_ends_all_the_same() -> None:
    stage = Stage(elected())
    async with stage:
        await leads(stage)
    assert stage.host.addresses() == set()
    assert stage.kernel.table == {}


@played
async def test_the_priority_falls_while_the_own_server_is_unwell() -> None:
    async with Stage(elected()) as stage:
        await leads(stage)
        stage.backends.answers[BACKENDS[0].address] = REFUSED
        await stage.until(lambda: stage.speaker.said[-1] == 50, 3.0)
        del stage.backends.answers[BACKENDS[0].address]
        await stage.until(lambda: stage.speaker.said[-1] == 100, 3.0)


@played
async def test_without_a_carrier_the_address_goes_at_once() -> None:
    async with Stage(elected()) as stage:
        await leads(stage)
        stage.speaker.down = "eth0 has no carrier"
        assert await stage.until(lambda: not stage.host.addresses()) < 0.5
        stage.speaker.down = None
        await leads(stage)


@played
async def test_who_does_not_get_the_address_gives_it_to_others_and_tries_again() -> None:
    async with Stage(elected()) as stage:
        refused = KernelError(1, "add address", "Operation not permitted")
        stage.host.refuses = lambda fact: refused if fact == PLACE else None
        await stage.until(lambda: stage.speaker.said[-1:] == [100], 6.0)
        after = await stage.until(lambda: stage.speaker.said[-1] == 0, 6.0)
        assert 3.0 <= after < 4.5, "its address_lifetime"
        said = len(stage.speaker.said)
        await stage.pass_by(8.0)
        assert len(stage.speaker.said) == said, "nobody is held back meanwhile"
        election = stage.command("status")["virtual_servers"][0]["election"]
        assert "cannot be put on the interface" in election["reason"]
        stage.host.refuses = lambda fact: None
        assert await stage.until(lambda: stage.host.addresses() == {"10.0.1.10"}, 8.0) < 8.0


@played
async def test_an_interface_that_is_made_again_is_joined_again() -> None:
    async with Stage(elected()) as stage:
        await leads(stage)
        stage.speaker.gone = GONE
        assert await stage.until(lambda: not stage.host.addresses()) < 0.5
        stage.speaker.gone = None
        await leads(stage)


@played
async def test_at_100_ms_it_takes_over_in_less_than_half_a_second() -> None:
    async with Stage(elected(advert_interval=Span(100))) as stage:
        stage.speaker.hear(PEER, 200)
        await stage.pass_by(0.2)
        assert await leads(stage) < 0.5
