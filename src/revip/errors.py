"""Every exception revip raises on purpose, sorted by what the loop must do about it.

`ConfigError` needs a person; `TransientError` is asked again with backoff; `InvariantError` is a
bug of ours.  Foreign exceptions are translated in the adapters, by errno, never by message text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class RevipError(Exception):
    """Base of all errors that revip raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in what the operator wrote: where it stands, what it says, how to mend it."""

    origin: str
    """`FILE:LINE`, `FILE`, or the environment variable, as the operator would look for it."""
    key: str
    """Path of the key, e.g. `virtual_servers[0].port`; empty for the document as a whole."""
    value: str
    """The offending value as written; empty when there is none."""
    mend: str
    """What is wrong and what to write instead, one sentence without a final full stop."""

    def __str__(self) -> str:
        shown = f" = {self.value}" if self.value else ""
        subject = f"{self.key}{shown}: " if self.key else ""
        return f"{self.origin}: {subject}{self.mend}"


class ConfigError(RevipError):
    """The configuration cannot be used; holds every problem found, not only the first."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class TransientError(RevipError):
    """Something outside did not work this time; the caller keeps its state and asks again."""


class NotWantedError(RevipError):
    """Somebody outside will never take this; it is not offered again."""


class KernelError(TransientError):
    """The kernel refused or could not be reached.

    Holds the positive `errno`, the operation in words and a sentence that says what to do.
    """

    def __init__(self, errno: int, operation: str, sentence: str) -> None:
        super().__init__(f"{operation}: {sentence}")
        self.errno = errno
        self.operation = operation
        self.sentence = sentence


def unexpected(error: BaseException | None) -> str:
    """Say what a bug of ours raised, and in which line."""
    trace = error.__traceback__ if error is not None else None
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = ""
    if trace is not None:
        place = f" ({Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})"
    return f"unexpected {type(error).__name__}: {error}{place}"


class InvariantError(RevipError):
    """Our own bug: something that cannot be, was."""
