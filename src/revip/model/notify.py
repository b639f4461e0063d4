"""Who is told of events outside this host, of which, and what a message is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from revip.model.instants import SECOND, Span
from revip.model.notes import Event, Kind, Level


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events are worth a message."""

    level: Level = Level.WARNING
    """The lowest one; what ends something that was told of is told at every level."""
    kinds: tuple[Kind, ...] = ()
    """Empty is all of them."""


class Format(Enum):
    """What a webhook is sent."""

    ALERTMANAGER = "alertmanager"
    """Alerts, as Alertmanager's own API takes them (POST /api/v2/alerts)."""
    WEBHOOK = "alertmanager-webhook"
    """What Alertmanager sends to its webhook receivers, version 4."""
    GENERIC = "generic"
    """A template of the operator's."""


@dataclass(frozen=True, slots=True)
class Url:
    """Where a webhook listens."""

    tls: bool
    host: str
    """A name or an address, IPv6 without brackets."""
    port: int
    target: str
    """Path and query."""

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.target}"

    @property
    def authority(self) -> str:
        """Host and port, as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class WebhookSpec:
    """One HTTP server that is told."""

    url: Url
    format: Format = Format.ALERTMANAGER
    template: str = ""
    """Of `Format.GENERIC`: text with `{placeholders}`; empty is the event as a JSON object."""
    content_type: str = "application/json"
    timeout: Span = Span(5 * SECOND)
    """For one attempt, from the look-up of its name to the end of its answer."""
    token_file: Path | None = None
    """Bearer token, read each time."""
    ca: Path | None = None
    """PEM bundle; None is the system's trust store."""
    filter: Filter = Filter()


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """One program that is started for each message."""

    argv: tuple[str, ...]
    timeout: Span = Span(10 * SECOND)
    """After it the program and its children are killed."""
    filter: Filter = Filter(Level.INFO, (Kind.LEADERSHIP,))


@dataclass(frozen=True, slots=True)
class NotifySpec:
    """Who is told; None is nobody."""

    webhook: WebhookSpec | None = None
    command: CommandSpec | None = None


class VrrpState(Enum):
    """What keepalived calls what this node is for a virtual server."""

    MASTER = "MASTER"
    BACKUP = "BACKUP"
    FAULT = "FAULT"
    STOP = "STOP"


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of what this node is for an elected virtual server."""

    instance: str
    state: VrrpState
    priority: int

    @property
    def arguments(self) -> tuple[str, ...]:
        """What keepalived appends to a `notify` script (keepalived.conf(5))."""
        return ("INSTANCE", self.instance, self.state.value, str(self.priority))


@dataclass(frozen=True, slots=True)
class Message:
    """One event on its way out."""

    node: str
    event: Event
    began: Event | None = None
    """The earlier event that this one goes on with, or ends; None when it stands alone."""
    lasts: bool = False
    """It goes on until another message ends it."""
    ends: bool = False
    """It ends what `began` has told of."""
    transition: Transition | None = None


VARIABLES = (
    *("REVIP_KIND", "REVIP_LEVEL", "REVIP_TEXT", "REVIP_VIRTUAL_SERVER", "REVIP_BACKEND"),
    *("REVIP_ENDS", "REVIP_TIME", "REVIP_NODE_NAME", "REVIP_STATE"),
)
"""What a command finds in its environment; none of them is read as configuration."""
PLACEHOLDERS = (
    *("id", "time", "kind", "level", "node", "virtual_server", "backend", "text"),
    "ends",
)
"""What a template may name in braces."""
_NAMED = re.compile(r"\{([a-z_]+)\}")


def named(template: str) -> list[str]:
    """Return every word that stands in braces of its own, known or not."""
    return _NAMED.findall(template)


def filled(template: str, values: Mapping[str, str]) -> str:
    """Put `values` in the place of their names in braces; what has no value stays as it is."""
    return _NAMED.sub(lambda found: values.get(found[1], found[0]), template)
