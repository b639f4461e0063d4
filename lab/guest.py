"""The far end of the line: the first process of the lab's kernel.

Under user-mode Linux it is process 1, furnishes the kernel (file systems, modules) and switches
it off at the end.  On the host's own kernel it is an ordinary process with a line on a socket.
Either way it starts processes by forking itself and carries their output.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib
import os
import platform
import pty
import runpy
import selectors
import signal
import struct
import subprocess
import sys
import termios
import traceback
import tty
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lab import uml
from lab.forking import NAMESPACES, become, call, exit_code, fork
from lab.places import GUEST_BINARIES, LOGS, REPOSITORY, environment, program
from lab.wire import Exit, Halt, Input, Line, Message, Output, Ready, Resize, Signal, Spawn

LINE_VARIABLE = "LAB_LINE"
"""Environment variable with the number of the line's descriptor, on the host's own kernel."""
KERNEL_VARIABLE = "LAB_KERNEL"
"""Environment variable that tells the lab's programs which kernel they are on: uml or host."""

_WARM = ("lab.scenario", "pyroute2", "asyncio", "ssl", "json", "subprocess", "rich.console")
"""Imported before the first fork, so that no child pays for it."""
_CHUNK = 16384
_GRACE_SECONDS = 4
"""What processes have to end in when the guest halts, before they are killed."""


