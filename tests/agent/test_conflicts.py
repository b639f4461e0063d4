"""Somebody else has the virtual IP: when the agent takes it, keeps it, and leaves it alone."""

from __future__ import annotations

from typing import Any

import pytest

from revip.errors import KernelError
from revip.model.conflict import Claimed, Garbled, Spoke
from revip.model.host import LinkAddress, MacAddress
from revip.model.notes import Kind
from revip.model.spec import LinkName, NodeName, OnDuplicate, Spec, VrrpSpec
from revip.wire.vrrp import Rejected, Rejection
from tests.agent.fakes import FakeSentry, Stage
from tests.agent.test_agent import BACKENDS, VIP, played, server, spec

STRANGER = MacAddress(bytes.fromhex("020000000099"))
FELLOW = MacAddress(bytes.fromhex("020000000019"))
PLACE = LinkAddress(LinkName("eth0"), VIP)
HERE = {"10.0.1.10"}


def stage(told: Spec) -> tuple[Stage, FakeSentry]:
    made = Stage(told)
    made.sentry = FakeSentry()
    return made, made.sentry


def static(**changes: Any) -> Spec:
    return spec(server(**changes))


def elected(**changes: Any) -> Spec:
    return spec(server(owner=None, vrrp=VrrpSpec(51), **changes))


@played
async def test_a_free_address_is_taken_as_soon_as_without_asking() -> None:
    made, sentry = stage(static())
    async with made:
        tabled = await made.until(lambda: made.kernel.table)
        assert tabled < 0.1, "the table waits for nobody"
        await made.until(lambda: made.host.addresses() == HERE, 1.0)
        assert sentry.asked == 3
        assert made.told(Kind.CONFLICT) == []


@played
async def test_an_address_in_use_is_told_and_defended() -> None:
    made, sentry = stage(static())
    sentry.answering = {STRANGER}
    async with made:
        await made.until(lambda: made.host.addresses() == HERE, 1.0)
        (text,) = made.told(Kind.CONFLICT)
        assert "02:00:00:00:00:99 already answers for 10.0.1.10" in text
        shown = made.command("status")["virtual_servers"][0]["duplicates"]
        assert (shown["policy"], shown["conflicts"]) == ("defend", 1)
        assert [rival["mac"] for rival in shown["rivals"]] == ["02:00:00:00:00:99"]


@played
async def test_an_address_in_use_is_left_alone_until_it_is_free() -> None:
    made, sentry = stage(static(on_duplicate=OnDuplicate.YIELD))
    sentry.answering = {STRANGER}
    async with made:
        await made.pass_by(20.0)
        assert made.host.addresses() == set()
        shown = made.command("status")["virtual_servers"][0]["duplicates"]
        assert "02:00:00:00:00:99" in shown["standing_aside"]
        sentry.answering = set()
        await made.until(lambda: made.host.addresses() == HERE, 31.0)


@played
async def test_a_holder_that_yields_takes_its_address_away_and_back() -> None:
    made, sentry = stage(static(on_duplicate=OnDuplicate.YIELD))
    async with made:
        await made.until(lambda: made.host.addresses() == HERE)
        sentry.answering = {STRANGER}
        assert await made.until(lambda: not made.host.addresses()) < 2.0
        sentry.answering = set()
        await made.until(lambda: made.host.addresses() == HERE, 5.0)


@played
async def test_a_restarted_agent_keeps_its_address_and_does_not_ask_first() -> None:
    made, sentry = stage(static(on_duplicate=OnDuplicate.YIELD))
    made.host.give(PLACE)
    async with made:
        await made.pass_by(0.9)
        assert not [deed for deed in made.host.deeds if deed.startswith("take address")]
        assert made.host.addresses() == HERE
        assert sentry.asked == 0


@played
async def test_another_owner_s_file_comes_first_and_that_is_no_alarm() -> None:
    """The files are rewritten one after the other; meanwhile both nodes have the address."""
    made, sentry = stage(static(owner=NodeName("n2")))
    sentry.known = {BACKENDS[1].address: FELLOW}
    sentry.answering = {FELLOW}
    async with made:
        await made.pass_by(1.0)
        made.agent.reconfigure(static())
        assert await made.until(lambda: made.host.addresses() == HERE) < 0.6
        await made.pass_by(5.0)
        assert made.told(Kind.CONFLICT) == []
        await made.pass_by(8.0)
        (text,) = made.told(Kind.CONFLICT)
        assert "n2, 10.0.1.19" in text
        assert "two nodes hold it" in text


