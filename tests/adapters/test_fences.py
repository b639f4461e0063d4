"""The fence on this host's own kernel: who goes silent is not asked for long.

Skipped without root or without nf_tables at the egress (Linux 5.16): so in the lab's kernel.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest

from revip.adapters.clock import BootClock
from revip.adapters.fences import NftFences
from revip.adapters.host import LinuxHost
from revip.adapters.keeper_process import KeeperProcess
from revip.errors import KernelError
from revip.keeper import forked
from revip.model.host import Fence, HostState, Lease, LinkAddress
from revip.model.instants import Instant, Span, later
from revip.model.ipvs import IPAddress
from revip.model.spec import LinkName
from tests.kernel.topology import CLIENT, Namespace, Segment, segment

ROUNDS = int(os.environ.get("REVIP_FENCE_ROUNDS", "1"))
INTERVAL = 100
"""Milliseconds between adverts."""
VIPS = {4: ip_address("10.0.0.10"), 6: ip_address("fd00::10")}
FAMILIES = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
ETH0 = LinkName("eth0")
LONG = Span(60_000)
clock = BootClock()


def _possible() -> str | None:
    """Return why there can be no fence here."""
    if os.geteuid() or not shutil.which("nft") or not shutil.which("ip"):
        return "needs root, nft(8) and ip(8)"
    try:
        with segment() as net, net["n1"].entered(), closing(NftFences(clock)) as fences:
            fences.build(Fence(ETH0, VIPS[4], 51, Span(300)), Instant(0))
    except (OSError, KernelError, RuntimeError) as error:
        return f"no fence here: {error}"
    return None


pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def possible() -> None:
    if why_not := _possible():
        pytest.skip(why_not)


@pytest.fixture
def net(possible: None) -> Iterator[Segment]:
    with segment() as made:
        yield made


class Asker:
    """Asks each 10 ms, by default from the client, who has the VIP."""

    def __init__(self, net: Segment, version: int, name: str = CLIENT, link: str = "eth0") -> None:
        self.version = version
        kind = 0x0806 if version == 4 else 0x86DD
        with net[name].entered():
            self.wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind))
            self.wire.bind((link, kind))
        self.wire.setblocking(False)
        self.question = _question(self.wire.getsockname()[4], version)
        self.answers: list[float] = []

    def ask(self, seconds: float) -> list[float]:
        """Ask for so long; return when answers came (seconds of the monotonic clock)."""
        came: list[float] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.wire.send(self.question)
            time.sleep(0.01)
            came += self._heard()
        return came

    def _heard(self) -> list[float]:
        found: list[float] = []
        with suppress(BlockingIOError):
            while True:
                frame = self.wire.recv(2048)
                if self._answers(frame):
                    found.append(time.monotonic())
        return found

    def _answers(self, frame: bytes) -> bool:
        vip = VIPS[self.version].packed
        if self.version == 4:
            return frame[20:22] == b"\0\2" and frame[28:32] == vip
        return frame[20] == 58 and frame[54] == 136 and frame[62:78] == vip


def _question(own: bytes, version: int) -> bytes:
    vip = VIPS[version].packed
    if version == 4:
        body = b"\x00\x01\x08\x00\x06\x04\x00\x01" + own + socket.inet_aton("10.0.0.100")
        return b"\xff" * 6 + own + b"\x08\x06" + body + bytes(6) + vip
    source = ip_address("fd00::100").packed
    group = ip_address("ff02::1:ff00:10").packed
    icmp = b"\x87\0\0\0" + bytes(4) + vip + b"\x01\x01" + own
    pseudo = source + group + struct.pack("!IxxxB", len(icmp), 58) + icmp
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    icmp = icmp[:2] + struct.pack("!H", ~total & 0xFFFF) + icmp[4:]
    header = struct.pack("!IHBB", 6 << 28, len(icmp), 58, 255) + source + group
    return b"\x33\x33" + group[-4:] + own + b"\x86\xdd" + header + icmp


@dataclass
class Director:
    """A node with a keeper that directs, and the host's part of an agent."""

    space: Namespace
    place: LinkAddress
    fence: Fence
    host: LinuxHost
    keeper: KeeperProcess

    def apply(self, *facts: Fence | LinkAddress) -> None:
        with self.space.entered():
            asyncio.run(self._apply(facts))

    async def _apply(self, facts: tuple[Fence | LinkAddress, ...]) -> None:
        await self.host.apply([], facts)
        await self.host.close()

    def repair(self) -> bool:
        """Compare as the agent does; return whether there was something to repair."""
        with self.space.entered():
            return asyncio.run(self._repair())

    async def _repair(self) -> bool:
        wanted = HostState(frozenset({self.fence}))
        missing = wanted.present - await self.host.observe(wanted)
        await self.host.apply([], list(missing))
        await self.host.close()
        return bool(missing)

    def lead(self, seconds: float = 10.0) -> None:
        """Keep the keeper company until it directs, and give it the address."""
        self.heed(seconds, lambda standing: bool(standing["leading"]))

    def heed(self, seconds: float, done: object = None) -> dict[str, object]:
        """Be the agent for so long, or until `done`; return how the election stands."""
        standing: dict[str, object] = {}
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.keeper.send(json.dumps(["Worth", WORTH]).encode())
            for packet in self.keeper.receive():
                kind, said = json.loads(packet)
                if kind == "Standing":
                    standing = said
                    ends = Instant(said["keeps_until"])
                    self.host.lease(self.place, Lease(ends, Span(3_000)))
            if callable(done) and standing and done(standing):
                return standing
            time.sleep(0.02)
        if done is not None:
            raise TimeoutError(standing)
        return standing


