"""`script/simulate`: many histories, the first failing ones made small; or one again."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict

from tests.simulation import history
from tests.simulation.history import MINUTES, Outcome
from tests.simulation.mutants import HINTS, MUTANTS, mutated
from tests.simulation.shrink import shrink

SHOWN = 5
"""Failing histories that are made small and told in full."""


def main(words: list[str] | None = None) -> int:
    """Run what the command line asks for; 1 when a guarantee was broken."""
    options = _options().parse_args(words)
    if options.mutants:
        return _mutants(options)
    if options.replay is not None:
        return _replay(options)
    return _many(options)


def outcomes(seeds: range, minutes: int, workers: int) -> Iterator[Outcome]:
    """Live through one history for each seed, in order."""
    if workers == 1:
        yield from (history.run(seed, minutes) for seed in seeds)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(history.run, seeds, (minutes for _ in seeds), chunksize=8)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="script/simulate", description=__doc__)
    parser.add_argument("--histories", type=_positive, default=1000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the first history")
    parser.add_argument(
        "--minutes", type=_positive, default=MINUTES, metavar="M", help="virtual, of each history"
    )
    parser.add_argument(
        "--workers", type=_positive, default=min(2, os.cpu_count() or 1), metavar="N"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a history that fails")
    parser.add_argument(
        "--replay", type=int, metavar="SEED", help="tell one history event by event"
    )
    parser.add_argument(
        "--only", metavar="N,N", help="with --replay: only these faults of its schedule, or none"
    )
    parser.add_argument(
        "--quiet", action="store_true", help="with --replay: its faults and its end, no events"
    )
    parser.add_argument(
        "--mutants", action="store_true", help="how many histories catch each deliberate fault"
    )
    return parser


def _many(options: argparse.Namespace) -> int:
    began = time.monotonic()
    seeds = range(options.seed, options.seed + options.histories)
    failed: list[Outcome] = []
    events = faults = 0
    for outcome in outcomes(seeds, options.minutes, options.workers):
        events, faults = events + outcome.events, faults + outcome.faults
        if not outcome.ok:
            failed.append(outcome)
            if len(failed) <= SHOWN:
                _tell(shrink(outcome), options.json)
    seconds = time.monotonic() - began
    if options.json:
        total = {
            "histories": len(seeds),
            "minutes": options.minutes,
            "faults": faults,
            "events": events,
            "seconds": round(seconds, 1),
            "failed": [outcome.seed for outcome in failed],
        }
        print(json.dumps(total))  # noqa: T201
    else:
        print(  # noqa: T201
            f"{len(seeds)} histories of {options.minutes} virtual minutes, {faults} faults, "
            f"{events} events in {seconds:.0f} s: {len(failed)} failed"
        )
    return 1 if failed else 0


def _tell(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**asdict(outcome), "replay": outcome.replay}), flush=True)  # noqa: T201
        return
    print(f"seed {outcome.seed}: {outcome.text}")  # noqa: T201
    print(f"  made small to {outcome.faults} faults; again: {outcome.replay}", flush=True)  # noqa: T201


def _replay(options: argparse.Namespace) -> int:
    kept = None
    if options.only is not None:
        kept = tuple(int(word) for word in options.only.split(",") if word.isdigit())
    _, setup, drawn = history.schedule(options.replay, options.minutes)
    print(setup)  # noqa: T201
    for number, fault in enumerate(drawn):
        if kept is None or number in kept:
            print(f"fault {number:3}: {fault}")  # noqa: T201
    outcome = history.run(options.replay, options.minutes, kept, loud=not options.quiet)
    print(outcome.text or "nothing was broken")  # noqa: T201
    print(f"digest {outcome.digest:08x}")  # noqa: T201
    return 0 if outcome.ok else 1


def _mutants(options: argparse.Namespace) -> int:
    seeds = range(options.seed, options.seed + options.histories)
    missed = 0
    for name in MUTANTS:
        outcome, lived = hunt(name, seeds, options.minutes)
        missed += outcome is None
        end = f"caught by seed {outcome.seed}: {outcome.text[:100]}" if outcome else "NOT CAUGHT"
        print(f"{name}: {lived} histories, {end}", flush=True)  # noqa: T201
    return 1 if missed else 0


def hunt(name: str, seeds: range, minutes: int = MINUTES) -> tuple[Outcome | None, int]:
    """Return the first history that catches a mutant, None when none does; and how many lived."""
    hints = [HINTS[name]] if name in HINTS else []
    with mutated(name):
        for lived, seed in enumerate((*hints, *seeds), 1):
            outcome = history.run(seed, minutes)
            if not outcome.ok and outcome.guarantee != "error":  # a crash proves no check
                return outcome, lived
    return None, len(seeds)


def _positive(word: str) -> int:
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{word} is not 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
