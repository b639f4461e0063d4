"""Files that others replace while we run: certificates, keys, tokens.

A file counts as changed when its inode, size or modification time changed.  The path is followed,
so that the symlink swap of a mounted Kubernetes secret or projected token is seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from revip.adapters.probes.outcome import FailedProbe
from revip.model.health import Finding

T = TypeVar("T")

_Stamp = tuple[int, int, int]


class Rereading(Generic[T]):
    """What `load` makes of some files, made again only when one of them has changed."""

    def __init__(self, files: dict[str, Path], load: Callable[[], T]) -> None:
        """Remember `files` by the configuration key that names each."""
        self._files = files
        self._load = load
        self._loaded: tuple[tuple[_Stamp, ...], T] | None = None

    def get(self) -> T:
        """Return the newest value; raises FailedProbe (ours) when a file is missing or unfit."""
        stamps = tuple(_stamp(key, path) for key, path in self._files.items())
        if self._loaded is None or self._loaded[0] != stamps:
            # Stamps are taken before the load: a change in between is seen the next time.
            self._loaded = (stamps, self._load())
        return self._loaded[1]


def read(key: str, path: Path) -> bytes:
    """Return the content of `path`; raises FailedProbe (ours) that names key and file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(key, path, error) from error


def unfit(key: str, path: Path, why: str) -> FailedProbe:
    """Return the outcome for a file that can be read but not used."""
    return FailedProbe(Finding.OURS, f"{key} {path} {why}")


def read_token(path: Path) -> bytes:
    """Return the bearer token in `path` (RFC 6750); raises FailedProbe (ours)."""
    token = read("token_file", path).strip()
    if not token:
        raise unfit("token_file", path, "is empty: write the bearer token into it")
    if any(octet <= 0x20 or octet >= 0x7F for octet in token):
        raise unfit("token_file", path, "holds more than one token or is not text")
    return token


def _stamp(key: str, path: Path) -> _Stamp:
    try:
        status = os.stat(path)  # noqa: PTH116 - Path.stat costs twice as much, per probe
    except OSError as error:
        raise _unreadable(key, path, error) from error
    return status.st_mtime_ns, status.st_ino, status.st_size


def _unreadable(key: str, path: Path, error: OSError) -> FailedProbe:
    why = os.strerror(error.errno or 0)
    reason = f"cannot read {key} {path}: {why}: provide the file or correct {key}"
    return FailedProbe(Finding.OURS, reason)
