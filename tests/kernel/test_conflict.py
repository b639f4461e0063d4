"""Somebody else has the virtual IP: seen on a real kernel, asked, heard, named."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from revip.adapters.announcer import PacketAnnouncer
from revip.adapters.clock import BootClock
from revip.adapters.sentry import LinkSentry
from revip.adapters.vrrp_socket import VrrpSocket
from revip.agent.watching import Surroundings, Watch
from revip.errors import KernelError
from revip.model.conflict import Claimed, Sighting, Spoke
from revip.model.host import LinkAddress, MacAddress
from revip.model.instants import Span
from revip.model.ipvs import IPAddress
from revip.model.notes import Kind, Level
from revip.model.spec import LinkName, OnDuplicate
from revip.model.vrrp import VirtualRouter
from revip.planner.conflict import Rules
from tests.kernel.topology import CLIENT, Namespace, Segment, segment

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

ETH0 = LinkName("eth0")
OLD, NEW = IPv4Address("10.0.0.10"), IPv6Address("fd00::10")
FAMILIES = pytest.mark.parametrize("vip", [OLD, NEW], ids=["IPv4", "IPv6"])
VRID = 51


@pytest.fixture(scope="module")
def net() -> Iterator[Segment]:
    with segment() as made:
        yield made


@pytest.fixture(autouse=True)
def nobody_has_it(net: Segment) -> Iterator[None]:
    yield
    for name in ("n1", "n2", "n3", CLIENT):
        for vip in (OLD, NEW):
            drop(net[name], vip)


def have(space: Namespace, vip: IPAddress) -> None:
    family = "-6 " if vip.version == 6 else ""
    space.ip(f"{family}addr add {vip}/{vip.max_prefixlen} dev eth0{' nodad' if family else ''}")


def drop(space: Namespace, vip: IPAddress) -> None:
    family = "-6 " if vip.version == 6 else ""
    space.ip(f"{family}addr del {vip}/{vip.max_prefixlen} dev eth0", check=False)


def mac(net: Segment, name: str) -> MacAddress:
    return MacAddress(bytes.fromhex(net.mac(name).replace(":", "")))


class Placed(LinkSentry):
    """A sentry of a node: its sockets are made in the node's namespace."""

    def __init__(self, space: Namespace, vip: IPAddress, vrid: int | None = None) -> None:
        super().__init__(LinkAddress(ETH0, vip), vrid)
        self.space = space

    def open(self) -> None:
        with self.space.entered():
            super().open()

    def ask(self, source: IPAddress | None) -> None:
        with self.space.entered():
            super().ask(source)

    def neighbors(self) -> Mapping[IPAddress, MacAddress]:
        with self.space.entered():
            return super().neighbors()


def hear(sentry: LinkSentry, seconds: float = 0.3) -> list[Sighting]:
    deadline, heard = time.monotonic() + seconds, list[Sighting]()
    while time.monotonic() < deadline:
        heard += sentry.receive()
        time.sleep(0.01)
    return heard


@pytest.fixture
def sentry(net: Segment, request: pytest.FixtureRequest) -> Iterator[Placed]:
    made = Placed(net["n1"], request.param, VRID)
    made.open()
    yield made
    made.close()


BOTH = pytest.mark.parametrize("sentry", [OLD, NEW], ids=["IPv4", "IPv6"], indirect=True)


@BOTH
def test_who_has_it_answers_and_nobody_else(net: Segment, sentry: Placed) -> None:
    vip = sentry._place.address
    sentry.ask(None)
    assert hear(sentry) == []
    have(net["n3"], vip)
    sentry.ask(None)
    assert hear(sentry) == [Claimed(mac(net, "n3"))]


@BOTH
def test_who_has_it_too_is_asked_as_somebody(net: Segment, sentry: Placed) -> None:
    vip = sentry._place.address
    have(net["n1"], vip)
    have(net["n3"], vip)
    sentry.ask(ip_address("fd00::1") if vip.version == 6 else None)
    assert set(hear(sentry)) == {Claimed(mac(net, "n3"))}


@BOTH
def test_an_announcement_of_another_is_heard_and_ones_own_is_not(
    net: Segment, sentry: Placed
) -> None:
    place = sentry._place
    for name, heard in (("n1", set()), ("n2", {Claimed(mac(net, "n2"))})):
        announcer = PacketAnnouncer()
        with net[name].entered():
            announcer.announce(place)
        announcer.close()
        assert set(hear(sentry)) == heard


