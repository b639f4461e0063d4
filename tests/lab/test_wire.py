"""Messages survive the line, however it cuts them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from lab.wire import (
    Exit,
    Halt,
    Input,
    Line,
    Message,
    Output,
    Ready,
    Resize,
    Signal,
    Spawn,
    decode,
    encode,
)

MESSAGES: list[Message] = [
    Ready("6.1.0"),
    Spawn(3, ("pytest", "-q")),
    Spawn(1, ("bash",), False, "revip-lab-n1", (24, 80), (("TERM", "dumb"), ("PS1", "n1# "))),
    Input(1, b"\x03\xff\n"),
    Input(1, b""),
    Signal(1, 15),
    Resize(1, (50, 132)),
    Output(1, 2, bytes(range(256))),
    Exit(1, 137),
    Halt(),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_out_as_it_went_in(message: Message) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_is_one_line_of_plain_ascii(message: Message) -> None:
    line = encode(message)
    assert line.endswith(b"\n")
    assert all(32 <= byte < 127 for byte in line[:-1])


@pytest.mark.parametrize("line", [b"{}", b"[]", b'{"kind": "sing"}', b"login:"])
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        decode(line)


@pytest.fixture
def pipe() -> Iterator[tuple[int, Line]]:
    reading, writing = os.pipe()
    line = Line(reading)
    yield writing, line
    line.close()


def test_messages_cut_anywhere_are_put_together(pipe: tuple[int, Line]) -> None:
    writing, line = pipe
    content = b"".join(map(encode, MESSAGES))
    received: list[Message] = []
    for start in range(0, len(content), 7):
        os.write(writing, content[start : start + 7])
        received += line.receive()
    os.close(writing)
    assert received == MESSAGES


def test_the_end_of_the_line_ends_the_messages(pipe: tuple[int, Line]) -> None:
    writing, line = pipe
    os.write(writing, encode(Halt()))
    os.close(writing)
    assert list(line.messages()) == [Halt()]
    with pytest.raises(EOFError):
        line.receive()
