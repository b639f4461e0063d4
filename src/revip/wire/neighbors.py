"""The kernel's neighbor table as bytes: rtnetlink(7), include/uapi/linux/neighbour.h."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from revip.model.host import MacAddress
from revip.model.ipvs import IPAddress
from revip.wire.netlink import NLM_F_DUMP, NLM_F_REQUEST, Message, WireError, attributes

RTM_NEWNEIGH, RTM_GETNEIGH = 28, 30
_HEAD = struct.Struct("=BxxxiHBB")
"""struct ndmsg: family, interface, state, flags, type."""
_DESTINATION, _LINK_LAYER = 1, 2
_INCOMPLETE, _FAILED, _NOARP = 0x01, 0x20, 0x40
_FAMILIES = {4: 2, 6: 10}
"""AF_INET and AF_INET6 by IP version."""


def neighbors_request(version: int, sequence: int) -> Message:
    """Return the request for all neighbors of IP version 4 or 6."""
    head = _HEAD.pack(_FAMILIES[version], 0, 0, 0, 0)
    return Message(RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, sequence, head)


def read_neighbor(message: Message, index: int) -> tuple[MacAddress, IPAddress] | None:
    """Return who is where; None for what is on another interface than `index`, or not resolved.

    Raises `WireError`.
    """
    if message.kind != RTM_NEWNEIGH:
        raise WireError(f"neighbors: a message of type {message.kind}")
    if len(message.payload) < _HEAD.size:
        raise WireError("neighbors: no room for a header")
    _, link, state, _, _ = _HEAD.unpack_from(message.payload)
    found = attributes(message.payload[_HEAD.size :])
    mac, raw = found.get(_LINK_LAYER, b""), found.get(_DESTINATION, b"")
    if link != index or state & (_INCOMPLETE | _FAILED | _NOARP) or len(mac) != 6:
        return None
    if len(raw) not in (4, 16):
        raise WireError(f"neighbors: an address of {len(raw)} bytes")
    return MacAddress(mac), IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw)
