"""The port `LeasedAddresses`: rtnetlink by hand, since the keeper has no room for a library.

`RTM_NEWADDR` does not tell a refresh from an addition (inet_rtm_newaddr(), net/ipv4/devinet.c), so
it is looked first whether the address is there, and at the clock before and after.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct

from revip.errors import KernelError
from revip.model.host import Lease, LinkAddress
from revip.model.instants import SECOND
from revip.ports import Clock
from revip.wire.address import (
    NLM_F_REPLACE,
    RTM_DELADDR,
    RTM_GETADDR,
    RTM_NEWADDR,
    asked,
    is_that,
    lasting,
    named,
)
from revip.wire.netlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    Message,
    WireError,
    acknowledgement,
    messages,
    pack_message,
)

DEADLINE = 0.2
"""Seconds; the kernel answers within microseconds, and the adverts must not wait for it."""
_DATAGRAM = 65536
_SOL_NETLINK, _NETLINK_GET_STRICT_CHK = 270, 12
_GONE = (0, errno.EADDRNOTAVAIL, errno.ENODEV)


class RtnetlinkAddresses:
    """Addresses with a lifetime in the network namespace of this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._socket: socket.socket | None = None
        self._sequence = 0

    def renew(self, place: LinkAddress, lease: Lease) -> None:
        """Give `place` its whole lifetime again, if it is there; not after the lease's end.

        Raises `KernelError`; what was written too late is taken away.
        """
        operation = f"renew address {place.address} on {place.link}"
        index = _index(place)
        if not index or not self._is_there(place, index, operation):
            return  # what is not there is the agent's, in its order
        if self._clock.now() > lease.ends:
            raise KernelError(errno.ETIME, operation, "the lease is over, others may have it")
        payload = lasting(place.address, index, lease.lifetime // SECOND)
        code, _ = self._ask(RTM_NEWADDR, NLM_F_ACK | NLM_F_REPLACE, payload, operation)
        if self._clock.now() > lease.ends:  # this process was frozen meanwhile
            self.remove(place)
            sentence = "the lease ended while it was written: taken away again"
            raise KernelError(errno.ETIME, operation, sentence)
        if code:
            raise KernelError(code, operation, os.strerror(code))

    def remove(self, place: LinkAddress) -> None:
        """Take `place` away; that it is not there is success.  Raises `KernelError`."""
        operation = f"remove address {place.address} from {place.link}"
        if index := _index(place):
            code, _ = self._ask(RTM_DELADDR, NLM_F_ACK, named(place.address, index), operation)
            if code not in _GONE:
                raise KernelError(code, operation, os.strerror(code))

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _is_there(self, place: LinkAddress, index: int, operation: str) -> bool:
        payload = asked(place.address, index)
        code, found = self._ask(RTM_GETADDR, NLM_F_DUMP, payload, operation)
        if code:
            raise KernelError(code, operation, os.strerror(code))
        return any(is_that(each, place.address, index) for each in found)

    def _ask(
        self, kind: int, flags: int, payload: bytes, operation: str
    ) -> tuple[int, list[bytes]]:
        """Return the errno and what was dumped.  Raises `KernelError` without an answer."""
        self._sequence += 1
        request = Message(kind, NLM_F_REQUEST | flags, self._sequence, payload)
        try:
            opened = self._socket or self._open()
            opened.send(pack_message(request))
            return self._answer(opened)
        except (OSError, WireError) as error:
            self.close()
            number = getattr(error, "errno", None) or errno.EIO
            raise KernelError(number, operation, f"no answer of the kernel: {error}") from error

    def _answer(self, opened: socket.socket) -> tuple[int, list[bytes]]:
        found: list[bytes] = []
        while True:
            datagram, (port, _) = opened.recvfrom(_DATAGRAM)
            if port:
                continue  # other processes may send to our port, too
            for message in messages(datagram):
                if message.sequence != self._sequence:
                    continue
                if message.kind in (NLMSG_ERROR, NLMSG_DONE):
                    return acknowledgement(message).errno, found
                found.append(message.payload)

    def _open(self) -> socket.socket:
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        try:
            timeout = struct.pack("@ll", 0, int(DEADLINE * 1_000_000))
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
            with contextlib.suppress(OSError):  # before Linux 4.20 the dump is of all interfaces
                opened.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
            opened.bind((0, 0))
        except OSError:
            opened.close()
            raise
        self._socket = opened
        return opened


def _index(place: LinkAddress) -> int:
    try:
        return socket.if_nametoindex(place.link)
    except OSError:
        return 0
