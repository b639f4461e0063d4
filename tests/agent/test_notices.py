"""A whole agent, and what its receivers are told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from revip.agent.agent import Agent
from revip.agent.history import History
from revip.agent.notices import Notices
from revip.agent.outbox import LIMIT
from revip.config.load import load
from revip.errors import KernelError, TransientError
from revip.model.notes import Kind, Level
from revip.model.notify import Filter, Message
from revip.model.spec import Spec
from revip.wiring import Reloading
from tests.agent.fakes import REFUSED, Stage
from tests.agent.test_agent import BACKENDS, played, spec
from tests.agent.test_electing import PEER, elected, leads
from tests.config.conftest import GOOD

ALONE = {
    "REVIP_NODE": "n1",
    "REVIP_VIP": "10.0.1.10",
    "REVIP_INTERFACE": "eth0",
    "REVIP_OWNER": "n1",
    "REVIP_BACKENDS": "n1=10.0.1.16,n2=10.0.1.19,n3=10.0.1.20",
}
WATCHED = Filter(Level.INFO, (Kind.LEADERSHIP,))


class Kept:
    """A receiver that keeps what it is told, or fails in the way `error` says."""

    def __init__(self, error: Exception | None = None, hangs: bool = False) -> None:
        self.messages: list[Message] = []
        self.error = error
        self.hangs = hangs

    async def deliver(self, message: Message) -> None:
        if self.hangs:
            await asyncio.sleep(10_000)
        if self.error is not None:
            raise self.error
        self.messages.append(message)

    def states(self) -> list[tuple[str, ...]]:
        return [each.transition.arguments for each in self.messages if each.transition]


class Told(Stage):
    """A stage whose agent tells a webhook and a command."""

    def __init__(self, of: Spec, webhook: Kept, command: Kept) -> None:
        super().__init__(of)
        self.webhook, self.command_ = webhook, command
        self.prepare = self._prepare
        self.notices: Notices

    def _prepare(self, agent: Agent) -> None:
        self.notices = Notices(agent)
        self.notices.post("webhook", self.webhook, Filter())
        self.notices.run("command", self.command_, WATCHED)


@played
async def test_a_backend_that_goes_and_returns_is_told_and_ended() -> None:
    stage = Told(spec(), Kept(), Kept())
    async with stage:
        await stage.until(lambda: len(stage.weights()) == 3)
        stage.backends.answers[BACKENDS[1].address] = REFUSED
        await stage.until(lambda: len(stage.weights()) == 2)
        await stage.until(lambda: stage.webhook.messages, 1)
        del stage.backends.answers[BACKENDS[1].address]
        await stage.until(lambda: len(stage.weights()) == 3)
        await stage.until(lambda: stage.webhook.messages[-1].ends, 1)
        of = [each for each in stage.webhook.messages if each.event.note.kind is Kind.VERDICT]
        assert {each.event.note.backend for each in of} == {BACKENDS[1].name}
        assert stage.command_.messages == []


@played
async def test_leadership_is_told_as_keepalived_would() -> None:
    stage = Told(elected(priority=150), Kept(), Kept())
    async with stage:
        await leads(stage)
        stage.speaker.hear(PEER, 200)
        await stage.until(lambda: not stage.host.addresses())
        stage.speaker.gone = KernelError(19, "look at eth0", "it is gone")
        await stage.until(lambda: stage.command_.states()[-1][2] == "FAULT")
        stage.speaker.gone = None
        await stage.until(lambda: stage.command_.states()[-1][2] == "BACKUP")
    await stage.notices.finish()
    states = stage.command_.states()
    assert [state for _, _, state, _ in states][:5] == [
        *("BACKUP", "MASTER", "BACKUP", "FAULT", "BACKUP")
    ]
    assert states[-1][2] == "STOP"
    assert states[1] == ("INSTANCE", "api", "MASTER", "150")
    assert all(each.transition for each in stage.command_.messages)


@pytest.mark.parametrize(
    "receiver", [Kept(hangs=True), Kept(TransientError("503")), Kept(ValueError("bug"))]
)
@played
async def test_no_receiver_disturbs_the_data_plane(receiver: Kept) -> None:
    stage = Told(spec(), receiver, receiver)
    async with stage:
        await stage.until(lambda: len(stage.weights()) == 3)
        for _ in range(300):
            stage.agent.note(Kind.FAULT, "noise", Level.ERROR)
        stage.backends.answers[BACKENDS[1].address] = REFUSED
        assert await stage.until(lambda: len(stage.weights()) == 2) < 2
        counts = stage.notices.deliveries["webhook"]
        assert counts.waiting <= LIMIT
        assert counts.dropped["full"] >= 200
    loop = asyncio.get_running_loop()
    began = loop.time()
    await stage.notices.finish()
    assert loop.time() - began <= 2.01


@played
async def test_after_a_restart_the_end_of_what_was_told_is_told() -> None:
    first = Told(spec(), Kept(), Kept())
    async with first:
        await first.until(lambda: len(first.weights()) == 3)
        first.backends.answers[BACKENDS[1].address] = REFUSED
        await first.until(lambda: len(first.weights()) == 2)
    second = Told(spec(), Kept(), Kept())
    second.journal.history = History(first.journal.history.events)
    async with second:
        await second.until(lambda: second.webhook.messages)
        (over,) = second.webhook.messages
        assert over.ends
        assert over.event.note.backend == BACKENDS[1].name


async def test_a_change_needs_a_restart_and_no_secret_is_told(tmp_path: Path) -> None:
    path = tmp_path / "revip.yaml"
    path.write_text(GOOD + "notify: {webhook: {url: 'https://chat.example/hooks/s3cret'}}\n")
    stage = Stage(load(None, ALONE, "n1"))
    async with stage:
        refused = Reloading(path, {}, "n1").reload(stage.agent)
        assert refused is not None
        assert "notify: cannot change while the agent runs: restart it" in refused
        assert "s3cret" not in refused + "".join(stage.told(Kind.CONFIG_REFUSED))
