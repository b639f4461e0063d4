"""Who on this host is known to change other people's virtual servers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_KNOWN = {
    "kube-proxy": "removes virtual servers it does not know: exclude the VIP (ipvs.excludeCIDRs)",
    "kube-router": "cleans the IPVS table at start and on sync",
    "keepalived": "programs IPVS itself: take the VIP out of its virtual_server blocks",
    "kube-vip": "programs IPVS itself: one of the two must go",
    "ldirectord": "programs IPVS itself: one of the two must go",
    "revip": "is a second agent: one of the two must go, or have other virtual servers",
    "ipvsadm": "is run by hand or by a script",
}


def culprits(root: Path = Path("/")) -> Iterator[str]:
    """Yield `name (pid N): what it does` for each such process; /proc/PID/comm names it.

    This process and those that it has started are not among them.
    """
    for comm in sorted((root / "proc").glob("[0-9]*/comm")):
        try:
            name = comm.read_text().strip()
        except OSError:
            continue  # it has ended meanwhile
        if name in _KNOWN and not _is_one_of_us(comm.parent):
            yield f"{name} (pid {comm.parent.name}) {_KNOWN[name]}"
    if (root / "sys/class/net/kube-ipvs0").exists():
        yield "kube-proxy runs in IPVS mode here (link kube-ipvs0)"


def _is_one_of_us(process: Path) -> bool:
    try:
        parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
    except (OSError, IndexError):
        parent = ""
    return str(os.getpid()) in (process.name, parent)
