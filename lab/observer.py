"""The outside observer of IPVS tables: reads them by generic netlink, without revip's code.

Constants and layouts: linux/netlink.h, linux/genetlink.h and linux/ip_vs.h.  All instants are
CLOCK_MONOTONIC nanoseconds, comparable between the processes of one kernel.  Everything looks at
the network namespace of the calling thread.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Self

IPAddress = IPv4Address | IPv6Address

NETLINK_GENERIC = 16
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
GENL_ID_CTRL, CTRL_CMD_GETFAMILY = 16, 3
CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME = 1, 2
IPVS_CMD_NEW_SERVICE, IPVS_CMD_GET_SERVICE = 1, 4
IPVS_CMD_NEW_DEST, IPVS_CMD_GET_DEST = 5, 8
CMD_ATTR_SERVICE, CMD_ATTR_DEST = 1, 2
SVC_AF, SVC_PROTOCOL, SVC_ADDR, SVC_PORT, SVC_FWMARK, SVC_SCHED_NAME, SVC_FLAGS = range(1, 8)
DEST_ADDR, DEST_PORT, DEST_FWD_METHOD, DEST_WEIGHT = range(1, 5)
DEST_ACTIVE_CONNS, DEST_INACT_CONNS = 7, 8
DEST_ADDR_FAMILY = 11
NLA_TYPE_MASK = 0x3FFF
"""Without NLA_F_NESTED and NLA_F_NET_BYTEORDER."""
FORWARDING = ("masquerade", "local", "tunnel", "direct", "bypass")
"""IP_VS_CONN_F_MASQ to IP_VS_CONN_F_BYPASS."""
FORWARDING_MASK = 0x7
RECEIVE_BYTES = 65536
POLL_SECONDS = 0.001
NAP_SECONDS = 0.0002
"""The shortest sleep between two polls, so that the only processor is not held."""


@dataclass(frozen=True, slots=True, order=True)
class Destination:
    """One real server in the kernel's table; counters do not count for equality."""

    address: str
    port: int
    weight: int
    forwarding: str
    active: int = field(compare=False, default=0)
    inactive: int = field(compare=False, default=0)

    def __str__(self) -> str:
        return f"{_at(self.address, self.port)} {self.forwarding} {self.weight}"


@dataclass(frozen=True, slots=True, order=True)
class Service:
    """One virtual server in the kernel's table, its destinations in order of their addresses."""

    protocol: str
    """`TCP`, `UDP`, `SCTP` or `FWM`."""
    address: str
    port: int
    fwmark: int
    scheduler: str
    flags: int
    """IP_VS_SVC_F_*, without IP_VS_SVC_F_HASHED, which is the kernel's own."""
    destinations: tuple[Destination, ...] = ()

    @property
    def name(self) -> str:
        """The service as `ipvsadm -Ln` writes it: `TCP 10.0.1.10:6443`, `FWM 1`."""
        where = str(self.fwmark) if self.fwmark else _at(self.address, self.port)
        return f"{self.protocol} {where}"

    @property
    def weights(self) -> dict[str, int]:
        """Each destination's weight by address."""
        return {destination.address: destination.weight for destination in self.destinations}


Tables = list[Service]
"""All services of a namespace, in order."""


class NoIpvsError(OSError):
    """The kernel has no IPVS: the module is not loaded."""


