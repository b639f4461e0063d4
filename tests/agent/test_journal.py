"""The log: one line for each change, never in the way of the agent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from revip.agent.history import HISTORY
from revip.agent.journal import BACKLOG, Journal
from revip.model.instants import Instant
from revip.model.notes import Kind, Level, Note


def note(
    text: str = "n2 is healthy",
    level: Level = Level.INFO,
    virtual_server: str = "",
    backend: str = "",
) -> Note:
    return Note(Instant(1), Kind.VERDICT, text, level, virtual_server, backend)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[IO[str]]:
    with (tmp_path / "log").open("w+", encoding="utf-8") as log:
        yield log


def lines_of(log: IO[str]) -> list[str]:
    log.seek(0)  # the journal has moved the offset that we share
    return log.read().splitlines()


def test_a_line_says_when_who_and_what(log: IO[str]) -> None:
    with Journal("n1", json_lines=False, output=log.fileno()) as journal:
        journal.write(note(virtual_server="api", backend="n2"))
        journal.write(note("is gone\nfor ever", Level.WARNING))
    first, second = lines_of(log)
    assert first[4] == "-"
    assert first[23:] == "Z n1 backend.verdict api: n2 is healthy"
    assert second[23:] == "Z n1 backend.verdict WARNING is gone for ever"


def test_json_lines_are_one_object_each_whatever_the_text(log: IO[str]) -> None:
    texts = ["plain", 'quotes " and \\', "two\nlines", "ümlaut – dash", "\x1b[31mred", "{}", ""]
    with Journal("n1", json_lines=True, output=log.fileno()) as journal:
        for text in texts:
            journal.write(note(text, Level.ERROR, "api", "n2"))
        journal.write(note("a lone surrogate \udcff"))
    lines = [json.loads(line) for line in lines_of(log)]
    assert [line["text"] for line in lines[:-1]] == texts
    assert {(line["node"], line["event"]) for line in lines} == {("n1", "backend.verdict")}
    assert lines[0]["level"] == "error"
    assert (lines[0]["virtual_server"], lines[0]["backend"]) == ("api", "n2")
    assert "virtual_server" not in lines[-1]
    assert lines[0]["time"].endswith("Z")


def test_history_and_counts_are_kept_within_bounds(log: IO[str]) -> None:
    with Journal("n1", json_lines=False, output=log.fileno()) as journal:
        for number in range(HISTORY + 7):
            journal.write(note(str(number)))
        assert len(journal.history.events) == HISTORY
        assert journal.history.events[-1].note.text == str(HISTORY + 6)
        assert journal.by_kind[Kind.VERDICT] == HISTORY + 7
        assert journal.by_kind[Kind.DRIFT] == 0


def full_pipe() -> tuple[int, int]:
    """Return both ends of a pipe into which nothing more goes."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    room = True
    while room:
        try:
            os.write(writing, b"x" * 4096)
        except BlockingIOError:
            room = False
    os.set_blocking(writing, True)
    return reading, writing


def test_a_reader_that_sleeps_never_blocks_the_agent_and_what_is_lost_is_counted() -> None:
    reading, writing = full_pipe()
    with os.fdopen(reading, "rb") as awoken, os.fdopen(writing, "wb"):
        with Journal("n1", json_lines=False, output=writing) as journal:
            for number in range(BACKLOG + 51):  # would hang here, were it to wait
                journal.write(note(str(number)))
            # One line may already be in the hands of the thread that waits for the pipe.
            assert journal.dropped in (50, 51)
            assert journal.history.events[-1].note.text == str(BACKLOG + 50)
            while (line := awoken.readline()).count(b"x") > 0 or b"verdict 0" in line:
                pass  # the filling, and the first line at its end
            assert b"backend.verdict 1" in line
        assert journal.dropped in (50, 51)


STUCK = """\
import sys
from revip.agent.journal import BACKLOG, Journal
from revip.model.instants import Instant
from revip.model.notes import Kind, Note
with Journal("n1", json_lines=False) as journal:
    for number in range(int(sys.argv[1])):
        journal.write(Note(Instant(1), Kind.AGENT, "x" * 200))
    print(journal.dropped, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("lines", [1, 3 * BACKLOG])
def test_an_agent_whose_log_is_stuck_can_still_end(lines: int) -> None:
    reading, writing = full_pipe()
    with os.fdopen(reading), os.fdopen(writing):
        command = [sys.executable, "-c", STUCK, str(lines)]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=writing, timeout=20, check=True
        )
    assert (int(done.stdout) > 0) == (lines > BACKLOG)


def test_an_agent_without_a_stderr_goes_on() -> None:
    command = ["sh", "-c", 'exec "$0" -c "$1" 3 2>&-', sys.executable, STUCK]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=20, check=True)
    assert done.stdout == b"0\n"


def test_a_descriptor_that_cannot_be_written_counts_its_losses() -> None:
    with Path(os.devnull).open("rb") as unwritable:
        with Journal("n1", json_lines=False, output=unwritable.fileno()) as journal:
            journal.write(note())
        assert journal.dropped == 1
