"""What goes wrong in the long night, and who is called for it."""

from __future__ import annotations

from collections.abc import Callable

from tests.deploy.night import DAY, Change, Fault, Labels, on

API = {"job": "revip", "virtual_server": "api"}
N2 = {**API, "backend": "n2"}


def growing(each: int) -> Callable[[int], float]:
    """Return a counter that gains so much in each minute."""
    return lambda minute: each * (minute + 1)


def once(gained: int) -> Callable[[int], float]:
    """Return a counter that gains so much at the beginning."""
    return lambda _: gained


def _judged(verdict: str, backend: Labels) -> tuple[Change, ...]:
    """Return how agents see a backend that is not healthy, and what they want for it."""
    draining = verdict == "draining"
    return (
        ("revip_backend_verdict", {**backend, "verdict": "healthy"}, 0),
        ("revip_backend_verdict", {**backend, "verdict": verdict}, 1),
        ("revip_backend_in_table", {**backend, "table": "wanted"}, float(draining)),
        ("revip_backend_weight", {**backend, "table": "wanted"}, 0 if draining else None),
    )


def _out(backend: Labels) -> tuple[Change, ...]:
    director = {**backend, "instance": "n1", "table": "kernel"}
    return (*_judged("unhealthy", backend), ("revip_backend_in_table", director, 0))


