"""`revip`: one program for the daemon and for the people who steer it.

Exit codes: 0 all is well, 1 something is not (a failed check, an agent that cannot be reached),
2 the input is wrong and nothing was done.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from revip import __version__
from revip.cli.events import since
from revip.errors import ConfigError, RevipError

OK, BAD, USAGE = 0, 1, 2

DEFAULT_CONFIG = Path("/etc/revip/revip.yaml")
DEFAULT_SOCKET = Path("/run/revip/revip.sock")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()  # here, where a reader that has gone (`| head`) is expected
        return code
    except ConfigError as error:
        for problem in error.problems:
            print(f"revip: {problem}", file=sys.stderr)
        return USAGE
    except RevipError as error:
        print(f"revip: {error}", file=sys.stderr)
        return BAD
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BAD
    except KeyboardInterrupt:
        return 130


def _dispatch(arguments: argparse.Namespace) -> int:
    """Import only what the command needs: `revip status` must not pay for the daemon."""
    match arguments.command:
        case "run":
            from revip.keeper import forked

            wanted = _may_elect(_config(arguments))
            with forked(wanted=wanted) as keeper:  # before anything large is loaded
                from revip.cli.run import run

                return run(_config(arguments), keeper, json_lines=arguments.log_format == "json")
        case "check":
            from revip.cli.check import check, explain

            return explain() if arguments.explain else check(_config(arguments), arguments.json)
        case "cleanup":
            from revip.cli.cleanup import cleanup

            return cleanup(_config(arguments), dry_run=arguments.dry_run)
        case _:
            from revip.cli import steer

            return steer.steer(arguments)


def _may_elect(config: Path | None) -> bool:
    """Guess, without reading it in earnest, whether a configuration wants a keeper.

    A wrong guess costs no more than a process too many, or one that is started a little later.
    """
    try:
        text = config.read_bytes() if config is not None else b""
    except OSError:
        text = b""  # that is told by who reads it in earnest
    return b"vrrp" in text or "vrrp" in os.environ.get("REVIP_ELECTION_KIND", "")


def _config(arguments: argparse.Namespace) -> Path | None:
    """Return the file to read: the one named, else the default one where it exists."""
    named: Path | None = arguments.config
    if named is None and DEFAULT_CONFIG.exists():
        return DEFAULT_CONFIG
    return named


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="revip",
        description="The virtual IP and load balancer that heals itself.",
        epilog="Exit codes: 0 well, 1 not well, 2 wrong input and nothing done.",
    )
    parser.add_argument("--version", action="version", version=f"revip {__version__}")
    commands = parser.add_subparsers(
        dest="command",
        required=True,
        metavar="COMMAND",
        prog="revip",  # else argparse loads shutil to format one
    )

    run = commands.add_parser("run", help="run the agent in the foreground")
    _add_config(run)
    run.add_argument("--log-format", choices=("text", "json"), default="text")

    check = commands.add_parser("check", help="validate the configuration and this host")
    _add_config(check)
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.add_argument("--explain", action="store_true", help="list every key and its meaning")

    cleanup = commands.add_parser("cleanup", help="take everything of ours off this host")
    _add_config(cleanup)
    cleanup.add_argument("--dry-run", action="store_true", help="only say what would be removed")

    status = _add_steering(commands, "status", "show the state of the agent on this node")
    status.add_argument("--watch", action="store_true", help="refresh until interrupted")
    status.add_argument("--json", action="store_true", help="print one JSON object")
    events = _add_steering(commands, "events", "list what changed, oldest first")
    events.add_argument("--last", type=int, metavar="N", help="how many (default 50)")
    events.add_argument("--since", type=since, metavar="TIME", help="of the last 30m, 2h, 7d, ...")
    events.add_argument("--json", action="store_true", help="print one JSON object a line")
    top = _add_steering(commands, "top", "show where the connections go, once a second")
    top.add_argument("--once", action="store_true", help="show one sample and end")
    top.add_argument("--json", action="store_true", help="print one JSON object a sample")
    reasons = _add_steering(commands, "why", "tell why all is as it is, and what would happen")
    reasons.add_argument(
        "subject", nargs="?", metavar="VIP|BACKEND", help="one of them, by name or address"
    )
    plan = _add_steering(commands, "plan", "show what would be done, and why")
    plan.add_argument("--json", action="store_true", help="print one JSON object")
    for name, text in (
        ("drain", "send no new connections to a backend"),
        ("enable", "end the drain of a backend"),
    ):
        command = _add_steering(commands, name, text)
        command.add_argument("backend", metavar="BACKEND", help="its name or address")
        command.add_argument("--virtual-server", metavar="NAME", help="when it is in several")
        if name == "drain":
            command.add_argument("--force", action="store_true", help="even the last healthy one")
    handover = _add_steering(commands, "handover", "give the virtual IP to another node")
    handover.add_argument("vip", nargs="?", metavar="VIP", help="address or name, if several")
    handover.add_argument("--to", metavar="NODE", help="on NODE itself: take it here")
    text = "before the election goes its own way again (default 5m)"
    handover.add_argument("--for", dest="hold", type=_hold, metavar="TIME", help=text)
    _add_steering(commands, "pause", "observe only, change nothing")
    _add_steering(commands, "resume", "go back to work after `pause`")
    _add_steering(commands, "reload", "read the configuration again")
    return parser


def _hold(text: str) -> int:
    """Return the milliseconds of a duration such as `5m`."""
    digits, unit = text[:-1], {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
    seconds = int(digits) * unit if unit and digits.isascii() and digits.isdigit() else 0
    if not 1 <= seconds <= 24 * 3600:
        raise argparse.ArgumentTypeError(f"{text}: want a time from 1s to 24h, such as 5m")
    return seconds * 1000


def _add_config(parser: argparse.ArgumentParser) -> None:
    text = f"configuration file (default {DEFAULT_CONFIG}; REVIP_* variables override it)"
    parser.add_argument("--config", type=Path, metavar="FILE", help=text)


def _add_steering(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text)
    socket = Path(os.environ.get("REVIP_SOCKET", DEFAULT_SOCKET))
    parser.add_argument("--socket", type=Path, default=socket, help=f"default {socket}")
    return parser
