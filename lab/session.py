"""A standing lab: `up`, `shell`, `status`, `down`.

One process of the host keeps the kernel; it listens on a socket and passes on what comes, so
that a shell in a node is the same messages as a scenario, through one door more.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import os
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence

from lab import boot, resident
from lab.net import PREFIX
from lab.places import CLUSTER, REPOSITORY, SOCKET, STATE, LabError
from lab.wire import Exit, Halt, Input, Line, Message, Output, Ready, Resize, Signal, Spawn

_JOURNAL = STATE / "lab.log"
"""What the keeper of the standing lab said."""
_HOLD = 0
"""The channel of `lab.resident hold`; clients' channels count from 1."""


# --- what a person asks for ---------------------------------------------------------------------


def up(kernel: boot.KernelKind | None, holding: Sequence[str]) -> int:
    """Start a lab that stays; `holding` are the arguments of `lab.resident hold`."""
    if _connect() is not None:
        raise LabError("a lab is up already: script/lab status shows it, script/lab down ends it")
    kind = boot.choose(kernel)
    STATE.mkdir(exist_ok=True)
    arguments = [sys.executable, "-m", "lab.session", kind, *holding]
    with _JOURNAL.open("wb") as journal:
        keeper = subprocess.Popen(
            arguments,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=journal,
            start_new_session=True,
        )
    if keeper.stdout is None or not keeper.stdout.readline():
        raise LabError(_JOURNAL.read_text(errors="replace").strip() or "the lab did not come up")
    print(f"up, on {'this host' if kind == 'host' else 'user-mode Linux'}; next:")
    print("  script/lab status            what is there")
    print("  script/lab shell n1          a shell on a node (n1, n2, ..., c1)")
    print("  script/lab down              the end of it")
    return 0


def shell(node: str, argv: Sequence[str]) -> int:
    """Run a program, by default bash, on a node of the standing lab; return its exit code."""
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    window = _window() if interactive else None
    prompt = (
        ("PS1", f"{node}# "),
        ("TERM", os.environ.get("TERM", "dumb")),
        ("REVIP_SOCKET", str(CLUSTER / node / "revip.sock")),
    )
    program = tuple(argv) or ("bash", "--norc", "-i" if interactive else "-s")
    return _attach(Spawn(0, program, False, PREFIX + node, window, prompt))


def status() -> int:
    """Print what is in the standing lab."""
    return _attach(Spawn(0, ("lab.resident", "status")))


def down() -> int:
    """End the standing lab and wait until it is gone."""
    line = _connect()
    if line is None:
        print("no lab is up")
        return 0
    with contextlib.closing(line):
        line.send(Halt())
        for _ in line.messages():
            pass
    print("down")
    return 0


# --- a client -----------------------------------------------------------------------------------


def _connect() -> Line | None:
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(_short(str(SOCKET)))
    except (FileNotFoundError, ConnectionRefusedError):
        client.close()
        return None
    return Line(client.detach())


def _short(path: str) -> str:
    """Return `path` relative to here when that is shorter: sun_path holds 107 bytes (unix(7))."""
    return min(path, os.path.relpath(path), key=len)


def _attach(request: Spawn) -> int:
    line = _connect()
    if line is None:
        raise LabError("no lab is up: script/lab up starts one")
    with contextlib.closing(line), _raw_terminal(request.window is not None):
        if request.window:
            signal.signal(signal.SIGWINCH, lambda *_: line.send(Resize(0, _window())))
        line.send(request)
        sources: list[Line | int] = [line, 0]
        while True:
            readable, _, _ = select.select(sources, [], [])
            if 0 in readable:
                typed = os.read(0, 1024)
                line.send(Input(0, typed))
                if not typed:
                    sources.remove(0)
            if line in readable:
                code = _show(line)
                if code is not None:
                    return code


def _show(line: Line) -> int | None:
    """Print what came; return the exit code when the process has ended."""
    try:
        received = line.receive()
    except EOFError:
        raise LabError("the lab went down") from None
    for message in received:
        match message:
            case Output(_, stream, content):
                boot.to_own_streams(stream, content)
            case Exit(_, code):
                return code
            case _:
                pass
    return None


