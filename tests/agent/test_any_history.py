"""Whatever has happened: a healthy backend is in the table soon after (L1), and the agent lives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revip.errors import KernelError
from revip.model.discovery import BackendsRead
from revip.model.health import BackendName, Finding, HealthTiming, ProbeResult
from revip.model.host import HostFact
from revip.model.instants import Span
from revip.model.ipvs import Change
from revip.model.spec import LinkName, NodeName
from revip.planner.bounds import return_bound
from tests.agent.fakes import READY, REFUSED, Stage, play
from tests.agent.test_agent import ALL_IN, BACKENDS, FILE, server, spec

UNREADY = ProbeResult(Finding.NOT_READY, "HTTP 500", stage="http")
OURS = ProbeResult(Finding.OURS, "no free descriptor", stage="connect")
LATE = ProbeResult(Finding.FAILED, "no answer", Span(9_000), "http")
NO_ROOM = KernelError(12, "write", "no memory")
TIMING = HealthTiming(damping_changes=3, damping_hold=Span(1_000), damping_hold_max=Span(4_000))
FIRST = server(health=TIMING)
SECOND = replace(FILE, name="second", address=FIRST.address + 1, health=TIMING)


async def _bug() -> ProbeResult:
    raise LookupError("a bug")


async def _cancelled() -> ProbeResult:
    raise asyncio.CancelledError


async def _hung() -> ProbeResult:
    await asyncio.Event().wait()
    return READY


async def _slow() -> ProbeResult:
    await asyncio.sleep(0.9)
    return READY


Answer = ProbeResult | Callable[[], Awaitable[ProbeResult]]
ANSWERS: tuple[Answer, ...] = (
    *(READY, REFUSED, UNREADY, OURS, LATE),
    *(_bug, _cancelled, _hung, _slow),
)


@dataclass(frozen=True)
class Step:
    """One thing that happens, and for how many milliseconds nothing else does."""

    deed: str
    number: int
    wait: int

    def __call__(self, stage: Stage) -> None:
        getattr(self, self.deed)(stage)

    def answer(self, stage: Stage) -> None:
        backend = BACKENDS[self.number % 3]
        stage.backends.answers[backend.address] = ANSWERS[self.number % len(ANSWERS)]

    def lose(self, stage: Stage) -> None:
        for probe in stage.backends.probes[-1 - self.number % 7 :]:
            if not probe.closed:
                probe.lost("reset")

    def discover(self, stage: Stage) -> None:
        chosen = tuple(b for i, b in enumerate(BACKENDS) if self.number >> i & 1)
        if "second" in stage.sources:
            stage.sources["second"].say(BackendsRead(chosen))

    def reload(self, stage: Stage) -> None:
        changed: list[dict[str, Any]] = [
            {},
            {"backends": BACKENDS[:2]},
            {"backends": BACKENDS[1:]},
            {"backends": (replace(BACKENDS[0], address=BACKENDS[0].address + 60), *BACKENDS[1:])},
            {"backends": tuple(replace(b, name=BackendName(f"cp{b.name}")) for b in BACKENDS)},
            {"backends": tuple(replace(b, weight=7) for b in BACKENDS)},
            {"scheduler": "rr", "flags": frozenset()},
            {"owner": NodeName("n2")},
            {"address": FIRST.address + 5},
            {"panic_threshold": 2},
            {"health": replace(TIMING, interval=Span(200))},
            {"interface": LinkName("eth9")},
        ]
        one = replace(FIRST, **changed[self.number % len(changed)])
        both = (one, SECOND) if self.number % 2 else (one,)
        stage.agent.reconfigure(spec(*both))

    def disturb(self, stage: Stage) -> None:
        table = dict(stage.kernel.table)
        for key in list(table)[: self.number % 3]:
            del table[key]
        stage.kernel.table = table

    def kernel(self, stage: Stage) -> None:
        def refuses(change: Change) -> Exception | None:
            return NO_ROOM if hash(type(change).__name__) + self.number & 1 else None

        stage.kernel.down = (None, NO_ROOM, ArithmeticError("a bug"))[self.number % 3]
        stage.kernel.refuses = refuses if self.number % 5 == 0 else lambda _: None

    def host(self, stage: Stage) -> None:
        def refuses(fact: HostFact) -> Exception | None:
            return NO_ROOM if len(str(fact)) + self.number & 1 else None

        stage.host.down = (None, NO_ROOM, ArithmeticError("a bug"))[self.number % 3]
        stage.host.refuses = refuses if self.number % 5 == 0 else lambda _: None

    def operate(self, stage: Stage) -> None:
        command = ("pause", "resume")[self.number % 2]
        stage.command(command)

    def suspend(self, stage: Stage) -> None:
        stage.clock.slept += self.number * 1_000

    def disk(self, stage: Stage) -> None:
        stage.ownership.full = bool(self.number % 2)


DEEDS = (
    *("answer", "answer", "answer", "lose", "discover", "reload", "reload", "disturb"),
    *("kernel", "host", "operate", "suspend", "disk"),
)
STEPS = st.lists(
    st.builds(
        Step, st.sampled_from(DEEDS), st.integers(0, 59), st.sampled_from((0, 1, 3, 40, 900))
    ),
    max_size=25,
)
BOUND = return_bound(TIMING, reconcile=spec().reconcile_interval, backoff=Span(5_000)) / 1000
PROBE_ENDS = 2.0 + 1.1
"""A probe that hangs is given up, and answered for, by then."""


async def history(steps: list[Step]) -> None:
    async with Stage(spec(FIRST)) as stage:
        await stage.pass_by(0)
        for step in steps:
            step(stage)
            await stage.pass_by(step.wait / 1000)
        # From here on all is well, and nobody touches anything.
        stage.backends.answers.clear()
        stage.kernel.down, stage.kernel.refuses = None, lambda _: None
        stage.host.down, stage.host.refuses = None, lambda _: None
        stage.ownership.full = False
        stage.command("resume")
        stage.agent.reconfigure(spec(FIRST, SECOND))
        stage.sources["second"].say(BackendsRead(BACKENDS))
        await stage.until(
            lambda: stage.weights("api") == ALL_IN == stage.weights("second"), BOUND + PROBE_ENDS
        )
        await stage.until(lambda: stage.host.addresses() == {"10.0.1.10", "10.0.1.11"}, 3.0)
        await stage.until(lambda: len(stage.kernel.table) == 2, 6.0)
        await stage.until(lambda: stage.ownership.keys == {FIRST.key, SECOND.key}, 1.0)
        # A kernel that could not be read rests for its backoff, with a table that is all right.
        await stage.until(lambda: bool(stage.command("status")["in_sync"]), 6.0)
        facts, changes = stage.host.applied, len(stage.kernel.applied)
        await stage.pass_by(20.0)
        assert (stage.host.applied, len(stage.kernel.applied)) == (facts, changes)


@pytest.mark.slow
@given(steps=STEPS)
@settings(max_examples=150, deadline=None)
def test_a_healthy_backend_is_in_the_table_after_any_history(steps: list[Step]) -> None:
    play(history(steps))
