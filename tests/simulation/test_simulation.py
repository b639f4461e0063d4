"""Whole clusters through random histories of faults: S1, S2, and L1 to L4 of the design."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import islice

import pytest

from tests.simulation import history
from tests.simulation.cli import hunt
from tests.simulation.mutants import MUTANTS, mutated
from tests.simulation.shrink import shrink

HISTORIES = int(os.environ.get("REVIP_HISTORIES", "4"))
"""`script/test` lives through more of them by `script/simulate`."""

QUICK = (
    "return forgotten: who is out stays out",
    "a deleted virtual server is not noticed",
    "a better peer is not yielded to",
)
"""Mutants that die at once."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(HISTORIES))
def test_a_history_breaks_no_guarantee(seed: int) -> None:
    outcome = history.run(seed)
    assert outcome.ok, f"{outcome.text}\nagain: {outcome.replay}"


@pytest.mark.slow
def test_a_history_is_the_same_again_also_in_another_process() -> None:
    here = history.run(3, 2)
    assert here == history.run(3, 2)
    words = "from tests.simulation import history; print(history.run(3, 2).digest)"
    there = subprocess.run(
        [sys.executable, "-c", words],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(there.stdout) == here.digest


@pytest.mark.slow
def test_a_failing_history_is_made_small_and_fails_again() -> None:
    with mutated(QUICK[0]):
        failed = next(o for seed in range(9) if not (o := history.run(seed, 3)).ok)
        small = shrink(failed, budget=10)
        assert small.kept is not None
        assert small.faults < failed.faults
        assert small.guarantee == failed.guarantee
        again = history.run(small.seed, small.minutes, small.kept)
        assert again == small
    assert "--replay" in small.replay
    assert "--only" in small.replay


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_mutant_that_breaks_much_is_caught_soon(name: str) -> None:
    caught, _ = hunt(name, range(5))
    assert caught is not None


def test_there_are_mutants_of_every_kind() -> None:
    assert len(MUTANTS) >= 15
    assert set(QUICK) < set(MUTANTS)
    assert list(islice(MUTANTS, 3))[2] == "checks serial under one lock"
