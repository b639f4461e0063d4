"""Links, addresses, routes and rules: facts to and from rtnetlink messages (rtnetlink(7)).

Reading yields facts that hold, of which the caller keeps the wanted ones; so foreign state is
never even seen.  Writing names everything that identifies one of ours, so that a removal can hit
nothing else.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from revip.adapters.host import rtnetlink as rt
from revip.adapters.host.leases import Leases
from revip.adapters.host.refusals import refusal
from revip.adapters.host.rtnetlink import Message, Rtnetlink
from revip.errors import KernelError
from revip.model.host import (
    KERNEL_LOCAL_TABLE,
    ROUTE_PROTOCOL,
    ROUTE_TABLE,
    RULE_PRIORITY,
    DummyLink,
    HostFact,
    LinkAddress,
    LocalRoute,
    SourceHintRoute,
    WireRule,
)
from revip.model.ipvs import IPAddress, Port
from revip.model.spec import LinkName

LinkFact = DummyLink | LinkAddress | LocalRoute | SourceHintRoute | WireRule

RTN_UNICAST, RTN_LOCAL = 1, 2
RTPROT_KERNEL = 2
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_HOST = 0, 253, 254
RT_TABLE_MAIN = 254
FR_ACT_TO_TBL = 1
IFF_UP = 1
IFA_F_NODAD, IFA_F_DEPRECATED, IFA_F_NOPREFIXROUTE = 0x02, 0x20, 0x200
FOR_EVER = 2**32 - 1

_SIOCGIFFLAGS = 0x8913
_ARRIVAL_WAITS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064)
"""Seconds between looks; seen to be 1 to 10 ms on an idle machine."""
_WITHIN_A_BYTE = 252
"""RT_TABLE_COMPAT: what the one-byte field says when the table's number needs the attribute."""


