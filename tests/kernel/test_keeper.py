"""The keeper on a real kernel: what it renews, what it removes, and how it ends."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from ipaddress import ip_address

import pytest

from revip.adapters.clock import BootClock
from revip.adapters.keeper_process import KeeperProcess
from revip.adapters.leased_addresses import RtnetlinkAddresses
from revip.errors import KernelError
from revip.keeper import forked
from revip.model.host import Lease, LinkAddress
from revip.model.instants import Instant, Span, later
from revip.model.spec import LinkName
from tests.kernel.topology import Namespace, segment

pytestmark = [pytest.mark.kernel]

PLACES = pytest.mark.parametrize(
    "place",
    [LinkAddress(LinkName("eth0"), ip_address(text)) for text in ("10.0.0.10", "fd00::10")],
    ids=["IPv4", "IPv6"],
)
clock = BootClock()


@pytest.fixture(scope="module")
def node() -> Iterator[Namespace]:
    with segment() as built:
        yield built["n1"]


@contextmanager
def writer(node: Namespace) -> Iterator[RtnetlinkAddresses]:
    with node.entered(), closing(RtnetlinkAddresses(clock)) as addresses:
        yield addresses


def lease(milliseconds: int = 3_000) -> Lease:
    return Lease(later(clock.now(), Span(milliseconds)), Span(9_000))


def lifetime(node: Namespace, place: LinkAddress) -> int | None:
    """Return the seconds that an address has left, None when it is not there."""
    for link in json.loads(node.run("ip", "-j", "address", "show", "dev", place.link)):
        for address in link.get("addr_info", ()):
            if address["local"] == str(place.address):
                return int(address["valid_life_time"])
    return None


def add(node: Namespace, place: LinkAddress) -> None:
    words = f"{place.address}/{place.address.max_prefixlen} dev {place.link} valid_lft 5"
    nodad = ("nodad", "noprefixroute") if place.address.version == 6 else ()
    preferred = "0" if nodad else "5"
    command = ("ip", "address", "add", *words.split(), "preferred_lft", preferred, *nodad)
    node.run(*command)


@PLACES
def test_an_address_that_is_there_is_renewed_and_removed(
    node: Namespace, place: LinkAddress
) -> None:
    add(node, place)
    with writer(node) as addresses:
        addresses.renew(place, lease())
    left = lifetime(node, place)
    assert left is not None
    assert 7 <= left <= 9
    assert node.run("ip", "-j", "address").count(str(place.address)) == 1
    with writer(node) as addresses:
        addresses.remove(place)
        addresses.remove(place)
    assert lifetime(node, place) is None


@PLACES
def test_an_address_that_is_not_there_is_not_made(node: Namespace, place: LinkAddress) -> None:
    with writer(node) as addresses:
        addresses.renew(place, lease())
    assert lifetime(node, place) is None


def test_after_the_lease_nothing_is_renewed(node: Namespace) -> None:
    place = LinkAddress(LinkName("eth0"), ip_address("10.0.0.10"))
    add(node, place)
    with writer(node) as addresses, pytest.raises(KernelError) as refused:
        addresses.renew(place, Lease(Instant(clock.now() - 1), Span(9_000)))
    assert refused.value.errno == errno.ETIME
    left = lifetime(node, place)
    assert left is not None
    assert left <= 5
    with writer(node) as addresses:
        addresses.remove(place)


def test_without_the_interface_there_is_nothing_to_do() -> None:
    place = LinkAddress(LinkName("gone0"), ip_address("10.0.0.10"))
    addresses = RtnetlinkAddresses(clock)
    addresses.renew(place, lease())
    addresses.remove(place)


def heard(link: KeeperProcess, seconds: float = 20.0) -> bytes:
    """Return the first packet of a keeper, empty when it ends."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if packets := link.receive():
            return packets[-1]
        time.sleep(0.02)
    raise TimeoutError("the keeper says nothing")


def test_a_keeper_is_told_of_its_agents_end_and_the_agent_of_its(node: Namespace) -> None:
    stand = {
        "name": "api",
        "link": "eth0",
        "address": "10.0.0.10",
        "worth": [100, "well"],
        "source": "10.0.0.1",
        "problem": "",
        "held_until": 0,
        "vrid": 51,
        "priority": 100,
        "advert_interval": 100,
        "preempt": True,
        "preempt_delay": 0,
        "peers": [],
        "address_lifetime": 3000,
    }
    packet = json.dumps(["Stand", stand]).encode()
    with node.entered(), forked() as link:
        for _ in range(2):  # the forked one, and one that is started anew
            link.start()
            assert link.send(packet)
            assert b"Standing" in heard(link)
            pid = link.pid
            assert pid is not None
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(pid, number)  # systemd sends it to all of a service's processes
            assert os.getsid(pid) == pid
            assert heard(link)
            os.kill(pid, signal.SIGKILL)
            while heard(link):
                pass
            assert not link.send(packet)
        link.start()
        pid = link.pid
        assert pid is not None
        gone = os.pidfd_open(pid)
        link.close()
        assert _ended(gone, 20.0)
        os.close(gone)


def _ended(pidfd: int, seconds: float) -> bool:
    return bool(select.select([pidfd], [], [], seconds)[0])


def test_a_keeper_that_nobody_needs_ends() -> None:
    with forked() as link:
        pid = link.pid
        assert pid is not None
        gone = os.pidfd_open(pid)
    assert _ended(gone, 5.0)
    os.close(gone)
