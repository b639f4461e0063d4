"""Keys of the probe, and of the judge that hears its findings."""

from __future__ import annotations

from pathlib import Path

from revip.config import kinds
from revip.config.keys.key import Key, Section
from revip.model.health import PROFILES
from revip.model.instants import Span
from revip.model.ipvs import Port
from revip.model.spec import ProbeKind


class Probing:
    """Keys of the probe."""

    KIND: Key[ProbeKind] = Key("kind", kinds.member(ProbeKind), "How a backend is asked.", "https")
    PATH: Key[str] = Key("path", kinds.URL_PATH, "What is requested.", "/readyz")
    EXPECTED: Key[tuple[int, ...]] = Key(
        "expected_status",
        kinds.many(kinds.whole(100, 599), "list of HTTP status codes"),
        "Status codes that mean ready.",
        "[200]",
    )
    PORT: Key[Port] = Key(
        "port", kinds.PORT, "The port that is probed.", absent="the backend's port"
    )
    SERVER_NAME: Key[str] = Key(
        "server_name",
        kinds.SERVER_NAME,
        "Name expected in the certificate, and sent as SNI.",
        absent="the backend's address",
    )
    VERIFY: Key[bool] = Key(
        "verify", kinds.BOOLEAN, "Whether the certificate must be genuine.", "true"
    )
    CA: Key[Path] = Key(
        "ca", kinds.PATH, "PEM file of the authorities.", absent="the system's trust store"
    )
    CERTIFICATE: Key[Path] = Key(
        "client_certificate", kinds.PATH, "PEM file of our own certificate."
    )
    KEY: Key[Path] = Key("client_key", kinds.PATH, "PEM file of its key, not encrypted.")
    TOKEN: Key[Path] = Key(
        "token_file", kinds.PATH, "File with a bearer token; read again when it changes."
    )
    HELD: Key[bool] = Key(
        "held_connection",
        kinds.BOOLEAN,
        "Whether one connection is kept to each backend, so that a crash is heard at once.",
        "true",
    )
    FRESH_EVERY: Key[int] = Key(
        "fresh_every",
        kinds.whole(1, 1000),
        "Every nth probe opens a new connection, so that accepting is tested too.",
        "10",
    )


class Timing:
    """Keys of the judge's timing; defaults are those of the profile."""

    PROFILE: Key[str] = Key(
        "profile",
        kinds.choice(PROFILES),
        "Where the values below come from when they are left out.",
        "default",
    )
    INTERVAL: Key[Span] = Key(
        "interval",
        kinds.duration("20ms", "5m"),
        "Between probes while the verdict is not in doubt.",
        "500ms",
    )
    FAST_INTERVAL: Key[Span] = Key(
        "fast_interval",
        kinds.duration("10ms", "5m"),
        "Between probes while the newest result disagrees with the verdict.",
        "100ms",
    )
    CONFIRM_INTERVAL: Key[Span] = Key(
        "confirm_interval",
        kinds.duration("1ms", "10s"),
        "Before a refused connection or a lost held one is asked again.",
        "2ms",
    )
    TIMEOUT: Key[Span] = Key("timeout", kinds.duration("10ms", "1m"), "For a whole probe.", "1s")
    CONNECT_TIMEOUT: Key[Span] = Key(
        "connect_timeout", kinds.duration("5ms", "1m"), "For the TCP handshake.", "300ms"
    )
    RISE: Key[int] = Key(
        "rise", kinds.whole(1, 100), "Good results in a row that bring a backend back.", "2"
    )
    FALL: Key[int] = Key(
        "fall", kinds.whole(1, 100), "Bad results in a row that take a backend out.", "2"
    )
    JITTER: Key[int] = Key(
        "jitter_percent",
        kinds.whole(0, 50),
        "Each interval is longer by up to this many percent, at random.",
        "10",
    )
    DAMPING_CHANGES: Key[int] = Key(
        "damping_changes",
        kinds.whole(2, 1000),
        "From this many changes of verdict within the window on, a return is held back.",
        "10",
    )
    DAMPING_WINDOW: Key[Span] = Key(
        "damping_window", kinds.duration("1s", "24h"), "The window they are counted in.", "10m"
    )
    DAMPING_HOLD: Key[Span] = Key(
        "damping_hold",
        kinds.duration("0s", "1h"),
        "How long the first return is held back; doubles with each change.",
        "5s",
    )
    DAMPING_HOLD_MAX: Key[Span] = Key(
        "damping_hold_max",
        kinds.duration("0s", "1h"),
        "The longest hold: a well backend always returns within it.",
        "1m",
    )


PROBE = Section(
    "virtual_servers[].probe",
    "REVIP_PROBE_",
    "How a backend is asked whether it is ready.",
    (
        Probing.KIND,
        Probing.PATH,
        Probing.EXPECTED,
        Probing.PORT,
        Probing.SERVER_NAME,
        Probing.VERIFY,
        Probing.CA,
        Probing.CERTIFICATE,
        Probing.KEY,
        Probing.TOKEN,
        Probing.HELD,
        Probing.FRESH_EVERY,
    ),
)
HEALTH = Section(
    "virtual_servers[].health",
    "REVIP_HEALTH_",
    "When a backend is judged well or not.  Defaults shown are those of the profile `default`.",
    (
        Timing.PROFILE,
        Timing.INTERVAL,
        Timing.FAST_INTERVAL,
        Timing.CONFIRM_INTERVAL,
        Timing.TIMEOUT,
        Timing.CONNECT_TIMEOUT,
        Timing.RISE,
        Timing.FALL,
        Timing.JITTER,
        Timing.DAMPING_CHANGES,
        Timing.DAMPING_WINDOW,
        Timing.DAMPING_HOLD,
        Timing.DAMPING_HOLD_MAX,
    ),
)