@BOTH
def test_who_speaks_vrrp_of_our_group_for_our_address_is_known(
    net: Segment, sentry: Placed
) -> None:
    vip = sentry._place.address
    other = ip_address("10.0.0.11") if vip.version == 4 else ip_address("fd00::11")
    own = ip_address("10.0.0.2") if vip.version == 4 else ip_address("fd00::2")
    for vrid, listed, heard in (
        (VRID, vip, [Spoke(mac(net, "n2"))]),
        (VRID, other, []),
        (VRID + 1, vip, []),
    ):
        with net["n2"].entered():
            speaker = VrrpSocket(ETH0, VirtualRouter(vrid, (listed,), own))
            speaker.open()
            speaker.send(100)
        assert hear(sentry, 0.2) == heard
        speaker.close()


@BOTH
def test_a_busy_segment_does_not_reach_the_socket(net: Segment, sentry: Placed) -> None:
    """The kernel counts what passes the filter (packet(7), PACKET_STATISTICS)."""
    vip = sentry._place.address
    own = "10.0.0.1" if vip.version == 4 else "fd00::1"
    other = ip_address("10.0.0.77") if vip.version == 4 else ip_address("fd00::77")
    with net["n2"].entered():
        sending = socket.socket(
            socket.AF_INET6 if vip.version == 6 else socket.AF_INET, socket.SOCK_DGRAM
        )
        announcer = PacketAnnouncer()
        for _ in range(500):
            sending.sendto(b"x" * 100, (own, 9))
            announcer.announce(LinkAddress(ETH0, other))
        sending.close()
        announcer.close()
    time.sleep(0.2)
    for each in sentry._sockets:
        packets, dropped = struct.unpack("=II", each.getsockopt(263, 6, 8))
        assert (packets, dropped) == (0, 0)


def test_it_says_what_is_missing(net: Segment) -> None:
    absent = Placed(net["n1"], OLD)
    absent._place = LinkAddress(LinkName("eth7"), OLD)
    with pytest.raises(KernelError, match="no such interface") as caught:
        absent.open()
    assert caught.value.errno == errno.ENODEV
    os.seteuid(65534)
    try:
        with pytest.raises(KernelError, match="CAP_NET_RAW") as caught:
            LinkSentry(LinkAddress(LinkName("lo"), OLD), None).open()
    finally:
        os.seteuid(0)
    assert caught.value.errno == errno.EPERM


def test_without_a_carrier_nothing_counts_as_asked(net: Segment) -> None:
    sentry = Placed(net["n1"], OLD)
    sentry.open()
    net["switch"].ip("link set n1 down")
    try:
        with pytest.raises(KernelError) as caught:
            sentry.ask(None)
    finally:
        net["switch"].ip("link set n1 up")
        sentry.close()
    assert caught.value.errno == errno.ENETDOWN


class Node:
    """A watch on n1, which has the address when it may and wants to."""

    def __init__(
        self, net: Segment, vip: IPAddress, policy: OnDuplicate, sentry: LinkSentry | None = None
    ) -> None:
        self.net = net
        self.vip = vip
        self.notes: list[tuple[float, Kind, str, Level]] = []
        self.announced = 0
        self.had = False
        self._announcer = PacketAnnouncer()
        rules = Rules(vip, policy, Span(2000))
        self.watch = Watch(
            LinkAddress(ETH0, vip),
            rules,
            Surroundings(
                BootClock(),
                lambda: sentry or Placed(net["n1"], vip),
                self._had,
                self._source,
                lambda: {ip_address("10.0.0.2"): "n2", ip_address("fd00::2"): "n2"},
                lambda: None,
                self._again,
                lambda kind, text, level: self.notes.append((time.monotonic(), kind, text, level)),
            ),
        )

    async def _had(self) -> bool:
        return self.had

    async def _source(self) -> IPAddress | None:
        return ip_address("fd00::1") if self.vip.version == 6 else None

    def _again(self) -> None:
        self.announced += 1
        with self.net["n1"].entered():
            self._announcer.announce(LinkAddress(ETH0, self.vip))

    def close(self) -> None:
        self._announcer.close()

    async def take(self) -> None:
        have(self.net["n1"], self.vip)
        self.watch.hold(True)

    async def until(self, true: Callable[[], object], seconds: float = 5.0) -> float:
        began = time.monotonic()
        while not true():
            if time.monotonic() > began + seconds:
                raise TimeoutError(self.notes)
            await asyncio.sleep(0.01)
        return time.monotonic() - began

    async def allowed(self) -> bool:
        return await self.watch.permits()

    def told(self, *words: str) -> list[str]:
        return [text for _, _, text, _ in self.notes if all(word in text for word in words)]


