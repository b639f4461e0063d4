"""Where the lab keeps its files, and the environment its programs run in."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
STATE = REPOSITORY / ".lab"
"""Everything that `script/bootstrap` and the lab write; ignored by git."""
UNPACKED = STATE / "root"
"""System packages that were unpacked instead of installed (`script/bootstrap` without root)."""
LOGS = STATE / "logs"
"""Logs of the lab's processes.  The only folder of the host that the guest can write to."""
CLUSTER = Path("/run/lab/cluster")
"""Files of the cluster that `script/lab up --with agents` starts, in the lab's kernel."""
SOCKET = STATE / "lab.sock"
"""Where the lab that `script/lab up` keeps running listens."""

GUEST_BINARIES = Path("/run/lab/bin")
"""Programs that only the guest has; in front of all others."""

_BINARIES = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin")


class LabError(Exception):
    """The lab cannot do what was asked; the text says why and what to do about it."""


def search_path() -> str:
    """Return PATH for programs of the lab: the guest's, the unpacked, then the system's."""
    unpacked = [str(UNPACKED / folder) for folder in _BINARIES[2:]] if UNPACKED.is_dir() else []
    ours = [str(GUEST_BINARIES), str(Path(sys.prefix) / "bin")]
    return ":".join([*ours, *unpacked, *(f"/{folder}" for folder in _BINARIES)])


def program(name: str) -> str | None:
    """Return the absolute path of program `name`, or None when there is none."""
    return shutil.which(name, path=search_path())


def environment() -> dict[str, str]:
    """Return the environment for processes of the lab: this one's, with our paths in front."""
    found = {
        "HOME": "/run/lab",
        "LANG": "C.UTF-8",
        **os.environ,
        "PATH": search_path(),
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if UNPACKED.is_dir():
        libraries = (UNPACKED / "usr/lib/x86_64-linux-gnu", UNPACKED / "lib/x86_64-linux-gnu")
        found["LD_LIBRARY_PATH"] = ":".join(map(str, libraries))
        found["XTABLES_LIBDIR"] = str(libraries[0] / "xtables")
    return found
