"""Processes on the lab's nodes, on the real kernel."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.net import Topology
from lab.places import LabError
from lab.processes import Lab

pytestmark = pytest.mark.kernel


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(Topology(1), logs=tmp_path) as built:
        yield built


def pause(*_: object) -> None:
    """Wait for a signal."""
    signal.pause()


@pytest.mark.parametrize(
    ("outcome", "code"), [(None, 0), (3, 3), (SystemExit(4), 4), (RuntimeError("no"), 1)]
)
def test_an_outcome_becomes_an_exit_code(lab: Lab, outcome: object, code: int) -> None:
    def end() -> object:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    assert lab.spawn("n1", end).wait(10) == code


def test_what_it_prints_is_in_its_log(lab: Lab) -> None:
    def speak() -> None:
        sys.stdout.write("spoken\n")
        sys.stderr.write("complained\n")

    process = lab.spawn("n1", speak)
    process.wait(10)
    assert sorted(process.log.read_text().split()) == ["complained", "spoken"]


def test_a_killed_one_is_dead_by_its_signal(lab: Lab) -> None:
    process = lab.spawn("n1", pause)
    assert process.alive
    process.kill()
    assert process.wait(10) == 128 + signal.SIGKILL
    assert not process.alive


def test_a_stopped_one_lives_and_goes_on(lab: Lab) -> None:
    process = lab.spawn("n1", pause)
    process.stop()
    with pytest.raises(LabError, match="has not ended"):
        process.wait(0.1)
    process.cont()
    process.kill(signal.SIGTERM)
    assert process.wait(10) == 128 + signal.SIGTERM


def test_one_that_ignores_the_wish_is_ended_all_the_same(lab: Lab) -> None:
    def stubborn() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(2, b"deaf\n")
        while True:
            signal.pause()

    process = lab.spawn("n1", stubborn)
    while not process.log.read_text():
        os.sched_yield()
    assert process.end() == 128 + signal.SIGKILL


def test_a_program_runs_in_the_nodes_namespace(lab: Lab) -> None:
    process = lab.exec_in("n1", ["ip", "-o", "address", "show", "dev", "eth0"])
    assert process.wait(10) == 0
    assert "10.0.1.16/24" in process.log.read_text()


def test_a_program_that_is_not_there_says_so(lab: Lab) -> None:
    process = lab.exec_in("n1", ["no-such-program"])
    assert process.wait(10) == 127
    assert "no-such-program" in process.log.read_text()


def test_descriptors_of_the_parent_are_closed_but_those_kept(lab: Lab) -> None:
    kept, other = os.pipe()

    def look() -> int:
        os.fstat(kept)
        try:
            os.fstat(other)
        except OSError:
            return 0
        return 9

    assert lab.spawn("n1", look, keep=(kept,)).wait(10) == 0
    os.close(kept)
    os.close(other)