FAULTS: tuple[Fault, ...] = (
    Fault(
        "the incident: n2 is healthy again, and the director's kernel does not get it",
        (
            ("revip_backend_in_table", on("n1", backend="n2", table="kernel"), 0),
            ("revip_in_sync", on("n1"), 0),
        ),
        (("RevipBackendNotInTable", on("n1", virtual_server="api", backend="n2")),),
        begins=1,
    ),
    Fault(
        "a foreign entry stays in the kernel's table of n1",
        (("revip_in_sync", on("n1"), 0),),
        (("RevipKernelTableDiffers", on("n1")),),
        begins=2,
    ),
    Fault(
        "n3 alone does not reach n2",
        _judged("unhealthy", on("n3", backend="n2")),
        (("RevipTablesDisagree", N2),),
        begins=5,
    ),
    Fault(
        "the backends file of n3 lacks n2",
        (
            ("revip_backend_in_table", on("n3", backend="n2"), None),
            ("revip_backend_weight", on("n3", backend="n2"), None),
            ("revip_backend_verdict", on("n3", backend="n2"), None),
        ),
        (("RevipTablesDisagree", N2),),
        begins=5,
    ),
    Fault("n2 is dead", _out({"backend": "n2"}), (("RevipBackendOut", N2),), begins=5),
    Fault(
        "n2 is not ready",
        _judged("draining", {"backend": "n2"}),
        (("RevipBackendOut", N2),),
        begins=5,
    ),
    Fault("n2 is restarted", _out({"backend": "n2"}), lasts=4),
    Fault(
        "n2 comes and goes once a minute",
        (("revip_backend_transitions_total", on("n1", backend="n2"), growing(2)),),
        (("RevipBackendFlaps", N2),),
        begins=4,
        lasts=5,
    ),
    Fault(
        "a drain of n2 is forgotten",
        (
            ("revip_backend_drained", on("n1", backend="n2"), 1),
            ("revip_backend_weight", on("n1", backend="n2", table="wanted"), 0),
        ),
        (("RevipBackendDrained", N2),),
        begins=360,
        lasts=370,
    ),
    Fault(
        "n2 is healthy, drained on n1, and taken out there at the deadline",
        (
            ("revip_backend_drained", on("n1", backend="n2"), 1),
            ("revip_backend_in_table", on("n1", backend="n2"), 0),
            ("revip_backend_weight", on("n1", backend="n2"), None),
        ),
        lasts=30,
    ),
    Fault(
        "n2 is drained, then stopped for its upgrade",
        (("revip_backend_drained", on("n1", backend="n2"), 1), *_out({"backend": "n2"})),
        lasts=60,
    ),
    Fault(
        "every backend is dead",
        (
            ("revip_backend_verdict", {"verdict": "healthy"}, 0),
            ("revip_backend_verdict", {"verdict": "unhealthy"}, 1),
            ("revip_pool_mode", {"mode": "normal"}, 0),
            ("revip_pool_mode", {"mode": "panic"}, 1),
        ),
        (("RevipPanic", {**API, "mode": "panic"}),),
        begins=1,
    ),
    Fault(
        "the elected director has the virtual IP no longer, and nobody takes it over",
        (
            ("revip_director", {}, 0),
            ("revip_backend_in_table", {"table": "kernel"}, 0),
        ),
        (("RevipNoDirector", API),),
        begins=1,
    ),
    Fault(
        "two files name two owners; they hear each other",
        (
            ("revip_director", on("n2"), 1),
            ("revip_backend_in_table", on("n2", table="kernel"), 1),
            ("revip_duplicate_holders", on("n1"), 1),
            ("revip_duplicate_holders", on("n2"), 1),
        ),
        (("RevipTwoDirectors", API),),
        begins=1,
        value="2",
    ),
    Fault(
        "the virtual IP moves to and fro once a minute",
        (
            ("revip_leadership_changes_total", on("n1"), growing(1)),
            ("revip_leadership_changes_total", on("n2"), growing(1)),
        ),
        (("RevipDirectorMoves", API),),
        begins=4,
        lasts=5,
    ),
    Fault(
        "a host that is none of ours has the virtual IP",
        (("revip_duplicate_holders", on("n1"), 1),),
        (("RevipDuplicateAddress", on("n1", virtual_server="api")),),
        begins=1,
        value="1",
    ),
    Fault(
        "another balancer deletes the virtual server every 0.5 s",
        (
            ("revip_drift_fighting", on("n1"), 1),
            ("revip_drift_repairs_total", on("n1"), growing(100)),
        ),
        (("RevipDriftRepeated", on("n1")),),
        lasts=8,
    ),
    Fault(
        "a job changes one entry every ten minutes",
        (("revip_drift_repairs_total", on("n1"), lambda minute: 1 + minute // 10),),
        (("RevipDriftRepeated", on("n1")),),
        begins=20,
        lasts=29,
    ),
    Fault(
        "somebody flushes the table once",
        (("revip_drift_repairs_total", on("n1"), once(40)),),
        lasts=1,
    ),
    Fault(
        "the interface of n2 is missing",
        (("revip_host_failures_total", on("n2"), growing(12)),),
        (("RevipHostNotPrepared", on("n2")),),
        begins=0,
        lasts=4,
    ),
    Fault(
        "the certificate of n2 has 13 days left",
        (
            (
                "revip_certificate_expiry_timestamp_seconds",
                {"backend": "n2"},
                14 * DAY,
            ),
        ),
        (("RevipCertificateExpires", {**N2, "certificate": "backend"}),),
        begins=15,
        lasts=30,
    ),
    Fault(
        "the agent on the follower n2 is gone",
        (("", on("n2"), None), ("up", on("n2"), 0)),
        (("RevipAgentMissing", on("n2")),),
        begins=2,
    ),
    Fault(
        "the agent of the owner n1 is gone; nobody takes over from an owner",
        (("", on("n1"), None), ("up", on("n1"), 0)),
        (("RevipAgentMissing", on("n1")), ("RevipNoDirector", API)),
        begins=1,
    ),
    Fault(
        "every agent is gone",
        (("", {}, None), ("up", {}, 0)),
        (("RevipNoAgent", {"job": "revip"}),),
        begins=2,
    ),
    Fault("the job is gone", (("", {}, None),), (("RevipNoAgent", {}),), begins=2),
    Fault(
        "the reconciler of n1 is stuck",
        (("revip_kernel_observed_ago_seconds", on("n1"), 60),),
        (("RevipAgentStuck", on("n1")),),
        begins=1,
    ),
    Fault(
        "n1 has no ip_vs: its kernel cannot be read, and it says so",
        (
            ("revip_kernel_observed_ago_seconds", on("n1"), 60),
            ("revip_kernel_failing_seconds", on("n1"), 60),
            ("revip_in_sync", on("n1"), 0),
        ),
        (("RevipKernelTableDiffers", on("n1")),),
        begins=2,
    ),
    Fault(
        "the agent on n2 dies at each start",
        (("process_start_time_seconds", on("n2"), growing(60)),),
        (("RevipAgentRestarts", on("n2")),),
        begins=3,
        lasts=4,
    ),
    Fault(
        "the state file of n3 cannot be written",
        (("revip_notes_total", on("n3", kind="agent.fault"), once(1)),),
        (("RevipAgentFault", on("n3")),),
        lasts=2,
    ),
    Fault(
        "the disk of n3 is full",
        (("revip_history_failures_total", on("n3"), growing(5)),),
        (("RevipHistoryNotWritten", on("n3")),),
        lasts=5,
    ),
    Fault(
        "the disk of n3 is too slow",
        (("revip_history_dropped_total", on("n3"), growing(5)),),
        (("RevipHistoryNotWritten", on("n3")),),
        lasts=5,
    ),
    Fault(
        "n1 was paused and forgotten",
        (("revip_paused", on("n1"), 1),),
        (("RevipPaused", on("n1")),),
        begins=30,
        lasts=35,
    ),
)
