"""`GenetlinkIpvs` on a real kernel, each test in a network namespace of its own.

What we program is read by ipvsadm, what ipvsadm programs is read by us, and the kernel's own
bytes after either are the same.  The figures are printed (`pytest -s`) and bounded.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from revip.adapters.ipvs import GenetlinkIpvs, explained, load_modules
from revip.errors import KernelError
from revip.model.ipvs import (
    AddDestination,
    AddServer,
    Change,
    DeleteDestination,
    DeleteServer,
    Port,
    ServiceKey,
    SetDestination,
    SetServer,
    VirtualServer,
    table,
)
from revip.planner.diff import diff, owned
from revip.wire import ipvs
from revip.wire.netlink import NLM_F_DUMP, attribute, attributes, generic_attributes
from tests.kernel.ipvs_cases import CASES, N1, N2, N3, VIP, VIP6, server, to

pytestmark = pytest.mark.kernel

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1


@pytest.fixture(autouse=True)
def _own_network_namespace() -> Iterator[None]:
    """Move this thread, and so what it starts, into a namespace that is empty and goes with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as home:
        if libc.unshare(CLONE_NEWNET) != 0:
            pytest.fail(f"unshare: {os.strerror(ctypes.get_errno())}")
        _loopback_up()
        yield
        assert libc.setns(home.fileno(), CLONE_NEWNET) == 0