@asynccontextmanager
async def node(
    net: Segment, vip: IPAddress, policy: OnDuplicate = OnDuplicate.DEFEND
) -> AsyncIterator[Node]:
    made = Node(net, vip, policy)
    running = asyncio.ensure_future(made.watch.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        made.close()


async def until_allowed(made: Node, seconds: float = 5.0) -> float:
    began = time.monotonic()
    while not await made.allowed():
        assert time.monotonic() < began + seconds, made.notes
        await asyncio.sleep(0.01)
    return time.monotonic() - began


@FAMILIES
async def test_a_free_address_is_claimed_after_three_questions(
    net: Segment, vip: IPAddress
) -> None:
    async with node(net, vip) as made:
        assert 0.25 < await until_allowed(made) < 1.0
        assert made.notes == []


@FAMILIES
async def test_an_intruder_is_named_within_two_seconds_and_defended_against(
    net: Segment, vip: IPAddress
) -> None:
    async with node(net, vip) as made:
        await until_allowed(made)
        await made.take()
        await asyncio.sleep(0.3)
        assert made.notes == []
        have(net["n3"], vip)
        took = await made.until(lambda: made.told(net.mac("n3"), "defended"), 4.0)
        assert took < 2.0
        assert made.notes[0][3] is Level.ERROR
        await asyncio.sleep(2.5)
        assert (made.announced, len(made.notes)) == (1, 1), "once in ten seconds, told once"


@FAMILIES
async def test_yield_leaves_it_and_takes_it_back_when_nobody_answers(
    net: Segment, vip: IPAddress
) -> None:
    async with node(net, vip, OnDuplicate.YIELD) as made:
        await until_allowed(made)
        await made.take()
        have(net["n3"], vip)
        took = await made.until(lambda: made.watch.objection() is not None, 4.0)
        assert took < 2.5
        drop(net["n1"], vip)
        made.watch.hold(False)
        assert not await made.allowed()
        await asyncio.sleep(2.0)
        assert not await made.allowed(), "the intruder is still there"
        drop(net["n3"], vip)
        await until_allowed(made, 10.0)
        assert made.told("nobody else answers")
        assert made.announced == 0


@FAMILIES
async def test_at_a_cold_start_the_address_in_use_is_told_before_the_claim(
    net: Segment, vip: IPAddress
) -> None:
    have(net["n3"], vip)
    async with node(net, vip) as made:
        took = await until_allowed(made)
        assert made.told(net.mac("n3"), "already answers", "claimed all the same")
        assert took < 1.0
    async with node(net, vip, OnDuplicate.YIELD) as made:
        await made.until(lambda: made.told(net.mac("n3"), "leaves it alone"), 2.0)
        assert not await made.allowed()
        drop(net["n3"], vip)
        await until_allowed(made, 8.0)


@FAMILIES
async def test_a_fellow_is_no_stranger_until_the_window_is_over(
    net: Segment, vip: IPAddress
) -> None:
    with net["n1"].entered():  # so that n1 learns where n2 is
        asking = socket.socket(
            socket.AF_INET6 if vip.version == 6 else socket.AF_INET, socket.SOCK_DGRAM
        )
        asking.sendto(b"?", ("fd00::2" if vip.version == 6 else "10.0.0.2", 9))
        asking.close()
    have(net["n2"], vip)
    async with node(net, vip) as made:
        await until_allowed(made)
        await made.take()
        await asyncio.sleep(1.5)
        assert made.notes == []
        await made.until(lambda: made.told(net.mac("n2"), "n2, ", "two nodes hold it"), 5.0)
        assert made.announced == 0, "fellows do not fight with announcements"


async def test_what_a_former_run_left_is_kept_without_asking(net: Segment) -> None:
    have(net["n1"], OLD)
    made = Node(net, OLD, OnDuplicate.YIELD)
    made.had = True
    running = asyncio.ensure_future(made.watch.run())
    try:
        assert await made.allowed()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_an_interface_that_comes_later_is_waited_for(net: Segment) -> None:
    net["switch"].ip("link set n1 down")
    try:
        async with node(net, OLD) as made:
            await asyncio.sleep(0.8)
            assert not await made.allowed()
            assert [kind for _, kind, *_ in made.notes] == [Kind.UNWATCHED]
            net["switch"].ip("link set n1 up")
            assert await until_allowed(made) < 2.0
    finally:
        net["switch"].ip("link set n1 up")


async def test_without_the_right_to_listen_it_goes_on_and_says_so_once(net: Segment) -> None:
    made = Node(net, OLD, OnDuplicate.YIELD, LinkSentry(LinkAddress(LinkName("lo"), OLD), None))
    os.seteuid(65534)
    running = asyncio.ensure_future(made.watch.run())
    try:
        await until_allowed(made)
        assert [(kind, level) for _, kind, _, level in made.notes] == [
            (Kind.UNWATCHED, Level.WARNING)
        ]
        assert "CAP_NET_RAW" in str(made.watch.status()["unwatched"])
    finally:
        os.seteuid(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
