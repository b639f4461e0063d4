"""Our election against keepalived of Debian, each in its own network namespace, on real timers.

keepalived is watched by what it does: its VIP comes and goes, which rtnetlink tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest

from revip.adapters.clock import BootClock
from revip.adapters.vrrp_socket import VrrpSocket
from revip.errors import KernelError
from revip.model.instants import Instant, Span
from revip.model.ipvs import IPAddress
from revip.model.spec import LinkName
from revip.model.vrrp import (
    Action,
    Backup,
    BecomeActive,
    BecomeBackup,
    Checksum,
    Heard,
    Report,
    SendAdvert,
    SendFailed,
    Sent,
    Started,
    Stopped,
    VirtualRouter,
    active_down,
    skew,
)
from revip.planner.health import TimerFired
from revip.planner.vrrp import Event, begin, next_wakeup, step
from revip.wire.vrrp import Rejected, Rejection
from tests.kernel.topology import Namespace, Segment, segment

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

VIPS: dict[int, IPAddress] = {4: ip_address("10.0.0.10"), 6: ip_address("fd00::10")}
VRID = 51
KEEPALIVED = 100
"""Its priority."""
MARGIN = 150
"""Milliseconds that processes take to be woken in the lab's kernel."""
RTM_NEWADDR, RTM_DELADDR = 20, 21
RTMGRP_IFADDRS = 0x10 | 0x100
FAMILIES = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
INTERVALS = pytest.mark.parametrize("interval", [Span(1000), Span(100)], ids=["1s", "100ms"])
clock = BootClock()


class Speaker:
    """The election of one node on a real socket: the smallest agent there can be."""

    def __init__(
        self,
        space: Namespace,
        router: VirtualRouter,
        priority: int,
        peers: tuple[IPAddress, ...] = (),
    ) -> None:
        self.router = router
        self.state = begin(priority)
        self.done: list[tuple[Instant, Action]] = []
        self.rejected: list[Rejected] = []
        self._moved = asyncio.Event()
        self._socket = VrrpSocket(LinkName("eth0"), router, peers)
        with space.entered():
            self._socket.open()

    async def run(self) -> None:
        self.feed(Started())
        while True:
            self.take_in()
            if clock.now() >= next_wakeup(self.router, self.state):
                self.feed(TimerFired())
            wait = max(0, next_wakeup(self.router, self.state) - clock.now()) / 1000
            loop, come = asyncio.get_running_loop(), asyncio.Event()
            loop.add_reader(self._socket, come.set)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await come.wait()
            loop.remove_reader(self._socket)

    def take_in(self) -> None:
        for received in self._socket.receive():
            if isinstance(received, Heard):
                self.feed(received)
            else:
                self.rejected.append(received)
                self._moved.set()

    def feed(self, event: Event) -> None:
        now = clock.now()
        self.state, actions = step(self.router, self.state, event, now)
        for action in actions:
            self.done.append((now, action))
            if isinstance(action, SendAdvert):
                self.feed(self._sent(action))
        self._moved.set()

    def _sent(self, action: SendAdvert) -> Event:
        at = clock.now()
        if at > action.not_after:
            return SendFailed("woken too late to send it")
        try:
            self._socket.send(action.priority)
        except KernelError as error:
            return SendFailed(error.sentence)
        return Sent(at)

    async def until(self, kind: type[Action], since: Instant) -> Instant:
        """Wait for the first such action at or after `since`; return when it was."""
        async with asyncio.timeout(20):
            while True:
                for at, action in self.done:
                    if at >= since and isinstance(action, kind):
                        return at
                self._moved.clear()
                await self._moved.wait()

    async def hears_somebody(self) -> None:
        async with asyncio.timeout(20):
            while not (isinstance(self.state.phase, Backup) and self.state.phase.active):
                self._moved.clear()
                await self._moved.wait()

    async def rejects(self, rejection: Rejection) -> Rejected:
        async with asyncio.timeout(20):
            while True:
                for rejected in self.rejected:
                    if rejected.rejection is rejection:
                        return rejected
                self._moved.clear()
                await self._moved.wait()

    def reports(self) -> set[str]:
        return {action.oddity.value for _, action in self.done if isinstance(action, Report)}

    def close(self) -> None:
        self._socket.close()


@contextlib.asynccontextmanager
async def speaking(speaker: Speaker) -> AsyncIterator[Speaker]:
    """Let it take part for a block; it vanishes at the end without a farewell."""
    task = asyncio.get_running_loop().create_task(speaker.run())
    try:
        yield speaker
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        speaker.close()


