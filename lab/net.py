"""The lab's network: nodes and a client as network namespaces, joined by a bridge in its own.

    n1 10.0.1.16   n2 10.0.1.19   n3 10.0.1.20   c1 10.0.1.50        far1 10.0.9.50
         └──────────────┴────┬─────────┴──────────────┘                  │
                             sw (bridge) ────────────── r1 (optional) ───┘

The virtual IP 10.0.1.10 (fd00:1::10) is on none of them until an agent puts it there.  With pods,
pod1 10.0.101.2 and pod2 10.0.102.2 are behind n1 and n2, each on a routed veth of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from pyroute2 import IPRoute

from lab.forking import CLONE_NEWNET, NAMESPACES, call, enter, inside
from lab.places import LabError

PREFIX = "revip-lab-"
"""Every namespace of the lab begins so; whatever begins so is the lab's to remove."""
SWITCH = "sw"
LINK = "eth0"
"""The interface of each member."""

VIP = IPv4Address("10.0.1.10")
VIP6 = IPv6Address("fd00:1::10")
PORT = 6443

_LOCK = Path("/run/revip-lab.lock")
_LOCK_SECONDS = 0.5
_HOSTS = (16, 19, 20, 21, 22, 23, 24)
"""Last byte of each node's address; the first three are those of the incident."""
_IFA_F_NODAD = 0x02
_NUD_SETTLED = {
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.all.accept_dad": "0",
    "net.ipv6.conf.default.dad_transmits": "0",
    "net.ipv6.conf.default.accept_ra": "0",
}
"""The lab's addresses are usable at once: nobody else is there to have them."""


@dataclass(frozen=True, slots=True)
class Member:
    """A host of the lab."""

    name: str
    address: IPv4Address
    address6: IPv6Address

    @property
    def namespace(self) -> str:
        """Its network namespace, as `ip netns` lists it."""
        return PREFIX + self.name

    @property
    def mac(self) -> str:
        """Its hardware address: locally administered, and its IPv4 address legible in it."""
        return ":".join(f"{byte:02x}" for byte in (2, 0, *self.address.packed))


def member(name: str, host: int, segment: int = 1) -> Member:
    """Return a member with last byte `host` on the segment of that number."""
    return Member(
        name, IPv4Address(f"10.0.{segment}.{host}"), IPv6Address(f"fd00:{segment}::{host}")
    )


@dataclass(frozen=True, slots=True)
class Topology:
    """What the network consists of."""

    node_count: int = 3
    """1 to 7 nodes, named n1, n2 and so on."""
    router: bool = False
    """Adds the router r1 and, behind it, the host far1."""
    observer: bool = False
    """Adds o1, a host that only looks: what it asks leaves the client's neighbor entry alone."""
    pods: bool = False
    """Adds pod1 behind n1 and pod2 behind n2, whose subnets all nodes know the way to."""

    def __post_init__(self) -> None:
        if not 1 <= self.node_count <= len(_HOSTS):
            raise LabError(f"the lab has 1 to {len(_HOSTS)} nodes, not {self.node_count}")

    @property
    def nodes(self) -> tuple[Member, ...]:
        """The control-plane nodes."""
        hosts = enumerate(_HOSTS[: self.node_count], start=1)
        return tuple(member(f"n{number}", host) for number, host in hosts)

    @property
    def segment(self) -> tuple[Member, ...]:
        """Everybody on the bridge."""
        router = (member("r1", 1),) if self.router else ()
        observer = (member("o1", 60),) if self.observer else ()
        return (*self.nodes, member("c1", 50), *observer, *router)

    @property
    def members(self) -> tuple[Member, ...]:
        """Everybody."""
        far = (member("far1", 50, segment=9),) if self.router else ()
        return (*self.segment, *far, *(pod for _, pod in self.housed))

    @property
    def housed(self) -> tuple[tuple[Member, Member], ...]:
        """Each node that has a pod, with it."""
        housing = self.nodes[:2] if self.pods else ()
        return tuple(
            (node, member(f"pod{number}", 2, segment=100 + number))
            for number, node in enumerate(housing, start=1)
        )


