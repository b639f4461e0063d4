"""What a key and a section of keys are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from revip.config.kinds import Kind

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Key(Generic[T_co]):
    """One key: its name, kind, default and what it is for."""

    name: str
    kind: Kind[T_co]
    doc: str
    default: str = ""
    """As written in YAML; empty when there is none."""
    absent: str = ""
    """What happens without it, in words, where `default` cannot say it."""
    required: bool = False
    variable: str = ""
    """The environment variable, when it is not the section's prefix and the name."""


@dataclass(frozen=True, slots=True)
class Section:
    """A group of keys that stand together."""

    path: str
    """Where it stands, e.g. `virtual_servers[].probe`; empty for the top."""
    prefix: str
    """What its environment variables begin with; empty when it has none."""
    doc: str
    keys: tuple[Key[object], ...]
    children: tuple[str, ...] = ()
    """Keys that hold further sections."""

    def __iter__(self) -> Iterator[str]:
        yield from (key.name for key in self.keys)
        yield from self.children

    def variable(self, key: Key[object]) -> str:
        """Return the environment variable of `key`; empty when it has none."""
        return key.variable or (self.prefix + key.name.upper() if self.prefix else "")
