"""Speaks VRRP on one link: a raw socket of protocol 112 (raw(7), ip(7), ipv6(7), RFC 9568 5.1).

The socket is bound to a device, not to an address, else it would not hear multicast; the source
address of each advert is named with it (IP_PKTINFO).  It belongs to the interface as it is now:
when that is deleted and made again, close this socket and open another.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv6Address

from revip.errors import KernelError
from revip.model.ipvs import IPAddress
from revip.model.spec import LinkName
from revip.model.vrrp import (
    GROUP_V4,
    GROUP_V6,
    VRRP_PROTOCOL,
    VRRP_TTL,
    Heard,
    VirtualRouter,
)
from revip.wire.vrrp import Envelope, Listener, Rejected, decode, encode, split_ipv4

SIOCGIFFLAGS = 0x8913  # netdevice(7)
IFF_UP, IFF_RUNNING = 0x1, 0x40
IP_PKTINFO = 8  # include/uapi/linux/in.h; not in Python 3.11's socket module
IP_MULTICAST_ALL = 49
IPV6_MULTICAST_ALL = 29  # include/uapi/linux/in6.h, since Linux 4.20

PRIORITY = 7
"""TC_PRIO_CONTROL (include/uapi/linux/pkt_sched.h): first in this host's own queues."""
TRAFFIC_CLASS = 0xC0
"""CS6, network control (RFC 4594 section 3.1): first in other hosts' queues."""

_ENOUGH = 65536
_ANCILLARY = 256
_AT_ONCE = 256
"""Packets taken in one go at most: a flood must not keep the loop from the timers."""

_ON_OPENING = {
    errno.EPERM: "raw sockets are not permitted; run as root or with CAP_NET_RAW",
    errno.ENODEV: "no such interface; check `interface` in the configuration",
    errno.EAFNOSUPPORT: "this address family is switched off on this host (IPv6 disabled?)",
    errno.ENOBUFS: "too many multicast groups are joined; raise net.ipv4.igmp_max_memberships",
}
_ON_SENDING = {
    errno.EPERM: "a packet filter of this host forbids it; let protocol 112 (VRRP) out and in",
    errno.EINVAL: "the source address is not on this host; check `node_address`",
    errno.EADDRNOTAVAIL: "the source address is not on this host; check `node_address`",
    errno.ENODEV: "the interface is gone",
    errno.ENXIO: "the interface is gone",
    errno.ENETDOWN: "the interface is down; bring it up",
    errno.ENETUNREACH: "no route; check that the interface is up and has `node_address`",
    errno.EHOSTUNREACH: "the peer does not answer ARP or NDP",
    errno.ENOBUFS: "the interface's queue is full",
}


