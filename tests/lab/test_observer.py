"""The observer's parsers on recorded bytes and, in the lab, on the real kernel beside ipvsadm."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from lab.capture import (
    Neighbor,
    NeighborCapture,
    arp_question,
    parse,
    read_neighbors,
    solicitation,
    who_answers,
)
from lab.observer import (
    CMD_ATTR_SERVICE,
    Destination,
    NoIpvsError,
    Service,
    TableReader,
    attributes,
    describe,
    messages,
    parse_service,
    read_changes,
    read_tables,
    wait_until,
    watch,
)

# Answers of Linux 6.1 to IPVS_CMD_GET_SERVICE and IPVS_CMD_GET_DEST, without the netlink header,
# after: ipvsadm -A -t 10.0.1.10:6443 -s mh -b mh-fallback,mh-port and two -a -g; -A -t
# [fd00::10]:6443 -s wlc and -a -r [fd00::16]:6444 -m -w 7; -A -f 5 -s rr.
SERVICE_V4 = bytes.fromhex(
    "010100005401010006000100020000000600020006000000140003000a00010a000000000000000000000000"
    "06000400192b0000070006006d6800000c0007001a000000ffffffff080008000000000008000900ffffffff"
    "60000a000800010000000000080002000000000008000300000000000c000400000000000000000004000b00"
    "0c00050000000000000000000800060000000000080007000000000008000800000000000800090000000000"
    "08000a0000000000a0000c000c000100000000000000000004000b000c000200000000000000000004000b00"
    "0c000300000000000000000004000b000c000400000000000000000004000b000c0005000000000000000000"
    "04000b000c000600000000000000000004000b000c000700000000000000000004000b000c00080000000000"
    "0000000004000b000c000900000000000000000004000b000c000a000000000000000000"
)
DESTINATION_19 = bytes.fromhex(
    "050100007c010200140001000a00011300000000000000000000000006000200192b00000800030003000000"
    "080004000000000005000d000000000006000e000000000006000f0000000000080005000000000008000600"
    "0000000008000700000000000800080000000000080009000000000006000b000200000064000a0008000100"
    "000000000800020000000000080003000000000004000b000c000400000000000000000004000b000c000500"
    "0000000000000000080006000000000008000700000000000800080000000000080009000000000008000a00"
    "00000000a0000c000c000100000000000000000004000b000c000200000000000000000004000b000c000300"
    "000000000000000004000b000c000400000000000000000004000b000c000500000000000000000004000b00"
    "0c000600000000000000000004000b000c000700000000000000000004000b000c0008000000000000000000"
    "04000b000c000900000000000000000004000b000c000a000000000000000000"
)
DESTINATION_16 = bytes.fromhex(
    "050100007c010200140001000a00011000000000000000000000000006000200192b00000800030003000000"
    "080004000100000005000d000000000006000e000000000006000f0000000000080005000000000008000600"
    "0000000008000700000000000800080000000000080009000000000006000b000200000064000a0008000100"
    "000000000800020000000000080003000000000004000b000c000400000000000000000004000b000c000500"
    "0000000000000000080006000000000008000700000000000800080000000000080009000000000008000a00"
    "00000000a0000c000c000100000000000000000004000b000c000200000000000000000004000b000c000300"
    "000000000000000004000b000c000400000000000000000004000b000c000500000000000000000004000b00"
    "0c000600000000000000000004000b000c000700000000000000000004000b000c0008000000000000000000"
    "04000b000c000900000000000000000004000b000c000a000000000000000000"
)
SERVICE_V6 = bytes.fromhex(
    "0101000054010100060001000a000000060002000600000014000300fd000000000000000000000000000010"
    "06000400192b000008000600776c63000c00070002000000ffffffff08000800000000000800090080000000"
    "60000a000800010000000000080002000000000008000300000000000c000400000000000000000004000b00"
    "0c00050000000000000000000800060000000000080007000000000008000800000000000800090000000000"
    "08000a0000000000a0000c000c000100000000000000000004000b000c000200000000000000000004000b00"
    "0c000300000000000000000004000b000c000400000000000000000004000b000c0005000000000000000000"
    "04000b000c000600000000000000000004000b000c000700000000000000000004000b000c00080000000000"
    "0000000004000b000c000900000000000000000004000b000c000a000000000000000000"
)
DESTINATION_V6 = bytes.fromhex(
    "050100007c01020014000100fd00000000000000000000000000001606000200192c00000800030000000000"
    "080004000700000005000d000000000006000e000000000006000f0000000000080005000000000008000600"
    "0000000008000700000000000800080000000000080009000000000006000b000a00000064000a0008000100"
    "000000000800020000000000080003000000000004000b000c000400000000000000000004000b000c000500"
    "0000000000000000080006000000000008000700000000000800080000000000080009000000000008000a00"
    "00000000a0000c000c000100000000000000000004000b000c000200000000000000000004000b000c000300"
    "000000000000000004000b000c000400000000000000000004000b000c000500000000000000000004000b00"
    "0c000600000000000000000004000b000c000700000000000000000004000b000c0008000000000000000000"
    "04000b000c000900000000000000000004000b000c000a000000000000000000"
)
SERVICE_MARK = bytes.fromhex(
    "010100003c0101000600010002000000080005000500000007000600727200000c00070002000000ffffffff"
    "080008000000000008000900ffffffff64000a00080001000000000008000200000000000800030000000000"
    "04000b000c000400000000000000000004000b000c0005000000000000000000080006000000000008000700"
    "000000000800080000000000080009000000000008000a0000000000a0000c000c0001000000000000000000"
    "04000b000c000200000000000000000004000b000c000300000000000000000004000b000c00040000000000"
    "0000000004000b000c000500000000000000000004000b000c000600000000000000000004000b000c000700"
    "000000000000000004000b000c000800000000000000000004000b000c000900000000000000000004000b00"
    "0c000a000000000000000000"
)

CLONE_NEWNET = 0x40000000
MAC = bytes.fromhex("020000000016")


def parsed(service: bytes, *destinations: bytes) -> Service:
    return parse_service(attributes(service[4:])[CMD_ATTR_SERVICE], list(destinations))


def test_a_service_is_read_with_its_destinations_in_order() -> None:
    assert parsed(SERVICE_V4, DESTINATION_19, DESTINATION_16) == Service(
        "TCP",
        "10.0.1.10",
        6443,
        0,
        "mh",
        0x18,
        (
            Destination("10.0.1.16", 6443, 1, "direct"),
            Destination("10.0.1.19", 6443, 0, "direct"),
        ),
    )


def test_an_ipv6_service_is_read() -> None:
    service = parsed(SERVICE_V6, DESTINATION_V6)
    assert service.name == "TCP [fd00::10]:6443"
    assert service.destinations == (Destination("fd00::16", 6444, 7, "masquerade"),)


def test_a_service_by_mark_has_no_address() -> None:
    service = parsed(SERVICE_MARK)
    assert (service.name, service.address, service.scheduler) == ("FWM 5", "", "rr")


def test_the_tables_are_told_in_one_line() -> None:
    told = "TCP 10.0.1.10:6443 mh -> 10.0.1.16:6443 direct 1, 10.0.1.19:6443 direct 0"
    assert describe([parsed(SERVICE_V4, DESTINATION_19, DESTINATION_16)]) == told
    assert describe([]) == "empty"


def test_counters_do_not_make_tables_differ() -> None:
    busy = Destination("10.0.1.16", 6443, 1, "direct", active=3, inactive=9)
    assert busy == Destination("10.0.1.16", 6443, 1, "direct")


def test_several_messages_in_a_datagram_are_told_apart() -> None:
    one = bytes.fromhex("15000000 2000 0200 07000000 00000000".replace(" ", "")) + b"hello\0\0\0"
    two = bytes.fromhex("14000000 0300 0200 07000000 00000000".replace(" ", "")) + bytes(4)
    assert list(messages(one + two)) == [(32, 7, b"hello"), (3, 7, bytes(4))]


@pytest.mark.skipif(Path("/proc/net/ip_vs").exists(), reason="this kernel has ip_vs")
def test_a_kernel_without_ipvs_is_told() -> None:
    with pytest.raises(NoIpvsError):
        read_tables()


def test_an_arp_question_claims_nothing() -> None:
    frame = arp_question(MAC, IPv4Address("10.0.1.16"), IPv4Address("10.0.1.10"))
    assert frame.hex() == (
        "ffffffffffff020000000016080600010800060400010200000000160a0001100000000000000a00010a"
    )
    heard = parse(frame, 7)
    assert heard == Neighbor(7, "who-has", "02:00:00:00:00:16", "10.0.1.16", "10.0.1.10", False)
    assert heard.claims is None


@pytest.mark.parametrize(("operation", "kind"), [(1, "who-has"), (2, "is-at")])
def test_both_forms_of_gratuitous_arp_claim_the_address(operation: int, kind: str) -> None:
    vip = IPv4Address("10.0.1.10")
    frame = bytearray(arp_question(MAC, vip, vip))
    frame[21] = operation
    heard = parse(bytes(frame), 0)
    assert heard is not None
    assert (heard.kind, heard.gratuitous, heard.claims) == (kind, True, "10.0.1.10")


def test_a_solicitation_has_the_checksum_of_rfc_4443() -> None:
    source, vip = IPv6Address("fe80::16"), IPv6Address("fd00::10")
    frame = solicitation(MAC, source, vip)
    assert frame[:14].hex() == "3333ff00001002000000001686dd"
    words = source.packed + frame[38:54] + (32).to_bytes(4, "big") + (58).to_bytes(4, "big")
    words += frame[54:]
    assert sum(int.from_bytes(words[i : i + 2], "big") for i in range(0, 72, 2)) % 0xFFFF == 0
    heard = parse(frame, 0)
    assert heard == Neighbor(0, "solicitation", "02:00:00:00:00:16", "fe80::16", "fd00::10", False)


@pytest.mark.parametrize(("flags", "gratuitous"), [(0x60, False), (0x20, True)])
def test_an_advertisement_nobody_asked_for_is_gratuitous(flags: int, gratuitous: bool) -> None:
    frame = bytearray(solicitation(MAC, IPv6Address("fd00::10"), IPv6Address("fd00::10")))
    frame[54], frame[58], frame[78] = 136, flags, 2
    heard = parse(bytes(frame), 0)
    assert heard is not None
    assert (heard.mac, heard.gratuitous) == ("02:00:00:00:00:16", gratuitous)
    assert heard.claims == "fd00::10"


@pytest.mark.parametrize("frame", [b"", bytes(60), bytes(12) + b"\x86\xdd" + bytes(80)])
def test_other_frames_are_not_about_neighbors(frame: bytes) -> None:
    assert parse(frame, 0) is None


@pytest.fixture
def namespace() -> Iterator[None]:
    """A network namespace of the test's own, empty."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        told("ip link set lo up")  # without it ip_vs takes no address for a unicast one
        yield
        libc.setns(home, CLONE_NEWNET)
    finally:
        os.close(home)


