"""What revip has changed on this host and must be able to put back after a restart.

A small JSON file, replaced atomically before each first change.  It is bound to one boot: sysctls
and packet-filter rules do not outlive it, so a record of another boot is void.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Changed:
    """A sysctl that we changed: the value it had before the first time, and the one we gave it."""

    former: str
    given: str


@dataclass(frozen=True, slots=True)
class Started:
    """A sync daemon that we started, in words, and the index that its interface had."""

    daemon: str
    index: int


class Record:
    """The changes in memory, and on disk as far as the disk allows."""

    def __init__(self, path: Path) -> None:
        self.sysctls: dict[str, Changed] = {}
        self.chains: set[str] = set()
        """Packet-filter rules of ours, in the words of `packet_filter.entry`."""
        self.fences: set[str] = set()
        """Addresses that have a fence of ours."""
        self.sync: dict[str, Started] = {}
        """Sync daemons of ours by their role."""
        self.trouble: str | None = None
        """Why the file cannot be kept, in one sentence; None when all is well."""
        self._path = path
        self._loaded = False

    def load(self) -> None:
        """Read the file once; a missing, damaged or foreign one is an empty record."""
        if self._loaded:
            return
        self._loaded = True
        try:
            document: Any = json.loads(self._path.read_text(encoding="utf-8"))
            if document["boot"] != _boot():
                return
            self.sysctls = {
                str(name): Changed(str(entry["former"]), str(entry["given"]))
                for name, entry in document["sysctls"].items()
            }
            self.chains = {str(entry) for entry in document["chains"]}
            self.fences = {str(address) for address in document.get("fences", ())}
            self.sync = {
                str(role): Started(str(entry["daemon"]), int(entry["index"]))
                for role, entry in document.get("sync", {}).items()
            }
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.trouble = f"cannot read {self._path} ({error}): former sysctls are not known"

    def save(self) -> None:
        """Replace the file; when that fails say so in `trouble` and go on.

        A disk that is full must not keep the host from being healed.
        """
        document = {
            "boot": _boot(),
            "sysctls": {
                name: {"former": change.former, "given": change.given}
                for name, change in sorted(self.sysctls.items())
            },
            "chains": sorted(self.chains),
            "fences": sorted(self.fences),
            "sync": {role: asdict(started) for role, started in sorted(self.sync.items())},
        }
        fresh = self._path.with_name(self._path.name + ".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with fresh.open("w", encoding="utf-8") as stream:
                json.dump(document, stream, indent=1)
                stream.flush()
                os.fsync(stream.fileno())
            fresh.replace(self._path)
            self.trouble = None
        except OSError as error:
            self.trouble = (
                f"cannot write {self._path} ({error.strerror}): "
                "after a crash the former sysctls would not be known"
            )


def _boot() -> str:
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"
