"""How a status snapshot looks on a terminal.

One look tells what is wrong, since when, why, and what to do; the table below it is for the rest.
Color only underlines what the words say, and narrow terminals lose the least important columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from textwrap import shorten
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from revip.api.words import Trouble, event_text, is_well, span, troubles
from revip.errors import RevipError

STYLES = {
    "healthy": "green",
    "draining": "yellow",
    "unhealthy": "bold red",
    "unknown": "dim",
    "warning": "yellow",
    "error": "bold red",
    "info": "",
    "ok": "green",
    "warn": "yellow",
    "fail": "bold red",
}
WIDE = 110
"""Columns from which a terminal shows everything."""
EVENTS = 6
"""Last changes that are shown."""


@cache
def console() -> Console:
    """Return the console; plain where output is no terminal, and wide enough to be grepped."""
    plain = Console(highlight=False)
    return plain if plain.is_terminal else Console(width=160, highlight=False)


def status(snapshot: dict[str, Any], width: int) -> RenderableType:
    """Render a screenful for a terminal of `width` columns."""
    found = troubles(snapshot)
    parts: list[RenderableType] = [headline(snapshot, found)]
    if found:
        parts += [Text(), _troubles(found)]
    for server in snapshot["virtual_servers"]:
        parts += [Text(), server_line(server, width), _backends(server, width)]
    if snapshot.get("events"):
        parts += [Text(), Text("Last changes (UTC)", style="bold")]
        parts.append(events(snapshot["events"][-EVENTS:], width, lines=2))
    return Group(*parts)


def safely(snapshot: Callable[[], dict[str, Any]], width: int) -> RenderableType:
    """Render a snapshot, or the reason why there is none."""
    try:
        return status(snapshot(), width)
    except RevipError as error:
        return Text(str(error), style="bold red")


def events(entries: Iterable[dict[str, Any]], width: int, lines: int = 99) -> RenderableType:
    """Render events, one below the other, each in about `lines` lines at most."""
    wide = width >= WIDE
    grid = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(2 if wide else 1):
        grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for entry in entries:
        heading = [entry["time"][11:23], entry["event"]] if wide else [entry["time"][11:19]]
        text = shorten(event_text(entry), lines * (width - 40 * wide - 12), placeholder=" …")
        grid.add_row(*heading, Text(text, STYLES[entry["level"]]))
    return grid


def checks(rows: Iterable[dict[str, str]]) -> RenderableType:
    """Render the checks of a host: what is the case, and below it what to do about it."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("level", "check"):
        table.add_column(name, no_wrap=True)
    table.add_column("what, and what to do about it", overflow="fold")
    for row in rows:
        style = STYLES[row["level"]]
        what = Text(row["what"], style if row["mend"] else "")
        if row["mend"]:
            what.append(f"\n-> {row['mend']}", "default not bold")
        table.add_row(Text(row["level"], style), row["check"], what)
    return table


def headline(snapshot: dict[str, Any], found: list[Trouble]) -> Text:
    """Say in one line how the agent is."""
    if any(trouble.grave for trouble in found):
        badge = (" TROUBLE ", "white on red")
    elif is_well(snapshot):
        badge = (" WELL ", "black on green")
    else:
        badge = (" ATTENTION ", "black on yellow")
    repairs = sum(snapshot["drift"]["repairs_by_kind"].values())
    return Text.assemble(
        badge,
        (f" {snapshot['node']}", "bold"),
        f"  revip {snapshot['version']}",
        f"  up {span(snapshot['up_ms'])}" if "up_ms" in snapshot else "",
        f"  put right {repairs} times what others changed" if repairs else "",
    )


def _troubles(found: list[Trouble]) -> Table:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for trouble in found:
        style = "bold red" if trouble.grave else "yellow"
        grid.add_row(Text("!!" if trouble.grave else "!", style), Text(trouble.what, style))
        grid.add_row("", f"-> {trouble.mend}")
    return grid


def server_line(server: dict[str, Any], width: int) -> Text:
    """Say in one line how a virtual server is, and who directs it."""
    loud = server["mode"] in ("panic", "empty")
    here = server["role"] == "director"
    inside = sum(bool(backend["wanted_weight"]) for backend in server["backends"])
    election = server.get("election") or {"kind": "static"}
    holder = server["owner"] or election.get("holder") or "nobody yet"
    rank = f" (elected, priority {election['priority']})" if "priority" in election else ""
    address = f"[{server['address']}]" if ":" in server["address"] else server["address"]
    return Text.assemble(
        (f"{server['name']} ", "bold"),
        f" {address}:{server['port']} on {server['interface']}, ",
        f"this node directs{rank}: " if here else f"{holder} directs, this node follows{rank}: ",
        f"{inside} of {len(server['backends'])} in, ",
        (f"{server['mode']} for {span(server['mode_ms'])}", "bold red" if loud else ""),
        f" ({server['scheduler']}, {server['forwarding']})" if width >= WIDE else "",
    )


def _backends(server: dict[str, Any], width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    names = ["backend", "address", "verdict", "for", "weight", "conns", "probe", "why"]
    if width < WIDE:
        names.remove("probe")
    if server["role"] != "director":
        names.remove("conns")
    for name in names:
        right = name in ("for", "weight", "conns", "probe")
        # The one column that may wrap is the one that Rich makes narrower when room is short.
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "why")
    for backend in server["backends"]:
        cells = _cells(server, backend)
        if width < WIDE:  # one line each: the troubles above have the whole reason
            cells["why"] = Text(str(cells["why"]), no_wrap=True, overflow="ellipsis")
        table.add_row(*(cells[name] for name in names))
    return table


def _cells(server: dict[str, Any], backend: dict[str, Any]) -> dict[str, RenderableType]:
    probe = backend["last_probe"]
    drained = backend["drained_by_operator"]
    same_port = backend["port"] == server["port"]
    return {
        "backend": backend["name"],
        "address": backend["address"] if same_port else backend["endpoint"],
        "verdict": Text(backend["verdict"], STYLES[backend["verdict"]]),
        "for": span(backend["since_ms_ago"]),
        "weight": weight(server, backend),
        "conns": str(backend["active_connections"]),
        "probe": f"{probe['latency_ms']} ms" if probe else "-",
        "why": f"drained by the operator; {backend['reason']}" if drained else backend["reason"],
    }


def weight(server: dict[str, Any], backend: dict[str, Any]) -> Text:
    """Write the weight that is in force, and where it differs the one that should be."""
    wanted, kernel = map(_as_weight, (backend["wanted_weight"], backend["kernel_weight"]))
    if server["role"] != "director" or wanted == kernel:
        return Text(wanted)
    return Text(f"{kernel}, want {wanted}", "bold red")


def _as_weight(weight: int | None) -> str:
    return "out" if weight is None else str(weight)
