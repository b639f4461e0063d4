"""When answers are let out beside the adverts, and when they are shut at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from revip.model.host import Fence
from revip.model.instants import SECOND, Span
from revip.model.notes import Kind
from revip.model.spec import OnExit
from tests.agent.fakes import Stage
from tests.agent.test_agent import VIP, played
from tests.agent.test_electing import PEER, elected, leads

FAST = Span(100)


def told(stage: Stage) -> str:
    return str(stage.command("status")["virtual_servers"][0]["election"]["fence"])


@pytest.mark.parametrize("on_exit", list(OnExit))
@played
async def test_a_follower_has_the_fence_too_and_it_goes_with_the_agent(on_exit: OnExit) -> None:
    async with Stage(replace(elected(advert_interval=FAST), on_exit=on_exit)) as stage:
        await leads(stage)
        fences = {fact for fact in stage.host.holds if isinstance(fact, Fence)}
        assert {(fence.address, fence.vrid, fence.open_for) for fence in fences} == {(VIP, 51, 300)}
        assert told(stage) == "nftables"
        stage.speaker.hear(PEER, 200)
        await stage.until(lambda: not stage.host.addresses())
        assert fences <= stage.host.holds
    assert not fences & stage.host.holds


@pytest.mark.parametrize(("interval", "lifetime"), [(SECOND, 3), (SECOND, 2)])
@played
async def test_where_the_lifetime_is_no_longer_than_three_adverts_there_is_none(
    interval: Span, lifetime: int
) -> None:
    rules = {"advert_interval": interval, "address_lifetime": Span(lifetime * SECOND)}
    async with Stage(elected(**rules)) as stage:
        await leads(stage)
        assert not any(isinstance(fact, Fence) for fact in stage.host.holds)
        assert told(stage).startswith("none: three adverts take as long as")
        stage.keeper.deaf = True
        await stage.until(lambda: not stage.host.addresses())
        assert stage.host.fences.until == {}


@played
async def test_at_a_hand_over_the_fence_is_open_as_long_as_the_address_waits() -> None:
    async with Stage(elected(advert_interval=FAST)) as stage:
        await leads(stage)
        until = stage.host.fences.until
        assert until.get(VIP, 0) <= stage.clock.now(), "the adverts do it"
        stage.keeper.deaf = True
        await stage.until(lambda: stage.speaker.said[-1] == 0)
        assert 500 <= until[VIP] - stage.clock.now() <= 600, "an interval and the grace"
        stage.speaker.hear(PEER, 90)
        await stage.pass_by(0.02)
        assert 200 <= until[VIP] - stage.clock.now() <= 300, "the successor's table comes first"


@played
async def test_an_advert_that_leaves_after_the_lease_opens_nothing() -> None:
    async with Stage(elected(advert_interval=FAST)) as stage:
        await leads(stage)
        await stage.pass_by(1.0)
        stage.host.fences.until.clear()
        send = stage.speaker.send

        def frozen(priority: int) -> None:
            stage.speaker.send = send  # type: ignore[method-assign]
            stage.clock.slept += 1_000
            send(priority)

        stage.speaker.send = frozen  # type: ignore[method-assign]
        await stage.until(lambda: VIP in stage.host.fences.until, 1.0)
        assert stage.host.fences.until[VIP] <= stage.clock.now()


@played
async def test_where_there_can_be_no_fence_that_is_said_once() -> None:
    async with Stage(elected(advert_interval=FAST)) as stage:
        stage.host.no_fence = "no nftables at the egress here (Operation not supported)"
        for _ in range(2):
            await leads(stage)
            stage.speaker.hear(PEER, 200)
            await stage.until(lambda: not stage.host.addresses())
        said = [text for text in stage.told(Kind.LEADERSHIP) if text.startswith("fence: none")]
        assert len(said) == 1
        assert "no nftables" in told(stage)
