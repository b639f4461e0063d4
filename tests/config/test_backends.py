"""A backends file: the list, whole and fitting its virtual server."""

from __future__ import annotations

from dataclasses import replace

import pytest

from revip.config import parse_backends
from revip.errors import ConfigError
from revip.model.ipvs import Forwarding
from revip.model.spec import VirtualServerSpec
from tests.config.conftest import GOOD, Loader

LIST = """\
backends:
  - {name: n1, address: 10.0.1.16}
  - {name: n2, address: 10.0.1.19, weight: 2}
  - {name: n3, address: 10.0.1.20}
"""


@pytest.fixture
def server(spec_of: Loader) -> VirtualServerSpec:
    return spec_of(GOOD).virtual_servers[0]


def refusal(text: str, server: VirtualServerSpec) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_backends(text, "b.yaml", server)
    return str(caught.value)


def test_the_list_takes_its_port_from_the_virtual_server(server: VirtualServerSpec) -> None:
    backends = parse_backends(LIST, "b.yaml", server)
    assert [(b.name, b.port, b.weight) for b in backends] == [
        ("n1", 6443, 1),
        ("n2", 6443, 2),
        ("n3", 6443, 1),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "b.yaml: is empty"),
        ("backends: []\n", "b.yaml:1: backends: lists no backend"),
        ("count: 0\n", "lists no backend"),
        ("backend: []\n", "did you mean backends"),
        (LIST.replace("10.0.1.19", "10.0.1.10"), r"b.yaml:3: backends[1].address = 10.0.1.10: is"),
        (LIST.replace("10.0.1.19", "fd00::19"), "use one family"),
        (LIST.replace("weight: 2", "port: 80"), "direct forwarding cannot"),
        (LIST.replace("n2", "n1"), "n1 is listed twice, first at b.yaml:2"),
        ("count: 4\n" + LIST, "count = 4: but the list has 3"),
        (LIST + "allow_empty: maybe\n", "must be true or false"),
    ],
)
def test_a_wrong_list_is_refused(server: VirtualServerSpec, text: str, expected: str) -> None:
    assert expected in refusal(text, server)


def test_every_problem_is_told_at_once(server: VirtualServerSpec) -> None:
    text = LIST.replace("10.0.1.16", "10.0.1").replace("weight: 2", "weight: -1")
    assert len(refusal(text, server).splitlines()) == 2


def test_masquerade_may_change_the_port(server: VirtualServerSpec) -> None:
    masquerading = replace(server, forwarding=Forwarding.MASQUERADE)
    backends = parse_backends(LIST.replace("weight: 2", "port: 80"), "b.yaml", masquerading)
    assert backends[1].port == 80


def test_an_empty_list_can_be_meant(server: VirtualServerSpec) -> None:
    assert parse_backends("backends: []\nallow_empty: true\n", "b.yaml", server) == ()


def test_no_file_with_a_count_that_was_cut_off_passes(server: VirtualServerSpec) -> None:
    whole = "count: 3\n" + LIST
    assert len(parse_backends(whole, "b.yaml", server)) == 3
    for length in range(len(whole)):
        refusal(whole[:length], server)


def test_without_a_count_only_a_cut_between_lines_passes(server: VirtualServerSpec) -> None:
    for length in range(len(LIST)):
        if LIST[:length].endswith("}\n"):
            assert parse_backends(LIST[:length], "b.yaml", server)
        else:
            refusal(LIST[:length], server)
