"""The backends file is watched; only a good one changes anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from revip.adapters.backends_file import (
    PERIOD,
    SETTLED,
    BackendsFile,
    wait,
)
from revip.model.discovery import BackendsNews, BackendsRead, BackendsRefused
from revip.model.ipvs import Port
from revip.model.spec import LinkName, NodeName, VirtualServerSpec

SERVER = VirtualServerSpec(
    "api", ip_address("10.0.1.10"), Port(6443), LinkName("eth0"), NodeName("n1"), ()
)


def listing(*addresses: str) -> str:
    items = "".join(f"  - {{address: {address}}}\n" for address in addresses)
    return f"count: {len(addresses)}\nbackends:\n{items}"


class Script:
    """A wait that does the next step of a script instead of letting time pass."""

    def __init__(self) -> None:
        self.steps: list[Callable[[], object]] = []
        self.waited: list[float] = []

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        self.waited.append(seconds)
        assert self.steps, "waits although nothing is going to happen"
        self.steps.pop(0)()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "backends.yaml"


@pytest.fixture
def script() -> Script:
    return Script()


def watched(path: Path, script: Script, age: float = 3600) -> AsyncIterator[BackendsNews]:
    def wall_clock() -> int:
        return (path.stat().st_mtime_ns if path.exists() else 0) + int(age * 1e9)

    return BackendsFile(path, SERVER, script.wait, wall_clock).changes()


def addresses(news: BackendsNews) -> list[str]:
    assert isinstance(news, BackendsRead), str(news)
    return [str(backend.address) for backend in news.backends]


def put(path: Path, text: str) -> None:
    path.write_text(text)


def nothing() -> None:
    """Let one period pass."""


async def test_what_is_there_is_told_at_once(path: Path, script: Script) -> None:
    put(path, listing("10.0.1.16", "10.0.1.19"))
    assert addresses(await anext(watched(path, script))) == ["10.0.1.16", "10.0.1.19"]
    assert script.waited == []


async def test_an_atomic_replacement_is_seen_within_a_period(path: Path, script: Script) -> None:
    put(path, listing("10.0.1.16"))
    changes = watched(path, script)
    await anext(changes)
    new = path.with_suffix(".new")
    new.write_text(listing("10.0.1.19"))
    script.steps = [nothing, nothing, lambda: new.rename(path)]
    assert addresses(await anext(changes)) == ["10.0.1.19"]
    assert script.waited == [PERIOD] * 3


async def test_a_file_that_is_missing_for_a_while_is_said_once(path: Path, script: Script) -> None:
    put(path, listing("10.0.1.16"))
    changes = watched(path, script)
    await anext(changes)
    script.steps = [path.unlink]
    gone = await anext(changes)
    assert isinstance(gone, BackendsRefused)
    assert gone.missing
    assert str(gone) == f"{path}: does not exist"
    script.steps = [nothing, nothing, lambda: path.write_text(listing("10.0.1.16"))]
    assert addresses(await anext(changes)) == ["10.0.1.16"]


async def test_a_wrong_file_is_said_once_and_its_mend_is_seen(path: Path, script: Script) -> None:
    put(path, listing("10.0.1.16"))
    changes = watched(path, script)
    await anext(changes)
    script.steps = [lambda: path.write_text("backends: []\n")]
    wrong = await anext(changes)
    assert isinstance(wrong, BackendsRefused)
    assert not wrong.missing
    assert "allow_empty" in str(wrong)
    script.steps = [nothing, lambda: path.write_text(listing("10.0.1.20"))]
    assert addresses(await anext(changes)) == ["10.0.1.20"]


async def test_a_file_in_the_middle_of_a_write_is_read_when_it_is_whole(
    path: Path, script: Script
) -> None:
    put(path, listing("10.0.1.16"))
    changes = watched(path, script, age=0)
    script.steps = [nothing]
    await anext(changes)
    whole = listing("10.0.1.16", "10.0.1.19")
    half = "backends:\n  - {address: 10.0.1.16}\n"
    script.waited.clear()
    script.steps = [
        lambda: path.write_text(half),
        lambda: path.write_text(whole),
        nothing,
    ]
    assert addresses(await anext(changes)) == ["10.0.1.16", "10.0.1.19"]
    assert script.waited == [PERIOD, SETTLED, SETTLED]


async def test_a_writer_that_died_half_way_changes_nothing(path: Path, script: Script) -> None:
    put(path, listing("10.0.1.16", "10.0.1.19"))
    changes = watched(path, script)
    await anext(changes)
    script.steps = [lambda: path.write_text(listing("10.0.1.16", "10.0.1.19")[:-5])]
    assert "line feed" in str(await anext(changes))
    script.steps = [lambda: path.write_text("count: 2\nbackends:\n  - {address: 10.0.1.16}\n")]
    assert "count = 2" in str(await anext(changes))


async def test_a_file_that_becomes_readable_is_read(path: Path, script: Script) -> None:
    """Its mode changes, and nothing else that a writer would change."""
    put(path, listing("10.0.1.16"))
    changes = watched(path, script)
    await anext(changes)
    script.steps = [nothing, lambda: path.chmod(0o600)]
    assert addresses(await anext(changes)) == ["10.0.1.16"]


async def test_a_replaced_directory_is_followed(tmp_path: Path, script: Script) -> None:
    """As the kubelet updates a ConfigMap: a symbolic link to another directory."""
    for name, address in (("one", "10.0.1.16"), ("two", "10.0.1.19")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "backends.yaml").write_text(listing(address))
    link = tmp_path / "data"
    link.symlink_to("one")
    changes = watched(link / "backends.yaml", script)
    await anext(changes)
    other = tmp_path / "other"
    other.symlink_to("two")
    script.steps = [lambda: other.rename(link)]
    assert addresses(await anext(changes)) == ["10.0.1.19"]


async def test_whoever_asks_is_answered_without_waiting_for_the_period(path: Path) -> None:
    put(path, listing("10.0.1.16"))

    async def until_asked(event: asyncio.Event, seconds: float) -> None:
        if seconds == PERIOD:
            await event.wait()

    file = BackendsFile(path, SERVER, until_asked)
    changes = file.changes()
    await anext(changes)
    file.ask()
    assert addresses(await anext(changes)) == ["10.0.1.16"]


async def test_the_real_wait_ends_by_event_and_by_time() -> None:
    event = asyncio.Event()
    await wait(event, 0.001)
    event.set()
    await wait(event, 3600)
