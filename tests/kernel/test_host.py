"""Host preparation on a real kernel: what is made, mended, put back, and what then works."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from revip.adapters.host import LinuxHost
from revip.errors import KernelError
from revip.model.host import HostFact, HostState, LinkAddress
from revip.model.ipvs import Forwarding, IPAddress, Port
from revip.model.spec import LinkName, NodeName, Spec, VirtualServerSpec
from revip.planner.host import combined, describe_fact, host_diff, host_state, undone
from tests.kernel.topology import CLIENT, NODES, Namespace, Segment, segment

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

VIPS = {4: "10.0.0.10", 6: "fd00::10"}
FAMILIES = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
METHODS = pytest.mark.parametrize("method", [Forwarding.DIRECT, Forwarding.MASQUERADE], ids=str)


@pytest.fixture(scope="module")
def built() -> Iterator[Segment]:
    with segment() as made:
        yield made


@pytest.fixture
async def net(built: Segment) -> AsyncIterator[Segment]:
    yield built
    await built.stop()


class Node:
    """One node's host preparation, driven as the agent drives it."""

    def __init__(self, space: Namespace, folder: Path) -> None:
        self.space = space
        self.record = folder / f"{space.name}.json"
        self.host = LinuxHost(self.record)

    async def settle(self, state: HostState) -> int:
        """Observe, compare, apply until nothing is left; return how many passes changed things."""
        with self.space.entered():
            for passes in range(4):
                remove, add = host_diff(state, await self.host.observe(state))
                if not remove and not add:
                    return passes
                await self.host.apply(remove, add)
        left = [describe_fact(fact) for fact in (*remove, *add)]
        raise AssertionError(f"not settled: {left}")

    async def missing(self, state: HostState) -> set[HostFact]:
        with self.space.entered():
            return set(state.present - await self.host.observe(state))

    def heard(self) -> int:
        """How many notices that matter came so far (the kernel queues them at once)."""
        with self.space.entered():
            return self.host._notices.count()

    async def close(self) -> None:
        with self.space.entered():
            await self.host.close()


@contextlib.asynccontextmanager
async def node(space: Namespace, folder: Path) -> AsyncIterator[Node]:
    made = Node(space, folder)
    try:
        yield made
    finally:
        await made.close()


def state(
    name: str, version: int, directing: bool, method: Forwarding = Forwarding.DIRECT
) -> HostState:
    vip = ip_address(VIPS[version])
    server = VirtualServerSpec(
        "api", vip, Port(6443), LinkName("eth0"), NodeName("n1"), (), forwarding=method
    )
    number = name.removeprefix("n")
    own: IPAddress = ip_address(f"10.0.0.{number}" if version == 4 else f"fd00::{number}")
    return host_state(Spec(NodeName(name), None, (server,)), server, directing, own)


def picture(space: Namespace) -> str:
    """Everything of a namespace that revip might change, as text."""
    parts = [
        space.run("ip", "-br", "link"),
        space.run("ip", "addr"),
        *(space.run("ip", family, "rule") for family in ("-4", "-6")),
        *(space.run("ip", family, "route", "show", "table", "all") for family in ("-4", "-6")),
        *(space.run(f"{tool}-legacy-save") for tool in ("iptables", "ip6tables")),
    ]
    with space.entered():
        for tree in (
            "ipv4/conf",
            "ipv6/conf",
            "ipv4/vs",
            "ipv4/ip_forward",
            "ipv4/tcp_early_demux",
        ):
            root = Path("/proc/sys/net", tree)
            for file in sorted(root.rglob("*")) if root.is_dir() else [root]:
                with contextlib.suppress(OSError):
                    parts.append(f"{file} {file.read_text()}" if file.is_file() else "")
    lines = "\n".join(parts).splitlines()
    return "\n".join(line for line in lines if not line.startswith(("#", ":", "*", "COMMIT")))


@FAMILIES
@METHODS
@pytest.mark.parametrize("directing", [True, False], ids=["director", "follower"])
async def test_two_passes_reach_a_state_in_which_nothing_is_left_to_do(
    net: Segment, tmp_path: Path, version: int, method: Forwarding, directing: bool
) -> None:
    async with node(net["n1"], tmp_path) as n1:
        wanted = state("n1", version, directing, method)
        assert await n1.settle(wanted) <= 2
        assert await n1.settle(wanted) == 0
        await n1.settle(undone(wanted))


