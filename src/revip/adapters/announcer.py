"""The port `Announcer` on Linux: frames through a packet socket (packet(7)).

IPv6 goes that way, too: its hop limit, checksum and source are then ours, and need no address
that the kernel has finished with (duplicate address detection).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from pathlib import Path

from revip.errors import KernelError
from revip.model.host import LinkAddress, MacAddress
from revip.model.spec import LinkName
from revip.wire.arp import gratuitous_reply, gratuitous_request, pack_arp
from revip.wire.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV6
from revip.wire.ndp import pack_ndp, unsolicited

_SIOCGIFFLAGS = 0x8913
_SIOCGIFHWADDR = 0x8927
_REQUEST = struct.Struct("16s24x")
"""struct ifreq as netdevice(7) has it: a name, and room for the answer."""
_FLAGS = struct.Struct("=16xH")
_HARDWARE = struct.Struct("=16xH6s")
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_ARPHRD_ETHER = 1
"""<linux/if_arp.h>; VLANs, bridges, bonds and veths are of this kind, too."""

_MENDS: dict[int, str] = {
    errno.EPERM: "not permitted; run as root or with CAP_NET_RAW",
    errno.EACCES: "not permitted; run as root or with CAP_NET_RAW",
    errno.EAFNOSUPPORT: "this kernel has no packet sockets (CONFIG_PACKET)",
    errno.ENODEV: "no such interface; check `interface` in the configuration",
    errno.ENXIO: "the interface was removed; will be tried again",
    errno.ENETDOWN: "the interface is down; bring it up",
    errno.ENOBUFS: "the interface's queue is full; will be tried again",
    errno.EAGAIN: "the socket's buffer is full; will be tried again",
}


class PacketAnnouncer:
    """Announces on any Ethernet-like interface of the namespace in which it was first used.

    One socket serves all interfaces.  Their flags and hardware addresses are asked of it, not of
    sysfs, which shows the namespace it was mounted in, and asked each time: a bond changes its
    address when it changes its first port.
    """

    def __init__(self, sysctl_root: Path = Path("/proc/sys")) -> None:
        self._sysctl_root = sysctl_root
        self._socket: socket.socket | None = None

    def announce(self, place: LinkAddress) -> None:
        """Tell everybody on the link that the address is here: ARP in both forms, or one NA.

        Raises `KernelError`; ENETDOWN without a carrier, too, since the frame would be lost.
        """
        operation = f"announce {place.address} on {place.link}"
        try:
            self._announce(place, operation)
        except OSError as error:
            raise _refusal(error.errno or errno.EIO, operation) from error

    def close(self) -> None:
        """Give the socket back; the next call opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _announce(self, place: LinkAddress, operation: str) -> None:
        opened = self._opened()
        mac = _mac(opened, place.link, operation)
        address, link = place.address, place.link
        if address.version == 4:
            for form in (gratuitous_request, gratuitous_reply):
                opened.sendto(pack_arp(form(mac, address)), (link, ETHERTYPE_ARP))
        else:
            claim = unsolicited(mac, address, router=self._forwards(link))
            opened.sendto(pack_ndp(claim, mac), (link, ETHERTYPE_IPV6))

    def _opened(self) -> socket.socket:
        if self._socket is None:
            # Protocol 0: it sends, and nothing is ever queued for it.
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._socket.setblocking(False)
        return self._socket

    def _forwards(self, link: LinkName) -> bool:
        """Whether this node is an IPv6 router on `link`, as the kernel's own answers say."""
        try:
            path = self._sysctl_root / "net/ipv6/conf" / link / "forwarding"
            return path.read_text(encoding="ascii").strip() != "0"
        except OSError:  # IPv6 is switched off for this interface
            return False


def _mac(opened: socket.socket, link: LinkName, operation: str) -> MacAddress:
    """Return the hardware address of `link`.  Raises OSError or `KernelError`."""
    request = _REQUEST.pack(link.encode())
    (flags,) = _FLAGS.unpack_from(fcntl.ioctl(opened, _SIOCGIFFLAGS, request))
    if not flags & _IFF_UP:
        raise _refusal(errno.ENETDOWN, operation)
    if not flags & _IFF_RUNNING:
        raise _refusal(errno.ENETDOWN, operation, "the interface has no carrier; check the cable")
    kind, mac = _HARDWARE.unpack_from(fcntl.ioctl(opened, _SIOCGIFHWADDR, request))
    if kind != _ARPHRD_ETHER:
        sentence = f"hardware of type {kind} is not Ethernet, nobody can be told there"
        raise _refusal(errno.EPROTONOSUPPORT, operation, sentence)
    return MacAddress(mac)


def _refusal(number: int, operation: str, sentence: str | None = None) -> KernelError:
    return KernelError(number, operation, sentence or _MENDS.get(number) or os.strerror(number))
