"""The part of a standing lab (`script/lab up`) that lives in the lab's kernel.

`hold` builds the network and keeps it until it is told to end; `status` describes it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.cluster import Cluster
from lab.net import PREFIX, SWITCH, Topology, inhabitants
from lab.places import CLUSTER, LOGS, LabError
from lab.processes import Lab


@dataclass(frozen=True, slots=True)
class _Standing:
    """The stage of a cluster that stands until the lab is taken down."""

    lab: Lab
    directory: Path


def _start_cluster(lab: Lab) -> None:
    """Start stand-in API servers and agents; the lab's end ends them."""
    CLUSTER.mkdir(parents=True, exist_ok=True)
    Cluster(_Standing(lab, CLUSTER)).__enter__()


EXTRAS: dict[str, Callable[[Lab], None]] = {"agents": _start_cluster}
"""What `script/lab up --with NAME` can start in the network, by name."""

UP = "up"
"""The line that says that the network stands."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Hold the network or describe it."""
    parser = argparse.ArgumentParser(prog="lab.resident", description=__doc__)
    commands = parser.add_subparsers(required=True)
    holding = commands.add_parser("hold")
    add_arguments(holding)
    holding.set_defaults(command=_hold)
    commands.add_parser("status").set_defaults(command=_status)
    chosen = parser.parse_args(arguments)
    return int(chosen.command(chosen))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `script/lab up` shares."""
    parser.add_argument("--nodes", type=int, default=3, metavar="N", help="how many (3)")
    parser.add_argument("--router", action="store_true", help="add r1 and, behind it, far1")
    parser.add_argument(
        "--with",
        dest="extras",
        action="append",
        default=[],
        choices=sorted(EXTRAS),
        help="also start: agents (API servers and revip on every node)",
    )


def _hold(chosen: argparse.Namespace) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        with Lab(Topology(chosen.nodes, chosen.router), logs=LOGS / "up") as lab:
            for name in chosen.extras:
                EXTRAS[name](lab)
            print(UP, flush=True)
            signal.sigwait({signal.SIGTERM, signal.SIGINT})
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


def _status(_: argparse.Namespace) -> int:
    for path in sorted(Path("/run/netns").glob(f"{PREFIX}*")):
        name = path.name.removeprefix(PREFIX)
        if name != SWITCH:
            print(f"{name:5}{'  '.join(_addresses(path.name))}")
            for line in (*_table(path.name), *_running(path)):
                print(f"     {line}")
    return 0


def _addresses(namespace: str) -> Iterator[str]:
    for line in _output(namespace, "ip", "-o", "address", "show", "scope", "global"):
        _, link, _, address, *_ = line.split()
        yield f"{link} {address}"


def _table(namespace: str) -> list[str]:
    lines = _output(namespace, "ipvsadm", "-Ln")
    return lines[3:]  # without the three lines of heading


def _running(path: Path) -> Iterator[str]:
    for pid in inhabitants({path.stat().st_ino}):
        with contextlib.suppress(OSError):  # it has just ended
            yield f"pid {pid} {Path(f'/proc/{pid}/comm').read_text().strip()}"


def _output(namespace: str, *argv: str) -> list[str]:
    command = ["ip", "netns", "exec", namespace, *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    return done.stdout.splitlines()


if __name__ == "__main__":
    sys.exit(main())
