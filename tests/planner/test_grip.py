"""A director that does not get its address stands aside, rests, and tries again."""

from __future__ import annotations

from revip.model.instants import Instant, Span
from revip.planner.grip import LONGEST_REST, REST, Grip

PATIENCE = Span(3_000)
BEGUN = Instant(50_000)


class Director:
    """A node that directs whenever it may, and looks each 100 ms."""

    def __init__(self, *, held: bool) -> None:
        self.held = held
        self.now = BEGUN
        self.grip = Grip(PATIENCE)
        self.aside: list[tuple[int, int]] = []
        """When it began to stand aside, and for how long."""

    def live(self, span: int) -> Director:
        end = self.now + span
        while self.now < end:
            may = self.grip.objection(self.now) is None
            self.grip = self.grip.seen(
                self.now, held=may and self.held, lacking=may and not self.held
            ).at(self.now)
            if may and self.grip.objection(self.now):
                self.aside.append((self.now - BEGUN, self.grip.aside_until - self.now))
            self.now = Instant(self.now + 100)
        return self


def test_who_has_the_address_directs() -> None:
    assert Director(held=True).live(100_000).aside == []


def test_who_does_not_get_it_stands_aside_after_its_patience() -> None:
    (at, lasts), *_ = Director(held=False).live(4_000).aside
    assert PATIENCE < at <= PATIENCE + 100
    assert 0.9 * REST <= lasts <= REST


def test_each_vain_attempt_is_followed_by_a_longer_rest_up_to_a_ceiling() -> None:
    rests = [lasts for _, lasts in Director(held=False).live(600_000).aside]
    assert rests[0] < rests[1] < rests[2] < rests[3]
    assert 0.9 * LONGEST_REST <= max(rests) <= LONGEST_REST


def test_who_had_it_meanwhile_begins_with_a_short_rest_again() -> None:
    director = Director(held=False).live(60_000)
    director.held = True
    director.live(100_000)
    director.held = False
    assert director.live(4_000).aside[-1][1] <= REST


def test_a_moment_without_it_is_nothing() -> None:
    director = Director(held=True)
    for _ in range(20):
        director.held = not director.held
        director.live(PATIENCE - 100)
    assert director.aside == []


def test_what_was_seen_while_it_was_given_away_does_not_count() -> None:
    director = Director(held=False).live(3_200)
    until = director.grip.aside_until
    stale = director.grip.seen(director.now, held=False, lacking=True)
    assert stale.at(until).objection(until) is None
