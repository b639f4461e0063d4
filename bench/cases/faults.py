"""An API server dies, returns, turns unready, its host vanishes: how soon the table says so."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.cases import Effort
from bench.rows import Bound, Row, Sheet
from bench.subjects import DEFAULT, FAST, Running, alternately, contestants
from bench.world import Sentinel, Weights, World, milliseconds, say

LIMIT = 15.0
BLOCK = 5


def faults(world: World, effort: Effort) -> list[Row]:
    """Each round: one API server killed and restarted, one unready and ready, one host away."""
    sheets = _Sheets()
    killed = itertools.cycle(("n1", "n2", "n3"))
    unready = itertools.cycle(("n2", "n3", "n1"))
    vanished = itertools.cycle(("n3", "n2"))

    def play(running: Running) -> None:
        chapter = _Chapter(running, sheets)
        chapter.kill(next(killed))
        chapter.turn_unready(next(unready))
        chapter.unplug(next(vanished))
        say(f"{running.subject.name}: {sheets.newest(running.subject.name)}")

    alternately(world, contestants(), effort.rounds, BLOCK, play)
    return sheets.rows()


def _sheet(what: str, *bounds: Bound, contest: bool = True) -> Sheet:
    return Sheet(what, bounds=bounds, limit=LIMIT, contest=contest)


@dataclass(frozen=True, slots=True)
class _Sheets:
    """One for each figure."""

    out: Sheet = field(
        default_factory=lambda: _sheet(
            "API server killed → out of the table", Bound(DEFAULT, 20, 100)
        )
    )
    ended: Sheet = field(
        default_factory=lambda: _sheet(
            "of which: until the kernel has closed the dead process's connections", contest=False
        )
    )
    back: Sheet = field(default_factory=lambda: _sheet("restarted and serving → back in the table"))
    red: Sheet = field(default_factory=lambda: _sheet("`/readyz` answers 500 → no new connections"))
    green: Sheet = field(
        default_factory=lambda: _sheet(
            "`/readyz` answers 200 again → weight back", Bound(DEFAULT, p99=1000)
        )
    )
    gone: Sheet = field(
        default_factory=lambda: _sheet(
            "host gone (packets dropped) → out of the table",
            Bound(DEFAULT, p99=1500),
            Bound(FAST, p99=500),
        )
    )
    there: Sheet = field(default_factory=lambda: _sheet("host there again → back in the table"))

    def all(self) -> tuple[Sheet, ...]:
        """Return them in the order of the story."""
        return self.out, self.ended, self.back, self.red, self.green, self.gone, self.there

    def rows(self) -> list[Row]:
        """Return what was collected."""
        return [sheet.row() for sheet in self.all()]

    def newest(self, subject: str) -> str:
        """Return the newest round in one line."""
        words = ("killed", "(fin", "back", "unready", "ready", "vanished", "there")
        values = [sheet.samples[subject][-1] for sheet in self.all()]
        said = ["late" if value is None else f"{value:.0f}" for value in values]
        said[1] += ")"
        return " ".join(f"{word} {value}" for word, value in zip(words, said, strict=True))


@dataclass(frozen=True, slots=True)
class _Chapter:
    """What happens to one subject in one round."""

    running: Running
    sheets: _Sheets

    def kill(self, name: str) -> None:
        """Kill the API server with SIGKILL, and start it again."""
        world = self._world
        server = world.cluster.servers[name]
        sentinel = Sentinel.to(world, name)
        with world.watch() as watch:
            killed = world.kill(name)
            gone = watch.until(world.without(name), LIMIT, sentinel)
        sentinel.close()
        server.wait(5)
        self._note(self.sheets.out, milliseconds(killed, gone))
        self._note(self.sheets.ended, milliseconds(killed, sentinel.ended))
        self._measure(self.sheets.back, lambda: world.cluster.start(name), world.everybody)

    def turn_unready(self, name: str) -> None:
        """Turn /readyz to 500 and back to 200."""

        def switch(mode: str) -> int:
            self._world.cluster.control(name).set(mode)
            return time.monotonic_ns()

        self._measure(self.sheets.red, lambda: switch("unready"), self._world.without(name))
        self._measure(self.sheets.green, lambda: switch("serving"), self._world.everybody)

    def unplug(self, name: str) -> None:
        """Take the host's cable and give it back; nothing is refused, everything is silent."""
        world = self._world
        self._measure(self.sheets.gone, lambda: world.plug(name, "down"), world.without(name))
        self._measure(self.sheets.there, lambda: world.plug(name, "up"), world.everybody)

    def _measure(
        self, sheet: Sheet, change: Callable[[], int], wanted: Callable[[Weights], bool]
    ) -> None:
        """Make a change at a moment of chance, and time the answer."""
        self._world.pause(self.running.subject.period)
        with self._world.watch() as watch:
            start = change()
            self._note(sheet, milliseconds(start, watch.until(wanted, LIMIT)))

    @property
    def _world(self) -> World:
        return self.running.world

    def _note(self, sheet: Sheet, value: float | None) -> None:
        sheet.add(self.running.subject.name, value)
