"""`python -m bench.guest`: run cases in the lab's kernel; one JSON object on standard output."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from lab.guest import KERNEL_VARIABLE
from lab.net import Topology
from lab.places import LOGS
from lab.processes import Lab

from bench.cases import QUICK, Case, Effort, bulk, costs, disturbance, failover, faults, rolling
from bench.rows import Row
from bench.world import World, say

CASES: dict[str, Case] = {
    "faults": faults.faults,
    "vandal": disturbance.vandal,
    "rolling": rolling.rolling,
    "failover": failover.failover,
    "idle": costs.idle,
    "start": costs.start,
    "bulk": bulk.bulk,
    "observer": disturbance.observer,
}
"""By name, in the order in which they are told."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when every case was measured."""
    parser = argparse.ArgumentParser(prog="bench.guest", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *CASES], default=[])
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the network is removed on the way
    effort = QUICK if chosen.quick else Effort()
    if chosen.rounds:
        effort = dataclasses.replace(effort, rounds=chosen.rounds)
    kernel = os.environ.get(KERNEL_VARIABLE, "host")
    logs = LOGS / "bench"
    shutil.rmtree(logs, ignore_errors=True)
    rows, failed = [], []
    for name in chosen.names or CASES:
        say(f"case {name}")
        try:
            rows += _measured(CASES[name], effort, logs / name, kernel)
        except Exception:  # noqa: BLE001 - one case less must not cost the others
            traceback.print_exc()
            failed.append(name)
    print(
        json.dumps(
            {
                "kernel": kernel,
                "release": platform.release(),
                "rounds": effort.rounds,
                "ipvsadm": _ipvsadm(),
                "failed": failed,
                "rows": [row.to_json() for row in rows],
            }
        ),
        flush=True,
    )
    return 1 if failed else 0


def _measured(case: Case, effort: Effort, logs: Path, kernel: str) -> list[Row]:
    """Return the rows of `case`, in a network of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="revip-bench-") as folder,
        Lab(Topology(observer=True), logs=logs) as lab,
        World(lab, Path(folder), kernel) as world,
    ):
        return case(world, effort)


def _ipvsadm() -> str:
    """Return its version; it tells none on a kernel without ip_vs."""
    done = subprocess.run(["ipvsadm", "--version"], capture_output=True, text=True, check=False)
    words = done.stdout.split()  # ipvsadm v1.31 2019/12/24 (...)
    return words[1] if done.returncode == 0 and len(words) > 1 else "?"


if __name__ == "__main__":
    sys.exit(main())