@FAMILIES
@METHODS
async def test_cleanup_leaves_the_host_as_it_was_and_spares_what_is_foreign(
    net: Segment, tmp_path: Path, version: int, method: Forwarding
) -> None:
    space = net["n2"]
    space.ip(
        "addr add 10.0.0.77/32 dev eth0",
        "rule add iif eth0 to 10.0.0.10 lookup 99 priority 70",
        "route add 10.9.0.0/16 dev eth0 table 30313",
        "-6 route add fd09::/64 dev eth0 proto 118",
    )
    space.run("iptables-legacy", "-t", "nat", "-A", "POSTROUTING", "-s", "10.7.0.0/16")
    space.run("ip6tables-legacy", "-t", "nat", "-A", "POSTROUTING", "-s", "fd07::/64")
    before = picture(space)
    async with node(space, tmp_path) as n2:
        director = state("n2", version, True, method)
        follower = state("n2", version, False, method)
        for role in (director, follower, director):
            await n2.settle(role)
        await n2.settle(undone(director))
        assert picture(space) == before
    space.run("iptables-legacy", "-t", "nat", "-F")
    space.run("ip6tables-legacy", "-t", "nat", "-F")
    space.ip(
        "addr del 10.0.0.77/32 dev eth0",
        "rule del priority 70",
        "route flush table 30313",
        "-6 route del fd09::/64",
    )


async def test_the_record_outlives_a_crash_and_keeps_the_oldest_former_value(
    net: Segment, tmp_path: Path
) -> None:
    space = net["n3"]
    before = picture(space)
    async with node(space, tmp_path) as first:
        await first.settle(state("n3", 4, True))
    async with node(space, tmp_path) as restarted:
        assert await restarted.settle(state("n3", 4, True)) == 0
    space.sysctl("net/ipv4/conf/eth0/rp_filter", "1")
    async with node(space, tmp_path) as second:
        await second.settle(state("n3", 4, True))
        await second.settle(undone(state("n3", 4, True)))
    assert picture(space) == before


async def test_a_sysctl_that_an_operator_changed_since_is_left_to_him(
    net: Segment, tmp_path: Path
) -> None:
    async with node(net["n3"], tmp_path) as n3:
        wanted = state("n3", 4, False)
        await n3.settle(wanted)
        net["n3"].sysctl("net/ipv4/conf/eth0/arp_announce", "1")
        await n3.settle(undone(wanted))
        assert "1" in net["n3"].run("cat", "/proc/sys/net/ipv4/conf/eth0/arp_announce")
    net["n3"].sysctl("net/ipv4/conf/eth0/arp_announce", "0")


VANDALS = {
    4: (
        "addr del 10.0.0.10/32 dev eth0",
        "addr del 10.0.0.10/32 dev dummy-revip",
        "link del dummy-revip",
        "link set dummy-revip down",
        "link set eth0 down\nlink set eth0 up",
        "route flush table local 10.0.0.10",
        "route flush table 30313",
        "rule del priority 76",
        "rule del priority 76\nrule del priority 76",
    ),
    6: (
        "-6 addr del fd00::10/128 dev eth0",
        "link del dummy-revip",
        "-6 route flush table local fd00::10",
        "-6 route flush proto 118",
        "-6 rule del priority 76",
    ),
}


@FAMILIES
async def test_damage_is_announced_and_mended(net: Segment, tmp_path: Path, version: int) -> None:
    async with node(net["n1"], tmp_path) as n1:
        wanted = state("n1", version, True)
        await n1.settle(wanted)
        for damage in VANDALS[version]:
            before = n1.heard()
            net["n1"].ip(*damage.split("\n"), check=False)
            assert n1.heard() > before, damage
            assert await n1.settle(wanted) > 0, damage
            if "eth0 down" in damage:
                net["n1"].ip("addr replace fd00::1/64 dev eth0 nodad")
        await n1.settle(undone(wanted))


async def test_a_change_wakes_who_waits_for_it(net: Segment, tmp_path: Path) -> None:
    async with node(net["n1"], tmp_path) as n1:
        with net["n1"].entered():
            changes = n1.host.changes()
            heard = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0)
        net["n1"].ip("addr add 10.0.0.78/32 dev eth0", "addr del 10.0.0.78/32 dev eth0")
        async with asyncio.timeout(5):
            await heard


async def test_what_happens_to_others_wakes_nobody(net: Segment, tmp_path: Path) -> None:
    async with node(net["n1"], tmp_path) as n1:
        wanted = state("n1", 4, False)
        await n1.settle(wanted)
        before = n1.heard()
        net["n1"].ip("route add 10.9.0.0/16 dev eth0", "route del 10.9.0.0/16 dev eth0")
        net["n1"].ip("link add pod7 type veth peer name pod8", "link del pod7")
        assert n1.heard() == before
        await n1.settle(undone(wanted))


