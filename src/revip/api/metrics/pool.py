"""Metrics of virtual servers and their backends."""

from __future__ import annotations

from collections.abc import Iterator

from revip.api.exposition import Family, Sample, Type
from revip.api.metrics.facts import Facts, Found, backends, each, servers
from revip.model.health import Verdict
from revip.planner.pool import PoolMode

SERVER = ("virtual_server",)
BACKEND = ("virtual_server", "backend")
COUNTER, GAUGE, HISTOGRAM = Type.COUNTER, Type.GAUGE, Type.HISTOGRAM


def _known(facts: Facts) -> frozenset[tuple[str, str]]:
    return frozenset((server["name"], backend["name"]) for server, backend in backends(facts))


def _verdicts(facts: Facts) -> Iterator[Sample]:
    for server, backend in backends(facts):
        for verdict in Verdict:
            is_it = backend["verdict"] == verdict.value
            yield (server["name"], backend["name"], verdict.value), int(is_it)


def _since(facts: Facts) -> Iterator[Sample]:
    for server, backend in backends(facts):
        since = round(facts.now - backend["since_ms_ago"] / 1000, 1)
        yield (server["name"], backend["name"]), since


def _weights(facts: Facts) -> Iterator[Sample]:
    for server, backend in backends(facts):
        for name in ("wanted", "kernel"):
            if (weight := backend[f"{name}_weight"]) is not None:
                yield (server["name"], backend["name"], name), weight


def _in_table(facts: Facts) -> Iterator[Sample]:
    for server, backend in backends(facts):
        for name in ("wanted", "kernel"):
            there = backend[f"{name}_weight"] is not None
            yield (server["name"], backend["name"], name), int(there)


def _connections(facts: Facts) -> Iterator[Sample]:
    for server, backend in backends(facts):
        for state in ("active", "inactive"):
            yield (server["name"], backend["name"], state), backend[f"{state}_connections"]


def _transitions(facts: Facts) -> Iterator[Sample]:
    facts.tally.keep(_known(facts))
    for place in sorted(_known(facts)):
        yield place, facts.tally.transitions[place]


def _durations(facts: Facts) -> Iterator[Sample]:
    known = _known(facts)
    yield from ((place, of.durations) for place, of in facts.probes.items() if place in known)


def _findings(facts: Facts) -> Iterator[Sample]:
    known = _known(facts)
    for place, counts in facts.probes.items():
        for finding, count in counts.findings.items() if place in known else ():
            yield (*place, finding.replace(" ", "_")), count


def _certificates(facts: Facts) -> Iterator[Sample]:
    known = _known(facts)
    for place, counts in facts.probes.items():
        if place in known and (ends := counts.certificates) is not None:
            for whose, end in (("backend", ends.backend), ("client", ends.client)):
                if end is not None:
                    yield (*place, whose), end


def _leadership(facts: Facts) -> Iterator[Sample]:
    for server in facts.status["virtual_servers"]:
        yield (server["name"],), facts.tally.leadership[server["name"]]


def _modes(facts: Facts) -> Iterator[Sample]:
    for server in facts.status["virtual_servers"]:
        for mode in PoolMode:
            yield (server["name"], mode.value), int(server["mode"] == mode.value)


def _lifetime(server: Found) -> float | None:
    left = (server.get("election") or {}).get("lifetime_left_ms")
    return None if left is None else left / 1000


def _duplicates(server: Found) -> float | None:
    seen = server.get("duplicates")
    return None if seen is None else sum(rival["told"] for rival in seen["rivals"])


def _oddities(facts: Facts) -> Iterator[Sample]:
    for server in facts.status["virtual_servers"]:
        for oddity, count in ((server.get("election") or {}).get("oddities") or {}).items():
            yield (server["name"], oddity.replace(" ", "_")), count