class Links:
    """What rtnetlink knows and can change of the facts of a host."""

    def __init__(self, netlink: Rtnetlink, leases: Leases | None = None) -> None:
        self._netlink = netlink
        self._leases = leases or Leases()

    async def holding(self, wanted: Iterable[LinkFact]) -> frozenset[HostFact]:
        """Return those of `wanted` that hold.  Raises `KernelError`."""
        facts = frozenset(wanted)
        found: set[HostFact] = {f for f in facts if isinstance(f, DummyLink) and _is_up(f.name)}
        addressed = {fact for fact in facts if not isinstance(fact, DummyLink)}
        links = {link: i for link in {f.link for f in addressed} if (i := index(link))}
        for version in sorted({fact.address.version for fact in addressed}):
            mine = {fact for fact in addressed if fact.address.version == version}
            for link in {fact.link for fact in mine if isinstance(fact, LinkAddress)} & set(links):
                found |= {LinkAddress(link, a) for a in await self._addresses(links[link], version)}
            if any(isinstance(fact, LocalRoute | SourceHintRoute) for fact in mine):
                found |= await self._our_routes(links, version)
            for link in {f.link for f in mine if _is_the_kernels_own(f)} & set(links):
                found |= await self._kernel_routes(link, links[link], version)
            if any(isinstance(fact, WireRule) for fact in mine):
                found |= await self._rules(version)
        return facts & found

    async def establish(self, fact: LinkFact) -> None:
        """Make `fact` true; that it is already is success.  Raises `KernelError`."""
        operation = f"add {_words(fact)}"
        flags = rt.NLM_F_CREATE | rt.NLM_F_EXCL
        match fact:
            case DummyLink(name):
                await self._add_dummy(name, operation)
                return
            case LinkAddress():
                code = await self._write(fact, flags, operation)
            case LocalRoute(link, address) if fact.is_the_kernels_own:
                # Nobody else can make it as it was (IPv6 turns metric 0 into 1024).
                if fact not in await self.holding((fact,)):
                    await self.withdraw(LinkAddress(link, address))
                    await self.establish(LinkAddress(link, address))
                return
            case LocalRoute() | SourceHintRoute():
                flags = rt.NLM_F_CREATE | rt.NLM_F_REPLACE
                arguments = _route(fact, operation)
                code = await self._netlink.request("route", rt.RTM_NEWROUTE, flags, *arguments)
            case WireRule():
                code = await self._netlink.request("rule", rt.RTM_NEWRULE, flags, *_rule(fact))
        if code not in (0, errno.EEXIST):
            raise refusal(code, operation)
        if isinstance(fact, LinkAddress) and fact.address.version == 6 and code == 0:
            await self._arrival(LocalRoute(fact.link, fact.address, KERNEL_LOCAL_TABLE))

    async def _write(self, fact: LinkAddress, flags: int, operation: str) -> int:
        """Write an address within its lease; return 0 or the errno of the kernel's refusal."""
        arguments = _address(fact, operation, self._leases.seconds(fact, operation))
        try:
            code = await self._netlink.request("address", rt.RTM_NEWADDR, flags, *arguments)
        except KernelError:  # no answer: it may be there all the same
            await self._unwrite_if_late(fact, operation)
            raise
        if code == 0:
            await self._unwrite_if_late(fact, operation)
        return code

    async def _unwrite_if_late(self, fact: LinkAddress, operation: str) -> None:
        """Take away what was written after its lease: this process was frozen meanwhile."""
        if self._leases.over(fact):
            await self.withdraw(fact)
            sentence = "the lease ended while it was written: taken away again"
            raise refusal(errno.ETIME, operation, sentence)

    async def withdraw(self, fact: LinkFact) -> None:
        """Make `fact` untrue; that it is already is success.  Raises `KernelError`."""
        operation = f"remove {_words(fact)}"
        if not isinstance(fact, WireRule) and not index(_link_of(fact)):
            return
        match fact:
            case DummyLink(name):
                fields = {"index": index(name)}
                code = await self._netlink.request("link", rt.RTM_DELLINK, 0, fields, {})
            case LinkAddress():
                arguments = _address(fact, operation, None)
                code = await self._netlink.request("address", rt.RTM_DELADDR, 0, *arguments)
            case LocalRoute() | SourceHintRoute():
                arguments = _route(fact, operation)
                code = await self._netlink.request("route", rt.RTM_DELROUTE, 0, *arguments)
            case WireRule():
                code = await self._netlink.request("rule", rt.RTM_DELRULE, 0, *_rule(fact))
        if code not in (0, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENODEV):
            raise refusal(code, operation)

    async def own_addresses(self, link: LinkName, version: int) -> tuple[IPAddress, ...]:
        """Return the global, not deprecated addresses of `link` in the kernel's order.

        Raises `KernelError`, ENODEV when there is no such interface.
        """
        number = _index_or_raise(link, f"read addresses of {link}")
        return tuple(await self._addresses(number, version, usable=True))

    async def link_local(self, link: LinkName) -> tuple[IPAddress, ...]:
        """Return the link-local IPv6 addresses of `link`; ENODEV when there is no such link."""
        number = _index_or_raise(link, f"read addresses of {link}")
        found = await self._addresses(number, 6, usable=True, scope=RT_SCOPE_LINK)
        return tuple(found)

    async def _add_dummy(self, name: LinkName, operation: str) -> None:
        attributes = {
            "IFLA_IFNAME": name,
            "IFLA_LINKINFO": {"attrs": [("IFLA_INFO_KIND", "dummy")]},
        }
        up = {"flags": IFF_UP, "change": IFF_UP}
        flags = rt.NLM_F_CREATE | rt.NLM_F_EXCL
        code = await self._netlink.request("link", rt.RTM_NEWLINK, flags, up, attributes)
        if code == errno.EEXIST:
            fields = up | {"index": index(name)}
            code = await self._netlink.request("link", rt.RTM_NEWLINK, 0, fields, {})
        if code == errno.EOPNOTSUPP:
            sentence = "dummy interfaces are not available; run `modprobe dummy`"
            raise refusal(code, operation, sentence)
        if code:
            raise refusal(code, operation)

    async def _arrival(self, route: LocalRoute) -> None:
        """Wait for a local route that the kernel adds from a workqueue, after it has answered.

        addrconf_dad_start() in net/ipv6/addrconf.c.  Who looks too soon sees a host that has
        settled.  On a link that is down it comes later or never, and is then announced.
        """
        for wait in _ARRIVAL_WAITS:
            if route in await self.holding((route,)):
                return
            await asyncio.sleep(wait)

    async def _addresses(
        self,
        number: int,
        version: int,
        *,
        usable: bool = False,
        scope: int = RT_SCOPE_UNIVERSE,
    ) -> list[IPAddress]:
        fields = {"family": _family(version), "index": number}
        found = []
        for message in await self._netlink.dump("address", rt.RTM_GETADDR, fields, {}):
            text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            address = ip_address(text)
            flags = message.get_attr("IFA_FLAGS") or message["flags"]
            if usable:
                if message["scope"] == scope and not flags & IFA_F_DEPRECATED:
                    found.append(address)
            # IPv6 has an address at most once on a link, whatever the prefix length.
            elif message["prefixlen"] == address.max_prefixlen or version == 6:
                found.append(address)
        return found

    async def _our_routes(self, links: dict[LinkName, int], version: int) -> set[HostFact]:
        names = {number: link for link, number in links.items()}
        fields = {"family": _family(version), "proto": ROUTE_PROTOCOL}
        found: set[HostFact] = set()
        for message in await self._netlink.dump("route", rt.RTM_GETROUTE, fields, {}):
            link = names.get(message.get_attr("RTA_OIF") or 0)
            to = _host_target(message)
            if link is None or to is None or message["proto"] != ROUTE_PROTOCOL:
                continue
            source = _address_of(message.get_attr("RTA_PREFSRC"))
            table = message.get_attr("RTA_TABLE") or message["table"]
            if message["type"] == RTN_LOCAL:
                found.add(LocalRoute(link, to, table, source))
            elif table == RT_TABLE_MAIN and source is not None:
                found.add(SourceHintRoute(link, to, source))
        return found

    async def _kernel_routes(self, link: LinkName, number: int, version: int) -> set[HostFact]:
        fields = {
            "family": _family(version),
            "table": KERNEL_LOCAL_TABLE,
            "type": RTN_LOCAL,
            "proto": RTPROT_KERNEL,
        }
        attributes = {"RTA_OIF": number}
        messages = await self._netlink.dump("route", rt.RTM_GETROUTE, fields, attributes)
        targets = (_host_target(message) for message in messages)
        return {LocalRoute(link, to, KERNEL_LOCAL_TABLE) for to in targets if to is not None}

    async def _rules(self, version: int) -> set[HostFact]:
        fields = {"family": _family(version)}
        found: set[HostFact] = set()
        for message in await self._netlink.dump("rule", rt.RTM_GETRULE, fields, {}):
            mark = message.get_attr("FRA_PROTOCOL"), message.get_attr("FRA_PRIORITY")
            if mark != (ROUTE_PROTOCOL, RULE_PRIORITY):
                continue
            to, link = message.get_attr("FRA_DST"), message.get_attr("FRA_IIFNAME")
            ports = message.get_attr("FRA_DPORT_RANGE")
            port = Port(int(str(ports).partition(":")[0])) if ports else None
            if to and link and message.get_attr("FRA_TABLE") == ROUTE_TABLE:
                protocol = message.get_attr("FRA_IP_PROTO") or 0
                found.add(WireRule(LinkName(link), ip_address(to), protocol, port))
        return found