class TableReader:
    """Reads the tables over one socket; a context manager.  Some 0.1 ms for each service."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._family = 0
        self._sequence = 0

    def __enter__(self) -> Self:
        """Open the socket and look IPVS up; raises `NoIpvsError`."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
        self._socket.settimeout(5.0)
        self._socket.bind((0, 0))
        name = attribute(CTRL_ATTR_FAMILY_NAME, b"IPVS\0")
        try:
            for payload in self._ask(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, name, NLM_F_ACK):
                identity = attributes(payload[4:])[CTRL_ATTR_FAMILY_ID]
                self._family = int.from_bytes(identity[:2], "little")
        except FileNotFoundError as error:
            self._socket.close()
            raise NoIpvsError(error.errno, "no ip_vs in this kernel: modprobe ip_vs") from None
        return self

    def __exit__(self, *_: object) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()

    def read(self) -> Tables:
        """Dump services and destinations; raises OSError."""
        services = []
        for payload in self._ask(self._family, IPVS_CMD_GET_SERVICE, b"", NLM_F_DUMP):
            raw = attributes(payload[4:])[CMD_ATTR_SERVICE]
            request = attribute(CMD_ATTR_SERVICE, _service_key(raw))
            try:
                replies = list(self._ask(self._family, IPVS_CMD_GET_DEST, request, NLM_F_DUMP))
            except OSError:  # ESRCH: deleted since the first dump
                continue
            services.append(parse_service(raw, replies))
        return sorted(services)

    def _ask(self, family: int, command: int, body: bytes, flags: int) -> list[bytes]:
        """Return the payloads of all answers to one request, the generic header first."""
        assert self._socket is not None, "use it in a with block"
        self._sequence += 1
        payload = struct.pack("=BBH", command, 1, 0) + body
        head = struct.pack(
            "=IHHII", 16 + len(payload), family, NLM_F_REQUEST | flags, self._sequence, 0
        )
        self._socket.send(head + payload)
        answers: list[bytes] = []
        while True:
            for kind, sequence, answer in messages(self._socket.recv(RECEIVE_BYTES)):
                if sequence != self._sequence:
                    continue  # the rest of a dump that was given up
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    code = -int(struct.unpack_from("=i", answer)[0])
                    if code:
                        raise OSError(code, os.strerror(code))
                    return answers
                answers.append(answer)


def read_tables() -> Tables:
    """Dump the tables once; raises `NoIpvsError`."""
    with TableReader() as reader:
        return reader.read()


def wait_until(predicate: Callable[[Tables], bool], timeout: float) -> int:
    """Poll every millisecond until `predicate` holds of the tables; return the instant.

    The instant is when the dump that satisfied it was complete.  Raises TimeoutError, with the
    last tables in words.
    """
    deadline = time.monotonic() + timeout
    with TableReader() as reader:
        for _ in _paced():
            tables = reader.read()
            now = time.monotonic_ns()
            if predicate(tables):
                return now
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {timeout} s; the tables are: {describe(tables)}")
    raise AssertionError("polling never ends by itself")


def watch(path: Path, seconds: float) -> None:
    """Record the tables, and then each change of them, as JSON lines for `seconds`.

    A line is `{"at": NS, "before": NS, "services": [...]}`: the change was seen at `at` and was
    not yet there at `before`, the dump before it.
    """
    deadline = time.monotonic() + seconds
    with TableReader() as reader, path.open("w", buffering=1) as file:
        known: Tables | None = None
        before = time.monotonic_ns()
        for asked in _paced():
            if time.monotonic() > deadline:
                return
            tables = reader.read()
            if tables != known:
                services = [asdict(service) for service in tables]
                at = time.monotonic_ns()
                file.write(json.dumps({"at": at, "before": before, "services": services}) + "\n")
                known = tables
            before = asked


def _paced() -> Iterator[int]:
    """Yield the instant every `POLL_SECONDS`, for ever; sleeping itself takes its time in UML."""
    due = time.monotonic()
    while True:
        yield time.monotonic_ns()
        due = max(due + POLL_SECONDS, time.monotonic())
        time.sleep(max(NAP_SECONDS, due - time.monotonic()))


@dataclass(frozen=True, slots=True)
class Change:
    """One line of `watch`."""

    at: int
    before: int
    tables: Tables


