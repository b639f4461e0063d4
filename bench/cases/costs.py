"""What an idle balancer costs, and how soon a fresh one has programmed its table."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from lab.places import LabError

from bench import usage
from bench.cases import Effort
from bench.rows import Bound, Row, Sheet
from bench.subjects import (
    DEFAULT,
    KEEPALIVED,
    KEEPALIVED_QUICK,
    QUICK,
    SECOND,
    Keepalived,
    Revip,
    Running,
    Subject,
)
from bench.world import DIRECTOR, World, milliseconds, say

SETTLE_SECONDS = 2.0
START_SECONDS = 15.0
KEEPALIVED_EVERY = 2
"""It starts in every second round: with `alpha` and its warm-up that takes more than a second."""


def idle(world: World, effort: Effort) -> list[Row]:
    """Leave each alone with three healthy backends; nobody watches the table.

    The guest counts processor time in ticks of 10 ms, by who runs when one comes.  A checker with
    a period of whole ticks keeps its phase, and is seen always or never: hence several starts.
    """
    processor = Sheet("idle, 3 backends: processor", "% of a core", (Bound(DEFAULT, p50=1.0),))
    pss = Sheet("idle: memory of all its processes, PSS", "MiB", (Bound(DEFAULT, p50=45),))
    rss = Sheet("the same, RSS (as if alone on the host)", "MiB", contest=False)
    subjects: list[Subject] = [
        Revip(executed=True),
        Keepalived(KEEPALIVED, SECOND),
    ]
    if effort.thorough:
        subjects.append(Keepalived(KEEPALIVED_QUICK, QUICK))
    used = dict.fromkeys((subject.name for subject in subjects), 0.0)
    lasted = used.copy()
    for subject in subjects * effort.idle_starts:
        with Running(subject, world) as running:
            time.sleep(SETTLE_SECONDS)
            pids = usage.family(running.process.pid)
            begun, before = time.monotonic(), usage.processor_seconds(pids)
            time.sleep(effort.idle_seconds)
            used[subject.name] += usage.processor_seconds(pids) - before
            lasted[subject.name] += time.monotonic() - begun
            shared, full = usage.memory(pids)
        pss.add(subject.name, shared)
        rss.add(subject.name, full)
        share = 100 * used[subject.name] / lasted[subject.name]
        say(f"idle: {subject.name}: {share:.2f} % so far, PSS {shared:.1f} MiB of {len(pids)}")
    for name, seconds in used.items():
        processor.add(name, 100 * seconds / lasted[name])
    return [processor.row(), pss.row(), rss.row()]


def start(world: World, effort: Effort) -> list[Row]:
    """Start each by execve(2) with an empty table; look every 5 ms for a destination."""
    from_exec = Sheet("execve → first entry in the table", limit=START_SECONDS)
    from_main = Sheet("main() → first entry in the table", bounds=(Bound(DEFAULT, p50=400),))
    revip = Revip(executed=True)
    keepalived = Keepalived(KEEPALIVED, SECOND)
    for number in range(effort.rounds):
        path = revip.write_config(world, DIRECTOR)
        began, first, log = _first_entry(world, f"revip-{number}", _revip(path))
        from_exec.add(DEFAULT, milliseconds(began, first))
        from_main.add(DEFAULT, milliseconds(_stamp(log, "main"), first))
        if number % KEEPALIVED_EVERY == 0:
            argv = keepalived.command(world)
            began, first, _ = _first_entry(world, f"keepalived-{number}", argv)
            from_exec.add(KEEPALIVED, milliseconds(began, first))
        newest = (from_exec.samples[DEFAULT], from_main.samples[DEFAULT])
        said = ", ".join(f"{samples[-1] or START_SECONDS:.0f}" for samples in newest)
        say(f"start: revip {said} ms; keepalived {from_exec.samples[KEEPALIVED][-1]} ms")
    return [from_exec.row(), from_main.row()]


def _revip(config: Path) -> list[str]:
    """Return an interpreter that says when it calls main()."""
    program = (
        "import sys, time; print('main', time.monotonic_ns(), file=sys.stderr, flush=True); "
        f"from revip.cli.main import main; sys.exit(main(['run', '--config', {str(config)!r}]))"
    )
    return [sys.executable, "-c", program]


def _first_entry(world: World, name: str, argv: list[str]) -> tuple[int, int | None, Path]:
    """Start `argv`; return when it was executed, when the table had an entry, and its log."""
    log = world.lab.logs / f"start-{name}.log"
    with world.watch(0.005) as watch:
        process = world.lab.spawn(DIRECTOR, become, argv, log=log)
        first = watch.until(bool, START_SECONDS)
    process.end()
    world.clear()
    return _stamp(log, "exec"), first, log


def become(argv: list[str]) -> None:
    """Say when, and become that program."""
    os.write(2, f"exec {time.monotonic_ns()}\n".encode())
    os.execvpe(argv[0], argv, os.environ)


def _stamp(log: Path, word: str) -> int:
    for line in log.read_text(errors="replace").splitlines():
        said, _, instant = line.partition(" ")
        if said == word and instant.isdigit():
            return int(instant)
    raise LabError(f"{log.name} has no line '{word}'")
