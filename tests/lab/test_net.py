"""The network that a scenario finds, on the real kernel."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.net import PORT, PREFIX, Network, Topology, inhabitants
from lab.places import LabError
from lab.processes import Lab


def test_the_nodes_have_the_addresses_of_the_incident() -> None:
    addresses = [str(node.address) for node in Topology().nodes]
    assert addresses == ["10.0.1.16", "10.0.1.19", "10.0.1.20"]
    assert [str(node.address6) for node in Topology().nodes] == [
        "fd00:1::16",
        "fd00:1::19",
        "fd00:1::20",
    ]


@pytest.mark.parametrize("count", [0, 8])
def test_there_are_1_to_7_nodes(count: int) -> None:
    with pytest.raises(LabError, match="1 to 7"):
        Topology(count)


def test_only_a_router_leads_to_the_far_host() -> None:
    assert [known.name for known in Topology(1).members] == ["n1", "c1"]
    assert [known.name for known in Topology(1, router=True).members] == ["n1", "c1", "r1", "far1"]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(Topology(2, router=True), logs=tmp_path) as built:
        yield built


def greet(door: socket.socket) -> None:
    """Greet every visitor."""
    while True:
        visitor, _ = door.accept()
        with visitor:
            visitor.sendall(b"good day")


def open_door(lab: Lab, node: str) -> None:
    """Let somebody on `node` greet at PORT, IPv4 and IPv6."""
    with lab.network.inside(node):
        door = socket.create_server(
            ("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True, backlog=8
        )
    with door:
        lab.spawn(node, greet, door, keep=(door.fileno(),))


def visit(lab: Lab, visitor: str, address: object, timeout: float = 5.0) -> bytes:
    """Return how `address` greets somebody on the host `visitor`."""
    with (
        lab.network.inside(visitor),
        socket.create_connection((str(address), PORT), timeout=timeout) as caller,
    ):
        return caller.recv(64)


@pytest.mark.kernel
@pytest.mark.parametrize("visitor", ["c1", "n2", "far1"])
def test_every_host_reaches_a_node(lab: Lab, visitor: str) -> None:
    open_door(lab, "n1")
    node = lab.network["n1"]
    assert visit(lab, visitor, node.address) == b"good day"
    assert visit(lab, visitor, node.address6) == b"good day"


@pytest.mark.kernel
def test_a_vanished_host_is_silent_and_returns(lab: Lab) -> None:
    open_door(lab, "n1")
    node = lab.network["n1"]
    lab.network.link_down("n1")
    with pytest.raises(OSError):  # silence or, later, no route to host
        visit(lab, "c1", node.address, timeout=0.3)
    lab.network.link_up("n1")
    assert visit(lab, "c1", node.address) == b"good day"


@pytest.mark.kernel
def test_a_dropped_port_is_silent_and_returns(lab: Lab) -> None:
    open_door(lab, "n1")
    node = lab.network["n1"]
    lab.network.drop("n1", PORT)
    for address in (node.address, node.address6):
        with pytest.raises(TimeoutError):
            visit(lab, "c1", address, timeout=0.3)
    lab.network.undrop("n1", PORT)
    assert visit(lab, "c1", node.address) == b"good day"


@pytest.mark.kernel
def test_delay_is_felt_and_ends(lab: Lab) -> None:
    open_door(lab, "n1")
    node = lab.network["n1"]
    visit(lab, "c1", node.address)
    lab.network.netem("n1", delay_ms=200)
    began = time.monotonic()
    visit(lab, "c1", node.address)
    assert time.monotonic() - began > 0.2
    lab.network.netem("n1")
    assert visit(lab, "c1", node.address, timeout=0.2) == b"good day"


@pytest.mark.kernel
def test_a_second_lab_on_the_same_kernel_is_refused(lab: Lab) -> None:
    with pytest.raises(LabError, match="another lab"), Network(Topology(1)):
        pass


@pytest.mark.kernel
def test_nothing_is_left(tmp_path: Path) -> None:
    with Lab(Topology(1), logs=tmp_path) as lab:
        open_door(lab, "n1")
        sleeper = lab.exec_in("n1", ["sleep", "60"])
    assert sleeper.code == 128 + signal.SIGTERM
    assert not list(Path("/run/netns").glob(f"{PREFIX}*"))


@pytest.mark.kernel
def test_what_a_killed_lab_left_is_removed(tmp_path: Path) -> None:
    killed = os.fork()
    if killed == 0:
        Lab(Topology(1), logs=tmp_path).__enter__().exec_in("n1", ["sleep", "60"])
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(killed, 0)
    assert list(Path("/run/netns").glob(f"{PREFIX}*"))
    with Lab(Topology(1), logs=tmp_path) as lab:
        here = Path("/run/netns", lab.network["n1"].namespace).stat().st_ino
        assert not list(inhabitants({here}))
    assert not list(Path("/run/netns").glob(f"{PREFIX}*"))
