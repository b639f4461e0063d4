"""`revip why` and `revip events --since`: an answer to each question of 3 a.m."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from revip.api.asking import RefusedError
from revip.cli.events import since
from revip.cli.why import why
from tests.api.conftest import whole
from tests.cli import moments


def told(moment: str, subject: str | None = None, **changes: Any) -> str:
    snapshot = whole(moments.at(moment))
    for server in snapshot["virtual_servers"]:
        server.update(changes)
    return why(snapshot, snapshot["events"], subject)


def test_the_director_says_why_it_has_the_address() -> None:
    text = told("healthy")
    assert text.startswith("api, 10.0.1.10:6443: the virtual IP is here, as n1 directs\n")
    assert "because the configuration names n1, this node, as owner (static)" in text
    assert "n2, 10.0.1.19:6443: in, as it should be" in text


def test_a_follower_says_who_has_it() -> None:
    text = told("follower")
    assert text.startswith("api, 10.0.1.10:6443: the virtual IP is not here: n2 directs\n")
    assert "n3, 10.0.1.20:6443: would be in, were this node the director" in text
    assert "the virtual IP stays where it is" in text


def test_a_backend_that_is_out_is_told_since_when_why_and_after_what() -> None:
    text = told("one out", "n2")
    first, *rest = text.splitlines()
    assert first == "n2 of api, 10.0.1.19:6443: out, as it should be"
    assert rest[0] == "  it is unhealthy for 94 s: connection refused, confirmed"
    assert "  the last probe (https://10.0.1.19:6443/readyz): refused after 0 ms at connect" in text
    assert "backend.verdict WARNING api: n2 (10.0.1.19:6443) is unhealthy, was healthy" in text
    assert text.endswith("if its node died\n  nothing changes: it is out already")


def test_a_difference_is_called_one() -> None:
    text = told("paused", "10.0.1.19")
    assert text.startswith("n2 of api, 10.0.1.19:6443: it is in the kernel's table and should be")
    assert "the agent is paused, so nothing is changed" in told("paused")


def test_what_the_kernel_refuses_is_told() -> None:
    assert "the kernel refuses for" in told("no module")


def test_the_operators_own_drain_is_told_with_its_end() -> None:
    assert "the operator drains it for 5 min (`revip enable`)" in told("drained", "n2")


ELECTED: dict[str, Any] = {
    "owner": None,
    "election": {
        "kind": "vrrp",
        "state": "active",
        "priority": 100,
        "since_ms_ago": 65_000,
        "holder": "10.0.1.16",
        "reason": "nobody else is active",
        "lifetime_left_ms": 2_500,
        "oddities": {},
    },
    "takeover": {"within_ms": 4_000, "address_lifetime_ms": 3_000},
}


def test_an_elected_director_says_what_its_death_would_bring() -> None:
    text = told("healthy", "10.0.1.10", **ELECTED)
    assert "because of the election (vrrp): active for 65 s: nobody else is active" in text
    assert "this node's priority is 100" in text
    assert "the kernel keeps the address for 2 s more if nobody renews it" in text
    died = text[text.index("if this node died") :]
    assert "the fittest other node takes over within about 4 s" in died
    assert "it takes this node's server out of its table; n2, n3 are left" in died
    assert "open connections to other servers go on" in died
    assert "the kernel would drop the address within 3 s" in died


def test_with_another_scheduler_connections_would_break() -> None:
    assert "open connections break" in told("healthy", **ELECTED, scheduler="rr")


def test_a_fixed_owner_has_no_successor() -> None:
    assert "nobody takes over, as the owner is fixed" in told("healthy")


def test_an_election_of_a_kind_that_is_not_known_is_told_all_the_same() -> None:
    election = {"kind": "lease", "holder": "n2", "reason": "n2 renewed it"}
    text = told("follower", owner=None, election=election)
    assert "the virtual IP is not here: n2 directs" in text
    assert "because of the election (lease): unknown for -: n2 renewed it" in text


def test_what_is_neither_is_refused_with_what_there_is() -> None:
    with pytest.raises(RefusedError) as refused:
        told("healthy", "n9")
    assert str(refused.value) == (
        "n9: is neither virtual server nor backend; there are: api (10.0.1.10) with n1, n2, n3"
    )


@pytest.mark.parametrize("moment", moments.MOMENTS)
@pytest.mark.parametrize("subject", [None, "api", "10.0.1.10:6443", "n1", "10.0.1.19:6443"])
def test_every_moment_has_an_answer_without_a_gap(moment: str, subject: str | None) -> None:
    text = told(moment, subject)
    assert "None" not in text
    assert "{" not in text


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("90s", 90_000), ("30m", 1_800_000), ("2h", 7_200_000), ("7d", 604_800_000)],
)
def test_a_time_back_is_a_number_and_a_unit(text: str, milliseconds: int) -> None:
    assert since(text) == milliseconds


@pytest.mark.parametrize("text", ["", "2", "h", "0h", "-1h", "1.5h", "2 h", "2w", "9999999d", "٣h"])
def test_what_is_no_time_back_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        since(text)
