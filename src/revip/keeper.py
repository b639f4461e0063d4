"""The keeper's process: a fork of the launcher, or `python -m revip.keeper FD`.

FD is its end of a socket pair with the agent.  Imports are kept to what it needs: it is there
beside every agent, and must not be large or slow to start.  It has no configuration, no log and
no signals of its own: it ends when the agent has ended, or needs none.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from revip.adapters.clock import BootClock
from revip.adapters.fences import NftFences
from revip.adapters.keeper_process import KeeperProcess
from revip.adapters.leased_addresses import RtnetlinkAddresses
from revip.adapters.vrrp_socket import VrrpSocket
from revip.agent.keeper import Keeper
from revip.agent.keeper_words import LIMIT, Told, encode
from revip.errors import KernelError
from revip.model.notes import Kind, Level, Note

NICE = -10
"""Where real-time scheduling is not permitted."""
OOM_SCORE = -900
"""Almost never killed for want of memory: it is small, and the address depends on it."""


@contextlib.contextmanager
def forked(*, wanted: bool = True) -> Iterator[KeeperProcess]:
    """Give a keeper that was forked of this process, which should still be small.

    Where none is `wanted` it is not started yet: two processes that begin share one processor.
    """
    process = KeeperProcess()
    if wanted:
        with contextlib.suppress(KernelError):  # the agent starts another, and tells why not
            process.fork(main)
    try:
        yield process
    finally:
        process.close()


def main(descriptor: int) -> int:
    """Keep until the agent has ended."""
    os.set_inheritable(descriptor, False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # the agent is told, and tells us what to do
    clock = BootClock()
    with socket.socket(fileno=descriptor) as link:
        link.setblocking(False)

        def send(packet: bytes) -> bool:
            if len(packet) > LIMIT:
                return True  # nobody could read it
            try:
                link.send(packet, socket.MSG_NOSIGNAL)
            except OSError:
                return False
            return True

        addresses, fences = RtnetlinkAddresses(clock), NftFences(clock)
        keeper = Keeper(clock, VrrpSocket, addresses, fences, send)
        if said := _foremost():
            note = Note(clock.now(), Kind.AGENT, f"the keeper of the address {said}", Level.WARNING)
            send(encode(Told(note)))
        gc.collect()
        gc.freeze()  # what is there now stays; what comes is little
        while not keeper.done:
            looked_at = clock.now()
            _hear(link, keeper)
            due = keeper.turn(looked_at)
            _wait(link, keeper, max(0, due - clock.now()))
    return 0


def _hear(link: socket.socket, keeper: Keeper) -> None:
    while True:
        try:
            packet = link.recv(2 * LIMIT)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        keeper.hear(packet)
        if not packet:
            return


def _wait(link: socket.socket, keeper: Keeper, milliseconds: int) -> None:
    poll = select.poll()
    if not keeper.alone:
        poll.register(link, select.POLLIN)
    for speaker in keeper.speakers:
        try:
            poll.register(speaker.fileno(), select.POLLIN)
        except KernelError:
            return  # to be opened anew
    poll.poll(milliseconds)


def _foremost() -> str:
    """Come before other processes; return what was not permitted, in words."""
    refused = []
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, NICE)
        except OSError:
            refused.append("cannot run before other processes (CAP_SYS_NICE)")
    try:
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE), encoding="ascii")
    except OSError:
        refused.append("may be ended for want of memory (CAP_SYS_RESOURCE)")
    return ", and ".join(refused)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