def index(link: LinkName) -> int:
    """Return the number of an interface, 0 when there is none of this name."""
    try:
        return socket.if_nametoindex(link)
    except OSError:
        return 0


def _is_up(link: LinkName) -> bool:
    """Ask by netdevice(7), which spares a message with all of a link's statistics."""
    try:
        asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    except OSError as error:
        code = error.errno or errno.EIO
        raise KernelError(code, f"look at {link}", os.strerror(code)) from error
    with asked:
        try:
            answer = fcntl.ioctl(asked, _SIOCGIFFLAGS, struct.pack("16sh14x", link.encode(), 0))
        except OSError:
            return False
    return bool(struct.unpack_from("16sh", answer)[1] & IFF_UP)


def _index_or_raise(link: LinkName, operation: str) -> int:
    if number := index(link):
        return number
    sentence = f"no interface {link} on this host; check `interface` in the configuration"
    raise refusal(errno.ENODEV, operation, sentence)


def _address(
    fact: LinkAddress, operation: str, seconds: int | None
) -> tuple[dict[str, int], dict[str, Any]]:
    text = str(fact.address)
    fields = {
        "family": _family(fact.address.version),
        "prefixlen": fact.address.max_prefixlen,
        "index": _index_or_raise(fact.link, operation),
    }
    attributes: dict[str, Any] = {"IFA_LOCAL": text, "IFA_ADDRESS": text}
    attributes["IFA_PROTO"] = ROUTE_PROTOCOL
    valid = FOR_EVER if seconds is None else seconds
    if fact.address.version == 4 and seconds is not None:
        attributes["IFA_CACHEINFO"] = {"ifa_preferred": valid, "ifa_valid": valid}
    if fact.address.version == 6:
        # Deprecated from the start: never chosen as a source by this host's own processes.
        attributes["IFA_FLAGS"] = IFA_F_NODAD | IFA_F_NOPREFIXROUTE
        attributes["IFA_CACHEINFO"] = {"ifa_preferred": 0, "ifa_valid": valid}
    return fields, attributes