WORTH = {"name": "api", "priority": 100, "reason": "well"}


@contextmanager
def directing(net: Segment, version: int, folder: Path) -> Iterator[Director]:
    space = net["n1"]
    place = LinkAddress(ETH0, VIPS[version])
    own = ip_address("10.0.0.1")
    if version == 6:
        links = json.loads(space.run("ip", "-j", "-6", "address", "show", "dev", "eth0"))
        infos = [info for link in links for info in link["addr_info"]]
        own = ip_address(next(info["local"] for info in infos if info["scope"] == "link"))
    with space.entered(), forked() as keeper:
        host = LinuxHost(folder / "host.json", fences=NftFences(clock))
        fence = Fence(ETH0, place.address, 51, Span(3 * INTERVAL))
        director = Director(space, place, fence, host, keeper)
        director.apply(fence)
        keeper.start()
        keeper.send(json.dumps(["Stand", _stand(place, own)]).encode())
        director.lead()
        director.apply(place)
        yield director


def _stand(place: LinkAddress, own: IPAddress) -> dict[str, object]:
    return {
        "name": "api",
        "link": "eth0",
        "address": str(place.address),
        "worth": [100, "well"],
        "source": str(own),
        "problem": "",
        "held_until": 0,
        "vrid": 51,
        "priority": 100,
        "advert_interval": INTERVAL,
        "preempt": True,
        "preempt_delay": 0,
        "peers": [],
        "address_lifetime": 3000,
    }


