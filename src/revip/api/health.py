"""What `/livez` and `/readyz` say: pure readings of one status snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STUCK_MS = 15_000
"""A table that was neither looked at nor refused for so long: the reconciler is stuck."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is as it should be, or not."""

    name: str
    why_not: str = ""
    """Empty when all is well."""


def liveness(snapshot: Mapping[str, Any]) -> list[Check]:
    """Return what only a restart of the agent would mend.

    That somebody is answered at all says that the loop turns.  A kernel that refuses, a missing
    interface or dead backends are no reason: a restart helps none of them.
    """
    looked, refused = snapshot["observed_ms_ago"], snapshot["kernel"]["error"]
    stuck = ""
    if refused is None and (looked if looked is not None else snapshot["up_ms"]) > STUCK_MS:
        stuck = "the kernel's table has not been looked at for 15 s, and nothing says why"
    return [Check("loop"), Check("reconciler", stuck)]


def readiness(snapshot: Mapping[str, Any]) -> list[Check]:
    """Return what this node needs in order to do its part, as director or as follower."""
    kernel, host = snapshot["kernel"]["error"], snapshot.get("host") or {}
    pending = "; ".join(snapshot["pending"][:3])
    checks = [
        *liveness(snapshot),
        Check("kernel", kernel or ""),
        Check("table", "" if snapshot["in_sync"] or kernel else _table(snapshot, pending)),
        Check("host", host.get("error") or ""),
    ]
    for server in snapshot["virtual_servers"]:
        waits = server["mode"] == "starting"
        checks.append(Check(f"pool {server['name']}", "no backend has answered yet" * waits))
    return checks


def _table(snapshot: Mapping[str, Any], pending: str) -> str:
    if snapshot["observed_ms_ago"] is None:
        return "not looked at yet"
    return f"differs from what it should be: {pending or 'unknown'}"


def well(checks: list[Check]) -> bool:
    """Whether nothing is wrong."""
    return not any(check.why_not for check in checks)


def text(checks: list[Check], *, verbose: bool) -> str:
    """Write the checks as the API server writes those of its own /readyz."""
    lines = []
    for check in checks:
        if check.why_not:
            lines.append(f"[-]{check.name} failed" + (f": {check.why_not}" if verbose else ""))
        else:
            lines.append(f"[+]{check.name} ok")
    if well(checks):
        return "\n".join([*lines, "ok"] if verbose else ["ok"]) + "\n"
    return "\n".join([*lines, "not ok"]) + "\n"