def told(*commands: str) -> str:
    """The output of the last command."""
    return [
        subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout
        for command in commands
    ][-1]


@pytest.mark.kernel
@pytest.mark.usefixtures("namespace")
def test_the_kernel_tables_are_those_that_ipvsadm_made() -> None:
    assert read_tables() == []
    told(
        "ipvsadm -A -t 10.0.1.10:6443 -s mh -b mh-fallback,mh-port",
        "ipvsadm -a -t 10.0.1.10:6443 -r 10.0.1.19:6443 -g -w 0",
        "ipvsadm -a -t 10.0.1.10:6443 -r 10.0.1.16:6443 -g -w 1",
        "ipvsadm -A -t [fd00::10]:6443 -s wlc",
        "ipvsadm -a -t [fd00::10]:6443 -r [fd00::16]:6444 -m -w 7",
        "ipvsadm -A -f 5 -s rr",
    )
    expected = [
        parsed(SERVICE_MARK),
        parsed(SERVICE_V4, DESTINATION_16, DESTINATION_19),
        parsed(SERVICE_V6, DESTINATION_V6),
    ]
    assert read_tables() == expected


@pytest.mark.kernel
@pytest.mark.usefixtures("namespace")
def test_a_large_table_is_read_whole() -> None:
    told("ipvsadm -A -t 10.0.1.10:6443 -s rr")
    rules = "".join(
        f"-a -t 10.0.1.10:6443 -r 10.1.{n // 250}.{n % 250 + 1}:1\n" for n in range(600)
    )
    subprocess.run(["ipvsadm", "-R"], input=rules, check=True, capture_output=True, text=True)
    (service,) = read_tables()
    assert len(service.destinations) == 600


