"""What the kernel's refusals mean, as sentences that say how to mend them."""

from __future__ import annotations

import errno
import os

from revip.errors import KernelError

_MENDS: dict[int, str] = {
    errno.EPERM: "not permitted; run as root or with CAP_NET_ADMIN",
    errno.EACCES: "not permitted; run as root or with CAP_NET_ADMIN",
    errno.EROFS: "/proc/sys is read-only here; run privileged, or mount it writable",
    errno.ENODEV: "no such interface; check `interface` in the configuration",
    errno.EINVAL: (
        "refused as invalid; for a route with a source this means that the node's own address "
        "is not on this host: check `node_address`"
    ),
    errno.EADDRNOTAVAIL: "the address is not on this host",
    errno.ENETDOWN: "the interface is down; bring it up",
    errno.EOPNOTSUPP: "this kernel does not support it",
    errno.EAFNOSUPPORT: "this address family is switched off on this host (IPv6 disabled?)",
    errno.ENOBUFS: "the kernel's answer was lost for want of buffer space; will be asked again",
    errno.EINTR: "the kernel's tables changed while they were read; will be asked again",
    errno.ETIMEDOUT: "the kernel did not answer in time; will be asked again",
}


def refusal(number: int, operation: str, sentence: str | None = None) -> KernelError:
    """Return the error for `number` (positive errno) of `operation`, with its mend."""
    mend = sentence or _MENDS.get(number) or os.strerror(number)
    return KernelError(number, operation, mend)
