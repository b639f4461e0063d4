"""Packet-filter rules as iptables prints them, and as they are written."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from revip.adapters.host.packet_filter import Rule, Seen, _changes, _place, parsed
from revip.model.host import Snat, Untracked
from revip.model.ipvs import Port
from revip.model.spec import LinkName

VIP = ip_address("10.0.0.1")
SNAT = Snat(VIP, Port(6443))
SIX = Snat(ip_address("fd00::1"), Port(443))
RAW = Untracked(LinkName("eth0"), VIP, Port(6443))
MINE = Untracked(LinkName("eth0"), VIP, Port(6443), ip_address("10.0.0.2"))
ICMP = "-A REVIP-PREROUTING -d 10.0.0.1/32 -i eth0 -p icmp -j CT --notrack"
TCP = "-A REVIP-PREROUTING -d 10.0.0.1/32 -i eth0 -p tcp -m tcp --dport 6443 -j CT --notrack"


@pytest.mark.parametrize(
    ("fact", "text", "found"),
    [
        (SNAT, "-P POSTROUTING ACCEPT", Seen()),
        (SNAT, "-N REVIP-POSTROUTING", Seen(exists=True)),
        (SNAT, "-A POSTROUTING -j REVIP-POSTROUTING", Seen(jumps=1)),
        (
            SNAT,
            "-A REVIP-POSTROUTING -m ipvs --vaddr 10.0.0.1/32 --vport 6443 -j MASQUERADE",
            Seen(rules=frozenset({SNAT})),
        ),
        (
            SIX,
            "-A REVIP-POSTROUTING -m ipvs --vaddr fd00::1 --vport 443 -j MASQUERADE",
            Seen(rules=frozenset({SIX})),
        ),
        (
            SNAT,
            "-A REVIP-POSTROUTING -m ipvs --vaddr 10.0.0.1/32 --vport 6443 -j ACCEPT",
            Seen(),
        ),
        (RAW, f"{ICMP}\n{TCP}", Seen(rules=frozenset({RAW}))),
        (RAW, f"{ICMP.replace('-d', '-s 10.0.0.2/32 -d')}\n{TCP}", Seen()),
        (RAW, TCP, Seen()),
        (RAW, ICMP, Seen()),
    ],
)
def test_rules_are_read_as_iptables_prints_them(fact: Rule, text: str, found: Seen) -> None:
    assert parsed(_place(fact), text) == found


def test_foreign_rules_are_none_of_ours() -> None:
    foreign = f"-A PREROUTING -p tcp -j DROP\n{TCP.replace('REVIP', 'CALI')}"
    assert parsed(_place(RAW), foreign) == Seen()


@pytest.mark.parametrize("fact", [SNAT, SIX, RAW, MINE])
def test_what_is_written_is_read_as_the_same(fact: Rule) -> None:
    place = _place(fact)
    lines = list(_changes(place, Seen(), frozenset({fact})))
    text = "\n".join([f"-N {place.chain}", *lines]).replace("-I PREROUTING 1", "-A PREROUTING")
    text = text.replace("-I POSTROUTING 1", "-A POSTROUTING")
    assert parsed(place, text) == Seen(exists=True, jumps=1, rules=frozenset({fact}))


def test_the_last_rule_takes_the_chain_and_every_jump_with_it() -> None:
    lines = _changes(_place(RAW), Seen(exists=True, jumps=2, rules=frozenset({RAW})), frozenset())
    assert list(lines) == [
        "-D PREROUTING -j REVIP-PREROUTING",
        "-D PREROUTING -j REVIP-PREROUTING",
        "-F REVIP-PREROUTING",
        "-X REVIP-PREROUTING",
    ]
