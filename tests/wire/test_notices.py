"""What is posted, as Alertmanager and others read it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revip.model.instants import Instant
from revip.model.notes import Event, Kind, Level, Note
from revip.model.notify import PLACEHOLDERS, Format, Message, Url, WebhookSpec
from revip.wire.notices import body
from tests.messages import NOON, event, message

URL = Url(tls=False, host="::1", port=9093, target="/api/v2/alerts")


def posted(about: Message, shape: Format = Format.ALERTMANAGER) -> Any:
    return json.loads(body(WebhookSpec(URL, shape), about))


def over() -> Message:
    return Message("n1", event(level=Level.INFO, number=9), event(number=1), ends=True)


def test_an_alert_has_what_the_api_wants() -> None:
    (alert,) = posted(message())
    assert alert.keys() == {"labels", "annotations", "startsAt", "endsAt"}
    assert alert["labels"] == {
        "alertname": "revip:backend.verdict",
        "severity": "warning",
        "node": "n1",
        "virtual_server": "api",
        "backend": "n2",
    }
    assert alert["annotations"]["summary"] == "n1: api: n2 is unhealthy: connection refused"
    assert datetime.fromisoformat(alert["startsAt"]) < datetime.fromisoformat(alert["endsAt"])


def test_empty_labels_are_left_out() -> None:
    (alert,) = posted(Message("n1", event(Kind.DRIFT, server="", backend="")))
    assert alert["labels"].keys() == {"alertname", "severity", "node"}


def test_an_end_resolves_the_very_alert_that_began() -> None:
    (began,), (ended,) = posted(message()), posted(over())
    assert ended["labels"] == began["labels"]
    assert ended["startsAt"] == began["startsAt"]
    assert ended["endsAt"] == event(number=9).time.isoformat(timespec="milliseconds")


def test_a_change_of_level_ends_one_alert_and_begins_another() -> None:
    louder = Message("n1", event(level=Level.ERROR, number=5), event(number=1), lasts=True)
    old, new = posted(louder)
    assert old["labels"]["severity"] == "warning"
    assert new["labels"]["severity"] == "critical"
    assert old["endsAt"] == new["startsAt"]


def test_receivers_of_alertmanager_get_what_it_sends() -> None:
    firing, resolved = posted(message(), Format.WEBHOOK), posted(over(), Format.WEBHOOK)
    assert (firing["version"], firing["status"], resolved["status"]) == ("4", "firing", "resolved")
    assert firing["alerts"][0]["endsAt"] == "0001-01-01T00:00:00Z"
    assert firing["alerts"][0]["fingerprint"] == resolved["alerts"][0]["fingerprint"]
    assert firing["commonLabels"]["backend"] == "n2"
    assert firing["groupKey"] == resolved["groupKey"]


def test_without_a_template_the_event_is_sent_as_it_is_elsewhere() -> None:
    about = message()
    expected = {**about.event.as_json(), "node": "n1", "ends": False}
    assert posted(about, Format.GENERIC) == expected


@pytest.mark.parametrize("name", PLACEHOLDERS)
def test_every_placeholder_is_replaced(name: str) -> None:
    spec = WebhookSpec(URL, Format.GENERIC, f"<{{{name}}}>", "text/plain")
    assert "{" not in body(spec, message()).decode()


def test_other_braces_stay() -> None:
    spec = WebhookSpec(URL, Format.GENERIC, '{"a": {"b": "{kind}"}, "c": "{}"}')
    assert json.loads(body(spec, message())) == {"a": {"b": "backend.verdict"}, "c": "{}"}


@given(st.text())
def test_no_text_breaks_out_of_json(text: str) -> None:
    note = Note(Instant(0), Kind.VERDICT, text, Level.ERROR, "api", "n2")
    about = Message("n1", Event(1, NOON, note))
    spec = WebhookSpec(URL, Format.GENERIC, '{"text": "{text}", "id": {id}, "over": {ends}}')
    assert json.loads(body(spec, about)) == {"text": text, "id": 1, "over": False}
    for shape in Format:
        json.loads(body(WebhookSpec(URL, shape), about))