@pytest.mark.kernel
@pytest.mark.usefixtures("namespace")
def test_one_reading_takes_less_than_a_millisecond() -> None:
    told("ipvsadm -A -t 10.0.1.10:6443 -s mh")
    for host in (16, 19, 20):
        told(f"ipvsadm -a -t 10.0.1.10:6443 -r 10.0.1.{host}:6443 -g")
    with TableReader() as reader:
        spans = []
        for _ in range(100):
            start = time.perf_counter()
            reader.read()
            spans.append(time.perf_counter() - start)
    assert sorted(spans)[50] < 0.001


@pytest.mark.kernel
@pytest.mark.usefixtures("namespace")
def test_changes_are_watched_and_awaited(tmp_path: Path) -> None:
    path = tmp_path / "changes.jsonl"
    watching = multiprocessing.get_context("fork").Process(target=watch, args=(path, 30.0))
    watching.start()
    try:
        before = time.monotonic_ns()
        while not path.exists() or not read_changes(path):
            time.sleep(0.001)
        told("ipvsadm -A -t 10.0.1.10:6443 -s rr")
        seen = wait_until(lambda tables: len(tables) == 1, 5)
        while len(read_changes(path)) < 2:
            time.sleep(0.001)
    finally:
        watching.kill()
        watching.join()
    empty, changed = read_changes(path)
    assert (empty.tables, [service.name for service in changed.tables]) == (
        [],
        ["TCP 10.0.1.10:6443"],
    )
    assert before < empty.at <= changed.before < changed.at
    assert seen > changed.before


