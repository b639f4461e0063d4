"""The description of the API is what the API answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from revip.api.http.routes import PATHS
from tests.api.conftest import Endpoint, whole
from tests.api.openapi import DOCUMENT, schema, strays
from tests.cli import moments


@pytest.mark.parametrize("moment", moments.MOMENTS)
def test_every_moment_is_as_described(moment: str) -> None:
    snapshot = json.loads(json.dumps(whole(moments.at(moment))))
    for event in snapshot["events"]:
        event.setdefault("id", 1)  # the moments have no history
    assert list(strays(snapshot, schema("Status"))) == []


def test_every_path_is_described_and_no_other() -> None:
    assert tuple(DOCUMENT["paths"]) == PATHS


async def test_answers_have_the_types_that_are_described(endpoint: Endpoint) -> None:
    for path, described in DOCUMENT["paths"].items():
        if path == "/api/v1/events":
            continue
        answer = await endpoint.get(path)
        content: dict[str, Any] = described["get"]["responses"][str(answer.status)]["content"]
        assert answer.headers["content-type"].partition(";")[0] in content


def test_the_reader_finds_what_is_wrong() -> None:
    snapshot = whole(moments.at("healthy"))
    snapshot["paused"] = 1
    snapshot["news"] = True
    del snapshot["node"]
    found = [line for line in strays(snapshot, schema("Status")) if ".events" not in line]
    assert found == [
        ".node: is missing",
        ".paused: 1 is none of ['boolean']",
        ".news: is not described",
    ]
