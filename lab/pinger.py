"""Asks an address by ICMP echo at a steady rate, and writes down when it was answered.

It runs in a fork of the warm parent (`Lab.spawn(client, ping, ...)`): a program of its own would
cost more time to start than a hand-over takes.
"""

from __future__ import annotations

import itertools
import select
import signal
import socket
import struct
import time
from pathlib import Path

ECHO_REQUEST = 8
"""RFC 792; the answer's type is 0."""


def ping(address: str, path: Path, rate: int) -> None:
    """Ask the IPv4 `address` `rate` times a second until SIGTERM; `answers` reads what it wrote."""
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    seen: list[int] = []
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as asked:
        asked.setblocking(False)
        due = time.monotonic()
        for sequence in itertools.count():
            if ended:
                break
            asked.sendto(_request(sequence & 0xFFFF), (address, 0))
            due += 1 / rate
            while (left := due - time.monotonic()) > 0:
                if select.select([asked], [], [], left)[0]:
                    _, (source, *_rest) = asked.recvfrom(256)
                    if source == address:
                        seen.append(time.monotonic_ns())
    path.write_text("\n".join(map(str, seen)))


def answers(path: Path) -> list[int]:
    """Return the instants (monotonic ns) at which an answer came."""
    return [int(line) for line in path.read_text().split()]


def longest_silence(seen: list[int], since: int, until: int) -> float:
    """Return the longest time without an answer between two instants, in milliseconds."""
    within = [since, *(at for at in seen if since < at < until), until]
    return max(b - a for a, b in itertools.pairwise(within)) / 1e6


def _request(sequence: int) -> bytes:
    body = struct.pack("!HH", 0x7265, sequence)
    total = sum(struct.unpack("!HHH", struct.pack("!BB", ECHO_REQUEST, 0) + body))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!BBH", ECHO_REQUEST, 0, ~total & 0xFFFF) + body
