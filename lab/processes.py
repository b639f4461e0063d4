"""Processes on the lab's nodes: started by a fork of this warm process, ended at the end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Collection
from pathlib import Path

from lab.forking import become, exit_code, fork
from lab.net import Network, Topology
from lab.places import LabError

_GRACE_SECONDS = 1.0
"""What a process has to end in after SIGTERM, before SIGKILL."""


class Process:
    """A process in a group of its own, on a node."""

    def __init__(self, pid: int, name: str, log: Path) -> None:
        self.pid = pid
        self.name = name
        self.log = log
        """Where its standard output and error go."""
        self._descriptor = os.pidfd_open(pid)
        self._code: int | None = None

    def __repr__(self) -> str:
        return f"<{self.name}, pid {self.pid}>"

    def fileno(self) -> int:
        """Return its pidfd, which polls as readable when it has ended (pidfd_open(2))."""
        return self._descriptor

    @property
    def code(self) -> int | None:
        """Exit code as the shell counts (128 + n for signal n); None while it lives."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = exit_code(status)
        return self._code

    @property
    def alive(self) -> bool:
        """True until it has ended."""
        return self.code is None

    def wait(self, timeout: float) -> int:
        """Return its exit code; raises LabError when it has not ended after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self.code is None:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self], [], [], left)[0]:
                raise LabError(f"{self.name} has not ended after {timeout:g} s")
        return self.code

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to it and all of its group; nothing when it has ended."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def stop(self) -> None:
        """Freeze it (SIGSTOP)."""
        self.kill(signal.SIGSTOP)

    def cont(self) -> None:
        """Let a frozen one go on (SIGCONT)."""
        self.kill(signal.SIGCONT)

    def end(self) -> int:
        """Ask it to end, insist after a second; return its exit code.

        Its group is killed in any case: what it started does not outlive it.
        """
        self.kill(signal.SIGTERM)
        self.cont()
        with contextlib.suppress(LabError):
            self.wait(_GRACE_SECONDS)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        return self.wait(5.0)


class Lab:
    """A network with processes in it, while its `with` block lasts."""

    def __init__(self, topology: Topology | None = None, *, logs: Path) -> None:
        self.network = Network(topology or Topology())
        self.logs = logs
        """Folder for the processes' logs."""
        self._processes: list[Process] = []

    def __enter__(self) -> Lab:
        """Build the network.  Raises LabError."""
        self.logs.mkdir(parents=True, exist_ok=True)
        self.network.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes, the newest first, and remove the network."""
        try:
            for process in self._processes:
                process.kill(signal.SIGTERM)
                process.cont()
            for process in reversed(self._processes):
                process.end()
                os.close(process.fileno())
            self._processes.clear()
        finally:
            self.network.__exit__()

    def spawn(
        self,
        node: str,
        function: Callable[..., object],
        *args: object,
        log: Path | None = None,
        keep: Collection[int] = (),
    ) -> Process:
        """Run `function(*args)` in a fork of this process, on that node.

        Call it from a process with one thread.  The exit code is the int that the function
        returns or gives to SystemExit.  Its output is appended to `log`, by default
        NODE-FUNCTION.log.  Of this process's descriptors it has only those in `keep`.
        """
        name = getattr(function, "__name__", "process")
        return self._start(node, f"{node} {name}", lambda: function(*args), log, keep)

    def exec_in(self, node: str, argv: list[str], *, log: Path | None = None) -> Process:
        """Run a program on that node; its exit code is 127 when there is none of that name."""

        def execute() -> int:
            try:
                become(argv)
            except FileNotFoundError as error:
                os.write(2, f"{error}\n".encode())
            return 127

        return self._start(node, f"{node} {Path(argv[0]).name}", execute, log, ())

    def _start(
        self,
        node: str,
        name: str,
        function: Callable[[], object],
        log: Path | None,
        keep: Collection[int],
    ) -> Process:
        namespace = self.network[node].namespace
        path = log or self.logs / f"{name.replace(' ', '-')}.log"
        output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            standard = (nothing, output, output)
            pid = fork(function, namespace=namespace, standard=standard, keep=keep, name=name)
        finally:
            os.close(nothing)
            os.close(output)
        process = Process(pid, name, path)
        self._processes.append(process)
        return process
