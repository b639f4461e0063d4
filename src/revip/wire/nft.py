"""A fence of nf_tables as nfnetlink says it (include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h).

One table for each address, named after it, in family netdev at the egress of its interface (Linux
5.16).  One rule puts the interface into a set for three intervals whenever an advert of ours
leaves; the other drops what this host says about the address (ARP with it as the sender, neighbor
advertisements with it as the target) while the interface is not in the set.  So the adverts
themselves hold the fence open, without a word of ours to nf_tables: a transaction for each advert
would move the generation number ten times a second, and others, who begin anew when it has moved
since they looked (nf_tables_valid_genid(), net/netfilter/nf_tables_api.c), might never finish.

Only what the fence needs is known here; `nft list ruleset` shows it in words that nft(8) reads.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from revip.model.host import Fence
from revip.model.instants import Span
from revip.model.ipvs import IPAddress
from revip.wire.netlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    Message,
    WireError,
    attribute,
    attributes,
    nested,
    pack_message,
)

NLM_F_CREATE, NLM_F_APPEND = 0x400, 0x800
NFNL_SUBSYS_NFTABLES = 10
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 0x10, 0x11
NFPROTO_NETDEV, NF_NETDEV_EGRESS = 5, 1

_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE, _GETRULE = 0, 1, 2, 3, 6, 7
_NEWSET, _NEWSETELEM, _GETSETELEM, _DELSETELEM = 9, 12, 13, 14

_TABLE_NAME = 1
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 1, 3, 4, 5, 7
_HOOK_NUM, _HOOK_PRIORITY, _HOOK_DEVICE = 1, 2, 3
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS, _RULE_USERDATA = 1, 2, 4, 7
_SET_TABLE, _SET_NAME, _SET_FLAGS, _SET_KEY_TYPE, _SET_KEY_LEN = 1, 2, 3, 4, 5
_SET_DESCRIPTION, _SET_ID, _SET_USERDATA, _DESCRIPTION_SIZE = 9, 10, 13, 1
_SET_F_TIMEOUT, _SET_F_EVAL = 0x10, 0x20
_ELEMENTS_TABLE, _ELEMENTS_SET, _ELEMENTS = 1, 2, 3
_ELEMENT_KEY, _ELEMENT_TIMEOUT, _ELEMENT_EXPIRATION = 1, 4, 5
_LIST_ELEMENT, _DATA_VALUE, _DATA_VERDICT, _VERDICT_CODE = 1, 1, 2, 1
_EXPR_NAME, _EXPR_DATA = 1, 2

_REG_VERDICT, _REG_1 = 0, 1
_NETWORK, _TRANSPORT = 1, 2
_META_PROTOCOL, _META_OIF, _META_L4PROTO = 1, 5, 16
_CMP_EQ, _CMP_NEQ, _LOOKUP_F_INV, _DYNSET_OP_UPDATE = 0, 1, 1, 1
_NF_DROP, _NF_ACCEPT = 0, 1
_ARP, _IPV4, _IPV6 = b"\x08\x06", b"\x08\x00", b"\x86\xdd"
_ICMPV6, _VRRP, _NEIGHBOR_ADVERTISEMENT = b"\x3a", b"\x70", b"\x88"
_ARP_SENDER, _NA_TARGET = 14, 8  # RFC 826; RFC 4861 section 4.4
_VRID, _PRIORITY = 1, 2  # RFC 9568 section 5.2
_IFACE_INDEX = 20
"""How nft(8) calls the type of the set's key (datatype.h of nftables)."""
_HOST_ENDIAN = b"\0\x04" + struct.pack("=I", 1)
"""Tells nft(8) how to show that key: NFTNL_UDATA_SET_KEYBYTEORDER (udata.h of libnftnl)."""
_SIZE = 65_535
"""Of the set: an element that has run out counts until it is collected."""

_NOMINAL = Span(300_000)
"""Milliseconds, longer than three intervals ever are."""

