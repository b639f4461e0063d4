"""The dashboard: each query answers, asked by promtool of what a real agent's `/metrics` says."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from revip.api.metrics import Facts, render
from revip.api.process import process
from tests.api.conftest import serving
from tests.api.test_metrics import facts, samples
from tests.deploy.rules import DASHBOARD, VARIABLES, filled, panels
from tests.deploy.test_alerts import asked, promtool

BOARD: dict[str, Any] = json.loads(DASHBOARD.read_text())


def grows(series: str) -> bool:
    """Return whether `series` is a counter, or of a histogram."""
    return series.partition("{")[0].endswith(("_total", "_bucket", "_sum", "_count"))


def eventful() -> Facts:
    """Return what an elected director knows in whose life everything has happened."""
    told = facts(process=process(), history_failures=1, history_dropped=1)
    status = told.status
    server = status["virtual_servers"][0]
    server["election"] |= {"lifetime_left_ms": 2500, "oddities": {"wrong checksum": 2}}
    server["duplicates"] = {"rivals": [{"told": True}], "conflicts": 3}
    drift = {"repairs_by_kind": {"missing destination": 4}, "fighting": False}
    kernel = {**status["kernel"], "failing_ms": 800}
    announced = {"sent": 9, "failed": 1}
    changed = {**status, "drift": drift, "kernel": kernel, "announcements": announced}
    return replace(told, status=changed)


async def scraped() -> dict[str, float]:
    """Return the samples of `/metrics`, with the labels that a scrape adds."""
    async with serving() as endpoint:
        await endpoint.get("/metrics")
        found = samples(render(replace(eventful(), http=endpoint.server)))
    named: dict[str, float] = {'up{job="revip", instance="n1"}': 1}
    for sample, value in found.items():
        name, _, labels = sample.rstrip("}").partition("{")
        named[f'{name}{{job="revip", instance="n1"{", " if labels else ""}{labels}}}'] = value
    return named


@promtool
async def test_every_query_has_an_answer(tmp_path: Path) -> None:
    series = [
        {"series": name, "values": f"{value:f}+{value * grows(name):f}x20"}
        for name, value in (await scraped()).items()
    ]
    asking = [
        {
            "eval_time": "20m",
            "expr": f"count({filled(query)}) > bool 0",
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
        for _, queries in panels()
        for query in queries
    ]
    assert len(asking) > 30
    told = {"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": asking}]}
    (tmp_path / "board.yaml").write_text(json.dumps(told))
    assert asked("test", "rules", "board.yaml", folder=tmp_path) == ""


def test_every_variable_is_one_of_the_dashboard() -> None:
    named = {each["name"] for each in BOARD["templating"]["list"]}
    assert named == (VARIABLES.keys() - {"__rate_interval"}) | {"datasource"}
    text = DASHBOARD.read_text()
    assert set(re.findall(r"\$\{?(\w+)", text)) <= named | {"__rate_interval", "__all"}


def test_no_panel_lies_upon_another() -> None:
    taken = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, panel["title"]
                taken.add((x, y))


def test_panels_are_told_apart_by_id_and_title() -> None:
    for key in ("id", "title"):
        values = sorted(str(panel[key]) for panel in BOARD["panels"])
        assert all(one != two for one, two in pairwise(values)), key


@pytest.mark.parametrize("panel", BOARD["panels"], ids=lambda panel: panel["title"])
def test_every_panel_asks_the_data_source_that_is_chosen(panel: dict[str, Any]) -> None:
    if panel["type"] == "row":
        return
    for each in (panel, *panel["targets"]):
        assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
