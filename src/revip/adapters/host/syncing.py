"""The sync daemons of this network namespace, and our record of which of them we started."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable

from revip.adapters.host.binding import bind
from revip.adapters.host.record import Record, Started
from revip.adapters.host.refusals import refusal
from revip.errors import KernelError
from revip.model.host import HostFact
from revip.model.spec import LinkName
from revip.model.sync import SyncDaemon, SyncRole
from revip.ports import SyncDaemons
from revip.wire.netlink import WireError


class Syncing:
    """Starts, stops and recognizes sync daemons; what another program started is left alone."""

    def __init__(self, daemons: SyncDaemons | None, record: Record) -> None:
        self._daemons = daemons
        self._record = record
        self._seen: frozenset[SyncDaemon] | None = None
        """What ran at the last look, None while nobody needs to know."""

    def holding(self, present: Iterable[HostFact], absent: Iterable[HostFact]) -> set[SyncDaemon]:
        """Return which of `present` run, and for which of `absent` one of ours runs.

        Raises `KernelError`.
        """
        wanted = {fact for fact in present if isinstance(fact, SyncDaemon)}
        surplus = {fact for fact in absent if isinstance(fact, SyncDaemon)}
        self._seen = None
        if self._daemons is None or not (wanted or (surplus and self._record.sync)):
            return set()
        self._seen = self._daemons.daemons()
        running = {daemon.role: daemon for daemon in self._seen}
        good = {fact for fact in wanted if running.get(fact.role) == fact and self._lives(fact)}
        kept = {fact.role for fact in good}
        return good | {
            fact
            for fact in surplus
            if fact.role not in kept and self._is_ours(running.get(fact.role))
        }

    def changed(self) -> bool:
        """Tell whether others run than at the last look, which nobody announces."""
        if self._seen is None or self._daemons is None:
            return False
        try:
            return self._daemons.daemons() != self._seen
        except KernelError:
            return True  # the next look says what is wrong

    def give(self, daemon: SyncDaemon) -> None:
        """Start `daemon`, in the place of an older one of ours.  Raises `KernelError`."""
        if self._daemons is None:
            raise refusal(errno.EOPNOTSUPP, f"start {daemon}")
        running = {each.role: each for each in self._daemons.daemons()}.get(daemon.role)
        if running is not None:
            if not self._is_ours(running):
                role = daemon.role.name.lower()
                sentence = (
                    f"another program's runs ({running}) and is left alone: stop it "
                    f"(ipvsadm --stop-daemon {role}), or set agent.sync: off"
                )
                raise KernelError(errno.EEXIST, f"start {daemon}", sentence)
            self._daemons.stop_daemon(daemon.role)
        started = Started(str(daemon), _index(daemon.link))
        if self._record.sync.get(daemon.role.name) != started:
            # Before it runs, so that no crash orphans it.
            self._record.sync[daemon.role.name] = started
            self._record.save()
        self._daemons.start_daemon(daemon)

    async def take(self, daemon: SyncDaemon) -> None:
        """Stop the daemon of ours in the role of `daemon`.  Raises `KernelError`.

        What a backup was told is bound to the table before, where there is one: see `binding`.
        """
        if self._daemons is None:
            return
        running = {each.role: each for each in self._daemons.daemons()}.get(daemon.role)
        if running is not None and self._is_ours(running):
            if running.role is SyncRole.BACKUP:
                with contextlib.suppress(OSError, WireError, KernelError):  # no worse than before
                    await bind(running, self._daemons)
            self._daemons.stop_daemon(daemon.role)
        if self._record.sync.pop(daemon.role.name, None) is not None:
            self._record.save()

    def _is_ours(self, running: SyncDaemon | None) -> bool:
        started = self._record.sync.get(running.role.name) if running is not None else None
        return started is not None and started.daemon == str(running)

    def _lives(self, daemon: SyncDaemon) -> bool:
        """Tell whether its interface is still the one that it was started on.

        The kernel's thread holds on to one that is gone, and a new one of that name is another.
        """
        started = self._record.sync.get(SyncRole(daemon.role).name)
        return started is None or started.index == _index(daemon.link)


def _index(link: LinkName) -> int:
    try:
        return socket.if_nametoindex(link)
    except OSError:
        return 0
