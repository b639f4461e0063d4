"""The port `Sentry` on Linux: packet sockets that hear only who claims one address (packet(7)).

Each is bound to one EtherType, so that nothing this host sends comes back on it, and has its
filter before it is bound, so that nothing else is ever queued.  They belong to the interface as it
is now: when that is deleted and made again, close this and open another.
"""

from __future__ import annotations

import array
import asyncio
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address

from revip.errors import KernelError
from revip.model.conflict import Garbled, Sighting
from revip.model.host import LinkAddress, MacAddress
from revip.model.ipvs import IPAddress
from revip.wire.arp import pack_arp, probe
from revip.wire.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6
from revip.wire.ndp import NeighborSolicitation, duplicate_probe, pack_ndp, solicited_node
from revip.wire.neighbors import neighbors_request, read_neighbor
from revip.wire.netlink import NLMSG_DONE, NLMSG_ERROR, WireError, messages, pack_message
from revip.wire.sift import arp_claims, group_adverts, group_adverts6, ndp_claims
from revip.wire.sightings import sighting

_SIOCGIFFLAGS = 0x8913  # netdevice(7)
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_REQUEST = struct.Struct("16s24x")
_FLAGS = struct.Struct("=16xH")
_SO_ATTACH_FILTER = 26  # include/uapi/asm-generic/socket.h; not in Python's socket module
_PROGRAM = struct.Struct("@HP")
"""struct sock_fprog: how many instructions, and where they are."""
_ARPHRD_ETHER = 1
_FRAME = 2048
_DATAGRAM = 65536
_AT_ONCE = 256
"""Frames taken in one go at most: a flood must not keep the loop from the timers."""
_DUMP_SECONDS = 0.5

_MENDS: dict[int, str] = {
    errno.EPERM: "not permitted; run as root or with CAP_NET_RAW",
    errno.EACCES: "not permitted; run as root or with CAP_NET_RAW",
    errno.EAFNOSUPPORT: "this kernel has no packet sockets (CONFIG_PACKET)",
    errno.ENODEV: "no such interface; check `interface` in the configuration",
    errno.ENXIO: "the interface was removed; will be tried again",
    errno.ENETDOWN: "the interface is down or has no carrier",
    errno.ENOBUFS: "the interface's queue is full; will be tried again",
}


