"""One address of an interface as rtnetlink says it (rtnetlink(7), include/uapi/linux/if_addr.h).

Only what the keeper needs: whether it is there, its lifetime anew, and its end.  The whole of a
host is `adapters.host`'s, which takes a library for it that the keeper has no room for.
"""

from __future__ import annotations

import struct

from revip.model.host import ROUTE_PROTOCOL
from revip.model.ipvs import IPAddress
from revip.wire.netlink import WireError, attribute, attributes

RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
NLM_F_REPLACE = 0x100
AF_INET, AF_INET6 = 2, 10  # include/linux/socket.h

IFA_ADDRESS, IFA_LOCAL, IFA_CACHEINFO, IFA_FLAGS, IFA_PROTO = 1, 2, 6, 8, 11
IFA_F_NODAD, IFA_F_NOPREFIXROUTE = 0x02, 0x200

_IFADDRMSG = struct.Struct("=BBBBI")
_CACHEINFO = struct.Struct("=IIII")
_U32 = struct.Struct("=I")


def named(address: IPAddress, index: int) -> bytes:
    """Return the payload that names a host address (/32 or /128) of an interface."""
    packed = address.packed
    header = _IFADDRMSG.pack(family(address), address.max_prefixlen, 0, 0, index)
    return header + attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)


def lasting(address: IPAddress, index: int, seconds: int) -> bytes:
    """Return the payload that gives it a lifetime of so many seconds from now."""
    preferred = seconds if address.version == 4 else 0  # never chosen as a source in IPv6
    payload = named(address, index) + attribute(IFA_PROTO, bytes((ROUTE_PROTOCOL,)))
    if address.version == 6:
        payload += attribute(IFA_FLAGS, _U32.pack(IFA_F_NODAD | IFA_F_NOPREFIXROUTE))
    return payload + attribute(IFA_CACHEINFO, _CACHEINFO.pack(preferred, seconds, 0, 0))


def asked(address: IPAddress, index: int) -> bytes:
    """Return the payload of a dump of that family, of one interface where the kernel can."""
    return _IFADDRMSG.pack(family(address), 0, 0, 0, index)


def is_that(payload: bytes, address: IPAddress, index: int) -> bool:
    """Return whether a dumped payload is this host address.  Raises `WireError`."""
    if len(payload) < _IFADDRMSG.size:
        raise WireError("rtnetlink: no room for an address header")
    _, prefix, _, _, number = _IFADDRMSG.unpack_from(payload)
    found = attributes(payload[_IFADDRMSG.size :])
    has = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS)
    whole = prefix == address.max_prefixlen or address.version == 6
    return number == index and whole and has == address.packed


def family(address: IPAddress) -> int:
    """Return the address family's number."""
    return AF_INET if address.version == 4 else AF_INET6
