"""`revip run`: the daemon."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

from revip.agent.history import HISTORY, History
from revip.agent.journal import STDERR, Journal
from revip.api.control import SocketTakenError, claim
from revip.config.load import load
from revip.model.notes import Kind, Level
from revip.ports import KeeperLink
from revip.wiring import Reloading, history_file, obstacles, serve, wired

COLLECT = (5_000, 20, 50)
"""See gc.set_threshold(); a probe makes hardly any cycles, and an idle agent little else."""


def run(config: Path | None, keeper: KeeperLink, *, json_lines: bool) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    hostname = socket.gethostname().partition(".")[0]
    spec = load(config, os.environ, hostname)
    if in_the_way := obstacles(spec):
        return _refuse(in_the_way)
    try:
        lock = claim(spec.socket)
    except SocketTakenError as error:
        return _refuse([error])
    kept = history_file(spec)
    past, damage = kept.read(HISTORY)
    with lock, kept, Journal(spec.node, json_lines, history=History(past)) as journal:
        reloading = Reloading(config, os.environ, hostname)
        agent = wired(spec, journal, keeper)
        if damage is not None:
            agent.note(Kind.HISTORY, damage, Level.WARNING)
        if sys.stderr is not None:
            # systemd's watchdog aborts a stuck agent, which then tells where it is.
            faulthandler.enable(STDERR)
        _keep_what_is_there()
        asyncio.run(serve(agent, reloading, kept))
    return 0


def _keep_what_is_there() -> None:
    """Spare the collector the modules: they stay for good, and are most of what there is."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)


def _refuse(reasons: Iterable[object]) -> int:
    for reason in reasons:
        print(f"revip: {reason}", file=sys.stderr)
    return 2
