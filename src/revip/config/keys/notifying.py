"""Keys of notifications."""

from __future__ import annotations

from pathlib import Path

from revip.config import kinds
from revip.config.keys.key import Key, Section
from revip.model.instants import Span
from revip.model.notes import Kind, Level
from revip.model.notify import PLACEHOLDERS, Format, Url

_LEVEL = kinds.member(Level)
_KINDS = kinds.many(kinds.member(Kind), "list of [event kinds](operations.md#every-event)")


class Webhook:
    """Keys of the HTTP server that is told."""

    URL: Key[Url] = Key("url", kinds.URL, "Where it is; no proxy is asked.", required=True)
    FORMAT: Key[Format] = Key(
        "format",
        kinds.member(Format),
        "What it is sent: alerts as Alertmanager's API takes them, what Alertmanager itself sends"
        " to webhooks, or `template`.",
        "alertmanager",
    )
    TEMPLATE: Key[str] = Key(
        "template",
        kinds.TEMPLATE,
        f"With `format: generic`: {', '.join(f'`{{{name}}}`' for name in PLACEHOLDERS)} are"
        " replaced.",
        absent="the event as a JSON object",
    )
    CONTENT_TYPE: Key[str] = Key(
        "content_type",
        kinds.CONTENT_TYPE,
        "What the template is; in JSON the placeholders are escaped.",
        "application/json",
    )
    TOKEN: Key[Path] = Key(
        "token_file", kinds.PATH, "File with a bearer token, read each time; needs https."
    )
    CA: Key[Path] = Key(
        "ca",
        kinds.PATH,
        "PEM file of the authorities that its certificate is checked against.",
        absent="those of the system",
    )
    TIMEOUT: Key[Span] = Key(
        "timeout", kinds.duration("100ms", "60s"), "For one attempt, all in all.", "5s"
    )
    LEVEL: Key[Level] = Key(
        "level",
        _LEVEL,
        "The lowest level that is told of; the end of what was told of always is.",
        "warning",
    )
    KINDS: Key[tuple[Kind, ...]] = Key("kinds", _KINDS, "The kinds that are told of.", absent="all")


class Command:
    """Keys of the program that is started."""

    ARGV: Key[tuple[str, ...]] = Key(
        "argv",
        kinds.ARGV,
        "The program and its arguments, without a shell.",
        required=True,
    )
    TIMEOUT: Key[Span] = Key(
        "timeout",
        kinds.duration("100ms", "10m"),
        "After it the program is killed with its children.",
        "10s",
    )
    LEVEL: Key[Level] = Key(
        "level",
        _LEVEL,
        "The lowest level that is told of; changes of leadership always are.",
        "info",
    )
    KINDS: Key[tuple[Kind, ...]] = Key(
        "kinds", _KINDS, "The kinds that are told of.", "[vip.leadership]"
    )


NOTIFY = Section(
    "notify",
    "",
    "Who is told of events, see [notifications.md](notifications.md); nobody by default.",
    (),
    ("webhook", "command"),
)
WEBHOOK = Section(
    "notify.webhook",
    "REVIP_NOTIFY_WEBHOOK_",
    "An HTTP server that each event is posted to.",
    (
        Webhook.URL,
        Webhook.FORMAT,
        Webhook.TEMPLATE,
        Webhook.CONTENT_TYPE,
        Webhook.TOKEN,
        Webhook.CA,
        Webhook.TIMEOUT,
        Webhook.LEVEL,
        Webhook.KINDS,
    ),
)
COMMAND = Section(
    "notify.command",
    "REVIP_NOTIFY_COMMAND_",
    "A program that is started for each event; scripts for keepalived's `notify` run unchanged.",
    (Command.ARGV, Command.TIMEOUT, Command.LEVEL, Command.KINDS),
)
