"""The port `Fences`: nf_tables by hand, since the keeper has no room for a library.

The kernel answers within the call that asks (nfnetlink_rcv(), net/netfilter/nfnetlink.c), so what
is not there after it will not come.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket

from revip.errors import KernelError
from revip.model.host import Fence, LinkAddress
from revip.model.instants import Instant, Span
from revip.model.ipvs import IPAddress
from revip.ports import Clock
from revip.wire.netlink import (
    NLMSG_DONE,
    NLMSG_ERROR,
    WireError,
    acknowledgement,
    messages,
)
from revip.wire.nft import (
    elements_asked,
    fence_asked,
    fence_built,
    fence_destroyed,
    fence_opened,
    has_elements,
    is_the_fence,
    table_asked,
)


class _LackingError(KernelError):
    """The kernel has nothing to make a fence of."""

    def __init__(self, operation: str, code: int) -> None:
        super().__init__(
            errno.ENOSYS, operation, f"no nftables at the egress here ({os.strerror(code)})"
        )


SHORTEST = Span(20)
"""A timeout that rounds to no tick of the kernel's clock would last for ever."""
_DATAGRAM = 65536
_NETLINK_NETFILTER = 12
_LACKING = (errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT)
"""No nf_tables, or no egress; of what is built ENOENT says so, too."""


class NftFences:
    """Fences in the network namespace of this process, or thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._socket: socket.socket | None = None
        self._sequence = 0

    def stands(self, fence: Fence) -> bool:
        """Return whether the fence is there as we build it.

        Raises `KernelError`; ENOSYS when the kernel has nothing to make it of.
        """
        operation = f"look at the fence of {fence.address}"
        found, rules = self._ask(fence_asked(fence.address, self._next()), operation)
        try:
            return found and is_the_fence(fence, rules)
        except WireError as error:
            raise KernelError(errno.EIO, operation, str(error)) from error

    def exists(self, address: IPAddress) -> bool:
        """Return whether there is anything of one, whole or not.  Raises `KernelError`."""
        with contextlib.suppress(_LackingError):
            return self._ask(table_asked(address, self._next()), f"find the fence of {address}")[0]
        return False

    def is_open(self, address: IPAddress) -> bool:
        """Return whether answers are let out at this moment.  Raises `KernelError`."""
        operation = f"look at the fence of {address}"
        found, answers = self._ask(elements_asked(address, self._next()), operation)
        try:
            return not found or has_elements(answers)
        except WireError as error:
            raise KernelError(errno.EIO, operation, str(error)) from error

    def build(self, fence: Fence, until: Instant) -> None:
        """Make it, or make it anew, and let answers out until then.

        Raises `KernelError`; ENOSYS when the kernel has nothing to make it of.
        """
        operation = f"build the fence of {fence.address}"
        try:
            index = socket.if_nametoindex(fence.link)
        except OSError as error:
            text = f"no interface {fence.link}"
            raise KernelError(errno.ENODEV, operation, text) from error
        transaction = fence_built(fence, index, self._left(until), self._next())
        if not self._ask(transaction, operation)[0]:
            raise _LackingError(operation, errno.ENOENT)
        self._reconsider(fence.address, index, until)

    def destroy(self, address: IPAddress) -> None:
        """Remove it; that there is none is success.  Raises `KernelError`."""
        with contextlib.suppress(_LackingError):
            self._ask(fence_destroyed(address, self._next()), f"remove the fence of {address}")

    def open(self, place: LinkAddress, until: Instant) -> bool:
        """Let answers for an address out until then, and no longer but by an advert.

        Return whether there is a fence.  Raises `KernelError`, ENOSYS when the kernel has nothing
        to make it of; what was written too late is taken back.
        """
        try:
            index = socket.if_nametoindex(place.link)
        except OSError:
            return False  # it went with the interface
        there = self._open_for(place.address, index, self._left(until))
        if there:
            self._reconsider(place.address, index, until)
        return there

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _left(self, until: Instant) -> Span | None:
        left = until - self._clock.now()
        return Span(left) if left >= SHORTEST else None

    def _open_for(self, address: IPAddress, index: int, left: Span | None) -> bool:
        transaction = fence_opened(address, index, left, self._next())
        return self._ask(transaction, f"open the fence of {address}")[0]

    def _reconsider(self, address: IPAddress, index: int, until: Instant) -> None:
        """Shut what a process that was frozen while it wrote has opened too late."""
        if self._clock.now() > until:
            self._open_for(address, index, None)

    def _next(self) -> int:
        self._sequence = self._sequence % 0x7FFFFFFF + 1
        return self._sequence

    def _ask(self, request: bytes, operation: str) -> tuple[bool, list[bytes]]:
        """Return whether there is what was asked for or changed, and what was dumped.

        Raises `KernelError`.
        """
        try:
            opened = self._socket or self._open()
            self._drain(opened)
            opened.send(request)
            code, found = self._answer(opened)
        except (OSError, WireError) as error:
            self.close()
            code = getattr(error, "errno", None) or errno.EIO
            if code not in _LACKING:
                raise KernelError(code, operation, f"no answer of the kernel: {error}") from error
        if code in _LACKING:
            raise _LackingError(operation, code)
        if code not in (0, errno.ENOENT):
            raise KernelError(code, operation, os.strerror(code))
        return not code, found

    @staticmethod
    def _drain(opened: socket.socket) -> None:
        """Throw away what an earlier question left."""
        try:
            while True:
                opened.recv(_DATAGRAM)
        except BlockingIOError:
            pass

    def _answer(self, opened: socket.socket) -> tuple[int, list[bytes]]:
        codes: list[int] = []
        found: list[bytes] = []
        while True:
            try:
                datagram, (port, _) = opened.recvfrom(_DATAGRAM)
            except BlockingIOError:
                break
            if port:
                continue  # other processes may send to our port, too
            for message in messages(datagram):
                if message.sequence != self._sequence:
                    continue
                if message.kind in (NLMSG_ERROR, NLMSG_DONE):
                    codes.append(acknowledgement(message).errno)
                else:
                    found.append(message.payload)
        if not codes:
            raise OSError(errno.EIO, "it said nothing")
        return next((code for code in codes if code), 0), found

    def _open(self) -> socket.socket:
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        try:
            opened.setblocking(False)
            opened.bind((0, 0))
        except OSError:
            opened.close()
            raise
        self._socket = opened
        return opened
