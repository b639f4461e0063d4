"""One snapshot of a node, for people and programs.

The layout is an interface (`schema`): keys are added, never renamed.  Times are milliseconds
before now (`..._ms_ago`), so that a reader needs no clock of the agent's.
"""

from __future__ import annotations

from typing import Any

from revip import __version__
from revip.model.health import Backend, Health
from revip.model.instants import Instant
from revip.model.ipvs import Destination, DestinationCounters, at
from revip.model.spec import ProbeKind, VirtualServerSpec
from revip.planner.diff import describe
from revip.planner.node import Node
from revip.planner.service import Entry, Service

SCHEMA = "revip.status/v1"


def status(node: Node, now: Instant) -> dict[str, Any]:
    """Render what `node` knows at `now`."""
    return {
        "schema": SCHEMA,
        "version": __version__,
        "node": node.spec.node,
        "settings": {
            "reconcile_interval_ms": node.spec.reconcile_interval,
            "on_exit": node.spec.on_exit.value,
            "manage_host": node.spec.manage_host,
        },
        "paused": node.paused,
        "in_sync": in_sync(node),
        "observed_ms_ago": None if node.observed_at is None else now - node.observed_at,
        "kernel": {
            "error": str(node.failure) if node.failure else None,
            "failing_ms": now - node.failing_since if node.failure else None,
            "failures": node.failures,
            "changes_applied": node.applied,
        },
        "drift": {
            "repairs_by_kind": dict(node.drift.by_kind),
            "fighting": node.drift.fighting,
        },
        "pending": [describe(change) for change in node.plan().changes],
        "virtual_servers": [_service(node, service, now) for service in node.services.values()],
    }


def in_sync(node: Node) -> bool:
    """Whether the kernel held, at the last look, what it should hold."""
    return node.failure is None and node.observed_at is not None and not node.plan().changes


def _service(node: Node, service: Service, now: Instant) -> dict[str, Any]:
    spec = service.spec
    pool = service.pool
    seen = node.observed.get(spec.key)
    return {
        "name": spec.name,
        "address": str(spec.address),
        "port": spec.port,
        "interface": spec.interface,
        "role": "director" if service.directing else "follower",
        "owner": spec.owner,
        "election": {"kind": "static" if spec.vrrp is None else "vrrp", "holder": spec.owner},
        "takeover": _takeover(spec),
        "settings": _settings(spec),
        "scheduler": spec.scheduler,
        "scheduler_flags": sorted(flag.value for flag in spec.flags),
        "forwarding": spec.forwarding.name.lower(),
        "forwarding_reason": spec.forwarding_reason,
        "mode": pool.mode.value if pool else "starting",
        "mode_ms": now - service.mode_since if pool else 0,
        "mode_reason": pool.reason if pool else "",
        "common_cause": service.cause,
        "in_kernel": seen is not None,
        "backends": [_backend(node, service, entry, now) for entry in service.entries.values()],
        "strangers": sorted(
            str(d) for d in (seen.destinations if seen else ()) if not _known(service, d)
        ),
    }


def _takeover(spec: VirtualServerSpec) -> dict[str, Any] | None:
    """Return how soon another node directs when this one dies; None where none would."""
    vrrp = spec.vrrp
    if vrrp is None:
        return None
    return {
        # Active_Down_Interval: three adverts and a skew of one at most (RFC 9568, section 6.1).
        "within_ms": 4 * vrrp.advert_interval,
        "address_lifetime_ms": vrrp.address_lifetime,
    }


def _settings(spec: VirtualServerSpec) -> dict[str, Any]:
    health = spec.health
    return {
        "panic_threshold": spec.panic_threshold,
        "drain_deadline_ms": spec.drain_deadline,
        "probe_interval_ms": health.interval,
        "probe_timeout_ms": health.timeout,
        "rise": health.rise,
        "fall": health.fall,
    }


def _backend(node: Node, service: Service, entry: Entry, now: Instant) -> dict[str, Any]:
    backend, health = entry.backend, entry.state.health
    endpoint = (backend.address, backend.port)
    wanted = _weight(service.pool.destinations if service.pool else frozenset(), endpoint)
    counters = node.counters.get((service.spec.key, *endpoint), DestinationCounters())
    return {
        "name": backend.name,
        "address": str(backend.address),
        "port": backend.port,
        "endpoint": at(backend.address, backend.port),
        "probed": _probed(service, backend),
        "weight": backend.weight,
        **_health(health, now),
        "drained_by_operator": backend.name in service.drained,
        "drained_ms": now - service.drained[backend.name]
        if backend.name in service.drained
        else None,
        "wanted_weight": wanted,
        "kernel_weight": _weight(service.kernel, endpoint),
        "placed_because": service.pool.reasons.get(backend.name, "") if service.pool else "",
        "active_connections": counters.active,
        "inactive_connections": counters.inactive,
        "connections_total": counters.traffic.connections,
        "bytes_in_total": counters.traffic.bytes_in,
        "bytes_out_total": counters.traffic.bytes_out,
    }


def _probed(service: Service, backend: Backend) -> str:
    """Return what is asked, as a URL that an operator can ask, too."""
    probe = service.spec.probe
    place = at(backend.address, probe.port or backend.port)
    return f"{probe.kind.value}://{place}{'' if probe.kind is ProbeKind.TCP else probe.path}"


def _health(health: Health, now: Instant) -> dict[str, Any]:
    last, held = health.last, health.held_back_until
    return {
        "verdict": health.verdict.value,
        "since_ms_ago": now - health.since,
        "reason": health.reason,
        "changes": health.changes,
        "held_back_ms": max(0, held - now) if held is not None else None,
        "last_probe": None
        if last is None
        else {
            "finding": last.finding.value,
            "reason": last.reason,
            "latency_ms": last.latency,
            "stage": last.stage,
            "held_connection": last.held,
        },
    }


def _weight(destinations: frozenset[Destination], endpoint: object) -> int | None:
    return next((d.weight for d in destinations if d.endpoint == endpoint), None)


def _known(service: Service, destination: Destination) -> bool:
    return any(
        (entry.backend.address, entry.backend.port) == destination.endpoint
        for entry in service.entries.values()
    )
