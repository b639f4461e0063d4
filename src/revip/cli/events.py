"""`revip events`: what changed, from the agent's history."""

from __future__ import annotations

import argparse
import json
import re
import sys
from typing import Any

from revip.api import words
from revip.api.asking import ask

LAST = 50
"""Events that are listed when neither --last nor --since says how many."""
UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
"""Milliseconds."""
DAYS_MAX = 366


def since(text: str) -> int:
    """Return the milliseconds of `2h`, `30m`, `90s` or `7d`."""
    found = re.fullmatch(r"([1-9]\d{0,7})([smhd])", text, re.ASCII)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration: write 90s, 30m, 2h or 7d")
    milliseconds = int(found[1]) * UNITS[found[2]]
    if milliseconds > DAYS_MAX * UNITS["d"]:
        raise argparse.ArgumentTypeError(f"{text!r} is more than a year")
    return milliseconds


def events(arguments: argparse.Namespace) -> int:
    """List the events that are asked for; return the exit code."""
    wanted: dict[str, int] = {}
    if arguments.since is not None:
        wanted["since_ms_ago"] = arguments.since
    if arguments.last is not None or arguments.since is None:
        wanted["last"] = LAST if arguments.last is None else arguments.last
    found: list[dict[str, Any]] = ask(arguments.socket, "events", **wanted)
    if sys.stdout.isatty() and not arguments.json:
        from revip.cli import view

        view.console().print(view.events(found, view.console().width))
        return 0
    for event in found:
        print(json.dumps(event, ensure_ascii=False) if arguments.json else words.event(event))
    return 0
