"""The rules of an address with a lifetime, on a real kernel: who goes silent loses it.

Lifetimes are whole seconds, and the kernel takes the address up to a second late
(check_lifetime(), net/ipv4/devinet.c; addrconf_verify_rtnl(), net/ipv6/addrconf.c).  A refresh of
an address that is gone makes it anew: hence the looks at the clock before and after each write.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest

from revip.adapters.clock import BootClock
from revip.adapters.host import LinuxHost
from revip.adapters.leased_addresses import RtnetlinkAddresses
from revip.errors import KernelError
from revip.model.host import Lease, LinkAddress
from revip.model.instants import Instant, Span, later
from revip.model.spec import LinkName
from tests.kernel.test_vrrp import Watch
from tests.kernel.topology import Namespace, Segment, segment

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

VIPS = {4: ip_address("10.0.0.10"), 6: ip_address("fd00::10")}
FAMILIES = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
MARGIN = 300
"""Milliseconds that a busy guest adds."""
LONG = Span(60_000)
clock = BootClock()


@pytest.fixture(scope="module")
def net() -> Iterator[Segment]:
    with segment() as made:
        yield made


NO_LEASE = Lease(Instant(0), Span(1000))


@dataclass
class Holder:
    """A node that holds the VIP, and a watch of its interface."""

    space: Namespace
    place: LinkAddress
    host: LinuxHost
    watch: Watch

    keeper: RtnetlinkAddresses
    leased: Lease = NO_LEASE

    def lease(self, ends: Instant, seconds: int = 2) -> None:
        self.leased = Lease(ends, Span(seconds * 1000))
        self.host.lease(self.place, self.leased)

    async def write(self) -> None:
        with self.space.entered():
            await self.host.apply([], [self.place])

    async def renew(self) -> None:
        with self.space.entered():
            self.keeper.renew(self.place, self.leased)

    async def settled(self) -> bool:
        """Whether the address is there, once what was announced has been heard."""
        await asyncio.sleep(0.05)
        return self.watch.there


@contextlib.asynccontextmanager
async def holding(net: Segment, version: int, folder: Path) -> AsyncIterator[Holder]:
    space = net["n1"]
    with space.entered():
        host = LinuxHost(folder / "record.json")
    watch = Watch(space, VIPS[version])
    place = LinkAddress(LinkName("eth0"), VIPS[version])
    try:
        with contextlib.closing(RtnetlinkAddresses(clock)) as keeper:
            yield Holder(space, place, host, watch, keeper)
    finally:
        with space.entered():
            await host.apply([place], [])
            await host.close()
        watch.close()


@FAMILIES
@pytest.mark.parametrize("seconds", [1, 3])
async def test_a_lifetime_is_whole_seconds_and_up_to_one_more(
    net: Segment, tmp_path: Path, version: int, seconds: int
) -> None:
    async with holding(net, version, tmp_path) as holder:
        holder.lease(later(clock.now(), LONG), seconds)
        written = clock.now()
        await holder.write()
        gone = await holder.watch.until(False, written) - written
    assert seconds * 1000 - 20 <= gone <= (seconds + 1) * 1000 + MARGIN


@FAMILIES
async def test_a_renewed_address_never_leaves(net: Segment, tmp_path: Path, version: int) -> None:
    async with holding(net, version, tmp_path) as holder:
        holder.lease(later(clock.now(), LONG))
        await holder.write()
        for _ in range(8):
            await asyncio.sleep(0.5)
            await holder.renew()
        assert await holder.settled()
        assert [came for _, came in holder.watch.changes if not came] == []


@FAMILIES
async def test_a_renewal_does_not_make_a_missing_address_anew(
    net: Segment, tmp_path: Path, version: int
) -> None:
    """The kernel knows no refresh that is not an addition as well: so it is looked first."""
    async with holding(net, version, tmp_path) as holder:
        holder.lease(later(clock.now(), LONG))
        await holder.write()
        with holder.space.entered():
            await holder.host.apply([holder.place], [])
        assert not await holder.settled()
        await holder.renew()
        assert not await holder.settled()
        await holder.write()
        assert await holder.settled(), "who reconciles may, within the lease"


@FAMILIES
async def test_nothing_is_written_after_the_end(net: Segment, tmp_path: Path, version: int) -> None:
    async with holding(net, version, tmp_path) as holder:
        holder.lease(Instant(clock.now() - 1))
        with pytest.raises(KernelError, match="the lease is over") as caught:
            await holder.write()
        assert caught.value.errno == errno.ETIME
        await holder.renew()
        assert not await holder.settled()
        assert holder.watch.changes == []


@FAMILIES
async def test_the_end_of_the_lease_does_not_take_the_address_the_lifetime_does(
    net: Segment, tmp_path: Path, version: int
) -> None:
    async with holding(net, version, tmp_path) as holder:
        holder.lease(later(clock.now(), Span(300)), seconds=1)
        await holder.write()
        written = clock.now()
        await asyncio.sleep(0.5)
        assert holder.watch.there, "its end forbids writing, no more"
        with pytest.raises(KernelError, match="the lease is over"):
            await holder.renew()
        gone = await holder.watch.until(False, written) - written
    assert gone <= 2000 + MARGIN


@FAMILIES
async def test_what_was_written_too_late_is_taken_away_again(
    net: Segment, tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the process had been frozen between its look at the clock and the kernel's answer."""
    async with holding(net, version, tmp_path) as holder:
        netlink = holder.host._netlink
        request = netlink.request

        async def slow(*arguments: object) -> int:
            await asyncio.sleep(0.3)
            return await request(*arguments)  # type: ignore[arg-type]

        holder.lease(later(clock.now(), Span(100)))
        monkeypatch.setattr(netlink, "request", slow)
        with pytest.raises(KernelError, match="taken away again"):
            await holder.write()
        monkeypatch.undo()
        assert not await holder.settled()


