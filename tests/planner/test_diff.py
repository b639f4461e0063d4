"""The laws of the plan, over random tables, and the order of one plan as an example."""

from __future__ import annotations

import errno
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revip.errors import KernelError
from revip.model.ipvs import (
    AddDestination,
    AddServer,
    Change,
    DeleteDestination,
    DeleteServer,
    Destination,
    Forwarding,
    Port,
    SchedulerFlag,
    ServiceKey,
    SetDestination,
    SetServer,
    Table,
    VirtualServer,
    table,
)
from revip.planner.diff import by_server, describe, diff, key_of, owned, patched

KEYS = (
    ServiceKey(IPv4Address("10.0.1.10"), Port(6443)),
    ServiceKey(IPv4Address("10.0.1.10"), Port(443)),
    ServiceKey(IPv6Address("fd00::10"), Port(6443)),
    ServiceKey(IPv4Address(0), Port(0), fwmark=7),
)
FOREIGN = ServiceKey(IPv4Address("10.96.0.1"), Port(443))


def backend(last: int, weight: int = 1) -> Destination:
    return Destination(IPv4Address(f"10.0.1.{last}"), Port(6443), weight)


N1, N2, N3 = backend(16), backend(19), backend(20)

# Small alphabets, drawn at once: what matters is who is there, with which weight, how forwarded.
_VARIANTS = [None, *((w, f) for w in (0, 1, 2) for f in (Forwarding.DIRECT, Forwarding.TUNNEL))]
_pools = st.tuples(*[st.sampled_from(_VARIANTS)] * 4).map(
    lambda variants: frozenset(
        Destination(IPv4Address(f"10.0.1.{last}"), Port(6443), *variant)
        for last, variant in enumerate(variants, 16)
        if variant is not None
    )
)


def _servers(key: ServiceKey) -> st.SearchStrategy[VirtualServer]:
    return st.builds(
        VirtualServer,
        key=st.just(key),
        scheduler=st.sampled_from(["mh", "wlc"]),
        persistence=st.sampled_from([0, 60]),
        destinations=_pools,
    )


_tables = st.tuples(*(st.none() | _servers(key) for key in KEYS)).map(
    lambda servers: table(it for it in servers if it is not None)
)


def takes_connections(found: Table, key: ServiceKey) -> bool:
    return key in found and any(it.weight for it in found[key].destinations)


@given(desired=_tables, observed=_tables)
def test_the_plan_leads_to_the_desired_table(desired: Table, observed: Table) -> None:
    assert patched(observed, diff(desired, observed)) == desired


@given(found=_tables)
def test_nothing_is_done_where_nothing_differs(found: Table) -> None:
    assert diff(found, found) == ()


@given(desired=_tables, observed=_tables)
def test_a_server_that_takes_connections_before_and_after_takes_them_throughout(
    desired: Table, observed: Table
) -> None:
    plan = diff(desired, observed)
    constant = [
        key for key in KEYS if takes_connections(desired, key) and takes_connections(observed, key)
    ]
    current = observed
    for change in plan:
        current = patched(current, [change])
        for key in constant:
            assert takes_connections(current, key), describe(change)


@given(desired=_tables, observed=_tables, foreign=_servers(FOREIGN))
def test_a_foreign_server_is_in_no_plan(
    desired: Table, observed: Table, foreign: VirtualServer
) -> None:
    everything = {**observed, FOREIGN: foreign}
    plan = diff(desired, owned(everything, frozenset(KEYS)))
    assert all(key_of(change) != FOREIGN for change in plan)
    assert patched(everything, plan) == {**desired, FOREIGN: foreign}


@given(desired=_tables, observed=_tables)
def test_what_is_right_already_is_not_touched(desired: Table, observed: Table) -> None:
    for change in diff(desired, observed):
        there = observed.get(key_of(change))
        if there is None:
            continue
        match change:
            case SetServer(server):
                assert server.parameters != there.parameters
            case AddDestination(_, it) | SetDestination(_, it):
                assert it not in there.destinations
            case DeleteDestination(key, it):
                assert it.endpoint not in {wanted.endpoint for wanted in desired[key].destinations}
            case _:
                assert isinstance(change, DeleteServer)