def _route(
    fact: LocalRoute | SourceHintRoute, operation: str
) -> tuple[dict[str, int], dict[str, Any]]:
    local = isinstance(fact, LocalRoute)
    table = fact.table if isinstance(fact, LocalRoute) else RT_TABLE_MAIN
    fields = {
        "family": _family(fact.address.version),
        "dst_len": fact.address.max_prefixlen,
        "table": table if table < 256 else _WITHIN_A_BYTE,
        "type": RTN_LOCAL if local else RTN_UNICAST,
        "proto": RTPROT_KERNEL if _is_the_kernels_own(fact) else ROUTE_PROTOCOL,
        "scope": RT_SCOPE_HOST if local and fact.address.version == 4 else RT_SCOPE_UNIVERSE,
    }
    attributes: dict[str, Any] = {
        "RTA_DST": str(fact.address),
        "RTA_OIF": _index_or_raise(fact.link, operation),
        "RTA_TABLE": table,
    }
    if fact.source is not None:
        attributes["RTA_PREFSRC"] = str(fact.source)
    return fields, attributes


def _rule(fact: WireRule) -> tuple[dict[str, int], dict[str, Any]]:
    fields = {
        "family": _family(fact.address.version),
        "dst_len": fact.address.max_prefixlen,
        "table": _WITHIN_A_BYTE,
        "action": FR_ACT_TO_TBL,
    }
    attributes: dict[str, Any] = {
        "FRA_DST": str(fact.address),
        "FRA_IIFNAME": fact.link,
        "FRA_PRIORITY": RULE_PRIORITY,
        "FRA_TABLE": ROUTE_TABLE,
        "FRA_PROTOCOL": ROUTE_PROTOCOL,
        "FRA_IP_PROTO": fact.protocol,
    }
    if fact.port is not None:
        attributes["FRA_DPORT_RANGE"] = f"{fact.port}:{fact.port}"
    return fields, attributes


def _host_target(message: Message) -> IPAddress | None:
    """Return where a route to one single address leads."""
    to = _address_of(message.get_attr("RTA_DST"))
    return to if to is not None and message["dst_len"] == to.max_prefixlen else None


def _address_of(text: str | None) -> IPAddress | None:
    return ip_address(text) if text else None


def _is_the_kernels_own(fact: LinkFact) -> bool:
    return isinstance(fact, LocalRoute) and fact.is_the_kernels_own


def _link_of(fact: LinkFact) -> LinkName:
    return fact.name if isinstance(fact, DummyLink) else fact.link


def _words(fact: LinkFact) -> str:
    match fact:
        case DummyLink(name):
            return f"link {name}"
        case LinkAddress(link, address):
            return f"address {address} on {link}"
        case LocalRoute(link, address, table):
            return f"local route to {address} on {link} in table {table}"
        case SourceHintRoute(link, address):
            return f"route to {address} on {link}"
        case WireRule(link, address):
            return f"rule for {address} from {link}"


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6
