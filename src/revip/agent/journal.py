"""The one place that logs: notes become lines, go into the history, and are written out.

Lines go through a queue to a thread of their own, so that a blocked terminal or a full disk
behind stderr can never stall the agent, nor its end; when the queue is full, lines are dropped
and counted.  The thread writes to the descriptor itself (write(2)): a stream of Python's has a
lock, which a write that hangs would hold for ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
from datetime import UTC, datetime

from revip.agent.history import History
from revip.model.notes import Kind, Level, Note

BACKLOG = 1000
"""Lines that may wait for a slow reader of stderr before newer ones are dropped."""
LAST_WORDS_SECONDS = 1.0
"""How long the end of the agent waits for its last lines to be taken."""

STDERR = 2
"""Its file descriptor (stdio(3))."""


class Journal:
    """Writes each note once, and remembers the newest."""

    def __init__(
        self,
        node: str,
        json_lines: bool,
        output: int | None = None,
        history: History | None = None,
    ) -> None:
        """Write to the descriptor `output`, by default stderr, if there is one."""
        if output is None and sys.stderr is not None:
            output = STDERR
        self.history = History() if history is None else history
        self.by_kind: dict[Kind, int] = dict.fromkeys(Kind, 0)
        self.dropped = 0
        """Lines lost because nobody took them."""
        self._node = node
        self._line = _json_line if json_lines else _text_line
        self._output = output
        self._lines: queue.Queue[str | None] = queue.Queue(BACKLOG)
        self._thread = threading.Thread(target=self._write_out, name="journal", daemon=True)

    def __enter__(self) -> Journal:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(queue.Full):  # then its reader is stuck, and we do not wait
            self._lines.put_nowait(None)
            self._thread.join(LAST_WORDS_SECONDS)

    def write(self, note: Note) -> None:
        """Log `note` and keep it; never waits, never fails."""
        now = datetime.now(UTC)
        self.by_kind[note.kind] += 1
        self.history.add(now, note)
        try:
            self._lines.put_nowait(self._line(now, self._node, note))
        except queue.Full:
            self.dropped += 1

    def _write_out(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._write_line(f"{line}\n".encode(errors="backslashreplace"))
            except OSError:  # closed, or set to O_NONBLOCK by somebody who shares it
                self.dropped += 1

    def _write_line(self, data: bytes) -> None:
        while data and self._output is not None:
            data = data[os.write(self._output, data) :]


def _instant(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text_line(at: datetime, node: str, note: Note) -> str:
    subject = f" {note.virtual_server}:" if note.virtual_server else ""
    level = "" if note.level is Level.INFO else f" {note.level.value.upper()}"
    text = " ".join(note.text.splitlines())
    return f"{_instant(at)} {node} {note.kind.value}{level}{subject} {text}"


def _json_line(at: datetime, node: str, note: Note) -> str:
    line = {
        "time": _instant(at),
        "node": node,
        "level": note.level.value,
        "event": note.kind.value,
        "text": note.text,
    }
    if note.virtual_server:
        line["virtual_server"] = note.virtual_server
    if note.backend:
        line["backend"] = note.backend
    return json.dumps(line, ensure_ascii=False)
