"""What the demo's events have told so far, and what it comes to.  Pure.

Events are those of `lab.scenarios.demo` and `lab.feed`, one mapping each; unknown ones pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lab import timeline
from lab.feed import BUCKET_MS, FAILED
from lab.timeline import Bucket, Lane, Mark, Span, Timeline

Event = Mapping[str, Any]

TIMES = ("removed_after_ms", "readded_after_ms", "drift_repaired_after_ms")
FAILED_REQUESTS = "rolling_restart_failed_requests"
KEPT = "panic_kept_backends"
MOVED, STREAMS, LOST = (
    "leader_moved_after_ms",
    "leader_killed_streams",
    "leader_killed_streams_lost",
)


@dataclass(slots=True)
class Step:
    """One line of the story."""

    title: str
    state: str
    """`running`, `done` or `failed`."""
    result: str


@dataclass(slots=True)
class Backend:
    """What is known of a backend."""

    name: str
    address: str
    weight: int | None = None
    """In the kernel; None: not in the table."""
    active: int = 0
    """Connections that the kernel counts."""
    verdict: str = "unknown"
    reason: str = ""


@dataclass(slots=True)
class Chronicle:
    """The state of the story; `take` moves it on."""

    vip: str = ""
    release: str = ""
    """Of the lab's kernel."""
    kernel: str | None = None
    narration: str = ""
    mode: str = ""
    """The pool's, by the agent."""
    backends: dict[str, Backend] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    tables: list[tuple[float, dict[str, int]]] = field(default_factory=list)
    buckets: dict[int, Counter[str]] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    finished: bool = False
    """True when the story has told its own result."""

    def take(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case {"event": "say", "text": text}:
                self.narration = text
            case {"event": "cluster", "vip": vip, "release": release, "backends": backends}:
                self.vip, self.release = vip, release
                self.backends = {name: Backend(name, at) for name, at in backends.items()}
            case {"event": "step", "key": key, "title": title, "state": state, "result": result}:
                self.steps[key] = Step(title, state, result)
            case {"event": "mark", "key": key, "t_ms": at, "text": text}:
                self.marks[key] = Mark(at, text)
            case {"event": "measured", "key": key, "text": text} if key in self.marks:
                mark = self.marks[key]
                self.marks[key] = Mark(mark.at_ms, mark.text, text)
            case {"event": "span", "from": start, "to": end, "text": text}:
                self.spans.append(Span(start, end, text))
            case {"event": "figure", "name": name, "ms": value}:
                self.figures[name] = value
            case {"event": "check", "ok": False, "text": text}:
                self.failures.append(f"not so: {text}")
            case {"scenario": _, "kernel": kernel, "ok": ok}:
                self._end(kernel, ok, event.get("failures", ()))
            case _:
                self._see(event)

    def _see(self, event: Event) -> None:
        """Take in what the feed saw."""
        match event:
            case {"event": "table", "t_ms": at, "weights": weights}:
                self.tables.append((at, weights))
                for backend in self.backends.values():
                    backend.weight = weights.get(backend.name)
            case {"event": "connections", "active": active}:
                for backend in self.backends.values():
                    backend.active = active.get(backend.name, 0)
            case {"event": "agent", "mode": mode, "backends": told}:
                self.mode = mode
                for name in told.keys() & self.backends.keys():
                    self.backends[name].verdict = told[name]["verdict"]
                    self.backends[name].reason = told[name]["reason"]
            case {"event": "clients", "buckets": buckets}:
                for at, counts in buckets.items():
                    self.buckets.setdefault(int(at), Counter()).update(counts)
            case _:
                pass

    def _end(self, kernel: str, ok: bool, failures: list[str]) -> None:
        self.kernel = kernel
        self.finished = True
        self.failures += [failure for failure in failures if failure not in self.failures]
        if not ok and not self.failures:
            self.failures.append("the scenario failed")

    # --- what it comes to -----------------------------------------------------------------------

    @property
    def ok(self) -> bool:
        """True when all of it happened: every time measured, nothing failed, nothing lost."""
        return (
            self.finished
            and not self.failures
            and all(name in self.figures for name in TIMES)
            and self.figures.get(FAILED_REQUESTS) == 0
            and bool(self.backends)
            and self.figures.get(KEPT) == len(self.backends)
            and MOVED in self.figures
            and self.figures.get(LOST) == 0
        )

    def outcome(self, kernel: str) -> dict[str, object]:
        """Return the object that `script/demo --json` prints; null is what did not happen.

        `kernel` is said when the story did not come to say it.
        """
        return {
            "kernel": self.kernel or kernel,
            **{name: self.figures.get(name) for name in (*TIMES, FAILED_REQUESTS, KEPT)},
            "ok": self.ok,
        }

    # --- the client -----------------------------------------------------------------------------

    @property
    def requests(self) -> int:
        """Requests of the client so far."""
        return sum(counts.total() for counts in self.buckets.values())

    @property
    def failed(self) -> int:
        """Those of them that failed."""
        return sum(counts[FAILED] for counts in self.buckets.values())

    def recent(self, milliseconds: int) -> Counter[str]:
        """Return the counts of the last whole buckets, by who answered and `FAILED`."""
        newest = max(self.buckets, default=0)
        found: Counter[str] = Counter()
        for at in range(newest - milliseconds // BUCKET_MS, newest):
            found.update(self.buckets.get(at, {}))
        return found

    def rates(self, cells: int, milliseconds: int) -> list[tuple[float, int]]:
        """Return answered requests per second and failures, in the last spans of that length."""
        size = milliseconds // BUCKET_MS
        whole = max(self.buckets, default=0) // size
        spans = []
        for cell in range(max(0, whole - cells), whole):
            counts: Counter[str] = Counter()
            for at in range(cell * size, (cell + 1) * size):
                counts.update(self.buckets.get(at, {}))
            spans.append(((counts.total() - counts[FAILED]) * 1000 / milliseconds, counts[FAILED]))
        return spans

    # --- the picture ----------------------------------------------------------------------------

    def picture(self) -> Timeline:
        """Return what the timeline shows."""
        first = min(self.buckets, default=0)
        ends = [mark.at_ms for mark in self.marks.values()]
        end = max(
            [*ends, *(at for at, _ in self.tables), *((b + 1) * BUCKET_MS for b in self.buckets)]
        )
        tables = [
            (0.0, weights) if i == 0 else (at, weights)
            for i, (at, weights) in enumerate(self.tables)
        ]
        return Timeline(
            title="revip: a control plane's virtual IP that heals itself",
            subtitle=self._subtitle(),
            duration_ms=end,
            lanes=tuple(
                Lane(backend.address, f"node {name}", timeline.segments(tables, name, end))
                for name, backend in self.backends.items()
            ),
            marks=tuple(self.marks.values()),
            spans=tuple(self.spans),
            buckets=tuple(
                Bucket(at * BUCKET_MS, counts.total() - counts[FAILED], counts[FAILED])
                for at, counts in sorted(self.buckets.items())
                if at >= max(0, first)
            ),
            bucket_ms=BUCKET_MS,
        )

    def _subtitle(self) -> str:
        kernel = "user-mode Linux" if self.kernel == "uml" else "Linux"
        return (
            f"IPVS table of {self.vip} on {kernel} {self.release}, as an outside observer saw it, "
            "and a client with 200 requests/s over kept and 20/s over new connections"
        )
