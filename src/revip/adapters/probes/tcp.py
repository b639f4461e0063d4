"""The probe that only connects."""

from __future__ import annotations

import asyncio

from revip.adapters.probes.bounded import bounded
from revip.adapters.probes.connection import Endpoint, attach, connect
from revip.adapters.probes.held import HeldConnection
from revip.adapters.probes.outcome import Progress
from revip.model.health import Finding, HealthTiming, ProbeResult
from revip.ports import Clock


class TcpProbe:
    """Asks one backend by a TCP handshake; see `revip.ports.BackendProbe`.

    Every probe connects anew, since an idle connection tells nothing about a host that has gone;
    the newest one is held for the FIN or RST of a crash.
    """

    def __init__(
        self,
        clock: Clock,
        endpoint: Endpoint,
        timing: HealthTiming,
        held: HeldConnection,
        keep: bool,
    ) -> None:
        self._clock = clock
        self._endpoint = endpoint
        self._timing = timing
        self._held = held
        self._keep = keep

    async def ask(self, *, fresh: bool) -> ProbeResult:  # noqa: ARG002 - always fresh
        """See BackendProbe."""
        return await bounded(self._ask, self._clock, self._timing, self._held)

    async def close(self) -> None:
        """See BackendProbe."""
        self._held.close()
        await asyncio.sleep(0)  # asyncio gives the descriptor back in the next turn of the loop

    async def _ask(self, _: Progress) -> tuple[Finding, str]:
        opened = self._clock.now()
        connection = await attach(await connect(self._endpoint, self._timing))
        self._held.succeeded(connection, keep=self._keep, opened=opened)
        return Finding.READY, "connected"
