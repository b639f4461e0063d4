"""The history's file: one JSON object a line, bounded, and never in anybody's way.

A thread of its own writes it, so that a disk that hangs or is full costs the history and nothing
else.  Lines are appended with one write(2) each burst; when the file has grown to `SIZE_MAX` it is
replaced by its newer half.  What is cut or garbled is skipped when it is read.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from revip.model.instants import Instant
from revip.model.notes import Event, Kind, Level, Note

SIZE_MAX = 512 * 1024
"""Bytes; some three thousand events."""
BACKLOG = 1000
"""Events that may wait for a slow disk before newer ones are dropped."""
LAST_WORDS_SECONDS = 1.0
"""How long the end of the agent waits for the disk."""


class HistoryFile:
    """Keeps events in a file; `with` starts and ends its thread."""

    def __init__(self, path: Path, failed: Callable[[str], None] = lambda _: None) -> None:
        """Tell `failed` why a write failed, from the thread, once until one works again."""
        self.path = path
        self.failed = failed
        self.failures = 0
        """Bursts that could not be written."""
        self.failure: str | None = None
        """Why the last write failed, None when it did not."""
        self.dropped = 0
        """Events lost because the disk was too slow."""
        self._lines: queue.Queue[bytes | None] = queue.Queue(BACKLOG)
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._torn = False

    def __enter__(self) -> HistoryFile:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
            self._thread.join(LAST_WORDS_SECONDS)

    def read(self, most: int) -> tuple[list[Event], str | None]:
        """Return the newest events of the file, and what was wrong with it, None when nothing."""
        try:
            content = _content(self.path)
        except FileNotFoundError:
            return [], None
        except OSError as error:
            return [], f"{self.path} cannot be read: {os.strerror(error.errno or 0)}"
        lines = content.split(b"\n")
        self._torn = lines[-1] != b""
        if not self._torn:
            lines.pop()
        events = [event for event in map(_event, lines) if event is not None]
        lost = len(lines) - len(events)
        if any(a.number >= b.number for a, b in pairwise(events)):
            return [], f"{self.path} is not in order: begun anew"
        problem = f"{self.path}: {lost} damaged of {len(events) + lost} lines were left out"
        return events[-most:], problem if lost else None

    def write(self, event: Event) -> None:
        """Have `event` written soon; never waits, never fails."""
        line = {**event.as_json(), "at": event.note.at}
        try:
            self._lines.put_nowait(json.dumps(line).encode() + b"\n")
        except queue.Full:
            self.dropped += 1

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            burst, ends = self._burst(line)
            try:
                self._append(burst)
            except OSError as error:
                self._fail(error)
            else:
                self.failure = None
            if ends:
                return

    def _burst(self, first: bytes) -> tuple[bytes, bool]:
        """Return `first` and all that waits behind it, and whether that is the end."""
        lines = [first]
        with contextlib.suppress(queue.Empty):
            while (line := self._lines.get_nowait()) is not None:
                lines.append(line)
            return b"".join(lines), True
        return b"".join(lines), False

    def _append(self, burst: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        flags |= os.O_NONBLOCK  # a named pipe without a reader is an error, not a wait
        try:
            file = os.open(self.path, flags, 0o600)
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, flags, 0o600)
        try:
            if os.fstat(file).st_size + len(burst) > SIZE_MAX:
                self._shorten()
                os.close(file)
                file = os.open(self.path, flags, 0o600)
            if self._torn:
                burst, self._torn = b"\n" + burst, False
            if os.write(file, burst) < len(burst):
                self._torn = True
                raise OSError(28, "No space left on device")
        finally:
            os.close(file)

    def _shorten(self) -> None:
        """Keep the newer half; the rename is atomic."""
        content = _content(self.path)[-SIZE_MAX // 2 :]
        draft = self.path.with_suffix(".new")
        with open(draft, "wb", opener=_private) as file:
            file.write(content[content.find(b"\n") + 1 :])
        os.replace(draft, self.path)  # noqa: PTH105 (rename that overwrites, by its name)

    def _fail(self, error: OSError) -> None:
        self.failures += 1
        told, self.failure = self.failure, f"{self.path}: {os.strerror(error.errno or 0)}"
        if told is None:
            self.failed(f"the history is not kept over a restart: {self.failure}")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _content(path: Path) -> bytes:
    """Return the end of the file, at most twice what it may grow to."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(22, "not a regular file")
        size = os.lseek(file, 0, os.SEEK_END)
        os.lseek(file, max(0, size - 2 * SIZE_MAX), os.SEEK_SET)
        with open(file, "rb", closefd=False) as stream:
            return stream.read(2 * SIZE_MAX)
    finally:
        os.close(file)


def _event(line: bytes) -> Event | None:
    try:
        found = json.loads(line)
        note = Note(
            Instant(int(found["at"])),
            Kind(found["event"]),
            str(found["text"]),
            Level(found["level"]),
            str(found["virtual_server"]),
            str(found["backend"]),
        )
        time = datetime.fromisoformat(found["time"])
        number = int(found["id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return Event(number, time.astimezone(UTC), note) if 0 < number < 2**53 else None
