"""The kernel's IPVS table over generic netlink: the port `KernelTable`.

One request is sent, and its acknowledgement read, before the next: so "stop at the first that
fails" is exact, and a whole table still goes in about as fast as `ipvsadm -R` puts it there
(tests/kernel/test_ipvs.py measures both).  Calls block for microseconds; a kernel that does not
answer is given up after `PATIENCE`.

IPVS lists a table by position and holds no lock between the parts of the list, so one that
changes meanwhile may come out torn.  That is no danger: what was missed is refused with EEXIST
or ESRCH when it is written, and the next observation sees it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace

from revip.errors import KernelError
from revip.model.ipvs import (
    AddServer,
    Change,
    DestinationCounters,
    Observation,
    ServiceKey,
    SetServer,
    VirtualServer,
)
from revip.model.sync import SyncDaemon, SyncRole
from revip.planner.diff import describe
from revip.wire import ipvs, ipvs_answers
from revip.wire.netlink import (
    GENL_ID_CTRL,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    Message,
    WireError,
    acknowledgement,
    family_id,
    family_request,
    messages,
    pack_message,
)

PATIENCE = 1.0
"""Seconds without an answer after which the kernel is given up."""
DUMP_ATTEMPTS = 3
"""How often a dump that says of itself that it is inconsistent is made anew."""
FEW = 8
"""Up to so many virtual servers are asked for by name, more are picked from a list of all."""
MODPROBE_PATIENCE = 10.0
"""Seconds after which a modprobe that does not end is killed."""

_NETLINK_GENERIC = 16
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_DATAGRAM = 65536
"""Larger than any part of a dump (netlink_dump: at most 32 KiB)."""

_NOT_LOADED = (
    "the IPVS kernel module is not loaded: run `modprobe ip_vs` (on Ubuntu it is in package "
    "linux-modules-extra-$(uname -r)); a container that SELinux or missing CAP_SYS_MODULE "
    "confines cannot load it: name it in /etc/modules-load.d/revip.conf on the host"
)
_NOT_PERMITTED = (
    "CAP_NET_ADMIN is missing: run as root, with AmbientCapabilities=CAP_NET_ADMIN (systemd) or "
    "capabilities.add: [NET_ADMIN] (pod); a rootless container has it only in a user namespace of "
    "its own, which IPVS does not accept before Linux 6.10"
)
_MOVED = "the table changed underneath us: another program writes to it"
_SENTENCES = {
    errno.EPERM: _NOT_PERMITTED,
    errno.EEXIST: f"it is there already; {_MOVED}",
    errno.ESRCH: f"the virtual server is gone; {_MOVED}",
    errno.ENOENT: f"the destination is gone; {_MOVED}",
    errno.ERANGE: "the weight is below 0, or the lower threshold above the upper",
    errno.EAFNOSUPPORT: "this kernel's IPVS is built without IPv6 (CONFIG_IP_VS_IPV6)",
    errno.EINVAL: (
        "the kernel does not accept these values (a destination must be a unicast address, which "
        "none is while every interface is down; of the other IP version only with tunnel)"
    ),
    errno.ETIMEDOUT: f"the kernel did not answer within {PATIENCE:g} s",
    errno.ENOBUFS: "the kernel had no room for its answer",
    errno.EINTR: f"the table did not hold still while it was read {DUMP_ATTEMPTS} times",
    errno.EBADMSG: "the kernel's answer does not read as IPVS",
}


_DAEMON_SENTENCES = {
    errno.EPERM: _NOT_PERMITTED,
    errno.EEXIST: "one of this role runs already",
    errno.ENODEV: "there is no such interface, or it has no address to multicast from",
    errno.EADDRNOTAVAIL: "the interface has no address to multicast from",
    errno.EAFNOSUPPORT: "this kernel's IPVS cannot multicast by IPv6 (before Linux 4.3)",
}
"""What start_sync_thread and stop_sync_thread, net/netfilter/ipvs/ip_vs_sync.c, mean by it."""


class _Refusal(Exception):  # noqa: N818  (never leaves this module)
    """The kernel, or the socket, said no."""

    def __init__(self, number: int, said: str = "") -> None:
        super().__init__(number, said)
        self.errno = number
        self.said = said


class GenetlinkIpvs:
    """The table of the network namespace in which it is first used.

    The socket is opened when it is first needed and, after anything odd, again at the next call.
    Not for use by two threads at once.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._family: int | None = None
        self._sequence = 0
        self._buffer = bytearray(_DATAGRAM)

    def observe(self, keys: frozenset[ServiceKey] | None = None) -> Observation:
        """Return the virtual servers named by `keys` (all when None) with their counters.

        A few are asked for by name, so that thousands of services of others cost nothing.
        Raises `KernelError`.
        """
        try:
            return self._observation(keys)
        except (_Refusal, WireError) as error:
            raise self._explained(error, "read the IPVS table") from error

    def apply(self, changes: Sequence[Change]) -> None:
        """Apply `changes` in order; stop at the first that fails and raise its `KernelError`."""
        for change in changes:
            try:
                self._ask(ipvs.request(change), NLM_F_ACK)
            except (_Refusal, WireError) as error:
                raise self._explained(error, describe(change), change) from error

    def info(self) -> ipvs_answers.Info:
        """Return version and connection table size.  Raises `KernelError`.

        Asking alone makes the kernel load ip_vs, where modprobe is there and nothing confines us.
        """
        try:
            return ipvs_answers.decode_info(self._one(ipvs.get_info()))
        except (_Refusal, WireError) as error:
            raise self._explained(error, "ask for IPVS") from error

    def strangers(self, keys: frozenset[ServiceKey]) -> bool:
        """Tell whether there is a virtual server that is none of `keys`.  Raises `KernelError`."""
        try:
            return any(server.key not in keys for server in self._every())
        except (_Refusal, WireError) as error:
            raise self._explained(error, "read the IPVS table") from error

    def daemons(self) -> frozenset[SyncDaemon]:
        """Return the sync daemons that run.  Raises `KernelError`."""
        try:
            answers = self._ask(ipvs.dump_daemons(), NLM_F_DUMP)
            return frozenset(map(ipvs_answers.decode_daemon, answers))
        except (_Refusal, WireError) as error:
            raise self._explained(error, "read the sync daemons") from error

    def start_daemon(self, daemon: SyncDaemon) -> None:
        """Start `daemon`.  Raises `KernelError`: EEXIST while one of its role runs."""
        self._daemon(ipvs.new_daemon(daemon), f"start {daemon}")

    def stop_daemon(self, role: SyncRole) -> None:
        """Stop the daemon of `role`, if there is one.  Raises `KernelError`.

        One whose thread has not yet had its first turn ends with EINTR (kthread_stop), which
        netlink does not acknowledge: so look, instead of waiting for an answer.
        """
        payload, operation = ipvs.delete_daemon(role), f"stop the sync daemon {role.name.lower()}"
        try:
            self._send(self._family or self._resolve(), 0, payload)
        except (_Refusal, WireError) as error:
            raise self._explained(error, operation) from error
        if any(daemon.role is role for daemon in self.daemons()):
            self._daemon(payload, operation)  # which says why

    def _daemon(self, payload: bytes, operation: str) -> None:
        try:
            self._ask(payload, NLM_F_ACK)
        except _Refusal as refusal:
            sentence = _DAEMON_SENTENCES.get(refusal.errno) or os.strerror(refusal.errno)
            raise KernelError(refusal.errno, operation, sentence) from refusal
        except WireError as error:
            raise self._explained(error, operation) from error

    def close(self) -> None:
        """Give the socket back; the next call opens another."""
        if self._socket is not None:
            self._socket.close()
        self._socket = self._family = None

    def _observation(self, keys: frozenset[ServiceKey] | None) -> Observation:
        table: dict[ServiceKey, VirtualServer] = {}
        counters: dict[ipvs_answers.CounterKey, DestinationCounters] = {}
        for server in self._servers(keys):
            answers = self._ask(ipvs.dump_destinations(server.key), NLM_F_DUMP)
            destinations, counted = ipvs_answers.decode_destinations(server.key, tuple(answers))
            table[server.key] = replace(server, destinations=destinations)
            counters.update(counted)
        return Observation(table, counters)

    def _servers(self, keys: frozenset[ServiceKey] | None) -> Iterator[VirtualServer]:
        if keys is not None and len(keys) <= FEW:
            return self._named(keys)
        return (it for it in self._every() if keys is None or it.key in keys)

    def _every(self) -> Iterator[VirtualServer]:
        for payload in self._ask(ipvs.dump_services(), NLM_F_DUMP):
            # What the model has no word for is not ours.
            with contextlib.suppress(ipvs_answers.InexpressibleError):
                yield ipvs_answers.decode_service(payload)

    def _named(self, keys: frozenset[ServiceKey]) -> Iterator[VirtualServer]:
        for key in keys:
            try:
                payload = self._one(ipvs.get_service(key))
            except _Refusal as refusal:
                if refusal.errno != errno.ESRCH:
                    raise
            else:
                yield ipvs_answers.decode_service(payload)

    def _one(self, payload: bytes) -> bytes:
        answers = self._ask(payload, NLM_F_ACK)
        if len(answers) != 1:
            raise WireError(f"IPVS: {len(answers)} answers to a question that has one")
        return answers[0]

    def _ask(self, payload: bytes, flags: int) -> list[bytes]:
        """Send one request to IPVS and return the payloads of its answers."""
        family = self._family or self._resolve()
        try:
            return self._exchange(family, flags, payload)
        except _Refusal as refusal:
            if refusal.errno != errno.ENOENT:
                raise
            # Either what was asked for is not there, or ip_vs was unloaded and loaded again.
            current = self._resolve()
            if current == family:
                raise
            return self._exchange(current, flags, payload)

    def _resolve(self) -> int:
        """Return the family's id.  Raises `KernelError` when IPVS is not there."""
        self._family = None
        try:
            answers = self._exchange(GENL_ID_CTRL, NLM_F_ACK, family_request(ipvs.FAMILY))
        except _Refusal as refusal:
            if refusal.errno != errno.ENOENT:
                raise
            raise KernelError(errno.ENOENT, "find IPVS", _NOT_LOADED) from refusal
        if not answers:
            raise WireError("netlink: the controller named no family")
        self._family = family_id(answers[0])
        return self._family

    def _exchange(self, family: int, flags: int, payload: bytes) -> list[bytes]:
        for _ in range(DUMP_ATTEMPTS):
            answers, interrupted = self._once(family, flags, payload)
            if not interrupted:
                return answers
        raise _Refusal(errno.EINTR)

    def _once(self, family: int, flags: int, payload: bytes) -> tuple[list[bytes], bool]:
        netlink = self._send(family, flags, payload)
        try:
            return self._collect(netlink)
        except OSError as error:
            raise self._lost(error) from error

    def _send(self, family: int, flags: int, payload: bytes) -> socket.socket:
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        request = Message(family, NLM_F_REQUEST | flags, self._sequence, payload)
        try:
            netlink = self._socket or self._open()
            netlink.send(pack_message(request))
        except OSError as error:
            raise self._lost(error) from error
        return netlink

    def _lost(self, error: OSError) -> _Refusal:
        """Open the socket anew at the next call; return what became of this one."""
        self.close()
        number = error.errno or errno.EIO
        return _Refusal(errno.ETIMEDOUT if number == errno.EAGAIN else number)

    def _open(self) -> socket.socket:
        """Open the socket.  It belongs to the network namespace of the calling thread."""
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_GENERIC)
        try:
            seconds, rest = divmod(PATIENCE, 1)
            timeout = struct.pack("@ll", int(seconds), int(rest * 1_000_000))
            netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
            for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
                with contextlib.suppress(OSError):  # before Linux 4.12 errors have no words
                    netlink.setsockopt(_SOL_NETLINK, option, 1)
            netlink.bind((0, 0))
        except OSError:
            netlink.close()
            raise
        self._socket = netlink
        return netlink

    def _collect(self, netlink: socket.socket) -> tuple[list[bytes], bool]:
        """Read the answers to the request just sent, and whether its dump was interrupted."""
        answers: list[bytes] = []
        interrupted = False
        while True:
            for message in messages(self._receive(netlink)):
                if message.sequence != self._sequence:
                    continue  # an answer to a request that was given up
                interrupted |= bool(message.flags & NLM_F_DUMP_INTR)
                if message.kind not in (NLMSG_ERROR, NLMSG_DONE):
                    answers.append(message.payload)
                    continue
                end = acknowledgement(message)
                if end.errno:
                    raise _Refusal(end.errno, end.said)
                return answers, interrupted

    def _receive(self, netlink: socket.socket) -> bytes:
        """Return one datagram from the kernel; other processes may send to our port, too."""
        while True:
            size, (port, _) = netlink.recvfrom_into(self._buffer, 0, socket.MSG_TRUNC)
            if size > len(self._buffer):
                raise WireError(f"netlink: a datagram of {size} bytes")
            if port == 0:
                return bytes(memoryview(self._buffer)[:size])

    def _explained(
        self, error: _Refusal | WireError, operation: str, change: Change | None = None
    ) -> KernelError:
        if isinstance(error, _Refusal):
            return explained(error.errno, operation, change, error.said)
        self.close()
        return explained(errno.EBADMSG, operation, change, str(error))


