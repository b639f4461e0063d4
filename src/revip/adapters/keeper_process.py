"""The port `KeeperLink`: the keeper as a process of its own, at the other end of a socket pair.

The first one is a fork of the launcher, made before the agent loads what makes it large: it has
what it needs and shares it.  Later ones, should one end, are fresh interpreters: a fork of the
agent would carry all of it, and the threads that it may have had.  Either is in a session of its
own: what stops or kills the agent's process group must not stop it.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable

from revip.errors import KernelError

MODULE = "revip.keeper"
LARGEST = 64 * 1024
"""Bytes of one packet."""
AT_ONCE = 256
"""Packets taken in before the rest of the agent has its turn."""


class KeeperProcess:
    """Starts a keeper and talks with it."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self.pid: int | None = None
        """The process, until it is known to have ended."""
        self._fresh = False
        """Whether the process that was forked first is still to be used."""

    def fork(self, work: Callable[[int], int]) -> None:
        """Have `work` done in a fork of this process, with its end of the socket pair's number.

        To be called while this process has one thread and is small.  Raises `KernelError`.
        """
        gc.collect()
        gc.freeze()  # else each collection would write to every page that both have
        ours, theirs = _pair()
        try:
            pid = os.fork()
        except OSError as error:
            raise _refused(error) from error
        if not pid:
            code = 1
            try:
                os.setsid()
                ours.close()
                code = work(theirs.detach())
            finally:
                os._exit(code)
        theirs.close()
        self._socket, self.pid, self._fresh = ours, pid, True

    def start(self) -> None:
        """Start a keeper.  Raises `KernelError`."""
        if self._fresh and self._socket is not None:
            self._fresh = False
            return
        self.close()
        ours, theirs = _pair()
        os.set_inheritable(theirs.fileno(), True)
        command = [sys.executable, "-P", "-m", MODULE, str(theirs.fileno())]
        try:
            with theirs:
                environment = dict(os.environ)
                self.pid = os.posix_spawn(sys.executable, command, environment, setsid=True)
        except OSError as error:
            ours.close()
            raise _refused(error) from error
        self._socket = ours

    def send(self, packet: bytes) -> bool:
        """Give it a packet; False when it has no room for it, or has ended."""
        if self._socket is None:
            return False
        try:
            self._socket.send(packet, socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return True

    def receive(self) -> list[bytes]:
        """Return all that it has said so far; an empty packet, always the last, is its end."""
        packets: list[bytes] = []
        while self._socket is not None and len(packets) < AT_ONCE:
            try:
                packets.append(self._socket.recv(LARGEST))
            except BlockingIOError:
                break
            except OSError:
                packets.append(b"")
            if not packets[-1]:
                break
        return packets

    async def readable(self) -> None:
        """Wait until there is something to receive."""
        if self._socket is None:
            raise KernelError(errno.EBADF, "hear the keeper", "it is not running")
        import asyncio  # not before the fork

        loop, come, opened = asyncio.get_running_loop(), asyncio.Event(), self._socket
        loop.add_reader(opened, come.set)
        try:
            await come.wait()
        finally:
            loop.remove_reader(opened)

    def close(self, *, kill: bool = False) -> None:
        """Let go of it: it gives the addresses away and ends; `kill` ends it at once."""
        self._fresh = False
        if kill and self.pid is not None and self._lives():
            os.kill(self.pid, signal.SIGKILL)
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._lives()

    def _lives(self) -> bool:
        """Return whether the process lives; one that has ended is taken note of."""
        if self.pid is None:
            return False
        try:
            ended, _ = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            ended = self.pid
        if ended:
            self.pid = None
        return not ended


def _pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


def _refused(error: OSError) -> KernelError:
    number = error.errno or errno.EIO
    return KernelError(number, "start the keeper", os.strerror(number))
