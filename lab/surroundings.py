"""What else lives on control-plane nodes and touches packets: others' rules, others' hands.

Each is what the program really writes, cut down to what meets the VIP's packets.  `iptables`
means the legacy form in user-mode Linux.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

from lab.forking import inside
from lab.net import LINK, PORT, Network, sysctl
from lab.places import LabError

FLUSHED = """\
*filter
:INPUT ACCEPT
:FORWARD ACCEPT
:OUTPUT ACCEPT
COMMIT
"""
KUBE_PROXY = """\
*filter
:INPUT ACCEPT
:FORWARD ACCEPT
:OUTPUT ACCEPT
:KUBE-FORWARD -
:KUBE-FIREWALL -
-A INPUT -j KUBE-FIREWALL
-A FORWARD -j KUBE-FORWARD
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
"""
"""pkg/proxy/iptables/proxier.go; its accept by mark is for services of type NodePort."""
UFW = """\
*filter
:INPUT DROP
:FORWARD ACCEPT
:OUTPUT ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
{ND}
-A INPUT -m conntrack --ctstate INVALID -j DROP
-A INPUT -p {ICMP} -j ACCEPT
-A INPUT -p tcp --dport {PORT} -j ACCEPT
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A OUTPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
"""
"""/etc/ufw/before.rules, `ufw allow PORT/tcp`; forwarding allowed, as nodes with pods need it."""
FIREWALLD = """\
*filter
:INPUT ACCEPT
:FORWARD ACCEPT
:OUTPUT ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -i pod0 -j ACCEPT
-A INPUT -p {ICMP} -j ACCEPT
-A INPUT -p tcp --dport {PORT} -m conntrack --ctstate NEW,UNTRACKED -j ACCEPT
-A INPUT -m conntrack --ctstate INVALID -j DROP
-A INPUT -j REJECT
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT
-A FORWARD -i lo -j ACCEPT
-A FORWARD -i pod0 -j ACCEPT
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -j REJECT
COMMIT
"""
"""Its iptables back-end (src/firewall/core/ipXtables.py); pods are in zone trusted."""
ONLY_NEW = """\
*filter
:INPUT DROP
:FORWARD ACCEPT
:OUTPUT ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
{ND}
-A INPUT -p {ICMP} -j ACCEPT
-A INPUT -p tcp --syn --dport {PORT} -m conntrack --ctstate NEW -j ACCEPT
COMMIT
"""
"""A hand-written filter, by the book of a router that sees both directions."""

_FILTERS = {
    "kube-proxy": KUBE_PROXY,
    "ufw": UFW,
    "firewalld": FIREWALLD,
    "SYN as NEW only": ONLY_NEW,
}
SYSCTLS = {"rp_filter": "1", "arp_ignore": "0", "arp_announce": "0", "accept_local": "0"}
"""What a distribution's `sysctl --system` may put back, for IF; `all.rp_filter` is 1, too."""


@contextlib.contextmanager
def around(network: Network, name: str, version: int) -> Iterator[None]:
    """Have every node in these surroundings for a block."""
    with contextlib.ExitStack() as stack:
        for node in network.nodes:
            stack.enter_context(_around(network, node.name, name, version))
        yield


@contextlib.contextmanager
def _around(network: Network, node: str, name: str, version: int) -> Iterator[None]:
    if name in _FILTERS:
        restore(network, node, version, _FILTERS[name])
        yield
        restore(network, node, version, FLUSHED)
    elif name == "pod masquerading":
        subnet = "10.0.96.0/19" if version == 4 else "fd00:100::/24"
        tool = "iptables" if version == 4 else "ip6tables"
        rule = ["-s", subnet, "!", "-d", subnet, "-j", "MASQUERADE"]
        network.output(node, [tool, "-w", "-t", "nat", "-A", "POSTROUTING", *rule])
        yield
        network.output(node, [tool, "-w", "-t", "nat", "-D", "POSTROUTING", *rule])
    elif name == "sysctls put back":
        with inside(network[node].namespace):
            sysctl("net.ipv4.conf.all.rp_filter", "1")
            for key, value in SYSCTLS.items():
                sysctl(f"net.ipv4.conf.{LINK}.{key}", value)
        yield
        with inside(network[node].namespace):
            sysctl("net.ipv4.conf.all.rp_filter", "0")
    else:
        if name == "rules flushed":
            flush(network, node, version)
        yield


def flush(network: Network, node: str, version: int) -> None:
    """Take away what is not its own, as systemd-networkd does at a restart."""
    family = f"-{version}"
    network.output(node, ["ip", family, "rule", "flush", "protocol", "118"])
    network.output(node, ["ip", family, "route", "flush", "table", "all", "proto", "118"])


def restore(network: Network, node: str, version: int, rules: str) -> None:
    """Give the node this filter table.  Raises LabError with iptables' complaint."""
    nd = "-A INPUT -p ipv6-icmp -j ACCEPT" if version == 6 else ""
    text = rules.format(ICMP="icmp" if version == 4 else "ipv6-icmp", PORT=PORT, ND=nd)
    tool = "iptables-restore" if version == 4 else "ip6tables-restore"
    with network.inside(node):
        done = subprocess.run([tool], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{node}: {tool}: {done.stderr.strip()}")
