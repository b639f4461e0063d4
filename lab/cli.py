"""`script/lab`: the lab by hand."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lab import boot, resident, runner, session
from lab.places import LabError
from lab.scenario import discover


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 good, 1 a scenario failed, 2 it could not be done."""
    chosen = _parser().parse_args(arguments)
    boot.heed_sigterm()
    try:
        return int(chosen.command(chosen))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="script/lab", description="Nodes as network namespaces, on a kernel with ip_vs."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    upping = commands.add_parser("up", help="start a lab that stays")
    _add_kernel(upping)
    resident.add_arguments(upping)
    upping.set_defaults(command=_up)

    shelling = commands.add_parser("shell", help="a shell, or `-- PROGRAM ...`, on a node")
    shelling.add_argument("node", help="n1, n2, ..., c1")
    shelling.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- PROGRAM ...")
    shelling.set_defaults(command=_shell)

    commands.add_parser("status", help="nodes, addresses, IPVS tables, processes").set_defaults(
        command=lambda _: session.status()
    )
    commands.add_parser("down", help="end the lab that stays").set_defaults(
        command=lambda _: session.down()
    )
    listing = commands.add_parser("list", help="the scenarios")
    listing.add_argument("--names", action="store_true", help="one name a line and no more")
    listing.set_defaults(command=_list)

    running = commands.add_parser("run", help="perform scenarios in a lab of their own")
    _add_kernel(running)
    running.add_argument("--timeout", type=float, metavar="SECONDS", help="give up after this")
    runner.add_arguments(running)
    running.set_defaults(command=_run)
    return parser


def _add_kernel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kernel", choices=("host", "uml"), help="default: this host's when it has ip_vs"
    )


def _up(chosen: argparse.Namespace) -> int:
    holding = [f"--nodes={chosen.nodes}", *(f"--with={name}" for name in chosen.extras)]
    if chosen.router:
        holding.append("--router")
    return session.up(chosen.kernel, holding)


def _shell(chosen: argparse.Namespace) -> int:
    argv = chosen.argv[1:] if chosen.argv[:1] == ["--"] else chosen.argv
    return session.shell(chosen.node, argv)


def _list(chosen: argparse.Namespace) -> int:
    known = discover().all()
    if chosen.names:
        print("\n".join(scenario.name for scenario in known))
        return 0
    width = max((len(scenario.name) for scenario in known), default=0)
    for scenario in known:
        print(f"{scenario.name:{width}}  {scenario.summary}")
    return 0


def _run(chosen: argparse.Namespace) -> int:
    names = runner.select(chosen.names, every=chosen.all)
    flags = [f"--repeat={chosen.repeat}"]
    flags += [f"--{flag}" for flag in ("json", "events", "thorough") if getattr(chosen, flag)]
    return boot.run(["lab.runner", *flags, *names], kernel=chosen.kernel, timeout=chosen.timeout)


if __name__ == "__main__":
    sys.exit(main())
