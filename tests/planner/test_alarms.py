"""Alarms: each rings at its time, or a little before it in company."""

from __future__ import annotations

from revip.model.instants import NEVER, Instant
from revip.planner.alarms import FEW, Alarms


def test_an_alarm_rings_once_at_its_newest_time() -> None:
    alarms: Alarms[str] = Alarms()
    alarms.set("a", Instant(10))
    alarms.set("a", Instant(20))
    assert list(alarms.due(Instant(19))) == []
    assert list(alarms.due(Instant(20))) == ["a"]
    assert alarms.next() == NEVER


def test_what_is_ripe_rings_in_company_and_not_again() -> None:
    alarms: Alarms[str] = Alarms()
    alarms.set("due", Instant(10))
    alarms.set("ripe", Instant(15), Instant(9))
    alarms.set("unripe", Instant(15), Instant(11))
    assert list(alarms.due(Instant(10))) == ["due"]
    assert list(alarms.company(Instant(10))) == ["ripe"]
    assert list(alarms.due(Instant(15))) == ["unripe"]


def test_an_alarm_taken_away_keeps_no_company() -> None:
    alarms: Alarms[str] = Alarms()
    alarms.set("a", Instant(15), Instant(9))
    alarms.set("a", NEVER)
    assert list(alarms.company(Instant(10))) == []


def test_many_alarms_keep_no_company() -> None:
    alarms: Alarms[int] = Alarms()
    for name in range(FEW + 1):
        alarms.set(name, Instant(20), Instant(0))
    assert list(alarms.company(Instant(10))) == []
    assert list(alarms.due(Instant(20))) == list(range(FEW + 1))
