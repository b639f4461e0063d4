"""The operator gives the virtual IP away, or takes it: nothing undoes it, and nobody is without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from revip.agent.handing import CannotHandOverError
from revip.planner.handover import Stage as Part
from tests.agent.fakes import Stage
from tests.agent.test_agent import played, spec
from tests.agent.test_electing import PEER, elected, leads

HERE = {"10.0.1.10"}


class Peer:
    """Another node that advertises each second while it is active."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.priority = 0
        """0 while it is silent."""

    async def speak(self) -> None:
        while True:
            if self.priority:
                self._stage.speaker.hear(PEER, self.priority)
            await asyncio.sleep(0.5)


@asynccontextmanager
async def two(priority: int = 0, **changes: Any) -> AsyncIterator[tuple[Stage, Peer]]:
    async with Stage(elected(**changes)) as stage:
        peer = Peer(stage)
        peer.priority = priority
        speaking = asyncio.ensure_future(peer.speak())
        if not priority:
            await leads(stage)
        else:
            await stage.pass_by(5.0)
        yield stage, peer
        speaking.cancel()


def stage_of(stage: Stage) -> Part | None:
    told = stage.command("status")["virtual_servers"][0]["election"]["handover"]
    return Part(told["stage"]) if told else None


@played
async def test_given_away_it_goes_when_the_successor_is_heard_and_is_not_taken_back() -> None:
    async with two() as (stage, peer):
        answer = asyncio.ensure_future(stage.command("handover"))
        await stage.until(lambda: stage.speaker.said[-1] == 0, 1.0)
        assert stage.host.addresses() == HERE, "make before break"
        peer.priority = 90
        said = await answer
        assert said == f"api: n2 ({PEER}) directs now; this node preempts nobody for 299 s more"
        assert 0.2 < await stage.until(lambda: not stage.host.addresses()) < 0.6
        await stage.pass_by(280.0)
        assert stage.host.addresses() == set()
        await leads(stage)  # the while is over
        assert stage.speaker.said[-1] == 100


@played
async def test_when_the_successor_fails_it_takes_over_again() -> None:
    async with two() as (stage, peer):
        answer = asyncio.ensure_future(stage.command("handover"))
        await stage.pass_by(0.2)
        peer.priority = 90
        await answer
        await stage.until(lambda: not stage.host.addresses())
        peer.priority = 0
        assert await leads(stage) < 4.5
        await stage.pass_by(0.2)
        assert stage_of(stage) is None


@played
async def test_what_nobody_takes_is_kept_without_a_moment_of_absence() -> None:
    async with two() as (stage, _):
        deeds = len(stage.kernel.deeds)
        with pytest.raises(CannotHandOverError, match="nobody else took it"):
            await stage.command("handover")
        for _ in range(80):
            await stage.pass_by(0.1)
            assert stage.host.addresses() == HERE
        assert stage.speaker.said[-1] == 100
        assert stage.kernel.deeds[deeds:] == []
        assert stage_of(stage) is None


@played
async def test_who_takes_it_late_is_given_it() -> None:
    async with two() as (stage, peer):
        with pytest.raises(CannotHandOverError, match="nobody else took it"):
            await stage.command("handover")
        peer.priority = 90
        await stage.until(lambda: not stage.host.addresses(), 1.5)
        assert stage_of(stage) is Part.GIVEN


@played
async def test_a_node_that_freezes_while_it_gives_does_not_keep() -> None:
    async with two() as (stage, _):
        answer = asyncio.ensure_future(stage.command("handover"))
        await stage.pass_by(0.3)
        stage.clock.slept += 5_000
        await stage.until(lambda: not stage.host.addresses(), 0.5)
        await asyncio.gather(answer, return_exceptions=True)


@played
async def test_taken_by_hand_it_comes_here_over_a_better_one_also_without_preemption() -> None:
    async with two(200, preempt=False) as (stage, peer):
        answer = asyncio.ensure_future(stage.command("handover", to="n1", hold_ms=60_000))
        await stage.until(lambda: stage.speaker.said, 5.0)
        peer.priority = 0
        assert await answer == "api: n1 directs now, with priority 254 for 56 s more"
        assert set(stage.speaker.said) == {254}
        await stage.until(lambda: stage.speaker.said[-1] == 100, 60.0)
        assert stage.host.addresses() == HERE


@played
async def test_who_does_not_let_go_is_named() -> None:
    async with two(255) as (stage, _):
        with pytest.raises(CannotHandOverError, match=f"stays where it is: {PEER} is active"):
            await stage.command("handover", to="n1")
        assert stage.speaker.said == []


@played
async def test_refusals_are_one_line_that_tells_what_to_do() -> None:
    async with two(200) as (stage, _):
        for arguments, words in (
            ({}, rf"this node does not direct api: n2 \({PEER}\) does; run it there"),
            ({"to": "n2"}, "run `revip handover --to n2` on n2 itself"),
            ({"vip": "db"}, r"db: is not a virtual IP here; there are: 10.0.1.10 \(api\)"),
            ({"hold_ms": 1}, "want a time from 1s to 24h"),
        ):
            with pytest.raises(CannotHandOverError, match=words):
                await stage.command("handover", **arguments)
        stage.command("pause")
        with pytest.raises(CannotHandOverError, match="`revip resume` first"):
            await stage.command("handover", to="n1")


@played
async def test_a_static_director_cannot_be_moved_so() -> None:
    async with Stage(spec()) as stage:
        with pytest.raises(CannotHandOverError, match="nothing is elected"):
            await stage.command("handover")
