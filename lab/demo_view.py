"""How the demo looks: live on a terminal, as plain lines without one, and its summary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from lab.chronicle import FAILED_REQUESTS, KEPT, LOST, STREAMS, Backend, Chronicle
from lab.feed import FAILED
from lab.scenarios.demo import written

VERDICTS = {"healthy": "green", "draining": "yellow", "unhealthy": "bold red"}
STATES = {"running": ("▸", "bold cyan"), "done": ("✓", "bold green"), "failed": ("✗", "bold red")}
BARS = "▁▂▃▄▅▆▇█"
CELL_MS = 500
"""What a cell of the sparkline stands for."""
SHARE_MS = 2000
"""The time over which shares and rates are told."""
BAR = 8
"""Cells of a backend's share."""
ENDING = "ending the lab, a moment ..."


# --- live ---------------------------------------------------------------------------------------


def booting(spinner: Spinner, seconds: float, kernel: str) -> RenderableType:
    """Render the time before the story begins."""
    what = "user-mode Linux" if kernel == "uml" else "a lab on this host's kernel"
    spinner.update(text=Text(f"Starting {what}, three nodes, their agents ... {seconds:.0f} s"))
    return Padding(spinner, (1, 1))


def ending(spinner: Spinner) -> RenderableType:
    """Render the time in which the lab is taken down."""
    spinner.update(text=Text(ENDING))
    return Padding(spinner, (1, 1))


def screen(story: Chronicle, seconds: float, width: int) -> RenderableType:
    """Render the story so far; at most 20 lines."""
    return Group(
        _headline(story, seconds, width),
        _line(Text.assemble(("  ", ""), (story.narration, "bold"))),
        Text(),
        _backends(story),
        Text(),
        _client(story, width),
        Text(),
        _steps(story),
    )


def _headline(story: Chronicle, seconds: float, width: int) -> Table:
    line = Table.grid(expand=True)
    line.add_column(no_wrap=True, overflow="ellipsis")
    line.add_column(justify="right", no_wrap=True)
    where = f"  the kernel's IPVS table of {story.vip}" + (
        f"  (Linux {story.release})" if width >= 100 else ""
    )
    panic = story.mode == "panic"
    line.add_row(
        Text.assemble(
            (" revip ", "black on green"),
            where,
            (" "),
            (" PANIC ", "white on red") if panic else "",
        ),
        Text(f"{seconds:.0f} s ", "dim"),
    )
    return line


def _backends(story: Chronicle) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    table.add_column("  backend", no_wrap=True, min_width=12)
    table.add_column("health", no_wrap=True, min_width=9)
    table.add_column("weight", no_wrap=True, min_width=6, justify="right")
    table.add_column("conns", no_wrap=True, min_width=5, justify="right")
    table.add_column("requests", no_wrap=True, min_width=BAR + 6)
    table.add_column("why", no_wrap=True, overflow="ellipsis", ratio=1)
    counts = story.recent(SHARE_MS)
    answered = max(1, counts.total() - counts[FAILED])
    for backend in story.backends.values():
        table.add_row(*_row(backend, counts[backend.name] / answered))
    return table


def _row(backend: Backend, share: float) -> list[RenderableType]:
    weight = "out" if backend.weight is None else str(backend.weight)
    style = "bold red" if backend.weight is None else "yellow" if backend.weight == 0 else "green"
    filled = round(share * BAR)
    return [
        f"  {backend.address}",
        Text(backend.verdict, VERDICTS.get(backend.verdict, "dim")),
        Text(weight, style),
        "-" if backend.weight is None else str(backend.active),
        Text.assemble(("█" * filled, "cyan"), ("·" * (BAR - filled), "dim"), f" {share:>4.0%}"),
        Text(backend.reason, "dim"),
    ]


def _client(story: Chronicle, width: int) -> Text:
    counts = story.recent(SHARE_MS)
    answered = counts.total() - counts[FAILED]
    rate = answered * 1000 / SHARE_MS
    success = answered / max(1, counts.total())
    words = f"{rate:>4.0f} requests/s  {success:>6.1%} answered  "
    total = f"  {story.failed} of {story.requests} failed"
    room = max(0, min(60, width - 10 - len(words) - len(total)))
    line = Text.assemble(("  client ", "dim"), (words, "green" if success == 1 else "bold red"))
    line.append_text(sparkline(story.rates(room, CELL_MS)))
    line.append(total, "dim")
    return _line(line)


