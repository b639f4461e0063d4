"""What is on-link by an interface, from files as the kernel writes them."""

from __future__ import annotations

import sys
from ipaddress import ip_network
from pathlib import Path

import pytest

from revip.adapters.subnets import subnets
from revip.model.spec import LinkName

ROUTE = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0101000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0001000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth0\t0065000A\t1301000A\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth0\t0A01000A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0
eth1\t0009000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""
ADDRESSES = """\
fd000001000000000000000000000016 02 40 00 80     eth0
fd000001000000000000000000000010 02 80 00 e0     eth0
fe800000000000000000000000000016 02 40 20 80     eth0
"""


@pytest.mark.skipif(sys.byteorder != "little", reason="the file's words are in the CPU's order")
def test_connected_subnets_are_found_and_gateways_and_single_addresses_are_not(
    tmp_path: Path,
) -> None:
    (tmp_path / "route").write_text(ROUTE)
    (tmp_path / "if_inet6").write_text(ADDRESSES)
    found = subnets(LinkName("eth0"), tmp_path)
    assert found == (ip_network("10.0.1.0/24"), ip_network("fd00:1::/64"))


def test_a_host_without_either_family_has_none(tmp_path: Path) -> None:
    assert subnets(LinkName("eth0"), tmp_path) == ()
