"""A real Prometheus scrapes a real agent: it takes the files, and the incident is heard."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from revip.errors import KernelError
from revip.model.ipvs import AddDestination, Change
from tests.agent.fakes import READY, REFUSED
from tests.api.test_surfaces import Wired, free_port, wired
from tests.deploy.rules import RULES, filled, panels

SETTING = """\
global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}}
rule_files: [alerts.yaml]
scrape_configs:
  - job_name: revip
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
N2 = ip_address("10.0.1.19")


class Prometheus:
    """Asked over its HTTP interface."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}/api/v1/"

    async def ask(self, what: str, **parameters: str) -> Any:
        """Return the data of its answer; raises OSError when it has none or refuses."""
        url = self._base + what + "?" + urllib.parse.urlencode(parameters)

        def fetch() -> Any:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)["data"]

        return await asyncio.to_thread(fetch)

    async def value(self, query: str) -> str | None:
        """Return the value of the only sample; None when there is none or many."""
        found = (await self.ask("query", query=query))["result"]
        return found[0]["value"][1] if len(found) == 1 else None

    async def firing(self) -> set[str]:
        alerts = (await self.ask("alerts"))["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}

    async def becomes(self, wanted: bool) -> set[str]:
        """Wait until an alert fires, or until none does; return those that fire then."""
        async with asyncio.timeout(30):
            while True:
                heard = await self.firing()
                if bool(heard) == wanted:
                    return heard
                await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def scraping(folder: Path, agent: int) -> AsyncIterator[Prometheus]:
    """Run Prometheus with our rules, which wait three seconds each."""
    port = free_port()
    (folder / "prometheus.yml").write_text(SETTING.format(port=agent))
    rules = re.sub(r"\bfor: \w+", "for: 3s", RULES.read_text())
    (folder / "alerts.yaml").write_text(rules)
    running = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    )
    try:
        yield Prometheus(port)
    finally:
        running.kill()
        await running.wait()


async def _until_scraped(prometheus: Prometheus) -> None:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(OSError):
                if await prometheus.value("count_over_time(revip_in_sync[1m]) > 4"):
                    return
            await asyncio.sleep(0.2)


async def _incident(stage: Wired) -> None:
    """n2 fails, recovers, and the kernel does not take it back."""

    def no_more(change: Change) -> Exception | None:
        return KernelError(1, "add", "refused") if isinstance(change, AddDestination) else None

    await _out(stage)
    stage.kernel.refuses = no_more
    stage.backends.answers[N2] = READY


async def _out(stage: Wired) -> None:
    stage.backends.answers[N2] = REFUSED
    await stage.until(lambda: len(stage.weights()) == 2, 10)


async def _all_out(stage: Wired) -> None:
    for backend in stage.agent.spec.virtual_servers[0].backends:
        stage.backends.answers[backend.address] = REFUSED


async def _unreadable(stage: Wired) -> None:
    stage.kernel.down = KernelError(1, "observe", "refused")


async def _paused(stage: Wired) -> None:
    stage.command("pause")


async def _drained(stage: Wired) -> None:
    stage.command("drain", backend="n2")


async def _mended(stage: Wired) -> None:
    stage.kernel.refuses = lambda _: None
    stage.kernel.down = None
    stage.backends.answers.clear()
    stage.command("resume")
    stage.command("enable", backend="n2")
    await stage.until(lambda: set(stage.weights().values()) == {1} and len(stage.weights()) == 3)


FAULTS = {
    "RevipBackendNotInTable": _incident,
    "RevipBackendOut": _out,
    "RevipPanic": _all_out,
    "RevipKernelTableDiffers": _unreadable,
    "RevipPaused": _paused,
    "RevipBackendDrained": _drained,
}
"""What can be done to one agent and is over when it is over, by the only alert that is to fire."""


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_real_prometheus_hears_of_each_fault_and_of_no_other(tmp_path: Path) -> None:
    async with wired(tmp_path, free_port()) as stage:
        await stage.ready()
        async with scraping(tmp_path, stage.port) as prometheus:
            await _until_scraped(prometheus)
            for _, queries in panels():
                for query in queries:
                    await prometheus.ask("query", query=filled(query))
            await asyncio.sleep(4)
            assert await prometheus.firing() == set()
            for alert, fault in FAULTS.items():
                await fault(stage)
                assert await prometheus.becomes(True) == {alert}
                await asyncio.sleep(2)
                assert await prometheus.firing() == {alert}
                await _mended(stage)
                await prometheus.becomes(False)
