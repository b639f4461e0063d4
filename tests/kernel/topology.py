"""A small segment of network namespaces: three nodes and a client on one bridge.

Everything lives in file descriptors of this process, so that nothing is left behind.  One thread
visits one namespace after the other (setns(2)); a socket stays where it was created.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

CLONE_NEWNET = 0x40000000
ETH_P_ARP = 0x0806
NODES = ("n1", "n2", "n3")
CLIENT = "client"
_HOSTS = {"n1": 1, "n2": 2, "n3": 3, CLIENT: 100}
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Namespace:
    """One network namespace."""

    name: str
    fd: int

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Have this thread in the namespace; nest or follow, never interleave."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _setns(self.fd)
            yield
        finally:
            _setns(before)
            os.close(before)

    def run(self, *command: str, given: str | None = None, check: bool = True) -> str:
        """Run a command there and return what it prints."""
        with self.entered():
            done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(command)}: {done.stderr or done.stdout}")
        return done.stdout

    def ip(self, *lines: str, check: bool = True) -> None:
        """Run lines of ip(8); those that begin with -6 on their own after the others."""
        force = () if check else ("-force",)
        old = [line for line in lines if not line.startswith("-6 ")]
        new = [line.removeprefix("-6 ") for line in lines if line.startswith("-6 ")]
        for family, batch in ((), old), (("-6",), new):
            given = "\n".join(batch) + "\n"
            if batch:
                self.run("ip", *family, *force, "-batch", "-", given=given, check=check)

    def sysctl(self, name: str, value: str) -> None:
        """Write one sysctl (levels by slashes)."""
        with self.entered():
            Path("/proc/sys", name).write_text(value, encoding="ascii")


@dataclass
class Segment:
    """The namespaces by name, and the servers in them."""

    spaces: dict[str, Namespace]
    servers: list[asyncio.Server] = field(default_factory=list)

    def __getitem__(self, name: str) -> Namespace:
        return self.spaces[name]

    async def serve(self, name: str, version: int, port: int = 6443) -> None:
        """Answer each connection with the node's name and the peer's address."""
        with self[name].entered():
            listening = socket.socket(_family(version))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(("::" if version == 6 else "0.0.0.0", port))

        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(f"{name} {writer.get_extra_info('peername')[0]}".encode())
            writer.close()

        self.servers.append(await asyncio.start_server(answer, sock=listening, backlog=64))

    async def ask(self, name: str, vip: str, port: int = 6443) -> str:
        """Connect from a namespace and return the answer, or the error's name."""
        with self[name].entered():
            asking = socket.socket(_family(6 if ":" in vip else 4))
            asking.setblocking(False)
        with asking:
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout(3):
                    await loop.sock_connect(asking, (vip, port))
                    return (await loop.sock_recv(asking, 200)).decode()
            except OSError as error:
                return type(error).__name__ + f" {error.errno}"

    async def reached(self, name: str, vip: str, times: int = 12) -> tuple[set[str], set[str]]:
        """Connect several times; return who answered (or the errors), and whom they saw."""
        answers = [(await self.ask(name, vip)).split() for _ in range(times)]
        return {answer[0] for answer in answers}, {answer[-1] for answer in answers}

    async def stop(self) -> None:
        for server in self.servers:
            server.close()
            await server.wait_closed()
        self.servers.clear()

    def who_has(self, address: str, wait: float = 0.3) -> set[str]:
        """Broadcast an ARP request from the client; return the hardware addresses that answer."""
        with self[CLIENT].entered():
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP))
            wire.bind(("eth0", ETH_P_ARP))
        with wire:
            own = wire.getsockname()[4]
            body = b"\x00\x01\x08\x00\x06\x04\x00\x01" + own + socket.inet_aton("10.0.0.100")
            body += bytes(6) + socket.inet_aton(address)
            wire.send(b"\xff" * 6 + own + b"\x08\x06" + body)
            wire.settimeout(wait)
            found = set()
            try:
                while True:
                    frame = wire.recv(2048)
                    if frame[20:22] == b"\x00\x02" and frame[28:32] == socket.inet_aton(address):
                        found.add(frame[22:28].hex(":"))
            except TimeoutError:
                return found

    def mac(self, name: str) -> str:
        """Return the hardware address of a node's eth0."""
        return self[name].run("ip", "-br", "link", "show", "eth0").split()[2]


@contextmanager
def segment() -> Iterator[Segment]:
    """Build the segment; it vanishes with the block."""
    with ExitStack() as stack:
        spaces = {name: _new(name, stack) for name in ("switch", *_HOSTS)}
        spaces["switch"].ip("link add br0 type bridge", "link set br0 up")
        for name, number in _HOSTS.items():
            there = f"/proc/{os.getpid()}/fd/{spaces[name].fd}"
            spaces["switch"].ip(
                f"link add {name} type veth peer name eth0 netns {there}",
                f"link set {name} master br0 up",
            )
            spaces[name].ip(
                "link set lo up",
                "link set eth0 up",
                f"addr add 10.0.0.{number}/24 dev eth0",
                f"addr add fd00::{number}/64 dev eth0 nodad",
            )
        yield Segment(spaces)


def _new(name: str, stack: ExitStack) -> Namespace:
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if _libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        for family in ("default", "all"):
            Path(f"/proc/sys/net/ipv6/conf/{family}/accept_dad").write_text("0", encoding="ascii")
    finally:
        _setns(before)
        os.close(before)
    stack.callback(os.close, fd)
    return Namespace(name, fd)


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _family(version: int) -> socket.AddressFamily:
    return socket.AF_INET6 if version == 6 else socket.AF_INET