def _loopback_up() -> None:
    """Without an interface that is up the kernel has no IPv4 routes and calls nothing unicast."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        fcntl.ioctl(asking, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", IFF_UP))


@pytest.fixture
def kernel() -> Iterator[GenetlinkIpvs]:
    opened = GenetlinkIpvs()
    yield opened
    opened.close()


def ipvsadm(*arguments: str, rules: str | None = None) -> str:
    done = subprocess.run(
        ["ipvsadm", *arguments], input=rules, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def sorted_lines(rules: str) -> list[str]:
    return sorted(line.strip() for line in rules.splitlines() if line.strip())


def kernel_bytes(kernel: GenetlinkIpvs, key: ServiceKey) -> list[dict[int, bytes]]:
    """What the kernel says of `key` and its destinations, attribute by attribute, uncounted."""
    raw = kernel._ask(ipvs.dump_services(), NLM_F_DUMP)
    raw += kernel._ask(ipvs.dump_destinations(key), NLM_F_DUMP)
    answers = [attributes(part) for answer in raw for part in generic_attributes(answer).values()]
    return [
        {kind: value for kind, value in answer.items() if kind not in (10, 12)}
        for answer in answers
    ]


def refusal(act: Callable[[], object]) -> KernelError:
    with pytest.raises(KernelError) as refused:
        act()
    return refused.value


@pytest.mark.parametrize("name", CASES)
def test_ipvsadm_reads_what_we_write(kernel: GenetlinkIpvs, name: str) -> None:
    desired, *rules = CASES[name]
    kernel.apply(diff(table([desired]), {}))
    saved = [rule.removesuffix(" -x 100 -y 50") for rule in rules]  # which ipvsadm -S forgets
    assert sorted_lines(ipvsadm("-Sn")) == sorted(saved)


def test_ipvsadm_reads_the_thresholds_that_we_write(kernel: GenetlinkIpvs) -> None:
    desired, *_ = CASES["thresholds"]
    kernel.apply(diff(table([desired]), {}))
    *_, line = ipvsadm("-Ln", "--thresholds").splitlines()
    assert line.split() == ["->", "10.0.1.16:6443", "100", "50", "0", "0"]


@pytest.mark.parametrize("name", CASES)
def test_we_read_what_ipvsadm_writes(kernel: GenetlinkIpvs, name: str) -> None:
    desired, *rules = CASES[name]
    ipvsadm("-R", rules="\n".join(rules) + "\n")
    keys = frozenset({desired.key})
    for observed in (kernel.observe(keys), kernel.observe()):
        assert observed.table == table([desired])
        assert diff(table([desired]), observed.table) == ()
        assert {key[0] for key in observed.counters} == keys


@pytest.mark.parametrize("name", CASES)
def test_the_kernels_bytes_are_the_same_after_us_and_after_ipvsadm(
    kernel: GenetlinkIpvs, name: str
) -> None:
    desired, *rules = CASES[name]
    ipvsadm("-R", rules="\n".join(rules) + "\n")
    theirs = kernel_bytes(kernel, desired.key)
    kernel.apply([DeleteServer(desired.key), *diff(table([desired]), {})])
    assert len(theirs) == 2
    assert kernel_bytes(kernel, desired.key) == theirs


@pytest.mark.parametrize("before", CASES)
def test_any_table_is_turned_into_any_other_in_place(kernel: GenetlinkIpvs, before: str) -> None:
    start = table([CASES[before][0]])
    kernel.apply(diff(start, {}))
    for desired, *_ in CASES.values():
        kernel.apply(diff(table([desired]), kernel.observe().table))
        assert kernel.observe().table == table([desired])
        kernel.apply(diff(start, kernel.observe().table))
    assert kernel.observe().table == start


def test_foreign_services_are_neither_seen_nor_touched(kernel: GenetlinkIpvs) -> None:
    foreign = "-A -t 10.96.0.1:443 -s rr\n-a -t 10.96.0.1:443 -r 10.0.1.16:6443 -m -w 1\n"
    ipvsadm("-R", rules=foreign)
    keys = frozenset({VIP})
    assert kernel.observe(keys).table == {}
    desired = table([server(VIP, "mh", to=(N1, N2, N3))])
    kernel.apply(diff(desired, kernel.observe(keys).table))
    kernel.apply(diff({}, kernel.observe(keys).table))
    assert sorted_lines(ipvsadm("-Sn")) == sorted_lines(foreign)


def test_a_service_of_a_protocol_without_a_name_is_passed_over(kernel: GenetlinkIpvs) -> None:
    esp = ipvs.request(AddServer(server(VIP, "rr"))).replace(
        attribute(2, (6).to_bytes(2, "little")), attribute(2, (50).to_bytes(2, "little"))
    )
    kernel._ask(esp, 4)
    kernel.apply([AddServer(server(VIP, "rr"))])
    assert list(kernel.observe().table) == [VIP]


@pytest.mark.parametrize(
    ("change", "number", "words"),
    [
        (AddServer(server(VIP, "mh")), errno.EEXIST, "there already"),
        (AddServer(server(VIP6, "maglev")), errno.ENOENT, "modprobe ip_vs_maglev"),
        (SetServer(server(VIP, "maglev")), errno.ENOENT, "modprobe ip_vs_maglev"),
        (SetServer(server(VIP6, "mh")), errno.ESRCH, "changed underneath"),
        (DeleteServer(VIP6), errno.ESRCH, "changed underneath"),
        (AddDestination(VIP6, to("fd00::19")), errno.ESRCH, "changed underneath"),
        (AddDestination(VIP, N1), errno.EEXIST, "there already"),
        (SetDestination(VIP, N2), errno.ENOENT, "the destination is gone"),
        (DeleteDestination(VIP, N2), errno.ENOENT, "the destination is gone"),
        (AddDestination(VIP, to("224.0.0.1")), errno.EINVAL, "unicast"),
        (AddDestination(VIP, to("fd00::19")), errno.EINVAL, "other IP version"),
        (AddDestination(VIP, replace(N3, lower_threshold=9)), errno.ERANGE, "threshold"),
    ],
)
def test_refusals_are_sentences(
    kernel: GenetlinkIpvs, change: Change, number: int, words: str
) -> None:
    kernel.apply(diff(table([server(VIP, "mh", to=(N1,))]), {}))
    refused = refusal(lambda: kernel.apply([change]))
    assert refused.errno == number
    assert words in refused.sentence


def test_applying_stops_at_the_first_that_fails(kernel: GenetlinkIpvs) -> None:
    plan: list[Change] = [AddServer(server(VIP, "mh")), *[AddDestination(VIP, N1)] * 2]
    refused = refusal(lambda: kernel.apply([*plan, AddDestination(VIP, N2)]))
    assert refused.operation == "add 10.0.1.16:6443 weight 1 (direct) to TCP 10.0.1.10:6443"
    assert kernel.observe().table == table([server(VIP, "mh", to=(N1,))])


def test_a_server_deleted_underneath_is_refused_once_and_then_repaired(
    kernel: GenetlinkIpvs,
) -> None:
    keys, full = frozenset({VIP}), table([server(VIP, "mh", to=(N1, N2, N3))])
    kernel.apply(diff(table([server(VIP, "mh", to=(N1,))]), {}))
    plan = diff(full, kernel.observe(keys).table)
    ipvsadm("-C")
    assert refusal(lambda: kernel.apply(plan)).errno == errno.ESRCH
    kernel.apply(diff(full, kernel.observe(keys).table))
    assert kernel.observe(keys).table == full


def test_without_the_capability_the_sentence_names_it() -> None:
    child = os.fork()
    if child == 0:
        os.setgid(65534)
        os.setuid(65534)
        try:
            GenetlinkIpvs().observe()
        except KernelError as error:
            os._exit(0 if error.errno == errno.EPERM and "CAP_NET_ADMIN" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_kernel_tells_its_version(kernel: GenetlinkIpvs) -> None:
    found = kernel.info()
    assert found.version == (1, 2, 1)
    assert found.connection_table_size >= 256


def test_a_socket_that_was_closed_is_opened_again(kernel: GenetlinkIpvs) -> None:
    assert kernel.observe().table == {}
    assert kernel._socket is not None
    kernel._socket.close()
    assert refusal(kernel.observe).errno == errno.EBADF
    assert kernel.observe().table == {}
    kernel.close()
    assert kernel.observe().table == {}


def test_a_family_id_that_is_stale_is_looked_up_again(kernel: GenetlinkIpvs) -> None:
    kernel.apply([AddServer(server(VIP, "rr"))])
    kernel._family = 0x3FF  # no family has it: as after rmmod and modprobe
    assert list(kernel.observe().table) == [VIP]


def test_modprobe_tells_what_it_did_not_find() -> None:
    assert "ip_vs_no_such_thing" in load_modules("ip_vs_no_such_thing")


def test_an_errno_that_nobody_foresaw_is_named_as_the_system_names_it() -> None:
    assert explained(errno.ENOMEM, "x", None, "said").sentence == "Cannot allocate memory (said)"


def big(services: int, destinations: int) -> dict[ServiceKey, VirtualServer]:
    pool = tuple(to(f"10.0.2.{last}") for last in range(1, destinations + 1))
    keys = [ServiceKey(IPv4Address(f"10.0.1.{n}"), Port(6443)) for n in range(1, services + 1)]
    return table(server(key, "mh", "mh-port", "mh-fallback", to=pool) for key in keys)


def figure(text: str) -> None:
    sys.stdout.write(f"\n{text}\n")


def milliseconds(
    act: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> float:
    start = clock()
    act()
    return (clock() - start) * 1000


@pytest.mark.slow
def test_a_cycle_over_three_backends_costs_less_than_two_milliseconds(
    kernel: GenetlinkIpvs,
) -> None:
    desired = table([server(VIP, "mh", "mh-port", "mh-fallback", to=(N1, N2, N3))])
    keys = frozenset(desired)
    kernel.apply(diff(desired, {}))

    def heal() -> None:
        plan = diff(desired, owned(kernel.observe(keys).table, keys))
        assert plan == (AddDestination(VIP, N2),)
        kernel.apply(plan)

    rounds = []
    for _ in range(200):
        kernel.apply([DeleteDestination(VIP, N2)])
        rounds.append(milliseconds(heal, time.process_time))
    mean = statistics.fmean(rounds)  # the clock may be coarser than one round
    figure(f"observe + diff + apply, 3 backends: {mean:.3f} ms CPU (mean of {len(rounds)})")
    assert mean < 2


@pytest.mark.slow
def test_a_large_table_goes_in_as_fast_as_by_ipvsadm(kernel: GenetlinkIpvs) -> None:
    desired = big(100, 10)
    ours, theirs, starting = [], [], []
    kernel.apply(diff(desired, {}))
    rules = ipvsadm("-Sn")
    for _ in range(5):
        ipvsadm("-C")
        ours.append(milliseconds(lambda: kernel.apply(diff(desired, kernel.observe().table))))
        ipvsadm("-C")
        theirs.append(milliseconds(lambda: ipvsadm("-R", rules=rules)))
        assert kernel.observe().table == desired
        starting.append(milliseconds(lambda: ipvsadm("-h")))
    figure(
        f"100 x 10 first sync: p50 {statistics.median(ours):.0f} ms, "
        f"ipvsadm -R: {statistics.median(theirs):.0f} ms "
        f"(of which starting it: {statistics.median(starting):.0f} ms) (n=5)"
    )
    assert min(ours) < 1.5 * min(theirs)


@pytest.mark.slow
def test_one_change_in_a_large_table_takes_milliseconds(
    kernel: GenetlinkIpvs,
) -> None:
    desired = big(100, 10)
    keys, key = frozenset(desired), next(iter(desired))
    victim = min(desired[key].destinations, key=str)
    kernel.apply(diff(desired, {}))

    def heal() -> None:
        plan = diff(desired, owned(kernel.observe(keys).table, keys))
        assert plan == (AddDestination(key, victim),)
        kernel.apply(plan)

    def heal_one() -> None:
        only = frozenset({key})
        kernel.apply(diff({key: desired[key]}, kernel.observe(only).table))

    whole, one = "whole table observed", "only its server observed"
    for name, act, bound in ((whole, heal, 40), (one, heal_one, 20)):
        rounds = []
        for _ in range(20):
            kernel.apply([DeleteDestination(key, victim)])
            rounds.append(milliseconds(act))
        half, worst = statistics.median(rounds), max(rounds)
        figure(f"one change in 100 x 10, {name}: p50 {half:.2f} ms, max {worst:.2f} ms (n=20)")
        assert min(rounds) < bound  # the machine may be busy; we may not
    assert kernel.observe(keys).table == desired
