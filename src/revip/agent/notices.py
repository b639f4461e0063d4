"""The notifications of one agent: an outbox for each receiver, fed by the history."""

from __future__ import annotations

import asyncio

from revip.agent.agent import Agent
from revip.agent.notifying import CommandMessages, EventMessages, Standing
from revip.agent.outbox import Outbox
from revip.model.notify import Filter, VrrpState
from revip.planner.measures import Deliveries
from revip.ports import Messenger

WEBHOOK_ATTEMPTS = 20
"""Some eight minutes, with pauses of up to 30 s."""
COMMAND_ATTEMPTS = 3
LAST_WORDS_SECONDS = 2.0
"""How long the end of the agent waits for messages to be delivered."""


class Notices:
    """Receivers are added before the agent runs; `finish` follows its end."""

    def __init__(self, agent: Agent) -> None:
        self.deliveries: dict[str, Deliveries] = {}
        """What became of the messages, by receiver."""
        self._agent = agent
        self._outboxes: list[Outbox] = []
        self._commands: list[CommandMessages] = []

    def post(self, name: str, messenger: Messenger, wanted: Filter) -> None:
        """Tell `messenger` of events."""
        history = self._agent.journal.history
        outbox = self._outbox(name, messenger, WEBHOOK_ATTEMPTS)
        told = EventMessages(self._agent.spec.node, wanted, outbox, tuple(history.events))
        history.followers.append(told.hear)

    def run(self, name: str, messenger: Messenger, wanted: Filter) -> None:
        """Tell `messenger` of events, and of changes of leadership as keepalived does."""
        agent, outbox = self._agent, self._outbox(name, messenger, COMMAND_ATTEMPTS)
        standing = lambda: _standing(agent)  # noqa: E731
        told = CommandMessages(agent.spec.node, wanted, outbox, standing, agent.ports.clock)
        agent.journal.history.followers.append(told.hear)
        agent.add_part("leadership watch", told.run)
        self._commands.append(told)

    async def finish(self) -> None:
        """Have the last words delivered, as far as that goes quickly."""
        for command in self._commands:
            command.stop()
        await asyncio.gather(*(each.finish(LAST_WORDS_SECONDS) for each in self._outboxes))

    def _outbox(self, name: str, messenger: Messenger, attempts: int) -> Outbox:
        agent = self._agent
        outbox = Outbox(name, messenger, attempts, agent.ports.clock, agent.journal.write)
        self.deliveries[name] = outbox.counts
        self._outboxes.append(outbox)
        agent.add_part(f"notifications by {name}", outbox.run)
        return outbox


def _standing(agent: Agent) -> Standing:
    """Return what keepalived would call this node, by elected virtual server."""
    found = {}
    for server in agent.spec.virtual_servers:
        election, service = agent.elections.get(server.name), agent.node.services.get(server.name)
        if election is not None and service is not None:
            told = election.status()
            state = VrrpState.BACKUP if told["state"] != "initialize" else VrrpState.FAULT
            state = VrrpState.MASTER if service.elected else state
            found[server.name] = (state, int(told["priority"]))
    return found
