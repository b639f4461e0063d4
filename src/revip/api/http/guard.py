"""Who may read: the bearer token, compared in constant time, or a client certificate."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from revip.api.http.messages import Refusal, Request, local
from revip.model.http import HttpSpec
from revip.model.instants import Instant
from revip.model.notes import Kind, Level, Note
from revip.planner.telling import Seldom

TOKEN_MAX = 16 * 1024
"""Octets of a token file that are read."""


class Guard:
    """Admits or refuses requests, and tells now and then of those that were refused."""

    def __init__(
        self, spec: HttpSpec, note: Callable[[Note], None], now: Callable[[], Instant]
    ) -> None:
        self._spec = spec
        self._note = note
        self._now = now
        self._token: bytes | None = None
        self._stamp: object = None
        self._seldom = Seldom()
        self.refused = 0
        """Requests with a wrong token, or with neither token nor certificate."""

    def trusts(self, request: Request, peer: str, *, certified: bool, needed: bool = True) -> bool:
        """Return whether `request` shows who it is, where that is asked for.

        Raises `Refusal` when it does not and it is `needed`, or when what it shows is wrong.
        """
        if not self._spec.guarded:
            if not local(request.headers.get("host", "localhost")):
                raise Refusal(421, "ask for this node by address, or as localhost")
            return True
        if certified and self._spec.client_ca is not None:
            return True
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._right(token.strip()):
            return True
        if needed or token:
            self._refuse(peer, shown=bool(token))
        return False

    def _right(self, token: str) -> bool:
        wanted = self._wanted()
        import hmac  # not for an agent that asks for no token

        # Digests are of one length, so that not even the token's length shows in the time taken.
        given = _digest(token.encode())
        return wanted is not None and hmac.compare_digest(given, wanted)

    def _wanted(self) -> bytes | None:
        """Return the digest of the token in the file, None (nobody is let in) without one."""
        path = self._spec.token_file
        if path is None:
            return None
        try:
            found = os.stat(path)  # noqa: PTH116 (one system call, no object)
            stamp = found.st_mtime_ns, found.st_ino, found.st_size
            if stamp != self._stamp:
                token = _read(path)
                self._token = _digest(token) if token else None
                self._stamp = stamp
        except OSError as error:
            self._token, self._stamp = None, None
            self._say(f"{path}: {os.strerror(error.errno or 0)}: nobody is let in", Level.ERROR)
        return self._token

    def _refuse(self, peer: str, *, shown: bool) -> None:
        self.refused += 1
        what = "a wrong token" if shown else "neither token nor certificate"
        if self._seldom.may(what, self._now()):
            text = f"HTTP: {peer} showed {what}; {self.refused} refused so far"
            self._note(Note(self._now(), Kind.ACCESS, text, Level.WARNING))
        raise Refusal(401, f"{what}", ("WWW-Authenticate", 'Bearer realm="revip"'))

    def _say(self, text: str, level: Level) -> None:
        if self._seldom.may(text, self._now()):
            self._note(Note(self._now(), Kind.ACCESS, text, level))


def _digest(token: bytes) -> bytes:
    import hashlib

    return hashlib.sha256(token).digest()


def _read(path: Path) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(file, TOKEN_MAX).strip()
    finally:
        os.close(file)