def explained(number: int, operation: str, change: Change | None, said: str = "") -> KernelError:
    """Say what errno `number` means for `operation`; `said` are the kernel's own words.

    The meanings are those of ip_vs_genl_set_cmd and what it calls, net/netfilter/ipvs/ip_vs_ctl.c.
    """
    if number == errno.ENOENT and isinstance(change, AddServer | SetServer):
        module = f"ip_vs_{change.server.scheduler}"
        sentence = (
            f"the kernel has no scheduler {change.server.scheduler}: run `modprobe {module}`; if "
            f"that finds nothing, this kernel comes without it (mh needs Linux 4.18)"
        )
    else:
        sentence = _SENTENCES.get(number) or os.strerror(number)
    return KernelError(number, operation, f"{sentence} ({said})" if said else sentence)


def load_modules(*modules: str) -> str:
    """Run `modprobe -a MODULES`; return what it complained of, "" when all are loaded.

    Blocks for as long as modprobe runs (`MODPROBE_PATIENCE` at most): call it in a thread.
    """
    from shutil import which  # with its compression libraries, 5 ms that hardly any start needs

    modprobe = which("modprobe", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if modprobe is None:
        return "modprobe is not installed here"
    try:
        done = subprocess.run(  # noqa: S603  (no shell, and the names are ours)
            [modprobe, "-a", *modules],
            capture_output=True,
            text=True,
            timeout=MODPROBE_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"