class LinkSentry:
    """Asks and hears on one link who else has one address."""

    def __init__(self, place: LinkAddress, vrid: int | None) -> None:
        """Remember the address, and the VRRP group whose speakers are fellow nodes."""
        self._place = place
        self._vrid = vrid
        self._index = 0
        self._sockets: list[socket.socket] = []
        """The last one hears claims and wakes; one before it hears adverts, which wait."""

    def open(self) -> None:
        """Begin to hear.  Raises `KernelError`."""
        link, address = self._place.link, self._place.address
        operation = f"listen for {address} on {link}"
        try:
            self._index = socket.if_nametoindex(link)
        except OSError as error:  # Python 3.11 does not say which
            raise _refusal(errno.ENODEV, operation) from error
        try:
            for ethertype, program in self._filters(address):
                self._sockets.append(_listening(link, ethertype, program))
        except OSError as error:
            self.close()
            raise _refusal(error.errno or errno.EIO, operation) from error
        kind = self._sockets[-1].getsockname()[3]
        if kind != _ARPHRD_ETHER:
            self.close()
            sentence = f"hardware of type {kind} is not Ethernet, nobody can be asked there"
            raise _refusal(errno.EPROTONOSUPPORT, operation, sentence)

    def ask(self, source: IPAddress | None) -> None:
        """Ask once who has the address, as `source`, or as one who has none.

        Raises `KernelError`; ENETDOWN without a carrier, too, ENODEV when the interface is
        another one now.
        """
        link, address = self._place.link, self._place.address
        operation = f"ask on {link} who has {address}"
        try:
            if socket.if_nametoindex(link) != self._index:
                raise _refusal(errno.ENODEV, operation, "it is another interface now")
            asking = self._claims(operation)
            request = _REQUEST.pack(link.encode())
            (flags,) = _FLAGS.unpack_from(fcntl.ioctl(asking, _SIOCGIFFLAGS, request))
            if flags & (_IFF_UP | _IFF_RUNNING) != _IFF_UP | _IFF_RUNNING:
                raise _refusal(errno.ENETDOWN, operation)
            asking.send(self._question(address, source))
        except OSError as error:
            raise _refusal(error.errno or errno.ENODEV, operation) from error

    def receive(self) -> list[Sighting]:
        """Return all that was heard so far, without waiting.  Raises `KernelError`."""
        heard: list[Sighting] = []
        own = self._mac()
        for each in self._sockets:
            try:
                for _ in range(_AT_ONCE):
                    seen = sighting(each.recv(_FRAME), self._place.address, self._vrid)
                    # A switch may reflect a frame of ours.
                    if seen is not None and (isinstance(seen, Garbled) or seen.mac != own):
                        heard.append(seen)
            except BlockingIOError:
                continue
            except OSError as error:
                operation = f"hear on {self._place.link} who has {self._place.address}"
                raise _refusal(error.errno or errno.EIO, operation) from error
        return heard

    def neighbors(self) -> Mapping[IPAddress, MacAddress]:
        """Return at which hardware address of the link this host knows whom.

        Raises `KernelError`.
        """
        operation = f"read the neighbors on {self._place.link}"
        try:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asking:
                asking.settimeout(_DUMP_SECONDS)
                request = neighbors_request(self._place.address.version, 1)
                asking.send(pack_message(request))
                return _dumped(asking, self._index)
        except OSError as error:
            raise _refusal(error.errno or errno.ETIMEDOUT, operation) from error
        except WireError as error:
            raise _refusal(errno.EBADMSG, operation, str(error)) from error

    async def readable(self) -> None:
        """Wait until somebody claims the address.

        Adverts of fellow nodes wake nobody, however often they come; `receive` has them first.
        """
        loop = asyncio.get_running_loop()
        come = asyncio.Event()
        watched = self._claims("wait for a claim")
        loop.add_reader(watched, come.set)
        try:
            await come.wait()
        finally:
            loop.remove_reader(watched)

    def close(self) -> None:
        """Give the sockets back."""
        for each in self._sockets:
            each.close()
        self._sockets.clear()

    def _filters(self, address: IPAddress) -> Iterator[tuple[int, bytes]]:
        old = isinstance(address, IPv4Address)
        if self._vrid is not None:
            program = group_adverts(self._vrid) if old else group_adverts6(self._vrid)
            yield ETHERTYPE_IPV4 if old else ETHERTYPE_IPV6, program
        if isinstance(address, IPv4Address):
            yield ETHERTYPE_ARP, arp_claims(address)
        else:
            yield ETHERTYPE_IPV6, ndp_claims(address)

    def _claims(self, operation: str) -> socket.socket:
        if not self._sockets:
            raise _refusal(errno.EBADF, operation, "it is not open")
        return self._sockets[-1]

    def _mac(self) -> MacAddress | None:
        """Return the link's own hardware address as it is now: a bond changes it."""
        try:
            return MacAddress(self._sockets[-1].getsockname()[4]) if self._sockets else None
        except OSError:
            return None

    def _question(self, address: IPAddress, source: IPAddress | None) -> bytes:
        mac = self._mac() or MacAddress(bytes(6))
        if isinstance(address, IPv4Address):  # the probe touches no cache, whoever asks
            return pack_arp(probe(mac, address))
        if isinstance(source, IPv6Address):
            asking = NeighborSolicitation(source, solicited_node(address), address, mac)
            return pack_ndp(asking, mac)
        return pack_ndp(duplicate_probe(address), mac)


def _listening(link: str, ethertype: int, program: bytes) -> socket.socket:
    """Return a socket that hears what `program` lets in.  Raises OSError."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        opened.setblocking(False)
        memory = array.array("B", program)
        described = _PROGRAM.pack(len(program) // 8, memory.buffer_info()[0])
        opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
        opened.bind((link, ethertype))
    except OSError:
        opened.close()
        raise
    return opened


def _dumped(asking: socket.socket, index: int) -> dict[IPAddress, MacAddress]:
    found: dict[IPAddress, MacAddress] = {}
    while True:
        for message in messages(asking.recv(_DATAGRAM)):
            if message.kind in (NLMSG_DONE, NLMSG_ERROR):
                return found
            if (neighbor := read_neighbor(message, index)) is not None:
                mac, address = neighbor
                found[address] = mac


def _refusal(number: int, operation: str, sentence: str | None = None) -> KernelError:
    return KernelError(number, operation, sentence or _MENDS.get(number) or os.strerror(number))
