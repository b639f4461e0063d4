"""Reading of small text files, with every way it can fail as a sentence."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from revip.errors import ConfigError, Problem

SIZE_MAX = 1 << 20
"""Bytes; nothing that an operator writes by hand comes near it."""
_SENTENCES = {
    errno.ENOENT: "does not exist",
    errno.EACCES: "cannot be read: permission denied",
    errno.EPERM: "cannot be read: not permitted",
    errno.ENOTDIR: "does not exist: part of its path is not a directory",
    errno.ELOOP: "cannot be read: its symbolic links go in circles",
    errno.ENAMETOOLONG: "does not exist: the path is too long",
}


def read_file(path: Path) -> str:
    """Return the text of `path`: a regular file of UTF-8, 1 MiB at most.

    Raises `ConfigError` with one problem that names the file.  Never waits for a named pipe.
    """
    content = _content(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(Problem(f"{path}:{line}", "", "", "is not UTF-8 text")) from error


def file_mode(path: Path) -> int | None:
    """Return the permission bits of `path`; None when it cannot be looked at."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None


def _content(path: Path) -> bytes:
    try:
        # O_NONBLOCK: a named pipe without a writer would hold us here for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            content = _regular(path, descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        number = error.errno or 0
        sentence = _SENTENCES.get(number, f"cannot be read: {os.strerror(number)}")
        raise _problem(path, sentence) from error
    if len(content) > SIZE_MAX:
        raise _problem(path, "is larger than 1 MiB: this is not a configuration")
    return content


def _regular(path: Path, descriptor: int) -> bytes:
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise _problem(path, f"is {kind}: name a file")
    with open(descriptor, "rb", closefd=False) as file:
        return file.read(SIZE_MAX + 1)


def _problem(path: Path, mend: str) -> ConfigError:
    return ConfigError(Problem(str(path), "", "", mend))
