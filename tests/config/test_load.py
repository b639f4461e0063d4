"""What a good configuration means."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import trustme
import yaml

from revip.config import load
from revip.config.keys import AGENT, ELECTION, HEALTH, PROBE, SERVER, TOP
from revip.model.health import PROFILES, Backend, BackendName, HealthTiming
from revip.model.instants import Span
from revip.model.ipvs import Forwarding, Port, SchedulerFlag
from revip.model.spec import OnExit, ProbeKind, ProbeSpec, Spec, VrrpSpec
from tests.config.conftest import GOOD, Loader, within


def test_the_least_file_takes_every_other_value_from_the_model(spec_of: Loader) -> None:
    spec = spec_of(GOOD)
    (server,) = spec.virtual_servers
    assert spec == Spec(spec.node, None, spec.virtual_servers)
    assert (spec.node, server.name, str(server.address)) == ("n1", "api", "10.0.1.10")
    assert server.probe == ProbeSpec()
    assert server.health == HealthTiming()
    assert server.flags == {SchedulerFlag.MH_PORT, SchedulerFlag.MH_FALLBACK}
    assert server.backends[1] == Backend(
        BackendName("n2"), ip_address("10.0.1.19"), Port(6443), weight=1
    )


def test_every_documented_default_is_the_one_in_force(spec_of: Loader) -> None:
    document = yaml.safe_load(GOOD)
    plain = spec_of(GOOD)
    server = document["virtual_servers"][0]
    sections = ((document, TOP), (server, SERVER), (server.setdefault("probe", {}), PROBE))
    more = ((server.setdefault("health", {}), HEALTH), (document.setdefault("agent", {}), AGENT))
    for block, section in sections + more:
        for key in section.keys:
            if key.default:
                block[key.name] = yaml.safe_load(key.default)
    assert spec_of(yaml.safe_dump(document)) == plain


def test_an_election_takes_what_it_leaves_out_from_the_model(spec_of: Loader) -> None:
    text = GOOD.replace("    owner: n1\n", "    election: {kind: vrrp, vrid: 51}\n")
    document = yaml.safe_load(text)
    (server,) = spec_of(text).virtual_servers
    assert (server.owner, server.vrrp) == (None, VrrpSpec(51))
    election = document["virtual_servers"][0]["election"]
    for key in ELECTION.keys:
        if key.default and key.name != "kind":
            election[key.name] = yaml.safe_load(key.default)
    assert spec_of(yaml.safe_dump(document)).virtual_servers == (server,)


def test_every_key_of_an_election_reaches_the_spec(spec_of: Loader) -> None:
    election = (
        "{kind: vrrp, vrid: 7, priority: 150, advert_interval: 100ms, preempt: false,"
        " peers: [10.0.1.19, 10.0.1.20], address_lifetime: 4s}"
    )
    (server,) = spec_of(GOOD.replace("owner: n1", f"election: {election}")).virtual_servers
    assert server.vrrp == VrrpSpec(
        7,
        priority=150,
        advert_interval=Span(100),
        preempt=False,
        peers=(ip_address("10.0.1.19"), ip_address("10.0.1.20")),
        address_lifetime=Span(4000),
    )


def test_every_key_reaches_the_spec(spec_of: Loader) -> None:
    text = within(
        GOOD,
        port="443",
        scheduler="sh",
        scheduler_flags="[sh-port]",
        forwarding="masquerade",
        panic_threshold="2",
        drain_deadline="0s",
        backends_file="/etc/revip/backends.yaml",
        probe="{kind: http, path: /livez, expected_status: [200, 204], port: 8080,"
        " held_connection: false, fresh_every: 3}",
        health="{profile: gentle, interval: 5s, rise: 4, jitter_percent: 0}",
    )
    spec = spec_of(text + "node_address: 10.0.1.16\nagent: {on_exit: withdraw, socket: /run/x}\n")
    (server,) = spec.virtual_servers
    assert (server.port, server.scheduler) == (443, "sh")
    assert server.flags == {SchedulerFlag.SH_PORT}
    assert server.forwarding is Forwarding.MASQUERADE
    assert (server.panic_threshold, server.drain_deadline) == (2, 0)
    assert server.backends_file == Path("/etc/revip/backends.yaml")
    probe = ProbeSpec(ProbeKind.HTTP, "/livez", frozenset({200, 204}), Port(8080))
    assert server.probe.expected == probe.expected
    assert (server.probe.path, server.probe.port, server.probe.held) == ("/livez", 8080, False)
    assert server.health.fall == PROFILES["gentle"].fall
    assert (server.health.interval, server.health.rise, server.health.jitter_percent) == (
        5000,
        4,
        0,
    )
    assert spec.node_address == ip_address("10.0.1.16")
    assert (spec.on_exit, spec.socket) == (OnExit.WITHDRAW, Path("/run/x"))


def test_backends_listen_where_the_virtual_server_does(spec_of: Loader) -> None:
    (server,) = spec_of(within(GOOD, port="8443")).virtual_servers
    assert {backend.port for backend in server.backends} == {8443}


def test_a_virtual_server_without_a_name_is_named_after_its_endpoint(spec_of: Loader) -> None:
    (server,) = spec_of(GOOD.replace("name: api\n    ", "")).virtual_servers
    assert server.name == "vip-10.0.1.10-6443"


def test_a_node_without_a_name_has_the_host_name(spec_of: Loader) -> None:
    assert spec_of(GOOD.removeprefix("node: n1\n")).node == "host"


def test_another_scheduler_has_no_flags_unless_they_are_written(spec_of: Loader) -> None:
    spec = spec_of(within(GOOD, scheduler="wrr"))
    assert spec.virtual_servers[0].flags == frozenset()
    assert any("connections break" in warning for warning in spec.warnings)


def test_ipv6_needs_no_quotes_even_where_yaml_sees_a_number_in_base_sixty(spec_of: Loader) -> None:
    text = GOOD.replace("10.0.1.10", "fd00::10").replace("10.0.1.16", "10:20:30:40:50:51:52:53")
    text = text.replace("10.0.1.19", "fd00::19").replace("10.0.1.20", "fd00::20")
    (server,) = spec_of(text).virtual_servers
    assert server.backends[0].address == ip_address("10:20:30:40:50:51:52:53")


def test_anchors_and_merge_keys_share_what_is_common(spec_of: Loader) -> None:
    text = GOOD + (
        "    health: &calm {interval: 2s, fall: 3}\n"
        "  - address: 10.0.1.11\n    interface: eth0\n    owner: n1\n"
        "    health: {<<: *calm, fall: 4}\n"
        "    backends: [{address: 10.0.1.16}, {address: 10.0.1.19}, {address: 10.0.1.20}]\n"
    )
    first, second = spec_of(text).virtual_servers
    assert (first.health.interval, first.health.fall) == (2000, 3)
    assert (second.health.interval, second.health.fall) == (2000, 4)


def test_the_example_is_valid_but_for_the_authority_this_machine_lacks(
    tmp_path: Path,
) -> None:
    authority = tmp_path / "ca.crt"
    trustme.CA().cert_pem.write_to_path(str(authority))
    example = Path("examples/revip.yaml")
    spec = load(example, {"REVIP_PROBE_CA": str(authority)}, "n1")
    assert [backend.name for backend in spec.virtual_servers[0].backends] == ["n1", "n2", "n3"]
    assert spec.warnings == ()


def test_odd_but_allowed_values_are_warned_of(spec_of: Loader) -> None:
    text = within(
        GOOD,
        owner="elsewhere",
        probe="{verify: false}",
        health="{interval: 20s, fall: 1}",
        panic_threshold="3",
    )
    warnings = "\n".join(spec_of(text.replace("    owner: n1\n", "")).warnings)
    for words in ("believed", "one lost packet", "this late", "no backend has this name", "panic"):
        assert words in warnings
    pair = GOOD.replace("      - {name: n3, address: 10.0.1.20}\n", "")
    assert any("no more failures than 1" in warning for warning in spec_of(pair).warnings)
