"""What an agent must remember over its own restart, though not over the host's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from revip.model.health import BackendName
from revip.model.instants import Instant
from revip.model.ipvs import ServiceKey

Drains = Mapping[str, Mapping[BackendName, Instant]]
"""Backends that the operator drains, by virtual server, and since when."""


@dataclass(frozen=True, slots=True)
class Record:
    """Which virtual servers in the kernel are ours, and what the operator had asked for."""

    keys: frozenset[ServiceKey] = frozenset()
    drained: Drains = field(default_factory=dict)
