"""The keeper holds the address while the agent is busy, and gives it away when that is gone."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revip.agent.keeper_words import (
    Again,
    Resign,
    Source,
    Stand,
    Standing,
    Told,
    Wish,
    Withdraw,
    Word,
    WordsError,
    Worth,
    decode,
    encode,
)
from revip.model.host import LinkAddress
from revip.model.instants import Instant, Span
from revip.model.notes import Kind, Level, Note
from revip.model.spec import LinkName, VrrpSpec
from revip.planner.handover import give
from tests.agent.fakes import Stage
from tests.agent.test_agent import VIP, played
from tests.agent.test_electing import PEER, elected, leads

HERE = {"10.0.1.10"}
PLACE = LinkAddress(LinkName("eth0"), VIP)


@played
async def test_an_agent_that_is_busy_for_a_moment_keeps_the_address() -> None:
    async with Stage(elected()) as stage:
        await leads(stage)
        for _ in range(10):
            stage.keeper.deaf = True
            await stage.pass_by(0.9)
            stage.keeper.deaf = False
            await stage.pass_by(0.4)
            assert stage.host.addresses() == HERE
        assert 0 not in stage.speaker.said


@played
async def test_adverts_and_renewals_go_on_meanwhile() -> None:
    async with Stage(elected(advert_interval=Span(100))) as stage:
        await leads(stage)
        said, renewed = len(stage.speaker.said), stage.host.renewed
        stage.keeper.deaf = True
        await stage.pass_by(0.85)
        assert len(stage.speaker.said) - said >= 8
        assert stage.host.renewed > renewed


@played
async def test_when_the_agent_is_silent_the_keeper_gives_the_address_away() -> None:
    async with Stage(elected()) as stage:
        await leads(stage)
        stage.keeper.deaf = True
        assert 0.9 < await stage.until(lambda: stage.speaker.said[-1] == 0) < 1.2
        assert PLACE in stage.host.holds, "make before break"
        stage.speaker.hear(PEER, 90)
        assert await stage.until(lambda: PLACE not in stage.host.holds) < 0.4
        stage.keeper.deaf = False
        await stage.pass_by(3.0)
        assert stage.host.addresses() == set(), "it looks before it speaks"


@played
async def test_a_machine_that_stood_still_is_no_silent_agent() -> None:
    async with Stage(elected()) as stage:
        await leads(stage)
        for _ in range(5):
            stage.clock.slept += 1_500
            await stage.pass_by(2.0)
            assert stage.host.addresses() == HERE
        assert 0 not in stage.speaker.said


@played
async def test_what_nobody_takes_from_a_silent_agent_is_taken_away_all_the_same() -> None:
    async with Stage(elected()) as stage:
        await leads(stage)
        stage.keeper.deaf = True
        assert await stage.until(lambda: PLACE not in stage.host.holds) < 2.8
        stage.keeper.deaf = False
        await leads(stage)


@played
async def test_a_keeper_that_ends_is_started_again_and_goes_on() -> None:
    async with Stage(elected()) as stage:
        await leads(stage)
        deeds = len(stage.kernel.deeds)
        said = len(stage.speaker.said)
        stage.keeper.die()
        await stage.until(lambda: stage.keeper.starts == 2, 1.0)
        await stage.until(lambda: len(stage.speaker.said) > said, 0.5)
        for _ in range(50):
            await stage.pass_by(0.1)
            assert stage.host.addresses() == HERE
        assert 0 not in stage.speaker.said
        assert stage.kernel.deeds[deeds:] == []
        assert any("the keeper has ended" in text for text in stage.told(Kind.FAULT))
        election = stage.command("status")["virtual_servers"][0]["election"]
        assert election["keeper"]["starts"] == 2
        assert election["state"] == "active"


@played
async def test_after_a_frozen_keeper_the_address_is_given_up_when_others_may_have_it() -> None:
    async with Stage(elected()) as stage:
        await leads(stage)
        stage.keeper.frozen = True
        assert 1.9 < await stage.until(lambda: not stage.host.addresses()) < 3.3
        await stage.until(lambda: stage.keeper.starts == 2, 4.0)
        await leads(stage)


@played
async def test_a_keeper_that_comes_back_too_late_listens_first() -> None:
    async with Stage(elected(advert_interval=Span(100))) as stage:
        await leads(stage)
        stage.keeper.start_takes = 1.0
        stage.keeper.die()
        await stage.until(lambda: not stage.host.addresses(), 0.5)
        said = len(stage.speaker.said)
        await stage.until(lambda: stage.keeper.starts == 2, 1.0)
        await stage.pass_by(0.8)
        assert len(stage.speaker.said) == said
        await leads(stage)


WORDS: tuple[Word, ...] = (
    Stand("api", PLACE, VrrpSpec(51, peers=(VIP,)), (100, "well"), VIP, "", Instant(7)),
    Stand("api", PLACE, VrrpSpec(51, preempt=False), (0, "ill"), None, "no such interface"),
    Worth("api", 100, "this node is well"),
    Source("api", ip_address("fe80::1"), ""),
    Source("api", None, "eth0 has no address"),
    Wish("api", give(Instant(5), Span(60))),
    Resign("api", "shutdown"),
    Withdraw("api", "gone"),
    Standing("api", True, Instant(99), "nobody else", {"state": "active", "oddities": {}}),
    Again("api"),
    Told(Note(Instant(3), Kind.LEADERSHIP, "two are active", Level.WARNING, "api")),
)


@pytest.mark.parametrize("word", WORDS, ids=lambda word: type(word).__name__)
def test_what_is_said_is_understood(word: Word) -> None:
    assert decode(encode(word)) == word


def test_a_long_text_is_cut() -> None:
    said = decode(encode(Worth("api", 1, "x" * 100_000)))
    assert isinstance(said, Worth)
    assert len(said.reason) == 2_000


@given(
    st.binary()
    | st.recursive(st.none() | st.text(), st.lists, max_leaves=5).map(
        lambda value: repr(value).encode()
    )
)
def test_nonsense_is_refused_and_ends_nothing(packet: bytes) -> None:
    with pytest.raises(WordsError):
        decode(packet)


@played
async def test_nonsense_from_the_other_end_changes_nothing() -> None:
    async with Stage(elected()) as stage:
        await leads(stage)
        stage.keeper.send(b"nonsense")
        stage.keeper.say(b"[1, 2]")
        await stage.pass_by(5.0)
        assert stage.host.addresses() == HERE
        assert len([text for text in stage.told(Kind.FAULT) if "keeper: " in text]) == 2
        await asyncio.sleep(0)
