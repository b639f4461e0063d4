"""Which events are told of, and which end others."""

from __future__ import annotations

from revip.model.notes import Kind, Level
from revip.model.notify import Filter
from revip.planner.stories import Stories
from tests.messages import event

INFO, WARNING, ERROR = Level.INFO, Level.WARNING, Level.ERROR


def stories(level: Level = WARNING, *kinds: Kind) -> Stories:
    return Stories("n1", Filter(level, kinds))


def test_what_is_quieter_is_not_told() -> None:
    assert stories().hear(event(level=INFO)) == []
    assert len(stories(INFO).hear(event(level=INFO))) == 1
    assert stories(ERROR).hear(event(level=WARNING)) == []


def test_other_kinds_are_not_told() -> None:
    assert stories(INFO, Kind.DRIFT).hear(event(Kind.VERDICT)) == []
    assert len(stories(INFO, Kind.DRIFT).hear(event(Kind.DRIFT))) == 1


def test_the_end_of_what_was_told_is_told_whatever_its_level() -> None:
    told = stories()
    (began,) = told.hear(event(level=WARNING, number=1))
    (over,) = told.hear(event(level=INFO, number=2))
    assert (began.lasts, began.ends) == (True, False)
    assert over.ends
    assert over.began == began.event
    assert told.hear(event(level=INFO, number=3)) == []


def test_one_backend_does_not_end_the_trouble_of_another() -> None:
    told = stories()
    told.hear(event(backend="n2"))
    assert told.hear(event(level=INFO, backend="n3")) == []
    assert len(told.hear(event(level=INFO, backend="n2"))) == 1


def test_the_kernel_that_works_again_ends_every_refusal() -> None:
    told = stories()
    told.hear(event(Kind.KERNEL_FAILED, ERROR, server="a", backend=""))
    told.hear(event(Kind.KERNEL_FAILED, ERROR, server="b", backend=""))
    over = told.hear(event(Kind.KERNEL_BACK, INFO, server="", backend=""))
    assert [each.ends for each in over] == [True, True]


def test_trouble_that_goes_on_keeps_its_beginning() -> None:
    told = stories()
    told.hear(event(number=1))
    (again,) = told.hear(event(number=2))
    assert again.began is not None
    assert again.began.number == 1
    (over,) = told.hear(event(level=INFO, number=3))
    assert over.began is not None
    assert over.began.number == 1


def test_what_has_no_end_does_not_last() -> None:
    (drift,) = stories().hear(event(Kind.DRIFT))
    assert not drift.lasts


def test_failures_to_notify_are_not_notified() -> None:
    assert stories(INFO).hear(event(Kind.NOTIFY, WARNING)) == []
    assert stories(INFO, Kind.NOTIFY).hear(event(Kind.NOTIFY, INFO)) == []


def test_memory_is_bounded() -> None:
    told = stories()
    for number in range(3000):
        told.hear(event(backend=f"b{number}", number=number))
    assert len(told._open) <= 1000