class VrrpSocket:
    """One group's ear and mouth on one link."""

    def __init__(
        self, link: LinkName, router: VirtualRouter, peers: Sequence[IPAddress] = ()
    ) -> None:
        """Remember where and what to speak; without `peers` it is by multicast."""
        group: IPAddress = GROUP_V4 if router.source.version == 4 else GROUP_V6
        self._link = link
        self._router = router
        self._destinations = tuple(peers) or (group,)
        self._multicast = not peers
        self._listener = Listener(router.vrid, frozenset({router.source}), frozenset(peers))
        self._socket: socket.socket | None = None
        self._index = 0

    def open(self) -> None:
        """Begin to listen.  Raises `KernelError`."""
        try:
            self._index = socket.if_nametoindex(self._link)
        except OSError as error:  # Python 3.11 does not say which
            missing = OSError(errno.ENODEV, os.strerror(errno.ENODEV))
            raise self._refused(missing, f"find {self._link}", _ON_OPENING) from error
        family = socket.AF_INET if self._router.source.version == 4 else socket.AF_INET6
        try:
            opened = socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, VRRP_PROTOCOL)
        except OSError as error:
            raise self._refused(
                error, f"open a VRRP socket on {self._link}", _ON_OPENING
            ) from error
        try:
            opened.setblocking(False)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._link.encode())
            if family == socket.AF_INET:
                self._prepare_v4(opened)
            else:
                self._prepare_v6(opened)
            with contextlib.suppress(PermissionError):  # 7 needs CAP_NET_ADMIN; it is only politer
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, PRIORITY)
        except OSError as error:
            opened.close()
            raise self._refused(error, f"listen for VRRP on {self._link}", _ON_OPENING) from error
        self._socket = opened

    def trouble(self) -> str | None:
        """Return why nothing can be sent at present, None when all is well.

        Raises `KernelError` when the interface is gone or another has its name: this socket
        belongs to the former one, so another is to be opened.
        """
        try:
            index = socket.if_nametoindex(self._link)
            request = struct.pack("16sh14x", self._link.encode(), 0)
            answer = fcntl.ioctl(self._opened(), SIOCGIFFLAGS, request)
        except OSError as error:
            raise KernelError(errno.ENODEV, f"look at {self._link}", "it is gone") from error
        if index != self._index:
            raise KernelError(errno.ENODEV, f"look at {self._link}", "it is another one now")
        flags = struct.unpack_from("16sh", answer)[1]
        if not flags & IFF_UP:
            return f"{self._link} is down"
        return None if flags & IFF_RUNNING else f"{self._link} has no carrier"

    def send(self, priority: int) -> None:
        """Send one advert of that priority to the group, or to every peer.

        Raises `KernelError` when it has left for none of them; that for some is as good as a
        lossy network.
        """
        advert, checksum = self._router.advert(priority), self._router.checksum
        failure: OSError | None = None
        gone = 0
        for destination in self._destinations:
            message = encode(advert, self._router.source, destination, checksum)
            try:
                self._send_one(message, destination)
                gone += 1
            except OSError as error:
                failure = error
        if failure and not gone:
            operation = f"send a VRRP advert on {self._link}"
            raise self._refused(failure, operation, _ON_SENDING) from failure

    def receive(self) -> list[Heard | Rejected]:
        """Return all that has come in so far, without waiting.  Raises `KernelError`."""
        opened = self._opened()
        received: list[Heard | Rejected] = []
        try:
            while len(received) < _AT_ONCE:
                packet, ancillary, _, address = opened.recvmsg(_ENOUGH, _ANCILLARY)
                received.append(self._judge(packet, ancillary, address))
        except BlockingIOError:
            pass
        except OSError as error:
            raise self._refused(error, f"hear VRRP on {self._link}", _ON_SENDING) from error
        return received

    def fileno(self) -> int:
        """Return what polls as readable when there is something to receive."""
        return self._opened().fileno()

    def close(self) -> None:
        """Give the socket back, and with it the membership of the group."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # --- by family ------------------------------------------------------------------------------

    def _prepare_v4(self, opened: socket.socket) -> None:
        level = socket.IPPROTO_IP
        on_link = struct.pack("=4s4si", GROUP_V4.packed, bytes(4), self._index)  # struct ip_mreqn
        opened.setsockopt(level, IP_MULTICAST_ALL, 0)
        opened.setsockopt(level, socket.IP_TTL, VRRP_TTL)
        opened.setsockopt(level, socket.IP_MULTICAST_TTL, VRRP_TTL)
        opened.setsockopt(level, socket.IP_MULTICAST_LOOP, 0)
        opened.setsockopt(level, socket.IP_MULTICAST_IF, on_link)
        opened.setsockopt(level, socket.IP_TOS, TRAFFIC_CLASS)
        if self._multicast:
            opened.setsockopt(level, socket.IP_ADD_MEMBERSHIP, on_link)

    def _prepare_v6(self, opened: socket.socket) -> None:
        level = socket.IPPROTO_IPV6
        opened.setsockopt(level, IPV6_MULTICAST_ALL, 0)
        opened.setsockopt(level, socket.IPV6_UNICAST_HOPS, VRRP_TTL)
        opened.setsockopt(level, socket.IPV6_MULTICAST_HOPS, VRRP_TTL)
        opened.setsockopt(level, socket.IPV6_MULTICAST_LOOP, 0)
        opened.setsockopt(level, socket.IPV6_MULTICAST_IF, self._index)
        opened.setsockopt(level, socket.IPV6_TCLASS, TRAFFIC_CLASS)
        opened.setsockopt(level, socket.IPV6_RECVHOPLIMIT, 1)
        opened.setsockopt(level, socket.IPV6_RECVPKTINFO, 1)
        if self._multicast:
            on_link = struct.pack("=16si", GROUP_V6.packed, self._index)  # struct ipv6_mreq
            opened.setsockopt(level, socket.IPV6_JOIN_GROUP, on_link)

    def _send_one(self, message: bytes, destination: IPAddress) -> None:
        source = self._router.source.packed
        address: tuple[str, int] | tuple[str, int, int, int]
        if destination.version == 4:
            # struct in_pktinfo: the interface, the source, and a field that is for receiving
            named = (socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i4s4x", self._index, source))
            address = (str(destination), 0)
        else:
            told = struct.pack("=16si", source, self._index)  # struct in6_pktinfo
            named = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, told)
            address = (str(destination), 0, 0, self._index)
        self._opened().sendmsg([message], [named], 0, address)

    def _judge(
        self, packet: bytes, ancillary: list[tuple[int, int, bytes]], address: tuple[str, int]
    ) -> Heard | Rejected:
        if self._router.source.version == 4:
            split = split_ipv4(packet)  # the header tells the TTL, so it need not be asked for
            if isinstance(split, Rejected):
                return split
            envelope, message = split
            return decode(message, envelope, self._listener)
        hops: int | None = None
        destination: IPAddress = GROUP_V6
        for level, kind, content in ancillary:
            if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT):
                hops = struct.unpack("=i", content[:4])[0]
            elif (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
                destination = IPv6Address(content[:16])
        source = IPv6Address(address[0].partition("%")[0])
        return decode(packet, Envelope(source, destination, hops), self._listener)

    # --- the rest -------------------------------------------------------------------------------

    def _opened(self) -> socket.socket:
        if self._socket is None:
            raise KernelError(errno.EBADF, f"speak VRRP on {self._link}", "the socket is not open")
        return self._socket

    @staticmethod
    def _refused(error: OSError, operation: str, mends: dict[int, str]) -> KernelError:
        number = error.errno or errno.EIO
        return KernelError(number, operation, mends.get(number) or os.strerror(number))
