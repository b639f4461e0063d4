"""What came of a run, as Markdown for people and as `docs/benchmarks.md`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from bench.rows import Row
from bench.subjects import DEFAULT, FAST, KEEPALIVED, KEEPALIVED_QUICK

SUBJECTS = (DEFAULT, FAST, KEEPALIVED, KEEPALIVED_QUICK)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the benchmark."""

    rows: Sequence[Row]
    machine: str
    """In general words."""
    versions: Mapping[str, str]
    day: date
    rounds: int


def tables(rows: Iterable[Row]) -> str:
    """Return the rows as Markdown: first the contest, then what has columns of its own."""
    rows = list(rows)
    contest = [row for row in rows if set(row.cells) <= set(SUBJECTS)]
    others = [row for row in rows if not set(row.cells) <= set(SUBJECTS)]
    parts = []
    if contest:
        names = [name for name in SUBJECTS if any(name in row.cells for row in contest)]
        head = ["what", "unit", *names, "aim", "met", "who wins"]
        parts.append(_table(head, [_contest(row, names) for row in contest]))
    if others:
        head = ["what", "unit", "p50 / p99", "aim", "met", "who wins"]
        parts.append(_table(head, [_other(row) for row in others]))
    return "\n\n".join(parts)


def document(run: Run) -> str:
    """Return the whole of docs/benchmarks.md."""
    versions = "\n".join(f"- {name}: {version}" for name, version in run.versions.items())
    return _DOCUMENT.format(
        day=run.day.isoformat(),
        machine=run.machine,
        versions=versions,
        tables=tables(run.rows),
        summary=summary(run.rows),
        notes=_notes(run.rows),
        rounds=run.rounds,
    )


def summary(rows: Iterable[Row]) -> str:
    """Say in a few lines who won what, and which aims were missed."""
    rows = list(rows)
    fought = [row for row in rows if row.winner]
    lost = [row.what for row in fought if row.winner.startswith("keepalived")]
    missed = [
        f"{row.what} ({bound})"
        for row in rows
        for bound in row.bounds
        if bound.met(row.cells) is False
    ]
    if not fought:
        return ""
    won = sum(row.winner.startswith("revip") for row in fought)
    lines = [f"revip wins {won} of {len(fought)} contests."]
    lines.append(f"keepalived wins: {'; '.join(lost) or 'none'}.")
    lines.append(f"Aims missed: {'; '.join(missed) or 'none'}.")
    return "\n".join(lines)


def _contest(row: Row, names: Sequence[str]) -> list[str]:
    cells = [str(row.cells[name]) if name in row.cells else "" for name in names]
    return [row.what, row.unit, *cells, *_judgement(row)]


def _other(row: Row) -> list[str]:
    cells = "; ".join(f"{name}: {cell}" for name, cell in row.cells.items())
    return [row.what, row.unit, cells, *_judgement(row)]


def _judgement(row: Row) -> list[str]:
    aims = "; ".join(map(str, row.bounds))
    met = [bound.met(row.cells) for bound in row.bounds]
    words = {True: "yes", False: "**no**", None: "not measured"}
    return [aims, "; ".join(words[verdict] for verdict in met), row.winner]


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _notes(rows: Iterable[Row]) -> str:
    return "\n".join(f"- {row.what}: {row.note}." for row in rows if row.note)


_DOCUMENT = """# Benchmarks

<!-- Written by `script/bench --write`; do not edit. -->

revip beside keepalived: the same kernel, network, stand-in API servers and faults, seen by the
same outside observer. Measured on {day}; {machine}.

{versions}

## Figures

A cell is `p50 / p99` of {rounds} rounds (with fewer than 100 rounds the 99th percentile is the
worst one); a single number was measured once. Less is better. Medians within 5 % are `even`.

{tables}

{summary}

## How to read them

{notes}
- Subjects take turns in blocks (A B A B), each fault comes at a moment of chance within the
  subject's period, and each balancer runs on the director alone; in the rolling restart revip's
  agents run on all three nodes, where they prepare the real servers, and for keepalived those are
  prepared by hand.
- keepalived confirms a failure once, after 0.1 s (its own default is 3 s), and is given
  `connect_timeout` 1 s with checks every 1 s, 0.3 s with checks every 0.2 s. In the rolling
  restart the quick one also has `inhibit_on_failure`, its way to let connections go on. revip runs
  with its defaults (`revip`) or with `profile: fast`; only flap damping is off, since the
  benchmark does nothing but flap. keepalived removes a server that is not ready, revip gives it
  weight 0: both count as "no new connections".
- Fail-over: two or more nodes are a VRRP group, with adverts each second (`revip`,
  `keepalived 1 s`) or each 100 ms, VRRPv3 (the other two); keepalived directs on two nodes, has
  its sync daemon, and the VIP on every node's loopback, prepared by hand. revip directs on three.
  "Host gone" is a port of the bridge that passes nothing, with everything on the host killed. A
  new connection counts as failed when it is not open within 0.4 s. The observer pings, asks by
  ARP and connects from the guest's only processor.
- "killed" includes the kernel's work of ending the process: only then are its sockets closed.
- The observer reads the table a thousand times a second on the guest's only processor. What that
  takes, and how much later the agent's own log says the same thing with it than without it, is in
  the second table: it is in all figures of the first.
- Starting a process is slow in user-mode Linux, and so is importing Python modules, for each file
  is opened on the host: `execve` and `main()` figures are upper bounds for a real host.
- Processor time is utime + stime of /proc/PID/stat, in ticks of 10 ms, of all processes of a
  subject; the mean of several starts. The PSS of an interpreter that others run, too, is less
  than what it costs alone: hence the RSS below it.
- "By hand": revip's agent is started anew after two rounds, for from the fifth disturbance of the
  table within a minute on it takes it for a fight and looks ten times as often.
- `ipvsadm -R` includes starting ipvsadm; revip's agent is running already.

## How to repeat it

```sh
script/bench            # all of it, some 45 minutes; --quick takes 8
script/bench --write    # and write this file
script/bench faults     # one case; script/bench --help names them
script/bench --json     # every sample
```

It needs no root: the kernel is user-mode Linux, which script/bootstrap fetches.
"""
