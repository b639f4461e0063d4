"""A kernel with ip_vs: this host's own or user-mode Linux, and one way to run things in it."""

from __future__ import annotations

import compileall
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from lab import uml
from lab.guest import LINE_VARIABLE
from lab.places import LOGS, REPOSITORY, LabError, environment, program
from lab.wire import Exit, Halt, Line, Output, Ready, Signal, Spawn

KernelKind = Literal["host", "uml"]

BOOT_TIMEOUT = 60.0
"""Seconds until a kernel that has not said a word is given up."""

_HALT_SECONDS = 8
"""What a guest has to end in after being asked, before it is killed."""

Sink = Callable[[int, bytes], None]
"""Takes (1 for standard output or 2 for standard error, bytes)."""


def choose(wish: KernelKind | None = None) -> KernelKind:
    """Return which kernel to use: `wish`, or this host's when it can, else user-mode Linux.

    Raises LabError when the wish cannot be granted.
    """
    if wish == "uml":
        return "uml"
    obstacle = _obstacle_to_host()
    if wish == "host" and obstacle:
        raise LabError(f"this host's kernel cannot run the lab: {obstacle}")
    return "uml" if obstacle else "host"


def _obstacle_to_host() -> str:
    """Return why this host's kernel cannot run the lab; empty when it can."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    loader = program("modprobe")
    for module in ("ip_vs", "ip_vs_mh", "veth", "bridge", "dummy"):
        loaded = Path(f"/sys/module/{module}").exists() or (
            loader is not None
            and subprocess.run([loader, "-q", module], check=False).returncode == 0
        )
        if not loaded:
            return f"module {module} is not there"
    return ""


class Kernel:
    """A running kernel, at the other end of `line`."""

    def __init__(self, kind: KernelKind, line: Line, release: str) -> None:
        self.kind = kind
        self.line = line
        self.release = release

    def run(self, request: Spawn, sink: Sink, *, timeout: float | None = None) -> int:
        """Run one process to its end; return its exit code.

        Raises LabError when the kernel goes away, or after `timeout` seconds.
        """
        self.line.send(request)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if deadline is not None:
                left = max(0.0, deadline - time.monotonic())
                if not select.select([self.line], [], [], left)[0]:
                    raise LabError(f"not done after {timeout:.0f} s: ended")
            try:
                received = self.line.receive()
            except EOFError:
                raise LabError("the lab's kernel went away") from None
            for message in received:
                match message:
                    case Output(_, stream, content):
                        sink(stream, content)
                    case Exit(_, code):
                        return code
                    case _:
                        pass

    def interrupt(self, channel: int = 0) -> None:
        """Send SIGINT to the process on `channel`."""
        self.line.send(Signal(channel, signal.SIGINT))


@contextlib.contextmanager
def booted(wish: KernelKind | None = None) -> Iterator[Kernel]:
    """Give a kernel for the block; at its end, however it ends, nothing of it is left."""
    kind = choose(wish)
    # The guest's root is read-only: what is not compiled here is compiled at each import there.
    for package in ("src", "lab", "bench"):
        compileall.compile_dir(REPOSITORY / package, quiet=2)
    LOGS.mkdir(parents=True, exist_ok=True)
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryDirectory(prefix="revip-lab-") as scratch:
        transcript = Path(scratch) / "console"
        with transcript.open("wb") as console, theirs:
            process = _start(kind, theirs.fileno(), console.fileno(), scratch)
        line = Line(ours.detach())
        patience = 0.0  # one that has not said a word would not hear us either
        try:
            release = _await_ready(line, transcript)
            patience = _HALT_SECONDS
            yield Kernel(kind, line, release)
        finally:
            _end(process, line, patience)


def _start(kind: KernelKind, line: int, console: int, scratch: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "lab.guest"]
    variables = environment()
    if kind == "uml":
        command = uml.command(line)
        command.insert(command.index("--"), f"uml_dir={scratch}/")
        variables["TMPDIR"] = uml.memory_folder()
    else:
        variables[LINE_VARIABLE] = str(line)
    return subprocess.Popen(
        command,
        preexec_fn=_settle_on_one_processor if kind == "uml" else None,
        cwd=REPOSITORY,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=console,
        stderr=console,
        pass_fds=(line,),
        start_new_session=True,  # one group: UML is several processes of the host
    )


def _settle_on_one_processor() -> None:
    """Keep user-mode Linux, which has one processor, on one of the host's.

    Its kernel and its processes hand over to each other at every system call (ptrace(2)).  Between
    two processors that takes a wake-up by interrupt, and all is about four times slower: importing
    this program 1.4 s instead of 0.34 s, and that from one minute to the next.
    """
    ours = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {ours[os.getpid() % len(ours)]})


def _await_ready(line: Line, transcript: Path) -> str:
    if select.select([line], [], [], BOOT_TIMEOUT)[0]:
        for message in line.messages():
            if isinstance(message, Ready):
                return message.kernel
    said = transcript.read_text(errors="replace").splitlines()[-15:]
    raise LabError("\n".join(["the lab's kernel did not come up; its last words:", *said]))


def _end(process: subprocess.Popen[bytes], line: Line, patience: float) -> None:
    """Ask the guest to halt, wait so many seconds, then kill its whole group; close the line."""
    with contextlib.suppress(OSError):
        line.send(Halt())
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    line.close()


def run(
    argv: list[str],
    *,
    kernel: KernelKind | None = None,
    sink: Sink | None = None,
    timeout: float | None = None,
    variables: dict[str, str] | None = None,
) -> int:
    """Run the Python module `argv[0]` with its arguments in a kernel of its own.

    Returns its exit code, 130 after Ctrl-C; raises LabError as `booted` and `Kernel.run` do.
    """
    request = Spawn(0, tuple(argv), environment=tuple((variables or {}).items()))
    try:
        with booted(kernel) as running:
            return running.run(request, sink or to_own_streams, timeout=timeout)
    except KeyboardInterrupt:
        return 130


def heed_sigterm() -> None:
    """Let SIGTERM unwind this process, so that its kernel ends with it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def to_own_streams(stream: int, content: bytes) -> None:
    """Write what a guest process wrote to the stream of the same name here."""
    target = sys.stdout if stream == 1 else sys.stderr
    target.buffer.write(content)
    target.flush()
