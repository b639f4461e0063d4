"""A long night: three agents whose cluster has one fault after another, with calm between.

What a series is at each minute of it; `promtool.py` writes it down for promtool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from revip.model.health import Verdict
from revip.planner.pool import PoolMode

NODES = ("n1", "n2", "n3")
CALM = 75
"""Minutes between faults: rules look back an hour at most."""
DAY = 24 * 60 * 60

Labels = Mapping[str, str]
Value = float | None
"""None is no sample: there is nothing to tell, or nobody could be scraped."""
Change = tuple[str, Labels, Value | Callable[[int], float]]
"""A metric (empty: any), labels that pick its series, and what they are during a fault; what a
counter has gained, by the number of minutes since the fault began."""


def on(node: str, **labels: str) -> dict[str, str]:
    """Return labels of a series of the agent of `node`."""
    return {"job": "revip", "instance": node, **labels}


@dataclass(frozen=True)
class Series:
    """One series, and what it is while all is well."""

    name: str
    labels: Labels
    calm: float

    def __str__(self) -> str:
        labels = ", ".join(f'{key}="{value}"' for key, value in self.labels.items())
        return f"{self.name}{{{labels}}}"


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong for a while, and exactly the alerts that it causes."""

    what: str
    changes: tuple[Change, ...]
    alerts: tuple[tuple[str, Labels], ...] = ()
    begins: int = 0
    """For how many minutes nobody is called."""
    lasts: int = 10
    """Minutes."""
    value: str = ""
    """What the texts of the alerts give as `$value`."""

    def change(self, series: Series) -> Change | None:
        """Return what happens to `series`: the last of the changes that picks it."""
        found = None
        for change in self.changes:
            name, labels, _ = change
            if name in ("", series.name) and labels.items() <= series.labels.items():
                found = change
        return found


def calm() -> Iterator[Series]:
    """Return every series that the alerts look at, of three agents; n1 directs."""
    for node in NODES:
        for name, labels, value in _agent(float(node == "n1")):
            yield Series(name, on(node, **labels), value)


def _agent(directs: float) -> Iterator[tuple[str, Labels, float]]:
    server = {"virtual_server": "api"}
    yield "up", {}, 1
    yield "process_start_time_seconds", {}, 0
    yield "revip_in_sync", {}, 1
    yield "revip_paused", {}, 0
    yield "revip_drift_repairs_total", {"kind": "missing destination"}, 0
    yield "revip_drift_fighting", {}, 0
    yield "revip_kernel_failing_seconds", {}, 0
    yield "revip_kernel_observed_ago_seconds", {}, 0.25
    yield "revip_host_failures_total", {}, 0
    yield "revip_notes_total", {"kind": "agent.fault"}, 0
    yield "revip_history_failures_total", {}, 0
    yield "revip_history_dropped_total", {}, 0
    yield "revip_director", server, directs
    yield "revip_leadership_changes_total", server, 0
    yield "revip_duplicate_holders", server, 0
    for mode in PoolMode:
        labels = {**server, "mode": mode.value}
        yield "revip_pool_mode", labels, float(mode is PoolMode.NORMAL)
    for backend in NODES:
        yield from _backend({**server, "backend": backend}, directs)


def _backend(place: Labels, directs: float) -> Iterator[tuple[str, Labels, float]]:
    for verdict in Verdict:
        labels = {**place, "verdict": verdict.value}
        yield "revip_backend_verdict", labels, float(verdict is Verdict.HEALTHY)
    yield "revip_backend_transitions_total", place, 0
    yield "revip_backend_drained", place, 0
    yield "revip_backend_in_table", {**place, "table": "wanted"}, 1
    yield "revip_backend_in_table", {**place, "table": "kernel"}, directs
    yield "revip_backend_weight", {**place, "table": "wanted"}, 1
    ends = "revip_certificate_expiry_timestamp_seconds"
    yield ends, {**place, "certificate": "backend"}, 300 * DAY


def moments(faults: tuple[Fault, ...]) -> Iterator[tuple[int, Fault]]:
    """Return at which minute each fault begins."""
    at = CALM
    for fault in faults:
        yield at, fault
        at += fault.lasts + CALM


def told(series: Series, faults: tuple[Fault, ...]) -> list[Value]:
    """Return what `series` is at each minute of the night."""
    values: list[Value] = []
    base = series.calm
    for begun, fault in moments(faults):
        values += [base] * (begun - len(values))
        change = fault.change(series)
        value = base if change is None else change[2]
        if callable(value):
            values += [base + value(minute) for minute in range(fault.lasts)]
            base += value(fault.lasts - 1)
        else:
            values += [value] * fault.lasts
    return values + [base] * CALM
