"""The sync daemons on a real kernel: what we start ipvsadm reads, and the other way round.

Each test has a network namespace of its own, with an interface that has addresses.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from revip.adapters.host import LinuxHost
from revip.adapters.ipvs import GenetlinkIpvs
from revip.errors import KernelError
from revip.model.host import HostState, Sysctl
from revip.model.ipvs import Port, ServiceKey
from revip.model.spec import LinkName
from revip.model.sync import SYNC_GROUP6, SyncDaemon, SyncRole
from revip.wire.ipvs_sync import Connection, sync_messages

pytestmark = pytest.mark.kernel

CLONE_NEWNET = 0x40000000
LINK = LinkName("d0")
MASTER = SyncDaemon(SyncRole.MASTER, LINK, 51)
BACKUP = SyncDaemon(SyncRole.BACKUP, LINK, 51)


@pytest.fixture(autouse=True)
def _own_network_namespace() -> Iterator[None]:
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as home:
        if libc.unshare(CLONE_NEWNET) != 0:
            pytest.fail(f"unshare: {os.strerror(ctypes.get_errno())}")
        _make_link()
        yield
        for role in ("master", "backup"):
            subprocess.run(["ipvsadm", "--stop-daemon", role], capture_output=True, check=False)
        assert libc.setns(home.fileno(), CLONE_NEWNET) == 0


def _make_link() -> None:
    run("ip", "link", "add", LINK, "type", "dummy")
    run("ip", "addr", "add", "10.0.1.16/24", "dev", LINK)
    run("ip", "addr", "add", "fd00:1::16/64", "dev", LINK, "nodad")
    run("ip", "link", "set", LINK, "up")


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def daemons() -> list[str]:
    return run("ipvsadm", "-L", "--daemon").splitlines()


@pytest.fixture
def kernel() -> Iterator[GenetlinkIpvs]:
    opened = GenetlinkIpvs()
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("daemon", "shown"),
    [
        (MASTER, "master sync daemon (mcast=d0, syncid=51, maxlen=1472, group=224.0.0.81, "),
        (BACKUP, "backup sync daemon (mcast=d0, syncid=51, maxlen=1472, group=224.0.0.81, "),
        (replace(MASTER, group=SYNC_GROUP6), "master sync daemon (mcast=d0, syncid=51, maxlen="),
        (replace(BACKUP, syncid=7, maxlen=1100, ttl=3), "backup sync daemon (mcast=d0, syncid=7, "),
    ],
    ids=["master", "backup", "ipv6", "all-else"],
)
def test_ipvsadm_reads_what_we_start(kernel: GenetlinkIpvs, daemon: SyncDaemon, shown: str) -> None:
    kernel.start_daemon(daemon)
    (line,) = daemons()
    assert line.startswith(shown)
    assert f"group={daemon.group}, port=8848, ttl={daemon.ttl})" in line
    if daemon.maxlen:
        assert f"maxlen={daemon.maxlen}," in line
    assert kernel.daemons() == {daemon}
    kernel.stop_daemon(daemon.role)
    assert not daemons()
    assert kernel.daemons() == frozenset()


@pytest.mark.parametrize(
    ("options", "daemon"),
    [
        ((), BACKUP),
        (("--mcast-group", "ff02::81"), replace(BACKUP, group=SYNC_GROUP6)),
        (("--mcast-ttl", "3", "--mcast-port", "9000"), replace(BACKUP, ttl=3, port=Port(9000))),
    ],
    ids=["usual", "ipv6", "ttl-and-port"],
)
def test_we_read_what_ipvsadm_starts(
    kernel: GenetlinkIpvs, options: tuple[str, ...], daemon: SyncDaemon
) -> None:
    start = ("ipvsadm", "--start-daemon", "backup", "--mcast-interface", LINK, "--syncid", "51")
    run(*start, *options)
    assert kernel.daemons() == {daemon}


def test_both_run_at_once_and_a_second_of_a_role_is_refused(kernel: GenetlinkIpvs) -> None:
    kernel.start_daemon(MASTER)
    kernel.start_daemon(BACKUP)
    assert kernel.daemons() == {MASTER, BACKUP}
    with pytest.raises(KernelError) as refused:
        kernel.start_daemon(replace(MASTER, syncid=7))
    assert refused.value.errno == errno.EEXIST
    kernel.stop_daemon(SyncRole.MASTER)
    kernel.stop_daemon(SyncRole.MASTER)
    assert kernel.daemons() == {BACKUP}


def test_an_interface_that_is_not_there_is_named(kernel: GenetlinkIpvs) -> None:
    with pytest.raises(KernelError, match="no such interface"):
        kernel.start_daemon(replace(MASTER, link=LinkName("d1")))


def test_starting_and_stopping_holds_nobody_up(
    kernel: GenetlinkIpvs, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both wait for the rtnl lock, which the end of an earlier test's namespace may hold.
    monkeypatch.setattr("revip.adapters.ipvs.PATIENCE", 10.0)
    spans = []
    for daemon in (MASTER, BACKUP) * 10:
        began = time.perf_counter()
        kernel.start_daemon(daemon)
        started = time.perf_counter()
        kernel.stop_daemon(daemon.role)
        spans.append((started - began, time.perf_counter() - started))
    start, stop = (statistics.median(each) * 1000 for each in zip(*spans, strict=True))
    print(f"median: start {start:.1f} ms, stop {stop:.1f} ms")  # noqa: T201
    assert max(start, stop) < 100


def settled(host: LinuxHost, wanted: HostState) -> frozenset[object]:
    """Bring `wanted` about as an agent does; return what still is not so."""
    from revip.planner.host import host_diff

    async def bring() -> frozenset[object]:
        for _ in range(3):
            remove, add = host_diff(wanted, await host.observe(wanted))
            try:
                await host.apply(remove, add)
            except KernelError:
                await host.close()
                raise
        remove, add = host_diff(wanted, await host.observe(wanted))
        await host.close()
        return frozenset((*remove, *add))

    return asyncio.run(bring())


@pytest.fixture
def host(kernel: GenetlinkIpvs, tmp_path: Path) -> LinuxHost:
    return LinuxHost(tmp_path / "host.json", daemons=kernel)


FOLLOWING = HostState(
    frozenset({BACKUP, Sysctl("net.ipv4.vs.backup_only", "1")}), frozenset({MASTER})
)
LEADING = HostState(
    frozenset({MASTER, Sysctl("net.ipv4.vs.backup_only", "0")}), frozenset({BACKUP})
)
GONE = HostState(absent=FOLLOWING.present | LEADING.present)


def test_the_role_changes_and_cleanup_leaves_nothing(host: LinuxHost) -> None:
    before = Path("/proc/sys/net/ipv4/vs/backup_only").read_text()
    assert not settled(host, FOLLOWING)
    assert [line.split()[0] for line in daemons()] == ["backup"]
    assert not settled(host, LEADING)
    assert [line.split()[0] for line in daemons()] == ["master"]
    run("ipvsadm", "--stop-daemon", "master")
    assert not settled(host, LEADING)
    assert [line.split()[0] for line in daemons()] == ["master"]
    assert not settled(host, GONE)
    assert not daemons()
    assert Path("/proc/sys/net/ipv4/vs/backup_only").read_text() == before


def test_a_daemon_of_ours_with_another_number_is_replaced(
    host: LinuxHost, kernel: GenetlinkIpvs, tmp_path: Path
) -> None:
    assert not settled(host, HostState(frozenset({BACKUP})))
    other = replace(BACKUP, syncid=7)
    restarted = LinuxHost(tmp_path / "host.json", daemons=kernel)
    assert not settled(restarted, HostState(frozenset({other})))
    assert kernel.daemons() == {other}


def test_a_foreign_daemon_is_left_alone_and_told(host: LinuxHost, kernel: GenetlinkIpvs) -> None:
    foreign = replace(BACKUP, syncid=99)
    kernel.start_daemon(foreign)
    with pytest.raises(KernelError, match=r"another program's runs .*syncid 99.*agent\.sync: off"):
        settled(host, HostState(frozenset({BACKUP})))
    assert not settled(host, GONE)
    assert kernel.daemons() == {foreign}


def test_one_on_an_interface_that_was_made_anew_is_started_again(
    host: LinuxHost, kernel: GenetlinkIpvs
) -> None:
    assert not settled(host, HostState(frozenset({BACKUP})))
    run("ip", "link", "del", LINK)
    _make_link()
    assert kernel.daemons() == {BACKUP}  # the kernel says nothing of it
    assert not settled(host, HostState(frozenset({BACKUP})))
    assert "224.0.0.81" in run("ip", "maddr", "show", "dev", LINK)


def test_whoever_stops_it_is_noticed(host: LinuxHost) -> None:
    wanted = HostState(frozenset({BACKUP}))

    async def story() -> float:
        await host.apply((), (BACKUP,))
        await host.observe(wanted)
        changes = host.changes()
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0.1)
        run("ipvsadm", "--stop-daemon", "backup")
        began = time.monotonic()
        await asyncio.wait_for(waiting, 5)
        await host.close()
        return time.monotonic() - began

    assert asyncio.run(story()) < 2


def test_what_a_follower_was_told_is_bound_to_the_table_of_the_new_director(
    kernel: GenetlinkIpvs, host: LinuxHost
) -> None:
    """Tell the daemon of two connections; only one of their destinations is in the table."""
    vip, n2, n3 = (ip_address(f"10.0.1.{number}") for number in (10, 19, 20))
    key = ServiceKey(vip, Port(6443))
    told = [
        Connection(ip_address("10.0.1.50"), port, key, to, Port(6443), "ESTABLISHED", 900)
        for port, to in ((1001, n2), (1002, n3))
    ]
    assert not settled(host, HostState(frozenset({BACKUP})))
    run("sysctl", "-qw", "net.ipv4.vs.sync_threshold=0 0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as master:
        master.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.0.1.16"))
        for message in sync_messages(51, told):
            master.sendto(message, (str(BACKUP.group), BACKUP.port))
    time.sleep(0.3)
    assert [line.split()[-1] for line in listed()] == ["10.0.1.19:6443", "10.0.1.20:6443"]
    run("ipvsadm", "-A", "-t", f"{vip}:6443", "-s", "mh")
    run("ipvsadm", "-a", "-t", f"{vip}:6443", "-r", f"{n2}:6443", "-g")
    counted = kernel.observe(frozenset({key})).counters
    assert counted[key, n2, Port(6443)].active == 0, "the kernel has not bound it by itself"
    assert not settled(host, HostState(absent=frozenset({BACKUP})))
    assert not daemons()
    assert [line.split()[-1] for line in listed()] == ["10.0.1.19:6443", "10.0.1.19:6443"]
    counted = kernel.observe(frozenset({key})).counters
    assert counted[key, n2, Port(6443)].active == 2


def listed() -> list[str]:
    found = [line for line in run("ipvsadm", "-Lnc").splitlines() if line.startswith("TCP")]
    return sorted(found, key=lambda line: line.split()[3])
