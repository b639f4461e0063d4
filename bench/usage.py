"""What processes cost: processor time and memory, as the kernel counts them (proc(5))."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path


def family(root: int) -> list[int]:
    """Return the process `root` and all that descend from it."""
    parents: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int(_stat(int(entry.name))[1])
    found = [root]
    for pid in found:  # grows while it is walked
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def processor_seconds(pids: Iterable[int]) -> float:
    """Return utime + stime so far, in seconds."""
    ticks = os.sysconf("SC_CLK_TCK")
    return sum(int(word) / ticks for pid in pids for word in _stat(pid)[11:13])


def memory(pids: Iterable[int]) -> tuple[float, float]:
    """Return (PSS, RSS) in MiB: the share of each page by its users, and all pages in full."""
    pss = rss = 0
    for pid in pids:
        rolled = Path(f"/proc/{pid}/smaps_rollup")
        source = rolled if rolled.exists() else Path(f"/proc/{pid}/smaps")
        try:
            said = source.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        for line in said.splitlines():
            if line.startswith("Pss:"):
                pss += int(line.split()[1])
            elif line.startswith("Rss:"):
                rss += int(line.split()[1])
    return pss / 1024, rss / 1024


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, state first."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