@given(desired=_tables, observed=_tables)
def test_the_plans_of_different_servers_do_not_depend_on_each_other(
    desired: Table, observed: Table
) -> None:
    parts = list(by_server(diff(desired, observed)))
    assert len({key for key, _ in parts}) == len(parts)
    current = observed
    for _, changes in reversed(parts):
        current = patched(current, changes)
    assert current == desired


@given(desired=_tables, observed=_tables)
def test_every_change_has_a_sentence_that_names_its_server(desired: Table, observed: Table) -> None:
    for change in diff(desired, observed):
        assert str(key_of(change)) in describe(change)


def test_the_recovered_are_invited_before_the_dead_are_turned_away() -> None:
    before = VirtualServer(KEYS[0], "wlc", destinations=frozenset({N1, backend(19, 0)}))
    after = VirtualServer(KEYS[0], "mh", destinations=frozenset({N2, N3}))
    plan = diff(table([after]), table([before]))
    assert plan == (
        SetDestination(KEYS[0], N2),
        AddDestination(KEYS[0], N3),
        DeleteDestination(KEYS[0], N1),
        SetServer(replace(after, destinations=frozenset())),
    )


def test_what_stands_is_mended_first_and_what_goes_goes_last() -> None:
    stands = VirtualServer(KEYS[0], destinations=frozenset({N1}))
    comes, goes = VirtualServer(KEYS[1]), VirtualServer(KEYS[2])
    plan = diff(table([stands, comes]), table([replace(stands, destinations=frozenset()), goes]))
    assert plan == (AddDestination(KEYS[0], N1), AddServer(comes), DeleteServer(KEYS[2]))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (AddServer(VirtualServer(KEYS[0])), errno.EEXIST),
        (SetServer(VirtualServer(KEYS[1])), errno.ESRCH),
        (DeleteServer(KEYS[1]), errno.ESRCH),
        (AddDestination(KEYS[1], N1), errno.ESRCH),
        (AddDestination(KEYS[0], N1), errno.EEXIST),
        (SetDestination(KEYS[0], N2), errno.ENOENT),
        (DeleteDestination(KEYS[0], N2), errno.ENOENT),
    ],
)
def test_patched_refuses_what_the_kernel_refuses(change: Change, expected: int) -> None:
    there = table([VirtualServer(KEYS[0], destinations=frozenset({N1}))])
    with pytest.raises(KernelError) as refused:
        patched(there, [change])
    assert refused.value.errno == expected


def test_changes_read_as_sentences() -> None:
    names = {N2.endpoint: "n2"}
    flags = frozenset({SchedulerFlag.MH_PORT, SchedulerFlag.MH_FALLBACK})
    persistent = VirtualServer(KEYS[2], "wlc", persistence=60, persistence_netmask=64)
    sentences: dict[str, Change] = {
        "add TCP 10.0.1.10:6443 with scheduler mh mh-fallback mh-port": AddServer(
            VirtualServer(KEYS[0], flags=flags)
        ),
        "set TCP [fd00::10]:6443 to scheduler wlc persistence 60 s netmask /64": SetServer(
            persistent
        ),
        "delete FWM 7": DeleteServer(KEYS[3]),
        "add n2 10.0.1.19:6443 weight 1 (direct) to TCP 10.0.1.10:6443": AddDestination(
            KEYS[0], N2
        ),
        "set n2 10.0.1.19:6443 weight 0 (direct) in TCP 10.0.1.10:6443": SetDestination(
            KEYS[0], backend(19, 0)
        ),
        "delete 10.0.1.16:6443 from TCP 10.0.1.10:6443": DeleteDestination(KEYS[0], N1),
    }
    assert [describe(change, names) for change in sentences.values()] == list(sentences)
