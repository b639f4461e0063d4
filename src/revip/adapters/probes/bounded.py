"""One probe from its start to its result: deadline, latency, and every failure as a value."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import h11

from revip.adapters.probes.held import HeldConnection
from revip.adapters.probes.outcome import FailedProbe, Progress, late, sort
from revip.model.health import Finding, HealthTiming, ProbeResult
from revip.model.instants import Span
from revip.ports import Clock


async def bounded(
    ask: Callable[[Progress], Awaitable[tuple[Finding, str]]],
    clock: Clock,
    timing: HealthTiming,
    held: HeldConnection,
) -> ProbeResult:
    """Run `ask` within the timeout of `timing`; raises nothing but CancelledError."""
    started = clock.now()
    progress = Progress()
    try:
        async with asyncio.timeout(timing.timeout / 1000) as deadline:
            finding, reason = await ask(progress)
    except (OSError, ValueError, h11.ProtocolError, FailedProbe) as error:
        held.failed()
        if deadline.expired():
            finding, reason = late(progress, timing)
        else:
            finding, reason = sort(error, progress, timing)
        stage = progress.stage.value
    else:
        stage = ""
    return ProbeResult(
        finding, reason, Span(clock.now() - started), stage, progress.held, progress.certificates
    )