def main() -> None:
    """Serve the line until it says halt or ends."""
    first = os.getpid() == 1
    if first:
        furnish()
        descriptor = os.open("/dev/ttyS0", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        tty.setraw(descriptor)
        os.environ.update(environment() | {KERNEL_VARIABLE: "uml", "HOME": "/run/lab"})
    else:
        descriptor = int(os.environ.pop(LINE_VARIABLE))
        os.set_inheritable(descriptor, False)
        os.environ.update(environment() | {KERNEL_VARIABLE: "host"})
        call("prctl", 36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans of ours come to us
    os.chdir(REPOSITORY)
    try:
        for name in _WARM:
            importlib.import_module(name)
        _Server(Line(descriptor)).serve()
    except Exception:
        traceback.print_exc()
        raise
    finally:
        if first:
            os.sync()
            call("reboot", 0x4321FEDC)  # LINUX_REBOOT_CMD_POWER_OFF
        importlib.import_module("lab.net").sweep()  # a process killed outright left its network


# --- furnishing a kernel that has nothing yet ---------------------------------------------------

MODULES = [
    "ip_vs",
    "ip_vs_rr",
    "ip_vs_wrr",
    "ip_vs_lc",
    "ip_vs_wlc",
    "ip_vs_mh",
    "ip_vs_sh",
    "dummy",
    "veth",
    "bridge",
    "8021q",
    "ipip",
    "ip6_tunnel",
    "sch_netem",
    "nf_nat",
    "ip_tables",
    "iptable_nat",
    "iptable_filter",
    "iptable_raw",
    "ip6_tables",
    "ip6table_nat",
    "ip6table_filter",
    "ip6table_raw",
    "xt_MASQUERADE",
    "xt_ipvs",
    "xt_conntrack",
    "xt_mark",
    "xt_tcpudp",
    "xt_CT",
]
"""What the lab's nodes find loaded; a module that the kernel lacks is passed over."""

_SCRATCH = ("/run", "/tmp", "/var/tmp", "/dev/shm")


def furnish() -> None:
    """Mount what a process expects, on a root that stays read-only, and load the modules."""
    mount("proc", "/proc")
    mount("sysfs", "/sys")
    for folder in ("/dev/pts", "/dev/shm"):
        Path(folder).mkdir(exist_ok=True)
    mount("devpts", "/dev/pts", options="ptmxmode=0666,mode=0620")
    with contextlib.suppress(FileExistsError):
        Path("/dev/fd").symlink_to("/proc/self/fd")
    for folder in _SCRATCH:
        if Path(folder).is_dir() and not Path(folder).is_symlink():
            mount("tmpfs", folder, options="mode=1777")
    for folder in (str(REPOSITORY), sys.prefix, sys.base_prefix):
        if folder.startswith(tuple(f"{scratch}/" for scratch in _SCRATCH)):
            Path(folder).mkdir(parents=True, exist_ok=True)
            mount("hostfs", folder, options=folder, flags=1)  # MS_RDONLY
    if LOGS.is_dir():
        mount("hostfs", str(LOGS), options=str(LOGS))
    for folder in (str(GUEST_BINARIES), "/run/netns", "/run/lock"):
        Path(folder).mkdir(parents=True, exist_ok=True)
    _prefer_legacy_iptables()
    _load_modules()
    Path("/proc/sys/net/core/fb_tunnels_only_for_init_net").write_text("1")


def mount(kind: str, target: str, *, options: str = "", flags: int = 0) -> None:
    """Mount a file system of `kind` on `target` (mount(2)); raises OSError."""
    call("mount", kind.encode(), target.encode(), kind.encode(), flags, options.encode())


def _prefer_legacy_iptables() -> None:
    """Let `iptables` mean the legacy form, whatever the host's alternatives say.

    Debian's user-mode Linux has no nftables for IP.
    """
    for name in ("iptables", "ip6tables"):
        for suffix in ("", "-save", "-restore"):
            if legacy := program(f"{name}-legacy{suffix}"):
                (GUEST_BINARIES / f"{name}{suffix}").symlink_to(legacy)


def _load_modules() -> None:
    root = Path("/run/lab/modules")
    (root / "lib").mkdir(parents=True)
    (root / "lib/modules").symlink_to(uml.modules())
    found = environment()
    subprocess.run(
        ["modprobe", "-d", str(root), "-a", *MODULES],
        env=found,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    loader = Path("/run/lab/modprobe")  # what the kernel calls for a module it misses later
    loader.write_text(f'#!/bin/sh\nPATH={found["PATH"]} exec modprobe -d {root} "$@"\n')
    loader.chmod(0o755)
    Path("/proc/sys/kernel/modprobe").write_text(str(loader))


# --- serving ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Child:
    """A process and the descriptors that carry its streams."""

    pid: int
    into: int
    streams: dict[int, int] = field(default_factory=dict)
    """Descriptor to stream number, while open."""
    status: int | None = None


class _Server:
    """Starts processes as the line asks, and carries their streams."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._children: dict[int, _Child] = {}
        self._selector = selectors.DefaultSelector()
        self._open = True

    def serve(self) -> None:
        """Serve until halted; every child is dead afterwards."""
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(woken, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._selector.register(woken, selectors.EVENT_READ, lambda: self._reap(woken))
        self._selector.register(self._line, selectors.EVENT_READ, self._listen)
        try:
            self._line.send(Ready(platform.release()))
            while self._open:
                for key, _ in self._selector.select():
                    act: Callable[[], None] = key.data
                    act()
        finally:
            self._end_all()

    def _listen(self) -> None:
        try:
            received = self._line.receive()
        except EOFError:
            received = [Halt()]
        for message in received:
            self._obey(message)

    def _obey(self, message: Message) -> None:
        match message:
            case Halt():
                self._open = False
            case Spawn():
                self._spawn(message)
            case Input(channel, content) if channel in self._children:
                self._feed(self._children[channel], content)
            case Signal(channel, number) if channel in self._children:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._children[channel].pid, number)
            case Resize(channel, window) if channel in self._children:
                _set_window(self._children[channel].into, window)
            case _:  # for a process that has just ended
                pass

    def _spawn(self, request: Spawn) -> None:
        if request.namespace and not (NAMESPACES / request.namespace).exists():
            known = ", ".join(sorted(path.name for path in NAMESPACES.iterdir()))
            text = f"lab: there is no {request.namespace}, only {known or 'nothing yet'}\n"
            self._line.send(Output(request.channel, 2, text.encode()))
            self._line.send(Exit(request.channel, 2))
            return
        if request.window:
            into, inner = pty.openpty()
            _set_window(inner, request.window)
            standard, outputs = (inner, inner, inner), {into: 1}
        else:
            (stdin, into), (out, stdout), (err, stderr) = os.pipe(), os.pipe(), os.pipe()
            standard, outputs = (stdin, stdout, stderr), {out: 1, err: 2}
        pid = fork(
            lambda: _run(request),
            namespace=request.namespace,
            standard=standard,
            terminal=request.window is not None,
        )
        for descriptor in set(standard):
            os.close(descriptor)
        self._children[request.channel] = _Child(pid, into, outputs)
        for descriptor in outputs:
            os.set_blocking(descriptor, False)
            self._selector.register(
                descriptor, selectors.EVENT_READ, self._carrier(request.channel, descriptor)
            )

    def _carrier(self, channel: int, descriptor: int) -> Callable[[], None]:
        return lambda: self._carry(channel, descriptor)

    def _feed(self, child: _Child, content: bytes) -> None:
        if child.into < 0:
            return
        with contextlib.suppress(BrokenPipeError, BlockingIOError):
            if content:
                os.write(child.into, content)
            elif child.into not in child.streams:
                os.close(child.into)
                child.into = -1

    def _carry(self, channel: int, descriptor: int) -> None:
        child = self._children[channel]
        while True:
            try:
                chunk = os.read(descriptor, _CHUNK)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.EIO:  # a terminal whose last user has left
                    raise
                chunk = b""
            if not chunk:
                self._selector.unregister(descriptor)
                del child.streams[descriptor]
                if descriptor == child.into:
                    child.into = -1
                os.close(descriptor)
                return
            self._line.send(Output(channel, child.streams[descriptor], chunk))

    def _reap(self, woken: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(woken, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for channel, child in list(self._children.items()):
                if child.pid == pid:
                    self._finish(channel, child, status)

    def _finish(self, channel: int, child: _Child, status: int) -> None:
        for descriptor in list(child.streams):
            self._carry(channel, descriptor)  # what it left in its pipes
        for descriptor in list(child.streams):  # held open by a descendant: not waited for
            self._selector.unregister(descriptor)
        for descriptor in {*child.streams, child.into} - {-1}:
            os.close(descriptor)
        del self._children[channel]
        self._line.send(Exit(channel, exit_code(status)))

    def _end_all(self) -> None:
        for child in self._children.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
        signal.alarm(_GRACE_SECONDS)  # then without asking
        signal.signal(signal.SIGALRM, lambda *_: self._kill_all())
        with contextlib.suppress(ChildProcessError):
            while self._children:
                pid, _ = os.waitpid(-1, 0)
                self._children = {k: c for k, c in self._children.items() if c.pid != pid}
        signal.alarm(0)

    def _kill_all(self) -> None:
        for child in self._children.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


def _run(request: Spawn) -> object:
    os.environ.update(request.environment)
    if not request.module:
        become(request.argv)
    sys.argv = list(request.argv)
    runpy.run_module(request.argv[0], run_name="__main__", alter_sys=True)
    return 0


def _set_window(descriptor: int, window: tuple[int, int]) -> None:
    with contextlib.suppress(OSError):
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", *window, 0, 0))


if __name__ == "__main__":
    main()
