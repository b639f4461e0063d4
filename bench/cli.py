"""`script/bench`: boot the lab's kernel, run the cases in it, tell the figures."""

from __future__ import annotations

import argparse
import compileall
import datetime as dt
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from lab.places import REPOSITORY, LabError, environment, program
from lab.wire import Spawn

from bench import micro, report
from bench.rows import Row, from_json
from lab import boot
from revip import __version__

CASES = ("faults", "vandal", "rolling", "failover", "idle", "start", "bulk", "observer")
"""Those of bench.guest, which is not imported here: it is for the lab's kernel."""
MICRO = "micro"
PAGE = REPOSITORY / "docs" / "benchmarks.md"
TIMEOUT = 5400.0
"""Seconds after which the kernel is given up."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when everything was measured, 1 when a case failed, 2 when nothing could be."""
    chosen = _parser().parse_args(arguments)
    boot.heed_sigterm()
    names = chosen.names or [*CASES, MICRO]
    try:
        measured = _in_the_lab(chosen, [name for name in names if name != MICRO])
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    rows = [from_json(row) for row in measured["rows"]]
    if MICRO in names:
        print("bench  case micro", file=sys.stderr)
        rows += micro.micro()
    _tell(chosen, measured, rows)
    if measured["failed"]:
        print(f"bench: not measured: {', '.join(measured['failed'])}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="script/bench", description="revip beside keepalived in the lab's kernel."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join([*CASES, MICRO]))
    parser.add_argument("--quick", action="store_true", help="5 rounds, some 8 minutes")
    parser.add_argument("--rounds", type=int, metavar="N", help="default 20")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    parser.add_argument(
        "--kernel",
        choices=("host", "uml"),
        help="default: uml, also on a host with ip_vs, since the published figures come from there",
        default="uml",
    )
    return parser


def _in_the_lab(chosen: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    if not names:
        return {
            "rows": [],
            "kernel": "none",
            "release": platform.release(),
            "rounds": 0,
            "failed": [],
            "ipvsadm": "not asked",
        }
    unknown = set(names) - set(CASES)
    if unknown:
        raise LabError(f"no case {', '.join(sorted(unknown))}, only {', '.join([*CASES, MICRO])}")
    for folder in ("src", "lab", "bench"):  # the guest cannot write what it compiles
        compileall.compile_dir(REPOSITORY / folder, quiet=1)
    argv = ["bench.guest", *names]
    argv += ["--quick"] if chosen.quick else []
    argv += [f"--rounds={chosen.rounds}"] if chosen.rounds else []
    said = bytearray()

    def sink(stream: int, content: bytes) -> None:
        if stream == 1:
            said.extend(content)
        else:
            boot.to_own_streams(stream, content)

    with boot.booted(chosen.kernel) as running:
        code = running.run(Spawn(0, tuple(argv)), sink, timeout=TIMEOUT)
    if not said:
        raise LabError(f"the cases ended with exit code {code}")
    found: dict[str, Any] = json.loads(said)
    return found


def _tell(chosen: argparse.Namespace, measured: dict[str, Any], rows: Sequence[Row]) -> None:
    versions = _versions(measured)
    run = report.Run(
        rows,
        _machine(measured),
        versions,
        dt.datetime.now(dt.UTC).date(),
        measured["rounds"],
    )
    if chosen.json:
        found = {
            "day": run.day.isoformat(),
            "machine": run.machine,
            "versions": versions,
            "rounds": run.rounds,
            "rows": [row.to_json() for row in rows],
        }
        print(json.dumps(found))
    else:
        print(f"{report.tables(rows)}\n\n{report.summary(rows)}")
    if chosen.write:
        PAGE.write_text(report.document(run))


def _machine(measured: dict[str, Any]) -> str:
    """Say in general words on what it ran."""
    if measured["kernel"] == "uml":
        host = f"a host with {os.cpu_count()} processors ({platform.machine()})"
        return f"a user-mode Linux guest with 1 processor and 2 GiB on {host}"
    return f"a host with {os.cpu_count()} processors ({platform.machine()})"


def _versions(measured: dict[str, Any]) -> dict[str, str]:
    return {
        "revip": __version__,
        "Python": platform.python_version(),
        "keepalived": _keepalived(),
        "ipvsadm": measured["ipvsadm"],
        "kernel of the lab": f"Linux {measured['release']}",
    }


def _keepalived() -> str:
    found = program("keepalived")
    if found is None:
        return "not installed"
    done = subprocess.run(
        [found, "--version"], env=environment(), capture_output=True, text=True, check=False
    )
    return done.stderr.split()[1] if done.returncode == 0 else "?"  # Keepalived v2.2.7 (...)


if __name__ == "__main__":
    sys.exit(main())
