"""`revip why`: why the virtual IP is here or not, and why each backend stands where it does.

Pure text from one status snapshot and the history; what would happen is derived from the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from textwrap import shorten
from typing import Any

from revip.api.asking import RefusedError
from revip.api.words import event, span

Found = Mapping[str, Any]

LATEST = 5
"""Changes that are told of each thing."""
TEXT = 200
"""Characters of each; `revip events` has the whole of it."""
OF_ADDRESSES = (
    "table.changed",
    "table.drift",
    "kernel.failed",
    "vip.announced",
    "vip.announce_failed",
)
"""Events that name the address in their text."""


def why(snapshot: Found, events: Sequence[Found], subject: str | None) -> str:
    """Return the answer about a virtual server or a backend, by name or address; None is all.

    Raises `RefusedError` when `subject` is neither.
    """
    servers = snapshot["virtual_servers"]
    if subject is None:
        blocks = [_server(snapshot, server, events) for server in servers]
    else:
        blocks = [_server(snapshot, s, events) for s in servers if subject in _names(s)]
        blocks += [
            _backend(server, backend, events, alone=True)
            for server in servers
            for backend in server["backends"]
            if subject in (backend["name"], backend["address"], backend["endpoint"])
        ]
    if not blocks and subject is not None:
        raise RefusedError(f"{subject}: is neither virtual server nor backend; {_known(servers)}")
    return "\n\n".join("\n".join(block) for block in blocks)


def _names(server: Found) -> tuple[str, ...]:
    place = _place(server)
    return server["name"], server["address"], place


def _place(server: Found) -> str:
    address = server["address"]
    return f"[{address}]:{server['port']}" if ":" in address else f"{address}:{server['port']}"


def _known(servers: Iterable[Found]) -> str:
    names = [
        f"{server['name']} ({server['address']}) with"
        f" {', '.join(each['name'] for each in server['backends']) or 'no backends'}"
        for server in servers
    ]
    return f"there are: {'; '.join(names) or 'none'}"


def _server(snapshot: Found, server: Found, events: Sequence[Found]) -> list[str]:
    name = server["name"]
    lines = [f"{name}, {_place(server)}: {_standing(snapshot, server)}"]
    lines += [f"  {line}" for line in _election(snapshot, server)]
    lasting = span(server["mode_ms"])
    lines.append(f"  the pool is {server['mode']} for {lasting}: {server['mode_reason'] or '-'}")
    if server["common_cause"]:
        lines.append(f"  {server['common_cause']}")
    if server["role"] == "director":
        lines += [f"  {line}" for line in _table(snapshot, server)]
    for backend in server["backends"]:
        lines += ["", *_backend(server, backend, events)]
    lines += _last([each for each in events if _about(each, server)], "what changed last")
    lines += ["", "if this node died", *(f"  {line}" for line in _death(snapshot, server))]
    return lines


def _about(event: Found, server: Found) -> bool:
    """Whether an event is about the virtual server as a whole; some only name its address."""
    if event["virtual_server"]:
        return bool(event["virtual_server"] == server["name"] and not event["backend"])
    named = rf"(?<![\w.:]){re.escape(server['address'])}(?![\w.])"
    return event["event"] in OF_ADDRESSES and bool(re.search(named, event["text"]))


def _standing(snapshot: Found, server: Found) -> str:
    if server["role"] == "director":
        return f"the virtual IP is here, as {snapshot['node']} directs"
    holder = (server.get("election") or {}).get("holder") or server["owner"]
    return f"the virtual IP is not here: {holder or 'nobody that is known'} directs"


def _election(snapshot: Found, server: Found) -> Iterator[str]:
    election = server.get("election") or {}
    kind = election.get("kind", "static")
    if kind == "static":
        here = "this node" if server["owner"] == snapshot["node"] else "another node"
        yield f"because the configuration names {server['owner']}, {here}, as owner (static)"
        return
    lasting = span(election.get("since_ms_ago"))
    state = election.get("state", "unknown")
    yield f"because of the election ({kind}): {state} for {lasting}: {election.get('reason', '-')}"
    if "priority" in election:
        yield f"this node's priority is {election['priority']}"
    if election.get("lifetime_left_ms") is not None:
        left = span(election["lifetime_left_ms"])
        yield f"the kernel keeps the address for {left} more if nobody renews it"


def _table(snapshot: Found, server: Found) -> Iterator[str]:
    kernel = snapshot["kernel"]
    if kernel["error"]:
        yield f"the kernel refuses for {span(kernel['failing_ms'])}: {kernel['error']}"
    elif not server["in_kernel"]:
        yield "the kernel has no table for it yet"
    if snapshot["paused"]:
        yield "the agent is paused, so nothing is changed (`revip resume`)"


def _backend(
    server: Found, backend: Found, events: Sequence[Found], *, alone: bool = False
) -> list[str]:
    where = f" of {server['name']}" if alone else ""
    lines = [f"{backend['name']}{where}, {backend['endpoint']}: {_weighed(server, backend)}"]
    lasting = span(backend["since_ms_ago"])
    lines.append(f"  it is {backend['verdict']} for {lasting}: {backend['reason']}")
    if backend["drained_by_operator"]:
        lines.append(f"  the operator drains it for {span(backend['drained_ms'])} (`revip enable`)")
    if backend["placed_because"]:
        lines.append(f"  the pool's rule: {backend['placed_because']}")
    if backend["held_back_ms"]:
        lines.append(f"  held back for {span(backend['held_back_ms'])} more: it changes too often")
    if (last := backend["last_probe"]) is not None:
        at = f" at {last['stage']}" if last["stage"] else ""
        lines.append(
            f"  the last probe ({backend['probed']}): {last['finding']} after"
            f" {last['latency_ms']} ms{at}: {last['reason']}"
        )
    mine = [
        each
        for each in events
        if each["backend"] == backend["name"] and each["virtual_server"] == server["name"]
    ]
    lines += _last(mine, "  what changed last", "  ")
    if alone:
        lines += ["", "if its node died", *(f"  {line}" for line in _loss(server, backend))]
    return lines


def _weighed(server: Found, backend: Found) -> str:
    wanted, kernel = _weight(backend["wanted_weight"]), _weight(backend["kernel_weight"])
    if server["role"] != "director":
        return f"would be {wanted}, were this node the director"
    if wanted == kernel:
        return f"{wanted}, as it should be"
    return f"it is {kernel} of the kernel's table and should be {wanted}".replace("in of", "in")


def _weight(weight: int | None) -> str:
    if weight is None:
        return "out"
    return "in" if weight == 1 else f"in with weight {weight}"


def _last(events: Sequence[Found], title: str, indent: str = "") -> list[str]:
    if not events:
        return []
    told = (shorten(event(each), TEXT, placeholder=" …") for each in events[-LATEST:])
    lines = [f"{indent}  {line}" for line in told]
    return [*([] if indent else [""]), title, *lines]


def _death(snapshot: Found, server: Found) -> Iterator[str]:
    mine = next((b for b in server["backends"] if b["name"] == snapshot["node"]), None)
    others = [b for b in server["backends"] if b is not mine and b["verdict"] == "healthy"]
    if server["role"] != "director":
        yield "the virtual IP stays where it is"
        if mine is not None:
            yield f"its director takes {mine['name']} out of the table; {_left(others)}"
        return
    takeover = server.get("takeover")
    if takeover is None:
        yield "nobody takes over, as the owner is fixed: the virtual IP is gone until"
        yield f"{server['owner']} is back, or `owner` names another node on every node"
        return
    yield f"the fittest other node takes over within about {span(takeover['within_ms'])}"
    yield f"it takes this node's server out of its table; {_left(others)}"
    if server["scheduler"] == "mh" and server["forwarding"] == "direct":
        yield "open connections to other servers go on (Maglev hashing, direct routing)"
    else:
        yield "open connections break: only mh with direct forwarding keeps them"
    life = span(takeover["address_lifetime_ms"])
    yield f"were only the agent frozen or killed, the kernel would drop the address within {life}"


def _loss(server: Found, backend: Found) -> Iterator[str]:
    others = [
        each for each in server["backends"] if each is not backend and each["verdict"] == "healthy"
    ]
    if backend["wanted_weight"] is None:
        yield "nothing changes: it is out already"
    else:
        yield f"the director takes it out of the table; {_left(others)}"


def _left(others: Sequence[Found]) -> str:
    if not others:
        return "no healthy one is left then: all known ones stay in (panic)"
    names = ", ".join(each["name"] for each in others)
    return f"{names} {'is' if len(others) == 1 else 'are'} left"