@FAMILIES
def test_a_frozen_keeper_has_its_node_answer_no_longer(
    net: Segment, version: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asker, last, woken = Asker(net, version), [], []
    with closing(asker.wire), directing(net, version, tmp_path) as director:
        pid = director.keeper.pid
        assert pid is not None
        for _ in range(ROUNDS):
            director.heed(0.5)
            assert asker.ask(0.2), "it answers while it directs"
            frozen_at = time.monotonic()
            os.kill(pid, signal.SIGSTOP)
            answers = asker.ask(0.9)
            last.append(answers[-1] - frozen_at if answers else 0.0)
            addresses = director.space.run("ip", "address", "show", "dev", "eth0")
            assert str(director.place.address) in addresses, "it is the fence that holds"
            woken_at = time.monotonic()
            os.kill(pid, signal.SIGCONT)
            director.keeper.send(json.dumps(["Worth", WORTH]).encode())
            answers = asker.ask(1.0)
            woken.append(answers[0] - woken_at if answers else 9.0)
            director.lead()
            director.apply(director.place)
    with capsys.disabled():
        sys.stdout.write(
            f"\nIPv{version}, {ROUNDS} rounds: last answer {_figures(last)}; "
            f"first after it was woken {_figures(woken)}\n"
        )
    assert max(last) <= 0.5
    assert min(woken) >= 0.3, "it listens for an Active_Down_Interval first"


def _figures(seconds: list[float]) -> str:
    ordered = [round(each * 1000) for each in sorted(seconds)]
    return f"min {ordered[0]}, p50 {ordered[len(ordered) // 2]}, max {ordered[-1]} ms"


@FAMILIES
def test_a_flushed_fence_lets_out_and_is_repaired(
    net: Segment, version: int, tmp_path: Path
) -> None:
    asker = Asker(net, version)
    with closing(asker.wire), directing(net, version, tmp_path) as director:
        nft = director.space.run
        table = nft("nft", "list", "tables").split()[-1]
        wounds = (
            f"flush table netdev {table}",
            f"delete table netdev {table}",
            f"add rule netdev {table} output counter",
            "flush ruleset",
        )
        for wound in wounds:
            director.heed(0.1)
            nft("nft", wound)
            director.heed(0.05)
            assert len(asker.ask(0.2)) >= 10, f"{wound}: the lifetime bounds, the fence is open"
            director.heed(0.1)
            assert director.repair(), wound
            assert not director.repair()
            assert len(asker.ask(0.2)) >= 10, "made anew, it is open for what is left"
        listed = nft("nft", "list", "ruleset")
        nft("nft", "flush", "ruleset")
        nft("nft", "-f", "-", given=listed)
        assert director.repair() is False, "nft(8) reads what it shows of it"


@FAMILIES
def test_nothing_is_said_without_adverts_and_nothing_is_left(
    net: Segment, version: int, tmp_path: Path
) -> None:
    node, place = net["n1"], LinkAddress(ETH0, VIPS[version])
    fence, asker = Fence(ETH0, VIPS[version], 51, Span(300)), Asker(net, version)
    flags = ("nodad",) if version == 6 else ()
    node.run("ip", "address", "add", str(place.address), "dev", "eth0", *flags)
    with closing(asker.wire), node.entered(), closing(NftFences(clock)) as fences:
        assert asker.ask(0.1)
        assert not fences.open(place, later(clock.now(), Span(300))), "there is none yet"
        assert not fences.exists(fence.address)
        fences.build(fence, Instant(0))
        assert fences.stands(fence)
        assert not asker.ask(0.2)
        assert fences.open(place, later(clock.now(), Span(200)))
        assert asker.ask(0.1)
        fences.open(place, Instant(0))
        assert not asker.ask(0.1)
        fences.open(place, later(clock.now(), Span(100)))
        time.sleep(0.15)
        assert not asker.ask(0.1)
        fences.destroy(fence.address)
        fences.destroy(fence.address)
        assert asker.ask(0.1)
    assert node.run("nft", "list", "ruleset") == ""


class LateClock(BootClock):
    """The process is frozen for a second between its look at the clock and its write."""

    def __init__(self) -> None:
        self.looks = 0

    def now(self) -> Instant:
        self.looks += 1
        return Instant(super().now() + (1_000 if self.looks > 1 else 0))


def test_what_is_opened_after_the_lease_is_shut_again(net: Segment) -> None:
    node, place = net["n1"], LinkAddress(ETH0, VIPS[4])
    fence, asker = Fence(ETH0, VIPS[4], 51, Span(300)), Asker(net, 4)
    node.run("ip", "address", "add", str(place.address), "dev", "eth0")
    with closing(asker.wire), node.entered(), closing(NftFences(clock)) as fences:
        fences.build(fence, Instant(0))
        ends = later(clock.now(), Span(800))
        with closing(NftFences(LateClock())) as late:
            assert late.open(place, ends)
        assert not asker.ask(0.2)
        with closing(NftFences(LateClock())) as late:
            late.build(fence, later(clock.now(), Span(800)))
        assert not asker.ask(0.2)
        fences.build(fence, later(clock.now(), Span(800)))
        assert asker.ask(0.2)


def test_a_fence_that_adverts_do_not_open_is_given_up(net: Segment, tmp_path: Path) -> None:
    node, fence = net["n1"], Fence(ETH0, VIPS[4], 51, Span(300))

    async def work() -> float:
        host = LinuxHost(tmp_path / "host.json", fences=NftFences(clock))
        wanted, began = HostState(frozenset({fence})), time.monotonic()
        await host.apply([], [fence])
        host.lease(LinkAddress(ETH0, VIPS[4]), Lease(later(clock.now(), LONG), Span(3_000)))
        assert await host.observe(wanted) == {fence}
        while host.fence(VIPS[4]) == "nftables":
            async with asyncio.timeout(10):
                await anext(host.changes())
            assert await host.observe(wanted) == {fence}
        assert "adverts do not leave eth0 as VRRP" in host.fence(VIPS[4])
        await host.close()
        return time.monotonic() - began

    with node.entered():
        assert 1.9 < asyncio.run(work()) < 4
    assert node.run("nft", "list", "ruleset") == ""


def test_a_host_puts_it_up_and_takes_it_away(net: Segment, tmp_path: Path) -> None:
    node, fence = net["n1"], Fence(ETH0, VIPS[4], 51, Span(300))
    any_fence = Fence(ETH0, VIPS[4])

    async def work() -> None:
        host = LinuxHost(tmp_path / "host.json", fences=NftFences(clock))
        wanted = HostState(frozenset({fence}), frozenset({any_fence}))
        assert await host.observe(wanted) == frozenset()
        assert host.fence(VIPS[4]).startswith("none: ")
        await host.apply([], [fence])
        assert await host.observe(wanted) == {fence}
        assert host.fence(VIPS[4]) == "nftables"
        changed = Fence(ETH0, VIPS[4], 52, Span(300))
        wanted = HostState(frozenset({changed}), frozenset({fence, any_fence}))
        assert await host.observe(wanted) == frozenset(), "another group's is built in its place"
        await host.close()
        host = LinuxHost(tmp_path / "other.json", fences=NftFences(clock))
        assert await host.observe(HostState(absent=frozenset({any_fence}))) == {any_fence}
        await host.apply([any_fence], [])
        assert await host.observe(HostState(absent=frozenset({any_fence}))) == frozenset()
        await host.close()

    with node.entered():
        asyncio.run(work())
    assert node.run("nft", "list", "ruleset") == ""


def test_an_interface_that_is_made_anew_has_its_fence_again(net: Segment) -> None:
    node = net["n1"]
    fence = Fence(LinkName("veth9"), VIPS[4], 51, Span(300))
    with node.entered(), closing(NftFences(clock)) as fences:
        with pytest.raises(KernelError, match="no interface veth9"):
            fences.build(fence, Instant(0))
        for _ in range(2):
            node.ip(
                "link add veth9 type veth peer name veth8",
                "link set veth8 up",
                "link set veth9 up",
                "address add 10.0.0.10/32 dev veth9",
            )
            if not fences.stands(fence):  # newer kernels have it by the interface's name
                fences.build(fence, Instant(0))
            asker = Asker(net, 4, "n1", "veth8")
            with closing(asker.wire):
                assert not asker.ask(0.2)
                assert fences.open(LinkAddress(fence.link, fence.address), later(clock.now(), LONG))
                assert asker.ask(0.2)
            node.ip("link delete veth9")
