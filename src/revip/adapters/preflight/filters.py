"""Judges this host's packet filter: which clients direct forwarding would lose, and to which rule.

Under direct forwarding the director sees one half of each connection.  revip keeps connection
tracking away from it (docs/forwarding.md, "Beside others' rules"); what that cannot mend is told
here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from revip.adapters.preflight.facts import Facts, Module
from revip.adapters.preflight.standing import Check, Level
from revip.model.ipvs import Forwarding
from revip.model.spec import Spec, VirtualServerSpec

_STATES = re.compile(r"--(?:ct)?state (\S+)")
_PORTS = re.compile(r"--dports? (\S+)")
_CONNTRACK = "net.ipv4.vs.conntrack"


def judge_filter(spec: Spec, server: VirtualServerSpec, facts: Facts) -> Iterable[Check]:
    """Yield what is in the way of packets to `server`; one word when nothing is."""
    title = f"packet filter for {server.name}"
    found = (
        tuple(_direct(spec, server, facts, title))
        if server.forwarding is Forwarding.DIRECT
        else tuple(_masquerade(facts, title))
    )
    yield from found or (Check(title, Level.OK, "nothing is in the way"),)


def _direct(spec: Spec, server: VirtualServerSpec, facts: Facts, title: str) -> Iterable[Check]:
    family = [rule for rule in facts.filters if rule.version == server.address.version]
    for rule in family:
        states = _states(rule.text)
        if rule.text.endswith("-j ACCEPT") and _names(rule.text, server.port) and states == {"NEW"}:
            what = f"accepts new connections only, so all clients fail: {rule.text}"
            mend = "write --ctstate NEW,UNTRACKED (without --syn) there, on every node"
            yield Check(title, Level.WARN, what, mend)
    invalid = [
        rule.text for rule in family if "INVALID" in _states(rule.text) and _drops(rule.text)
    ]
    link, vip, port = server.interface, server.address, server.port
    by_hand = (
        f"iptables -t raw -I PREROUTING -i {link} -d {vip} -p tcp --dport {port} -j CT --notrack"
        " and sysctl -w net.ipv4.vs.conntrack=1"
    )
    if invalid and not spec.manage_host:
        what = f"manage_host is false, and pods and processes of the director fail by {invalid[0]}"
        yield Check(title, Level.WARN, what, by_hand)
    if facts.tracking and not facts.iptables and spec.manage_host:
        what = "connections are tracked, and there is no iptables to except the virtual IP's"
        mend = "install iptables; a rule that drops what is invalid breaks connections till then"
        yield Check(title, Level.WARN, what, mend)


def _masquerade(facts: Facts, title: str) -> Iterable[Check]:
    if not facts.iptables:
        mend = "install iptables, or use forwarding: direct"
        yield Check(title, Level.FAIL, "there is no iptables to masquerade with", mend)
    if facts.modules.get("ip_vs") is Module.LOADED and _CONNTRACK not in facts.sysctls:
        what = f"this kernel has no {_CONNTRACK} (CONFIG_IP_VS_NFCT): backends cannot answer"
        yield Check(title, Level.FAIL, what, "use forwarding: direct, or another kernel")


def _states(rule: str) -> set[str]:
    found = _STATES.search(rule)
    return set(found[1].split(",")) if found and f"! {found[0]}" not in rule else set()


def _names(rule: str, port: int) -> bool:
    """Tell whether a rule is for this port: by itself, in a list or in a range."""
    found = _PORTS.search(rule)
    for part in found[1].split(",") if found else ():
        first, _, last = part.partition(":")
        if first.isdigit() and int(first) <= port <= int(last if last.isdigit() else first):
            return True
    return False


def _drops(rule: str) -> bool:
    return "-j DROP" in rule or "-j REJECT" in rule
