"""Announcements on a real kernel: what is on the wire, and what neighbors then believe."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from lab.capture import Neighbor, NeighborCapture, parse

from revip.adapters.announcer import PacketAnnouncer
from revip.errors import KernelError
from revip.model.host import LinkAddress
from revip.model.spec import LinkName
from tests.kernel.topology import CLIENT, Namespace, Segment, segment

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

OLD, NEW = IPv4Address("10.0.0.10"), IPv6Address("fd00::10")
ETH0 = LinkName("eth0")
WAIT = 0.5
OTHER_MAC = "02:00:00:00:00:99"


@pytest.fixture(scope="module")
def net() -> Iterator[Segment]:
    with segment() as made:
        yield made


@pytest.fixture
def announcer(net: Segment) -> Iterator[PacketAnnouncer]:
    made = PacketAnnouncer()
    yield made
    made.close()


def heard(
    net: Segment, announcer: PacketAnnouncer, place: LinkAddress, interface: str = "eth0"
) -> list[Neighbor]:
    """Announce `place` on n1; return what the client hears of it."""
    with net[CLIENT].entered():
        capture = NeighborCapture(interface).__enter__()
    try:
        announce(net["n1"], announcer, place)
        return [seen for seen in capture.hear(WAIT) if seen.claims == str(place.address)]
    finally:
        capture.__exit__()


def announce(space: Namespace, announcer: PacketAnnouncer, place: LinkAddress) -> None:
    with space.entered():
        announcer.announce(place)


def believed(space: Namespace, address: IPv4Address | IPv6Address, link: str = "eth0") -> str:
    """Return the hardware address that a host has for `address`."""
    words = space.run("ip", "neigh", "show", "to", str(address), "dev", link).split()
    return words[words.index("lladdr") + 1] if "lladdr" in words else ""


def believe(space: Namespace, address: IPv4Address | IPv6Address, mac: str) -> None:
    space.ip(f"neigh replace {address} lladdr {mac} dev eth0 nud stale")


def test_ipv4_is_told_in_both_forms_of_arp(net: Segment, announcer: PacketAnnouncer) -> None:
    seen = heard(net, announcer, LinkAddress(ETH0, OLD))
    assert [(n.kind, n.mac, n.gratuitous) for n in seen] == [
        ("who-has", net.mac("n1"), True),
        ("is-at", net.mac("n1"), True),
    ]


def test_ipv6_is_told_by_an_advertisement(net: Segment, announcer: PacketAnnouncer) -> None:
    seen = heard(net, announcer, LinkAddress(ETH0, NEW))
    assert [(n.kind, n.mac, n.sender, n.gratuitous) for n in seen] == [
        ("advertisement", net.mac("n1"), str(NEW), True)
    ]


@pytest.mark.parametrize("address", [OLD, NEW], ids=["IPv4", "IPv6"])
def test_a_host_moves_its_entry_at_once(
    net: Segment, announcer: PacketAnnouncer, address: IPv4Address | IPv6Address
) -> None:
    believe(net[CLIENT], address, OTHER_MAC)
    announce(net["n1"], announcer, LinkAddress(ETH0, address))
    assert believed(net[CLIENT], address) == net.mac("n1")


@pytest.mark.parametrize("address", [OLD, NEW], ids=["IPv4", "IPv6"])
def test_a_follower_that_has_the_vip_on_its_dummy_moves_its_entry_too(
    net: Segment, announcer: PacketAnnouncer, address: IPv4Address | IPv6Address
) -> None:
    """The local route of the VIP is where revip puts it on a follower."""
    follower, bits = net["n2"], address.max_prefixlen
    family = "-6 " if address.version == 6 else ""
    nodad = " nodad" if family else ""
    follower.ip(
        "link add dummy-test type dummy",
        "link set dummy-test up",
        f"{family}addr add {address}/{bits} dev dummy-test{nodad}",
        f"{family}route add local {address} dev dummy-test table 30313",
        f"{family}rule add iif eth0 to {address} ipproto tcp lookup 30313",
        f"{family}route del local {address} dev dummy-test table local",
    )
    believe(follower, address, OTHER_MAC)
    announce(net["n1"], announcer, LinkAddress(ETH0, address))
    try:
        assert believed(follower, address) == net.mac("n1")
    finally:
        follower.ip(
            f"{family}rule del iif eth0 to {address} ipproto tcp lookup 30313",
            "link del dummy-test",
        )


def test_two_moves_within_a_second_are_both_believed(net: Segment) -> None:
    """A gratuitous announcement overrides what the kernel would keep for `locktime`."""
    announcers = {name: PacketAnnouncer() for name in ("n1", "n2")}
    believe(net[CLIENT], OLD, OTHER_MAC)
    for name in ("n1", "n2", "n1"):
        announce(net[name], announcers[name], LinkAddress(ETH0, OLD))
        assert believed(net[CLIENT], OLD) == net.mac(name)
    for made in announcers.values():
        made.close()


@pytest.mark.parametrize("address", [OLD, NEW], ids=["IPv4", "IPv6"])
def test_a_vlan_carries_it_with_its_tag(
    net: Segment, announcer: PacketAnnouncer, address: IPv4Address | IPv6Address
) -> None:
    for name in ("n1", CLIENT):
        net[name].ip(
            "link add link eth0 name eth0.7 type vlan id 7",
            "link set eth0.7 up",
        )
    try:
        seen = heard(net, announcer, LinkAddress(LinkName("eth0.7"), address), "eth0.7")
        assert {n.mac for n in seen} == {net.mac("n1")}
        assert len(seen) == (2 if address.version == 4 else 1)
    finally:
        for name in ("n1", CLIENT):
            net[name].ip("link del eth0.7")


@pytest.mark.parametrize("address", [OLD, NEW], ids=["IPv4", "IPv6"])
def test_a_bridge_tells_it_with_its_own_hardware_address(
    net: Segment, announcer: PacketAnnouncer, address: IPv4Address | IPv6Address
) -> None:
    net["n1"].ip(
        "link add br7 address 02:00:00:00:07:07 type bridge",
        "link set eth0 master br7",
        "link set br7 up",
    )
    try:
        seen = heard(net, announcer, LinkAddress(LinkName("br7"), address))
        assert {n.mac for n in seen} == {"02:00:00:00:07:07"}
    finally:
        net["n1"].ip("link del br7")


def test_a_changed_hardware_address_is_used_at_once(
    net: Segment, announcer: PacketAnnouncer
) -> None:
    before = net.mac("n1")
    announce(net["n1"], announcer, LinkAddress(ETH0, OLD))
    net["n1"].ip(f"link set eth0 address {OTHER_MAC}")
    try:
        assert {n.mac for n in heard(net, announcer, LinkAddress(ETH0, OLD))} == {OTHER_MAC}
    finally:
        net["n1"].ip(f"link set eth0 address {before}")


def test_a_recreated_interface_is_found_again(net: Segment, announcer: PacketAnnouncer) -> None:
    place = LinkAddress(LinkName("eth0.9"), OLD)
    for _ in range(2):
        net["n1"].ip("link add link eth0 name eth0.9 type vlan id 9", "link set eth0.9 up")
        announce(net["n1"], announcer, place)
        net["n1"].ip("link del eth0.9")
        refused(net, announcer, place, errno.ENODEV, "no such interface")


def refused(
    net: Segment, announcer: PacketAnnouncer, place: LinkAddress, number: int, sentence: str
) -> None:
    with pytest.raises(KernelError, match=sentence) as caught:
        announce(net["n1"], announcer, place)
    assert caught.value.errno == number
    assert str(place.address) in caught.value.operation
    assert place.link in caught.value.operation


def test_an_interface_that_is_down_or_not_ethernet_is_named(
    net: Segment, announcer: PacketAnnouncer
) -> None:
    space = net["n1"]
    space.ip("link add eth0.8 link eth0 type vlan id 8")
    refused(net, announcer, LinkAddress(LinkName("eth0.8"), OLD), errno.ENETDOWN, "bring it up")
    space.ip("link del eth0.8")
    refused(net, announcer, LinkAddress(LinkName("lo"), NEW), errno.EPROTONOSUPPORT, "type 772")


def test_without_a_carrier_nothing_counts_as_sent(net: Segment, announcer: PacketAnnouncer) -> None:
    net["switch"].ip("link set n1 down")
    try:
        refused(net, announcer, LinkAddress(ETH0, OLD), errno.ENETDOWN, "no carrier")
    finally:
        net["switch"].ip("link set n1 up")


def test_without_the_capability_the_refusal_names_it(net: Segment) -> None:
    with net["n1"].entered():
        os.seteuid(65534)
        try:
            with pytest.raises(KernelError, match="CAP_NET_RAW") as caught:
                PacketAnnouncer().announce(LinkAddress(ETH0, OLD))
        finally:
            os.seteuid(0)
    assert caught.value.errno == errno.EPERM


def test_a_closed_announcer_opens_again(net: Segment, announcer: PacketAnnouncer) -> None:
    announcer.close()
    assert heard(net, announcer, LinkAddress(ETH0, OLD))
    announcer.close()
    assert heard(net, announcer, LinkAddress(ETH0, NEW))


def test_a_router_says_that_it_is_one(net: Segment, announcer: PacketAnnouncer) -> None:
    with net[CLIENT].entered():
        capture = NeighborCapture("eth0").__enter__()
    flags = []
    try:
        for forwarding in ("1", "0"):
            net["n1"].sysctl("net/ipv6/conf/eth0/forwarding", forwarding)
            announce(net["n1"], announcer, LinkAddress(ETH0, ip_address("fd00::10")))
            flags.append(_next_advertisement(capture)[58])
    finally:
        capture.__exit__()
    assert flags == [0xA0, 0x20]


def _next_advertisement(capture: NeighborCapture) -> bytes:
    assert capture._socket is not None
    capture._socket.settimeout(5)
    while True:
        frame = capture._socket.recv(2048)
        seen = parse(frame, 0)
        if seen is not None and seen.claims == str(NEW):
            return frame
