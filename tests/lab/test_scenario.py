"""The registry, and what a result says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lab.places import LabError
from lab.processes import Lab
from lab.runner import select
from lab.scenario import Registry, Result, Run, Scenario, discover


def story(_: Run) -> None:
    """Tell nothing."""


@pytest.fixture
def registry() -> Registry:
    known = Registry()
    for name in ("incident-healed", "drift-is-repaired"):
        known.add(Scenario(name, "one line", story))
    return known


def test_scenarios_are_listed_by_name(registry: Registry) -> None:
    assert [known.name for known in registry.all()] == ["drift-is-repaired", "incident-healed"]


def test_an_unknown_scenario_suggests_a_near_one(registry: Registry) -> None:
    with pytest.raises(LabError, match="did you mean incident-healed"):
        registry["incident-heald"]


def test_a_far_off_name_points_to_the_list(registry: Registry) -> None:
    with pytest.raises(LabError, match="script/lab list"):
        registry["zzz"]


def test_a_name_is_taken_once(registry: Registry) -> None:
    with pytest.raises(ValueError, match="incident-healed"):
        registry.add(Scenario("incident-healed", "again", story))


def test_the_modules_of_scenarios_are_found() -> None:
    assert discover()["ipvs-table-can-be-written"].summary


def test_all_or_named_but_not_nothing() -> None:
    assert "ipvs-table-can-be-written" in select([], every=True)
    with pytest.raises(LabError, match="name a scenario"):
        select([], every=False)


def test_a_good_result_has_exactly_the_agreed_keys() -> None:
    good = Result("incident-healed", "uml", {"removed_after_ms": {"p50": 1, "p99": 2, "n": 3}}, ())
    assert json.loads(good.to_json()) == {
        "scenario": "incident-healed",
        "kernel": "uml",
        "ok": True,
        "figures": {"removed_after_ms": {"p50": 1, "p99": 2, "n": 3}},
    }


def test_a_bad_result_says_why_in_sentences() -> None:
    bad = json.loads(Result("incident-healed", "host", {}, ("not so: n2 is back",)).to_json())
    assert bad["ok"] is False
    assert bad["failures"] == ["not so: n2 is back"]


def test_a_run_notes_what_was_checked_and_tells_it(tmp_path: Path) -> None:
    told: list[object] = []
    run = Run(Lab(logs=tmp_path), tmp_path, "uml", lambda event: told.append(event["event"]))
    run.say("n2 is killed")
    assert run.check(True, "n2 is out")
    assert not run.check([], "n2 is back")
    run.figure("removed_after_ms", 12.34)
    assert run.failures == ["not so: n2 is back"]
    assert run.samples.figures()["removed_after_ms"]["p50"] == 12.3
    assert told == ["say", "check", "check", "figure"]
