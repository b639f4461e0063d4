"""Reads one block of the tree by the key table, and remembers everything that is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from revip.config import kinds
from revip.config.keys import Key, Section
from revip.config.tree import Block, Listing, Scalar, Tree
from revip.errors import Problem

T = TypeVar("T")
D = TypeVar("D")


@dataclass(slots=True)
class Findings:
    """What reading a document found out beside its values."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands, for problems that are found later."""

    origin: str
    key: str
    value: str = ""

    def problem(self, mend: str) -> Problem:
        """Return the problem that `mend` describes at this place."""
        return Problem(self.origin, self.key, self.value, mend)


class Reader:
    """One block, read key by key; `open_block` makes it."""

    def __init__(self, section: Section, block: Block, path: str, findings: Findings) -> None:
        self.section = section
        self.block = block
        self.path = path
        self.findings = findings
        self._bad: set[str] = set()
        self._subs: dict[str, Reader] = {}

    def get(self, key: Key[T], default: D) -> T | D:
        """Return the value of `key`; `default` when it is left out, or bad (a problem then)."""
        tree = self.block.child(key.name)
        if tree is None:
            if key.required:
                self._bad.add(key.name)
                self.findings.problems.append(self._missing(key))
            return default
        try:
            return key.kind.convert(tree)
        except kinds.Unfit as unfit:
            self.blame(key, str(unfit))
            return default

    def good(self, key: Key[object] | str) -> bool:
        """Return whether nothing was found wrong with `key` so far."""
        return (key if isinstance(key, str) else key.name) not in self._bad

    def given(self, key: Key[object]) -> bool:
        """Return whether `key` is written, well or badly."""
        return key.name in self.block.entries

    def place(self, key: Key[object] | str) -> Place:
        """Return where `key` stands; the block's own place when it is left out."""
        name = key if isinstance(key, str) else key.name
        entry = self.block.entries.get(name)
        path = joined(self.path, name)
        if entry is None:
            return Place(self.block.origin, path)
        value = entry.value.shown if isinstance(entry.value, Scalar) else ""
        return Place(entry.origin, path, value)

    def blame(self, key: Key[object] | str, mend: str) -> None:
        """Record a problem at `key`; rules that rest on it are then not judged."""
        self._bad.add(key if isinstance(key, str) else key.name)
        self.findings.problems.append(self.place(key).problem(mend))

    def warn(self, key: Key[object] | str, remark: str) -> None:
        """Record something that is allowed but that the operator should know."""
        self.findings.warnings.append(str(self.place(key).problem(remark)))

    def rule(self, keys: tuple[Key[object], ...], broken: bool, mend: str) -> None:
        """Blame the first written of `keys` when a rule between them is `broken`.

        Not when one of its values is bad already: one mistake, one problem.
        """
        if broken and self._bad.isdisjoint(key.name for key in keys):
            self.blame(next(filter(self.given, keys), keys[0]), mend)

    def sub(self, name: str, section: Section) -> Reader:
        """Return the one reader of the block at key `name`; an empty one when it is left out."""
        if name not in self._subs:
            self._subs[name] = self._opened(name, section)
        return self._subs[name]

    def _opened(self, name: str, section: Section) -> Reader:
        tree = self.block.child(name)
        path = joined(self.path, name)
        if tree is None:
            return Reader(section, Block({}, self.block.origin), path, self.findings)
        if not isinstance(tree, Block):
            self.blame(name, f"must hold keys ({', '.join(list(section)[:3])}, …)")
            return Reader(section, Block({}, tree.origin), path, self.findings)
        return open_block(section, tree, path, self.findings)

    def subs(self, name: str, section: Section) -> list[Reader]:
        """Return the readers of the list of blocks at key `name`."""
        tree = self.block.child(name)
        if tree is None:
            return []
        if not isinstance(tree, Listing):
            self.blame(name, f"must be a list of blocks, each with {', '.join(list(section)[:3])}")
            return []
        readers = []
        for index, item in enumerate(tree.items):
            path = f"{joined(self.path, name)}[{index}]"
            if isinstance(item, Block):
                readers.append(open_block(section, item, path, self.findings))
            else:
                self._bad.add(name)
                self.findings.problems.append(_no_block(item, path, section))
        return readers

    def _missing(self, key: Key[object]) -> Problem:
        variable = self.section.variable(key)
        instead = f", or set {variable}" if variable else ""
        mend = f"is missing: write {key.kind.word}{instead}"
        return Problem(self.block.origin, joined(self.path, key.name), "", mend)


def open_block(section: Section, block: Block, path: str, findings: Findings) -> Reader:
    """Return the reader of `block`; a key that `section` does not know is a problem."""
    for name in block:
        if name not in section:
            near = kinds.suggestion(name, section, f": keys here are {', '.join(section)}")
            origin = block.entries[name].origin
            findings.problems.append(
                Problem(origin, joined(path, name), "", f"is no key that revip knows{near}")
            )
    return Reader(section, block, path, findings)


def joined(path: str, name: str) -> str:
    """Return the path of key `name` below `path`."""
    return f"{path}.{name}" if path else name


def _no_block(item: Tree, path: str, section: Section) -> Problem:
    value = item.shown if isinstance(item, Scalar) else ""
    mend = f"must hold keys ({', '.join(list(section)[:3])}, …)"
    return Problem(item.origin, path, value, mend)
