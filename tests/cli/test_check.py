"""`revip check`: what it looks at, what it promises, and how it says so."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from revip.adapters.preflight.standing import Check, Level
from revip.cli import check
from revip.model.health import Backend, BackendName, HealthTiming
from revip.model.instants import Span
from revip.model.ipvs import Port
from revip.model.spec import LinkName, NodeName, ProbeKind, ProbeSpec, Spec, VirtualServerSpec
from revip.planner.bounds import removal_bound, return_bound
from tests.cli.conftest import Revip

LOCALHOST = ip_address("127.0.0.1")
SERVER = VirtualServerSpec(
    "api",
    ip_address("192.0.2.1"),
    Port(6443),
    LinkName("lo"),
    NodeName("n1"),
    (),
    probe=ProbeSpec(kind=ProbeKind.TCP),
)


def spec(place: Path, server: VirtualServerSpec) -> Spec:
    return Spec(NodeName("n1"), None, (server,), place / "revip.sock", place / "state.json")


@pytest.fixture
def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


@pytest.fixture
def server(listening: socket.socket) -> VirtualServerSpec:
    """A virtual server over one backend that listens and one that does not."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        ports = {"n1": listening.getsockname()[1], "n2": closed.getsockname()[1]}
    backends = (Backend(BackendName(n), LOCALHOST, Port(port)) for n, port in ports.items())
    return replace(SERVER, backends=tuple(backends))


def found(checks: list[Check], name: str) -> Check:
    (one,) = (each for each in checks if each.name == name)
    return one


def test_every_backend_is_asked_once(
    place: Path, listening: socket.socket, server: VirtualServerSpec
) -> None:
    with listening:
        checks = list(check.look(spec(place, server)))
    good, bad = found(checks, "backend n1"), found(checks, "backend n2")
    assert (good.level, good.what.split(",")[0]) == (Level.OK, "ready: connected")
    assert (bad.level, bad.what) == (Level.WARN, "refused: connection refused")
    assert bad.mend == "start the server; revip takes it in when it answers"
    assert found(checks, "pool api").level is Level.OK


def test_a_pool_without_a_ready_backend_fails(
    place: Path, listening: socket.socket, server: VirtualServerSpec
) -> None:
    listening.close()
    pool = found(list(check.look(spec(place, server))), "pool api")
    assert (pool.level, pool.what) == (
        Level.FAIL,
        "0 of 2 backends are ready, panic_threshold is 1",
    )


def test_the_backends_file_is_read_and_its_backends_are_asked(
    place: Path, listening: socket.socket
) -> None:
    file = place / "backends.yaml"
    port = listening.getsockname()[1]
    server = replace(SERVER, port=Port(port), backends_file=file)
    file.write_text("backends:\n  - {name: n9, address: 192.0.2.9, port: 0}\n")
    with listening:
        bad = found(list(check.look(spec(place, server))), "backends file of api")
    assert bad.level is Level.FAIL
    assert str(bad).endswith(f"{file}:2: backends[0].port = 0; must be from 1 to 65535")


@pytest.mark.parametrize("fallback", [True, False])
def test_a_missing_backends_file_is_a_failure_only_without_other_backends(
    place: Path, listening: socket.socket, server: VirtualServerSpec, fallback: bool
) -> None:
    missing = replace(server, backends_file=place / "none.yaml")
    if not fallback:
        missing = replace(missing, backends=())
    with listening:
        one = found(list(check.look(spec(place, missing))), "backends file of api")
    assert one.level is (Level.WARN if fallback else Level.FAIL)
    assert one.mend == "does not exist"


def test_the_bounds_are_said_in_words_and_rounded_up() -> None:
    timing = HealthTiming()
    removed = removal_bound(timing, reconcile=Span(0), backoff=Span(0))
    returned = return_bound(timing, reconcile=Span(0), backoff=Span(0), damped=False)
    flapped = return_bound(timing, reconcile=Span(0), backoff=Span(0))
    assert check.bounds(SERVER) == (
        f"a dead backend is out within {check.seconds(removed)} at worst (a crash in about 20 ms)"
        f", a recovered one back within {check.seconds(returned)}"
        f", {check.seconds(flapped)} after flapping"
    )
    assert 0 <= float(check.seconds(removed).removesuffix(" s")) * 1000 - removed < 100
    undamped = replace(timing, damping_hold=Span(0))
    plain = check.bounds(replace(SERVER, health=undamped, probe=ProbeSpec(held=False)))
    assert "crash" not in plain
    assert "flapping" not in plain


def test_the_table_is_aligned_and_searchable_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    checks = (Check("rights", Level.OK, "fine"), Check("interface eth0", Level.FAIL, "gone", "x"))
    check.show(spec(place, SERVER), checks)
    first, second, bounds, count = capsys.readouterr().out.splitlines()
    assert first == "ok    rights          fine"
    assert second == "fail  interface eth0  gone -> x"
    assert bounds.startswith("api: a dead backend is out within")
    assert count == "1 failed, 0 to look at, 1 well"


def test_explain_lists_every_key(revip: Revip) -> None:
    said = revip("check", "--explain")
    assert said.code == 0
    assert "virtual_servers[].probe.kind\n" in said.out


def test_the_document_has_a_stable_layout(place: Path) -> None:
    timing = HealthTiming()
    document = check.document(
        Path("/etc/revip.yaml"), spec(place, SERVER), [Check("a", Level.WARN, "b", "c")], True
    )
    assert json.loads(json.dumps(document)) == {
        "schema": "revip.check/v1",
        "ok": True,
        "config": "/etc/revip.yaml",
        "checks": [{"level": "warn", "check": "a", "what": "b", "mend": "c"}],
        "bounds": [
            {
                "virtual_server": "api",
                "removal_ms": removal_bound(timing, reconcile=Span(0), backoff=Span(0)),
                "return_ms": return_bound(timing, reconcile=Span(0), backoff=Span(0), damped=False),
                "return_after_flapping_ms": return_bound(
                    timing, reconcile=Span(0), backoff=Span(0)
                ),
            }
        ],
    }
