"""What the documents state about the code is what the code says."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_address

import pytest
from lab.standin_modes import Mode

from revip.adapters.culprits import _KNOWN
from revip.model.health import PROFILES, Backend, BackendName
from revip.model.host import Sysctl
from revip.model.instants import Span
from revip.model.ipvs import Forwarding, Port
from revip.model.notes import Kind
from revip.model.spec import LinkName, NodeName, Spec, VirtualServerSpec, VrrpSpec
from revip.planner.bounds import removal_bound, return_bound
from revip.planner.host import host_state
from revip.planner.sync import sync_state
from tests.docs.pages import page

NONE = Span(0)


@pytest.mark.parametrize("name", PROFILES)
def test_the_bounds_of_every_profile_are_those_of_the_planner(name: str) -> None:
    timing = PROFILES[name]
    spans = (
        removal_bound(timing, reconcile=NONE, backoff=NONE),
        return_bound(timing, reconcile=NONE, backoff=NONE, damped=False),
        return_bound(timing, reconcile=NONE, backoff=NONE),
        timing.interval,
        timing.fast_interval,
        timing.timeout,
        timing.connect_timeout,
    )
    row = " | ".join([f"`{name}`", *(f"{span} ms" for span in spans), str(timing.fall)])
    assert f"| {row} |" in page("docs/concepts.md").text


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
def test_every_log_event_is_explained(kind: Kind) -> None:
    assert re.search(rf"^\| `{re.escape(kind.value)}` \| .+ \| .+ \|$", _operations(), re.M)


def test_no_log_event_is_explained_that_does_not_exist() -> None:
    explained = re.findall(r"^\| `([a-z_.]+)` \|", _operations(), re.MULTILINE)
    assert set(explained) == {kind.value for kind in Kind}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("method", [Forwarding.DIRECT, Forwarding.MASQUERADE])
def test_every_sysctl_that_is_changed_is_listed(version: int, method: Forwarding) -> None:
    text = page("docs/concepts.md").text
    for fact in _facts(version, method):
        if isinstance(fact, Sysctl):
            assert f"`{fact.name.replace('.eth0.', '.IF.')} = {fact.value}`" in text


@pytest.mark.parametrize("version", [4, 6])
def test_every_sysctl_of_connection_sync_is_listed(version: int) -> None:
    text = page("docs/concepts.md").text
    server = replace(_server(version, Forwarding.DIRECT), owner=None, vrrp=VrrpSpec(51))
    state = sync_state(
        Spec(NodeName("n1"), None, (server,)), frozenset(), frozenset(), strangers=False
    )
    for fact in state.present | state.absent:
        if isinstance(fact, Sysctl):
            assert f"`{fact.name} = {fact.value}`" in text


def test_every_known_rival_is_named() -> None:
    for name in _KNOWN:
        assert f"`{name}`" in page("docs/concepts.md").text


def test_every_way_of_the_stand_in_to_behave_is_listed() -> None:
    for mode in Mode:
        assert f"`{mode.value}`" in page("docs/lab.md").text


def _operations() -> str:
    text = page("docs/operations.md").text
    return text[text.index("## Every event") : text.index("## Incidents")]


def _server(version: int, method: Forwarding) -> VirtualServerSpec:
    vip, own = ("10.0.1.10", "10.0.1.16") if version == 4 else ("fd00:1::10", "fd00:1::16")
    return VirtualServerSpec(
        name="api",
        address=ip_address(vip),
        port=Port(6443),
        interface=LinkName("eth0"),
        owner=NodeName("n1"),
        backends=(Backend(BackendName("n1"), ip_address(own), Port(6443)),),
        forwarding=method,
    )


def _facts(version: int, method: Forwarding) -> frozenset[object]:
    server = _server(version, method)
    spec = Spec(NodeName("n1"), None, (server,))
    own = server.backends[0].address
    return frozenset(host_state(spec, server, True, own).present)
