"""Runs probes: one `BackendProbe` for each backend of each virtual server, made when asked.

A judge that has asked waits for its answer, so every question gets one here: a probe that breaks,
hangs or is cancelled has found a fault of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from revip.errors import unexpected
from revip.model.health import Backend, BackendName, Finding, HealthTiming, ProbeResult
from revip.model.instants import SECOND, Span
from revip.model.spec import VirtualServerSpec
from revip.planner.measures import ProbeCounts
from revip.ports import BackendProbe, ProbeFactory

Place = tuple[str, BackendName]
"""A virtual server's name, and one of its backends."""


@dataclass(frozen=True, slots=True)
class _Made:
    backend: Backend
    service: VirtualServerSpec
    probe: BackendProbe

    def fits(self, backend: Backend, service: VirtualServerSpec) -> bool:
        mine, asked = self.service, service
        return (self.backend, mine.probe, mine.health) == (backend, asked.probe, asked.health)


class Probing:
    """The probes of all backends; those of changed or vanished ones are closed."""

    def __init__(
        self,
        factory: ProbeFactory,
        lost: Callable[[str, BackendName, str], None],
        fault: Callable[[str], None],
    ) -> None:
        self._factory = factory
        self._lost = lost
        self._fault = fault
        self._made: dict[Place, _Made] = {}
        self.counts: dict[Place, ProbeCounts] = {}
        """What the probes of each place found and how long they took."""

    async def ask(
        self, service: VirtualServerSpec, backend: Backend, *, fresh: bool
    ) -> ProbeResult:
        """Probe `backend` once, as `service` says; raises nothing but its own cancellation."""
        limit = overdue(service.health)
        try:
            async with asyncio.timeout(limit / 1000):
                probe = await self._probe(service, backend)
                result = _excused(await probe.ask(fresh=fresh), limit)
                counts = self.counts.setdefault((service.name, backend.name), ProbeCounts())
                counts.add(result)
                return result
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            reason = "it was cancelled from within"
        except TimeoutError:
            reason = f"it has not ended within {limit} ms"
        except Exception as error:  # noqa: BLE001 (a bug in a probe must not end the agent)
            reason = unexpected(error)
        self._fault(f"probe of {backend.name} of {service.name}: {reason}")
        return ProbeResult(Finding.OURS, reason)

    async def keep(self, places: frozenset[Place]) -> None:
        """Close the probes of all other places, and forget what was counted of them."""
        for place in self.counts.keys() - places:
            del self.counts[place]
        gone = [self._made.pop(place) for place in self._made.keys() - places]
        for made in gone:  # off the list before the first wait: others change it meanwhile
            await _close(made.probe)

    async def _probe(self, service: VirtualServerSpec, backend: Backend) -> BackendProbe:
        place = (service.name, backend.name)
        made = self._made.get(place)
        if made is not None and made.fits(backend, service):
            return made.probe
        probe = self._factory(
            backend, service.probe, service.health, lambda why: self._lost(*place, why)
        )
        self._made[place] = _Made(backend, service, probe)
        if made is not None:
            await _close(made.probe)
        return probe


async def _close(probe: BackendProbe) -> None:
    with contextlib.suppress(Exception):  # what cannot be closed is let go
        await probe.close()


def overdue(timing: HealthTiming) -> Span:
    """Return after how many milliseconds a probe, which has a deadline of its own, is a fault."""
    return Span(timing.timeout + max(timing.timeout, SECOND))


def _excused(result: ProbeResult, limit: Span) -> ProbeResult:
    """Return `result`, but no failure that came so late that this agent itself was held up.

    A stopped process, a paused machine or a starved processor would else take every backend for
    dead at once (CLOCK_BOOTTIME goes on meanwhile).
    """
    if result.finding is not Finding.FAILED or result.latency <= limit:
        return result
    reason = f"this agent was held up for {result.latency} ms: {result.reason}"
    return replace(result, finding=Finding.OURS, reason=reason)