class Network:
    """The network, while its `with` block lasts."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self._members = {known.name: known for known in topology.members}
        self._lock: int | None = None

    def __enter__(self) -> Network:
        """Clear what a killed run left, and build.  Raises LabError when another lab runs."""
        self._lock = _take_lock()
        try:
            remove_leftovers()
            _build(self.topology)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Remove everything, whatever runs in it."""
        remove_leftovers()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __getitem__(self, name: str) -> Member:
        """Return the member of that name; raises LabError when there is none."""
        try:
            return self._members[name]
        except KeyError:
            raise LabError(f"no {name} here, only {', '.join(self._members)}") from None

    @property
    def nodes(self) -> tuple[Member, ...]:
        """The control-plane nodes."""
        return self.topology.nodes

    def inside(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Be in the namespace of that member for a block; sockets opened there stay in it."""
        return inside(self[name].namespace)

    # --- what can happen to it ------------------------------------------------------------------

    def link_down(self, name: str) -> None:
        """Let the host vanish: its port of the bridge goes down, and it hears no more."""
        self._set_port(name, "down")

    def link_up(self, name: str) -> None:
        """Let the host return."""
        self._set_port(name, "up")

    def _set_port(self, name: str, state: str) -> None:
        with routes(PREFIX + SWITCH) as rtnl:
            rtnl.link("set", index=_index(rtnl, self[name].name), state=state)

    def cut(self, name: str) -> None:
        """Let the host vanish with its carrier on: nothing comes from it and nothing gets to it."""
        with routes(PREFIX + SWITCH) as rtnl:
            rtnl.link("set", index=_index(rtnl, self[name].name), master=0)

    def mend(self, name: str) -> None:
        """End `cut`."""
        with routes(PREFIX + SWITCH) as rtnl:
            bridge = _index(rtnl, "br0")
            rtnl.link("set", index=_index(rtnl, self[name].name), master=bridge)

    def unplug(self, name: str) -> None:
        """Remove the host's interface altogether."""
        with routes(PREFIX + SWITCH) as rtnl:
            rtnl.link("del", index=_index(rtnl, self[name].name))

    def replug(self, name: str) -> None:
        """Give the host a new interface of the old name, with its addresses."""
        with routes(PREFIX + SWITCH) as rtnl:
            _attach(rtnl, self[name], _index(rtnl, "br0"))
        _configure(self[name], LINK)

    def mute(self, name: str, *, muted: bool) -> None:
        """Lose all that the host sends, while it hears everything; or no longer."""
        with routes(self[name].namespace) as rtnl:
            link = _index(rtnl, LINK)
            if muted:
                rtnl.tc("replace", "netem", link, "1:", delay=0, loss=100)
            else:
                rtnl.tc("del", "netem", link, "1:")

    def netem(self, name: str, delay_ms: float = 0, loss_percent: float = 0) -> None:
        """Delay and lose frames on their way to that host; zeros end it."""
        with routes(PREFIX + SWITCH) as rtnl:
            port = _index(rtnl, self[name].name)
            if delay_ms or loss_percent:
                delay = round(delay_ms * 1000)
                rtnl.tc("replace", "netem", port, "1:", delay=delay, loss=loss_percent)
            else:
                rtnl.tc("del", "netem", port, "1:")

    def drop(self, name: str, port: int) -> None:
        """Let that host swallow all that comes for TCP `port`, without a word, IPv4 and IPv6."""
        self._filter(name, "-I", port)

    def undrop(self, name: str, port: int) -> None:
        """End `drop`."""
        self._filter(name, "-D", port)

    def _filter(self, name: str, change: str, port: int) -> None:
        rule = ["-t", "raw", change, "PREROUTING", "-p", "tcp", "--dport", str(port), "-j", "DROP"]
        for family in ("iptables", "ip6tables"):
            self.output(name, [family, "-w", *rule])

    def output(self, name: str, argv: list[str]) -> str:
        """Run a program on that host and return what it printed.

        Raises LabError with its standard error when its exit code is not 0.
        """
        namespace = self[name].namespace
        done = subprocess.run(
            argv, preexec_fn=lambda: enter(namespace), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise LabError(f"{name}: {' '.join(argv)}: {done.stderr.strip()}")
        return done.stdout


@contextlib.contextmanager
def routes(namespace: str) -> Iterator[IPRoute]:
    """Give an rtnetlink socket of the namespace of that name."""
    with inside(namespace):
        rtnl = IPRoute()
    try:
        yield rtnl
    finally:
        rtnl.close()


# --- building -----------------------------------------------------------------------------------


def _build(topology: Topology) -> None:
    NAMESPACES.mkdir(parents=True, exist_ok=True)
    for name in (SWITCH, *(known.name for known in topology.members)):
        _create(PREFIX + name)
    with routes(PREFIX + SWITCH) as rtnl:
        bridge = {"br_stp_state": 0, "br_forward_delay": 0, "br_mcast_snooping": 0}
        rtnl.link("add", ifname="br0", kind="bridge", **bridge)
        bridge_index = _index(rtnl, "br0")
        rtnl.link("set", index=bridge_index, state="up")
        for known in topology.segment:
            _attach(rtnl, known, bridge_index)
    for known in topology.segment:
        _configure(known, LINK)
    if topology.router:
        _add_far_side(topology)
    for number, (node, pod) in enumerate(topology.housed, start=1):
        _add_pod(topology, node, pod, member(node.name, 1, segment=100 + number))


def _create(namespace: str) -> None:
    """Make a network namespace that `ip netns` knows, with its loopback up and no DAD."""
    path = NAMESPACES / namespace
    path.touch()
    back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        call("unshare", CLONE_NEWNET)
        mine = f"/proc/{os.getpid()}/ns/net".encode()
        call("mount", mine, bytes(path), b"none", 0x1000, None)  # MS_BIND
        for key, value in _NUD_SETTLED.items():
            sysctl(key, value)
        with contextlib.closing(IPRoute()) as rtnl:
            rtnl.link("set", index=1, state="up")
    finally:
        call("setns", back, CLONE_NEWNET)
        os.close(back)


def _plug(rtnl: IPRoute, known: Member, outer: str, inner: str) -> None:
    """Make a cable from `outer`, here, to `inner` in the member's namespace."""
    peer = {"ifname": inner, "net_ns_fd": known.namespace, "address": known.mac}
    rtnl.link("add", ifname=outer, kind="veth", peer=peer)


def _attach(rtnl: IPRoute, known: Member, bridge: int) -> None:
    """Plug the member into the bridge."""
    _plug(rtnl, known, known.name, LINK)
    rtnl.link("set", index=_index(rtnl, known.name), master=bridge, state="up")


def _configure(known: Member, link: str) -> None:
    with routes(known.namespace) as rtnl:
        index = _index(rtnl, link)
        rtnl.link("set", index=index, state="up")
        rtnl.addr("add", index=index, address=str(known.address), prefixlen=24)
        rtnl.addr("add", index=index, address=str(known.address6), prefixlen=64, flags=_IFA_F_NODAD)


def _add_far_side(topology: Topology) -> None:
    near, far = member("r1", 1), member("far1", 50, segment=9)
    far_port = member("r1", 1, segment=9)
    with routes(near.namespace) as rtnl:
        _plug(rtnl, far, "eth1", LINK)
    with inside(near.namespace):
        sysctl("net.ipv4.ip_forward", "1")
        sysctl("net.ipv6.conf.all.forwarding", "1")
    _configure(far_port, "eth1")
    _configure(far, LINK)
    behind = [known for known in topology.segment if known != near]
    for known, gateway in [*((known, near) for known in behind), (far, far_port)]:
        with routes(known.namespace) as rtnl:
            rtnl.route("add", dst="default", gateway=str(gateway.address))
            rtnl.route("add", dst="default", gateway=str(gateway.address6))


def _add_pod(topology: Topology, node: Member, pod: Member, gateway: Member) -> None:
    """Put a pod behind a node, as a routed network plug-in does, and tell the other nodes."""
    with routes(node.namespace) as rtnl:
        _plug(rtnl, pod, "pod0", LINK)
    with inside(node.namespace):
        sysctl("net.ipv4.ip_forward", "1")
        sysctl("net.ipv6.conf.all.forwarding", "1")
    _configure(gateway, "pod0")
    _configure(pod, LINK)
    with routes(pod.namespace) as rtnl:
        rtnl.route("add", dst="default", gateway=str(gateway.address))
        rtnl.route("add", dst="default", gateway=str(gateway.address6))
    for other in topology.nodes:
        if other != node:
            with routes(other.namespace) as rtnl:
                for to, via in (
                    (f"{pod.address}/32", node.address),
                    (f"{pod.address6}/128", node.address6),
                ):
                    rtnl.route("add", dst=to, gateway=str(via))


def sysctl(name: str, value: str) -> None:
    """Set a sysctl of this thread's network namespace, by its name with dots."""
    Path("/proc/sys", *name.split(".")).write_text(value)


def _index(rtnl: IPRoute, link: str) -> int:
    found = rtnl.link_lookup(ifname=link)
    if not found:
        raise LabError(f"no interface {link}")
    return int(found[0])


# --- removing -----------------------------------------------------------------------------------


def _take_lock() -> int:
    """Return the lock of this kernel's only lab.

    A child that a killed lab had just forked holds it for an instant more: hence the patience.
    """
    lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    patience = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > patience:
                os.close(lock)
                raise LabError(
                    "another lab runs on this kernel: end it first (script/lab down)"
                ) from None
            time.sleep(0.02)
        else:
            return lock


def sweep() -> None:
    """Remove what a killed run left on this kernel, unless a lab lives here."""
    with contextlib.suppress(LabError):
        lock = _take_lock()
        try:
            remove_leftovers()
        finally:
            os.close(lock)


def remove_leftovers() -> None:
    """End every process in the lab's namespaces, then remove them, and with them their links."""
    namespaces = sorted(NAMESPACES.glob(f"{PREFIX}*"))
    if not namespaces:
        return
    for pid in inhabitants({path.stat().st_ino for path in namespaces}):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for path in namespaces:
        with contextlib.suppress(OSError):  # not mounted: left by a run killed in between
            call("umount2", bytes(path), 2)  # MNT_DETACH
        path.unlink(missing_ok=True)


def inhabitants(inodes: set[int]) -> Iterator[int]:
    """Yield the processes whose network namespace is one of those."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # it ended while we looked, or is not ours to see
                if Path(f"/proc/{entry.name}/ns/net").stat().st_ino in inodes:
                    yield int(entry.name)
