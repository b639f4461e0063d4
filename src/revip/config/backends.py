"""The list of backends: in the main file, and in a backends file of its own.

A backends file may be caught in the middle of a write.  What shows that it is whole: it ends with
a line feed (no write torn within a line does), every item has what it needs, and `count`, which
is optional and stands first, says how many items there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from revip.config import kinds
from revip.config.document import compose
from revip.config.keys import BACKENDS, MEMBER, Key, Member, Method, Section, Server
from revip.config.reader import Findings, Reader, open_block
from revip.errors import ConfigError, Problem
from revip.model.health import Backend, BackendName
from revip.model.ipvs import Forwarding, IPAddress, Port, at
from revip.model.spec import VirtualServerSpec

COUNT: Key[int] = Key("count", kinds.whole(0, 1024), "How many backends the file lists.")
ALLOW_EMPTY: Key[bool] = Key(
    "allow_empty", kinds.BOOLEAN, "Whether a list without backends is meant.", "false"
)
FILE = Section("", "", "A backends file.", (COUNT, ALLOW_EMPTY), (BACKENDS,))


@dataclass(frozen=True, slots=True)
class Front:
    """What backends must fit: the virtual server they stand behind, as far as it is known."""

    address: IPAddress | None
    port: Port | None
    direct: bool


def parse_backends(
    text: str, origin: str, virtual_server: VirtualServerSpec
) -> tuple[Backend, ...]:
    """Return the backends that `text`, read from file `origin`, lists for `virtual_server`.

    Raises `ConfigError` with every problem, also when the file looks cut off, or is empty without
    `allow_empty: true`.
    """
    if text and not text.endswith("\n"):
        mend = "does not end with a line feed: it was cut off, or is still being written"
        raise ConfigError(Problem(origin, "", "", mend))
    findings = Findings()
    file = open_block(FILE, compose(text, origin), "", findings)
    direct = virtual_server.forwarding is Forwarding.DIRECT
    members = file.subs(BACKENDS, MEMBER)
    backends = read_backends(members, Front(virtual_server.address, virtual_server.port, direct))
    count = file.get(COUNT, None)
    if count is not None and count != len(members):
        file.blame(COUNT, f"but the list has {len(members)}: cut off, or correct the count")
    if not file.get(ALLOW_EMPTY, False) and not members and not findings.problems:
        file.blame(BACKENDS, "lists no backend: if that is meant, write allow_empty: true")
    if findings.problems:
        raise ConfigError(*findings.problems)
    return backends


def read_backends(members: Sequence[Reader], front: Front) -> tuple[Backend, ...]:
    """Return the good ones of `members`; what is wrong with the others is in their findings."""
    backends: list[Backend] = []
    seen: dict[object, str] = {}
    for member in members:
        backend = _backend(member, front)
        if backend is not None and _is_new(member, backend, seen):
            backends.append(backend)
    return tuple(backends)


def _backend(member: Reader, front: Front) -> Backend | None:
    address = member.get(Member.ADDRESS, None)
    name = member.get(Member.NAME, str(address))
    port = member.get(Member.PORT, front.port)
    weight = member.get(Member.WEIGHT, 1)
    if address is None:
        return None
    _fit(member, address, port, front)
    if port is None:
        return None
    return Backend(BackendName(name), address, port, weight)


def _fit(member: Reader, address: IPAddress, port: Port | None, front: Front) -> None:
    refusal = unusable(address)
    if refusal:
        member.blame(Member.ADDRESS, refusal)
    elif front.address is not None and address == front.address:
        member.blame(Member.ADDRESS, "is the virtual IP itself: write the node's own address")
    elif front.address is not None and address.version != front.address.version:
        mend = f"is IPv{address.version}, but the virtual IP {front.address} is not: use one family"
        member.blame(Member.ADDRESS, mend)
    if front.direct and port and front.port and port != front.port:
        mend = (
            f"differs from the virtual server's port {front.port}, which direct forwarding cannot"
            f" change: use that port, or {Server.FORWARDING.name}: {Method.MASQUERADE.value}"
        )
        member.blame(Member.PORT, mend)


def unusable(address: IPAddress) -> str:
    """Say why no packet can be sent to `address` from another node; empty when it can."""
    if address.is_unspecified:
        return "is the unspecified address: write one that a node has"
    if address.is_loopback:
        return "is a loopback address, which no other node can reach"
    if address.is_multicast:
        return "is a multicast address: TCP needs a unicast one"
    if address.version == 4 and (address.is_reserved or address.packed[0] == 0):
        return "is not a unicast address (RFC 6890)"
    if address.version == 6 and address.is_link_local:
        return "is link-local, which needs a zone: use a global or unique local address"
    return ""


def _is_new(member: Reader, backend: Backend, seen: dict[object, str]) -> bool:
    endpoint = (backend.address, backend.port)
    if endpoint in seen:
        shown = at(backend.address, backend.port)
        member.blame(Member.ADDRESS, f"{shown} is listed twice, first at {seen[endpoint]}")
    elif backend.name in seen:
        member.blame(Member.NAME, f"{backend.name} is listed twice, first at {seen[backend.name]}")
    else:
        seen[endpoint] = seen[backend.name] = member.block.origin
        return True
    return False
