"""The raw tree: what was written, and where, before anything is known about what it means.

YAML and environment variables both become this, so that one parser serves both and every problem
can name its line or its variable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

SHOWN = 60
"""Characters of a value that a problem quotes; more does not help to find it."""


class Form(Enum):
    """How a scalar was written, which decides what it can be taken for."""

    TEXT = "text"
    NUMBER = "a number"
    BOOLEAN = "true or false"
    NULL = "nothing"
    OTHER = "a date"
    VARIABLE = "an environment variable"
    """No form of its own: an environment variable is text, whatever it means."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value, as its characters."""

    text: str
    form: Form
    origin: str

    @property
    def shown(self) -> str:
        """The value as a problem quotes it: one line, not too long."""
        line = self.text if self.text.isprintable() else repr(self.text)[1:-1]
        return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"


@dataclass(frozen=True, slots=True)
class Listing:
    """A sequence of values."""

    items: tuple[Tree, ...]
    origin: str

    @property
    def shown(self) -> str:
        """The value as a problem quotes it."""
        return f"a list of {len(self.items)}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's value, and where the key stands (the value may begin on a later line)."""

    origin: str
    value: Tree


@dataclass(frozen=True, slots=True)
class Block:
    """Keys with their values."""

    entries: Mapping[str, Entry]
    origin: str

    @property
    def shown(self) -> str:
        """The value as a problem quotes it."""
        return f"keys ({', '.join(list(self.entries)[:3])}…)" if self.entries else "no keys"

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def child(self, name: str) -> Tree | None:
        """Return the value of key `name`, None when it is not there."""
        entry = self.entries.get(name)
        return entry.value if entry else None

    def with_entry(self, name: str, value: Tree) -> Block:
        """Return this block with `name` set to `value`, in place of what it was."""
        return Block({**self.entries, name: Entry(value.origin, value)}, self.origin)


Tree = Scalar | Listing | Block
