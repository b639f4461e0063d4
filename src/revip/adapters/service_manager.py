"""The service manager (systemd): one datagram for each thing that is to be told, sd_notify(3)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

from revip.model.instants import Span

STATUS_MAX = 1024
"""Characters of a status line; a datagram that is too long would be lost whole."""


class ServiceManager:
    """Tells the manager that started this process; where there is none, tells nobody.

    Never waits and never fails: what cannot be sent is counted.
    """

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        """Read `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`; `pid` is this process."""
        self._name = _socket_name(environ.get("NOTIFY_SOCKET", ""))
        self._socket: socket.socket | None = None
        self.watchdog = _watchdog(environ, pid) if self._name is not None else None
        """Within this span the manager wants to hear `alive`; None when it does not care."""
        self.failures = 0
        """Datagrams that could not be sent."""

    @property
    def listens(self) -> bool:
        """Whether there is anybody to tell."""
        return self._name is not None

    def ready(self, status: str) -> None:
        """Tell that the service is up (again, after `reloading`)."""
        self._send("READY=1", _status(status))

    def status(self, text: str) -> None:
        """Tell what `systemctl status` is to show."""
        self._send(_status(text))

    def reloading(self) -> None:
        """Tell that the configuration is read again; `ready` ends it."""
        # The time tells systemd which of its own requests this answers (systemd.service(5)).
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """Tell that the service ends."""
        self._send("STOPPING=1", _status("stopping"))

    def alive(self) -> None:
        """Tell that the service still does its work."""
        self._send("WATCHDOG=1")

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str) -> None:
        if self._name is None:
            return
        try:
            if self._socket is None:
                kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
                self._socket = socket.socket(socket.AF_UNIX, kind)
            self._socket.sendto("\n".join(lines).encode(), self._name)
        except OSError:  # gone, full, or not ours: the next one is soon
            self.failures += 1


def _socket_name(written: str) -> bytes | None:
    """Return the name to send to; None for what is no socket of a file system, nor abstract."""
    if written.startswith("@"):
        return b"\0" + os.fsencode(written[1:])  # unix(7)
    return os.fsencode(written) if written.startswith("/") else None


def _watchdog(environ: Mapping[str, str], pid: int) -> Span | None:
    """See sd_watchdog_enabled(3)."""
    written = environ.get("WATCHDOG_USEC", "")
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid) or not written.isdecimal():
        return None
    return Span(int(written) // 1000) or None


def _status(text: str) -> str:
    return f"STATUS={' '.join(text.split())[:STATUS_MAX]}"