@contextlib.contextmanager
def _raw_terminal(wanted: bool) -> Iterator[None]:
    """Pass every key on as it is typed, for the block."""
    if not wanted:
        yield
        return
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _window() -> tuple[int, int]:
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8))
    return (rows, columns)


# --- the keeper ---------------------------------------------------------------------------------


class _Keeper:
    """Passes messages between clients, each with channels of its own, and the kernel."""

    def __init__(self, kernel: Line, door: socket.socket) -> None:
        self._kernel = kernel
        self._door = door
        self._selector = selectors.DefaultSelector()
        self._clients: dict[int, Line] = {}
        """By the kernel's channel."""
        self._next = _HOLD + 1
        self._open = True

    def serve(self) -> None:
        """Serve until a client says halt or the kernel goes."""
        self._selector.register(self._door, selectors.EVENT_READ, self._admit)
        self._selector.register(self._kernel, selectors.EVENT_READ, self._hear)
        while self._open:
            for key, _ in self._selector.select():
                act: Callable[[], None] = key.data
                act()

    def _admit(self) -> None:
        visitor, _ = self._door.accept()
        channel, self._next = self._next, self._next + 1
        client = self._clients[channel] = Line(visitor.detach())
        self._selector.register(client, selectors.EVENT_READ, lambda: self._listen(channel))

    def _listen(self, channel: int) -> None:
        try:
            received = self._clients[channel].receive()
        except EOFError:
            self._kernel.send(Signal(channel, signal.SIGHUP))
            self._dismiss(channel)
            return
        for message in received:
            match message:
                case Halt():
                    self._open = False
                case Spawn() | Input() | Signal() | Resize():
                    self._kernel.send(dataclasses.replace(message, channel=channel))
                case Ready() | Output() | Exit():
                    pass

    def _hear(self) -> None:
        try:
            received = self._kernel.receive()
        except EOFError:
            self._open = False
            return
        for message in received:
            self._deliver(message)

    def _deliver(self, message: Message) -> None:
        if not isinstance(message, Output | Exit):
            return
        if message.channel == _HOLD:
            self._open = not isinstance(message, Exit)
            return
        client = self._clients.get(message.channel)
        if client is None:  # it left before its process ended
            return
        try:
            client.send(dataclasses.replace(message, channel=0))
        except OSError:
            self._dismiss(message.channel)

    def _dismiss(self, channel: int) -> None:
        client = self._clients.pop(channel)
        self._selector.unregister(client)
        client.close()


def keep(kernel: boot.KernelKind, holding: Sequence[str]) -> int:
    """Boot a kernel, build the network, say `up` on standard output, and serve clients."""
    boot.heed_sigterm()
    with boot.booted(kernel) as running, socket.socket(socket.AF_UNIX) as door:
        running.line.send(Spawn(_HOLD, ("lab.resident", "hold", *holding)))
        _await_up(running.line)
        SOCKET.unlink(missing_ok=True)
        door.bind(_short(str(SOCKET)))
        SOCKET.chmod(0o600)
        door.listen()
        try:
            print(resident.UP, flush=True)
            _Keeper(running.line, door).serve()
        finally:
            SOCKET.unlink(missing_ok=True)
    return 0


def _await_up(line: Line) -> None:
    for message in line.messages():
        match message:
            case Output(_, 1, content) if content.strip() == resident.UP.encode():
                return
            case Output(_, _, content):
                sys.stderr.write(content.decode(errors="replace"))
            case Exit():
                break
            case _:
                pass
    sys.exit(1)


def main(arguments: Sequence[str]) -> int:
    """Be the keeper: `python -m lab.session KERNEL HOLDING...`."""
    parser = argparse.ArgumentParser(prog="lab.session", description=main.__doc__)
    parser.add_argument("kernel", choices=("host", "uml"))
    parser.add_argument("holding", nargs=argparse.REMAINDER)
    chosen = parser.parse_args(arguments)
    try:
        return keep(chosen.kernel, chosen.holding)
    except LabError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
