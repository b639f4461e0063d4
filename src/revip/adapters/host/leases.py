"""Until when an address may be written: a refresh that comes too late would re-create it.

`RTM_NEWADDR` does not tell a refresh from an addition (inet_rtm_newaddr(), net/ipv4/devinet.c).
So an agent that was frozen while it wrote must look at the clock before and after.
"""

from __future__ import annotations

import errno
import time

from revip.adapters.host.refusals import refusal
from revip.model.host import Lease, LinkAddress
from revip.model.instants import SECOND, Instant
from revip.model.ipvs import IPAddress


class Leases:
    """The addresses that are written with a lifetime."""

    def __init__(self) -> None:
        self._leases: dict[LinkAddress, Lease] = {}

    def set(self, place: LinkAddress, lease: Lease | None) -> None:
        """Replace the lease of `place`; None is for ever."""
        if lease is None:
            self._leases.pop(place, None)
        else:
            self._leases[place] = lease

    def seconds(self, place: LinkAddress, operation: str) -> int | None:
        """Return the lifetime to write now, None for ever; `KernelError` after the lease."""
        lease = self._leases.get(place)
        if lease is None:
            return None
        if self.over(place):
            sentence = "the lease is over, and others may have the address"
            raise refusal(errno.ETIME, operation, sentence)
        return lease.lifetime // SECOND

    def ends(self, address: IPAddress) -> Instant:
        """Return until when `address` may be on this host at least; the past without a lease."""
        found = (lease.ends for place, lease in self._leases.items() if place.address == address)
        return max(found, default=Instant(0))

    @staticmethod
    def now() -> Instant:
        """Return the time that leases are measured by."""
        return _now()

    def over(self, place: LinkAddress) -> bool:
        """Return whether `place` has a lease that has ended."""
        lease = self._leases.get(place)
        return lease is not None and _now() > lease.ends


def _now() -> Instant:
    return Instant(time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000)
