"""Health of backends: what a probe can find, what the judge can say, and the judge's timing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NewType

from revip.model.instants import MINUTE, Instant, Span
from revip.model.ipvs import IPAddress, Port, at

BackendName = NewType("BackendName", str)


@dataclass(frozen=True, slots=True)
class Backend:
    """One real server that discovery knows: a kube-apiserver on a control-plane node."""

    name: BackendName
    address: IPAddress
    port: Port
    weight: int = 1
    """Weight while healthy, 1 to 65535."""

    def __str__(self) -> str:
        return f"{self.name} ({at(self.address, self.port)})"


class Verdict(Enum):
    """What the judge holds a backend to be."""

    UNKNOWN = "unknown"
    """Not enough probes yet: neither in favour nor against."""
    HEALTHY = "healthy"
    DRAINING = "draining"
    """Alive but not ready: weight 0, established connections go on."""
    UNHEALTHY = "unhealthy"
    """Dead to clients: taken out of the table, so that they get an answer at once."""


class Finding(Enum):
    """What one probe found out, sorted by what it says about the backend."""

    READY = "ready"
    """An expected answer."""
    DENIED = "denied"
    """HTTP 401 or 403: a living server that does not know us (KEP-4633).  Counts as ready."""
    NOT_READY = "not ready"
    """A well-formed HTTP answer outside the expected set: alive, but not to be sent new work."""
    REFUSED = "refused"
    """The host answered the SYN with a reset: nobody listens on the port."""
    FAILED = "failed"
    """No answer, a wrong one, or a broken connection."""
    OURS = "ours"
    """The fault is on our side (no route, no descriptors, our credential): says nothing."""


ROUTE = "route"
"""The stage of a probe that found no way from this host to the backend."""


@dataclass(frozen=True, slots=True)
class CertificateEnds:
    """Until when the certificates that a probe used are valid, in seconds of the epoch."""

    backend: float | None = None
    """The backend's; None when it was not verified."""
    client: float | None = None
    """Our own; None when we present none."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One probe's outcome."""

    finding: Finding
    reason: str
    """One line for people: `HTTP 500`, `connection refused`, `certificate expired 2 d ago`."""
    latency: Span = Span(0)
    """From the start of the probe to its outcome, in milliseconds."""
    stage: str = ""
    """Where it ended: `route`, `connect`, `tls`, `http`; empty when it went all the way."""
    held: bool = False
    """True when the answer came over the held connection, not over a new one."""
    certificates: CertificateEnds | None = None
    """None without TLS, and when there was no answer."""


@dataclass(frozen=True, slots=True)
class Health:
    """A backend's verdict, since when, and why."""

    verdict: Verdict
    since: Instant
    reason: str
    """Why the verdict is what it is, for people."""
    last: ProbeResult | None = None
    """The newest probe, whatever it said."""
    changes: int = 0
    """Changes to and from healthy within the damping window: those that move traffic."""
    held_back_until: Instant | None = None
    """Set while flap damping keeps a recovered backend out: the instant it may return."""


@dataclass(frozen=True, slots=True)
class HealthTiming:
    """The judge's timing.  All spans in milliseconds.

    The defaults are the `default` profile; `fast` and `gentle` are in `PROFILES`.
    """

    interval: Span = Span(500)
    """Between probes while the verdict is not in doubt."""
    fast_interval: Span = Span(100)
    """Between probes while the newest result disagrees with the verdict, in either direction."""
    confirm_interval: Span = Span(2)
    """Before a refused connection or a lost held connection is asked again."""
    timeout: Span = Span(1000)
    """For a whole probe."""
    connect_timeout: Span = Span(300)
    """For the TCP handshake; also TCP_USER_TIMEOUT of the held connection (tcp(7))."""
    rise: int = 2
    """Results in favour, in a row, that make an unhealthy or draining backend healthy."""
    fall: int = 2
    """Results against, in a row, that make a healthy backend draining or unhealthy."""
    jitter_percent: int = 10
    """Each interval is lengthened by 0 to this many percent, so that directors fall out of step."""
    damping_changes: int = 10
    """From this many changes within `damping_window` on, a return is held back."""
    damping_window: Span = Span(10 * MINUTE)
    damping_hold: Span = Span(5_000)
    """How long a backend must stay well at the first held return; doubles with each change."""
    damping_hold_max: Span = Span(60_000)
    """The longest hold: the bound within which a recovered backend always returns."""


PROFILES: dict[str, HealthTiming] = {
    "default": HealthTiming(),
    "fast": HealthTiming(
        interval=Span(100),
        fast_interval=Span(30),
        timeout=Span(500),
        connect_timeout=Span(120),
    ),
    "gentle": HealthTiming(
        interval=Span(3000),
        fast_interval=Span(1000),
        timeout=Span(3000),
        connect_timeout=Span(1000),
        fall=3,
    ),
}
