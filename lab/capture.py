"""Who answers for an address: ARP (RFC 826) and neighbor discovery (RFC 4861), seen and asked.

`NeighborCapture` hears everything on an interface, in both directions; `who_answers` asks and
collects every MAC address that claims the address.  Instants are CLOCK_MONOTONIC nanoseconds.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Self

IPAddress = IPv4Address | IPv6Address

ETH_P_ALL, ETH_P_ARP, ETH_P_IPV6 = 0x0003, 0x0806, 0x86DD
SO_ATTACH_FILTER = 26
SIOCGIFADDR = 0x8915
BROADCAST = b"\xff" * 6
ICMPV6 = 58
SOLICITATION, ADVERTISEMENT = 135, 136
FLAG_SOLICITED = 0x40
SOURCE_LINK_LAYER, TARGET_LINK_LAYER = 1, 2
"""Options of neighbor discovery, RFC 4861 section 4.6.1."""

# Classic BPF: ARP, or IPv6 whose next header is ICMPv6 of type 135 or 136.  Other traffic never
# reaches the socket, so that load through the interface costs the observer nothing.
_FILTER = (
    (0x28, 0, 0, 12),  # ldh [12]: EtherType
    (0x15, 6, 0, ETH_P_ARP),  # ARP: accept
    (0x15, 0, 6, ETH_P_IPV6),  # not IPv6: reject
    (0x30, 0, 0, 20),  # ldb [20]: next header
    (0x15, 0, 4, ICMPV6),  # not ICMPv6: reject
    (0x30, 0, 0, 54),  # ldb [54]: type
    (0x15, 1, 0, ADVERTISEMENT),
    (0x15, 0, 1, SOLICITATION),
    (0x06, 0, 0, 0x40000),  # accept
    (0x06, 0, 0, 0),  # reject
)


@dataclass(frozen=True, slots=True)
class Neighbor:
    """One ARP packet, neighbor solicitation or advertisement."""

    at: int
    kind: str
    """`who-has` and `is-at` (ARP), `solicitation` and `advertisement` (IPv6)."""
    mac: str
    """The MAC address that the packet claims for its sender or target; the frame's, if none."""
    sender: str
    """Protocol address of the sender."""
    target: str
    """The address in question."""
    gratuitous: bool
    """Nobody asked: sender and target are one (ARP), or the solicited flag is off (IPv6)."""

    @property
    def claims(self) -> str | None:
        """The address that `mac` says is its own, if it says so."""
        if self.kind == "is-at" or (self.kind == "who-has" and self.gratuitous):
            return self.sender
        return self.target if self.kind == "advertisement" else None


class NeighborCapture:
    """Hears ARP and neighbor discovery on `interface`; a context manager, needs CAP_NET_RAW."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        """Begin to hear."""
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        code = b"".join(struct.pack("=HBBI", *instruction) for instruction in _FILTER)
        memory = ctypes.create_string_buffer(code)
        program = struct.pack("@HP", len(_FILTER), ctypes.addressof(memory))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        # Bound only now, so that nothing unfiltered is ever queued.
        self._socket.bind((self._interface, ETH_P_ALL))
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        if self._socket is not None:
            self._socket.close()

    @property
    def mac(self) -> bytes:
        """The interface's own MAC address."""
        assert self._socket is not None, "use it in a with block"
        address = self._socket.getsockname()[4]
        assert isinstance(address, bytes)
        return address

    def fileno(self) -> int:
        """Return the descriptor, for poll(2)."""
        assert self._socket is not None, "use it in a with block"
        return self._socket.fileno()

    def receive(self) -> bytes:
        """Return the next frame; waits for it."""
        assert self._socket is not None, "use it in a with block"
        return self._socket.recv(2048)

    def send(self, frame: bytes) -> None:
        """Put a frame on the wire."""
        assert self._socket is not None, "use it in a with block"
        self._socket.send(frame)

    def hear(self, seconds: float) -> Iterator[Neighbor]:
        """Yield what is heard within `seconds` from now."""
        assert self._socket is not None, "use it in a with block"
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                frame = self._socket.recv(2048)
            except TimeoutError:
                return
            neighbor = parse(frame, time.monotonic_ns())
            if neighbor is not None:
                yield neighbor

    def record(self, path: Path, seconds: float) -> None:
        """Record what is heard as JSON lines for `seconds`."""
        with path.open("w", buffering=1) as file:
            for neighbor in self.hear(seconds):
                file.write(json.dumps(asdict(neighbor)) + "\n")


def read_neighbors(path: Path) -> list[Neighbor]:
    """Return what `NeighborCapture.record` has written so far."""
    whole = path.read_text().rpartition("\n")[0]
    return [Neighbor(**json.loads(line)) for line in whole.splitlines()]


