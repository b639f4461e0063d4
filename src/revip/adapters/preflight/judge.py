"""Judges the facts: one check per question, each with what is the case and how to mend it."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network

from revip.adapters.preflight.facts import Facts, Module, SocketPath, wanted_modules, wanted_sysctls
from revip.adapters.preflight.filters import judge_filter
from revip.adapters.preflight.standing import Check, Level, judge_standing
from revip.model.ipvs import Forwarding, at
from revip.model.spec import DUMMY, Spec, VirtualServerSpec
from revip.planner.forwarding import choice

RIVALS = {
    "keepalived": "keep it for other addresses only, or stop it: the two would fight",
    "kube-vip": "it answers for the same virtual IP: remove its static pod manifest first",
}
"""Programs that do what revip does, by process name."""


def preflight(spec: Spec, facts: Facts) -> tuple[Check, ...]:
    """Return every check of `spec` on the host that `facts` describe."""
    checks = [*judge_standing(facts), _socket(spec, facts)]
    for server in spec.virtual_servers:
        checks += _modules(server, facts)
        checks += _interface(spec, server, facts)
        checks += _virtual_address(server, facts)
        checks += _subnet(server, facts)
        checks += _sysctls(spec, server, facts)
        checks += _ports(spec, server, facts)
        checks += judge_filter(spec, server, facts)
        if server.automatic:
            checks.append(Check(f"forwarding of {server.name}", Level.OK, choice(server)))
    checks += _neighbors(facts)
    return tuple(dict.fromkeys(checks))


def _socket(spec: Spec, facts: Facts) -> Check:
    path = spec.socket
    match facts.socket:
        case SocketPath.OCCUPIED:
            mend = "remove it, or set agent.socket to another path"
            return Check("socket", Level.FAIL, f"{path} is not a socket", mend, stops=True)
        case SocketPath.ANSWERED:
            what = f"an agent is running on this node and answers at {path}"
            return Check("socket", Level.OK, what, stops=True)
        case SocketPath.STALE:
            return Check("socket", Level.OK, f"{path} was left behind and will be replaced")
        case SocketPath.FREE:
            return Check("socket", Level.OK, f"{path} is free")


def _modules(server: VirtualServerSpec, facts: Facts) -> Iterable[Check]:
    for name in wanted_modules(server):
        yield _module(name, facts.modules.get(name, Module.UNKNOWN), facts)


def _module(name: str, state: Module, facts: Facts) -> Check:
    title = f"module {name}"
    load = f"modprobe {name}; echo {name} >> /etc/modules-load.d/revip.conf"
    if facts.selinux_enforcing:
        load += " (on the host: SELinux keeps containers from loading modules)"
    match state:
        case Module.LOADED | Module.BUILT_IN:
            return Check(title, Level.OK, state.value)
        case Module.LOADABLE if name != "ip_vs" and not facts.selinux_enforcing:
            return Check(title, Level.OK, "not loaded; the kernel loads it when it is needed")
        case Module.LOADABLE:
            return Check(title, Level.WARN, "not loaded, but there to be loaded", load)
        case Module.ABSENT:
            mend = (
                "install the kernel's full module package (linux-modules-extra or kernel-modules)"
            )
            return Check(title, Level.FAIL, "this kernel does not have it", mend)
        case Module.UNKNOWN:
            what = "not loaded, and /lib/modules is not here to look for it"
            return Check(title, Level.WARN, what, load)


def _interface(spec: Spec, server: VirtualServerSpec, facts: Facts) -> Iterable[Check]:
    title = f"interface {server.interface}"
    link = facts.links.get(server.interface)
    if link is None:
        there = ", ".join(sorted(name for name in facts.links if name != "lo")) or "none"
        mend = f"set virtual_servers[].interface to one of: {there}"
        yield Check(title, Level.FAIL, "does not exist", mend)
        return
    if not link.up:
        yield Check(title, Level.FAIL, "is down", f"ip link set {server.interface} up")
    elif not link.carrier:
        yield Check(title, Level.WARN, "has no carrier", "look at the cable or the other end")
    else:
        yield Check(title, Level.OK, "is up")
    yield from _own_address(spec, server, facts)


def _own_address(spec: Spec, server: VirtualServerSpec, facts: Facts) -> Iterable[Check]:
    here = {each.address for each in facts.addresses}
    if spec.node_address is not None and spec.node_address not in here:
        mend = "set node_address to an address of this node, or leave it out"
        what = f"{spec.node_address} is not on this node"
        yield Check("node address", Level.FAIL, what, mend)
    usable = [
        each.address
        for each in facts.addresses
        if each.link == server.interface
        and each.address != server.address
        and each.address.version == server.address.version
        and not each.address.is_link_local
    ]
    if spec.node_address is None and not usable:
        what = f"{server.interface} has no IPv{server.address.version} address of its own"
        mend = "give it one, or set node_address"
        yield Check("node address", Level.FAIL, what, mend)


def _virtual_address(server: VirtualServerSpec, facts: Facts) -> Iterable[Check]:
    title = f"address {server.address}"
    ours = {server.interface, DUMMY}
    holders = sorted({each.link for each in facts.addresses if each.address == server.address})
    for link in holders:
        if link not in ours:
            mend = f"remove it there: ip address del {server.address} dev {link}"
            yield Check(title, Level.FAIL, f"is on {link}, where revip did not put it", mend)
    if not holders:
        yield Check(title, Level.OK, "is not on this node yet")
    elif ours.issuperset(holders):
        yield Check(title, Level.OK, f"is on {' and '.join(holders)}")


def _subnet(server: VirtualServerSpec, facts: Facts) -> Iterable[Check]:
    """Hosts of the segment ask for the virtual IP only if it is of their own subnet."""
    networks = {
        ip_network((each.address, each.prefix), strict=False)
        for each in facts.addresses
        if each.link == server.interface
        and each.address not in (server.address,)
        and each.address.version == server.address.version
        and not each.address.is_link_local
        and each.prefix is not None
        and each.prefix < each.address.max_prefixlen
    }
    if networks and not any(server.address in network for network in networks):
        title, shown = f"subnet of {server.address}", ", ".join(sorted(map(str, networks)))
        mend = (
            "choose a free address of that subnet, or see to it that the clients and their routers"
            f" have a route to it on this segment (ip route add {server.address} dev ...)"
        )
        what = f"is in no subnet of {server.interface} ({shown}): neighbors will not ask for it"
        yield Check(title, Level.WARN, what, mend)


def _sysctls(spec: Spec, server: VirtualServerSpec, facts: Facts) -> Iterable[Check]:
    off = {
        each.name: each.value
        for each in wanted_sysctls(spec, server)
        if facts.sysctls.get(each.name, each.value) != each.value
        and each.only_if in (None, facts.sysctls[each.name])
    }
    title = f"sysctls for {server.name}"
    if not off:
        yield Check(title, Level.OK, "are as they must be")
        return
    shown = ", ".join(f"{name}={facts.sysctls[name]}" for name in sorted(off))
    command = "sysctl -w " + " ".join(f"{name}={value}" for name, value in sorted(off.items()))
    if not spec.manage_host:
        yield Check(title, Level.FAIL, f"manage_host is false, and {shown}", command)
    elif not facts.sysctls_writable:
        mend = f"run privileged, or on the host: {command}"
        yield Check(title, Level.FAIL, f"/proc/sys cannot be written, and {shown}", mend)
    else:
        yield Check(title, Level.OK, f"{len(off)} will be set at start: {', '.join(sorted(off))}")


def _ports(spec: Spec, server: VirtualServerSpec, facts: Facts) -> Iterable[Check]:
    endpoint = at(server.address, server.port)
    if any(at(each.address, each.port) == endpoint for each in facts.listeners):
        mend = f"stop it, or let it listen on another address (ss -ltnp 'sport = {server.port}')"
        yield Check(f"port {endpoint}", Level.FAIL, "another program listens on it", mend)
    here = {each.address for each in facts.addresses}
    for backend in server.backends:
        if str(backend.name) == spec.node or backend.address in here:
            yield _backend_port(server, backend.address.version, backend.port, facts)


def _backend_port(server: VirtualServerSpec, version: int, port: int, facts: Facts) -> Check:
    title = f"backend port {port}"
    listeners = [each for each in facts.listeners if each.port == port and each.serves(version)]
    if not listeners:
        mend = "start the server; revip takes it in when it answers"
        return Check(title, Level.WARN, "nothing listens on it on this node", mend)
    if any(each.anywhere for each in listeners):
        return Check(title, Level.OK, "its server accepts on every address, the virtual IP too")
    where = ", ".join(sorted(str(each.address) for each in listeners))
    if server.forwarding is not Forwarding.DIRECT:
        return Check(title, Level.OK, f"its server listens on {where}")
    what = f"its server listens on {where} only, so it refuses what is sent to {server.address}"
    every = "0.0.0.0" if version == 4 else "::"  # noqa: S104 - it is advice, nothing is bound
    mend = f"let it listen on {every} (kube-apiserver --bind-address), or use masquerade"
    return Check(title, Level.FAIL, what, mend)


def _neighbors(facts: Facts) -> Iterable[Check]:
    if "kube-ipvs0" in facts.links:
        what = (
            "kube-proxy is in IPVS mode (kube-ipvs0) and deletes virtual servers it does not know"
        )
        mend = "set ipvs.excludeCIDRs to the virtual IP and strictARP: true in its configuration"
        yield Check("kube-proxy", Level.WARN, what, mend)
    for name, mend in RIVALS.items():
        if name in facts.processes:
            yield Check(name, Level.WARN, "is running on this node", mend)
