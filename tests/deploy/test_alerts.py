"""The alerts: real Prometheus rules about metrics that there are, each with a runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from revip.api.exposition import Type
from revip.api.metrics import FAMILIES
from tests.deploy.faults import FAULTS
from tests.deploy.night import calm
from tests.deploy.promtool import text
from tests.deploy.rules import (
    RULES,
    RULES_TEST,
    alerts,
    filled,
    grouped,
    panels,
    records,
    selectors,
)
from tests.docs.pages import between, page

TARGET = {"job", "instance"}
"""Labels that Prometheus gives to what it scrapes."""

EVERY_ALERT = pytest.mark.parametrize("name", alerts())
promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def known() -> dict[str, set[str]]:
    """Return every name that may be asked for, with its labels."""
    found = {"up": TARGET}
    for family in FAMILIES:
        labels = TARGET | set(family.labels)
        if family.type is Type.HISTOGRAM:
            found[f"{family.name}_bucket"] = labels | {"le"}
            found |= {f"{family.name}{suffix}": labels for suffix in ("_sum", "_count")}
        else:
            found[family.name] = labels
    for name, rule in records().items():
        found[name] = grouped(rule["expr"].partition("\n")[0])  # by what it is aggregated
    return found


def strays(expression: str) -> list[str]:
    """Return what `expression` names that is not in the table of metrics."""
    there = known()
    named = list(selectors(expression))
    wrong = [name for name, _ in named if name not in there]
    labels = set().union(*(there.get(name, set()) for name, _ in named))
    wrong += [
        f"{name}{{{label}}}"
        for name, matchers in named
        for label in matchers
        if label not in there.get(name, {label})
    ]
    return wrong + sorted(grouped(expression) - labels)


@pytest.mark.parametrize("name", [*alerts(), *records()])
def test_every_metric_of_the_rules_is_in_the_table_with_its_labels(name: str) -> None:
    expression = (alerts() | records())[name]["expr"]
    assert list(selectors(expression))
    assert strays(expression) == []


def test_what_is_not_in_the_table_would_be_found() -> None:
    assert strays('revip_backends{verdict="x"}') == ["revip_backends"]
    assert strays('revip_director{backend="n1"} == 1') == ["revip_director{backend}"]
    assert strays("sum by (virtual_server, node) (revip_director)") == ["node"]


@pytest.mark.parametrize(
    "series", [series for series in calm() if series.labels["instance"] == "n1"], ids=str
)
def test_the_night_has_only_series_that_there_are(series: object) -> None:
    assert strays(str(series)) == []


@pytest.mark.parametrize(("title", "queries"), list(panels()))
def test_every_metric_of_the_dashboard_is_in_the_table(title: str, queries: list[str]) -> None:
    assert queries, title
    for query in queries:
        assert list(selectors(query)), title
        assert strays(filled(query)) == [], title


@EVERY_ALERT
def test_every_alert_says_what_it_means_and_what_to_do(name: str) -> None:
    rule = alerts()[name]
    words = rule["annotations"]
    assert words.keys() == {"summary", "description", "runbook_url"}
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    path, _, anchor = words["runbook_url"].partition("#")
    assert anchor in page(path).anchors
    section = page(path).text.split(f"\n## {name}\n")[1].partition("\n## ")[0]
    assert re.search(r"^1\. ", section, re.MULTILINE), "a runbook has numbered steps"


def test_every_runbook_is_of_an_alert() -> None:
    assert set(re.findall(r"^## (.+)$", page("docs/runbooks.md").text, re.M)) == set(alerts())


def test_the_runbooks_list_every_alert() -> None:
    head = ["| alert | severity | after |", "| --- | --- | --- |"]
    rows = [
        f"| [{name}](#{name.lower()}) | {rule['labels']['severity']} | {after} |"
        for name, rule in alerts().items()
        for after in [rule.get("for", "at once")]
    ]
    assert between(page("docs/runbooks.md").text, "alerts") == "\n".join([*head, *rows, ""])


@EVERY_ALERT
def test_every_alert_has_its_fault(name: str) -> None:
    assert any(name == called for fault in FAULTS for called, _ in fault.alerts)


def test_the_night_is_current() -> None:
    remake = "run python -m tests.deploy.promtool > deploy/prometheus/alerts_test.yaml"
    assert RULES_TEST.read_text() == text(), remake


# By the real promtool ----------------------------------------------------------------------------


def asked(*arguments: str, folder: Path = RULES.parent) -> str:
    """Return what promtool complains of; empty when all is well."""
    done = subprocess.run(
        ["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


@promtool
def test_promtool_takes_the_rules() -> None:
    assert asked("check", "rules", RULES.name) == ""


@promtool
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_each_alert_fires_for_its_fault_and_for_no_other() -> None:
    assert asked("test", "rules", RULES_TEST.name) == ""
