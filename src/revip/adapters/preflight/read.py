"""Reads the facts: /proc, /sys, the control socket, and addresses by rtnetlink(7).

Every path hangs below a root that tests replace.  What cannot be read counts as not there; only
missing rights of our own are facts by themselves.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

from revip.adapters.preflight.facts import (
    Address,
    Facts,
    FilterRule,
    Link,
    Listener,
    Module,
    SocketPath,
    sysctl_path,
    wanted_modules,
    wanted_sysctls,
)
from revip.adapters.preflight.standing import below, read_standing, text
from revip.model.ipvs import IPAddress, Port
from revip.model.spec import LinkName, Spec

Network = tuple[Mapping[str, Link], frozenset[Address]]
IFF_UP = 0x1
LISTEN = "0A"
"""TCP_LISTEN as /proc/net/tcp has it (include/net/tcp_states.h)."""
SAVED_WITHIN = 5.0
"""Seconds for iptables-save; a host with tens of thousands of rules takes one."""
ANSWER_WITHIN = 0.5
"""Seconds in which a living agent accepts on its socket."""


def read_facts(
    spec: Spec,
    root: Path = Path("/"),
    network: Callable[[], Network] | None = None,
    filters: Callable[[], tuple[FilterRule, ...] | None] | None = None,
) -> Facts:
    """Return the facts about this host that `spec` depends on; changes nothing.

    Blocks for as long as /proc takes to read, and half a second when an agent hangs.  To be
    called before the event loop runs, or in a thread: pyroute2's blocking calls need a loop of
    their own.
    """
    standing = read_standing(spec, root)
    links, addresses = (network or read_network)()
    needed = {each for server in spec.virtual_servers for each in wanted_sysctls(spec, server)}
    files = {each.name: root / "proc/sys" / sysctl_path(each.name) for each in needed}
    rules = (filters or read_filters)()
    values = {name: value for name, file in files.items() if (value := text(file).strip())}
    return Facts(
        euid=standing.euid,
        capabilities=standing.capabilities,
        unwritable=standing.unwritable,
        modules={
            name: _module(root, name)
            for server in spec.virtual_servers
            for name in wanted_modules(server)
        },
        links=links,
        addresses=addresses,
        listeners=frozenset(_listeners(root)),
        processes=frozenset(_processes(root)),
        socket=_socket(below(root, spec.socket)),
        sysctls=values,
        sysctls_writable=all(os.access(files[name], os.W_OK) for name in values),
        selinux_enforcing=text(root / "sys/fs/selinux/enforce").strip() == "1",
        iptables=rules is not None,
        tracking=(root / "proc/sys/net/netfilter/nf_conntrack_count").exists(),
        filters=rules or (),
    )


def read_network() -> Network:
    """Return the links and addresses of this network namespace, by rtnetlink(7).

    Not by /sys/class/net, which shows the namespace of whoever mounted it.
    """
    from pyroute2 import IPRoute  # a tenth of a second that importing this must not cost

    with IPRoute() as netlink:
        found = {link["index"]: link for link in netlink.get_links()}
        names = {index: str(link.get_attr("IFLA_IFNAME")) for index, link in found.items()}
        links = {names[index]: _link(link) for index, link in found.items()}
        addresses = frozenset(
            Address(LinkName(names.get(each["index"], "?")), ip_address(text), each["prefixlen"])
            for each in netlink.get_addr()
            if (text := each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS"))
        )
    return links, addresses


def read_filters() -> tuple[FilterRule, ...] | None:
    """Return the rules of table filter that matter here; None when there is no iptables.

    Without naming a table, so that no packet-filter module is loaded by our asking.
    """
    found: dict[FilterRule, None] = {}
    programs = 0
    for version, name in ((4, "iptables"), (6, "ip6tables")):
        for form in ("", "-legacy", "-nft"):
            if shutil.which(f"{name}{form}-save") is None:
                continue
            programs += 1
            for rule in _filter_rules(f"{name}{form}-save"):
                found[FilterRule(version, rule)] = None
    return tuple(found) if programs else None


def _filter_rules(program: str) -> Iterable[str]:
    try:
        done = subprocess.run(  # noqa: S603 - its name is ours
            [program], capture_output=True, text=True, timeout=SAVED_WITHIN, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return
    table = ""
    for line in done.stdout.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif table == "filter" and line.startswith("-A ") and ("state " in line):
            yield line


def _link(message: Any) -> Link:
    return Link(bool(message["flags"] & IFF_UP), bool(message.get_attr("IFLA_CARRIER")))


def _module(root: Path, name: str) -> Module:
    loaded = re.search(rf"^{name} ", text(root / "proc/modules"), re.MULTILINE)
    if loaded or (name == "ip_vs" and (root / "proc/net/ip_vs").exists()):
        return Module.LOADED
    release = text(root / "proc/sys/kernel/osrelease").strip()
    folder = root / "lib/modules" / release
    # Files name modules with either sign; modprobe(8) takes them for equal.
    file = rf"/{name.replace('_', '[-_]')}\.ko"
    if re.search(file, text(folder / "modules.builtin")):
        return Module.BUILT_IN
    if (root / "sys/module" / name).exists():
        return Module.LOADED
    dependencies = text(folder / "modules.dep")
    if not release or not dependencies:
        return Module.UNKNOWN
    return Module.LOADABLE if re.search(file, dependencies) else Module.ABSENT


def _listeners(root: Path) -> Iterable[Listener]:
    for name in ("tcp", "tcp6"):
        for line in text(root / "proc/net" / name).splitlines()[1:]:
            words = line.split()
            if len(words) > 3 and words[3] == LISTEN:
                address, _, port = words[1].partition(":")
                yield Listener(_kernel_address(address), Port(int(port, 16)))


def _kernel_address(text: str) -> IPAddress:
    """Return the address that /proc/net/tcp writes as 32-bit words in the CPU's byte order."""
    words = (text[i : i + 8] for i in range(0, len(text), 8))
    packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    if len(packed) == 4:
        return IPv4Address(packed)
    address = IPv6Address(packed)
    return address.ipv4_mapped or address


def _processes(root: Path) -> Iterable[str]:
    for comm in (root / "proc").glob("[0-9]*/comm"):
        yield text(comm).strip()


def _socket(path: Path) -> SocketPath:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return SocketPath.FREE
    if not stat.S_ISSOCK(mode):
        return SocketPath.OCCUPIED
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asker:
        asker.settimeout(ANSWER_WITHIN)
        try:
            asker.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return SocketPath.STALE
        except OSError:
            # A full backlog, or no right to connect: somebody has it.
            return SocketPath.ANSWERED
    return SocketPath.ANSWERED
