"""Somebody disturbs the table; and how much the observer itself disturbs."""

from __future__ import annotations

import itertools
import time
from datetime import datetime

from lab.net import PORT, VIP
from lab.observer import POLL_SECONDS

from bench.cases import Effort
from bench.rows import Bound, Row, Sheet
from bench.subjects import (
    DEFAULT,
    FAST,
    KEEPALIVED,
    SECOND,
    Keepalived,
    Revip,
    Running,
    alternately,
)
from bench.world import DIRECTOR, World, milliseconds, say

NEVER_SECONDS = 5.0
"""How long keepalived is given."""
BLOCK = 2
"""Disturbed oftener, revip looks every 50 ms: that is not to be in the figures."""


def vandal(world: World, effort: Effort) -> list[Row]:
    """Flush the table, and delete one entry, by hand."""
    entry = f"{world.cluster.address('n2')}:{PORT}"
    disturbances = (
        (("-C",), _sheet("whole table flushed by hand → repaired")),
        (
            ("-d", "-t", f"{VIP}:{PORT}", "-r", entry),
            _sheet("one entry deleted by hand → repaired"),
        ),
    )

    def play(running: Running) -> None:
        subject = running.subject
        for argv, sheet in disturbances:
            before = world.cluster.run_in(DIRECTOR, "ipvsadm", "-Sn")
            with world.watch() as watch:
                world.cluster.run_in(DIRECTOR, "ipvsadm", *argv)
                done = time.monotonic_ns()
                whole = watch.until(world.everybody, NEVER_SECONDS)
            sheet.add(subject.name, milliseconds(done, whole))
            if whole is None:  # and would not come ever: put it right for the next disturbance
                _put_back(world, before)
            world.pause(subject.period)
        say(f"disturbed: {subject.name}: {[s.samples[subject.name][-1] for _, s in disturbances]}")

    alternately(world, [Revip()], effort.rounds, BLOCK, play)
    alternately(world, [Keepalived(KEEPALIVED, SECOND)], effort.never_rounds, BLOCK, play)
    return [sheet.row() for _, sheet in disturbances]


def _put_back(world: World, rules: str) -> None:
    world.cluster.run_in(DIRECTOR, "ipvsadm", "-C")
    path = world.folder / "rules"
    path.write_text(rules)
    world.cluster.run_in(DIRECTOR, "sh", "-c", f"ipvsadm -R <{path}")


def _sheet(what: str) -> Sheet:
    return Sheet(what, bounds=(Bound(DEFAULT, p99=1000),), limit=NEVER_SECONDS)


def observer(world: World, effort: Effort) -> list[Row]:
    """Let the agent's own log tell when it changed the table, with and without an observer.

    The guest has one processor, and the observer looks a thousand times a second.
    """
    share = Sheet("the observer's own use of the processor", "% of a core", contest=False)
    told = Sheet(
        "API server killed → the agent's log says it is out, by who watches",
        contest=False,
        note="nobody watching, or the observer of all other rows",
    )
    with world.watch() as watch:
        for _ in range(3):
            begun, used = time.monotonic(), time.process_time()
            watch.until(lambda _: False, 1.0)
            share.add("observer", 100 * (time.process_time() - used) / (time.monotonic() - begun))
    names = itertools.cycle(("n2", "n3"))

    def play(running: Running) -> None:
        for how in ("nobody", "observer"):
            name = next(names)
            server = world.cluster.servers[name]
            before = time.time()
            world.kill(name)
            if how == "nobody":
                time.sleep(0.5)
            else:
                with world.watch(POLL_SECONDS) as watch:
                    watch.until(world.without(name), 0.5)
                time.sleep(0.2)
            told.add(how, _logged_after(world, before))
            server.wait(5)
            world.cluster.start(name)
            with world.watch(0.02) as watch:
                watch.until(world.everybody, 10.0)
            world.pause(running.subject.period)
        say(f"observer: {[told.samples[how][-1] for how in ('nobody', 'observer')]}")

    alternately(world, [Revip(FAST, "fast")], max(3, effort.rounds // 2), 10, play)
    return [share.row(), told.row()]


def _logged_after(world: World, wall: float) -> float | None:
    """Return the milliseconds from `wall` to the agent's first `table.changed` after it."""
    for event in world.cluster.ask(DIRECTOR, "events"):
        at = datetime.fromisoformat(event["time"]).timestamp()
        if event["event"] == "table.changed" and at >= wall - 0.001:
            return max(0.0, (at - wall) * 1000)
    return None
