"""Scenarios: named stories that happen in the lab, checked and measured.

    @scenario("dead-backend-leaves", "a killed apiserver is out of the table")
    def dead_backend_leaves(run: Run) -> None:
        run.say("n2 is killed")
        ...
        run.figure("removed_after_ms", 12.5)
        run.check(backend not in table, "the killed backend left the table")

Modules of `lab.scenarios` are imported to fill the registry.  Each run gets a fresh network.
"""

from __future__ import annotations

import difflib
import importlib
import json
import pkgutil
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from lab.figures import Figure, Samples
from lab.net import Topology
from lab.places import LOGS, LabError
from lab.processes import Lab

Tell = Callable[[Mapping[str, object]], None]
"""Takes events as they happen."""

_LOG_LINES = 12
"""Lines of each log that are shown when a scenario fails."""


class Run:
    """One telling of a scenario: the lab it happens in, and what is noted about it."""

    def __init__(
        self, lab: Lab, directory: Path, kernel: str, tell: Tell, *, thorough: bool = False
    ) -> None:
        self.lab = lab
        self.directory = directory
        """An empty folder for files; gone after the run."""
        self.kernel = kernel
        """`uml` or `host`."""
        self.thorough = thorough
        """Whether to go through everything where a subset would do."""
        self.samples = Samples()
        self.failures: list[str] = []
        self._tell = tell
        self._began = time.monotonic()

    def figure(self, name: str, milliseconds: float) -> None:
        """Note one measured time; `name` ends in `_ms` by custom."""
        self.samples.add(name, milliseconds)
        self.event("figure", name=name, ms=round(milliseconds, 1))

    def check(self, condition: object, sentence: str) -> bool:
        """Note whether `condition` is true; `sentence` says what is so when it is."""
        if not condition:
            self.failures.append(f"not so: {sentence}")
        self.event("check", ok=bool(condition), text=sentence)
        return bool(condition)

    def say(self, narration: str) -> None:
        """Tell what happens now."""
        self.event("say", text=narration)

    def event(self, event: str, **details: object) -> None:
        """Tell something to whoever watches; `details` must go into JSON."""
        at = round((time.monotonic() - self._began) * 1000)
        self._tell({"event": event, "at_ms": at, **details})


@dataclass(frozen=True, slots=True)
class Scenario:
    """A story with its name."""

    name: str
    summary: str
    """One line: what it shows."""
    story: Callable[[Run], None]
    topology: Topology = field(default_factory=Topology)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a scenario, over all its repetitions."""

    scenario: str
    kernel: str
    figures: Mapping[str, Figure]
    failures: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """True when nothing failed."""
        return not self.failures

    def to_json(self) -> str:
        """Return it as one line of JSON."""
        document: dict[str, object] = {
            "scenario": self.scenario,
            "kernel": self.kernel,
            "ok": self.ok,
            "figures": self.figures,
        }
        if self.failures:
            document["failures"] = self.failures
        return json.dumps(document)


# --- the registry -------------------------------------------------------------------------------

Story = TypeVar("Story", bound=Callable[[Run], None])


class Registry:
    """Scenarios by name."""

    def __init__(self) -> None:
        self._known: dict[str, Scenario] = {}

    def add(self, scenario: Scenario) -> None:
        """Take in a scenario; raises ValueError when its name is taken."""
        if scenario.name in self._known:
            raise ValueError(f"two scenarios are called {scenario.name}")
        self._known[scenario.name] = scenario

    def __getitem__(self, name: str) -> Scenario:
        """Return the scenario of that name; raises LabError that suggests a near one."""
        if name in self._known:
            return self._known[name]
        near = difflib.get_close_matches(name, self._known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else "script/lab list shows them all"
        raise LabError(f"no scenario is called {name}: {hint}")

    def all(self) -> tuple[Scenario, ...]:
        """Return every scenario, by name."""
        return tuple(self._known[name] for name in sorted(self._known))


REGISTRY = Registry()


def scenario(
    name: str, summary: str, *, topology: Topology | None = None
) -> Callable[[Story], Story]:
    """Register the decorated story under `name`."""

    def register(story: Story) -> Story:
        REGISTRY.add(Scenario(name, summary, story, topology or Topology()))
        return story

    return register


def discover() -> Registry:
    """Import every module of `lab.scenarios` and return the registry."""
    package = importlib.import_module("lab.scenarios")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"lab.scenarios.{module.name}")
    return REGISTRY


# --- performing ---------------------------------------------------------------------------------


def perform(
    chosen: Scenario, kernel: str, tell: Tell, *, repeat: int = 1, thorough: bool = False
) -> Result:
    """Perform a scenario `repeat` times, each in a fresh lab, and merge what was measured.

    Repetition ends with the first that fails.
    """
    samples = Samples()
    failures: list[str] = []
    for number in range(1, repeat + 1):
        logs = LOGS / chosen.name / str(number)
        shutil.rmtree(logs, ignore_errors=True)
        failures += _perform_once(chosen, kernel, tell, samples, logs, thorough=thorough)
        if failures:
            _show_logs(logs)
            break
    return Result(chosen.name, kernel, samples.figures(), tuple(failures))


def _perform_once(
    chosen: Scenario, kernel: str, tell: Tell, samples: Samples, logs: Path, *, thorough: bool
) -> list[str]:
    failures: list[str] = []
    try:
        with (
            tempfile.TemporaryDirectory(prefix="revip-run-") as directory,
            Lab(chosen.topology, logs=logs) as lab,
        ):
            run = Run(lab, Path(directory), kernel, tell, thorough=thorough)
            failures = run.failures
            try:
                chosen.story(run)
            finally:
                samples.merge(run.samples)
    except Exception as error:  # noqa: BLE001 - whatever a story raises, the next one is told
        traceback.print_exc()
        failures.append(f"ended by {type(error).__name__}: {error}")
    return failures


def _show_logs(logs: Path) -> None:
    for log in sorted(logs.glob("*.log")):
        lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        print("\n".join([f"--- {log.name}", *lines]), file=sys.stderr)
