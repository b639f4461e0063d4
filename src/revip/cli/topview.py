"""How `revip top` looks: the headline of `revip status`, then where the connections go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from revip.api.words import span, troubles
from revip.cli import view

BARS = "▁▂▃▄▅▆▇█"
BAR = 12
"""Cells of the bar of a share."""
COLUMNS = {
    "backend": 0,
    "verdict": 0,
    "for": 70,
    "weight": 0,
    "active": 0,
    "inactive": 90,
    "new/s": 0,
    "share": 0,
    "probe": 80,
    "latency": view.WIDE,
    "why": 80,
}
"""From how many columns of the terminal on each is shown."""
TROUBLES = 3
"""That many lines of what is wrong are left above the table; `revip status` has them all."""


def render(
    snapshot: dict[str, Any], sample: dict[str, Any], width: int, height: int
) -> RenderableType:
    """Render one sample for a terminal of `width` columns and `height` lines."""
    found = troubles(snapshot)
    parts: list[RenderableType] = [view.headline(snapshot, found)]
    for trouble in found[:TROUBLES]:
        style = "bold red" if trouble.grave else "yellow"
        line = Text(f"{'!!' if trouble.grave else '!'} {trouble.what}", style)
        parts += [line, Text(f"   -> {trouble.mend}")]
    if len(found) > TROUBLES:
        parts.append(Text(f"   and {len(found) - TROUBLES} more: `revip status`"))
    used = len(parts)
    for server, seen in zip(snapshot["virtual_servers"], sample["virtual_servers"], strict=True):
        parts += [Text(), view.server_line(server, width), _rate(seen, sample), _table(seen, width)]
        used += 5 + len(seen["backends"])
    room = max(2, height - used - 3) if height else len(sample["events"])
    if events := sample["events"][-room:]:
        parts += [Text(), Text("Last changes (UTC)", style="bold")]
        parts.append(view.events(events, width, lines=1))
    return Group(*parts)


def _rate(server: dict[str, Any], sample: dict[str, Any]) -> Text:
    if server["role"] != "director":
        return Text("no connections pass here: another node directs", style="dim")
    rate = server["new_connections_per_second"]
    if rate is None:
        return Text("shares are of all connections so far", style="dim")
    text = f"{rate:.1f} new connections a second, over {sample['window_seconds']:.0f} s"
    return Text(text, style="dim")


def _table(server: dict[str, Any], width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    names = [name for name, least in COLUMNS.items() if width >= least]
    left = ("backend", "verdict", "share", "latency", "why")
    for name in names:
        # The one column that may wrap is the one that Rich makes narrower when room is short.
        justify: Literal["left", "right"] = "left" if name in left else "right"
        table.add_column(name, justify=justify, no_wrap=name != "why")
    for backend in server["backends"]:
        cells = _cells(server, backend, width)
        table.add_row(*(cells[name] for name in names))
    return table


def _cells(
    server: dict[str, Any], backend: dict[str, Any], width: int
) -> dict[str, RenderableType]:
    rate, last = backend["new_connections_per_second"], backend["latencies_ms"][-1]
    return {
        "backend": backend["name"],
        "verdict": Text(backend["verdict"], view.STYLES[backend["verdict"]]),
        "for": span(backend["since_ms_ago"]),
        "weight": view.weight(server, backend),
        "active": str(backend["active_connections"]),
        "inactive": str(backend["inactive_connections"]),
        "new/s": "-" if rate is None else f"{rate:.1f}",
        "share": _share(backend["share"], BAR if width >= view.WIDE else 0),
        "probe": "-" if last is None else f"{last} ms",
        "latency": spark(backend["latencies_ms"]),
        "why": Text(backend["reason"], no_wrap=True, overflow="ellipsis"),
    }


def _share(share: float | None, cells: int) -> Text:
    if share is None:
        return Text("-")
    bar = "█" * round(share * cells)
    return Text(f"{share:4.0%} {bar}".rstrip())


def spark(values: Sequence[int | None]) -> str:
    """Draw values as bars between 0 and the largest; a gap is a blank."""
    most = max((value for value in values if value is not None), default=0) or 1
    return "".join(
        " " if value is None else BARS[min(len(BARS) - 1, value * len(BARS) // (most + 1))]
        for value in values
    )