class Watch:
    """When an address came to and went from a namespace, as rtnetlink(7) tells."""

    def __init__(self, space: Namespace, address: IPAddress) -> None:
        self._packed = address.packed
        self._changed = asyncio.Event()
        self.changes: list[tuple[Instant, bool]] = []
        with space.entered():
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.setblocking(False)
        self._socket.bind((0, RTMGRP_IFADDRS))
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def _read(self) -> None:
        message = self._socket.recv(65536)
        kind = struct.unpack_from("=IH", message)[1]
        if kind in {RTM_NEWADDR, RTM_DELADDR} and self._packed in message:
            self.changes.append((clock.now(), kind == RTM_NEWADDR))
            self._changed.set()

    @property
    def there(self) -> bool:
        return bool(self.changes) and self.changes[-1][1]

    async def until(self, there: bool, since: Instant) -> Instant:
        async with asyncio.timeout(20):
            while True:
                for at, came in self.changes:
                    if at >= since and came is there:
                        return at
                self._changed.clear()
                await self._changed.wait()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()


class Keepalived:
    """keepalived in a namespace."""

    def __init__(self, space: Namespace, folder: Path, options: str) -> None:
        self._configuration = folder / "keepalived.conf"
        self._configuration.write_text(options)
        names = (("-p", "main.pid"), ("-r", "vrrp.pid"), ("-c", "checkers.pid"))
        pids = [word for flag, name in names for word in (flag, str(folder / name))]
        command = ["keepalived", "-n", "-l", "-P", "-f", str(self._configuration), *pids]
        self._log = (folder / "log").open("w")
        with space.entered():
            self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)

    def kill(self) -> Instant:
        """End it and its children without a farewell; return when."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        at = clock.now()
        for victim in (pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        self._process.wait()
        self._log.close()
        return at


def options(
    version: int, interval: Span, vrrp_version: int = 3, extra: str = "", priority: int = KEEPALIVED
) -> str:
    vip = VIPS[version]
    return f"""
global_defs {{
    router_id lab
    vrrp_version {vrrp_version}
}}
vrrp_instance api {{
    state BACKUP
    interface eth0
    virtual_router_id {VRID}
    priority {priority}
    advert_int {interval / 1000:g}
    {extra}
    virtual_ipaddress {{
        {vip}/{vip.max_prefixlen} dev eth0
    }}
}}
"""


@pytest.fixture(scope="module")
def net() -> Iterator[Segment]:
    with segment() as made:
        yield made


@contextlib.contextmanager
def keepalived(net: Segment, folder: Path, text: str) -> Iterator[Keepalived]:
    running = Keepalived(net["n2"], folder, text)
    try:
        yield running
    finally:
        with contextlib.suppress(OSError):
            running.kill()
        for vip in VIPS.values():
            net["n2"].run(
                "ip", "addr", "del", f"{vip}/{vip.max_prefixlen}", "dev", "eth0", check=False
            )


@contextlib.contextmanager
def watching(space: Namespace, version: int) -> Iterator[Watch]:
    watch = Watch(space, VIPS[version])
    try:
        yield watch
    finally:
        watch.close()


def link_local(space: Namespace) -> IPAddress:
    shown = space.run("ip", "-6", "-br", "addr", "show", "dev", "eth0", "scope", "link")
    return ip_address(shown.split()[2].split("/")[0])


def router(
    net: Segment, version: int, interval: Span, checksum: Checksum = Checksum.PSEUDO_HEADER
) -> VirtualRouter:
    source = ip_address("10.0.0.1") if version == 4 else link_local(net["n1"])
    return VirtualRouter(VRID, (VIPS[version],), source, interval, checksum=checksum)


def in_time(what: str, took: int, bound: int) -> None:
    """Hold a measured time in milliseconds against what the RFC's timers promise."""
    assert took <= bound + MARGIN, f"{what}: {took} ms, bound {bound} ms"


@FAMILIES
@INTERVALS
async def test_keepalived_and_revip_share_a_group_through_a_whole_life(
    net: Segment, tmp_path: Path, version: int, interval: Span
) -> None:
    ours = router(net, version, interval)
    with (
        watching(net["n2"], version) as watch,
        keepalived(net, tmp_path, options(version, interval)) as peer,
    ):
        await watch.until(True, Instant(0))

        # The better one of us comes: it listens first, then takes over, and keepalived yields.
        started = clock.now()
        async with speaking(Speaker(net["n1"], ours, priority=200)) as better:
            claimed = await better.until(BecomeActive, started)
            in_time("ours preempts keepalived", claimed - started, active_down(200, interval))
            left = await watch.until(False, claimed)
            in_time("keepalived yields after our claim", left - claimed, 0)

            # It stops by priority 0: keepalived waits for its skew time only.
            stopped = clock.now()
            better.feed(Stopped("shutdown"))
            came = await watch.until(True, stopped)
            in_time("keepalived takes over from priority 0", came - stopped, skew(100, interval))
            assert better.reports() <= {"two-active"}, "nothing else was odd about keepalived"
            assert not better.rejected, "every packet of keepalived's was understood"

        # A lesser one of us waits, until keepalived is dead.
        async with speaking(Speaker(net["n1"], ours, priority=50)) as lesser:
            await lesser.hears_somebody()
            killed = peer.kill()
            claimed = await lesser.until(BecomeActive, killed)
            in_time("ours takes over from the dead", claimed - killed, active_down(50, interval))

            # keepalived returns, and preempts.
            again = tmp_path / "again"
            again.mkdir()
            with keepalived(net, again, options(version, interval)):
                yielded = await lesser.until(BecomeBackup, claimed)
                came = await watch.until(True, claimed)
                in_time("both at once when keepalived preempts", yielded - came, 0)


