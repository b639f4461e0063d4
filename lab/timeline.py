"""The demo's picture: what the kernel's table held over time, as a standalone SVG.  Pure.

A lane for each backend shows its state by color and by shape, so that it can be read without
color; below is a lane of the client's requests.  The style sheet follows the reader's light or
dark theme (`prefers-color-scheme`, Media Queries Level 5); without one it is light.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.sax.saxutils import escape

State = Literal["in", "zero", "out"]
"""In the table with weight, in it with weight 0, not in it."""

WIDTH = 1200
LEFT, RIGHT = 150, 1060
"""Where the plot begins and ends; labels may reach into the right margin."""
HEADER = 84
LABEL_ROW = 36
LANE, LANE_GAP = 34, 12
REQUESTS = 84
"""Height of the lane of requests."""
FOOTER = 104
CHARACTER = 6.7
"""Generous width of a character of a label."""
TICKS = (1, 2, 5, 10, 20, 30, 60, 120, 300)
"""Seconds between ticks of the axis: the first that gives at most 12."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A time during which a backend's state was the same."""

    start_ms: float
    end_ms: float
    state: State


@dataclass(frozen=True, slots=True)
class Lane:
    """A backend."""

    name: str
    note: str
    """Smaller, beneath the name."""
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that was done, and the time that was measured after it."""

    at_ms: float
    text: str
    result: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """A time with something to say about it."""

    start_ms: float
    end_ms: float
    text: str


@dataclass(frozen=True, slots=True)
class Bucket:
    """The requests of a short time."""

    at_ms: float
    good: int
    failed: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """All that the picture shows."""

    title: str
    subtitle: str
    duration_ms: float
    lanes: tuple[Lane, ...]
    marks: tuple[Mark, ...] = ()
    spans: tuple[Span, ...] = ()
    buckets: tuple[Bucket, ...] = ()
    bucket_ms: float = 100.0


def segments(
    tables: Iterable[tuple[float, Mapping[str, int]]], name: str, end_ms: float
) -> tuple[Segment, ...]:
    """Return the states of `name` by the tables (weights by name) as they were from each time on.

    Before the first table there is nothing; a state lasts until the next one, the last to `end_ms`.
    """
    found: list[Segment] = []
    for at, weights in tables:
        weight = weights.get(name)
        state: State = "out" if weight is None else "in" if weight else "zero"
        if found and found[-1].state == state:
            continue
        if found:
            found[-1] = Segment(found[-1].start_ms, at, found[-1].state)
        found.append(Segment(at, end_ms, state))
    return tuple(found)


def rows(marks: Sequence[Mark], scale: float) -> list[int]:
    """Return the label row of each mark, 0 at the top, so that nothing overlaps.

    Labels stand to the right of their line, which runs down from them: a mark's row is the
    uppermost one from which every row down is free at its place.  `scale` is pixels per ms.
    """
    edges: list[float] = []
    chosen = []
    for mark in marks:
        x = mark.at_ms * scale
        taken = [row for row, edge in enumerate(edges) if edge > x]
        row = max(taken, default=-1) + 1
        edges += [0.0] * (row + 1 - len(edges))
        edges[row] = x + CHARACTER * max(len(mark.text), len(mark.result)) + 14
        chosen.append(row)
    return chosen


def render(timeline: Timeline) -> str:
    """Return the SVG document."""
    return _Drawing(timeline).document()


class _Drawing:
    """Places everything; y grows downwards."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._scale = (RIGHT - LEFT) / max(1.0, timeline.duration_ms)
        self._marks = sorted(timeline.marks, key=lambda mark: mark.at_ms)
        self._rows = rows(self._marks, self._scale)
        self._lanes_top = HEADER + LABEL_ROW * (max(self._rows, default=-1) + 1) + 14
        self._requests_top = self._lanes_top + len(timeline.lanes) * (LANE + LANE_GAP) + 10
        self._axis = self._requests_top + REQUESTS
        self._height = self._axis + FOOTER

    def document(self) -> str:
        """Return everything."""
        timeline = self._timeline
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self._height}"',
            f' width="{WIDTH}" height="{self._height}" role="img" font-size="13"',
            ' font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">',
            f"<title>{escape(timeline.title)}</title>",
            f"<desc>{escape(timeline.subtitle)}</desc>",
            f"<style>{_STYLE}</style>",
            _box(0, 0, WIDTH, self._height, "paper", radius=10),
            _text(24, 38, timeline.title, "ink title"),
            _text(24, 61, timeline.subtitle, "soft"),
        ]
        parts += self._grid()
        for number, lane in enumerate(timeline.lanes):
            parts += self._lane(lane, self._lanes_top + number * (LANE + LANE_GAP))
        parts += self._requests()
        for mark, row in zip(self._marks, self._rows, strict=True):
            parts += self._mark(mark, HEADER + LABEL_ROW * row)
        for span in timeline.spans:
            parts += self._span(span)
        parts += self._legend()
        return "\n".join([*parts, "</svg>", ""])

    def _x(self, at_ms: float) -> float:
        return LEFT + at_ms * self._scale

    def _grid(self) -> list[str]:
        seconds = self._timeline.duration_ms / 1000
        step = next((tick for tick in TICKS if seconds / tick <= 12), TICKS[-1])
        parts = []
        for second in range(0, int(seconds) + 1, step):
            x = self._x(second * 1000)
            parts.append(_line(x, self._lanes_top - 6, x, self._axis, "grid"))
            parts.append(_text(x, self._axis + 18, str(second), "soft", anchor="middle"))
        parts.append(_line(LEFT, self._axis, RIGHT, self._axis, "axis"))
        parts.append(_text(RIGHT + 14, self._axis + 18, "seconds", "soft"))
        return parts

    def _lane(self, lane: Lane, top: float) -> list[str]:
        parts = [
            _text(24, top + 15, lane.name, "ink name"),
            _text(24, top + 30, lane.note, "soft small"),
        ]
        for segment in lane.segments:
            x, width = (
                self._x(segment.start_ms),
                self._x(segment.end_ms) - self._x(segment.start_ms),
            )
            height = {"in": LANE, "zero": LANE // 2, "out": 6}[segment.state]
            middle = top + (LANE - height) / 2
            parts.append(_box(x, middle, max(width, 1.5), height, f"s-{segment.state}"))
        return parts

    def _requests(self) -> list[str]:
        top, buckets = self._requests_top, self._timeline.buckets
        most = max((bucket.good + bucket.failed for bucket in buckets), default=1)
        failed = sum(bucket.failed for bucket in buckets)
        total = failed + sum(bucket.good for bucket in buckets)
        parts = [
            _text(24, top + 15, "client", "ink name"),
            _text(24, top + 31, f"per {self._timeline.bucket_ms:g} ms", "soft small"),
            _text(24, top + 47, f"{total} requests", "soft small"),
            _text(24, top + 63, f"{failed} failed", "failed-ink small" if failed else "soft small"),
            _text(RIGHT + 14, top + 8, f"{most} requests", "soft small"),
            _line(LEFT, top + 4, RIGHT, top + 4, "grid"),
        ]
        tall = (REQUESTS - 4) / max(1, most)
        width = max(1.0, self._timeline.bucket_ms * self._scale - 0.5)
        for bucket in buckets:
            x, failing = self._x(bucket.at_ms), bucket.failed * tall
            if bucket.good:
                height = bucket.good * tall
                parts.append(_box(x, self._axis - failing - height, width, height, "good"))
            if bucket.failed:
                parts.append(_box(x, self._axis - failing, width, failing, "failed"))
        return parts

    def _mark(self, mark: Mark, top: float) -> list[str]:
        x = self._x(mark.at_ms)
        return [
            _line(x, top + 2, x, self._axis, "mark"),
            f'<circle cx="{x:.1f}" cy="{top + 2:.1f}" r="3" class="dot"/>',
            _text(x + 7, top + 10, mark.text, "ink label"),
            _text(x + 7, top + 25, mark.result, "result label"),
        ]

    def _span(self, span: Span) -> list[str]:
        """Draw a bracket below the axis, out of the way of the marks' lines."""
        left, right, y = self._x(span.start_ms), self._x(span.end_ms), self._axis + 28
        return [
            _line(left, y, right, y, "bracket"),
            _line(left, y, left, y - 5, "bracket"),
            _line(right, y, right, y - 5, "bracket"),
            _text((left + right) / 2, y + 16, span.text, "ink label", anchor="middle"),
        ]

    def _legend(self) -> list[str]:
        y = self._axis + 80
        parts = [_text(24, y, "kernel's table", "soft")]
        x = float(LEFT)
        for style, height, words in (
            ("s-in", 14, "in, takes new connections"),
            ("s-zero", 8, "weight 0: drains"),
            ("s-out", 4, "out"),
            ("good", 14, "requests answered"),
            ("failed", 14, "requests failed"),
        ):
            parts.append(_box(x, y - 4 - height / 2, 22, height, style))
            parts.append(_text(x + 29, y, words, "soft"))
            x += 29 + CHARACTER * len(words) + 26
        return parts


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _box(x: float, y: float, width: float, height: float, style: str, *, radius: int = 0) -> str:
    sizes = zip(("x", "y", "width", "height"), (x, y, width, height), strict=True)
    places = " ".join(f'{name}="{_number(value)}"' for name, value in sizes)
    corner = f' rx="{radius}"' if radius else ""
    return f'<rect {places}{corner} class="{style}"/>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    ends = zip(("x1", "y1", "x2", "y2"), (x1, y1, x2, y2), strict=True)
    places = " ".join(f'{name}="{_number(value)}"' for name, value in ends)
    return f'<line {places} class="{style}"/>'


def _text(x: float, y: float, words: str, style: str, *, anchor: str = "start") -> str:
    where = f'x="{_number(x)}" y="{_number(y)}"'
    return f'<text {where} text-anchor="{anchor}" class="{style}">{escape(words)}</text>'


_STYLE = """
.paper{fill:#ffffff}.ink{fill:#1b2330}.soft{fill:#5b6675}.title{font-size:21px;font-weight:600}
.name{font-weight:600;font-size:14px}.small{font-size:11.5px}.label{font-size:12px}
.ink.label{font-weight:600}.result{fill:#1a7f64}.failed-ink{fill:#c22f42}
.grid{stroke:#e4e8ee}.axis{stroke:#9aa5b3}.bracket{stroke:#5b6675}
.mark{stroke:#1b2330;stroke-opacity:.55;stroke-dasharray:3 3}
.dot{fill:#1b2330}.s-in{fill:#2a9d84}.s-zero{fill:#e8a317}.s-out{fill:#c22f42}
.good{fill:#8fb1de}.failed{fill:#d6263d}
@media (prefers-color-scheme: dark){
.paper{fill:#10161f}.ink{fill:#e8edf4}.soft{fill:#9aa7b8}.result{fill:#4fd1ae}.failed-ink{fill:#ff7b8a}
.grid{stroke:#232d3b}.axis{stroke:#5b6675}.bracket{stroke:#9aa7b8}.mark{stroke:#e8edf4}.dot{fill:#e8edf4}
.s-in{fill:#2fb396}.s-zero{fill:#f0b13a}.s-out{fill:#f0596b}.good{fill:#5b82b8}.failed{fill:#ff5468}
}
"""
