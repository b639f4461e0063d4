"""What is counted for the metrics: histograms of durations, and what probes found."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from revip.model.health import CertificateEnds, ProbeResult

DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the buckets, in seconds."""


@dataclass(slots=True)
class Histogram:
    """How often a duration fell into each bucket of `DURATIONS`; the last has no bound."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(DURATIONS) + 1))
    sum: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(DURATIONS, seconds)] += 1
        self.sum += seconds


@dataclass(slots=True)
class ProbeCounts:
    """What the probes of one backend found since the agent started."""

    durations: Histogram = field(default_factory=Histogram)
    findings: Counter[str] = field(default_factory=Counter)
    certificates: CertificateEnds | None = None
    """As the newest probe saw them that had an answer over TLS."""

    def add(self, result: ProbeResult) -> None:
        """Count one probe."""
        self.durations.add(result.latency / 1000)
        self.findings[result.finding.value] += 1
        # One that has expired ends the answers: what was seen before goes on counting.
        self.certificates = result.certificates or self.certificates


@dataclass(slots=True)
class Deliveries:
    """What became of the messages for one receiver since the agent started."""

    delivered: int = 0
    failed: int = 0
    """Attempts that did not work; each is tried again, up to a bound."""
    dropped: Counter[str] = field(
        default_factory=lambda: Counter({"full": 0, "refused": 0, "gave_up": 0})
    )
    """Messages that never arrived, by why."""
    waiting: int = 0
    """Messages that are still to be delivered."""
