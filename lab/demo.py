"""`script/demo`: the incident, healed before your eyes on a real kernel's table.

Three nodes, a client under load, and what goes wrong in their lives; see `lab.scenarios.demo`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner

from lab import boot, demo_view, timeline
from lab.chronicle import Chronicle, Event
from lab.places import LabError

PICTURE = Path("demo-timeline.svg")
TIMEOUT = 150.0
"""Seconds until a story that hangs is ended; it takes 45."""
PLAIN_WIDTH = 100
_LAST_WORDS = 30
"""Lines of the guest's standard error that are shown when the demo fails."""

Watch = Callable[[Event], None]
"""Is told each event, after the chronicle has taken it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when all of it happened, 1 when not, 2 when the lab cannot run, 130 for Ctrl-C."""
    chosen = _parser().parse_args(arguments)
    boot.heed_sigterm()
    try:
        picture = _place(chosen.picture, quiet=chosen.json)
        kernel = boot.choose(chosen.kernel)
        return _perform(kernel, picture, as_json=chosen.json)
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="script/demo", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, no picture")
    parser.add_argument(
        "--kernel", choices=("host", "uml"), help="default: this host's when it has ip_vs"
    )
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help=f"where the timeline goes: {PICTURE}"
    )
    return parser


def _place(wish: Path | None, *, quiet: bool) -> Path | None:
    """Return where the picture goes; raises LabError, before anything runs, when it cannot."""
    path = wish or (None if quiet else PICTURE)
    if path is not None and (path.is_dir() or not os.access(path.parent, os.W_OK)):
        if wish is not None:
            raise LabError(f"{path}: the picture cannot be written there")
        return None
    return path


def _perform(kernel: boot.KernelKind, picture: Path | None, *, as_json: bool) -> int:
    console = Console(stderr=as_json)
    lively = console.is_terminal and not console.is_dumb_terminal and not as_json
    if not console.is_terminal:
        console = Console(stderr=as_json, width=PLAIN_WIDTH, highlight=False)
    teller = Teller()
    signal.signal(signal.SIGINT, teller.interrupt)
    show = _live(console, teller, kernel) if lively else _lines(console, teller, kernel)
    with show:
        code = boot.run(
            ["lab.runner", "--json", "--events", "demo"],
            kernel=kernel,
            sink=teller.hear,
            timeout=TIMEOUT,
        )
    if code == 130:
        console.print("demo: interrupted; nothing is left of the lab")
        return code
    return _conclude(console, teller, kernel, picture, as_json=as_json)


def _conclude(
    console: Console, teller: Teller, kernel: str, picture: Path | None, *, as_json: bool
) -> int:
    story = teller.story
    if not story.ok:
        print("\n".join(teller.errors[-_LAST_WORDS:]), file=sys.stderr)
    console.print(demo_view.summary(story))
    if picture is not None and story.tables:
        picture.write_text(timeline.render(story.picture()), encoding="utf-8")
        console.print(f"The picture of it: {picture}", highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps(story.outcome(kernel)), flush=True)
    return 0 if story.ok else 1


class Teller:
    """Takes the guest's output apart: events on standard output, complaints on the other."""

    def __init__(self) -> None:
        self.story = Chronicle()
        self.errors: list[str] = []
        self.lock = threading.Lock()
        """Held while the story moves on; rich draws in a thread of its own."""
        self.watch: Watch = lambda _: None
        self.ending = False
        """True once Ctrl-C has come."""
        self.drawn = False
        """True while somebody draws `ending`."""
        self._rest = {1: b"", 2: b""}

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Unwind for SIGINT, once: what is being taken down is not interrupted again."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.ending = True
        if not self.drawn:
            print(f"demo: {demo_view.ENDING}", file=sys.stderr)
        signal.default_int_handler(number, frame)

    def hear(self, stream: int, content: bytes) -> None:
        """Take in what came on a stream."""
        *whole, self._rest[stream] = (self._rest[stream] + content).split(b"\n")
        for line in whole:
            self._line(stream, line.decode(errors="replace"))

    def _line(self, stream: int, line: str) -> None:
        event = _event(line) if stream == 1 else None
        if event is None:
            self.errors.append(line)
            return
        with self.lock:
            self.story.take(event)
        self.watch(event)


def _event(line: str) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


@contextlib.contextmanager
def _live(console: Console, teller: Teller, kernel: str) -> Iterator[None]:
    """Draw the story several times a second, for the block."""
    began = time.monotonic()
    spinner = Spinner("dots")

    def frame() -> RenderableType:
        seconds = time.monotonic() - began
        with teller.lock:
            if teller.ending:
                return demo_view.ending(spinner)
            if not teller.story.backends:
                return demo_view.booting(spinner, seconds, kernel)
            return demo_view.screen(teller.story, seconds, console.width)

    teller.drawn = True
    with Live(console=console, get_renderable=frame, refresh_per_second=8):
        yield


@contextlib.contextmanager
def _lines(console: Console, teller: Teller, kernel: str) -> Iterator[None]:
    """Print a line for each thing that happens, for the block."""

    def tell(event: Event) -> None:
        for line in demo_view.plain(event):
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    tell({"event": "say", "text": f"A kernel is starting ({kernel})"})
    teller.watch = tell
    yield


if __name__ == "__main__":
    sys.exit(main())
