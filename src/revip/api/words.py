"""What a status snapshot means, in words: what is wrong, since when, why, and what to do.

Pure, and without the drawing library: `revip status --json` needs only this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Snapshot = Mapping[str, Any]
"""`revip.status/v1`, see `revip.api.status`."""

AT_MOST = 6
"""Troubles of one kind that are told singly; the table has them all."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong."""

    what: str
    """What, since when and why, one sentence."""
    mend: str
    """What to do about it; when that is nothing, what will happen by itself."""
    grave: bool = False
    """Clients may notice."""


def is_well(snapshot: Snapshot) -> bool:
    """Whether all is as it should be."""
    return bool(snapshot["in_sync"]) and not troubles(snapshot)


def troubles(snapshot: Snapshot) -> list[Trouble]:
    """List what is wrong, the gravest first."""
    found = [*_kernel(snapshot), *_host(snapshot), *_agent(snapshot)]
    for server in snapshot["virtual_servers"]:
        found += _server(server)
    return sorted(found, key=lambda trouble: not trouble.grave)


def told(snapshot: Snapshot) -> dict[str, Any]:
    """Return the same as a part of the snapshot, for readers that have no words of their own."""
    found = troubles(snapshot)
    grave = any(trouble.grave for trouble in found)
    state = "trouble" if grave else "well" if snapshot["in_sync"] and not found else "attention"
    return {"state": state, "troubles": [asdict(trouble) for trouble in found]}


def span(milliseconds: float | None) -> str:
    """Write a span as people say it: `850 ms`, `12 s`, `3 min`, `5 h`, `2 d`."""
    if milliseconds is None:
        return "-"
    for size, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")):
        if milliseconds >= size * (2 if unit != "s" else 1):
            return f"{int(milliseconds // size)} {unit}"
    return f"{int(milliseconds)} ms"


def event(entry: Mapping[str, Any]) -> str:
    """Write one event as a line that can be searched."""
    level = "" if entry["level"] == "info" else f" {entry['level'].upper()}"
    return f"{entry['time'][:23]}Z {entry['event']}{level} {event_text(entry)}"


def event_text(entry: Mapping[str, Any]) -> str:
    """Return what an event says, with the virtual server that it is about."""
    where = f"{entry['virtual_server']}: " if entry["virtual_server"] else ""
    return f"{where}{entry['text']}"


def _kernel(snapshot: Snapshot) -> Iterator[Trouble]:
    kernel, pending = snapshot["kernel"], snapshot["pending"]
    if kernel["error"]:
        what = f"the kernel's table cannot be kept, for {span(kernel['failing_ms'])}: "
        mend = "probing goes on, and the table is tried again every few seconds"
        yield Trouble(what + kernel["error"], mend, grave=True)
    elif pending and not snapshot["paused"]:
        yield Trouble(f"being done now: {'; '.join(pending[:AT_MOST])}", "look again in a second")
    if snapshot["drift"]["fighting"]:
        what = "another program keeps changing our virtual servers; each change is undone at once"
        mend = "`revip events` names it; for kube-proxy in IPVS mode set ipvs.excludeCIDRs"
        yield Trouble(what, mend, grave=True)


def _host(snapshot: Snapshot) -> Iterator[Trouble]:
    host = snapshot.get("host") or {}
    if host.get("error"):
        mend = "it is tried again every few seconds; `revip check` looks at the whole host"
        yield Trouble(f"this host cannot be prepared: {host['error']}", mend, grave=True)


def _agent(snapshot: Snapshot) -> Iterator[Trouble]:
    if snapshot["paused"]:
        waiting = f"; {_count(snapshot['pending'], 'change')} to come (`revip plan`)"
        what = "paused by the operator: nothing is changed"
        mend = "`revip resume` goes back to work"
        yield Trouble(what + (waiting if snapshot["pending"] else ""), mend)
    if snapshot.get("unrecorded"):
        mend = "make room there; a restart would not know which virtual servers are ours"
        yield Trouble(snapshot["unrecorded"], mend)
    for surface, mend in (
        ("history", "make room there; the events are in memory until the agent ends"),
        ("http", "the table is kept all the same; it is tried again every few seconds"),
    ):
        if (snapshot.get(surface) or {}).get("error"):
            yield Trouble(f"{surface}: {snapshot[surface]['error']}", mend)
    if snapshot.get("log_lines_dropped"):
        what = f"lines of the log lost, as nobody reads stderr: {snapshot['log_lines_dropped']}"
        yield Trouble(what, "look at what collects the log (journald, the container runtime)")


