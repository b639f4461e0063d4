"""The subnets of an interface, by two files of proc(5): cheap enough to be read each second."""

from __future__ import annotations

import sys
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from revip.model.spec import LinkName

_GATEWAY = 0x2
"""RTF_GATEWAY (include/uapi/linux/route.h): the way leads through a router."""
_GLOBAL = 0x00
"""Scope of an address in if_inet6: global (net/ipv6/addrconf.c, if6_seq_show)."""


def subnets(link: LinkName, net: Path = Path("/proc/net")) -> tuple[IPv4Network | IPv6Network, ...]:
    """Return what is on-link by `link`, without single addresses; empty when there is none."""
    found: set[IPv4Network | IPv6Network] = set()
    for words in _rows(net / "route"):
        if len(words) > 7 and words[0] == link and not int(words[3], 16) & _GATEWAY:
            mask = int.from_bytes(_bytes(words[7])).bit_count()
            if 0 < mask < 32:
                found.add(IPv4Network((IPv4Address(_bytes(words[1])), mask)))
    for words in _rows(net / "if_inet6"):
        if len(words) > 5 and words[5] == link and int(words[3], 16) == _GLOBAL:
            length = int(words[2], 16)
            if length < 128:
                address = IPv6Address(bytes.fromhex(words[0]))
                found.add(IPv6Network((address, length), strict=False))
    return tuple(sorted(found, key=lambda network: (network.version, str(network))))


def _rows(file: Path) -> list[list[str]]:
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except OSError:
        return []  # no such family in this kernel
    return [line.split() for line in lines if not line.startswith("Iface")]


def _bytes(word: str) -> bytes:
    """Read a 32-bit word in the CPU's byte order; in memory it is in the network's."""
    return int(word, 16).to_bytes(4, sys.byteorder)
