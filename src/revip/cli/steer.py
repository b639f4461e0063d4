"""The commands that talk to a running agent over its control socket.

The drawing library is imported where something is drawn, and nowhere else: it takes longer to
load than the agent takes to answer.
"""

from __future__ import annotations

import argparse
import json
import time

from revip.api import words
from revip.api.asking import ask

WATCH_SECONDS = 0.5
HAND_OVER_SECONDS = 60.0
"""Within which the agent says what has become of a hand-over."""


def steer(arguments: argparse.Namespace) -> int:
    """Carry out one command against the agent; return the exit code."""
    match arguments.command:
        case "status":
            return _watch(arguments) if arguments.watch else _status(arguments)
        case "events":
            from revip.cli.events import events

            return events(arguments)
        case "top":
            from revip.cli.top import top

            return top(arguments)
        case "why":
            return _why(arguments)
        case "plan":
            return _plan(arguments)
        case "drain" | "enable":
            wanted = {"backend": arguments.backend, "virtual_server": arguments.virtual_server}
            force = getattr(arguments, "force", False)
            print(ask(arguments.socket, arguments.command, force=force, **wanted))
            return 0
        case "handover":
            wish = {"vip": arguments.vip, "to": arguments.to, "hold_ms": arguments.hold}
            given = {name: value for name, value in wish.items() if value is not None}
            print(ask(arguments.socket, "handover", HAND_OVER_SECONDS, **given))
            return 0
        case _:
            print(ask(arguments.socket, arguments.command))
            return 0


def _status(arguments: argparse.Namespace) -> int:
    snapshot = ask(arguments.socket, "status")
    if arguments.json:
        print(json.dumps(snapshot, indent=2, ensure_ascii=False))
    else:
        from revip.cli import view

        console = view.console()
        console.print(view.status(snapshot, console.width))
    return 0 if words.is_well(snapshot) else 1


def _watch(arguments: argparse.Namespace) -> int:
    if arguments.json:
        while True:
            print(json.dumps(ask(arguments.socket, "status"), ensure_ascii=False), flush=True)
            time.sleep(WATCH_SECONDS)
    from rich.live import Live

    from revip.cli import view

    console = view.console()
    if not console.is_terminal:
        while True:
            console.print(view.safely(lambda: ask(arguments.socket, "status"), console.width))
            print(flush=True)
            time.sleep(WATCH_SECONDS)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            drawn = view.safely(lambda: ask(arguments.socket, "status"), console.width)
            live.update(drawn, refresh=True)
            time.sleep(WATCH_SECONDS)


def _why(arguments: argparse.Namespace) -> int:
    from revip.cli.why import why

    snapshot = ask(arguments.socket, "status")
    print(why(snapshot, ask(arguments.socket, "events"), arguments.subject))
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    plan = ask(arguments.socket, "plan")
    if arguments.json:
        print(json.dumps(plan, indent=2, ensure_ascii=False))
        return 0
    steps = [*plan["table"], *plan["host"]]
    print("\n".join(steps) if steps else "nothing to do: the kernel is as it should be")
    if steps and plan["paused"]:
        print("(paused: none of this is done until `revip resume`)")
    for server, reasons in plan["reasons"].items():
        for backend, reason in reasons.items():
            print(f"{server}: {backend}: {reason}")
    for server, choice in plan.get("forwarding", {}).items():
        print(f"{server}: {choice}")
    return 0
