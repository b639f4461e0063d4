"""The packet-filter fences of this network namespace: built, looked at, repaired, removed.

Each advert that leaves opens them; here is all else.  A fence that somebody removes lets all
answers out until it is back, and one that is made anew is open for what is left of the lease.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Iterable
from pathlib import Path

from revip.adapters.host.leases import Leases
from revip.adapters.host.record import Record
from revip.errors import KernelError
from revip.model.host import Fence, HostFact
from revip.model.ipvs import IPAddress
from revip.ports import Fences

AGAIN = 60.0
"""Seconds until a kernel that has nothing to make a fence of is asked again."""
SHUT = 2.0
"""Seconds after which a fence that is shut while this node directs is given up."""
_MODULES, _MODULE = Path("/proc/modules"), Path("/sys/module/nf_tables")


class Fencing:
    """Makes fences hold, or not; where the kernel cannot, none is needed."""

    def __init__(self, fences: Fences | None, record: Record, leases: Leases) -> None:
        self._fences = fences
        self._record = record
        self._leases = leases
        self._seen: dict[Fence, bool] = {}
        """Whether those that are wanted stood at the last look."""
        self._shut_since: dict[Fence, float] = {}
        self._lacking: dict[IPAddress, tuple[float, str]] = {}
        """Until when it is not tried to have one, and why."""

    def holding(self, present: Iterable[HostFact], absent: Iterable[HostFact]) -> set[Fence]:
        """Return which of `present` need no work, and which of `absent` are there.

        Raises `KernelError`.
        """
        wanted = {fact for fact in present if isinstance(fact, Fence)}
        self._seen = {}
        if self._fences is None:
            return wanted
        held: set[Fence] = set()
        for fact in wanted:
            if self._lacks(fact.address) or self._is_well(self._fences, fact):
                held.add(fact)
        named = {fact.address for fact in wanted}  # an older one in its place is replaced
        surplus = {
            fact
            for fact in absent
            if isinstance(fact, Fence) and fact.address not in named and self._may_be_ours(fact)
        }
        return held | {fact for fact in surplus if self._fences.exists(fact.address)}

    def changed(self) -> bool:
        """Tell whether somebody has changed a fence since the last look, or it must be given up."""
        try:
            return self._fences is not None and any(
                self._stands(self._fences, fact) != stood or self._too_long(fact)
                for fact, stood in self._seen.items()
            )
        except KernelError:
            return True  # the next look says what is wrong

    def give(self, fact: Fence) -> None:
        """Build it.  Raises `KernelError`, but not where the kernel has nothing to build it of."""
        if self._fences is None:
            return
        if str(fact.address) not in self._record.fences:
            self._record.fences.add(str(fact.address))
            self._record.save()
        try:
            self._fences.build(fact, self._leases.ends(fact.address))
        except KernelError as error:
            self._forgive(fact, error)

    def take(self, fact: Fence) -> None:
        """Remove it.  Raises `KernelError`."""
        if self._fences is not None:
            self._fences.destroy(fact.address)
        self._record.fences.discard(str(fact.address))
        self._record.save()

    def close(self) -> None:
        """Give the socket back; the next call opens another."""
        if self._fences is not None:
            self._fences.close()

    def told(self, address: IPAddress) -> str:
        """Return `nftables` where the fence of `address` stood at the last look, else why none."""
        if why := self._lacks(address):
            return f"none: {why}"
        stood = any(stands for fact, stands in self._seen.items() if fact.address == address)
        return "nftables" if stood else "none: it does not stand (yet)"

    def _lacks(self, address: IPAddress) -> str:
        until, why = self._lacking.get(address, (0.0, ""))
        return why if time.monotonic() < until else ""

    def _is_well(self, fences: Fences, fact: Fence) -> bool:
        try:
            stands = self._seen[fact] = self._stands(fences, fact)
        except KernelError as error:
            self._forgive(fact, error)
            return True
        if self._too_long(fact):
            # For good: adverts leave in a form that the fence does not know.
            fences.destroy(fact.address)
            del self._seen[fact]
            why = f"adverts do not leave {fact.link} as VRRP (IPsec?)"
            self._lacking[fact.address] = math.inf, why
        return stands

    def _stands(self, fences: Fences, fact: Fence) -> bool:
        """Look at a fence, and remember since when it is shut although this node directs."""
        stands = fences.stands(fact)
        leads = self._leases.ends(fact.address) > self._leases.now()
        if leads and stands and not fences.is_open(fact.address):
            self._shut_since.setdefault(fact, time.monotonic())
        else:
            self._shut_since.pop(fact, None)
        return stands

    def _too_long(self, fact: Fence) -> bool:
        return time.monotonic() - self._shut_since.get(fact, math.inf) > SHUT

    def _forgive(self, fact: Fence, error: KernelError) -> None:
        """Raise what is not the kernel's want of a fence, of which `told` tells."""
        if error.errno != errno.ENOSYS:
            raise error
        self._lacking[fact.address] = time.monotonic() + AGAIN, error.sentence

    def _may_be_ours(self, fact: Fence) -> bool:
        """Ask no kernel that has not loaded nf_tables, which would load it for that."""
        recorded = str(fact.address) in self._record.fences
        return recorded or _MODULE.exists() or not _MODULES.exists()
