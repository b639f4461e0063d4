"""Reads the section `notify`."""

from __future__ import annotations

import json
from ipaddress import ip_address

from revip.config.keys import COMMAND, NOTIFY, WEBHOOK, Command, Section, Webhook
from revip.config.reader import Reader
from revip.config.tree import Block
from revip.model.notify import (
    PLACEHOLDERS,
    CommandSpec,
    Filter,
    Format,
    NotifySpec,
    Url,
    WebhookSpec,
    filled,
)

_NOWHERE = Url(tls=False, host="", port=80, target="/")


def read_notify(top: Reader) -> NotifySpec:
    """Return what the section says; what is wrong with it is blamed."""
    notify = top.sub("notify", NOTIFY)
    return NotifySpec(
        _webhook(notify.sub("webhook", WEBHOOK)) if _written(notify, "webhook", WEBHOOK) else None,
        _command(notify.sub("command", COMMAND)) if _written(notify, "command", COMMAND) else None,
    )


def _written(notify: Reader, name: str, section: Section) -> bool:
    """Return whether the block `name` is there; what is no block is blamed once, for that."""
    notify.sub(name, section)
    return isinstance(notify.block.child(name), Block)


def _webhook(reader: Reader) -> WebhookSpec:
    usual = WebhookSpec(_NOWHERE)
    spec = WebhookSpec(
        url=reader.get(Webhook.URL, usual.url),
        format=reader.get(Webhook.FORMAT, usual.format),
        template=reader.get(Webhook.TEMPLATE, usual.template),
        content_type=reader.get(Webhook.CONTENT_TYPE, usual.content_type),
        timeout=reader.get(Webhook.TIMEOUT, usual.timeout),
        token_file=reader.get(Webhook.TOKEN, None),
        ca=reader.get(Webhook.CA, None),
        filter=Filter(
            reader.get(Webhook.LEVEL, usual.filter.level),
            reader.get(Webhook.KINDS, usual.filter.kinds),
        ),
    )
    if spec.token_file is not None and not spec.url.tls and not _is_loopback(spec.url.host):
        mend = "would go over http in clear: remove it, or choose an https URL"
        reader.rule((Webhook.TOKEN, Webhook.URL), True, mend)
    if spec.ca is not None and not spec.url.tls and reader.good(Webhook.URL):
        reader.warn(Webhook.CA, "is not used, as the URL is not https")
    _judge_template(reader, spec)
    return spec


def _judge_template(reader: Reader, spec: WebhookSpec) -> None:
    if spec.format is not Format.GENERIC:
        for key in (Webhook.TEMPLATE, Webhook.CONTENT_TYPE):
            if reader.given(key) and reader.good(Webhook.FORMAT):
                reader.warn(key, "is not used: it needs format: generic")
    elif spec.template and "json" in spec.content_type:
        try:
            # Fits a string and stands alone just as well.
            json.loads(filled(spec.template, dict.fromkeys(PLACEHOLDERS, "1")))
        except (ValueError, RecursionError) as error:
            mend = f"is not JSON ({error}): mend it, or set content_type: text/plain"
            reader.rule((Webhook.TEMPLATE,), True, mend)


def _command(reader: Reader) -> CommandSpec:
    usual = CommandSpec(())
    return CommandSpec(
        argv=reader.get(Command.ARGV, usual.argv),
        timeout=reader.get(Command.TIMEOUT, usual.timeout),
        filter=Filter(
            reader.get(Command.LEVEL, usual.filter.level),
            reader.get(Command.KINDS, usual.filter.kinds),
        ),
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
