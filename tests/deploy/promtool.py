"""Writes the long night down as promtool reads it.

`python -m tests.deploy.promtool > deploy/prometheus/alerts_test.yaml` writes the file anew.
https://prometheus.io/docs/prometheus/latest/configuration/unit_testing_rules/
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator

from tests.deploy.faults import FAULTS
from tests.deploy.night import Labels, Value, calm, moments, told
from tests.deploy.rules import alerts

_PREAMBLE = """\
# Written by tests/deploy/promtool.py from the faults in tests/deploy/faults.py; a test compares.
# Run it: cd deploy/prometheus && promtool test rules alerts_test.yaml
#
# One night of three agents, n1 directs: one fault after another, with calm between. Each alert
# fires for its fault with these words; the second half says that no other does, nor any too early,
# nor one that does not end.
rule_files: [alerts.yaml]
evaluation_interval: 1m
tests:
  - name: a long night
    interval: 1m
    input_series:
"""
FIRING = 'count by (alertname) (ALERTS{alertstate="firing"})'


def text() -> str:
    """Return the text of `alerts_test.yaml`."""
    return _PREAMBLE + "\n".join([*_series(), *_called(), *_only(), ""])


def _series() -> Iterator[str]:
    for series in calm():
        yield f"      - series: '{series}'"
        yield f"        values: '{notation(told(series, FAULTS))}'"


def _called() -> Iterator[str]:
    yield "    alert_rule_test:"
    for begun, fault in moments(FAULTS):
        for name, labels in fault.alerts:
            rule = alerts()[name]
            yield f"      # {fault.what}"
            yield f"      - eval_time: {begun + fault.lasts - 1}m"
            yield f"        alertname: {name}"
            yield "        exp_alerts:"
            yield f"          - exp_labels: {json.dumps({**labels, **rule['labels']})}"
            yield "            exp_annotations:"
            for key, words in rule["annotations"].items():
                yield f"              {key}: {json.dumps(_filled(words, labels, fault.value))}"


def _only() -> Iterator[str]:
    yield "    promql_expr_test:"
    for begun, fault in moments(FAULTS):
        yield f"      # {fault.what}"
        yield from _firing(begun - 1, ())
        if fault.begins:
            yield from _firing(begun + fault.begins - 1, ())
        yield from _firing(begun + fault.lasts - 1, tuple(sorted(n for n, _ in fault.alerts)))
    end = begun + fault.lasts
    yield "      # the morning"
    yield from _firing(end + 70, ())


def _firing(minute: int, names: tuple[str, ...]) -> Iterator[str]:
    yield f"      - eval_time: {minute}m"
    yield f"        expr: '{FIRING}'"
    if names:
        yield "        exp_samples:"
    for name in names:
        yield f"          - {{labels: '{{alertname=\"{name}\"}}', value: 1}}"


def _filled(words: str, labels: Labels, value: str) -> str:
    """Return a text as Prometheus fills it; raises KeyError for a label that is not there."""
    words = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], words)
    if "$value" in words and not value:
        raise KeyError(words)
    return words.replace("{{ $value }}", value)


def notation(values: list[Value]) -> str:
    """Return values as promtool expands them: `0x9 1+2x4 stale _x3`."""
    parts = []
    at = 0
    while at < len(values):
        begun, step = at, _step(values, at)
        while at + 1 < len(values) and values[begun] is None and values[at + 1] is None:
            at += 1
        while step is not None and _step(values, at) == step:
            at += 1
        parts.append(_run(values[begun], step, at - begun))
        at += 1
    return " ".join(parts)


def _run(value: Value, step: float | None, more: int) -> str:
    if value is None:
        return f"stale _x{more}" if more else "stale"
    if not more:
        return _number(value)
    return f"{_number(value)}+{_number(step)}x{more}" if step else f"{_number(value)}x{more}"


def _step(values: list[Value], at: int) -> float | None:
    """Return the step to the next value; None at the end, and where one of them is none."""
    one, two = (*values[at : at + 2], None)[:2]
    return None if one is None or two is None else two - one


def _number(value: float | None) -> str:
    assert value is not None
    return str(int(value)) if value == int(value) else str(value)


if __name__ == "__main__":
    sys.stdout.write(text())