@FAMILIES
async def test_what_was_written_too_late_and_never_answered_is_taken_away_as_well(
    net: Segment, tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen for longer than the request's deadline, it sends, and then times out."""
    async with holding(net, version, tmp_path) as holder:
        netlink = holder.host._netlink
        request = netlink.request
        said = KernelError(errno.ETIMEDOUT, "ask the kernel", "no answer")

        async def unanswered(_: str, kind: int, *arguments: object) -> int:
            monkeypatch.undo()
            await asyncio.sleep(0.3)
            await request("address", kind, *arguments)  # type: ignore[arg-type]
            raise said

        holder.lease(later(clock.now(), Span(100)))
        monkeypatch.setattr(netlink, "request", unanswered)
        with pytest.raises(KernelError, match="taken away again"):
            await holder.write()
        assert not await holder.settled()


_RENEWS = """
import asyncio, sys
from ipaddress import ip_address
from pathlib import Path
from revip.adapters.clock import BootClock
from revip.adapters.host import LinuxHost
from revip.adapters.leased_addresses import RtnetlinkAddresses
from revip.errors import KernelError
from revip.model.host import Lease, LinkAddress
from revip.model.instants import Span, later
from revip.model.spec import LinkName

async def main(address, record):
    host, place = LinuxHost(Path(record)), LinkAddress(LinkName("eth0"), ip_address(address))
    keeper = RtnetlinkAddresses(BootClock())
    await host.apply([place], [])  # what is imported late is imported now
    for _ in range(ROUNDS):
        lease = Lease(later(BootClock().now(), Span(1500)), Span(1000))
        host.lease(place, lease)
        await host.apply([], [place])
        print("holds", flush=True)
        try:
            while BootClock().now() <= lease.ends:
                keeper.renew(place, lease)
        except KernelError:
            pass  # written too late and taken away, or an answer that it has slept through
        print("woken", flush=True)
        sys.stdin.readline()

asyncio.run(main(*sys.argv[1:]))
"""
ROUNDS = 2


@FAMILIES
def test_a_woken_process_does_not_put_it_back(net: Segment, tmp_path: Path, version: int) -> None:
    """Freeze a process in the midst of its renewals for longer than its lease, and wake it."""
    space, vip, chance = net["n1"], VIPS[version], random.Random(version)
    source = _RENEWS.replace("ROUNDS", str(ROUNDS))
    argv = [sys.executable, "-c", source, str(vip), str(tmp_path / "record.json")]

    def there() -> bool:
        return str(vip) + "/" in space.run("ip", "-br", "addr", "show", "dev", "eth0")

    with space.entered():
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        for _ in range(ROUNDS):
            assert process.stdout.readline() == "holds\n"
            time.sleep(chance.uniform(0, 0.5))
            assert there()
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(3.0)
            assert not there(), "the kernel took it from the frozen one"
            os.kill(process.pid, signal.SIGCONT)
            assert process.stdout.readline() == "woken\n"
            assert not there(), "woken, it looks at the clock before, or at least after, it writes"
            process.stdin.write("\n")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()
        space.run("ip", "addr", "del", f"{vip}/{vip.max_prefixlen}", "dev", "eth0", check=False)
