"""What this process may do at all: read and judged before every start, so it costs little.

Only what `revip run` cannot live without is here; the whole host is for `revip check`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from revip.model.spec import Spec

CAP_NET_ADMIN = 12
"""Bit in the capability sets (include/uapi/linux/capability.h)."""
CAP_NET_RAW = 13


class Level(Enum):
    """How a check went."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One question about this host, answered."""

    name: str
    """Short and stable: `rights`, `module ip_vs`, `interface eth0`."""
    level: Level
    what: str
    """What is the case, one line."""
    mend: str = ""
    """What to do about it; empty when nothing is to be done."""
    stops: bool = False
    """True when an agent cannot even start like this."""

    def __str__(self) -> str:
        return f"{self.name}: {self.what}" + (f"; {self.mend}" if self.mend else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What this process may do at all: little, and cheap to read before an agent starts."""

    euid: int
    capabilities: int
    """Effective set as a bit mask (CapEff of proc(5))."""
    unwritable: tuple[str, ...] = ()
    """Directories that are needed and can be neither written nor made."""


def read_standing(spec: Spec, root: Path = Path("/")) -> Standing:
    """Return what this process may do, by three small files; changes nothing."""
    status = text(root / "proc/self/status")
    return Standing(
        euid=int(_field(status, "Uid", 1) or os.geteuid()),
        capabilities=int(_field(status, "CapEff", 0) or "0", 16),
        unwritable=tuple(_unwritable(root, (spec.socket.parent, spec.state_file.parent))),
    )


def judge_standing(standing: Standing) -> tuple[Check, ...]:
    """Return the checks of what this process may do at all."""
    return (*_rights(standing), *_directories(standing))


def refusals(checks: Iterable[Check]) -> tuple[Check, ...]:
    """Return those of `checks` with which an agent must not start (exit code 2)."""
    return tuple(check for check in checks if check.stops)


def _rights(facts: Standing) -> Iterable[Check]:
    if facts.capabilities >> CAP_NET_ADMIN & 1:
        yield Check("rights", Level.OK, "CAP_NET_ADMIN is effective")
    else:
        who = "root without" if facts.euid == 0 else "not root and without"
        mend = "run as root, or give AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW (systemd) or"
        mend += " securityContext.capabilities.add (Kubernetes)"
        yield Check("rights", Level.FAIL, f"{who} CAP_NET_ADMIN", mend, stops=True)
    if not facts.capabilities >> CAP_NET_RAW & 1:
        mend = "give CAP_NET_RAW, so that a move of the virtual IP can be announced"
        yield Check("raw sockets", Level.WARN, "CAP_NET_RAW is missing", mend)


def _directories(facts: Standing) -> Iterable[Check]:
    for folder in facts.unwritable:
        mend = "make it writable for this user (systemd: RuntimeDirectory=revip with "
        mend += "RuntimeDirectoryPreserve=yes)"
        yield Check("directory", Level.FAIL, f"{folder} cannot be written", mend, stops=True)


def below(root: Path, path: Path) -> Path:
    """Return where `path` is below `root`, which stands for /."""
    return root / str(path).lstrip("/")


def text(path: Path) -> str:
    """Return what a small file holds; empty when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _field(status: str, name: str, index: int) -> str:
    found = re.search(rf"^{name}:\s*(.*)$", status, re.MULTILINE)
    return found[1].split()[index] if found else ""


def _unwritable(root: Path, folders: Iterable[Path]) -> Iterable[str]:
    for folder in dict.fromkeys(folders):
        place = below(root, folder)
        while not place.exists() and place != root:
            place = place.parent
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            yield str(folder)
