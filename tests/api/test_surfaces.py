"""An agent with its surfaces, as it is wired, in real time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from revip.adapters.history_file import HistoryFile
from revip.agent.agent import Agent
from revip.agent.commands import Commands
from revip.agent.history import HISTORY, History
from revip.api.control import Command
from revip.api.status import status
from revip.model.http import HttpSpec, Listen
from revip.model.ipvs import Port
from revip.model.notes import Kind
from revip.wiring import surfaces
from tests.agent.fakes import REFUSED, Stage
from tests.api.conftest import Answer, parsed
from tests.api.openapi import schema, strays
from tests.api.test_metrics import samples
from tests.planner.test_node import spec


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


class Wired(Stage):
    """A stage whose agent has an endpoint on `port`, none when 0, and a history file."""

    def __init__(self, folder: Path, port: int) -> None:
        listen = Listen(ip_address("127.0.0.1"), Port(port)) if port else None
        super().__init__(replace(spec(), http=HttpSpec(listen)))
        self.port = port
        self.kept = HistoryFile(folder / "history.jsonl")
        past, self.damage = self.kept.read(HISTORY)
        self.journal.history = History(past)
        self.journal.history.followers.append(self.kept.write)
        self.status: Command
        self.prepare = self._surfaces

    def _surfaces(self, agent: Agent) -> None:
        commands = Commands(agent, lambda a: status(a.node, a.ports.clock.now()), lambda: None)
        self.status = surfaces(agent, commands.table()["status"], self.kept)

    async def get(self, target: str) -> Answer:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET {target} HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n".encode())
        answer = parsed(await reader.read())
        writer.transport.abort()
        return answer

    async def ready(self) -> None:
        await self.until(lambda: len(self.weights()) == 3, 10)
        await self.until(lambda: self.status({})["http"]["url"], 10)


@contextlib.asynccontextmanager
async def wired(folder: Path, port: int) -> AsyncIterator[Wired]:
    stage = Wired(folder, port)
    with stage.kept:
        async with stage:
            yield stage


async def test_the_endpoint_tells_what_the_control_socket_tells(tmp_path: Path) -> None:
    async with wired(tmp_path, free_port()) as stage:
        await stage.ready()
        answer = await stage.get("/api/v1/status")
        assert answer.json.keys() == stage.status({}).keys()
        assert answer.json["schema"] == "revip.status/v1"
        assert list(strays(answer.json, schema("Status"))) == []
        assert (answer.json["state"], answer.json["troubles"]) == ("well", [])
        assert answer.json["http"]["url"] == f"http://127.0.0.1:{stage.port}/"
        assert (await stage.get("/readyz")).status == 200
        found = samples((await stage.get("/metrics")).body)
        place = 'virtual_server="api",backend="n1"'
        assert found[f"revip_probe_duration_seconds_count{{{place}}}"] >= 1
        assert found[f'revip_backend_in_table{{{place},table="kernel"}}'] == 1
        assert found["revip_table_differences"] == 0


async def test_a_change_is_heard_within_a_second(tmp_path: Path) -> None:
    async with wired(tmp_path, free_port()) as stage:
        await stage.ready()
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        writer.write(b"GET /api/v1/events?last=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"retry: 2000\n\n")
        stage.backends.answers[ip_address("10.0.1.19")] = REFUSED
        await stage.until(lambda: len(stage.weights()) == 2, 10)
        began = asyncio.get_running_loop().time()
        told: dict[str, Any] = {}
        async with asyncio.timeout(5):
            while told.get("backend") != "n2":
                line = await reader.readline()
                if line.startswith(b"data: "):
                    told = json.loads(line.removeprefix(b"data: "))
        writer.transport.abort()
        assert told["event"] == "backend.verdict"
        assert asyncio.get_running_loop().time() - began < 1


async def test_a_port_that_is_taken_costs_the_endpoint_alone_until_it_is_free(
    tmp_path: Path,
) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    async with wired(tmp_path, taken.getsockname()[1]) as stage:
        await stage.until(lambda: len(stage.weights()) == 3, 10)
        await stage.until(lambda: stage.status({})["http"]["failures"] >= 2, 10)
        told = stage.status({})
        assert "Address already in use: set http.listen" in told["http"]["error"]
        assert told["state"] == "attention"
        assert told["in_sync"]
        assert len(stage.told(Kind.FAULT)) == 1
        taken.close()
        await stage.ready()
        assert (await stage.get("/livez")).status == 200
        assert stage.status({})["http"]["error"] is None


async def test_an_agent_without_an_endpoint_says_so(tmp_path: Path) -> None:
    async with wired(tmp_path, 0) as stage:
        await stage.until(lambda: len(stage.weights()) == 3, 10)
        assert stage.status({})["http"] is None
        assert stage.status({})["state"] == "well"


async def test_the_history_survives_a_restart_of_the_agent(tmp_path: Path) -> None:
    async with wired(tmp_path, 0) as stage:
        await stage.until(lambda: len(stage.weights()) == 3, 10)
        first = [event.note.text for event in stage.journal.history.events]
    async with wired(tmp_path, 0) as stage:
        await stage.until(lambda: len(stage.weights()) == 3, 10)
        texts = [each["text"] for each in stage.command("events")]
        assert texts[: len(first)] == first
        assert len(texts) > len(first) + 2
        numbers = [each["id"] for each in stage.command("events")]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


async def test_a_read_only_disk_costs_the_history_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Wired(tmp_path, free_port())
    stage.kept.path = Path("/proc/self/history.jsonl")  # nobody, not even root, may make it
    with stage.kept:
        async with stage:
            await stage.ready()
            await stage.until(lambda: stage.status({})["history"]["error"], 10)
            told = stage.status({})
            assert told["in_sync"]
            assert told["state"] == "attention"
            (trouble,) = told["troubles"]
            assert trouble["what"].startswith("history: /proc/self/history.jsonl: ")
            assert not trouble["grave"]
            found = samples((await stage.get("/metrics")).body)
            assert found["revip_history_failures_total"] >= 1
            assert len(stage.command("events")) > 3