async def test_without_the_capability_the_refusal_names_it(net: Segment, tmp_path: Path) -> None:
    async with node(net["n1"], tmp_path) as n1:
        address = LinkAddress(LinkName("eth0"), ip_address("10.0.0.10"))
        with net["n1"].entered():
            os.seteuid(65534)
            try:
                with pytest.raises(KernelError, match="CAP_NET_ADMIN") as caught:
                    await n1.host.apply((), (address,))
            finally:
                os.seteuid(0)
        assert caught.value.errno == errno.EPERM


async def test_a_sysctl_that_is_reset_is_seen_at_the_next_look(
    net: Segment, tmp_path: Path
) -> None:
    async with node(net["n1"], tmp_path) as n1:
        wanted = state("n1", 4, False)
        await n1.settle(wanted)
        net["n1"].sysctl("net/ipv4/conf/eth0/arp_ignore", "0")
        missing = await n1.missing(wanted)
        assert {describe_fact(f) for f in missing} == {"sysctl net.ipv4.conf.eth0.arp_ignore = 1"}
        assert await n1.settle(wanted) == 1
        await n1.settle(undone(wanted))


@FAMILIES
async def test_a_flushed_packet_filter_is_mended(
    net: Segment, tmp_path: Path, version: int
) -> None:
    tool = "iptables-legacy" if version == 4 else "ip6tables-legacy"
    async with node(net["n1"], tmp_path) as n1:
        wanted = state("n1", version, True, Forwarding.MASQUERADE)
        await n1.settle(wanted)
        saved = net["n1"].run(f"{tool}-save", "-t", "nat")
        for damage in ("-F REVIP-POSTROUTING", "-F POSTROUTING"):
            net["n1"].run(tool, "-t", "nat", *damage.split())
            assert await n1.settle(wanted) == 0, "what was seen is trusted for a while"
            n1.host._filter._seen.clear()  # as time passes
            assert await n1.settle(wanted) == 1
        rules = [line for line in saved.splitlines() if line.startswith("-A")]
        mended = net["n1"].run(f"{tool}-save", "-t", "nat").splitlines()
        assert [line for line in mended if line.startswith("-A")] == rules
        await n1.settle(undone(wanted))


async def test_a_closed_host_opens_again(net: Segment, tmp_path: Path) -> None:
    async with node(net["n1"], tmp_path) as n1:
        await n1.settle(state("n1", 4, False))
        await n1.close()
        assert await n1.settle(state("n1", 4, False)) == 0
        await n1.settle(undone(state("n1", 4, False)))


async def test_notices_that_were_lost_count_as_one(net: Segment, tmp_path: Path) -> None:
    async with node(net["n1"], tmp_path) as n1:
        wanted = state("n1", 4, False)
        await n1.settle(wanted)
        with net["n1"].entered():
            opened = n1.host._notices._opened()
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        before = n1.heard()
        churn = [f"route {verb} 10.9.0.0/16 dev eth0" for verb in ("add", "del")] * 50
        net["n1"].ip(*churn)
        assert n1.heard() == before + 1
        await n1.settle(undone(wanted))


async def test_a_missing_interface_is_named(net: Segment, tmp_path: Path) -> None:
    async with node(net["n1"], tmp_path) as n1:
        lost = LinkAddress(LinkName("eth7"), ip_address("10.0.0.10"))
        with net["n1"].entered():
            assert await n1.host.observe(HostState(frozenset({lost}))) == frozenset()
            with pytest.raises(KernelError, match="eth7") as caught:
                await n1.host.apply((), (lost,))
        assert caught.value.errno == errno.ENODEV


async def test_the_nodes_own_address_is_found_and_is_never_a_vip(
    net: Segment, tmp_path: Path
) -> None:
    async with node(net["n1"], tmp_path) as n1:
        for version, own in ((4, "10.0.0.1"), (6, "fd00::1")):
            await n1.settle(state("n1", version, True))
            with net["n1"].entered():
                found = await n1.host.node_address(LinkName("eth0"), version)
                assert found == ip_address(own)
            await n1.settle(undone(state("n1", version, True)))


