"""The history's file: it survives a restart, and whatever happens to it costs only itself."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from revip.adapters import history_file
from revip.adapters.history_file import HistoryFile
from revip.agent.history import HISTORY, History
from revip.model.instants import Instant
from revip.model.notes import Event, Kind, Level, Note

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def note(text: str = "n2 is unhealthy: ümlaut “quoted”\nsecond line \udcff") -> Note:
    return Note(Instant(7), Kind.VERDICT, text, Level.WARNING, "api", "n2")


def write(path: Path, *texts: str) -> list[Event]:
    """Let an agent live that writes these notes; return its history."""
    file = HistoryFile(path)
    history = History(file.read(HISTORY)[0])
    history.followers.append(file.write)
    with file:
        for number, text in enumerate(texts):
            history.add(NOON + timedelta(seconds=number), note(text))
    assert file.failures == 0
    return list(history.events)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "history.jsonl"


def test_what_was_written_is_read_and_the_numbers_go_on(path: Path) -> None:
    before = write(path, note().text, "two")
    after = write(path, "three")
    assert [event.note.text for event in after[1:]] == ["two", "three"]
    assert after[0] == before[0]
    first = before[0].number
    assert [event.number for event in after] == [first, first + 1, first + 2]
    assert after[0].note == note()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_file_is_no_problem(path: Path) -> None:
    assert HistoryFile(path).read(10) == ([], None)


def test_a_file_that_lost_its_last_line_feed_has_lost_nothing(path: Path) -> None:
    write(path, "one", "two")
    os.truncate(path, path.stat().st_size - 1)
    assert HistoryFile(path).read(10)[1] is None
    write(path, "three")
    events, problem = HistoryFile(path).read(10)
    assert ([event.note.text for event in events], problem) == (["one", "two", "three"], None)


@pytest.mark.parametrize("cut", [2, 5, 60])
def test_a_file_that_was_cut_loses_its_last_line_alone(path: Path, cut: int) -> None:
    write(path, "one", "two", "three")
    os.truncate(path, path.stat().st_size - cut)
    events, problem = HistoryFile(path).read(10)
    assert [event.note.text for event in events] == ["one", "two"]
    assert problem == f"{path}: 1 damaged of 3 lines were left out"
    assert [event.note.text for event in write(path, "four")] == ["one", "two", "four"]
    assert [event.note.text for event in write(path, "five")][-2:] == ["four", "five"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 4096,
        b"\xff\xfe not text \n",
        b"{}\n[]\nnull\n7\n",
        b'{"id": -5, "at": 1}\n',
        b'{"id": 1e99, "time": "x"}\n',
        b"[" * 50_000 + b"\n",
        b'{"id": 9, "at": 1, "time": "2026-01-01T00:00:00", "event": "no.such.kind"}\n',
    ],
)
def test_garbage_is_left_out_and_told(path: Path, garbage: bytes) -> None:
    write(path, "one", "two")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + garbage + b"\n" + lines[1])
    events, problem = HistoryFile(path).read(10)
    assert [event.note.text for event in events] == ["one", "two"]
    assert problem is not None
    assert "left out" in problem


def test_a_file_that_is_nothing_but_garbage_is_begun_anew(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(os.urandom(100_000))
    events, problem = HistoryFile(path).read(10)
    assert (events, problem is None) == ([], False)
    assert [event.note.text for event in write(path, "one")] == ["one"]
    assert [event.note.text for event in HistoryFile(path).read(10)[0]] == ["one"]


def test_lines_out_of_order_are_begun_anew(path: Path) -> None:
    write(path, "one", "two")
    path.write_bytes(path.read_bytes() * 2)
    assert HistoryFile(path).read(10) == ([], f"{path} is not in order: begun anew")


@pytest.mark.parametrize("kind", ["directory", "pipe", "link to itself"])
def test_what_is_no_file_is_told_and_outlived(path: Path, kind: str) -> None:
    path.parent.mkdir()
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path)
    told: list[str] = []
    file = HistoryFile(path, told.append)
    events, problem = file.read(10)
    assert events == []
    assert problem is not None
    with file:
        for number in range(3):
            file.write(Event(number + 1, NOON, note()))
    assert len(told) == 1
    assert told[0].startswith(f"the history is not kept over a restart: {path}: ")


def test_a_full_disk_is_told_once_until_there_is_room(path: Path) -> None:
    told: list[str] = []
    file = HistoryFile(Path("/dev/full"), told.append)
    with file:
        for number in range(5):
            file.write(Event(number + 1, NOON, note()))
    assert told == ["the history is not kept over a restart: /dev/full: No space left on device"]
    assert file.failures >= 1
    assert file.failure == "/dev/full: No space left on device"


def test_the_file_is_bounded_and_keeps_the_newest(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_file, "SIZE_MAX", 4096)
    for number in range(100):
        write(path, str(number))
        assert path.stat().st_size <= 4096
    events, problem = HistoryFile(path).read(1000)
    assert problem is None
    texts = [event.note.text for event in events]
    assert texts == [str(number) for number in range(100 - len(texts), 100)]
    assert len(texts) >= 5


def test_a_deleted_folder_is_made_again(path: Path) -> None:
    file = HistoryFile(path)
    with file:
        file.write(Event(1, NOON, note("one")))
    path.unlink()
    path.parent.rmdir()
    assert [event.note.text for event in write(path, "two")] == ["two"]


def test_a_disk_that_hangs_loses_events_and_holds_nobody_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_file, "LAST_WORDS_SECONDS", 0.01)
    file = HistoryFile(path)  # its thread never runs: that is a disk which takes nothing
    for number in range(history_file.BACKLOG + 5):
        file.write(Event(number + 1, NOON, note()))
    assert file.dropped == 5


def test_numbers_begin_so_that_they_never_go_back() -> None:
    old = History()
    old.add(NOON, note())
    new = History()
    assert new.newest >= old.newest - 1
    assert new.newest > 1_700_000_000_000
    assert new.newest < 2**53


def test_a_number_of_another_history_is_told_all() -> None:
    history = History()
    history.add(NOON, note("one"))
    assert [event.note.text for event in history.after(history.newest + 50)] == ["one"]
    assert history.after(history.newest) == []
