"""Metrics of what is kept in the kernel: the table, the host, the announcements."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from revip.api.exposition import Family, Sample, Type
from revip.api.metrics.facts import Facts, one

COUNTER, GAUGE, HISTOGRAM = Type.COUNTER, Type.GAUGE, Type.HISTOGRAM


def _by_kind(facts: Facts) -> Iterator[Sample]:
    for kind, count in facts.status["drift"]["repairs_by_kind"].items():
        yield (kind,), count
    if (host := facts.status.get("host")) is not None:
        yield ("host",), host["repairs"]


def _refusals(facts: Facts) -> Iterator[Sample]:
    for (call, number), count in facts.refusals.items():
        yield (call, errno.errorcode.get(number, str(number))), count


def _announced(facts: Facts) -> Iterator[Sample]:
    if (announced := facts.status.get("announcements")) is not None:
        yield ("sent",), announced["sent"]
        yield ("failed",), announced["failed"]


def _kernel_failing(facts: Facts) -> float:
    return (facts.status["kernel"]["failing_ms"] or 0) / 1000


def _looked(facts: Facts) -> float | None:
    ago = facts.status["observed_ms_ago"]
    return None if ago is None else ago / 1000


KERNEL: tuple[Family[Facts], ...] = (
    Family(
        "revip_in_sync",
        GAUGE,
        "Whether the kernel held at the last look what it should hold.",
        (),
        one(lambda facts: int(facts.status["in_sync"])),
    ),
    Family(
        "revip_table_differences",
        GAUGE,
        "Changes that would make the kernel's IPVS table what it should be; 0 is well.",
        (),
        one(lambda facts: len(facts.status["pending"])),
    ),
    Family(
        "revip_paused",
        GAUGE,
        "Whether the operator has paused the agent (`revip pause`).",
        (),
        one(lambda facts: int(facts.status["paused"])),
    ),
    Family(
        "revip_drift_repairs_total",
        COUNTER,
        "What others changed and revip put right, by kind; `host` is all but the table.",
        ("kind",),
        _by_kind,
    ),
    Family(
        "revip_drift_fighting",
        GAUGE,
        "Whether somebody keeps changing our virtual servers.",
        (),
        one(lambda facts: int(facts.status["drift"]["fighting"])),
    ),
    Family(
        "revip_kernel_changes_total",
        COUNTER,
        "Single changes of the IPVS table that are in force.",
        (),
        one(lambda facts: facts.status["kernel"]["changes_applied"]),
    ),
    Family(
        "revip_kernel_call_duration_seconds",
        HISTOGRAM,
        "How long it took to read (`observe`) or to write (`apply`) the IPVS table.",
        ("call",),
        lambda facts: (((call,), histogram) for call, histogram in facts.kernel.items()),
    ),
    Family(
        "revip_kernel_refusals_total",
        COUNTER,
        "Calls that the kernel refused, by errno(3).",
        ("call", "errno"),
        _refusals,
    ),
    Family(
        "revip_kernel_failing_seconds",
        GAUGE,
        "For how long the kernel has refused something by now; 0 is well.",
        (),
        one(_kernel_failing),
    ),
    Family(
        "revip_kernel_observed_ago_seconds",
        GAUGE,
        "How old the last look at the kernel's table is.",
        (),
        one(_looked),
    ),
    Family(
        "revip_host_failures_total",
        COUNTER,
        "Attempts to prepare addresses, routes, rules and sysctls that failed.",
        (),
        one(lambda facts: (facts.status.get("host") or {}).get("failures")),
    ),
    Family(
        "revip_announcements_total",
        COUNTER,
        "Gratuitous ARP and neighbor advertisements, `sent` or `failed`.",
        ("result",),
        _announced,
    ),
)