def _duplicates(server: Snapshot) -> Iterator[Trouble]:
    """Tell who else has the address; older agents do not say."""
    seen = server.get("duplicates") or {}
    for rival in seen.get("rivals", ()):
        if not rival["told"]:
            continue
        who = f"{rival['mac']} ({rival['name']})" if rival["name"] else rival["mac"]
        what = f"{server['name']}: {who} answers for {server['address']}, too,"
        what += f" for {span(rival['since_ms_ago'])}"
        mend = "find it by its hardware address and take the virtual IP from it"
        if seen.get("standing_aside"):
            mend += "; this node leaves it alone until nobody answers (on_duplicate: yield)"
        yield Trouble(what, mend, grave=True)


def _server(server: Snapshot) -> Iterator[Trouble]:
    name, lasting = server["name"], span(server["mode_ms"])
    if server["mode"] == "panic":
        what = f"{name}: panic for {lasting}: {server['mode_reason']}"
        yield Trouble(what, "all backends are kept in: get any one of them to answer", grave=True)
    elif server["mode"] == "empty":
        mend = "give it backends: virtual_servers[].backends, or what writes backends_file"
        yield Trouble(f"{name}: empty for {lasting}: {server['mode_reason']}", mend, grave=True)
    yield from _duplicates(server)
    if server["common_cause"]:
        mend = "mend what they share before you look at single backends"
        yield Trouble(f"{name}: {server['common_cause']}", mend)
    for stranger in server["strangers"]:
        mend = "revip takes it out; if it comes back, find who puts it there"
        yield Trouble(f"{name}: {stranger} is in the kernel, but no backend of ours", mend)
    # What all share was told above; one by one they would only hide it.
    alike = server["common_cause"] is not None
    ill = [each for each in server["backends"] if _is_ill(each) and not alike]
    yield from (_backend(name, each) for each in ill[:AT_MOST])
    if len(ill) > AT_MOST:
        yield Trouble(f"{name}: {len(ill) - AT_MOST} more are not well", "see the table")


def _count(things: Sequence[object], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def _is_ill(backend: Snapshot) -> bool:
    return backend["verdict"] != "healthy" or bool(backend["drained_by_operator"])


def _backend(server: str, backend: Snapshot) -> Trouble:
    name, verdict = backend["name"], backend["verdict"]
    subject = f"{server}: {name} ({backend['endpoint']})"
    if backend["drained_by_operator"]:
        what = f"{subject} is drained by the operator for {span(backend['drained_ms'])}: "
        what += f"no new connections, {backend['active_connections']} still open"
        return Trouble(what, f"`revip enable {name}` ends the drain")
    lasting = span(backend["since_ms_ago"])
    return Trouble(f"{subject} is {verdict} for {lasting}: {backend['reason']}", _mend(backend))


def _mend(backend: Snapshot) -> str:
    last = backend["last_probe"] or {}
    if backend["held_back_ms"]:
        return f"it changed too often; back in {span(backend['held_back_ms'])} at the latest"
    if last.get("finding") == "ours":
        return "the fault is on this node, not on the backend: mend it here"
    match backend["verdict"]:
        case "unknown":
            return "it is being asked for the first time"
        case "draining":
            return f"it tells why: curl -k '{backend['probed']}?verbose'; back by itself when ready"
        case _ if last.get("finding") == "refused":
            return f"start the server on {backend['name']}; back by itself as soon as it answers"
        case _:
            ask = backend["probed"].replace("tcp://", "telnet://")
            return f"ask it from here: curl -kv '{ask}'; back by itself as soon as it answers"
