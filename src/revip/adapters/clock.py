"""The one place that reads the clock."""

from __future__ import annotations

import time

from revip.model.instants import Instant


class BootClock:
    """CLOCK_BOOTTIME (clock_gettime(2)): runs on through suspend, never jumps with wall time."""

    def now(self) -> Instant:
        """Return milliseconds since boot."""
        return Instant(time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000)
