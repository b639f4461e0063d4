"""Netlink messages and attributes as bytes: RFC 3549, include/uapi/linux/{netlink,genetlink}.h.

Only the form is known here, not what a family means by it.  Whatever bytes come in, the only
exception that comes out is `WireError`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from revip.errors import RevipError

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x01
NLM_F_ACK = 0x04
NLM_F_DUMP_INTR = 0x10
"""The dump is inconsistent: what it lists changed while it was listed."""
NLM_F_DUMP = 0x300
NLM_F_CAPPED = 0x100
"""The acknowledgement does not quote the payload of the request."""
NLM_F_ACK_TLVS = 0x200
"""Extended acknowledgement attributes follow."""

NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF
NLMSGERR_ATTR_MSG = 1

GENL_ID_CTRL = 0x10
CTRL_CMD_GETFAMILY = 3
CTRL_ATTR_FAMILY_ID = 1
CTRL_ATTR_FAMILY_NAME = 2

_MESSAGE = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_GENERIC = struct.Struct("=BBH")
_U16 = struct.Struct("=H")
_ERRNO = struct.Struct("=i")


class WireError(RevipError):
    """Bytes from outside that are not what they claim to be."""


@dataclass(frozen=True, slots=True)
class Message:
    """One netlink message without its header's length."""

    kind: int
    """Family id, or one of the control types (`NLMSG_ERROR`, `NLMSG_DONE`)."""
    flags: int
    sequence: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """How a request or a dump ended."""

    errno: int
    """Positive errno; 0 is success."""
    said: str = ""
    """The kernel's own words (NLMSGERR_ATTR_MSG), often empty."""


def pack_message(message: Message) -> bytes:
    """Return `message` as it goes over the socket; the sender's port is left to the kernel."""
    length = _MESSAGE.size + len(message.payload)
    header = _MESSAGE.pack(length, message.kind, message.flags, message.sequence, 0)
    return header + message.payload + bytes(-length % 4)


def messages(datagram: bytes) -> Iterator[Message]:
    """Yield the messages of one datagram.  Raises `WireError` where it is damaged."""
    offset, end = 0, len(datagram)
    while offset < end:
        if end - offset < _MESSAGE.size:
            raise WireError(f"netlink: {end - offset} bytes left where a header should be")
        length, kind, flags, sequence, _ = _MESSAGE.unpack_from(datagram, offset)
        if not _MESSAGE.size <= length <= end - offset:
            raise WireError(f"netlink: a message of {length} bytes in {end - offset}")
        payload = datagram[offset + _MESSAGE.size : offset + length]
        yield Message(kind, flags, sequence, payload)
        offset += (length + 3) & ~3


def attribute(kind: int, payload: bytes) -> bytes:
    """Return one attribute, padded to four bytes."""
    length = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + bytes(-length % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute that holds `attributes`."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def attributes(payload: bytes) -> dict[int, bytes]:
    """Return the attributes in `payload` by type; of two with one type the last counts.

    Raises `WireError`.  Unknown types are kept: a newer kernel may say more than we know.
    """
    found: dict[int, bytes] = {}
    unpack, offset, end = _ATTRIBUTE.unpack_from, 0, len(payload)
    while offset < end:
        if end - offset < 4:
            raise WireError(f"netlink: {end - offset} bytes left where an attribute should be")
        length, kind = unpack(payload, offset)
        if length < 4 or offset + length > end:
            raise WireError(f"netlink: an attribute of {length} bytes in {end - offset}")
        found[kind & 0x3FFF] = payload[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def acknowledgement(message: Message) -> Acknowledgement:
    """Read an `NLMSG_ERROR` or `NLMSG_DONE` message.  Raises `WireError`."""
    payload = message.payload
    if message.kind == NLMSG_DONE and not payload:
        return Acknowledgement(0)
    if len(payload) < _ERRNO.size:
        raise WireError("netlink: an acknowledgement without a result")
    (result,) = _ERRNO.unpack_from(payload)
    return Acknowledgement(abs(result), _said(message))


def generic(command: int, version: int, payload: bytes = b"") -> bytes:
    """Return a generic netlink payload: header and attributes."""
    return _GENERIC.pack(command, version, 0) + payload


def generic_attributes(payload: bytes) -> dict[int, bytes]:
    """Return the attributes behind a generic netlink header.  Raises `WireError`."""
    if len(payload) < _GENERIC.size:
        raise WireError("netlink: no room for a generic header")
    return attributes(payload[_GENERIC.size :])


def family_request(name: str) -> bytes:
    """Return the payload that asks the controller (`GENL_ID_CTRL`) for a family's id."""
    return generic(
        CTRL_CMD_GETFAMILY, 1, attribute(CTRL_ATTR_FAMILY_NAME, name.encode("ascii") + b"\0")
    )


def family_id(payload: bytes) -> int:
    """Return the id in the controller's answer.  Raises `WireError`."""
    found = generic_attributes(payload).get(CTRL_ATTR_FAMILY_ID, b"")
    if len(found) != _U16.size:
        raise WireError("netlink: the controller named no family id")
    number: int = _U16.unpack(found)[0]
    return number


def _said(message: Message) -> str:
    if not message.flags & NLM_F_ACK_TLVS:
        return ""
    start = _ERRNO.size
    if message.kind == NLMSG_ERROR:
        start += _quoted(message)
    words = attributes(message.payload[start:]).get(NLMSGERR_ATTR_MSG, b"")
    return words.split(b"\0", 1)[0].decode("utf-8", "replace")


def _quoted(message: Message) -> int:
    """Return how many bytes of the request an error quotes: its header, or all of it."""
    if message.flags & NLM_F_CAPPED:
        return _MESSAGE.size
    if len(message.payload) < _ERRNO.size + _MESSAGE.size:
        raise WireError("netlink: an error that quotes no request")
    length: int = _MESSAGE.unpack_from(message.payload, _ERRNO.size)[0]
    return (length + 3) & ~3
