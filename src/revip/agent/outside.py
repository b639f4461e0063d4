"""The outside, as the agent is given it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from revip.model.spec import VirtualServerSpec
from revip.ports import (
    Announcer,
    BackendSource,
    Clock,
    Host,
    KeeperLink,
    KernelTable,
    Ownership,
    ProbeFactory,
    SentryFactory,
)


@dataclass(frozen=True, slots=True)
class Ports:
    """The outside, as the agent was given it."""

    clock: Clock
    table: KernelTable
    host: Host | None
    probes: ProbeFactory
    source: Callable[[VirtualServerSpec], BackendSource | None]
    ownership: Ownership
    culprits: Callable[[], Iterable[str]]
    """Names programs on this host that are known to change other people's virtual servers."""
    keeper: KeeperLink | None = None
    """None where nothing can be elected."""
    announcer: Announcer | None = None
    """None together with `host`: who does not manage the host does not speak for it."""
    sentry: SentryFactory | None = None
    """None where nobody is asked who else has an address."""