def who_answers(interface: str, address: IPAddress, window: float = 0.3) -> dict[str, int]:
    """Ask once on `interface` who has `address`; return each answering MAC with its instant.

    Waits the whole `window` (seconds), since a second holder may answer later than the first.
    The question comes from the interface's own address; without one, IPv4 asks as a probe of
    RFC 5227 does, from 0.0.0.0.
    """
    with NeighborCapture(interface) as capture:
        if isinstance(address, IPv4Address):
            question = arp_question(capture.mac, own_ipv4(interface), address)
        else:
            question = solicitation(capture.mac, own_link_local(interface), address)
        capture.send(question)
        own = _mac(capture.mac)
        answers: dict[str, int] = {}
        for neighbor in capture.hear(window):
            if neighbor.claims == str(address) and neighbor.mac != own:
                answers.setdefault(neighbor.mac, neighbor.at)
        return answers


def parse(frame: bytes, at: int) -> Neighbor | None:
    """Return what an Ethernet frame says about neighbors, or None."""
    if len(frame) >= 42 and frame[12:14] == b"\x08\x06":
        return _parse_arp(frame, at)
    if len(frame) >= 78 and frame[12:14] == b"\x86\xdd" and frame[20] == ICMPV6:
        return _parse_ndp(frame, at)
    return None


def _parse_arp(frame: bytes, at: int) -> Neighbor | None:
    kinds = {1: "who-has", 2: "is-at"}
    kind = kinds.get(int.from_bytes(frame[20:22], "big"))
    if kind is None:
        return None
    sender, target = IPv4Address(frame[28:32]), IPv4Address(frame[38:42])
    mac = _mac(frame[22:28])
    return Neighbor(at, kind, mac, str(sender), str(target), gratuitous=sender == target)


def _parse_ndp(frame: bytes, at: int) -> Neighbor | None:
    kinds = {SOLICITATION: "solicitation", ADVERTISEMENT: "advertisement"}
    kind = kinds.get(frame[54])
    if kind is None:
        return None
    sender, target = IPv6Address(frame[22:38]), IPv6Address(frame[62:78])
    mac = frame[6:12]
    option = frame[78:86]
    if len(option) == 8 and option[0] in (SOURCE_LINK_LAYER, TARGET_LINK_LAYER):
        mac = option[2:8]
    gratuitous = frame[54] == ADVERTISEMENT and not frame[58] & FLAG_SOLICITED
    return Neighbor(at, kind, _mac(mac), str(sender), str(target), gratuitous)


def arp_question(mac: bytes, source: IPv4Address, target: IPv4Address) -> bytes:
    """Return the frame that asks all who has `target` (RFC 826)."""
    head = BROADCAST + mac + struct.pack("!HHHBBH", ETH_P_ARP, 1, 0x0800, 6, 4, 1)
    return head + mac + source.packed + bytes(6) + target.packed


def solicitation(mac: bytes, source: IPv6Address, target: IPv6Address) -> bytes:
    """Return the frame that asks `target`'s solicited-node group who has it (RFC 4861, 4.3)."""
    group = bytes.fromhex("ff0200000000000000000001ff") + target.packed[-3:]
    body = target.packed + bytes((SOURCE_LINK_LAYER, 1)) + mac
    message = struct.pack("!BBHI", SOLICITATION, 0, 0, 0) + body
    pseudo = source.packed + group + struct.pack("!II", len(message), ICMPV6)
    message = message[:2] + struct.pack("!H", _checksum(pseudo + message)) + message[4:]
    packet = struct.pack("!IHBB", 6 << 28, len(message), ICMPV6, 255) + source.packed + group
    return b"\x33\x33" + group[-4:] + mac + struct.pack("!H", ETH_P_IPV6) + packet + message


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def own_ipv4(interface: str) -> IPv4Address:
    """Return the interface's first address, 0.0.0.0 without one."""
    request = struct.pack("16sH14s", interface.encode(), socket.AF_INET, bytes(14))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking, SIOCGIFADDR, request + bytes(8))
        except OSError:  # EADDRNOTAVAIL
            return IPv4Address(0)
    return IPv4Address(answer[20:24])


def own_link_local(interface: str) -> IPv6Address:
    """Return the interface's link-local address; raises OSError without one."""
    for line in Path("/proc/net/if_inet6").read_text().splitlines():
        digits, _, _, scope, _, name = line.split()
        if name == interface and scope == "20":
            return IPv6Address(bytes.fromhex(digits))
    raise OSError(f"{interface} has no link-local address")


def _mac(raw: bytes) -> str:
    return ":".join(f"{byte:02x}" for byte in raw)