POOL: tuple[Family[Facts], ...] = (
    Family(
        "revip_director",
        GAUGE,
        "Whether this node is the director, and has the virtual IP.",
        SERVER,
        servers(lambda server: int(server["role"] == "director")),
    ),
    Family(
        "revip_leadership_changes_total",
        COUNTER,
        "How often this node became the elected director or ceased to be it.",
        SERVER,
        _leadership,
    ),
    Family(
        "revip_address_lifetime_left_seconds",
        GAUGE,
        "For how long the kernel keeps the elected virtual IP if nobody renews it.",
        SERVER,
        servers(_lifetime),
    ),
    Family(
        "revip_election_oddities_total",
        COUNTER,
        "What was odd about the other speakers of the group, by kind.",
        (*SERVER, "oddity"),
        _oddities,
    ),
    Family(
        "revip_duplicate_holders",
        GAUGE,
        "Others that answer for the virtual IP at present, and were told of; 0 is well.",
        SERVER,
        servers(_duplicates),
    ),
    Family(
        "revip_duplicate_conflicts_total",
        COUNTER,
        "How often somebody else was seen with the virtual IP.",
        SERVER,
        servers(lambda server: (server.get("duplicates") or {}).get("conflicts")),
    ),
    Family(
        "revip_pool_mode",
        GAUGE,
        "1 for the mode that the pool is in, 0 for the others.",
        (*SERVER, "mode"),
        _modes,
    ),
    Family(
        "revip_backend_verdict",
        GAUGE,
        "1 for the verdict that a backend has, 0 for the others.",
        (*BACKEND, "verdict"),
        _verdicts,
    ),
    Family(
        "revip_backend_verdict_timestamp_seconds",
        GAUGE,
        "Since when it has that verdict.",
        BACKEND,
        _since,
    ),
    Family(
        "revip_backend_transitions_total",
        COUNTER,
        "Changes of verdict.",
        BACKEND,
        _transitions,
    ),
    Family(
        "revip_backend_in_table",
        GAUGE,
        "Whether a backend is in the table: `wanted` is what it should be, `kernel` what it is."
        "  Followers have no table in the kernel.",
        (*BACKEND, "table"),
        _in_table,
    ),
    Family(
        "revip_backend_weight",
        GAUGE,
        "Its weight where it is in the table; 0 takes no new connections.",
        (*BACKEND, "table"),
        _weights,
    ),
    Family(
        "revip_backend_drained",
        GAUGE,
        "Whether the operator drains it (`revip drain`).",
        BACKEND,
        each(lambda backend: int(backend["drained_by_operator"])),
    ),
    Family(
        "revip_backend_connections",
        GAUGE,
        "Connections that IPVS knows.",
        (*BACKEND, "state"),
        _connections,
    ),
    Family(
        "revip_backend_connections_total",
        COUNTER,
        "Connections that IPVS has sent there since the backend came into the table.",
        BACKEND,
        each(lambda backend: float(backend["connections_total"])),
    ),
    Family(
        "revip_backend_received_bytes_total",
        COUNTER,
        "Bytes that IPVS has sent there since the backend came into the table.",
        BACKEND,
        each(lambda backend: float(backend["bytes_in_total"])),
    ),
    Family(
        "revip_backend_transmitted_bytes_total",
        COUNTER,
        "Bytes that came back through the director: 0 with direct forwarding.",
        BACKEND,
        each(lambda backend: float(backend["bytes_out_total"])),
    ),
    Family(
        "revip_probe_duration_seconds",
        HISTOGRAM,
        "How long probes took, whatever they found.",
        BACKEND,
        _durations,
    ),
    Family(
        "revip_probes_total",
        COUNTER,
        "Probes by what they found: `ready`, `denied`, `not_ready`, `refused`, `failed`, `ours`.",
        (*BACKEND, "finding"),
        _findings,
    ),
    Family(
        "revip_certificate_expiry_timestamp_seconds",
        GAUGE,
        "When a certificate of the probe expires, since the epoch: the `backend`'s, if verified,"
        " or our own, `client`, which it is shown.",
        (*BACKEND, "certificate"),
        _certificates,
    ),
)
