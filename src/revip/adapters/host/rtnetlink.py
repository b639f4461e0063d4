"""One rtnetlink socket of pyroute2, with the guards that a daemon needs (rtnetlink(7)).

pyroute2 0.9.7 leaks the trailing acknowledgement of a request in a queue that nobody reads, and
repeats one ENOBUFS for ever.  So that queue is emptied after each request, dumps are always read
to their end, and the socket is replaced after anything but a plain refusal by the kernel.  It is
imported at the first request, since that costs some 100 ms and 9 MB.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Literal

from revip.adapters.host.refusals import refusal

DEADLINE = 2.0
"""Seconds; the kernel answers within microseconds, so this only bounds a lost answer."""

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_DUMP = 0x300

RTM_NEWLINK, RTM_DELLINK = 16, 17
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34

Kind = Literal["link", "address", "route", "rule"]
Message = Any
"""A decoded message of pyroute2 (untyped): fields by key, attributes by `get_attr`."""


class Rtnetlink:
    """Requests and dumps, one after the other or at the same time."""

    def __init__(self) -> None:
        self._socket: Any = None

    async def dump(
        self, kind: Kind, operation: int, fields: Mapping[str, int], attributes: Mapping[str, Any]
    ) -> list[Message]:
        """Return what the kernel holds; with strict checking it filters by fields and attributes.

        A table that does not exist is empty.  Raises `KernelError`.
        """
        flags = NLM_F_REQUEST | NLM_F_DUMP
        code, answers = await self._exchange(kind, operation, flags, fields, attributes)
        if code in (0, errno.ENOENT):
            return answers
        raise refusal(code, f"read the {kind} table of this host")

    async def request(
        self,
        kind: Kind,
        operation: int,
        flags: int,
        fields: Mapping[str, int],
        attributes: Mapping[str, Any],
    ) -> int:
        """Ask for one change; return 0 or the errno with which the kernel refused.

        Raises `KernelError` when there was no answer at all.
        """
        flags |= NLM_F_REQUEST | NLM_F_ACK
        code, _ = await self._exchange(kind, operation, flags, fields, attributes)
        return code

    def close(self) -> None:
        """Give the socket back; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _exchange(
        self,
        kind: Kind,
        operation: int,
        flags: int,
        fields: Mapping[str, int],
        attributes: Mapping[str, Any],
    ) -> tuple[int, list[Message]]:
        library = _pyroute2()
        message = _message_type(kind)()
        message.update(fields)
        message["attrs"] = list(attributes.items())
        try:
            async with asyncio.timeout(DEADLINE):
                if self._socket is None:
                    self._socket = library.AsyncIPRoute(strict_check=True)
                answer = await self._socket.nlm_request(message, operation, flags)
                return 0, [received async for received in answer]
        except library.NetlinkDumpInterrupted as error:
            raise refusal(errno.EINTR, f"read the {kind} table of this host") from error
        except library.NetlinkError as error:
            return int(error.code), []
        except (OSError, KeyError) as error:
            self.close()
            number = getattr(error, "errno", None)
            if isinstance(error, TimeoutError):
                number = errno.ETIMEDOUT
            raise refusal(number or errno.EIO, f"ask the kernel about the {kind} table") from error
        except asyncio.CancelledError:
            self.close()  # a dump half read keeps the socket busy (EBUSY) for the next one
            raise
        finally:
            self._forget_acknowledgements()

    def _forget_acknowledgements(self) -> None:
        """Empty queue 0, where answers land that belong to no request any more."""
        if self._socket is None:
            return
        queue = self._socket.msg_queue.root
        while not queue.empty():
            queue.get_nowait()
            queue.task_done()


def _pyroute2() -> ModuleType:
    import pyroute2

    module: ModuleType = pyroute2
    return module


def _message_type(kind: Kind) -> Any:
    from pyroute2.netlink.rtnl import fibmsg, ifaddrmsg, ifinfmsg, rtmsg

    return {
        "link": ifinfmsg.ifinfmsg,
        "address": ifaddrmsg.ifaddrmsg,
        "route": rtmsg.rtmsg,
        "rule": fibmsg.fibmsg,
    }[kind]
