"""`REVIP_*` variables: over the file, or alone."""

from __future__ import annotations

import pytest

from revip.config import load
from revip.config.environment import settings
from revip.config.keys import SECTIONS
from revip.errors import ConfigError
from revip.model.ipvs import Forwarding, SchedulerFlag
from revip.model.spec import OnExit, ProbeKind
from tests.config.conftest import GOOD, Asker, Loader

ALONE = {
    "REVIP_VIP": "10.0.1.10",
    "REVIP_INTERFACE": "eth0",
    "REVIP_OWNER": "n1",
    "REVIP_BACKENDS": "n1=10.0.1.16:6443,n2=10.0.1.19, 10.0.1.20",
}


def problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(None, environ, "host")
    return [str(problem) for problem in caught.value.problems]


def test_variables_alone_describe_one_virtual_server() -> None:
    spec = load(
        None,
        {
            **ALONE,
            "REVIP_PORT": "8443",
            "REVIP_BACKENDS": "n1=10.0.1.16:8443,10.0.1.19",
            "REVIP_SCHEDULER_FLAGS": "mh-port",
            "REVIP_FORWARDING": "masquerade",
            "REVIP_PROBE_KIND": "http",
            "REVIP_PROBE_EXPECTED_STATUS": "200, 401",
            "REVIP_HEALTH_PROFILE": "fast",
            "REVIP_HEALTH_RISE": "5",
            "REVIP_ON_EXIT": "withdraw",
            "REVIP_MANAGE_HOST": "false",
            "PATH": "/bin",
            "REVIP_CONFIG": "/etc/revip/revip.yaml",
        },
        "host",
    )
    (server,) = spec.virtual_servers
    assert (spec.node, server.name, server.port) == ("host", "vip-10.0.1.10-8443", 8443)
    assert [str(backend) for backend in server.backends] == [
        "n1 (10.0.1.16:8443)",
        "10.0.1.19 (10.0.1.19:8443)",
    ]
    assert server.flags == {SchedulerFlag.MH_PORT}
    assert server.forwarding is Forwarding.MASQUERADE
    assert server.probe.expected == {200, 401}
    assert server.probe.kind is ProbeKind.HTTP
    assert (server.health.interval, server.health.rise) == (100, 5)
    assert (spec.on_exit, spec.manage_host) == (OnExit.WITHDRAW, False)


def test_backends_by_variable_may_be_ipv6() -> None:
    environ = {**ALONE, "REVIP_VIP": "fd00::10", "REVIP_BACKENDS": "a=[fd00::16]:6443,fd00::19"}
    (server,) = load(None, environ, "host").virtual_servers
    assert [str(b) for b in server.backends] == [
        "a ([fd00::16]:6443)",
        "fd00::19 ([fd00::19]:6443)",
    ]


def test_a_variable_wins_over_the_file(spec_of: Loader) -> None:
    spec = spec_of(GOOD, {"REVIP_OWNER": "n3", "REVIP_PROBE_PATH": "/livez", "REVIP_NODE": "n3"})
    (server,) = spec.virtual_servers
    assert (spec.node, server.owner, server.probe.path, server.name) == (
        "n3",
        "n3",
        "/livez",
        "api",
    )


def test_a_variable_mends_what_is_wrong_in_the_file(spec_of: Loader) -> None:
    text = GOOD.replace("port: 6443", "port: none")
    assert spec_of(text, {"REVIP_PORT": "443"}).virtual_servers[0].port == 443


def test_problems_name_the_variable() -> None:
    lines = problems({**ALONE, "REVIP_PORT": "70000", "REVIP_HEALTH_INTERVAL": "400"})
    port, interval = lines
    assert port == "REVIP_PORT: virtual_servers[0].port = 70000: must be from 1 to 65535"
    assert interval.startswith("REVIP_HEALTH_INTERVAL: virtual_servers[0].health.interval = 400:")


def test_what_is_missing_is_named_by_variable() -> None:
    lines = "\n".join(problems({"REVIP_VIP": "10.0.1.10"}))
    assert "or set REVIP_INTERFACE" in lines
    assert "or set REVIP_OWNER" in lines
    assert "lists no backend" in lines
    assert problems({}) == [
        "environment: virtual_servers: is missing: write at least one, or set REVIP_VIP"
    ]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("REVIP_SHEDULER", "mh", "did you mean REVIP_SCHEDULER"),
        ("REVIP_QQQQ", "", "is reserved"),
        ("REVIP_SERVICE_HOST", "10.96.0.1", "enableServiceLinks: false"),
        ("REVIP_PORT", "tcp://10.96.0.1:80", "enableServiceLinks: false"),
        ("REVIP_PORT_80_TCP_ADDR", "10.96.0.1", "enableServiceLinks: false"),
        ("REVIP_BACKENDS", "n1=", "address: is empty"),
        ("REVIP_BACKENDS", ",", "lists no backend"),
        ("REVIP_BACKENDS", "n1=10.0.1.16:99999", "port = 99999: must be from 1"),
        ("REVIP_BACKENDS", "a=10.0.1.16,b=10.0.1.16", "is listed twice"),
        ("REVIP_NODE", "", "node: is empty"),
    ],
)
def test_a_wrong_variable_is_told(name: str, value: str, expected: str) -> None:
    lines = problems({**ALONE, name: value})
    assert any(line.startswith(f"{name}: ") and expected in line for line in lines), lines


def test_a_variable_about_a_virtual_server_needs_exactly_one(problems_of: Asker) -> None:
    second = GOOD[GOOD.index("  - name") :].replace("name: api", "name: b").replace("1.10", "1.11")
    (problem,) = problems_of(GOOD + second, {"REVIP_PORT": "443", "REVIP_NODE": "n2"})
    assert problem.origin == "REVIP_PORT"
    assert "set it in the file" in problem.mend


def test_a_section_of_the_wrong_type_is_told_once(problems_of: Asker) -> None:
    (problem,) = problems_of(GOOD + "agent: 3\n", {"REVIP_SOCKET": "/run/x"})
    assert problem.key == "agent"


def test_every_variable_sets_one_key() -> None:
    keys = [key for section in SECTIONS for key in section.keys if section.prefix]
    assert len(settings()) == len(keys)
