"""Every key there is, as one table of data.

The parser, the environment variables, `docs/configuration.md` and `revip check --explain` all
derive from it.  A default is written here as one would write it in the file; a test proves that
it is what the model does when the key is left out.
"""

from __future__ import annotations

from revip.config.keys.agents import AGENT, TOP, Agent, Sync, Top
from revip.config.keys.elections import ELECTION, Electing, ElectionKind
from revip.config.keys.endpoints import HTTP, Http
from revip.config.keys.judging import HEALTH, PROBE, Probing, Timing
from revip.config.keys.key import Key, Section
from revip.config.keys.notifying import COMMAND, NOTIFY, WEBHOOK, Command, Webhook
from revip.config.keys.servers import (
    BACKENDS,
    BACKENDS_VARIABLE,
    MEMBER,
    SERVER,
    Member,
    Method,
    Server,
)

__all__ = [
    "AGENT",
    "BACKENDS",
    "BACKENDS_VARIABLE",
    "COMMAND",
    "ELECTION",
    "HEALTH",
    "HTTP",
    "MEMBER",
    "NOTIFY",
    "PROBE",
    "SECTIONS",
    "SERVER",
    "TOP",
    "WEBHOOK",
    "Agent",
    "Command",
    "Electing",
    "ElectionKind",
    "Http",
    "Key",
    "Member",
    "Method",
    "Probing",
    "Section",
    "Server",
    "Sync",
    "Timing",
    "Top",
    "Webhook",
]

SECTIONS = (TOP, SERVER, ELECTION, MEMBER, PROBE, HEALTH, AGENT, HTTP, WEBHOOK, COMMAND)
