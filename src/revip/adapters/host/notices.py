"""Hears that links, addresses, routes or rules have changed, not what (rtnetlink(7)).

What holds is read afterwards in any case, so messages are not decoded.  They are only searched
for the addresses and names that matter, since on a host full of pods links and routes change all
the time.  A false find costs one look; an overflow (ENOBUFS) counts as a change.
"""

from __future__ import annotations

import asyncio
import errno
import socket

GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 1 << 18
"""RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE, RTNLGRP_IPV6_RULE."""

BURST = 0.01
"""Seconds to wait for more after the first notice: one act of a person or daemon is many."""

_ENOUGH = 65536


class Notices:
    """A multicast socket and the number of bursts it has heard."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()
        self._heard = 0
        self._words: frozenset[bytes] | None = None

    def watch(self, words: frozenset[bytes]) -> None:
        """Hear only messages with one of `words` in them; before the first call, all.

        Every message that matters has one: of an address, route or rule the address in network
        order, of a link its name.
        """
        self._words = words

    def count(self) -> int:
        """Return a number that differs from an earlier one if something changed in between.

        Raises `OSError` when the socket cannot be opened.
        """
        self._drain(self._opened())
        return self._heard

    async def next(self) -> None:
        """Wait for a change, and then until its burst is over."""
        opened = self._opened()
        await self._event.wait()
        await asyncio.sleep(BURST)
        self._drain(opened)
        self._event.clear()

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None and self._loop is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
        self._socket = None

    def _opened(self) -> socket.socket:
        if self._socket is None:
            opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            opened.setblocking(False)
            try:
                opened.bind((0, GROUPS))
            except OSError:
                opened.close()
                raise
            self._socket = opened
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(opened, self._drain, opened)
        return self._socket

    def _drain(self, opened: socket.socket) -> None:
        while True:
            try:
                message = opened.recv(_ENOUGH)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                message = None  # some were lost, which is reported once
            if message is None or self._words is None or any(w in message for w in self._words):
                self._heard += 1
                self._event.set()