async def test_unicast_peers_need_no_multicast(net: Segment, tmp_path: Path) -> None:
    interval = Span(100)
    unicast = "unicast_src_ip 10.0.0.2\n    unicast_peer {\n        10.0.0.1\n    }"
    ours = router(net, 4, interval)
    with (
        watching(net["n2"], 4) as watch,
        keepalived(net, tmp_path, options(4, interval, extra=unicast)),
    ):
        await watch.until(True, Instant(0))
        started = clock.now()
        speaker = Speaker(net["n1"], ours, 200, peers=(IPv4Address("10.0.0.2"),))
        async with speaking(speaker):
            claimed = await speaker.until(BecomeActive, started)
            await watch.until(False, claimed)
            stopped = clock.now()
            speaker.feed(Stopped("shutdown"))
            came = await watch.until(True, stopped)
            in_time("priority 0 by unicast", came - stopped, skew(100, interval))
            assert not speaker.rejected


async def test_version_2_with_a_password_is_named_and_not_obeyed(
    net: Segment, tmp_path: Path
) -> None:
    auth = "authentication {\n        auth_type PASS\n        auth_pass secret\n    }"
    with keepalived(net, tmp_path, options(4, Span(1000), vrrp_version=2, extra=auth)):
        async with speaking(Speaker(net["n1"], router(net, 4, Span(1000)), 50)) as speaker:
            rejected = await speaker.rejects(Rejection.VERSION_2)
    assert "with authentication leftovers (a plain password)" in rejected.text


async def test_keepalived_discards_the_checksum_of_rfc_9568(net: Segment, tmp_path: Path) -> None:
    """Why `Checksum.PSEUDO_HEADER` is the default; if this fails, the default may change."""
    interval = Span(100)
    strict = router(net, 4, interval, checksum=Checksum.MESSAGE_ONLY)
    with watching(net["n2"], 4) as watch, keepalived(net, tmp_path, options(4, interval)):
        await watch.until(True, Instant(0))
        async with speaking(Speaker(net["n1"], strict, 200)) as speaker:
            claimed = await speaker.until(BecomeActive, Instant(0))
            sent = claimed
            for _ in range(5):
                sent = await speaker.until(SendAdvert, Instant(sent + 1))
            assert watch.there
            assert "other-checksum" in speaker.reports()


@FAMILIES
async def test_who_cannot_send_does_not_become_active(net: Segment, version: int) -> None:
    tool = "iptables-legacy" if version == 4 else "ip6tables-legacy"
    rule = ("OUTPUT", "-p", "112", "-j", "DROP")
    net["n1"].run(tool, "-A", *rule)
    ours = router(net, version, Span(100))
    async with speaking(Speaker(net["n1"], ours, 200)) as speaker:
        failed = await speaker.until(Report, Instant(0))
        assert not any(isinstance(action, BecomeActive) for _, action in speaker.done)
        reason = speaker.state.phase.reason
        assert "a packet filter of this host forbids it" in reason
        net["n1"].run(tool, "-D", *rule)
        claimed = await speaker.until(BecomeActive, failed)
        in_time("ours claims once it may send", claimed - failed, 3 * active_down(200, Span(100)))


async def test_a_missing_interface_and_a_foreign_source_are_said_in_a_sentence(
    net: Segment,
) -> None:
    with net["n1"].entered():
        missing = VrrpSocket(LinkName("eth9"), router(net, 4, Span(100)))
        with pytest.raises(KernelError, match="no such interface") as caught:
            missing.open()
        assert caught.value.errno == errno.ENODEV
        foreign = VirtualRouter(VRID, (VIPS[4],), IPv4Address("10.0.0.99"), Span(100))
        unsent = VrrpSocket(LinkName("eth0"), foreign)
        unsent.open()
    with contextlib.closing(unsent), pytest.raises(KernelError, match="has `node_address`"):
        unsent.send(100)