CHAIN, SET = "output", "answering"
_U32 = struct.Struct("!I")
_U64 = struct.Struct("!Q")
_INDEX = struct.Struct("=I")
_NFGENMSG = struct.Struct("!BBH")


def table_name(address: IPAddress) -> str:
    """Return what the table of an address is called; a colon would not be read back by nft(8)."""
    return f"revip_{address.packed.hex()}"


def fence_built(fence: Fence, index: int, open_for: Span | None, sequence: int) -> bytes:
    """Return one transaction that makes the whole fence anew, open for so long or closed.

    `index` is the interface's.
    """
    table = _text(_TABLE_NAME, table_name(fence.address))
    requests = [
        _request(_NEWTABLE, NLM_F_CREATE, table),
        _request(_DELTABLE, 0, table),
        _request(_NEWTABLE, NLM_F_CREATE, table),
        _new_set(fence),
        _new_chain(fence),
        _new_rule(fence, _advert_leaves(fence), "each advert"),
        _new_rule(fence, _silence(fence), "only while adverts leave"),
    ]
    if open_for is not None:
        requests.append(_new_element(fence.address, index, open_for))
    return _batch(requests, sequence)


def fence_destroyed(address: IPAddress, sequence: int) -> bytes:
    """Return a transaction that removes it; ENOENT when there is none."""
    return _batch([_request(_DELTABLE, 0, _text(_TABLE_NAME, table_name(address)))], sequence)


def fence_opened(address: IPAddress, index: int, open_for: Span | None, sequence: int) -> bytes:
    """Return a transaction that lets answers out for so long from now, None for not at all.

    An element's timeout could be changed in its place only since Linux 6.12, and one that has
    run out cannot be deleted: so the set is emptied, which both are no matter to, and filled.
    """
    where = _text(_ELEMENTS_TABLE, table_name(address)) + _text(_ELEMENTS_SET, SET)
    requests = [_request(_DELSETELEM, 0, where)]
    if open_for is not None:
        requests.append(_new_element(address, index, open_for))
    return _batch(requests, sequence)


def fence_asked(address: IPAddress, sequence: int) -> bytes:
    """Return the dump of the rules of its chain."""
    where = _text(_RULE_TABLE, table_name(address)) + _text(_RULE_CHAIN, CHAIN)
    kind, _, payload = _request(_GETRULE, 0, where)
    return pack_message(Message(kind, NLM_F_REQUEST | NLM_F_DUMP, sequence, payload))


def elements_asked(address: IPAddress, sequence: int) -> bytes:
    """Return the dump of its set; what has run out is not in it."""
    where = _text(_ELEMENTS_TABLE, table_name(address)) + _text(_ELEMENTS_SET, SET)
    kind, _, payload = _request(_GETSETELEM, 0, where)
    return pack_message(Message(kind, NLM_F_REQUEST | NLM_F_DUMP, sequence, payload))


def has_elements(answers: Sequence[bytes]) -> bool:
    """Return whether a dumped set has any.  Raises `WireError`."""
    if any(len(answer) < _NFGENMSG.size for answer in answers):
        raise WireError("nfnetlink: no room for a header")
    return any(attributes(answer[_NFGENMSG.size :]).get(_ELEMENTS) for answer in answers)


def table_asked(address: IPAddress, sequence: int) -> bytes:
    """Return the question whether there is its table; ENOENT when there is none."""
    kind, _, payload = _request(_GETTABLE, 0, _text(_TABLE_NAME, table_name(address)))
    return pack_message(Message(kind, NLM_F_REQUEST | NLM_F_ACK, sequence, payload))


def is_the_fence(fence: Fence, rules: Sequence[bytes]) -> bool:
    """Return whether dumped rules are those of the fence.  Raises `WireError`."""
    if any(len(rule) < _NFGENMSG.size for rule in rules):
        raise WireError("nfnetlink: no room for a header")
    marks = [attributes(rule[_NFGENMSG.size :]).get(_RULE_USERDATA) for rule in rules]
    return marks == [_mark(fence, "each advert"), _mark(fence, "only while adverts leave")]


