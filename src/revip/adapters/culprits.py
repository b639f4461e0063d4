"""Who on this host is known to change other people's virtual servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_KNOWN = {
    "kube-proxy": "removes virtual servers it does not know: exclude the VIP (ipvs.excludeCIDRs)",
    "kube-router": "cleans the IPVS table at start and on sync",
    "keepalived": "programs IPVS itself: take the VIP out of its virtual_server blocks",
    "kube-vip": "programs IPVS itself: one of the two must go",
    "ldirectord": "programs IPVS itself: one of the two must go",
    "ipvsadm": "is run by hand or by a script",
}


def culprits(root: Path = Path("/")) -> Iterator[str]:
    """Yield `name (pid N): what it does` for each such process; /proc/PID/comm names it."""
    for comm in sorted((root / "proc").glob("[0-9]*/comm")):
        try:
            name = comm.read_text().strip()
        except OSError:
            continue  # it has ended meanwhile
        if name in _KNOWN:
            yield f"{name} (pid {comm.parent.name}) {_KNOWN[name]}"
    if (root / "sys/class/net/kube-ipvs0").exists():
        yield "kube-proxy runs in IPVS mode here (link kube-ipvs0)"
