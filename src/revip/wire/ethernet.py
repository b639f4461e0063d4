"""The head of an Ethernet II frame: IEEE 802.3 clause 3; the kernel adds VLAN tags."""

from __future__ import annotations

from revip.model.host import MacAddress
from revip.wire.netlink import WireError

BROADCAST = MacAddress(b"\xff" * 6)
NO_MAC = MacAddress(bytes(6))
ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_ARP = 0x0806
ETHERTYPE_IPV6 = 0x86DD

HEAD = 14
"""Bytes before the payload: destination, source, EtherType."""


def pack_frame(
    destination: MacAddress, source: MacAddress, ethertype: int, payload: bytes
) -> bytes:
    """Return the frame; what is shorter than 60 bytes is padded by the driver."""
    return destination + source + ethertype.to_bytes(2, "big") + payload


def payload_of(frame: bytes, ethertype: int) -> bytes:
    """Return what `frame` carries, with its padding; `WireError` unless it is of `ethertype`."""
    if len(frame) < HEAD:
        raise WireError(f"ethernet: a frame of {len(frame)} bytes")
    found = int.from_bytes(frame[12:14], "big")
    if found != ethertype:
        raise WireError(f"ethernet: EtherType {found:#06x} where {ethertype:#06x} is wanted")
    return frame[HEAD:]


def sender_of(frame: bytes) -> MacAddress:
    """Return who sent `frame`.  Raises `WireError` when it has no whole head."""
    if len(frame) < HEAD:
        raise WireError(f"ethernet: a frame of {len(frame)} bytes")
    return MacAddress(frame[6:12])
