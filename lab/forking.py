"""Forking from a warm parent: the cheap way to start a process where starting one is dear.

In user-mode Linux `python -c pass` takes a third of a second and a fork some 20 ms.  The child
shares nothing with its parent but memory: it has its own process group, default signals, and no
other descriptors than its standard ones, so that a connection the parent closes is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import gc
import os
import signal
import sys
import termios
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

NAMESPACES = Path("/run/netns")
"""Where ip-netns(8) looks for namespaces."""
CLONE_NEWNET = 0x4000_0000
"""<linux/sched.h>: the network namespace."""

_PR_SET_NAME = 15
"""<linux/prctl.h>; the kernel keeps 15 bytes of the name."""

LIBC = ctypes.CDLL(None, use_errno=True)


def call(function: str, *arguments: int | bytes | None) -> None:
    """Call `function` of the C library; raises OSError when it returns not 0."""
    if getattr(LIBC, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


def enter(namespace: str) -> None:
    """Move this thread into the network namespace of that name (setns(2)); no way back."""
    descriptor = os.open(NAMESPACES / namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        call("setns", descriptor, CLONE_NEWNET)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Be in the network namespace of that name for a while; sockets opened here stay in it."""
    back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(namespace)
        try:
            yield
        finally:
            call("setns", back, CLONE_NEWNET)
    finally:
        os.close(back)


def fork(
    function: Callable[[], object],
    *,
    namespace: str = "",
    standard: tuple[int, int, int],
    keep: Collection[int] = (),
    terminal: bool = False,
    name: str = "",
) -> int:
    """Run `function` in a child with a group of its own; return the child's process id.

    `standard` are its descriptors 0, 1, 2 (they stay open here), `keep` those that it has
    beside them, under the same numbers; with `terminal` it has a session of its own and the
    first is its controlling terminal.  `name` is what `ps -c` shows.

    The exit code is the int that `function` returns or gives to SystemExit; 0 for None; 1 after
    an exception, whose traceback goes to standard error.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        if not terminal:  # here too: a signal sent at once must find the group
            with contextlib.suppress(PermissionError, ProcessLookupError):
                os.setpgid(child, child)
        return child
    code = 1
    try:
        if terminal:
            os.setsid()
        else:
            os.setpgid(0, 0)
        _become_child(standard, keep, namespace)
        if name:
            call("prctl", _PR_SET_NAME, name.encode(), 0, 0, 0)
        if terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        code = _outcome(function)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - the child must never return into its parent's frames
        traceback.print_exc()
    finally:
        os._exit(code)


def become(argv: Sequence[str]) -> NoReturn:
    """Turn this process into a program, with the signals as programs expect them."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execvpe(argv[0], list(argv), os.environ)


def exit_code(status: int) -> int:
    """Return what the shell would say for a wait(2) status: 128 + n for signal n."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _become_child(standard: tuple[int, int, int], keep: Collection[int], namespace: str) -> None:
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):  # the C library keeps some to itself
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as Python starts: a write says EPIPE instead
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    gc.freeze()  # what the parent made is not ours to finalize
    for target, source in enumerate(standard):
        os.dup2(source, target, inheritable=True)
    if namespace:  # before the lab's lock is let go of: who gets it next must find us there
        enter(namespace)
    for descriptor in _open_descriptors() - {0, 1, 2, *keep}:
        with contextlib.suppress(OSError):  # the one that listed them
            os.close(descriptor)
    sys.stdin = os.fdopen(0, "r", closefd=False)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    asyncio.set_event_loop(None)


def _open_descriptors() -> set[int]:
    return {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}


def _outcome(function: Callable[[], object]) -> int:
    try:
        returned = function()
    except SystemExit as leaving:
        returned = leaving.code
        if isinstance(returned, str):
            print(returned, file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        return 130
    except Exception:  # noqa: BLE001 - a process's outermost frame
        traceback.print_exc()
        return 1
    return returned if isinstance(returned, int) else 0
