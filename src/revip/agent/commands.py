"""What an operator can ask a running agent, by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from revip.agent.agent import Agent
from revip.agent.handing import hand_over
from revip.agent.history import HISTORY
from revip.errors import RevipError
from revip.model.health import BackendName
from revip.planner.diff import describe
from revip.planner.forwarding import choice
from revip.planner.pool import drain_refusal
from revip.planner.service import Service

LONGEST = 366 * 86_400_000
"""Milliseconds that one can ask back for, a year; the ring is shorter."""


class CannotError(RevipError):
    """The request makes no sense here; the text says why and what would."""


Render = Callable[[Agent], dict[str, Any]]


class Commands:
    """The commands of one agent."""

    def __init__(self, agent: Agent, render: Render, reload: Callable[[], str | None]) -> None:
        self._agent = agent
        self._render = render
        self._reload = reload

    def table(self) -> Mapping[str, Callable[[Mapping[str, Any]], Any]]:
        """Return the commands by name."""
        return {
            "status": self._status,
            "events": self._events,
            "drain": lambda request: self._drain(request, drained=True),
            "enable": lambda request: self._drain(request, drained=False),
            "pause": lambda _: self._pause(paused=True),
            "resume": lambda _: self._pause(paused=False),
            "handover": lambda request: hand_over(self._agent, request),
            "plan": self._plan,
            "reload": self._reload_now,
        }

    def _status(self, _: Mapping[str, Any]) -> dict[str, Any]:
        agent = self._agent
        hosting = agent.hosting
        rendered = self._render(agent)
        for server in rendered["virtual_servers"]:
            if (election := agent.elections.get(server["name"])) is not None:
                server["election"] = election.status()
            server["duplicates"] = agent.conflicts.status(server["name"])
        return {
            **rendered,
            "pid": os.getpid(),
            "up_ms": agent.ports.clock.now() - agent.started,
            "host": None
            if hosting is None
            else {
                "error": hosting.failure,
                "repairs": hosting.repairs,
                "failures": hosting.failures,
                "pending": list(hosting.missing),
            },
            "announcements": _announcements(agent),
            "notes_by_kind": {kind.value: n for kind, n in agent.journal.by_kind.items() if n},
            "log_lines_dropped": agent.journal.dropped,
            "unrecorded": agent.unrecorded,
            "events": [event.as_json() for event in list(agent.journal.history.events)[-10:]],
        }

    def _events(self, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        count, since = request.get("last", HISTORY), request.get("since_ms_ago")
        for name, value in (("last", count), ("since_ms_ago", since)):
            if value is not None and (type(value) is not int or not 1 <= value <= LONGEST):
                raise CannotError(f"{name}: want a whole number from 1 on")
        history = self._agent.journal.history
        if since is None:
            return [event.as_json() for event in history.after(0, count)]
        time = datetime.now(UTC) - timedelta(milliseconds=since)
        return [event.as_json() for event in history.since(time, count)]

    def _drain(self, request: Mapping[str, Any], *, drained: bool) -> str:
        service, name = self._find(request)
        if drained and not request.get("force"):
            refusal = drain_refusal(service.members(), name, service.spec.panic_threshold)
            if refusal is not None:
                raise CannotError(f"{refusal}; --force drains it all the same")
        node = self._agent.node
        now = self._agent.ports.clock.now()
        self._agent.perform(node.drain(service.spec.name, name, drained, now))
        return f"{name} {'drains: no new connections' if drained else 'is enabled'}"

    def _pause(self, *, paused: bool) -> str:
        agent = self._agent
        agent.perform(agent.node.pause(paused, agent.ports.clock.now()))
        agent.look_at_host()
        return "paused: observing only" if paused else "resumed"

    def _plan(self, _: Mapping[str, Any]) -> dict[str, Any]:
        plan = self._agent.node.plan()
        hosting = self._agent.hosting
        return {
            "table": [describe(change) for change in plan.changes],
            "host": list(hosting.missing) if hosting is not None else [],
            "reasons": plan.reasons,
            "forwarding": {
                service.spec.name: choice(service.spec)
                for service in self._agent.node.services.values()
                if service.spec.automatic
            },
            "paused": self._agent.node.paused,
        }

    def _reload_now(self, _: Mapping[str, Any]) -> str:
        refused = self._reload()
        if refused is not None:
            raise CannotError(f"refused, the old configuration goes on: {refused}")
        return "configuration taken over"

    def _find(self, request: Mapping[str, Any]) -> tuple[Service, BackendName]:
        """Find the backend by name or address, within one virtual server if one is named."""
        wanted, server = str(request.get("backend", "")), request.get("virtual_server")
        found = [
            (service, name)
            for service in self._agent.node.services.values()
            for name, entry in service.entries.items()
            if server in (None, service.spec.name) and wanted in (name, str(entry.backend.address))
        ]
        if len(found) == 1:
            return found[0]
        known = ", ".join(
            f"{name} of {service.spec.name}"
            for service in self._agent.node.services.values()
            for name in service.entries
        )
        problem = "is in several virtual servers, name one" if found else "is not a backend"
        raise CannotError(f"{wanted or 'no name'}: {problem}; there are: {known or 'none'}")


def _announcements(agent: Agent) -> dict[str, Any] | None:
    announcing = agent.announcing
    if announcing is None:
        return None
    return {
        "held": sorted(f"{place.address} dev {place.link}" for place in announcing.held),
        "sent": announcing.sent,
        "failed": announcing.failed,
        "error": announcing.failure,
    }
