"""`revip handover`: what an operator is told when the address is to move, or not to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from revip.agent.agent import Agent
from revip.agent.kept import KeptElection
from revip.errors import RevipError
from revip.model.instants import MINUTE, SECOND, Span
from revip.model.notes import Kind
from revip.planner.handover import PENDING, HandOver, Stage, give, patience, take
from revip.planner.service import Service

HOLD = Span(5 * MINUTE)
"""For so long the election does not undo what the operator did."""
LONGEST_HOLD = Span(24 * 60 * MINUTE)
ANSWER = Span(50 * SECOND)
"""The operator is answered by then, also where adverts are rare."""
LOOK_SECONDS = 0.02


class CannotHandOverError(RevipError):
    """The address cannot be moved so; the text says why, and what would do it."""


async def hand_over(agent: Agent, request: Mapping[str, Any]) -> str:
    """Move an address by hand; return what has become of it.  Raises `CannotHandOverError`."""
    service, election = _find(agent, request.get("vip"))
    hold = request.get("hold_ms", HOLD)
    if not isinstance(hold, int) or not SECOND <= hold <= LONGEST_HOLD:
        raise CannotHandOverError("for: want a time from 1s to 24h")
    if agent.node.paused:
        raise CannotHandOverError("paused, so that nothing can move: `revip resume` first")
    to, node, name = request.get("to"), agent.spec.node, service.spec.name
    if to not in (None, node):
        text = f"VRRP cannot name a successor: run `revip handover --to {to}` on {to} itself"
        raise CannotHandOverError(text)
    standing = election.status()
    if (wish := standing["handover"]) and Stage(wish["stage"]) in PENDING:
        raise CannotHandOverError("a hand-over is under way already")
    now = agent.ports.clock.now()
    if to is None:
        if standing["state"] != "active":
            elsewhere = _elsewhere(service, standing)
            raise CannotHandOverError(f"this node does not direct {name}: {elsewhere}")
        agent.note(Kind.OPERATOR, f"the operator gives {name} away")
        return await _outcome(agent, service, election, give(now, Span(hold)))
    if standing["priority"] == 0:
        text = f"this node stands aside from the election of {name}: {standing['reason']}"
        raise CannotHandOverError(text)
    agent.note(Kind.OPERATOR, f"the operator wants {name} here")
    return await _outcome(agent, service, election, take(now, Span(hold)))


async def _outcome(agent: Agent, service: Service, election: KeptElection, wish: HandOver) -> str:
    election.hand_over(wish)
    interval, clock = election.spec.advert_interval, agent.ports.clock
    deadline = wish.asked_at + min(ANSWER, patience(wish, interval) + SECOND)
    while clock.now() < deadline:
        await asyncio.sleep(LOOK_SECONDS)
        standing = election.status()
        told = standing["handover"]
        stage = Stage(told["stage"]) if told else None
        if stage not in PENDING:
            return _told(agent, service, standing, stage)
    raise CannotHandOverError(f"no outcome yet, see `revip status`: {election.status()['reason']}")


def _told(agent: Agent, service: Service, standing: dict[str, Any], stage: Stage | None) -> str:
    name, told = service.spec.name, standing["handover"]
    match stage:
        case Stage.GIVEN:
            after = f"this node preempts nobody for {told['left_ms'] // SECOND} s more"
            return f"{name}: {_who(service, told['other'])} directs now; {after}"
        case Stage.TAKEN:
            after = f"with priority 254 for {told['left_ms'] // SECOND} s more"
            return f"{name}: {agent.spec.node} directs now, {after}"
        case Stage.NOT_TAKEN:
            text = f"{name}: nobody else took it, so this node keeps it"
        case _:
            text = f"{name}: it stays where it is: {standing['reason']}"
    raise CannotHandOverError(text)


def _find(agent: Agent, wanted: object) -> tuple[Service, KeptElection]:
    """Find the election by the VIP or the name of its virtual server; the only one by default."""
    services = tuple(agent.node.services.values())
    known = [
        service
        for service in services
        if wanted in (None, service.spec.name, str(service.spec.address))
    ]
    elections = ((service, agent.elections.get(service.spec.name)) for service in known)
    elected = [(service, election) for service, election in elections if election is not None]
    names = ", ".join(f"{s.spec.address} ({s.spec.name})" for s in services) or "none"
    if not known:
        raise CannotHandOverError(f"{wanted}: is not a virtual IP here; there are: {names}")
    if not elected:
        text = (
            f"{known[0].spec.name}: nothing is elected (election.kind: static); to move it,"
            " change `owner` on every node and reload"
        )
        raise CannotHandOverError(text)
    if len(elected) > 1:
        raise CannotHandOverError(f"several are elected, name one of: {names}")
    return elected[0]


def _elsewhere(service: Service, standing: dict[str, Any]) -> str:
    if standing["holder"] is None:
        return f"nobody is known to: {standing['reason']}"
    return f"{_who(service, standing['holder'])} does; run it there"


def _who(service: Service, address: str) -> str:
    """Return the name of the node with that address, where it is that of a backend."""
    for name, entry in service.entries.items():
        if str(entry.backend.address) == address:
            return f"{name} ({address})"
    return address
