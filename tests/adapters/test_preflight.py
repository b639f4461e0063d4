"""Whether this host can do what is asked: every check, good and bad."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from revip.adapters.preflight.facts import (
    Address,
    Facts,
    FilterRule,
    Link,
    Listener,
    Module,
    SocketPath,
    sysctl_path,
    wanted_sysctls,
)
from revip.adapters.preflight.judge import preflight
from revip.adapters.preflight.read import read_facts
from revip.adapters.preflight.standing import Check, Level, refusals
from revip.model.health import Backend, BackendName
from revip.model.ipvs import Forwarding, Port
from revip.model.spec import LinkName, NodeName, Spec, VirtualServerSpec

BACKENDS = tuple(
    Backend(BackendName(name), ip_address(address), Port(6443))
    for name, address in (("n1", "10.0.1.16"), ("n2", "10.0.1.19"))
)
SERVER = VirtualServerSpec(
    "api", ip_address("10.0.1.10"), Port(6443), LinkName("eth0"), NodeName("n1"), BACKENDS
)
SPEC = Spec(NodeName("n1"), None, (SERVER,))
MASQUERADING = replace(SPEC, virtual_servers=(replace(SERVER, forwarding=Forwarding.MASQUERADE),))
ALL_CAPABILITIES = (1 << 41) - 1
OWN = Address(LinkName("eth0"), ip_address("10.0.1.16"))


def listener(address: str, port: int = 6443) -> Listener:
    return Listener(ip_address(address), Port(port))


GOOD = Facts(
    euid=0,
    capabilities=ALL_CAPABILITIES,
    modules={"ip_vs": Module.LOADED, "ip_vs_mh": Module.BUILT_IN, "xt_ipvs": Module.LOADED},
    links={"lo": Link(True, True), "eth0": Link(True, True), "eth1": Link(True, True)},
    addresses=frozenset({OWN}),
    listeners=frozenset({listener("::")}),
    processes=frozenset({"systemd", "kube-apiserver"}),
    socket=SocketPath.FREE,
    sysctls={"net.ipv4.vs.conntrack": "1"},
)


def test_a_good_host_passes_every_check() -> None:
    checks = preflight(SPEC, GOOD)
    assert {check.level for check in checks} == {Level.OK}
    assert refusals(checks) == ()
    assert {"rights", "socket", "module ip_vs", "interface eth0", "backend port 6443"} <= {
        check.name for check in checks
    }


def found(facts: Facts, name: str, spec: Spec = SPEC) -> Check:
    (check,) = (check for check in preflight(spec, facts) if check.name == name)
    return check


def on_subnet(*texts: str) -> Facts:
    interfaces = (ip_interface(text) for text in texts)
    own = (Address(LinkName("eth0"), each.ip, each.network.prefixlen) for each in interfaces)
    return replace(GOOD, addresses=frozenset(own))


def test_a_virtual_ip_outside_every_subnet_is_told() -> None:
    outside = on_subnet("10.0.2.16/24", "fd00::1/64", "fe80::1/64", "10.0.1.10/32")
    check = found(outside, "subnet of 10.0.1.10")
    assert check.level is Level.WARN
    assert "is in no subnet of eth0 (10.0.2.0/24)" in check.what
    assert check.mend is not None
    for inside in (on_subnet("10.0.1.16/24"), on_subnet("10.0.2.16/24", "10.0.0.1/16")):
        assert not any(each.name.startswith("subnet") for each in preflight(SPEC, inside))


def vip_on(link: str) -> Facts:
    virtual = Address(LinkName(link), SERVER.address)
    return replace(GOOD, addresses=frozenset({OWN, virtual}))


STRANGE = [
    (replace(GOOD, capabilities=0, euid=1000), "rights", Level.FAIL, "not root and without CAP"),
    (replace(GOOD, capabilities=0), "rights", Level.FAIL, "root without CAP_NET_ADMIN"),
    (replace(GOOD, capabilities=1 << 12), "raw sockets", Level.WARN, "CAP_NET_RAW is missing"),
    (replace(GOOD, socket=SocketPath.OCCUPIED), "socket", Level.FAIL, "is not a socket"),
    (replace(GOOD, socket=SocketPath.ANSWERED), "socket", Level.OK, "an agent is running"),
    (replace(GOOD, socket=SocketPath.STALE), "socket", Level.OK, "left behind"),
    (replace(GOOD, unwritable=("/run/revip",)), "directory", Level.FAIL, "/run/revip cannot be"),
    (replace(GOOD, modules={}), "module ip_vs", Level.WARN, "/lib/modules is not here"),
    (
        replace(GOOD, modules={"ip_vs": Module.LOADABLE}),
        "module ip_vs",
        Level.WARN,
        "modprobe ip_vs; echo ip_vs",
    ),
    (
        replace(GOOD, modules={"ip_vs_mh": Module.LOADABLE}),
        "module ip_vs_mh",
        Level.OK,
        "the kernel loads it",
    ),
    (
        replace(GOOD, modules={"ip_vs_mh": Module.LOADABLE}, selinux_enforcing=True),
        "module ip_vs_mh",
        Level.WARN,
        "SELinux",
    ),
    (
        replace(GOOD, modules={"ip_vs": Module.ABSENT}),
        "module ip_vs",
        Level.FAIL,
        "this kernel does not have it",
    ),
    (
        replace(GOOD, links={"lo": Link(True, True), "ens3": Link(True, True)}),
        "interface eth0",
        Level.FAIL,
        "to one of: ens3",
    ),
    (
        replace(GOOD, links={"eth0": Link(up=False, carrier=False)}),
        "interface eth0",
        Level.FAIL,
        "ip link set eth0 up",
    ),
    (
        replace(GOOD, links={"eth0": Link(up=True, carrier=False)}),
        "interface eth0",
        Level.WARN,
        "no carrier",
    ),
    (replace(GOOD, addresses=frozenset()), "node address", Level.FAIL, "no IPv4 address of its"),
    (vip_on("eth1"), "address 10.0.1.10", Level.FAIL, "ip address del 10.0.1.10 dev eth1"),
    (vip_on("eth0"), "address 10.0.1.10", Level.OK, "is on eth0"),
    (vip_on("dummy-revip"), "address 10.0.1.10", Level.OK, "is on dummy-revip"),
    (
        replace(GOOD, listeners=frozenset({listener("::"), listener("10.0.1.10")})),
        "port 10.0.1.10:6443",
        Level.FAIL,
        "another program listens",
    ),
    (
        replace(GOOD, listeners=frozenset({listener("10.0.1.16")})),
        "backend port 6443",
        Level.FAIL,
        "listens on 10.0.1.16 only, so it refuses what is sent to 10.0.1.10",
    ),
    (
        replace(GOOD, listeners=frozenset({listener("0.0.0.0", 80)})),
        "backend port 6443",
        Level.WARN,
        "nothing listens",
    ),
    (
        replace(GOOD, links={**GOOD.links, "kube-ipvs0": Link(False, False)}),
        "kube-proxy",
        Level.WARN,
        "excludeCIDRs",
    ),
    (
        replace(GOOD, tracking=True, iptables=False),
        "packet filter for api",
        Level.WARN,
        "install iptables",
    ),
    (replace(GOOD, processes=frozenset({"keepalived"})), "keepalived", Level.WARN, "is running"),
    (replace(GOOD, processes=frozenset({"kube-vip"})), "kube-vip", Level.WARN, "static pod"),
]


@pytest.mark.parametrize(("facts", "name", "level", "expected"), STRANGE)
def test_a_strange_host_is_told_with_the_mend(
    facts: Facts, name: str, level: Level, expected: str
) -> None:
    check = found(facts, name)
    assert check.level is level
    assert expected in str(check)
    assert "\n" not in str(check)
    assert check.mend or level is Level.OK


def test_only_what_an_agent_cannot_live_with_stops_its_start() -> None:
    stopping = {check.name for facts, *_ in STRANGE for check in refusals(preflight(SPEC, facts))}
    assert stopping == {"rights", "socket", "directory"}
    assert refusals(preflight(SPEC, replace(GOOD, socket=SocketPath.STALE))) == ()


def test_a_node_address_must_be_on_the_node() -> None:
    elsewhere = replace(SPEC, node_address=ip_address("10.0.1.17"))
    assert "10.0.1.17 is not on this node" in str(found(GOOD, "node address", elsewhere))


def test_the_virtual_address_is_no_address_of_the_nodes_own() -> None:
    facts = replace(vip_on("eth0"), addresses=vip_on("eth0").addresses - {OWN})
    assert found(facts, "node address").level is Level.FAIL


def test_under_masquerade_a_backend_may_listen_on_its_own_address_only() -> None:
    facts = replace(GOOD, listeners=frozenset({listener("10.0.1.16")}))
    assert found(facts, "backend port 6443", MASQUERADING).level is Level.OK
    assert found(facts, "module xt_ipvs", MASQUERADING).level is Level.OK


def test_only_this_nodes_own_backend_is_looked_at() -> None:
    other = replace(SPEC, node=NodeName("n9"))
    facts = replace(GOOD, addresses=frozenset({Address(LinkName("eth0"), ip_address("10.0.1.99"))}))
    assert not any(check.name.startswith("backend port") for check in preflight(other, facts))


@pytest.mark.parametrize(
    ("manage_host", "writable", "level", "expected"),
    [
        (True, True, Level.OK, "will be set at start"),
        (True, False, Level.FAIL, "/proc/sys cannot be written"),
        (False, True, Level.FAIL, "sysctl -w net.ipv4.conf.eth0.arp_ignore=1"),
    ],
)
def test_sysctls_are_set_by_the_agent_or_named_for_the_operator(
    manage_host: bool, writable: bool, level: Level, expected: str
) -> None:
    facts = replace(GOOD, sysctls={"net.ipv4.conf.eth0.arp_ignore": "0"}, sysctls_writable=writable)
    check = found(facts, "sysctls for api", replace(SPEC, manage_host=manage_host))
    assert check.level is level
    assert expected in str(check)


def test_a_sysctl_that_matters_only_at_one_value_is_left_at_others() -> None:
    virtual = replace(
        SERVER, address=ip_address("fd00::10"), forwarding=Forwarding.MASQUERADE, backends=()
    )
    spec = replace(SPEC, virtual_servers=(virtual,), manage_host=False)
    for value, level in (("0", Level.OK), ("1", Level.FAIL)):
        facts = replace(GOOD, sysctls={"net.ipv6.conf.eth0.accept_ra": value})
        assert found(facts, "sysctls for api", spec).level is level


@pytest.mark.parametrize(
    ("rule", "level"),
    [
        ("-A INPUT -p tcp --dport 6443 -m conntrack --ctstate NEW -j ACCEPT", Level.WARN),
        ("-A INPUT -p tcp -m multiport --dports 22,6000:7000 -m state --state NEW -j ACCEPT", None),
        ("-A INPUT -p tcp --dport 6443 -m conntrack --ctstate NEW,UNTRACKED -j ACCEPT", Level.OK),
        ("-A INPUT -p tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT", Level.OK),
        ("-A FORWARD -m conntrack --ctstate INVALID -j DROP", Level.OK),
    ],
)
def test_a_filter_that_accepts_new_connections_only_is_told(rule: str, level: Level | None) -> None:
    facts = replace(GOOD, filters=(FilterRule(4, rule),))
    check = found(facts, "packet filter for api")
    assert check.level is (level or Level.WARN)
    assert found(facts, "packet filter for api", MASQUERADING).level is Level.OK
    other = replace(GOOD, filters=(FilterRule(6, rule),))
    assert found(other, "packet filter for api").level is Level.OK


def test_who_prepares_the_host_by_hand_is_told_how_to_pass_by_a_firewall() -> None:
    dropping = FilterRule(4, "-A FORWARD -m conntrack --ctstate INVALID -j DROP")
    facts = replace(GOOD, filters=(dropping,))
    check = found(facts, "packet filter for api", replace(SPEC, manage_host=False))
    assert check.level is Level.WARN
    assert "-d 10.0.1.10 -p tcp --dport 6443 -j CT --notrack" in check.mend


def test_masquerade_needs_iptables_and_connection_tracking_in_ipvs() -> None:
    conntrack = {"net.ipv4.vs.conntrack": "1"}
    good = replace(GOOD, sysctls=conntrack)
    assert found(good, "packet filter for api", MASQUERADING).level is Level.OK
    lacking = found(replace(good, iptables=False), "packet filter for api", MASQUERADING)
    assert lacking.level is Level.FAIL
    lacking = found(replace(good, sysctls={}), "packet filter for api", MASQUERADING)
    assert "CONFIG_IP_VS_NFCT" in lacking.what


def test_what_auto_has_chosen_is_told_with_the_reason() -> None:
    automatic = replace(SERVER, automatic=True, forwarding_reason="the ports are equal")
    spec = replace(SPEC, virtual_servers=(automatic,))
    assert found(GOOD, "forwarding of api", spec).what == (
        "forwarding is direct (auto): the ports are equal"
    )


# What is read, on a little-endian machine (proc_pid_net(5)), from a directory that stands for /.

STATUS = "Name:\trevip\nUid:\t1000\t0\t0\t0\nCapEff:\t0000000000003000\n"
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 1001000A:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 1001000A:192B 1401000A:D431 01 00000000:00000000 00:00000000 00000000     0        0 1 1
"""
TCP6 = """\
  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A
   1: 000000FD000000000000000010000000:0050 00000000000000000000000000000000:0000 0A
   2: 0000000000000000FFFF00000100007F:0051 00000000000000000000000000000000:0000 0A
"""
FILES = {
    "proc/self/status": STATUS,
    "proc/modules": "ip_vs_rr 16384 2 - Live 0x0\nip_vs 200704 4 ip_vs_rr, Live 0x0\n",
    "proc/sys/kernel/osrelease": "6.1.0\n",
    "lib/modules/6.1.0/modules.dep": (
        "kernel/net/netfilter/ipvs/ip_vs_mh.ko.xz: kernel/net/netfilter/ipvs/ip_vs.ko.xz\n"
    ),
    "lib/modules/6.1.0/modules.builtin": "kernel/net/netfilter/xt_ipvs.ko\n",
    "proc/net/tcp": TCP,
    "proc/net/tcp6": TCP6,
    "proc/1/comm": "systemd\n",
    "proc/77/comm": "keepalived\n",
    "sys/fs/selinux/enforce": "1",
    "proc/sys/net/ipv4/conf/eth0/arp_ignore": "0\n",
    "run/.keep": "",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def read(root: Path, spec: Spec = SPEC) -> Facts:
    return read_facts(
        spec, root, lambda: ({"eth0": Link(True, True)}, frozenset({OWN})), lambda: ()
    )


def test_the_facts_are_read_from_proc_and_sys(root: Path) -> None:
    facts = read(root)
    assert (facts.euid, facts.capabilities) == (0, 0x3000)
    assert facts.modules == {"ip_vs": Module.LOADED, "ip_vs_mh": Module.LOADABLE}
    assert facts.listeners == {
        listener("10.0.1.16"),
        listener("::", 8080),
        listener("fd00::10", 80),
        listener("127.0.0.1", 81),
    }
    assert facts.processes == {"systemd", "keepalived"}
    assert facts.socket is SocketPath.FREE
    assert facts.sysctls == {"net.ipv4.conf.eth0.arp_ignore": "0"}
    assert facts.sysctls_writable
    assert facts.unwritable == ()
    assert facts.selinux_enforcing


def test_modules_are_found_wherever_they_are(root: Path) -> None:
    assert read(root, MASQUERADING).modules["xt_ipvs"] is Module.BUILT_IN
    other = replace(SPEC, virtual_servers=(replace(SERVER, scheduler="sh", flags=frozenset()),))
    assert read(root, other).modules["ip_vs_sh"] is Module.ABSENT
    (root / "lib/modules/6.1.0/modules.dep").unlink()
    assert read(root, other).modules["ip_vs_sh"] is Module.UNKNOWN
    (root / "sys/module/ip_vs_sh").mkdir(parents=True)
    assert read(root, other).modules["ip_vs_sh"] is Module.LOADED


def test_an_empty_host_is_read_without_an_error(tmp_path: Path) -> None:
    facts = read(tmp_path)
    assert facts.capabilities == 0
    assert facts.modules["ip_vs"] is Module.UNKNOWN


def test_a_dot_in_an_interface_name_is_not_a_level() -> None:
    vlan = replace(SERVER, interface=LinkName("eth0.7"))
    paths = {sysctl_path(each.name) for each in wanted_sysctls(SPEC, vlan)}
    assert "net/ipv4/conf/eth0.7/arp_ignore" in paths


@pytest.fixture
def control(tmp_path: Path) -> Iterator[socket.socket]:
    path = tmp_path / "run/revip.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
        control.bind(str(path))
        yield control


def test_a_running_agent_is_told_from_a_socket_left_behind(
    tmp_path: Path, control: socket.socket
) -> None:
    spec = replace(SPEC, socket=Path("/run/revip.sock"))
    (tmp_path / "proc").mkdir()
    assert read(tmp_path, spec).socket is SocketPath.STALE
    control.listen()
    assert read(tmp_path, spec).socket is SocketPath.ANSWERED
    path = tmp_path / "run/revip.sock"
    path.unlink()
    path.write_text("a file")
    assert read(tmp_path, spec).socket is SocketPath.OCCUPIED


def test_a_directory_that_cannot_be_made_is_named(root: Path) -> None:
    (root / "run/revip").write_text("a file in the way")
    assert read(root).unwritable == ("/run/revip",)


def test_this_very_host_can_be_read() -> None:
    facts = read_facts(SPEC)
    assert facts.euid == os.geteuid()
    assert facts.links["lo"] == Link(up=True, carrier=True)
    assert Address(LinkName("lo"), ip_address("127.0.0.1"), 8) in facts.addresses
    assert preflight(SPEC, facts)
