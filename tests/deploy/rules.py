"""The alerts and the dashboard as files, and what their expressions name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import yaml

from tests.docs.pages import ROOT

RULES = ROOT / "deploy/prometheus/alerts.yaml"
RULES_TEST = ROOT / "deploy/prometheus/alerts_test.yaml"
DASHBOARD = ROOT / "deploy/grafana/revip.json"


@cache
def alerts() -> dict[str, dict[str, Any]]:
    """Return the alerting rules by name."""
    return {rule["alert"]: rule for rule in _rules() if "alert" in rule}


@cache
def records() -> dict[str, dict[str, Any]]:
    """Return the recording rules by name."""
    return {rule["record"]: rule for rule in _rules() if "record" in rule}


def _rules() -> list[dict[str, Any]]:
    [group] = yaml.safe_load(RULES.read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def panels() -> Iterator[tuple[str, list[str]]]:
    """Return the title of each panel of the dashboard, with its queries."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        if panel["type"] != "row":
            yield panel["title"], [target["expr"] for target in panel["targets"]]


VARIABLES = {"job": "revip", "virtual_server": "api|other", "__rate_interval": "5m"}


def filled(query: str) -> str:
    """Return a query of the dashboard as Grafana sends it."""
    return re.sub(r"\$(\w+)", lambda found: VARIABLES[found[1]], query)


def selectors(expression: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Return each metric that is named, with the values of its label matchers."""
    for name, matchers in re.findall(
        r"\b((?:revip|process)_\w+|revip:\w+|up)\b(?:\{([^}]*)\})?", expression
    ):
        yield name, dict(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', matchers))


def grouped(expression: str) -> set[str]:
    """Return each label that an aggregation or a match of vectors names."""
    lists = re.findall(r"\b(?:by|on|without|ignoring|group_left)\s*\(([^)]*)\)", expression)
    return {label.strip() for each in lists for label in each.split(",") if label.strip()}