@FAMILIES
@METHODS
async def test_every_client_on_the_segment_reaches_every_backend(
    net: Segment, tmp_path: Path, version: int, method: Forwarding
) -> None:
    vip, direct = VIPS[version], method is Forwarding.DIRECT
    async with contextlib.AsyncExitStack() as stack:
        nodes = {n: await stack.enter_async_context(node(net[n], tmp_path)) for n in NODES}
        roles = {n: state(n, version, n == "n1", method) for n in NODES}
        for name in NODES:
            await net.serve(name, version)
            await nodes[name].settle(roles[name])
        shown, own = _table(net["n1"], version, direct)
        try:
            for name in (CLIENT, "n1", "n2"):
                answered, seen = await net.reached(name, vip)
                assert answered == set(NODES), (name, answered)
                if direct:
                    assert seen == {own(name)}, (name, seen)
        finally:
            net["n1"].run("ipvsadm", "-D", "-t", shown)
            for name in NODES:
                await nodes[name].settle(undone(roles[name]))


def _table(space: Namespace, version: int, direct: bool) -> tuple[str, Callable[[str], str]]:
    base, open_, close = ("10.0.0.", "", "") if version == 4 else ("fd00::", "[", "]")
    vip = f"{open_}{VIPS[version]}{close}:6443"
    space.run("ipvsadm", "-A", "-t", vip, "-s", "rr")
    for number in (1, 2, 3):
        real = f"{open_}{base}{number}{close}:6443"
        space.run("ipvsadm", "-a", "-t", vip, "-r", real, "-g" if direct else "-m")

    def own(name: str) -> str:
        return base + ("100" if name == CLIENT else name.removeprefix("n"))

    return vip, own


async def test_only_the_director_answers_arp_for_the_vip(net: Segment, tmp_path: Path) -> None:
    async with node(net["n1"], tmp_path) as n1, node(net["n2"], tmp_path) as n2:
        await n2.settle(state("n2", 4, False))
        assert net.who_has(VIPS[4]) == set()
        await n1.settle(state("n1", 4, True))
        assert net.who_has(VIPS[4]) == {net.mac("n1")}
        net["n2"].sysctl("net/ipv4/conf/eth0/arp_ignore", "0")
        assert net.who_has(VIPS[4]) == {net.mac("n1")}, "the narrow rules hold without arp_ignore"
        for made in (n1, n2):
            await made.settle(undone(state(made.space.name, 4, True)))


async def test_a_follower_does_not_answer_neighbor_solicitations(
    net: Segment, tmp_path: Path
) -> None:
    net[CLIENT].sysctl("net/ipv6/neigh/eth0/retrans_time_ms", "50")
    async with node(net["n2"], tmp_path) as n2:
        await net.serve("n2", 6)
        await n2.settle(state("n2", 6, False))
        net[CLIENT].ip("-6 neigh flush all")
        assert await net.ask(CLIENT, VIPS[6]) == f"OSError {errno.EHOSTUNREACH}"
        await n2.settle(undone(state("n2", 6, False)))


async def test_looking_is_cheap(
    net: Segment, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    async with node(net["n1"], tmp_path) as n1:
        wanted = combined((state("n1", 4, True), state("n1", 6, True)))
        with net["n1"].entered():
            started = time.perf_counter()
            await n1.host.observe(wanted)
            imported = time.perf_counter()
        await n1.settle(wanted)
        applied = time.perf_counter()
        await n1.settle(wanted)
        with net["n1"].entered():
            begun = time.process_time()
            for _ in range(50):
                n1.host._read = None
                await n1.host.observe(wanted)
            whole = time.process_time()
            for _ in range(200):
                await n1.host.observe(wanted)
            glance = time.process_time()
        figures = {
            "first look ms": (imported - started) * 1000,
            "from scratch ms": (applied - imported) * 1000,
            "whole look CPU ms": (whole - begun) * 1000 / 50,
            "glance CPU ms": (glance - whole) * 1000 / 200,
        }
        for name, value in figures.items():
            record_property(name, f"{value:.3f}")
            sys.stdout.write(f"{name}: {value:.3f}\n")
        await n1.settle(undone(wanted))
    cost = figures["glance CPU ms"] * 2 + figures["whole look CPU ms"] / 10
    assert cost < 10, f"{cost} ms of CPU per second"


async def test_thousands_of_looks_leave_no_memory_behind(net: Segment, tmp_path: Path) -> None:
    async with node(net["n1"], tmp_path) as n1:
        wanted = state("n1", 4, False)
        await n1.settle(wanted)
        with net["n1"].entered():
            queue = n1.host._netlink._socket.msg_queue
            for _ in range(200):
                n1.host._read = None
                await n1.host.observe(wanted)
            assert queue.root.empty()
            assert set(queue.queues) == {0}
        await n1.settle(undone(wanted))


def test_the_topology_stands() -> None:
    with segment() as made, made["n1"].entered():
        assert socket.if_nametoindex("eth0") > 0