@pytest.mark.kernel
@pytest.mark.usefixtures("namespace")
def test_waiting_in_vain_tells_the_tables() -> None:
    told("ipvsadm -A -t 10.0.1.10:6443 -s rr")
    with pytest.raises(TimeoutError, match=r"TCP 10\.0\.1\.10:6443 rr"):
        wait_until(lambda tables: not tables, 0.02)


@pytest.fixture
def neighbor(namespace: None) -> Iterator[str]:
    """A host at the other end of the link `near`: 10.9.0.2 and fd09::2; its MAC address."""
    holder = subprocess.Popen(
        ["unshare", "-n", "sh", "-c", "echo ready; exec sleep 60"], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    inside = f"nsenter -t {holder.pid} -n"
    told(
        f"ip link add near type veth peer name far netns {holder.pid}",
        "ip link set near up",
        "ip addr add 10.9.0.1/24 dev near",
        f"{inside} ip link set far address 02:00:00:00:00:02 up",
        f"{inside} ip addr add 10.9.0.2/24 dev far",
        f"{inside} ip addr add fd09::2/64 dev far nodad",
    )
    yield "02:00:00:00:00:02"
    holder.kill()
    holder.communicate()


@pytest.mark.kernel
@pytest.mark.parametrize("address", ["10.9.0.2", "fd09::2"])
def test_who_answers_is_found_by_asking(neighbor: str, address: str) -> None:
    answers = who_answers("near", ip_address(address))
    assert set(answers) == {neighbor}
    assert answers[neighbor] <= time.monotonic_ns()


@pytest.mark.kernel
@pytest.mark.usefixtures("neighbor")
def test_nobody_answers_for_an_address_that_nobody_has() -> None:
    assert who_answers("near", IPv4Address("10.9.0.3"), window=0.1) == {}


@pytest.mark.kernel
@pytest.mark.usefixtures("neighbor")
def test_a_capture_hears_announcements(tmp_path: Path) -> None:
    vip = IPv4Address("10.9.0.10")
    with NeighborCapture("near") as hearing, NeighborCapture("near") as sending:
        sending.send(bytes(12) + b"\x08\x00" + bytes(46))  # not about neighbors
        sending.send(arp_question(MAC, vip, vip))
        hearing.record(tmp_path / "arp.jsonl", 0.1)
    heard = [n for n in read_neighbors(tmp_path / "arp.jsonl") if n.claims == "10.9.0.10"]
    assert [(n.kind, n.mac, n.gratuitous) for n in heard] == [
        ("who-has", "02:00:00:00:00:16", True)
    ]