def _batch(requests: Sequence[tuple[int, int, bytes]], sequence: int) -> bytes:
    """Wrap into one transaction; each part has the same sequence, the last asks for an answer."""
    edge = _header(0, NFNL_SUBSYS_NFTABLES)
    packed = pack_message(Message(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, sequence, edge))
    for number, (kind, flags, payload) in enumerate(requests, 1):
        wanted = NLM_F_ACK if number == len(requests) else 0
        packed += pack_message(Message(kind, NLM_F_REQUEST | flags | wanted, sequence, payload))
    return packed + pack_message(Message(NFNL_MSG_BATCH_END, NLM_F_REQUEST, sequence, edge))


def _request(command: int, flags: int, body: bytes) -> tuple[int, int, bytes]:
    return NFNL_SUBSYS_NFTABLES << 8 | command, flags, _header(NFPROTO_NETDEV) + body


def _header(family: int, resource: int = 0) -> bytes:
    return _NFGENMSG.pack(family, 0, resource)


def _new_set(fence: Fence) -> tuple[int, int, bytes]:
    body = (
        _text(_SET_TABLE, table_name(fence.address))
        + _text(_SET_NAME, SET)
        + _number(_SET_FLAGS, _SET_F_TIMEOUT | _SET_F_EVAL)
        + _number(_SET_KEY_TYPE, _IFACE_INDEX)
        + _number(_SET_KEY_LEN, _INDEX.size)
        + nested(_SET_DESCRIPTION, _number(_DESCRIPTION_SIZE, _SIZE))
        + _number(_SET_ID, 1)
        + attribute(_SET_USERDATA, _HOST_ENDIAN)
    )
    return _request(_NEWSET, NLM_F_CREATE, body)


def _new_chain(fence: Fence) -> tuple[int, int, bytes]:
    hook = nested(
        _CHAIN_HOOK,
        _number(_HOOK_NUM, NF_NETDEV_EGRESS),
        _number(_HOOK_PRIORITY, 0),
        _text(_HOOK_DEVICE, fence.link),
    )
    body = (
        _text(_CHAIN_TABLE, table_name(fence.address))
        + _text(_CHAIN_NAME, CHAIN)
        + hook
        + _number(_CHAIN_POLICY, _NF_ACCEPT)
        + _text(_CHAIN_TYPE, "filter")
    )
    return _request(_NEWCHAIN, NLM_F_CREATE, body)


def _advert_leaves(fence: Fence) -> tuple[bytes, ...]:
    """Return the rule by which an advert that is no farewell keeps the interface in the set."""
    return (
        _meta(_META_PROTOCOL),
        _compared(_IPV4 if fence.address.version == 4 else _IPV6),
        _meta(_META_L4PROTO),
        _compared(_VRRP),
        _payload(_TRANSPORT, _VRID, 1),
        _compared(bytes((fence.vrid,))),
        _payload(_TRANSPORT, _PRIORITY, 1),
        _compared(b"\0", _CMP_NEQ),
        _meta(_META_OIF),
        # NFTA_DYNSET_{SET_NAME,SET_ID,OP,SREG_KEY,TIMEOUT}
        _expression(
            "dynset",
            _text(1, SET),
            _number(2, 1),
            _number(3, _DYNSET_OP_UPDATE),
            _number(4, _REG_1),
            attribute(6, _U64.pack(fence.open_for)),
        ),
    )


