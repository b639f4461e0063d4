"""`revip run`: the daemon."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

from revip.agent.journal import Journal
from revip.api.control import SocketTakenError, claim
from revip.config.load import load
from revip.wiring import Reloading, obstacles, serve, wired


def run(config: Path | None, *, json_lines: bool) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    hostname = socket.gethostname().partition(".")[0]
    spec = load(config, os.environ, hostname)
    if in_the_way := obstacles(spec):
        return _refuse(in_the_way)
    try:
        lock = claim(spec.socket)
    except SocketTakenError as error:
        return _refuse([error])
    with lock, Journal(spec.node, json_lines) as journal:
        reloading = Reloading(config, os.environ, hostname)
        asyncio.run(serve(wired(spec, journal), reloading))
    return 0


def _refuse(reasons: Iterable[object]) -> int:
    for reason in reasons:
        print(f"revip: {reason}", file=sys.stderr)
    return 2
