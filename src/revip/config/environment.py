"""`REVIP_*` variables laid over the file's tree, or standing alone."""

from __future__ import annotations

from collections.abc import Mapping

from revip.config import kinds
from revip.config.keys import (
    AGENT,
    BACKENDS,
    BACKENDS_VARIABLE,
    COMMAND,
    ELECTION,
    HEALTH,
    HTTP,
    PROBE,
    SERVER,
    TOP,
    WEBHOOK,
    Key,
    Section,
)
from revip.config.reader import Findings
from revip.config.tree import Block, Form, Listing, Scalar, Tree
from revip.errors import Problem
from revip.model.notify import VARIABLES

PREFIX = "REVIP_"
ELSEWHERE = frozenset({"REVIP_CONFIG", *VARIABLES})
"""Variables that the command line reads or notifications set, and no configuration."""
_ALONE = "environment"
_ONCE = (TOP, AGENT, HTTP, WEBHOOK, COMMAND)
"""Sections that a document has once, whatever its virtual servers."""


def settings() -> dict[str, tuple[Section, Key[object]]]:
    """Return every variable that sets one key, with the key it sets."""
    return {
        section.variable(key): (section, key)
        for section in (SERVER, ELECTION, PROBE, HEALTH, *_ONCE)
        for key in section.keys
    }


def overlay(root: Block | None, environ: Mapping[str, str], findings: Findings) -> Block:
    """Return `root` (None when there is no file) with the variables of `environ` in force.

    Variables about a virtual server need that there is at most one; a `REVIP_*` variable that
    nobody knows is a problem.
    """
    known = settings()
    root = Block({}, _ALONE) if root is None else root
    server = _only_server(root)
    mine = {name: value for name, value in sorted(environ.items()) if name.startswith(PREFIX)}
    touched = False
    for name, value in mine.items():
        if (name in known or name == BACKENDS_VARIABLE) and not value.startswith("tcp://"):
            section, tree, path = _setting(name, value, known)
            if section in _ONCE:
                root = _put(root, path, tree)
            elif server is None:
                findings.problems.append(_ambiguous(name, value))
            else:
                server, touched = _put(server, path, tree), True
        elif name not in ELSEWHERE:
            findings.problems.append(_unknown(name, value, (*known, BACKENDS_VARIABLE)))
    if server is not None and touched:
        root = root.with_entry("virtual_servers", Listing((server,), server.origin))
    return root


def _only_server(root: Block) -> Block | None:
    servers = root.child("virtual_servers")
    if servers is None:
        return Block({}, _ALONE)
    if isinstance(servers, Listing) and len(servers.items) == 1:
        only = servers.items[0]
        return only if isinstance(only, Block) else None
    return None


def _setting(
    name: str, value: str, known: Mapping[str, tuple[Section, Key[object]]]
) -> tuple[Section, Tree, tuple[str, ...]]:
    if name == BACKENDS_VARIABLE:
        return SERVER, _backends(name, value), (BACKENDS,)
    section, key = known[name]
    tree: Tree = Scalar(value, Form.VARIABLE, name)
    if key.kind.plural:
        tree = Listing(tuple(Scalar(item, Form.VARIABLE, name) for item in _items(value)), name)
    parents = {
        ELECTION.path: ("election",),
        PROBE.path: ("probe",),
        HEALTH.path: ("health",),
        AGENT.path: ("agent",),
        HTTP.path: ("http",),
        WEBHOOK.path: ("notify", "webhook"),
        COMMAND.path: ("notify", "command"),
    }
    return section, tree, (*parents.get(section.path, ()), key.name)


def _put(block: Block, path: tuple[str, ...], tree: Tree) -> Block:
    name, *rest = path
    if not rest:
        return block.with_entry(name, tree)
    inner = block.child(name)
    if inner is not None and not isinstance(inner, Block):
        return block  # its wrong type is a problem already
    return block.with_entry(name, _put(inner or Block({}, tree.origin), tuple(rest), tree))


def _items(value: str) -> list[str]:
    return [item.strip() for item in value.split(",") if item.strip()]


def _backends(name: str, value: str) -> Listing:
    return Listing(tuple(_member(name, item) for item in _items(value)), name)


def _member(variable: str, item: str) -> Block:
    name, equals, endpoint = item.rpartition("=")
    address, port = _endpoint(endpoint.strip())
    words = {"address": address}
    if equals:
        words["name"] = name.strip()
    if port is not None:
        words["port"] = port
    block = Block({}, variable)
    for key, text in words.items():
        block = block.with_entry(key, Scalar(text, Form.VARIABLE, variable))
    return block


def _endpoint(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        return address, rest.removeprefix(":") if rest else None
    if text.count(":") == 1:
        address, _, port = text.partition(":")
        return address, port
    return text, None


def _ambiguous(name: str, value: str) -> Problem:
    mend = "sets one virtual server, but the file does not have exactly one: set it in the file"
    return Problem(name, "", value, mend)


def _unknown(name: str, value: str, known: tuple[str, ...]) -> Problem:
    # The kubelet describes every Service of the namespace this way (docker links); a Service
    # that is called "revip" would otherwise configure us.
    if "_SERVICE_" in name or "_TCP" in name or "_UDP" in name or value.startswith("tcp://"):
        near = ": Kubernetes made it for a Service; set enableServiceLinks: false in the pod"
    else:
        words = [each.removeprefix(PREFIX) for each in known]
        near = kinds.suggestion(name.removeprefix(PREFIX), words)
        near = near.replace("mean ", f"mean {PREFIX}") or f": {PREFIX} is reserved, unset it"
    return Problem(name, "", "", f"is no variable that revip knows{near}")
