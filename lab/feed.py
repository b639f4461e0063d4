"""The demo's second pair of eyes: a process that streams what outsiders see, as it happens.

It runs beside the story, on the director's node, and tells the same run's events: `table` (the
kernel's, by the lab's own observer), `clients` (requests per 100 ms, from the load client's
record) and `agent` (its verdicts and reasons, over its control socket).
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import observer
from lab.cluster import Cluster
from lab.scenario import Run

LOOK_SECONDS = 0.02
"""Between two looks at the kernel's table."""
TELL_SECONDS = 0.2
"""Between two looks at the client and the agent."""
BUCKET_MS = 100
"""Requests are counted by the time of their end, in buckets of this size."""
FAILED = "!"
"""Where a bucket counts the requests that failed; the others stand under who answered."""


@dataclass(slots=True)
class Tail:
    """Counts new requests in a load client's growing record."""

    path: Path
    epoch: int
    """Monotonic nanoseconds of the story's beginning."""
    _offset: int = 0

    def read(self) -> dict[int, Counter[str]]:
        """Return what has come since the last call: counts of each bucket, by backend."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        found: dict[int, Counter[str]] = {}
        for line in whole.splitlines():
            request = json.loads(line)["request"]
            bucket = (request["end"] - self.epoch) // (BUCKET_MS * 1_000_000)
            who = FAILED if request["error"] else request["backend"] or "?"
            found.setdefault(bucket, Counter())[who] += 1
        return found


@dataclass(slots=True)
class Feed:
    """Tells a run's events from outside of its story."""

    run: Run
    cluster: Cluster
    tail: Tail
    _told: dict[str, Any] = field(default_factory=dict)

    def follow(self, output: int) -> None:
        """Tell until SIGTERM; `output` becomes standard output, where events go."""
        os.dup2(output, 1)
        due = 0.0
        with observer.TableReader() as reader:
            while True:
                tables, now = reader.read(), time.monotonic()
                self._table(tables, counters=now >= due)
                if now >= due:
                    due = now + TELL_SECONDS
                    self._clients()
                    self._agent()
                time.sleep(LOOK_SECONDS)

    def _table(self, tables: observer.Tables, *, counters: bool) -> None:
        """Tell the weights when they change, and how many connections are open now and then."""
        names = {self.cluster.address(name): name for name in self.cluster.nodes}
        vip = str(self.cluster.vip)
        found = [d for service in tables if service.address == vip for d in service.destinations]
        weights = {names.get(d.address, d.address): d.weight for d in found}
        self._tell_news("table", weights=weights)
        if counters:
            active = {names.get(d.address, d.address): d.active for d in found}
            self._tell_news("connections", active=active)

    def _clients(self) -> None:
        buckets = self.tail.read()
        if buckets:
            self.run.event("clients", buckets={str(at): counts for at, counts in buckets.items()})

    def _agent(self) -> None:
        with contextlib.suppress(Exception):  # it may be gone; then the outside is all there is
            server = self.cluster.server_status(self.cluster.owner)
            backends = {
                b["name"]: {"verdict": b["verdict"], "reason": b["reason"]}
                for b in server["backends"]
            }
            self._tell_news("agent", mode=server["mode"], backends=backends)

    def _tell_news(self, event: str, **details: Any) -> None:
        if self._told.get(event) != details:
            self._told[event] = details
            t_ms = (time.monotonic_ns() - self.tail.epoch) / 1e6
            self.run.event(event, t_ms=round(t_ms, 1), **details)
