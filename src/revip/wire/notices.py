"""Messages as the bodies of HTTP requests: Alertmanager's two formats, and templates.

Alertmanager's API: POST /api/v2/alerts, `postableAlerts` of its api/v2/openapi.yaml.  What it
sends itself: https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any

from revip.model.notes import Event, Level
from revip.model.notify import Format, Message, WebhookSpec, filled

_SEVERITY = {Level.INFO: "info", Level.WARNING: "warning", Level.ERROR: "critical"}
MOMENT = timedelta(minutes=5)
"""How long Alertmanager shows what has no end of its own."""
LONGEST = timedelta(hours=24)
"""How long it shows what has one, if that never comes."""


def body(spec: WebhookSpec, message: Message) -> bytes:
    """Return what is to be posted about `message`."""
    match spec.format:
        case Format.ALERTMANAGER:
            return _json([_plain(alert) for alert in _alerts(message)])
        case Format.WEBHOOK:
            return _json(_group(_alerts(message)))
        case Format.GENERIC:
            return _generic(spec, message)


def _alerts(message: Message) -> list[dict[str, Any]]:
    event, began = message.event, message.began
    if message.ends and began is not None:
        return [_alert(message.node, began, event, began.time, event.time, over=True)]
    ends = event.time + (LONGEST if message.lasts else MOMENT)
    if began is None or began.note.level is event.note.level:
        began = began or event
        return [_alert(message.node, began, event, began.time, ends, over=False)]
    # The level is a label, so that it is another alert for Alertmanager: the old one is over.
    return [
        _alert(message.node, began, event, began.time, event.time, over=True),
        _alert(message.node, event, event, event.time, ends, over=False),
    ]


def _alert(
    node: str, about: Event, told: Event, begins: datetime, ends: datetime, *, over: bool
) -> dict[str, Any]:
    note = about.note
    labels = {
        "alertname": "revip:" + note.kind.value,
        "severity": _SEVERITY[note.level],
        "node": node,
        "virtual_server": note.virtual_server,
        "backend": note.backend,
    }
    where = f"{note.virtual_server}: " if note.virtual_server else ""
    return {
        "status": "resolved" if over else "firing",
        "labels": {name: value for name, value in labels.items() if value},
        "annotations": {"summary": f"{node}: {where}{told.note.text}"},
        "startsAt": begins.isoformat(timespec="milliseconds"),
        "endsAt": ends.isoformat(timespec="milliseconds"),
    }


def _plain(alert: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in alert.items() if key != "status"}


def _group(alerts: list[dict[str, Any]]) -> dict[str, Any]:
    first = alerts[-1]
    firing = any(alert["status"] == "firing" for alert in alerts)
    name = first["labels"]["alertname"]
    for alert in alerts:
        if alert["status"] == "firing":
            alert["endsAt"] = "0001-01-01T00:00:00Z"  # Go's zero time: not known yet
        alert["generatorURL"] = ""
        alert["fingerprint"] = blake2b(_json(alert["labels"]), digest_size=8).hexdigest()
    return {
        "version": "4",
        "groupKey": f'{{}}:{{alertname="{name}"}}',
        "truncatedAlerts": 0,
        "status": "firing" if firing else "resolved",
        "receiver": "revip",
        "groupLabels": {"alertname": name},
        "commonLabels": _common(alert["labels"] for alert in alerts),
        "commonAnnotations": _common(alert["annotations"] for alert in alerts),
        "externalURL": "",
        "alerts": alerts,
    }


def _common(parts: Any) -> dict[str, str]:
    first, *others = (set(part.items()) for part in parts)
    return dict(sorted(first.intersection(*others)))


def _generic(spec: WebhookSpec, message: Message) -> bytes:
    entry = {**message.event.as_json(), "node": message.node, "ends": message.ends}
    if not spec.template:
        return _json(entry)
    values = {name: str(value) for name, value in entry.items()}
    values = {**values, "kind": values.pop("event"), "ends": "true" if message.ends else "false"}
    if "json" in spec.content_type:
        values = {name: json.dumps(value)[1:-1] for name, value in values.items()}
    return filled(spec.template, values).encode("utf-8", "replace")


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