@pytest.mark.parametrize("policy", OnDuplicate)
def test_an_election_that_nobody_else_holds_is_told_before_its_first_claim(
    policy: OnDuplicate,
) -> None:
    @played
    async def story() -> None:
        made, sentry = stage(elected(on_duplicate=policy))
        sentry.answering = {STRANGER}
        async with made:
            if policy is OnDuplicate.DEFEND:
                took = await made.until(lambda: made.host.addresses() == HERE)
                assert 3.6 <= took < 4.2, "not a moment later"
            else:
                await made.pass_by(10.0)
                assert made.host.addresses() == set()
                shown = made.command("status")["virtual_servers"][0]["election"]
                assert shown["priority"] == 0
            assert "already answers" in made.told(Kind.CONFLICT)[0]

    story()


@played
async def test_a_follower_that_starts_beside_a_holder_raises_no_alarm() -> None:
    made, sentry = stage(elected(on_duplicate=OnDuplicate.YIELD))
    sentry.answering = {FELLOW}
    async with made:
        for _ in range(10):
            await made.pass_by(0.9)
            made.speaker.hear("10.0.1.19", 200)
            sentry.claim(Spoke(FELLOW))
        assert made.told(Kind.CONFLICT) == []
        # The holder falls silent, and its kernel goes on answering.
        took = await made.until(lambda: made.host.addresses() == HERE)
        assert took < 4.2, "a fail-over waits for no answer"
        await made.pass_by(3.0)
        assert made.told(Kind.CONFLICT) == []


@played
async def test_an_elected_holder_that_yields_gives_the_leadership_away() -> None:
    made, sentry = stage(elected(on_duplicate=OnDuplicate.YIELD))
    async with made:
        await made.until(lambda: made.host.addresses() == HERE)
        sentry.answering = {STRANGER}
        await made.until(lambda: made.speaker.said[-1] == 0, 2.0)
        await made.until(lambda: not made.host.addresses(), 3.0)
        sentry.answering = set()
        await made.until(lambda: made.host.addresses() == HERE, 10.0)


@played
async def test_an_interface_that_is_not_there_yet_is_waited_for_and_asked() -> None:
    made, sentry = stage(static())
    missing = KernelError(19, "listen for 10.0.1.10 on eth0", "no such interface")
    sentry.gone = made.host.down = missing
    async with made:
        await made.pass_by(10.0)
        assert made.host.addresses() == set()
        assert len(made.told(Kind.UNWATCHED)) == 1
        assert made.told(Kind.HOST_FAILED)
        sentry.gone = made.host.down = None
        await made.until(lambda: made.host.addresses() == HERE, 2.0)
        assert sentry.asked >= 3


@played
async def test_without_the_right_to_listen_it_goes_on_and_says_so_once() -> None:
    made, sentry = stage(static(on_duplicate=OnDuplicate.YIELD))
    sentry.gone = KernelError(1, "listen for 10.0.1.10 on eth0", "run as root or with CAP_NET_RAW")
    async with made:
        await made.until(lambda: made.host.addresses() == HERE, 1.0)
        await made.pass_by(60.0)
        (text,) = made.told(Kind.UNWATCHED)
        assert "CAP_NET_RAW" in text
        shown = made.command("status")["virtual_servers"][0]["duplicates"]
        assert "CAP_NET_RAW" in shown["unwatched"]
        assert shown["counts"]["deaf"] > 5


@played
async def test_what_is_garbled_is_counted_and_harmless() -> None:
    made, sentry = stage(static())
    async with made:
        await made.until(lambda: made.host.addresses() == HERE)
        for _ in range(5):
            sentry.claim(Garbled("arp: operation 9"))
        await made.pass_by(1.0)
        shown = made.command("status")["virtual_servers"][0]["duplicates"]
        assert shown["counts"]["garbled"] == 5
        assert made.host.addresses() == HERE


@played
async def test_one_claim_is_told_at_once() -> None:
    made, sentry = stage(static())
    async with made:
        await made.until(lambda: made.host.addresses() == HERE)
        sentry.claim(Claimed(STRANGER))
        await made.until(lambda: made.told(Kind.CONFLICT), 0.1)
        assert "defended" in made.told(Kind.CONFLICT)[0]


@played
async def test_leftovers_of_version_2_are_told_once_and_other_groups_never() -> None:
    made, _ = stage(elected())
    old = Rejected(Rejection.VERSION_2, "version 2, without authentication", BACKENDS[1].address)
    other = Rejected(Rejection.OTHER_GROUP, "VRID 52, ours is 51", BACKENDS[1].address)
    async with made:
        for _ in range(5):
            made.speaker.refuse(old)
            made.speaker.refuse(other)
            await made.pass_by(1.0)
        told = [text for text in made.told(Kind.LEADERSHIP) if "not obeyed" in text]
        assert told == [
            "an advert of 10.0.1.19 for VRID 51 is not obeyed: version 2, without authentication"
        ]
        shown = made.command("status")["virtual_servers"][0]["election"]["oddities"]
        assert shown == {"version-2": 5, "other-vrid": 5}
