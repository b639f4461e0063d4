"""`python -m lab.runner`: perform scenarios on the kernel that this process is on.

`script/lab run` starts it inside the lab's kernel.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence

from lab.guest import KERNEL_VARIABLE
from lab.places import LabError
from lab.scenario import Result, Tell, discover, perform


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `script/lab run` shares."""
    parser.add_argument("names", nargs="*", metavar="SCENARIO", help="what to perform")
    parser.add_argument("--all", action="store_true", help="perform every scenario")
    parser.add_argument("--repeat", type=_count, default=1, metavar="N", help="N times each")
    parser.add_argument(
        "--thorough", action="store_true", help="client-matrix: every cell, not a subset"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object each on stdout")
    parser.add_argument(
        "--events", action="store_true", help="with --json: events, too, as lines on stdout"
    )


def select(names: Sequence[str], *, every: bool) -> tuple[str, ...]:
    """Return the names to perform; raises LabError when one is unknown or none is given."""
    registry = discover()
    if every:
        return tuple(known.name for known in registry.all())
    if not names:
        raise LabError("name a scenario, or say --all; script/lab list shows them")
    return tuple(registry[name].name for name in names)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when every scenario was ok, 1 when not, 2 when one is unknown."""
    parser = argparse.ArgumentParser(prog="lab.runner", description=__doc__)
    add_arguments(parser)
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the network is removed on the way
    kernel = os.environ.get(KERNEL_VARIABLE, "host")
    registry = discover()
    try:
        names = select(chosen.names, every=chosen.all)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 2
    fine = True
    for name in names:
        tell = _tell_lines if chosen.events else _narrator(name)
        result = perform(
            registry[name], kernel, tell, repeat=chosen.repeat, thorough=chosen.thorough
        )
        fine = fine and result.ok
        print(result.to_json() if chosen.json else _in_words(result), flush=True)
    return 0 if fine else 1


def _count(word: str) -> int:
    count = int(word)
    if count < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return count


def _tell_lines(event: Mapping[str, object]) -> None:
    print(json.dumps(event), flush=True)


def _narrator(name: str) -> Tell:
    """Return what tells people, on standard error, of a scenario."""

    def tell(event: Mapping[str, object]) -> None:
        match event:
            case {"event": "say", "text": text, "at_ms": int(at)}:
                line = f"{text}"
            case {"event": "check", "ok": ok, "text": text, "at_ms": int(at)}:
                line = f"{'ok  ' if ok else 'NOT '} {text}"
            case {"event": "figure", "name": figure, "ms": ms, "at_ms": int(at)}:
                line = f"{figure} {ms}"
            case _:
                return
        print(f"{name} {at / 1000:7.2f} s  {line}", file=sys.stderr)

    return tell


def _in_words(result: Result) -> str:
    lines = [f"{result.scenario}: {'ok' if result.ok else 'FAILED'} ({result.kernel})"]
    lines += [f"  {failure}" for failure in result.failures]
    for name, known in result.figures.items():
        lines.append(f"  {name}: p50 {known['p50']} p99 {known['p99']} (n {known['n']})")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