def _silence(fence: Fence) -> tuple[bytes, ...]:
    """Return the rule that drops what is said about the address otherwise."""
    address = fence.address
    saying: tuple[bytes, ...]
    if address.version == 4:
        saying = (
            _meta(_META_PROTOCOL),
            _compared(_ARP),
            _payload(_NETWORK, _ARP_SENDER, 4),
            _compared(address.packed),
        )
    else:
        saying = (
            _meta(_META_PROTOCOL),
            _compared(_IPV6),
            _meta(_META_L4PROTO),
            _compared(_ICMPV6),
            _payload(_TRANSPORT, 0, 1),
            _compared(_NEIGHBOR_ADVERTISEMENT),
            _payload(_TRANSPORT, _NA_TARGET, 16),
            _compared(address.packed),
        )
    # NFTA_LOOKUP_{SET,SREG,SET_ID,FLAGS}; NFTA_IMMEDIATE_{DREG,DATA}
    unless = (_text(1, SET), _number(2, _REG_1), _number(4, 1), _number(5, _LOOKUP_F_INV))
    verdict = nested(_DATA_VERDICT, _number(_VERDICT_CODE, _NF_DROP))
    drop = _expression("immediate", _number(1, _REG_VERDICT), nested(2, verdict))
    return (*saying, _meta(_META_OIF), _expression("lookup", *unless), drop)


def _new_rule(fence: Fence, expressions: Sequence[bytes], purpose: str) -> tuple[int, int, bytes]:
    body = (
        _text(_RULE_TABLE, table_name(fence.address))
        + _text(_RULE_CHAIN, CHAIN)
        + nested(_RULE_EXPRESSIONS, *expressions)
        + attribute(_RULE_USERDATA, _mark(fence, purpose))
    )
    return _request(_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, body)


def _new_element(address: IPAddress, index: int, open_for: Span) -> tuple[int, int, bytes]:
    key = nested(_ELEMENT_KEY, attribute(_DATA_VALUE, _INDEX.pack(index)))
    # An advert moves the end only; one after the timeout would not be read back by nft(8).
    timeout = attribute(_ELEMENT_TIMEOUT, _U64.pack(max(open_for, _NOMINAL)))
    end = attribute(_ELEMENT_EXPIRATION, _U64.pack(open_for))
    body = (
        _text(_ELEMENTS_TABLE, table_name(address))
        + _text(_ELEMENTS_SET, SET)
        + nested(_ELEMENTS, nested(_LIST_ELEMENT, key, timeout, end))
    )
    return _request(_NEWSETELEM, NLM_F_CREATE, body)


def _expression(name: str, *body: bytes) -> bytes:
    return nested(_LIST_ELEMENT, _text(_EXPR_NAME, name), nested(_EXPR_DATA, *body))


def _meta(key: int) -> bytes:
    """Load what the kernel knows of the packet: NFTA_META_{DREG,KEY}."""
    return _expression("meta", _number(1, _REG_1), _number(2, key))


def _payload(base: int, offset: int, length: int) -> bytes:
    """Load so many bytes of the packet: NFTA_PAYLOAD_{DREG,BASE,OFFSET,LEN}."""
    body = (_number(1, _REG_1), _number(2, base), _number(3, offset), _number(4, length))
    return _expression("payload", *body)


def _compared(value: bytes, how: int = _CMP_EQ) -> bytes:
    """Go on only if what was loaded is, or is not, `value`: NFTA_CMP_{SREG,OP,DATA}."""
    data = nested(3, attribute(_DATA_VALUE, value))
    return _expression("cmp", _number(1, _REG_1), _number(2, how), data)


def _mark(fence: Fence, purpose: str) -> bytes:
    """Return a rule's comment as nft(8) writes and shows it; by it the rule is known as ours."""
    what = f"{fence.address} {fence.link} vrid {fence.vrid} {fence.open_for} ms"
    words = f"revip: {what}: {purpose}".encode() + b"\0"
    return bytes((0, len(words))) + words


def _text(kind: int, text: str) -> bytes:
    return attribute(kind, text.encode("ascii") + b"\0")


def _number(kind: int, number: int) -> bytes:
    return attribute(kind, _U32.pack(number))