def sparkline(rates: list[tuple[float, int]]) -> Text:
    """Render answered requests per second; cells with failures are red."""
    most = max((rate for rate, _ in rates), default=0.0)
    text = Text()
    for rate, failed in rates:
        height = round(rate / most * (len(BARS) - 1)) if most else 0
        text.append(BARS[height], "bold red" if failed else "cyan")
    return text


def _steps(story: Chronicle) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=3, justify="right")
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column(no_wrap=True, justify="right")
    for step in story.steps.values():
        sign, style = STATES[step.state]
        done = step.state == "done"
        table.add_row(
            Text(sign, style),
            Text(step.title, "" if done else "bold"),
            Text(step.result + " ", "bold green" if done else "dim"),
        )
    return table


def _line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


# --- plain --------------------------------------------------------------------------------------

SIGNS = {"done": "ok  ", "failed": "FAIL"}


def plain(event: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that tell of an event without a terminal; most tell nothing."""
    at = f"{event.get('at_ms', 0) / 1000:6.1f} s  "
    match event:
        case {"event": "say", "text": text}:
            yield f"{at}     {text}"
        case {"event": "step", "title": title, "state": "done" | "failed" as state} as step:
            result = f" -> {step['result']}" if step.get("result") else ""
            yield f"{at}{SIGNS[state]} {title}{result}"
        case {"event": "table", "weights": weights}:
            entries = ", ".join(f"{name} weight {weight}" for name, weight in weights.items())
            yield f"{at}     kernel's table: {entries or 'empty'}"
        case {"event": "agent", "mode": "panic"}:
            yield f"{at}     agent: panic, no backend is healthy and all stay in"
        case {"event": "check", "ok": False, "text": text}:
            yield f"{at}FAIL not so: {text}"
        case _:
            return


# --- summary ------------------------------------------------------------------------------------


def summary(story: Chronicle) -> RenderableType:
    """Render the measured figures beside kube-vip's."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.add_column("what happened")
    table.add_column("revip, now", justify="right")
    table.add_column("kube-vip 0.8.0-0.8.4 *", justify="right")
    for what, measured, other in comparison(story):
        table.add_row(what, Text(measured, "bold green"), Text(other, "red"))
    parts: list[RenderableType] = [table, Text(NOTE, "dim")]
    parts += [Text(f"FAILED: {failure}", "bold red") for failure in story.failures]
    if not story.finished:
        parts.append(Text("FAILED: the story did not come to its end", "bold red"))
    return Group(*parts)


NOTE = """\
* Read, not measured in this run.  The first two rows: releases 0.8.0 to 0.8.4,
  with their check every 5 s.  The others: the source of v1.2.3, which never
  compares its table with the kernel's, deletes at the first failed check
  without weight 0, and removes every backend when all checks fail."""


def comparison(story: Chronicle) -> list[tuple[str, str, str]]:
    """Return the rows of the summary: what, revip's figure, kube-vip's."""
    figures = story.figures
    kept = figures.get(KEPT)
    return [
        ("apiserver killed: out of the table", _time(story, "removed_after_ms"), "up to 5 s"),
        ("serves again: back in the table", _time(story, "readded_after_ms"), "never"),
        ("ipvsadm -C: repaired", _time(story, "drift_repaired_after_ms"), "never"),
        ("rolling restart: failed requests", _failures(story), "not drained"),
        (
            "all down: backends kept in",
            "-" if kept is None else f"{kept:.0f} of {len(story.backends)}",
            "none",
        ),
        ("director's agent killed: streams lost", _lost(story), "all it directed"),
    ]


def _time(story: Chronicle, name: str) -> str:
    return written(story.figures[name]) if name in story.figures else "-"


def _lost(story: Chronicle) -> str:
    if LOST not in story.figures:
        return "-"
    return f"{story.figures[LOST]:.0f} of {story.figures[STREAMS]:.0f}"


def _failures(story: Chronicle) -> str:
    if FAILED_REQUESTS not in story.figures:
        return "-"
    total = story.figures.get("rolling_restart_requests")
    failed = f"{story.figures[FAILED_REQUESTS]:.0f}"
    return f"{failed} of {total:.0f}" if total is not None else failed
