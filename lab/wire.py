"""The line between the host and the lab's kernel: one JSON object per line, both ways.

Under user-mode Linux the line is a serial port, on the host's own kernel a socket pair; the
socket of `script/lab up` speaks the same messages.  Channels are numbered by whoever spawns.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Ready:
    """The kernel is up and furnished; guest to host, once."""

    kernel: str
    """Release, as `uname -r` says it."""


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a process; host to guest."""

    channel: int
    argv: tuple[str, ...]
    module: bool = True
    """True: `argv[0]` is a Python module, run in a fork of the warm guest; False: a program."""
    namespace: str = ""
    """Network namespace by its name under /run/netns; empty for the first one."""
    window: tuple[int, int] | None = None
    """Rows and columns of a terminal; None for pipes."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables added to the guest's own."""


@dataclass(frozen=True, slots=True)
class Input:
    """Bytes for a process's standard input; empty is end of file."""

    channel: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Signal:
    """Send a signal to a process's group."""

    channel: int
    number: int


@dataclass(frozen=True, slots=True)
class Resize:
    """The terminal has another size."""

    channel: int
    window: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Output:
    """Bytes that a process wrote."""

    channel: int
    stream: int
    """1 standard output, 2 standard error."""
    content: bytes


@dataclass(frozen=True, slots=True)
class Exit:
    """A process ended; its last output came before."""

    channel: int
    code: int
    """As the shell counts: 128 + n when signal n killed it."""


@dataclass(frozen=True, slots=True)
class Halt:
    """End every process and then the kernel (user-mode Linux) or the guest (host's kernel)."""


Message = Ready | Spawn | Input | Signal | Resize | Output | Exit | Halt

_KINDS: dict[str, type[Message]] = {
    kind.__name__.lower(): kind
    for kind in (Ready, Spawn, Input, Signal, Resize, Output, Exit, Halt)
}


def encode(message: Message) -> bytes:
    """Return `message` as one line of ASCII."""
    raw: dict[str, Any] = {"kind": type(message).__name__.lower()}
    for field in fields(message):
        value = getattr(message, field.name)
        raw[field.name] = base64.b64encode(value).decode() if type(value) is bytes else value
    return json.dumps(raw).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Return the message of one line; raises ValueError when it is none."""
    raw = json.loads(line)
    if not isinstance(raw, dict) or raw.get("kind") not in _KINDS:
        raise ValueError(f"not a message of the lab: {line[:80]!r}")
    kind = _KINDS[raw.pop("kind")]
    return kind(**{name: _typed(name, value) for name, value in raw.items()})


def _typed(name: str, value: Any) -> Any:
    if name == "content":
        return base64.b64decode(value)
    if name == "environment":
        return tuple((str(key), str(word)) for key, word in value)
    return tuple(value) if isinstance(value, list) else value


class Line:
    """One end of the line, over a file descriptor that it owns."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""

    def fileno(self) -> int:
        """Return the descriptor, for select(2)."""
        return self._descriptor

    def send(self, message: Message) -> None:
        """Write `message` whole; raises OSError when the other end is gone."""
        rest = memoryview(encode(message))
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def receive(self) -> list[Message]:
        """Read once and return the messages that are complete; raises EOFError at the end.

        Waits when there is nothing to read yet.
        """
        try:
            chunk = os.read(self._descriptor, 65536)
        except OSError as error:  # a serial line that hangs up says EIO
            raise EOFError from error
        if not chunk:
            raise EOFError
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [decode(line) for line in lines if line.strip()]

    def messages(self) -> Iterator[Message]:
        """Yield messages until the other end closes."""
        while True:
            try:
                received = self.receive()
            except EOFError:
                return
            yield from received

    def close(self) -> None:
        """Close this end."""
        os.close(self._descriptor)
