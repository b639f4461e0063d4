"""Proof of the chain: a kernel with ip_vs, a network, a process on each node."""

from __future__ import annotations

import socket
import time

from lab.net import PORT, VIP, Member
from lab.scenario import Run, scenario

_PATIENCE = 5.0
"""Seconds that a connection may take."""


@scenario("ipvs-table-can-be-written", "each node has an IPVS table of its own, and they connect")
def ipvs_table_can_be_written(run: Run) -> None:
    """Write a table on n1, find it there and not on n2; reach every node from the client."""
    network = run.lab.network
    run.say("a virtual server with three destinations is written on n1")
    service = f"{VIP}:{PORT}"
    network.output("n1", ["ipvsadm", "-A", "-t", service, "-s", "mh", "-b", "mh-port"])
    for node in network.nodes:
        network.output("n1", ["ipvsadm", "-a", "-t", service, "-r", f"{node.address}:{PORT}", "-g"])
    table = network.output("n1", ["ipvsadm", "-Ln"])
    run.check(all(str(node.address) in table for node in network.nodes), "n1 has all three")
    run.check(str(VIP) not in network.output("n2", ["ipvsadm", "-Ln"]), "n2 has a table of its own")
    run.say("the client knocks at every node, IPv4 and IPv6")
    for node in network.nodes:
        for address in (str(node.address), str(node.address6)):
            _knock(run, node, address)


def _knock(run: Run, node: Member, address: str) -> None:
    """Connect from the client to a process on `node` that says its name."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with run.lab.network.inside(node.name):
        door = socket.create_server((address, PORT), family=family)
    began = time.monotonic()
    with door:
        run.lab.spawn(node.name, _answer, door, node.name, keep=(door.fileno(),))
    with (
        run.lab.network.inside("c1"),
        socket.create_connection((address, PORT), timeout=_PATIENCE) as visitor,
    ):
        said = visitor.recv(64).decode()
    run.figure("spawned_and_answered_ms", (time.monotonic() - began) * 1000)
    run.check(said == node.name, f"{node.name} answers at {address}")


def _answer(door: socket.socket, name: str) -> None:
    visitor, _ = door.accept()
    visitor.sendall(name.encode())
