"""Packet filters for a packet socket: classic BPF (Documentation/networking/filter.rst, bpf(4)).

The kernel runs them before anything is queued, so that traffic that is none of our business costs
a few instructions and never wakes this process.  Offsets count from the Ethernet head (SOCK_RAW).
The socket is to be bound to the EtherType named, hence that is not looked at again; a socket bound
to one EtherType never sees what this host sends.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from revip.model.ipvs import IPAddress
from revip.model.vrrp import VRRP_PROTOCOL, VRRP_TTL
from revip.wire.ethernet import HEAD

# Opcodes, include/uapi/linux/bpf_common.h: a load from the packet, X = 4 * (byte & 15), a load
# from X on, bitwise and, jump if equal, return.
_WORD, _HALF, _BYTE = 0x20, 0x28, 0x30
_HEADER_TO_X, _BYTE_FROM_X = 0xB1, 0x50
_AND, _JUMP_EQUAL, _RETURN = 0x54, 0x15, 0x06
_WHOLE = 0x40000
"""Bytes of an accepted packet that are kept."""

_INSTRUCTION = struct.Struct("=HBBI")
"""struct sock_filter: code, jump if true, jump if false, operand."""

_SENDER_OF_ARP = HEAD + 14
_FRAGMENT = 0x1FFF
_SOURCE6, _PAYLOAD6 = HEAD + 8, HEAD + 40
_TARGET6 = _PAYLOAD6 + 8
_NEXT_HEADER, _HOPS = HEAD + 6, HEAD + 7
_SOLICITATION, _ADVERTISEMENT, _IS_ICMPV6 = 135, 136, 58


@dataclass(frozen=True, slots=True)
class _Test:
    """Load something; go on if it is `value`."""

    loads: tuple[tuple[int, int], ...]
    value: int


def arp_claims(address: IPv4Address) -> bytes:
    """Return the filter for ARP (ETH_P_ARP) whose sender says that it has `address`."""
    return _either((_word(_SENDER_OF_ARP, int(address)),))


def group_adverts(vrid: int) -> bytes:
    """Return the filter for VRRP adverts of a group over IPv4 (ETH_P_IP), straight from a link."""
    return _either(
        (
            _byte(HEAD + 9, VRRP_PROTOCOL),
            _byte(HEAD + 8, VRRP_TTL),
            _Test(((_HALF, HEAD + 6), (_AND, _FRAGMENT)), 0),
            _Test(((_HEADER_TO_X, HEAD), (_BYTE_FROM_X, HEAD + 1)), vrid),
        )
    )


def group_adverts6(vrid: int) -> bytes:
    """Return the same over IPv6 (ETH_P_IPV6)."""
    vrrp = _byte(_NEXT_HEADER, VRRP_PROTOCOL)
    return _either((vrrp, _byte(_HOPS, VRRP_TTL), _byte(_PAYLOAD6 + 1, vrid)))


def ndp_claims(address: IPv6Address) -> bytes:
    """Return the filter for IPv6 (ETH_P_IPV6) that claims `address`.

    That is advertisements for it and solicitations from it.
    """
    icmp = _byte(_NEXT_HEADER, _IS_ICMPV6)
    return _either(
        (icmp, _byte(_PAYLOAD6, _ADVERTISEMENT), *_address(_TARGET6, address)),
        (icmp, _byte(_PAYLOAD6, _SOLICITATION), *_address(_SOURCE6, address)),
    )


def _either(*chains: tuple[_Test, ...]) -> bytes:
    """Accept what passes all tests of one chain; a test that fails goes on at the next chain."""
    code: list[tuple[int, int, int, int]] = []
    for chain in chains:
        length = sum(len(test.loads) + 1 for test in chain) + 1
        following = len(code) + length
        for test in chain:
            code += [(opcode, 0, 0, operand) for opcode, operand in test.loads]
            code.append((_JUMP_EQUAL, 0, following - len(code) - 1, test.value))
        code.append((_RETURN, 0, 0, _WHOLE))
    code.append((_RETURN, 0, 0, 0))
    return b"".join(_INSTRUCTION.pack(*each) for each in code)


def _word(offset: int, value: int) -> _Test:
    return _Test(((_WORD, offset),), value)


def _byte(offset: int, value: int) -> _Test:
    return _Test(((_BYTE, offset),), value)


def _address(offset: int, address: IPAddress) -> tuple[_Test, ...]:
    packed = address.packed
    words = range(0, len(packed), 4)
    return tuple(_word(offset + at, int.from_bytes(packed[at : at + 4], "big")) for at in words)
