"""`revip top`: where the connections go, seen from sample to sample."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections import deque
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from revip.api import words
from revip.api.asking import ask
from revip.errors import RevipError

EVERY_SECONDS = 1.0
WINDOW = 10
"""Samples that rates and shares are taken over."""
LATENCIES = 24
"""Latencies of probes that are remembered, one for each sample."""
EVENTS = 8
"""Last changes that are shown."""

Place = tuple[str, str]
"""A virtual server and a backend."""


class Samples:
    """The newest snapshots of one agent, and what their differences tell."""

    def __init__(self) -> None:
        self._totals: deque[tuple[float, dict[Place, int]]] = deque(maxlen=WINDOW + 1)
        self._latencies: dict[Place, deque[int | None]] = {}

    def take(self, snapshot: Mapping[str, Any], at: float) -> dict[str, Any]:
        """Take in a snapshot of the time `at` in seconds; return `revip.top/v1`."""
        places = {
            (server["name"], backend["name"]): backend
            for server in snapshot["virtual_servers"]
            for backend in server["backends"]
        }
        self._totals.append((at, {k: each["connections_total"] for k, each in places.items()}))
        self._latencies = {
            place: self._latencies.get(place, deque(maxlen=LATENCIES)) for place in places
        }
        for place, backend in places.items():
            last = backend["last_probe"]
            self._latencies[place].append(last["latency_ms"] if last else None)
        return {
            "schema": "revip.top/v1",
            "node": snapshot["node"],
            "state": words.told(snapshot)["state"],
            "window_seconds": round(self._window(), 3),
            "virtual_servers": [self._server(each) for each in snapshot["virtual_servers"]],
            "events": snapshot.get("events", [])[-EVENTS:],
        }

    def _window(self) -> float:
        return self._totals[-1][0] - self._totals[0][0]

    def _new(self, place: Place) -> int:
        """Count the new connections of the window; all there were, when it is the first sample."""
        totals = [sample.get(place) for _, sample in self._totals]
        if len(totals) == 1:
            return totals[0] or 0
        count = 0
        for before, after in pairwise(totals):
            if before is not None and after is not None:
                # A backend that left the table and came back counts from 0 again.
                count += after - before if before <= after else after
        return count

    def _server(self, server: Mapping[str, Any]) -> dict[str, Any]:
        name, window = server["name"], self._window()
        new = {each["name"]: self._new((name, each["name"])) for each in server["backends"]}
        everything = sum(new.values())

        def backend(each: Mapping[str, Any]) -> dict[str, Any]:
            count = new[each["name"]]
            return {
                "name": each["name"],
                "endpoint": each["endpoint"],
                "verdict": each["verdict"],
                "reason": each["reason"],
                "since_ms_ago": each["since_ms_ago"],
                "wanted_weight": each["wanted_weight"],
                "kernel_weight": each["kernel_weight"],
                "active_connections": each["active_connections"],
                "inactive_connections": each["inactive_connections"],
                "new_connections": count,
                "new_connections_per_second": round(count / window, 2) if window else None,
                "share": round(count / everything, 4) if everything else None,
                "latencies_ms": list(self._latencies[name, each["name"]]),
            }

        return {
            "name": name,
            "address": server["address"],
            "port": server["port"],
            "role": server["role"],
            "mode": server["mode"],
            "new_connections_per_second": round(everything / window, 2) if window else None,
            "backends": [backend(each) for each in server["backends"]],
        }


def top(arguments: Namespace) -> int:
    """Show samples until interrupted, or one of them."""
    samples = Samples()

    def snapshot() -> dict[str, Any]:
        found: dict[str, Any] = ask(arguments.socket, "status")
        return found

    if arguments.json:
        while True:
            sample = samples.take(snapshot(), time.monotonic())
            print(json.dumps(sample, ensure_ascii=False), flush=True)
            if arguments.once:
                return 0
            time.sleep(EVERY_SECONDS)
    return _draw(arguments, samples, snapshot)


def _draw(arguments: Namespace, samples: Samples, snapshot: Any) -> int:
    from rich.live import Live  # not for --json, see steer
    from rich.text import Text

    from revip.cli import topview, view

    console = view.console()

    def drawn() -> Any:
        found = snapshot()
        sample = samples.take(found, time.monotonic())
        return topview.render(found, sample, console.width, console.height)

    def safely() -> Any:
        try:
            return drawn()
        except RevipError as error:
            return Text(str(error), style="bold red")

    if arguments.once:
        console.print(drawn())
        return 0
    if not console.is_terminal:
        while True:
            console.print(safely())
            print(flush=True)
            time.sleep(EVERY_SECONDS)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(safely(), refresh=True)
            time.sleep(EVERY_SECONDS)
