"""YAML text to the raw tree, keeping the line of every key and value.

YAML 1.1 by PyYAML's composer: anchors, aliases and merge keys (`<<`) are welcome; tags, duplicate
keys and more than one document are not.  Nothing is ever constructed, so a document can hold
nothing but text, lists and keys.
"""

from __future__ import annotations

import yaml
from yaml.error import Mark

from revip.config.tree import Block, Entry, Form, Listing, Scalar, Tree
from revip.errors import ConfigError, Problem

MERGE = "tag:yaml.org,2002:merge"
_FORMS = {
    "tag:yaml.org,2002:str": Form.TEXT,
    "tag:yaml.org,2002:int": Form.NUMBER,
    "tag:yaml.org,2002:float": Form.NUMBER,
    "tag:yaml.org,2002:bool": Form.BOOLEAN,
    "tag:yaml.org,2002:null": Form.NULL,
    "tag:yaml.org,2002:timestamp": Form.OTHER,
}


def compose(text: str, name: str) -> Block:
    """Return the tree of `text`, whose origins read `name:LINE`.

    Raises `ConfigError` when it is no YAML, empty, or not keys at its top; several problems when
    there are several tags or duplicate keys.
    """
    root = _compose(text, name)
    if root is None:
        raise ConfigError(Problem(name, "", "", "is empty: write at least virtual_servers"))
    reader = _TreeReader(name)
    try:
        tree = reader.tree(root, "")
    except RecursionError:
        raise ConfigError(_too_deep(name)) from None
    if reader.problems:
        raise ConfigError(*reader.problems)
    if not isinstance(tree, Block):
        mend = f"must hold keys such as virtual_servers, and holds {tree.shown!r}"
        raise ConfigError(Problem(tree.origin, "", "", mend))
    return tree


class _Composer(yaml.SafeLoader):
    """Remembers explicit tags, which the finished nodes no longer tell from implicit ones."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.tagged: list[tuple[Mark, str]] = []

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        """Compose the next node (the hook that every node passes)."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            self.tagged.append((event.start_mark, event.tag))
        node: yaml.Node | None = super().compose_node(parent, index)  # type: ignore[arg-type]
        return node


def _compose(text: str, name: str) -> yaml.Node | None:
    nul = text.find("\0")
    if nul >= 0:
        line = text.count("\n", 0, nul) + 1
        raise ConfigError(Problem(f"{name}:{line}", "", "", "holds a NUL byte: is it a text file?"))
    try:
        composer = _Composer(text)
        root = composer.get_single_node()
    except RecursionError:
        raise ConfigError(_too_deep(name)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        mend = f"holds the control character {error.character!r}, which YAML does not allow"
        raise ConfigError(Problem(f"{name}:{line}", "", "", mend)) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        origin = f"{name}:{mark.line + 1}" if mark else name
        mend = f"is not valid YAML: {error.problem or error.context}"
        raise ConfigError(Problem(origin, "", "", mend)) from error
    if composer.tagged:
        raise ConfigError(
            *(
                Problem(f"{name}:{mark.line + 1}", "", tag, f"remove the tag {tag}")
                for mark, tag in composer.tagged
            )
        )
    return root


class _TreeReader:
    """Turns nodes into the tree; each node once, however often it is aliased."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._known: dict[int, Tree] = {}
        self._open: set[int] = set()
        self.problems: list[Problem] = []

    def tree(self, node: yaml.Node, path: str) -> Tree:
        """Return the tree below `node`; what is wrong with it goes to `problems`."""
        if id(node) in self._open:
            return self._wrong(node, path, "holds itself: remove the alias")
        if id(node) not in self._known:
            self._open.add(id(node))
            self._known[id(node)] = self._read(node, path)
            self._open.remove(id(node))
        return self._known[id(node)]

    def _read(self, node: yaml.Node, path: str) -> Tree:
        match node:
            case yaml.MappingNode():
                return Block(self._entries(node, path), self._origin(node))
            case yaml.SequenceNode():
                items = (self.tree(item, f"{path}[{i}]") for i, item in enumerate(node.value))
                return Listing(tuple(items), self._origin(node))
            case _:
                form = _FORMS.get(node.tag, Form.OTHER)
                return Scalar(str(node.value), form, self._origin(node))

    def _entries(self, node: yaml.MappingNode, path: str) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        for key, value in node.value:
            if key.tag == MERGE:
                merged = {**self._merge(value, path), **merged}
            elif not isinstance(key, yaml.ScalarNode):
                self._wrong(key, path, "a key must be a word")
            elif key.value in entries:
                first = entries[key.value].origin
                self._wrong(key, _join(path, key.value), f"is written twice, first at {first}")
            else:
                tree = self.tree(value, _join(path, key.value))
                entries[key.value] = Entry(self._origin(key), tree)
        return {**merged, **entries}

    def _merge(self, node: yaml.Node, path: str) -> dict[str, Entry]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Entry] = {}
        for source in sources:
            tree = self.tree(source, path)
            if isinstance(tree, Block):
                merged = {**tree.entries, **merged}
            else:
                self._wrong(source, _join(path, "<<"), "merge needs an alias of keys (*name)")
        return merged

    def _wrong(self, node: yaml.Node, path: str, mend: str) -> Scalar:
        self.problems.append(Problem(self._origin(node), path, "", mend))
        return Scalar("", Form.NULL, self._origin(node))

    def _origin(self, node: yaml.Node) -> str:
        return f"{self._name}:{node.start_mark.line + 1}"


def _too_deep(name: str) -> Problem:
    return Problem(name, "", "", "is nested too deeply: no key here needs more than five levels")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