def read_changes(path: Path) -> list[Change]:
    """Return what `watch` has recorded so far."""
    whole = path.read_text().rpartition("\n")[0]
    changes = []
    for line in whole.splitlines():
        record = json.loads(line)
        services = [
            Service(**{**s, "destinations": tuple(Destination(**d) for d in s["destinations"])})
            for s in record["services"]
        ]
        changes.append(Change(record["at"], record["before"], services))
    return changes


def describe(tables: Tables) -> str:
    """Return the tables in one line, for people."""
    return (
        "; ".join(
            f"{service.name} {service.scheduler} -> {', '.join(map(str, service.destinations))}"
            for service in tables
        )
        or "empty"
    )


def messages(datagram: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Split a datagram into netlink messages: type, sequence number, payload."""
    offset = 0
    while offset + 16 <= len(datagram):
        length, kind, _, sequence, _ = struct.unpack_from("=IHHII", datagram, offset)
        yield kind, sequence, datagram[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def attributes(payload: bytes) -> dict[int, bytes]:
    """Split netlink attributes; the last one of a type counts."""
    found = {}
    offset = 0
    while offset + 4 <= len(payload):
        length, kind = struct.unpack_from("=HH", payload, offset)
        if length < 4:
            break
        found[kind & NLA_TYPE_MASK] = payload[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def attribute(kind: int, value: bytes) -> bytes:
    """Return one netlink attribute with its padding."""
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def parse_service(raw: bytes, replies: list[bytes]) -> Service:
    """Return the service of IPVS_CMD_ATTR_SERVICE's value and its destinations' dump."""
    found = attributes(raw)
    family = _u16(found[SVC_AF])
    fwmark = int.from_bytes(found.get(SVC_FWMARK, b""), "little")
    protocol = _u16(found.get(SVC_PROTOCOL, b"\0\0"))
    flags = int.from_bytes(found[SVC_FLAGS][:4], "little")
    names = {6: "TCP", 17: "UDP", 132: "SCTP"}
    return Service(
        protocol="FWM" if fwmark else names.get(protocol, str(protocol)),
        address="" if fwmark else str(_address(found[SVC_ADDR], family)),
        port=0 if fwmark else int.from_bytes(found[SVC_PORT], "big"),
        fwmark=fwmark,
        scheduler=found[SVC_SCHED_NAME].rstrip(b"\0").decode(),
        flags=flags & ~0x2,
        destinations=tuple(
            sorted(
                parse_destination(attributes(reply[4:])[CMD_ATTR_DEST], family) for reply in replies
            )
        ),
    )


def parse_destination(raw: bytes, family: int) -> Destination:
    """Return the destination of IPVS_CMD_ATTR_DEST's value in a service of `family`."""
    found = attributes(raw)
    method = int.from_bytes(found[DEST_FWD_METHOD], "little") & FORWARDING_MASK
    own_family = _u16(found[DEST_ADDR_FAMILY]) if DEST_ADDR_FAMILY in found else family
    return Destination(
        address=str(_address(found[DEST_ADDR], own_family)),
        port=int.from_bytes(found[DEST_PORT], "big"),
        weight=int.from_bytes(found[DEST_WEIGHT], "little"),
        forwarding=FORWARDING[method],
        active=int.from_bytes(found.get(DEST_ACTIVE_CONNS, b""), "little"),
        inactive=int.from_bytes(found.get(DEST_INACT_CONNS, b""), "little"),
    )


def _service_key(raw: bytes) -> bytes:
    """Return what the kernel needs to find the service again (ip_vs_genl_parse_service)."""
    found = attributes(raw)
    wanted = (SVC_AF, SVC_PROTOCOL, SVC_ADDR, SVC_PORT, SVC_FWMARK)
    return b"".join(attribute(kind, found[kind]) for kind in wanted if kind in found)


def _u16(value: bytes) -> int:
    return int.from_bytes(value[:2], "little")


def _address(value: bytes, family: int) -> IPAddress:
    """Return the address; the attribute always has room for an IPv6 one."""
    return ip_address(value[:4] if family == socket.AF_INET else value[:16])


def _at(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
